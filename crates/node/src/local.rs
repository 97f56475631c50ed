//! Sessions without sockets, for a program that carries its broker inside: the same gate, the same
//! limits and the same rings as over the wire. The futures are plain ones, woken by the notice they
//! wait for; [`wait`] is the blocking twin of every one of them.

use crate::{clock::Clock, open::Node};
use broker::{Connect, SessionHandle};
use model::{
    ChannelId, ConsumerNumber, EntryId, Message, Name, Notice, Outcome, Publish, QueueId, Refusal,
    Request, Settle, Subscribe, Table,
    job::{JobAnswer, JobAsk, JobRequest},
    properties::Properties,
    request::{Binding, DeclareExchange, DeclareQueue},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// The channel of publishes and settles; questions have channels of their own.
const PUBLISHES: ChannelId = ChannelId(0);
/// Octets taken from a consumer before its credit is renewed.
const CREDIT_BYTES: u64 = 256 * 1024;
/// What a delivery costs beside its message, as the queue counts it.
const DELIVERY_BYTES: u64 = 64;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LocalError {
    #[error("{0}")]
    Refused(Refusal),
    /// A queue of this publish takes no more.
    #[error("a queue refused the message")]
    Nacked,
    #[error("the session is closed: {0}")]
    Closed(Refusal),
    /// More questions are open than a session has channels.
    #[error("too many questions at a time")]
    TooMany,
}

/// A session of this process. Cloning shares it; the last one that goes ends it.
#[derive(Clone)]
pub struct LocalSession(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    clock: Clock,
    board: Arc<Switchboard>,
}

struct State {
    handle: Option<SessionHandle>,
    notices: Vec<Notice>,
    answers: HashMap<ChannelId, Option<Result<Notice, LocalError>>>,
    next_channel: u16,
    /// Publishes from number `forgotten` + 1 on.
    confirms: VecDeque<Slot>,
    forgotten: u64,
    consumers: HashMap<ConsumerNumber, Inbox>,
    next_consumer: u32,
    /// Questions about jobs and their answers, by number.
    questions: HashMap<u64, Option<JobAnswer>>,
    next_question: u64,
    closed: Option<Refusal>,
}

/// One publish: its answer, and whether somebody still wants to know it.
#[derive(Clone, Copy)]
struct Slot {
    answer: Option<bool>,
    wanted: bool,
}

#[derive(Default)]
struct Inbox {
    queue: QueueId,
    deliveries: VecDeque<model::Delivery>,
    taken_bytes: u64,
    ended: bool,
}

/// Wakes whoever waits for anything of the session; each looks for its own.
#[derive(Default)]
struct Switchboard(Mutex<Vec<Waker>>);

impl Wake for Switchboard {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *self.0.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Switchboard {
    fn register(&self, waker: &Waker) {
        let mut wakers = self.0.lock();
        if !wakers.iter().any(|it| it.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Node {
    /// Opens a session of this process for a user, without a password: who can open the folder may.
    ///
    /// # Errors
    /// [`LocalError::Refused`]: no such virtual host, or the user may not enter it.
    pub fn connect(&self, vhost: &str, user: &str) -> Result<LocalSession, LocalError> {
        self.connect_for(vhost, user, "local".to_owned())
    }

    /// The same for somebody else, who is called `peer`; whether he is this user has been seen.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_for(
        &self,
        vhost: &str,
        user: &str,
        peer: String,
    ) -> Result<LocalSession, LocalError> {
        let connect = Connect { user: user.into(), vhost: vhost.into(), peer };
        let handle = self.broker().connect(connect).map_err(LocalError::Refused)?;
        Ok(LocalSession(Arc::new(Shared {
            state: Mutex::new(State {
                handle: Some(handle),
                notices: Vec::new(),
                answers: HashMap::new(),
                next_channel: 0,
                confirms: VecDeque::new(),
                forgotten: 0,
                consumers: HashMap::new(),
                next_consumer: 0,
                questions: HashMap::new(),
                next_question: 0,
                closed: None,
            }),
            clock: self.clock(),
            board: Arc::default(),
        })))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(handle) = self.state.get_mut().handle.take() {
            handle.close(self.clock.now());
        }
    }
}

impl State {
    fn submit(&mut self, request: Request, clock: Clock) {
        if let Some(handle) = &mut self.handle {
            handle.submit(&mut vec![request], clock.now());
        }
    }

    /// Takes what the broker has said and leaves each notice where it is waited for.
    fn take_notices(&mut self, board: &Arc<Switchboard>) {
        let waker = Waker::from(Arc::clone(board));
        let mut context = Context::from_waker(&waker);
        let mut notices = std::mem::take(&mut self.notices);
        while let Some(handle) = &mut self.handle
            && handle.poll_notices(&mut context, &mut notices).is_ready()
        {
            notices.drain(..).for_each(|it| self.notice(it));
        }
        self.notices = notices;
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Confirmed { first, last, .. } => {
                (first..=last).for_each(|it| self.confirm(it, true));
            }
            Notice::Nacked { number, .. } => self.confirm(number, false),
            Notice::Delivery(it) => {
                if let Some(inbox) = self.consumers.get_mut(&it.consumer) {
                    inbox.deliveries.push_back(it);
                }
            }
            Notice::Cancelled { consumer } => {
                if let Some(inbox) = self.consumers.get_mut(&consumer) {
                    inbox.ended = true;
                }
            }
            Notice::Closed { refusal } => self.closed = Some(*refusal),
            Notice::Refused { channel: PUBLISHES, refusal, .. } => self.closed = Some(*refusal),
            Notice::Refused { channel, refusal, .. } => {
                self.answers.insert(channel, Some(Err(LocalError::Refused(*refusal))));
            }
            // A program inside cannot be asked to slow down by a word: `publish` holds it back.
            Notice::Blocked { .. } | Notice::Unblocked | Notice::Returned { .. } => {}
            Notice::Reply { .. } => {}
            Notice::Job(it) => {
                if let Some(slot) = self.questions.get_mut(&it.number) {
                    *slot = Some(it.answer);
                }
            }
            other => {
                if let Some(channel) = channel_of(&other)
                    && let Some(slot) = self.answers.get_mut(&channel)
                {
                    *slot = Some(Ok(other));
                }
            }
        }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = number.checked_sub(self.forgotten + 1)?;
        self.confirms.get_mut(usize::try_from(index).ok()?)
    }

    fn confirm(&mut self, number: u64, positive: bool) {
        if let Some(slot) = self.slot(number) {
            slot.answer = Some(positive);
        }
    }

    /// Nobody wants to know of this publish any more; the window moves on over all such.
    fn forget(&mut self, number: u64) {
        if let Some(slot) = self.slot(number) {
            slot.wanted = false;
        }
        while self.confirms.front().is_some_and(|it| !it.wanted) {
            self.confirms.pop_front();
            self.forgotten += 1;
        }
    }

    fn free_channel(&mut self) -> Option<ChannelId> {
        for _ in 0..u16::MAX {
            self.next_channel = self.next_channel.checked_add(1).unwrap_or(1);
            let channel = ChannelId(self.next_channel);
            if !self.answers.contains_key(&channel) {
                return Some(channel);
            }
        }
        None
    }
}

fn channel_of(notice: &Notice) -> Option<ChannelId> {
    match notice {
        Notice::Fetched { channel, .. }
        | Notice::Declared { channel, .. }
        | Notice::Deleted { channel, .. }
        | Notice::Purged { channel, .. }
        | Notice::Done { channel }
        | Notice::Subscribed { channel, .. }
        | Notice::Unsubscribed { channel, .. } => Some(*channel),
        _ => None,
    }
}

/// What a declared queue holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredQueue {
    pub name: Name,
    pub ready: u64,
    pub consumers: u64,
}

impl LocalSession {
    async fn ask(&self, question: impl FnOnce(ChannelId) -> Request) -> Result<Notice, LocalError> {
        let channel = {
            let mut state = self.0.state.lock();
            let channel = state.free_channel().ok_or(LocalError::TooMany)?;
            state.answers.insert(channel, None);
            state.submit(question(channel), self.0.clock);
            channel
        };
        Answer { shared: Arc::clone(&self.0), channel }.await
    }

    /// Declares a queue: durable ones and what is confirmed in them outlive the process.
    ///
    /// # Errors
    /// [`LocalError::Refused`], as over the wire.
    pub async fn declare_queue(
        &self,
        name: &str,
        durable: bool,
        arguments: Table,
    ) -> Result<DeclaredQueue, LocalError> {
        let answer = self.ask(|channel| {
            Request::DeclareQueue(DeclareQueue {
                channel,
                queue: name.into(),
                unique: Name::from(format!("local-{channel}")),
                passive: false,
                durable,
                exclusive: false,
                auto_delete: false,
                arguments,
            })
        });
        match answer.await? {
            Notice::Declared { queue, ready, consumers, .. } => {
                Ok(DeclaredQueue { name: queue, ready, consumers })
            }
            _ => Ok(DeclaredQueue { name: name.into(), ready: 0, consumers: 0 }),
        }
    }

    /// Declares a durable exchange of a kind such as `fanout` or `topic`.
    ///
    /// # Errors
    /// [`LocalError::Refused`], as over the wire.
    pub async fn declare_exchange(&self, name: &str, kind: &str) -> Result<(), LocalError> {
        let answer = self.ask(|channel| {
            Request::DeclareExchange(DeclareExchange {
                channel,
                exchange: name.into(),
                kind: kind.into(),
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                arguments: Table::default(),
            })
        });
        answer.await.map(drop)
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// [`LocalError::Refused`], as over the wire.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<(), LocalError> {
        let answer = self.ask(|channel| {
            Request::Bind(Binding {
                channel,
                source: exchange.into(),
                destination: queue.into(),
                to_exchange: false,
                routing_key: key.into(),
                arguments: Table::default(),
            })
        });
        answer.await.map(drop)
    }

    /// Publishes a persistent message. The future resolves when the message is durable; it need not
    /// be polled for the message to go.
    pub fn publish(&self, exchange: &str, routing_key: &str, body: &[u8]) -> Confirm {
        let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
        self.publish_with(exchange, routing_key, &properties, body)
    }

    /// Publishes with these properties.
    pub fn publish_with(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: &Properties,
        body: &[u8],
    ) -> Confirm {
        let message = Message::new(exchange, routing_key, &properties.encoded(), body).into();
        let mut state = self.0.state.lock();
        state.confirms.push_back(Slot { answer: None, wanted: true });
        let number = state.forgotten + state.confirms.len() as u64;
        let confirm = Some(number);
        let publish = Publish { channel: PUBLISHES, message, mandatory: false, confirm };
        state.submit(Request::Publish(publish), self.0.clock);
        Confirm { shared: Arc::clone(&self.0), number }
    }

    /// Begins to consume. `credit` messages may be unsettled at a time, 0 = no limit.
    ///
    /// # Errors
    /// [`LocalError::Refused`], as over the wire.
    pub async fn consume(&self, queue: &str, credit: u32) -> Result<Consumer, LocalError> {
        let consumer = {
            let mut state = self.0.state.lock();
            state.next_consumer += 1;
            let consumer = ConsumerNumber(state.next_consumer);
            state.consumers.insert(consumer, Inbox::default());
            consumer
        };
        let answer = self.ask(|channel| {
            Request::Subscribe(Subscribe {
                channel,
                consumer,
                queue: queue.into(),
                tag: Name::from(format!("local-{consumer}")),
                automatic: false,
                exclusive: false,
                prefetch: credit,
                shared: None,
                arguments: Table::default(),
            })
        });
        let answered = answer.await;
        let mut state = self.0.state.lock();
        match answered {
            Ok(Notice::Subscribed { queue, .. }) => {
                if let Some(inbox) = state.consumers.get_mut(&consumer) {
                    inbox.queue = queue;
                }
                Ok(Consumer { shared: Arc::clone(&self.0), consumer, queue })
            }
            other => {
                state.consumers.remove(&consumer);
                Err(other.err().unwrap_or(LocalError::TooMany))
            }
        }
    }
}

impl LocalSession {
    /// Asks about jobs. The question is asked at once; who drops the future before its answer has
    /// come takes it back.
    pub fn ask_about_jobs(&self, ask: JobAsk) -> JobReply {
        let mut state = self.0.state.lock();
        state.next_question += 1;
        let number = state.next_question;
        state.questions.insert(number, None);
        state.submit(Request::Job(Box::new(JobRequest { number, ask })), self.0.clock);
        JobReply { shared: Arc::clone(&self.0), number }
    }
}

/// The answer to a question about jobs, to come.
#[must_use = "a question whose answer is dropped is taken back"]
pub struct JobReply {
    shared: Arc<Shared>,
    number: u64,
}

impl Future for JobReply {
    type Output = Result<JobAnswer, LocalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        self.shared.board.register(context.waker());
        state.take_notices(&self.shared.board);
        if let Some(Some(answer)) = state.questions.get_mut(&self.number).map(Option::take) {
            state.questions.remove(&self.number);
            return Poll::Ready(Ok(answer));
        }
        match &state.closed {
            Some(refusal) => Poll::Ready(Err(LocalError::Closed(refusal.clone()))),
            None => Poll::Pending,
        }
    }
}

impl Drop for JobReply {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        // An answer that nobody has taken may be a lease, which goes back as well.
        if state.questions.remove(&self.number).is_some() {
            state.next_question += 1;
            let number = state.next_question;
            let forget = JobRequest { number, ask: JobAsk::Forget { number: self.number } };
            state.submit(Request::Job(Box::new(forget)), self.shared.clock);
        }
    }
}

