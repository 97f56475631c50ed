//! Moves octets, requests and notices of one connection: from the socket to the session, from the
//! session to the broker, and back. One wake takes everything that is there.

use amqp091::{Event, Session, output::Output};
use broker::{Pressure, SessionHandle};
use bytes::{BufMut as _, BytesMut};
use model::{Notice, Refusal, Request, Timestamp, limits};
use node::clock::Clock;
use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::Sleep,
};

/// Octets that one read asks for: little at first, more when reads come back full.
const READ_BYTES_MIN: usize = 8 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024;
/// Octets of input that may wait before the virtual host is open.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Octets of output at which nothing more is read, and nothing more is taken from the broker.
const OUTPUT_READ_MAX: usize = limits::OUTGOING_BYTES_MAX as usize;
const OUTPUT_NOTICES_MAX: usize = 4 * OUTPUT_READ_MAX;
/// Notices that are encoded before what they come to is written.
const NOTICES_PIECE: usize = 256;
const SLICES: usize = 64;
/// How long a publisher pauses at most when consumers are slower, and how often it looks. What the
/// consumers of a live queue cannot take in this time goes to the disk.
const PRESSED_MS: u64 = 20;
const PRESSED_LOOK_MS: u64 = 1;
/// Times that one wake goes round before others get their turn.
const ROUNDS_MAX: usize = 32;
/// Octets that one wake reads and writes before others get their turn: whom it has woken may stand
/// behind it on the same thread.
const WAKE_BYTES_MAX: u64 = 32 * 1024;
/// Requests that one read brings: with more of them what belongs to one batch does not stay in the
/// processor's cache until it is done, with far fewer there is more to be gained from larger reads.
const READ_REQUESTS_MAX: usize = 1_024;
const READ_REQUESTS_MIN: usize = READ_REQUESTS_MAX / 8;

/// What comes next of a connection.
#[derive(Debug)]
pub(crate) enum Step {
    Event(Event),
    Ended(End),
}

/// Why a connection ended without its session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client closed its socket")]
    ByClient,
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("the client did not read what it was sent")]
    NotReading,
    #[error("the client sent too much before it had logged in")]
    TooMuch,
}

