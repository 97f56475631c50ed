//! One connection without a socket: octets in, octets out, the way `server` moves them.

use crate::{
    client,
    host::{Host, NOW, USER, VHOST},
};
use amqp091::{
    Session, config::SessionConfig, frame::PROTOCOL_HEADER, method::Method, output::Output,
    secret::Secret,
};
use broker::{Connect, SessionHandle};
use bytes::BytesMut;
use model::{Name, Notice, Request, Table};
use std::{
    collections::VecDeque,
    hint::black_box,
    io::IoSlice,
    sync::Arc,
    task::{Context, Waker},
};

/// Octets of one read, when there is much to read.
pub const READ_BYTES: usize = 128 * 1024;
/// Notices that are encoded before what they come to is written.
const NOTICES_PIECE: usize = 256;
const SLICES: usize = 64;

/// A session with what stands around it, and what the client has seen of it.
pub struct Peer {
    session: Session,
    handle: SessionHandle,
    input: BytesMut,
    output: Output,
    requests: Vec<Request>,
    notices: VecDeque<Notice>,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Octets that were written.
    pub written: u64,
}

impl Peer {
    /// Connected, logged in, with channel 1 open.
    pub fn connect(host: &Host) -> Self {
        let connect = Connect { user: USER.into(), vhost: VHOST.into(), peer: "counts".into() };
        let handle = host.broker.connect(connect).expect("the user may come in");
        let mut peer = Self {
            session: Session::new(Arc::new(SessionConfig::default()), 1),
            handle,
            input: BytesMut::new(),
            output: Output::new(),
            requests: Vec::new(),
            notices: VecDeque::new(),
            delivered: 0,
            confirmed: 0,
            written: 0,
        };
        peer.receive(&PROTOCOL_HEADER);
        peer.say(
            0,
            &Method::ConnectionStartOk {
                client_properties: Table::default(),
                mechanism: Name::new("PLAIN"),
                response: Secret::new(b"\0app\0p"),
                locale: Name::default(),
            },
        );
        peer.session.logged_in(true, NOW, &mut peer.output);
        let (channel_max, frame_max, heartbeat_s) = (2_047, 131_072, 0);
        peer.say(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s });
        peer.say(0, &Method::ConnectionOpen { virtual_host: Name::new(VHOST) });
        peer.session.opened(Ok(()), &mut peer.output);
        peer.say(1, &Method::ChannelOpen {});
        assert!(peer.session.is_open());
        peer
    }

    /// Sends one method.
    pub fn say(&mut self, channel: u16, method: &Method) {
        self.receive(&client::method(channel, method));
    }

    /// Sends one method, lets the broker work, and takes the answers.
    pub fn ask(&mut self, host: &Host, method: &Method) {
        self.say(1, method);
        host.sync();
        self.listen();
        assert!(self.session.is_open());
    }

    /// One read of the socket and what follows from it.
    pub fn receive(&mut self, octets: &[u8]) {
        if self.input.capacity() - self.input.len() < READ_BYTES / 2 {
            self.input.reserve(READ_BYTES);
        }
        // Stands for the kernel's copy.
        self.input.extend_from_slice(octets);
        let (requests, output) = (&mut self.requests, &mut self.output);
        self.session.receive(&mut self.input, NOW, requests, output);
        self.submit();
        self.write();
    }

    /// Takes what the broker says until it says nothing more; true when it said something.
    pub fn listen(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut was_told = false;
        loop {
            if self.notices.is_empty() {
                let mut fresh = Vec::from(std::mem::take(&mut self.notices));
                let told = self.handle.poll_notices(&mut context, &mut fresh);
                self.notices = VecDeque::from(fresh);
                if told.is_pending() {
                    return was_told;
                }
            }
            was_told = true;
            let piece = self.notices.len().min(NOTICES_PIECE);
            self.count(piece);
            let (requests, output) = (&mut self.requests, &mut self.output);
            self.session.notify(self.notices.drain(..piece), NOW, requests, output);
            self.submit();
            self.write();
        }
    }

    fn count(&mut self, piece: usize) {
        for notice in self.notices.range(..piece) {
            match notice {
                Notice::Delivery(_) => self.delivered += 1,
                Notice::Confirmed { first, last, .. } => self.confirmed += last - first + 1,
                _ => {}
            }
        }
    }

    fn submit(&mut self) {
        if !self.requests.is_empty() {
            self.handle.submit(&mut self.requests, NOW);
            self.requests.clear();
        }
    }

    /// A socket that takes everything.
    fn write(&mut self) {
        if self.output.is_empty() {
            return;
        }
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.output.as_io_slices(&mut slices);
            let count = black_box(&slices[..filled]).iter().map(|it| it.len()).sum();
            self.output.advance(count);
            self.written += count as u64;
        }
        self.session.sent(NOW);
        self.session.flushed(&mut self.requests);
        self.submit();
    }
}