struct Answer {
    shared: Arc<Shared>,
    channel: ChannelId,
}

impl Future for Answer {
    type Output = Result<Notice, LocalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        self.shared.board.register(context.waker());
        state.take_notices(&self.shared.board);
        if let Some(Some(answer)) = state.answers.get_mut(&self.channel).map(Option::take) {
            return Poll::Ready(answer);
        }
        match &state.closed {
            Some(refusal) => Poll::Ready(Err(LocalError::Closed(refusal.clone()))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.state.lock().answers.remove(&self.channel);
    }
}

/// The confirm of one publish, to come.
#[must_use = "a message is safe only when its confirm has come"]
pub struct Confirm {
    shared: Arc<Shared>,
    number: u64,
}

impl Future for Confirm {
    type Output = Result<(), LocalError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        self.shared.board.register(context.waker());
        state.take_notices(&self.shared.board);
        let answer = state.slot(self.number).and_then(|it| it.answer);
        match (answer, &state.closed) {
            (Some(true), _) => Poll::Ready(Ok(())),
            (Some(false), _) => Poll::Ready(Err(LocalError::Nacked)),
            (None, Some(refusal)) => Poll::Ready(Err(LocalError::Closed(refusal.clone()))),
            (None, None) => Poll::Pending,
        }
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        self.shared.state.lock().forget(self.number);
    }
}

