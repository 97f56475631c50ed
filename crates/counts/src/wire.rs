//! One AMQP session between octets and requests, with the buffers that `server` puts around it. No
//! broker stands behind it.

use crate::client;
use amqp091::{
    Session, config::SessionConfig, frame::PROTOCOL_HEADER, method::Method, output::Output,
    secret::Secret,
};
use bytes::BytesMut;
use model::{Name, Notice, Request, Table, Timestamp};
use std::{hint::black_box, io::IoSlice, sync::Arc};

/// Time stands still, so nothing expires and no timer is due.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// The virtual host that clients name.
pub const VHOST: &str = "/";
/// Octets of one read, when there is much to read.
pub const READ_BYTES: usize = 128 * 1024;
const COPY_BYTES: usize = 1024;
const SLICES: usize = 64;

/// A session and its buffers.
pub struct Wire {
    session: Session,
    input: BytesMut,
    output: Output,
    /// What the session wants of the broker.
    pub requests: Vec<Request>,
}

impl Wire {
    /// Logged in, with channel 1 open.
    pub fn open() -> Self {
        let mut wire = Self {
            session: Session::new(Arc::new(SessionConfig::default()), 1),
            input: BytesMut::new(),
            output: Output::new(),
            requests: Vec::new(),
        };
        wire.receive(&PROTOCOL_HEADER);
        wire.say(
            0,
            &Method::ConnectionStartOk {
                client_properties: Table::default(),
                mechanism: Name::new("PLAIN"),
                response: Secret::new(b"\0app\0p"),
                locale: Name::default(),
            },
        );
        wire.session.logged_in(true, NOW, &mut wire.output);
        let (channel_max, frame_max, heartbeat_s) = (2_047, 131_072, 0);
        wire.say(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s });
        wire.say(0, &Method::ConnectionOpen { virtual_host: Name::new(VHOST) });
        wire.session.opened(Ok(()), &mut wire.output);
        wire.say(1, &Method::ChannelOpen {});
        assert!(wire.is_open());
        wire
    }

    /// No close was sent.
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// Receives one method.
    pub fn say(&mut self, channel: u16, method: &Method) {
        self.receive(&client::method(channel, method));
    }

    /// What follows from one read of the socket.
    pub fn receive(&mut self, octets: &[u8]) {
        if self.input.capacity() - self.input.len() < READ_BYTES / 2 {
            self.input.reserve(READ_BYTES);
        }
        // Stands for the kernel's copy. A long one is counted octet by octet.
        for piece in octets.chunks(COPY_BYTES) {
            self.input.extend_from_slice(piece);
        }
        self.session.receive(&mut self.input, NOW, &mut self.requests, &mut self.output);
    }

    /// What follows from notices of the broker.
    pub fn notify(&mut self, notices: impl Iterator<Item = Notice>) {
        self.session.notify(notices, NOW, &mut self.requests, &mut self.output);
    }

    /// Writes to a socket that takes everything. Returns how many octets it was.
    pub fn write(&mut self) -> u64 {
        let mut written = 0;
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.output.as_io_slices(&mut slices);
            let count = black_box(&slices[..filled]).iter().map(|it| it.len()).sum();
            self.output.advance(count);
            written += count as u64;
        }
        if written != 0 {
            self.session.sent(NOW);
            self.session.flushed(&mut self.requests);
        }
        written
    }
}
