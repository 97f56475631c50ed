//! One connection from its first octet to its last: what it is made of, how it opens, keeps its
//! time and ends. Knows no socket, no clock and no broker.

use crate::{
    channel::{Around, Client},
    channels::Channels,
    config::SessionConfig,
    consuming::Consumers,
    frame::FrameError,
    handshake::{Disconnect, Handshake, Negotiated},
    method::Method,
    naming::Naming,
    output::Output,
    pulse::{Due, Pulse},
    reply::{NO_METHOD, Reply},
};
use bytes::Bytes;
use model::{Name, Refusal, Request, Timestamp};
use std::{collections::VecDeque, sync::Arc};

/// The one client library that counts on a changed prefetch acting at once.
const LIVE_PREFETCH_PRODUCT: &str = "py-amqp";

/// Something that the server must do before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ask who this is, then call [`Session::logged_in`].
    Login {
        /// Such as `PLAIN`.
        mechanism: &'static str,
        /// Empty with `EXTERNAL`: the client's certificate says who it is.
        user: Name,
        /// `None` with `EXTERNAL`.
        password: Option<Bytes>,
    },
    /// Open the virtual host, then call [`Session::opened`].
    Open { vhost: Name },
    /// Write what is in the output, then close the socket.
    Finished,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Handshake(Box<Handshake>),
    Running,
    /// The client has said goodbye; it is answered when no frame waits any more.
    Parting,
    /// A close was sent; its answer is the only thing that counts.
    Closing,
    Over,
}

/// Where requests and frames go.
pub(crate) struct Sink<'a> {
    pub(crate) requests: &'a mut Vec<Request>,
    pub(crate) output: &'a mut Output,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Arc<SessionConfig>,
    pub(crate) stage: Stage,
    pub(crate) negotiated: Option<Negotiated>,
    pub(crate) user: Name,
    pub(crate) client: Client,
    pub(crate) channels: Channels,
    pub(crate) consumers: Consumers,
    pub(crate) naming: Naming,
    pub(crate) pulse: Pulse,
    /// Channels that the user may open.
    pub(crate) channels_max: Option<u32>,
    /// Whole frames, not yet used up.
    pub(crate) inbox: Bytes,
    /// What stands behind them is no frame.
    pub(crate) broken: Option<FrameError>,
    /// Octets that were left in the input, to see whether some have come.
    pub(crate) input_left: usize,
    /// Why publishers are held back.
    pub(crate) blocked: Option<&'static str>,
    /// The client wants to be told.
    pub(crate) hears_blocked: bool,
    pub(crate) has_told_blocked: bool,
    pub(crate) has_published: bool,
    /// A publish waits until publishers may go on.
    pub(crate) is_held: bool,
    pub(crate) disconnect: Option<Disconnect>,
    pub(crate) is_silent: bool,
    /// Channels with confirms to write, with answers to go on from, and with frames that outlived
    /// their channel; empty between calls.
    pub(crate) confirmed: Vec<u16>,
    pub(crate) answered: Vec<u16>,
    pub(crate) orphans: Vec<(u16, VecDeque<Bytes>)>,
}

