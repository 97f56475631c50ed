//! Reply addresses: a channel opens one, anybody who knows it can reply, nobody can guess it. A
//! reply goes straight to the session, past every queue, and promises nothing.

use crate::mailbox::Mailbox;
use foldhash::HashMap;
use model::{ChannelId, Message, Name, Notice, SessionId};
use parking_lot::Mutex;
use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

/// What stands in front of an address in a routing key.
pub const REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";

pub(crate) struct Replies {
    open: Mutex<HashMap<Name, Requester>>,
    secret: foldhash::quality::FixedState,
    counter: std::sync::atomic::AtomicU64,
    seed: u64,
}

#[derive(Clone)]
pub(crate) struct Requester {
    pub(crate) session: SessionId,
    pub(crate) channel: ChannelId,
    mailbox: Arc<Mailbox>,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Eleven characters for 64 bits.
fn spell(mut number: u64, out: &mut String) {
    for _ in 0..11 {
        out.push(char::from(ALPHABET[(number & 63) as usize]));
        number >>= 6;
    }
}

impl Replies {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self {
            open: Mutex::default(),
            secret: foldhash::quality::FixedState::with_seed(seed[0]),
            counter: std::sync::atomic::AtomicU64::new(0),
            seed: seed[1],
        }
    }

    /// Opens an address for the channel.
    pub(crate) fn open(
        &self,
        session: SessionId,
        channel: ChannelId,
        mailbox: &Arc<Mailbox>,
    ) -> Name {
        let count = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut address = String::from("g");
        for part in 0..2 {
            let mut hasher = self.secret.build_hasher();
            hasher.write_u64(self.seed);
            hasher.write_u64(count);
            hasher.write_u64(part);
            spell(hasher.finish(), &mut address);
        }
        spell(session.0, &mut address);
        let address = Name::from(address);
        let requester = Requester { session, channel, mailbox: Arc::clone(mailbox) };
        self.open.lock().insert(address.clone(), requester);
        address
    }

    /// Who listens at the routing key, if it is an address that is open.
    pub(crate) fn requester(&self, routing_key: &str) -> Option<Requester> {
        let address = routing_key.strip_prefix(REPLY_PREFIX)?;
        self.open.lock().get(address).cloned()
    }

    pub(crate) fn close(&self, session: SessionId, channel: Option<ChannelId>) {
        let ends = |it: &Requester| {
            it.session == session && channel.is_none_or(|channel| channel == it.channel)
        };
        self.open.lock().retain(|_, it| !ends(it));
    }
}

impl Requester {
    pub(crate) fn reply(&self, message: Arc<Message>) {
        self.mailbox.push_reply(Notice::Reply { channel: self.channel, message });
    }
}
