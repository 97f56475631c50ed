//! What a client sends: frames are found in the input and taken to the connection or to their
//! channel. A channel that waits for the broker has its frames kept, the others go on.

use crate::{
    channel::Phase,
    frame::{self, FrameKind, FramePlace},
    handshake::HandshakeEvent,
    method::{self, Method, MethodIds, PublishView},
    output::Output,
    publishing::{self, ContentError},
    reply::{NO_METHOD, Reply, ReplyCode},
    requests::unimplemented_method,
    session::{Event, Session, Sink, Stage},
};
use bytes::{Bytes, BytesMut};
use model::{Outcome, Request, Timestamp};

const CONNECTION_CLOSE: MethodIds = (10, 50);
const CONNECTION_CLOSE_OK: MethodIds = (10, 51);
const CHANNEL_CLOSE: MethodIds = (20, 40);
const CHANNEL_CLOSE_OK: MethodIds = (20, 41);
const ACK: MethodIds = (60, 80);

/// How the reading of frames goes on.
enum Step {
    /// With the frame that begins here.
    To(usize),
    /// Not now.
    Stop,
}

/// Where frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The socket.
    Inbox,
    /// Their channel, in which they have waited.
    Stash,
    /// A channel that has ended since: they belong to the next one of its number.
    Orphans,
}