/// Messages of one queue, as they come.
pub struct Consumer {
    shared: Arc<Shared>,
    consumer: ConsumerNumber,
    queue: QueueId,
}

impl Consumer {
    /// The next message; `None` when the queue has gone or the session is closed.
    #[expect(clippy::should_implement_trait, reason = "what comes is a future, not an option")]
    pub fn next(&mut self) -> Next<'_> {
        Next(self)
    }

    fn take(&self, state: &mut State) -> Option<model::Delivery> {
        let inbox = state.consumers.get_mut(&self.consumer)?;
        let delivery = inbox.deliveries.pop_front()?;
        inbox.taken_bytes += delivery.message.size() + DELIVERY_BYTES;
        if CREDIT_BYTES <= inbox.taken_bytes || inbox.deliveries.is_empty() {
            let bytes = std::mem::take(&mut inbox.taken_bytes);
            let (consumer, queue) = (self.consumer, self.queue);
            state.submit(Request::Credit { consumer, queue, bytes }, self.shared.clock);
        }
        Some(delivery)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let (consumer, queue) = (self.consumer, self.queue);
        let channel = PUBLISHES;
        state.submit(Request::Unsubscribe { channel, consumer, queue }, self.shared.clock);
        let inbox = state.consumers.remove(&consumer).unwrap_or_default();
        let entries = inbox.deliveries.iter().map(|it| it.entry).collect();
        let outcome = Outcome::Requeue { failed: false };
        let consumer = Some(consumer);
        let settle = Settle { channel, queue, consumer, entries, outcome };
        state.submit(Request::Settle(settle), self.shared.clock);
    }
}

