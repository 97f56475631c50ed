//! One connection without a socket: octets in, octets out, the way `server` moves them.

use crate::{
    host::{Host, USER},
    wire::{NOW, VHOST, Wire},
};
use amqp091::method::Method;
use broker::{Connect, SessionHandle};
use model::Notice;
use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

/// Notices that are encoded before what they come to is written.
const NOTICES_PIECE: usize = 256;

/// A session on a broker, and what its client has seen.
pub struct Peer {
    wire: Wire,
    handle: SessionHandle,
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
            wire: Wire::open(),
            handle,
            notices: VecDeque::new(),
            delivered: 0,
            confirmed: 0,
            written: 0,
        };
        peer.hand_over();
        peer
    }

    /// Sends one method, lets the broker work, and takes the answers.
    pub fn ask(&mut self, host: &Host, method: &Method) {
        self.wire.say(1, method);
        self.hand_over();
        host.sync();
        self.listen();
        assert!(self.wire.is_open());
    }

    /// One read of the socket and what follows from it.
    pub fn receive(&mut self, octets: &[u8]) {
        self.wire.receive(octets);
        self.hand_over();
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
            self.wire.notify(self.notices.drain(..piece));
            self.hand_over();
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

    /// Requests to the broker, octets to the socket, and the credit that comes of that.
    fn hand_over(&mut self) {
        self.submit();
        let written = self.wire.write();
        if written != 0 {
            self.written += written;
            self.submit();
        }
    }

    fn submit(&mut self) {
        if !self.wire.requests.is_empty() {
            self.handle.submit(&mut self.wire.requests, NOW);
        }
    }
}