impl Session {
    /// Takes complete frames out of `input` and leaves the rest; writes answers, and appends
    /// requests for the broker. After an event it is to be called again, also without new octets.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Timestamp,
        requests: &mut Vec<Request>,
        output: &mut Output,
    ) -> Option<Event> {
        if self.input_left < input.len() {
            self.pulse.received(now);
        }
        let event = match &mut self.stage {
            Stage::Handshake(_) => self.handshake(input, now, output),
            _ => None,
        };
        if event.is_none() && !matches!(self.stage, Stage::Handshake(_)) {
            self.frames(input, &mut Sink { requests, output });
        }
        self.input_left = input.len();
        event.or_else(|| self.finished())
    }

    fn handshake(
        &mut self,
        input: &mut BytesMut,
        now: Timestamp,
        output: &mut Output,
    ) -> Option<Event> {
        let Stage::Handshake(handshake) = &mut self.stage else { return None };
        // The first heartbeat counts from here.
        self.pulse.sent(now);
        match handshake.receive(input, output) {
            Ok(None) => None,
            Ok(Some(HandshakeEvent::Login { mechanism, credentials })) => {
                let mut password = None;
                if let Some(credentials) = credentials {
                    self.user = credentials.user;
                    password = Some(Bytes::copy_from_slice(credentials.password.expose()));
                }
                let (mechanism, user) = (mechanism.name(), self.user.clone());
                Some(Event::Login { mechanism, user, password })
            }
            Ok(Some(HandshakeEvent::Open { vhost })) => {
                self.client.vhost = vhost.clone();
                Some(Event::Open { vhost })
            }
            Err(disconnect) => {
                self.disconnect = Some(disconnect);
                self.stage = Stage::Over;
                None
            }
        }
    }

    /// Uses up the whole frames of the input, as far as they may be.
    fn frames(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) {
        loop {
            self.read_inbox(sink);
            if !self.inbox.is_empty() || matches!(self.stage, Stage::Over) {
                return;
            }
            if let Some(error) = self.broken {
                input.clear();
                if self.is_open() {
                    self.fail(&error.into(), sink.output);
                }
                return;
            }
            if !self.fill_inbox(input) {
                return;
            }
        }
    }

    /// Takes all whole frames out of the input as one shared buffer. False when there is nothing
    /// new.
    fn fill_inbox(&mut self, input: &mut BytesMut) -> bool {
        let frame_max =
            self.negotiated.as_ref().map_or(frame::FRAME_MAX_UNTUNED, |it| it.frame_max);
        let mut end = 0;
        loop {
            match frame::frame_at(input, end, frame_max) {
                Ok(Some(place)) => end = place.end(),
                Ok(None) => break,
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            }
        }
        if 0 < end {
            self.inbox = input.split_to(end).freeze();
        }
        0 < end || self.broken.is_some()
    }

    pub(crate) fn read_inbox(&mut self, sink: &mut Sink<'_>) {
        if !self.inbox.is_empty() {
            let inbox = std::mem::take(&mut self.inbox);
            let at = self.walk(&inbox, Source::Inbox, sink);
            if at < inbox.len() {
                self.inbox = inbox.slice(at..);
            }
            self.part(sink.output);
        }
    }

    /// Uses up frames until something must be waited for; returns where that is.
    pub(crate) fn walk(&mut self, span: &Bytes, source: Source, sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        while !matches!(self.stage, Stage::Over) {
            let is_full =
                source == Source::Inbox && (self.is_held || self.channels.is_stash_full());
            if is_full && !matches!(self.stage, Stage::Closing) {
                break;
            }
            let Ok(Some(place)) = frame::frame_at(span, at, u32::MAX) else { break };
            match self.frame(span, &place, source, sink) {
                Ok(Step::To(next)) => at = next,
                Ok(Step::Stop) => break,
                Err(reply) => {
                    at = place.end();
                    self.fault(place.channel, &reply, sink);
                }
            }
        }
        at
    }

    /// Takes one frame to where it belongs.
    fn frame(
        &mut self,
        span: &Bytes,
        place: &FramePlace,
        source: Source,
        sink: &mut Sink<'_>,
    ) -> Result<Step, Reply> {
        let payload = &span[place.payload.clone()];
        match self.stage {
            Stage::Running => {}
            Stage::Parting if source != Source::Inbox => {}
            Stage::Closing if place.channel == 0 && place.kind == FrameKind::Method => {
                self.closing_method(payload, sink.output);
                return Ok(Step::To(place.end()));
            }
            _ => return Ok(Step::To(place.end())),
        }
        if place.channel == 0 {
            self.connection_frame(place.kind, payload, sink)?;
            return Ok(Step::To(place.end()));
        }
        let Some(channel) = self.channels.get(place.channel) else {
            self.open_channel(place, payload, sink.output)?;
            return Ok(Step::To(place.end()));
        };
        if channel.phase == Phase::Closing {
            self.ended_channel_frame(place, payload, sink.output);
            return Ok(Step::To(place.end()));
        }
        let is_replay = source == Source::Stash;
        if channel.waiting.is_some() || !(is_replay || channel.stash.is_empty()) {
            return Ok(if is_replay { Step::Stop } else { self.stash_run(span, place) });
        }
        // Where this is another publish like the last one, nothing more need be asked.
        if self.blocked.is_none()
            && place.kind == FrameKind::Method
            && channel.content.is_nothing()
            && let Some((published, end)) =
                channel.samples.another(span, place, self.config.message_bytes_max)
        {
            channel.publish(published, sink.requests)?;
            if channel.is_crowded() {
                self.channels.count_unconfirmed(place.channel);
            }
            return Ok(Step::To(end));
        }
        self.channel_frame(span, place, sink)
    }

    /// Keeps the frames of a channel that waits, as far as they lie side by side.
    fn stash_run(&mut self, span: &Bytes, place: &FramePlace) -> Step {
        let start = place.payload.start - frame::FRAME_HEAD_LEN;
        let mut end = place.end();
        while let Ok(Some(next)) = frame::frame_at(span, end, u32::MAX)
            && next.channel == place.channel
        {
            end = next.end();
        }
        self.channels.stash(place.channel, span.slice(start..end));
        Step::To(end)
    }

    /// A method after a close was sent.
    fn closing_method(&mut self, payload: &[u8], output: &mut Output) {
        match method::method_ids(payload) {
            Some(CONNECTION_CLOSE_OK) => self.stage = Stage::Over,
            Some(CONNECTION_CLOSE) => {
                output.method(0, &Method::ConnectionCloseOk {});
                self.stage = Stage::Over;
            }
            _ => {}
        }
    }

    fn connection_frame(
        &mut self,
        kind: FrameKind,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Reply> {
        match kind {
            FrameKind::Heartbeat => return Ok(()),
            FrameKind::Header | FrameKind::Body => return Err(ContentError::NoMethod.into()),
            FrameKind::Method => {}
        }
        match Method::decode(payload)? {
            Method::ConnectionClose { .. } => {
                self.stage = Stage::Parting;
                self.pulse.limit();
            }
            Method::ConnectionUpdateSecret { .. } => {
                sink.output.method(0, &Method::ConnectionUpdateSecretOk {});
            }
            other => return Err(unimplemented_method(other.ids())),
        }
        Ok(())
    }

    /// Answers the client's goodbye, once nothing that it sent before waits.
    pub(crate) fn part(&mut self, output: &mut Output) {
        if matches!(self.stage, Stage::Parting) && !self.channels.has_stash() {
            self.flush_confirms(output);
            output.method(0, &Method::ConnectionCloseOk {});
            self.stage = Stage::Over;
        }
    }

    /// A frame of a channel that is not open: it may only open it.
    fn open_channel(
        &mut self,
        place: &FramePlace,
        payload: &[u8],
        output: &mut Output,
    ) -> Result<(), Reply> {
        if place.kind != FrameKind::Method {
            return Err(ContentError::NoMethod.into());
        }
        match Method::decode(payload)? {
            Method::ChannelOpen {} => {}
            other if other.ids().0 == CONNECTION_CLOSE.0 => {
                return Err(unimplemented_method(other.ids()));
            }
            other => {
                let text = "expected 'channel.open'";
                return Err(Reply::new(ReplyCode::ChannelError, text, other.ids()));
            }
        }
        let refused = |text: String| Err(Reply::new(ReplyCode::NotAllowed, &text, NO_METHOD));
        let open = self.channels.len();
        let max = self.negotiated.as_ref().map_or(u16::MAX, |it| it.channel_max);
        if usize::from(max) <= open {
            return refused(format!(
                "number of channels opened ({open}) has reached the negotiated channel_max ({max})"
            ));
        }
        if let Some(max) = self.channels_max
            && max as usize <= open
        {
            return refused(format!(
                "number of channels opened for user '{}' has reached the maximum allowed user \
                 limit of {max}",
                self.user
            ));
        }
        self.channels.add(place.channel);
        output.method(place.channel, &Method::ChannelOpenOk {});
        Ok(())
    }

    /// A frame of a channel that the broker closed: only the word that this was seen counts.
    fn ended_channel_frame(&mut self, place: &FramePlace, payload: &[u8], output: &mut Output) {
        if place.kind != FrameKind::Method {
            return;
        }
        match method::method_ids(payload) {
            Some(CHANNEL_CLOSE_OK) => {
                self.channels.remove(place.channel, true);
            }
            // Both have closed it at the same time.
            Some(CHANNEL_CLOSE) => output.method(place.channel, &Method::ChannelCloseOk {}),
            _ => {}
        }
    }

    /// A frame of an open channel that waits for nothing.
    fn channel_frame(
        &mut self,
        span: &Bytes,
        place: &FramePlace,
        sink: &mut Sink<'_>,
    ) -> Result<Step, Reply> {
        let bytes_max = self.config.message_bytes_max;
        let next = Ok(Step::To(place.end()));
        let payload = &span[place.payload.clone()];
        let published = match place.kind {
            FrameKind::Method => match method::publish_view(payload) {
                Some(view) => return self.publish(span, place, view, sink),
                None => {
                    self.channel_method(place.channel, payload, sink)?;
                    return next;
                }
            },
            FrameKind::Header => {
                let Some(channel) = self.channels.get(place.channel) else { return next };
                channel.content.header(span.slice(place.payload.clone()), bytes_max)?
            }
            FrameKind::Body => {
                let Some(channel) = self.channels.get(place.channel) else { return next };
                channel.content.body(span.slice(place.payload.clone()))?
            }
            FrameKind::Heartbeat => None,
        };
        if let Some(published) = published
            && let Some(channel) = self.channels.get(place.channel)
        {
            channel.publish(published, sink.requests)?;
            self.channels.count_unconfirmed(place.channel);
        }
        next
    }

    /// A `basic.publish`, with what follows it if that is all there.
    #[inline]
    fn publish(
        &mut self,
        span: &Bytes,
        place: &FramePlace,
        view: PublishView,
        sink: &mut Sink<'_>,
    ) -> Result<Step, Reply> {
        self.has_published = true;
        if self.blocked.is_some() {
            self.tell_blocked(sink.output);
            self.is_held = true;
            return Ok(Step::Stop);
        }
        let bytes_max = self.config.message_bytes_max;
        let Some(channel) = self.channels.get(place.channel) else {
            return Ok(Step::To(place.end()));
        };
        if channel.content.is_nothing()
            && let Some((published, end)) = publishing::whole(span, place, &view, bytes_max)
        {
            channel.samples.learn(span, place, &published);
            channel.publish(published, sink.requests)?;
            if channel.is_crowded() {
                self.channels.count_unconfirmed(place.channel);
            }
            return Ok(Step::To(end));
        }
        channel.content.begin(span.slice(place.payload.clone()), view)?;
        Ok(Step::To(place.end()))
    }

    fn channel_method(
        &mut self,
        number: u16,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Reply> {
        let (channels, mut around) = self.around(sink);
        let Some(channel) = channels.get(number) else { return Ok(()) };
        channel.content.check_method()?;
        if let Some(ack) = method::ack_view(payload) {
            let which = (ack.delivery_tag, ack.multiple);
            return channel.settle(ACK, which, Outcome::Accept, &mut around);
        }
        match Method::decode(payload)? {
            Method::ChannelOpen {} => {
                let text = "second 'channel.open' seen";
                Err(Reply::new(ReplyCode::ChannelError, text, (20, 10)))
            }
            Method::ChannelClose { .. } => {
                channel.close(CHANNEL_CLOSE, &mut around);
                Ok(())
            }
            Method::ChannelCloseOk {} => Ok(()),
            other => channel.method(other, &mut around),
        }
    }
}