impl End {
    /// The client went, with or without ceremony.
    pub(crate) fn is_by_client(&self) -> bool {
        match self {
            Self::ByClient => true,
            Self::Socket(error) => error.kind() == io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }
}

pub(crate) struct Traffic<S> {
    stream: S,
    clock: Clock,
    session: Session,
    broker: Attached,
    input: BytesMut,
    read_bytes: usize,
    read_bytes_max: usize,
    /// Octets that were read and written.
    moved_bytes: u64,
    /// The session is to be called without new octets: an event was dealt with.
    is_resumed: bool,
    output: Output,
    requests: Vec<Request>,
    /// What the broker has said and the session has not heard.
    notices: VecDeque<Notice>,
    /// Since when the socket has taken nothing of the output.
    stalled: Option<Timestamp>,
    write_ms_max: u64,
    /// What was written may still be in a buffer of TLS.
    is_unflushed: bool,
    alarm: Alarm,
    /// Until when nothing is read, and why.
    pressed_until: Option<(Timestamp, Pressure)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Traffic<S> {
    pub(crate) fn new(stream: S, session: Session, clock: Clock, write_timeout: Duration) -> Self {
        Self {
            stream,
            clock,
            session,
            broker: Attached { handle: None, clock },
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            read_bytes_max: READ_BYTES_MAX,
            moved_bytes: 0,
            is_resumed: false,
            output: Output::new(),
            requests: Vec::new(),
            notices: VecDeque::new(),
            stalled: None,
            write_ms_max: u64::try_from(write_timeout.as_millis()).unwrap_or(u64::MAX),
            is_unflushed: false,
            alarm: Alarm::new(),
            pressed_until: None,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Goes on until something is to be decided.
    pub(crate) async fn step(&mut self) -> Step {
        poll_fn(|context| self.poll_step(context)).await
    }

    /// Answers a login.
    pub(crate) fn logged_in(&mut self, accepted: bool, channels_max: Option<u32>) -> Option<Event> {
        self.is_resumed = true;
        self.session.limit_channels(channels_max);
        self.session.logged_in(accepted, self.clock.now(), &mut self.output)
    }

    /// Answers the opening of a virtual host.
    pub(crate) fn opened(&mut self, result: Result<SessionHandle, Refusal>) -> Option<Event> {
        self.is_resumed = true;
        let result = result.map(|handle| self.broker.handle = Some(handle));
        self.session.opened(result, &mut self.output)
    }

    /// Ends the session with this refusal, which the client is told.
    pub(crate) fn close(&mut self, refusal: Refusal) {
        self.session.close(refusal, &mut self.output);
    }

    /// Lets the broker know that the session is over, and writes what waits.
    pub(crate) async fn drain(&mut self) -> Result<(), End> {
        self.broker.close();
        poll_fn(|context| {
            while !self.output.is_empty() || self.is_unflushed {
                match self.write(context, self.clock.now()) {
                    Ok(true) => {}
                    Ok(false) => return Poll::Pending,
                    Err(end) => return Poll::Ready(Err(end)),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        let end = self.moved_bytes + WAKE_BYTES_MAX;
        for _ in 0..ROUNDS_MAX {
            match self.round(context) {
                Ok(true) if end <= self.moved_bytes => break,
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(step) => return Poll::Ready(step),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes from every side once. False when there was nothing, and everybody knows whom to wake.
    fn round(&mut self, context: &mut Context<'_>) -> Result<bool, Step> {
        let now = self.clock.now();
        let has_read = self.take_input(context, now)?;
        let was_told = self.take_notices(context, now)?;
        let has_written = self.write(context, now)?;
        if has_written && self.output.is_empty() {
            self.session.flushed(&mut self.requests);
            self.submit(now);
        }
        let was_due = self.keep_time(context, now)?;
        Ok(has_read || was_told || has_written || was_due)
    }

    fn take_input(&mut self, context: &mut Context<'_>, now: Timestamp) -> Result<bool, Step> {
        if !std::mem::take(&mut self.is_resumed) && !self.read(context, now)? {
            return Ok(false);
        }
        let input = &mut self.input;
        let event = self.session.receive(input, now, &mut self.requests, &mut self.output);
        self.adapt_to(self.requests.len());
        self.hand_over(event, now)?;
        if !self.session.is_open() && HANDSHAKE_BYTES_MAX <= self.input.len() {
            return Err(End::TooMuch.into());
        }
        Ok(true)
    }

    /// Reads once, unless what came before has to go on first.
    fn read(&mut self, context: &mut Context<'_>, now: Timestamp) -> Result<bool, Step> {
        let is_held = OUTPUT_READ_MAX <= self.output.len() || self.session.holds_back();
        if is_held || self.is_pressed(now) || self.broker.poll_room(context).is_pending() {
            return Ok(false);
        }
        if self.input.capacity() - self.input.len() < self.read_bytes / 2 {
            self.input.reserve(self.read_bytes);
        }
        let room = (self.input.capacity() - self.input.len()).min(self.read_bytes);
        let mut input = (&mut self.input).limit(room);
        let read = pin!(self.stream.read_buf(&mut input)).poll(context);
        let Poll::Ready(read) = read else { return Ok(false) };
        let count = read.map_err(End::Socket)?;
        if count == 0 {
            return Err(End::ByClient.into());
        }
        self.moved_bytes += count as u64;
        self.adapt(count, room);
        Ok(true)
    }

    fn is_pressed(&mut self, now: Timestamp) -> bool {
        let Some((until, why)) = self.pressed_until else { return false };
        let is_over = why == Pressure::Memory && self.broker.has_room();
        let goes_on = now < until && !is_over;
        if !goes_on {
            self.pressed_until = None;
        }
        goes_on
    }

    /// A connection with much to say gets larger reads, one with little gives its buffer back.
    fn adapt(&mut self, count: usize, room: usize) {
        if count == room && self.session.is_open() {
            self.read_bytes = (4 * self.read_bytes).min(self.read_bytes_max);
        } else if count < self.read_bytes / 16 && READ_BYTES_MIN < self.read_bytes {
            self.read_bytes /= 2;
        }
    }

    /// A read is as large as the messages are: what it brings is to be a batch of good size.
    fn adapt_to(&mut self, requests: usize) {
        if READ_REQUESTS_MAX < requests {
            self.read_bytes_max = (self.read_bytes_max / 2).max(READ_BYTES_MIN);
            self.read_bytes = self.read_bytes.min(self.read_bytes_max);
        } else if requests < READ_REQUESTS_MIN && self.read_bytes_max < READ_BYTES_MAX {
            self.read_bytes_max *= 2;
        }
    }

    /// Takes what the broker says, a piece at a time: a long batch is written as it is encoded, and
    /// the output stays small enough for the processor's cache.
    fn take_notices(&mut self, context: &mut Context<'_>, now: Timestamp) -> Result<bool, Step> {
        if OUTPUT_NOTICES_MAX <= self.output.len() {
            return Ok(false);
        }
        if self.notices.is_empty() {
            // An empty one gives its buffer away and gets one back: nothing is copied.
            let mut fresh = Vec::from(std::mem::take(&mut self.notices));
            let told = self.broker.poll_notices(context, &mut fresh);
            self.notices = VecDeque::from(fresh);
            if told.is_pending() {
                return Ok(false);
            }
        }
        let piece = self.notices.len().min(NOTICES_PIECE);
        let (piece, output) = (self.notices.drain(..piece), &mut self.output);
        let event = self.session.notify(piece, now, &mut self.requests, output);
        self.hand_over(event, now)?;
        Ok(true)
    }

    fn hand_over(&mut self, event: Option<Event>, now: Timestamp) -> Result<(), Step> {
        self.submit(now);
        event.map_or(Ok(()), |it| Err(Step::Event(it)))
    }

    fn submit(&mut self, now: Timestamp) {
        if !self.requests.is_empty() {
            self.broker.submit(&mut self.requests, now);
            if let Some(pressure) = self.broker.take_pressure() {
                let pause_ms = match pressure {
                    Pressure::Backlog { pause_ms } => pause_ms.into(),
                    Pressure::Memory => PRESSED_MS,
                };
                self.pressed_until = Some((now.plus_ms(pause_ms), pressure));
            }
        }
    }

    /// Writes until the socket takes no more. True when some octets went.
    fn write(&mut self, context: &mut Context<'_>, now: Timestamp) -> Result<bool, End> {
        let mut has_written = false;
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.output.as_io_slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write_vectored(context, &slices[..filled]) {
                Poll::Pending => {
                    self.stalled.get_or_insert(now);
                    break;
                }
                Poll::Ready(count) => {
                    let count = count?;
                    if count == 0 {
                        return Err(End::ByClient);
                    }
                    self.output.advance(count);
                    self.moved_bytes += count as u64;
                    (has_written, self.is_unflushed, self.stalled) = (true, true, None);
                }
            }
        }
        if has_written {
            self.session.sent(now);
        }
        if self.is_unflushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Pending => {
                    self.stalled.get_or_insert(now);
                }
                Poll::Ready(flushed) => {
                    flushed?;
                    self.is_unflushed = false;
                    if self.output.is_empty() {
                        self.stalled = None;
                    }
                }
            }
        }
        Ok(has_written)
    }

    /// Lets the session do what is due. True when it was something.
    fn keep_time(&mut self, context: &mut Context<'_>, now: Timestamp) -> Result<bool, Step> {
        let given_up = self.stalled.map(|it| it.plus_ms(self.write_ms_max));
        if given_up.is_some_and(|it| it <= now) {
            return Err(End::NotReading.into());
        }
        let mut due = self.session.next_tick(now);
        let is_due = due.is_some_and(|it| it <= now);
        if is_due {
            let before = self.output.len();
            let event = self.session.tick(now, &mut self.output);
            self.hand_over(event, now)?;
            if before < self.output.len() {
                return Ok(true);
            }
            due = self.session.next_tick(now);
        }
        let look = self.pressed_until.map(|_| now.plus_ms(PRESSED_LOOK_MS));
        let due = due.into_iter().chain(given_up).chain(look).min();
        if let Some(due) = due {
            self.alarm.set(due.max(now.plus_ms(1)), now, context);
        }
        Ok(false)
    }
}

impl From<End> for Step {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

/// One timer of a connection. It is only set when something is due before it rings, so that traffic
/// costs no timer; when it rings too early, the next look at the clock sets it anew.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    rings: Option<Timestamp>,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), rings: None }
    }

    /// Wakes at `due`, which lies after `now`, or before.
    fn set(&mut self, due: Timestamp, now: Timestamp, context: &mut Context<'_>) {
        if self.rings.is_some_and(|rings| now < rings && rings <= due) {
            return;
        }
        self.rings = Some(due);
        let wait = Duration::from_millis(due.0.saturating_sub(now.0));
        self.sleep.set(tokio::time::sleep(wait));
        if self.sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}

/// The session's handle, from the opening of the virtual host to the end. The broker hears of the
/// end whichever way it comes.
struct Attached {
    handle: Option<SessionHandle>,
    clock: Clock,
}

impl Attached {
    fn submit(&mut self, requests: &mut Vec<Request>, now: Timestamp) {
        if let Some(handle) = &mut self.handle {
            let _inside = InBroker;
            handle.submit(requests, now);
        }
        requests.clear();
    }

    fn poll_notices(&mut self, context: &mut Context<'_>, out: &mut Vec<Notice>) -> Poll<()> {
        self.handle.as_mut().map_or(Poll::Pending, |handle| {
            let _inside = InBroker;
            handle.poll_notices(context, out)
        })
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.handle.as_mut().map_or(Poll::Ready(()), |handle| {
            let _inside = InBroker;
            handle.poll_room(context)
        })
    }

    fn take_pressure(&self) -> Option<Pressure> {
        self.handle.as_ref().and_then(SessionHandle::take_pressure)
    }

    fn has_room(&self) -> bool {
        self.handle.as_ref().is_none_or(SessionHandle::has_room)
    }

    fn close(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _inside = InBroker;
            handle.close(self.clock.now());
        }
    }
}

impl Drop for Attached {
    /// Nobody has said goodbye.
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _inside = InBroker;
            handle.lose(self.clock.now());
        }
    }
}

/// While this lives, the thread works on state that other connections share. A panic then leaves it
/// half changed, so the process ends instead of going on with it; the log knows what was promised.
struct InBroker;

impl Drop for InBroker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(crate::exit::INTERNAL.into());
        }
    }
}
