//! Cases of one queue: commands in, effects out.

use engine::{Command, Effect, Enqueue, Place, Queue, Subscriber};
use model::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, Message, Notice, Outcome, QueueId,
    QueuePolicy, SessionId, properties::Properties,
};
use std::sync::Arc;

use crate::wire::NOW;

const SESSION: SessionId = SessionId(1);
const CONSUMER: ConsumerNumber = ConsumerNumber(1);
/// Messages that come, or are settled, at once.
const BATCH: u64 = 64;
/// What a delivery costs beside its message, as the queue counts it.
const DELIVERY_BYTES: u64 = 64;
const LOG_RECORD_BYTES: u64 = 1_100;

/// Transient messages to a consumer that acks automatically.
pub fn deliver(messages: u64) {
    let mut world = World::new(16);
    world.subscribe(true, 0);
    world.through(messages, Place::Memory, |world| world.give_credit());
}

/// Messages of the log to a consumer that acks.
pub fn settle(messages: u64) {
    let mut world = World::new(1_024);
    world.subscribe(false, 0);
    world.through(messages, LOGGED, World::accept);
}

/// The same, and each comes back once before it is acked.
pub fn requeue(messages: u64) {
    let mut world = World::new(1_024);
    // The last place of the queue's order is not free before all have come back.
    world.subscribe(false, u32::try_from(BATCH).expect("it is small"));
    world.through(messages, LOGGED, |world| {
        world.settle(Outcome::Requeue { failed: false });
        world.take();
        world.accept();
    });
}

/// All messages arrive first, then a consumer comes and takes them.
pub fn backlog(messages: u64) {
    let mut world = World::new(1_024);
    (0..messages).for_each(|_| world.enqueue(LOGGED));
    world.subscribe(false, 256);
    while world.accepted < messages {
        world.take();
        world.accept();
    }
}

/// The same where there is no room for bodies: they are read back.
pub fn paged(messages: u64) {
    let mut world = World::new(1_024);
    world.room = false;
    (0..messages).for_each(|_| world.enqueue(LOGGED));
    world.subscribe(false, 256);
    while world.accepted < messages {
        world.take();
        world.read_back();
        world.accept();
    }
}

const LOGGED: Place = Place::Log { position: LogPosition(0), end: LogPosition(0) };

/// A queue, and a client that does what a session would do.
struct World {
    queue: Queue,
    effects: Vec<Effect>,
    message: Arc<Message>,
    arrived: u64,
    held: Vec<EntryId>,
    held_bytes: u64,
    accepted: u64,
    room: bool,
    wanted: Vec<(EntryId, Place)>,
}

impl World {
    fn new(body_bytes: usize) -> Self {
        let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
        let body = vec![b'x'; body_bytes];
        Self {
            queue: Queue::new(QueuePolicy::plain(QueueId(1), "queue"), NOW),
            effects: Vec::new(),
            message: Arc::new(Message::new("", "queue", &properties, &body)),
            arrived: 0,
            held: Vec::new(),
            held_bytes: 0,
            accepted: 0,
            room: true,
            wanted: Vec::new(),
        }
    }

    fn apply(&mut self, command: Command) {
        self.queue.apply(command, NOW, &mut self.effects);
    }

    fn subscribe(&mut self, automatic: bool, prefetch: u32) {
        self.apply(Command::Subscribe(Subscriber {
            session: SESSION,
            channel: ChannelId(1),
            consumer: CONSUMER,
            automatic,
            exclusive: false,
            priority: 0,
            prefetch,
            shared: None,
            timeout_ms: None,
        }));
    }

    fn enqueue(&mut self, place: Place) {
        let at = |it: u64| LogPosition(it * LOG_RECORD_BYTES);
        let place = match place {
            Place::Log { .. } => {
                Place::Log { position: at(self.arrived), end: at(self.arrived + 1) }
            }
            other => other,
        };
        self.arrived += 1;
        let (message, room) = (Arc::clone(&self.message), self.room);
        self.apply(Command::Enqueue(Enqueue { message, place, room, redelivered: false }));
    }

    /// Batches arrive, are delivered, and `finish` ends them.
    fn through(&mut self, messages: u64, place: Place, finish: impl Fn(&mut Self)) {
        while self.arrived < messages {
            for _ in 0..BATCH.min(messages - self.arrived) {
                self.enqueue(place);
                self.take();
            }
            finish(self);
            assert!(self.held.is_empty());
        }
        assert_eq!(self.accepted, messages);
    }

    fn take(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Notify { notice: Notice::Delivery(it), .. } = effect {
                self.held.push(it.entry);
                self.held_bytes += it.message.size() + DELIVERY_BYTES;
            } else if let Effect::Load { entries } = effect {
                self.wanted = entries;
            }
        }
    }

    fn read_back(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        if !wanted.is_empty() {
            let messages = wanted.iter().map(|(id, _)| (*id, Some(Arc::clone(&self.message))));
            let messages = messages.collect();
            self.apply(Command::Loaded { messages });
        }
    }

    fn accept(&mut self) {
        self.accepted += self.held.len() as u64;
        self.settle(Outcome::Accept);
    }

    fn settle(&mut self, outcome: Outcome) {
        for group in std::mem::take(&mut self.held).chunks(64) {
            let (session, consumer, entries) = (SESSION, Some(CONSUMER), group.into());
            self.apply(Command::Settle { session, consumer, entries, outcome });
        }
        self.credit();
    }

    fn give_credit(&mut self) {
        self.accepted += self.held.len() as u64;
        self.held.clear();
        self.credit();
    }

    fn credit(&mut self) {
        let bytes = std::mem::take(&mut self.held_bytes);
        self.apply(Command::Credit { session: SESSION, consumer: CONSUMER, bytes });
    }
}