/// The next message of a consumer, to come.
pub struct Next<'a>(&'a mut Consumer);

impl Future for Next<'_> {
    type Output = Option<Incoming>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let consumer = &*self.0;
        let mut state = consumer.shared.state.lock();
        consumer.shared.board.register(context.waker());
        state.take_notices(&consumer.shared.board);
        if let Some(delivery) = consumer.take(&mut state) {
            let shared = Arc::clone(&consumer.shared);
            let queue = consumer.queue;
            return Poll::Ready(Some(Incoming { shared, queue, delivery }));
        }
        let ended = state.consumers.get(&consumer.consumer).is_none_or(|it| it.ended);
        if ended || state.closed.is_some() { Poll::Ready(None) } else { Poll::Pending }
    }
}

/// A message in this program's hands. One that is dropped unsettled stays with the session, and
/// goes back to its queue when the session ends.
pub struct Incoming {
    shared: Arc<Shared>,
    queue: QueueId,
    delivery: model::Delivery,
}

impl Incoming {
    pub fn message(&self) -> &Message {
        &self.delivery.message
    }

    pub fn body(&self) -> Vec<u8> {
        self.delivery.message.body()
    }

    /// It may have been delivered before.
    pub fn redelivered(&self) -> bool {
        self.delivery.redelivered
    }

    pub fn entry(&self) -> EntryId {
        self.delivery.entry
    }

    fn settle(self, outcome: Outcome) {
        let settle = Settle {
            channel: PUBLISHES,
            queue: self.queue,
            consumer: Some(self.delivery.consumer),
            entries: std::iter::once(self.delivery.entry).collect(),
            outcome,
        };
        self.shared.state.lock().submit(Request::Settle(settle), self.shared.clock);
    }

    /// Done.
    pub fn accept(self) {
        self.settle(Outcome::Accept);
    }

    /// Back to its place in the queue.
    pub fn requeue(self) {
        self.settle(Outcome::Requeue { failed: true });
    }

    /// To the dead-letter exchange, or away.
    pub fn reject(self) {
        self.settle(Outcome::Reject { flagged: true });
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