impl Session {
    /// A session for a connection that has just come. The seed makes the names that it makes up
    /// different from other sessions'.
    pub fn new(config: Arc<SessionConfig>, seed: u64) -> Self {
        Self {
            stage: Stage::Handshake(Box::new(Handshake::new(config.clone()))),
            config,
            negotiated: None,
            user: Name::default(),
            client: Client::default(),
            channels: Channels::default(),
            consumers: Consumers::default(),
            naming: Naming::new(seed),
            pulse: Pulse::new(),
            channels_max: None,
            inbox: Bytes::new(),
            broken: None,
            input_left: 0,
            blocked: None,
            hears_blocked: false,
            has_told_blocked: false,
            has_published: false,
            is_held: false,
            disconnect: None,
            is_silent: false,
            confirmed: Vec::new(),
            answered: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// The virtual host is open and no close was sent.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Running | Stage::Parting)
    }

    /// What both sides agreed on, once the virtual host is open.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// Who wants to log in or has; empty before, and with a certificate.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// Who it is by its certificate or token, where the name it gave does not count.
    pub fn set_user(&mut self, user: Name) {
        self.user = user;
    }

    /// Where it wants to be or is; empty before.
    pub fn vhost(&self) -> &Name {
        &self.client.vhost
    }

    /// Channels that are open.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many channels the user may open, besides what was negotiated.
    pub fn limit_channels(&mut self, max: Option<u32>) {
        self.channels_max = max;
    }

    /// Why the handshake ended the connection, if it did; a refused login is to be answered late.
    pub fn disconnect(&self) -> Option<&Disconnect> {
        self.disconnect.as_ref()
    }

    /// The session finished because the peer was silent: its socket is to be reset.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The server must not read the socket now: publishers are held back, or too much waits. When
    /// this turns false, [`Session::receive`] is to be called also without new octets.
    pub fn holds_back(&self) -> bool {
        self.is_open()
            && (self.is_held || self.channels.is_stash_full() || self.channels.is_crowded())
    }

    /// The server will ask to be heard again at this time, at the latest.
    pub fn next_tick(&self, now: Timestamp) -> Option<Timestamp> {
        if matches!(self.stage, Stage::Over) { None } else { self.pulse.next(now) }
    }

    /// Something was written to the socket.
    pub fn sent(&mut self, now: Timestamp) {
        self.pulse.sent(now);
    }

    /// Sends a heartbeat when one is due, and ends what takes too long.
    pub fn tick(&mut self, now: Timestamp, output: &mut Output) -> Option<Event> {
        if self.holds_back() {
            // Nobody hears the peer now.
            self.pulse.received(now);
        }
        match self.pulse.look(now) {
            Due::Nothing => {}
            Due::Heartbeat => {
                if self.is_open() {
                    output.heartbeat();
                }
                self.pulse.sent(now);
            }
            Due::Silence => {
                self.is_silent = true;
                self.stage = Stage::Over;
            }
            Due::Overdue => self.stage = Stage::Over,
        }
        self.finished()
    }

    pub(crate) fn finished(&self) -> Option<Event> {
        matches!(self.stage, Stage::Over).then_some(Event::Finished)
    }

    /// Ends the connection from the server's side.
    pub fn close(&mut self, refusal: Refusal, output: &mut Output) {
        match &mut self.stage {
            Stage::Handshake(handshake) => {
                handshake.end(&refusal, output);
                if handshake.closing().is_none() {
                    // The peer has not said yet that it understands a close.
                    self.stage = Stage::Over;
                }
                self.pulse.limit();
            }
            Stage::Running | Stage::Parting => {
                self.fail(&Reply::refused(&refusal, NO_METHOD), output);
            }
            Stage::Closing | Stage::Over => {}
        }
    }

    /// Ends the connection with this reply.
    pub(crate) fn fail(&mut self, reply: &Reply, output: &mut Output) {
        self.flush_confirms(output);
        output.method(0, &reply.connection_close());
        self.stage = Stage::Closing;
        self.channels.clear();
        self.pulse.limit();
    }

    /// Writes all confirms that wait.
    pub(crate) fn flush_confirms(&mut self, output: &mut Output) {
        while let Some(number) = self.confirmed.pop() {
            if let Some(channel) = self.channels.get(number) {
                channel.flush_confirms(output);
            }
        }
    }

    /// Tells a client that publishes, once, that it is held back.
    pub(crate) fn tell_blocked(&mut self, output: &mut Output) {
        if let Some(reason) = self.blocked
            && self.has_published
            && self.hears_blocked
            && !self.has_told_blocked
        {
            output.method(0, &Method::ConnectionBlocked { reason: Name::new(reason) });
            self.has_told_blocked = true;
        }
    }

    /// Everything written to the output up to now has left for the socket: the consumers' queues
    /// may send as much again.
    pub fn flushed(&mut self, requests: &mut Vec<Request>) {
        if self.is_open() {
            self.consumers.give_back(requests);
        }
    }

    /// The answer to [`Event::Login`].
    pub fn logged_in(
        &mut self,
        accepted: bool,
        now: Timestamp,
        output: &mut Output,
    ) -> Option<Event> {
        if let Stage::Handshake(handshake) = &mut self.stage {
            self.pulse.received(now);
            if let Err(disconnect) = handshake.logged_in(accepted, output) {
                self.disconnect = Some(disconnect);
                self.stage = Stage::Over;
            } else if !accepted {
                self.pulse.limit();
            }
        }
        self.finished()
    }

    /// The answer to [`Event::Open`].
    pub fn opened(&mut self, result: Result<(), Refusal>, output: &mut Output) -> Option<Event> {
        if let Stage::Handshake(handshake) = &mut self.stage
            && let Some(negotiated) = handshake.opened(result, output)
        {
            let client = &negotiated.client;
            self.client.changes_prefetch_live =
                client.product.as_deref() == Some(LIVE_PREFETCH_PRODUCT);
            self.client.hears_cancel = client.capabilities.consumer_cancel_notify;
            self.hears_blocked = client.capabilities.connection_blocked;
            self.pulse.open(negotiated.heartbeat_s);
            self.negotiated = Some(negotiated);
            self.stage = Stage::Running;
        }
        self.finished()
    }

    /// Ends the channel, or the connection, as the reply says.
    pub(crate) fn fault(&mut self, number: u16, reply: &Reply, sink: &mut Sink<'_>) {
        let (channels, mut around) = self.around(sink);
        match channels.get(number) {
            Some(channel) if !reply.is_hard() => {
                channel.fail(reply, &mut around);
                channels.drop_stash(number);
                channels.count_unconfirmed(number);
            }
            _ => self.fail(reply, sink.output),
        }
    }

    pub(crate) fn around<'a>(
        &'a mut self,
        sink: &'a mut Sink<'_>,
    ) -> (&'a mut Channels, Around<'a>) {
        let around = Around {
            config: &self.config,
            client: &self.client,
            consumers: &mut self.consumers,
            naming: &mut self.naming,
            requests: sink.requests,
            output: sink.output,
        };
        (&mut self.channels, around)
    }
}
