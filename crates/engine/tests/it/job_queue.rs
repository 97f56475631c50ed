//! A queue of jobs under random commands: what must hold whatever happens, and what a restart
//! finds.

use engine::{
    Command, Effect, Enqueue, JobCommand, JobQueue, Place, Restored, RestoredJob, Subscriber,
    job::{JobRecord, Token},
    record::MessageFacts,
};
use model::{
    ChannelId, ConsumerNumber, EntryId, LogPosition, Message, Name, Notice, Outcome, QueueId,
    QueuePolicy, SessionId, Table, Timestamp, Value,
    job::{JobAnswer, JobAsk, JobFilter, JobResult, JobRules, JobVerdict, JobView, State, Until},
    policy::DeadLetterTarget,
    properties::Properties,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const CHANNEL: ChannelId = ChannelId(1);
const START: Timestamp = Timestamp(1_700_000_000_000);

#[derive(Clone, Debug)]
struct Logged {
    message: Arc<Message>,
    arrived: Timestamp,
}

/// A queue, the log that it would have, and what its workers hold.
struct World {
    queue: JobQueue,
    now: Timestamp,
    end: u64,
    messages: BTreeMap<LogPosition, Logged>,
    records: BTreeMap<LogPosition, JobRecord>,
    newest: BTreeMap<LogPosition, LogPosition>,
    changed: BTreeSet<EntryId>,
    /// Deliveries: session, number, address for answers.
    held: Vec<(SessionId, EntryId, String)>,
    leases: Vec<Name>,
    load: Vec<(EntryId, Place)>,
    numbers: u64,
    views: Vec<JobView>,
    seed: u64,
}

fn policy() -> Arc<QueuePolicy> {
    let dead = DeadLetterTarget { exchange: "dlx".into(), routing_key: None };
    let rules = JobRules {
        attempts: 2,
        lease_ms: 5_000,
        result_ttl_ms: 30_000,
        failed_ttl_ms: 40_000,
        ..JobRules::default()
    };
    Arc::new(QueuePolicy {
        durable: true,
        dead_letter: Some(dead),
        jobs: Some(Arc::new(rules)),
        ..QueuePolicy::plain(QueueId(7), "q")
    })
}

impl World {
    fn new() -> Self {
        Self {
            queue: JobQueue::new(policy(), [3, 5], START),
            now: START,
            end: 0,
            messages: BTreeMap::new(),
            records: BTreeMap::new(),
            newest: BTreeMap::new(),
            changed: BTreeSet::new(),
            held: Vec::new(),
            leases: Vec::new(),
            load: Vec::new(),
            numbers: 0,
            views: Vec::new(),
            seed: 0,
        }
    }

    fn position(&mut self) -> LogPosition {
        self.end += 64;
        LogPosition(1 << 32 | self.end)
    }

    fn apply(&mut self, command: Command) {
        let mut effects = Vec::new();
        self.queue.apply(command, self.now, &mut effects);
        self.carry_out(effects);
    }

    fn ask(&mut self, ask: JobAsk) {
        self.numbers += 1;
        let session = SessionId(9);
        let mut effects = Vec::new();
        let command = JobCommand::Ask { session, number: self.numbers, ask };
        self.queue.ask(command, self.now, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Notify { session, notice, .. } => self.hear(session, notice),
                Effect::TellDurable { session, notice } => {
                    self.hear(session, Notice::Job(notice));
                }
                Effect::Removed { place: Place::Log { position, .. } } => {
                    assert!(self.messages.remove(&position).is_some(), "it goes once");
                }
                Effect::JobChanged { entry } => drop(self.changed.insert(entry)),
                Effect::RecordGone { position } => {
                    assert!(self.records.contains_key(&position), "it was written");
                }
                Effect::Load { entries } => {
                    assert!(self.load.is_empty(), "one load at a time");
                    self.load = entries;
                }
                Effect::ReadResult { position, .. } => {
                    let record = self.records.get(&position).expect("the record is there");
                    assert!(record.result.is_some(), "and has the result");
                }
                Effect::DeadLetter { message, place, .. } => {
                    assert!(message.is_some() && place == Place::Memory, "it is a copy");
                }
                _ => {}
            }
        }
        // The end of the turn.
        for entry in std::mem::take(&mut self.changed) {
            let mut payload = Vec::new();
            if self.queue.record(entry, &mut payload) {
                let at = self.position();
                let record = JobRecord::decode(&payload).expect("what was written is read");
                let before = self.newest.insert(record.origin, at);
                assert_eq!(self.queue.recorded(entry, at), before, "the newest was known");
                self.records.insert(at, record);
            }
        }
    }

    fn hear(&mut self, session: SessionId, notice: Notice) {
        let delivery = match notice {
            Notice::Delivery(it) => Some(it),
            Notice::Fetched { delivery, .. } => delivery,
            Notice::Job(it) => {
                match it.answer {
                    JobAnswer::Leased { token, .. } => self.leases.push(token),
                    JobAnswer::Listed { jobs, .. } => self.views = jobs,
                    _ => {}
                }
                None
            }
            _ => None,
        };
        if let Some(it) = delivery {
            let address = it.message.facts().reply_to.expect("an address for answers").to_owned();
            if !it.automatic {
                self.held.push((session, it.entry, address));
            }
        }
    }

    fn publish(&mut self, draw: u64) {
        let headers = match draw % 5 {
            0 => vec![("x-delay".into(), Value::I64((draw % 7_000) as i64))],
            1 => vec![("id".into(), Value::text(&format!("t{}", draw / 16 % 6)))],
            2 => vec![("x-unique".into(), Value::text(&format!("u{}", draw / 16 % 3)))],
            _ => vec![],
        };
        let properties = Properties {
            headers: Some(Table(headers)),
            message_id: (draw % 5 != 1 && !draw.is_multiple_of(3))
                .then(|| format!("m{}", draw / 32 % 20).into()),
            expiration: (draw.is_multiple_of(11)).then(|| "4000".into()),
            reply_to: (draw.is_multiple_of(2)).then(|| "answers".into()),
            ..Properties::default()
        };
        let message = Message::new("", "q", &properties.encoded(), &draw.to_le_bytes()[..1]);
        let message = Arc::new(message);
        let place = match draw % 4 {
            0 => Place::Memory,
            _ => {
                let position = self.position();
                let logged = Logged { message: Arc::clone(&message), arrived: self.now };
                self.messages.insert(position, logged);
                Place::Log { position, end: LogPosition(position.0 + 50) }
            }
        };
        let room = !draw.is_multiple_of(3);
        self.apply(Command::Enqueue(Enqueue { message, place, room, redelivered: false }));
    }

    fn settle(&mut self, draw: u64) {
        if self.held.is_empty() {
            return;
        }
        let (session, entry, address) = self.held.swap_remove(draw as usize % self.held.len());
        if draw.is_multiple_of(3) {
            self.answer(&address, draw);
        }
        let outcome = match draw / 8 % 6 {
            0 => Outcome::Requeue { failed: true },
            1 => Outcome::Release { failed: true },
            2 => Outcome::Reject { flagged: true },
            _ => Outcome::Accept,
        };
        let entries = std::iter::once(entry).collect();
        self.apply(Command::Settle { session, consumer: None, entries, outcome });
    }

    fn answer(&mut self, address: &str, draw: u64) {
        let text = address.strip_prefix(model::job::JOB_PREFIX).expect("a token");
        let token = Token::parse(text).expect("a token");
        let problem = draw.is_multiple_of(4);
        let properties = Properties {
            content_type: problem.then(|| "application/problem+json".into()),
            kind: (draw.is_multiple_of(7)).then(|| "progress".into()),
            ..Properties::default()
        };
        let body = if draw.is_multiple_of(8) { &br#"{"retryable":true}"#[..] } else { b"{}" };
        let message = Arc::new(Message::new("", address, &properties.encoded(), body));
        let mut effects = Vec::new();
        let command = JobCommand::Answer { secret: token.secret, message };
        self.queue.ask(command, self.now, &mut effects);
        self.carry_out(effects);
    }

    fn loaded(&mut self) {
        let entries = std::mem::take(&mut self.load);
        if entries.is_empty() {
            return;
        }
        let message = |place: Place| match place {
            Place::Log { position, .. } => self.messages.get(&position).map(|it| &it.message),
            _ => None,
        };
        let messages =
            entries.into_iter().map(|(entry, place)| (entry, message(place).cloned())).collect();
        self.apply(Command::Loaded { messages });
    }

    fn door(&mut self, draw: u64) {
        let token = match self.leases.len() {
            0 => "0.7.00000000000000000000000000000001".into(),
            some => self.leases[draw as usize / 64 % some].clone(),
        };
        let id = || Name::from(format!("m{}", draw / 32 % 20));
        let queue = Some(Name::new("q"));
        let result = JobResult { body: vec![1; 9].into(), ..JobResult::default() };
        let verdict = match draw % 3 {
            0 => JobVerdict::Rejected { retryable: draw.is_multiple_of(2), retry_after_ms: None },
            _ => JobVerdict::Fulfilled,
        };
        self.ask(match draw / 3 % 11 {
            0 | 1 => JobAsk::Lease { queue: "q".into(), worker: "w".into() },
            2 | 3 => JobAsk::Complete { token, verdict, result },
            4 => JobAsk::Extend { token, by_ms: Some(3_000), progress: None },
            5 => JobAsk::Release { token },
            6 => JobAsk::Cancel { queue, id: id() },
            7 => JobAsk::Retry { queue, id: id() },
            8 => {
                let at = (draw.is_multiple_of(2)).then(|| self.now.plus_ms(draw % 4_000));
                JobAsk::Patch { queue, id: id(), priority: Some(draw as u8), at }
            }
            9 => JobAsk::Wait { queue, id: id(), until: Until::Settled },
            _ => JobAsk::Result { queue, id: id() },
        });
    }

    fn step(&mut self, draw: u64) {
        self.seed = self.seed.wrapping_mul(31).wrapping_add(draw);
        let rest = draw / 100;
        match draw % 100 {
            0..30 => self.publish(rest),
            30..55 => self.settle(rest),
            55..60 => self.apply(Command::Subscribe(Subscriber {
                session: SessionId(1 + rest % 3),
                channel: CHANNEL,
                consumer: ConsumerNumber((rest / 3 % 2) as u32 + 1),
                automatic: rest.is_multiple_of(5),
                exclusive: false,
                priority: 0,
                prefetch: (rest % 4) as u32,
                shared: None,
                timeout_ms: (rest.is_multiple_of(2)).then_some(2_000),
            })),
            60..64 => self.apply(Command::Fetch {
                session: SessionId(1 + rest % 3),
                channel: CHANNEL,
                automatic: rest.is_multiple_of(2),
            }),
            64..66 => {
                let session = SessionId(1 + rest % 3);
                self.held.retain(|it| it.0 != session);
                self.apply(Command::EndSession { session, is_orderly: rest.is_multiple_of(2) });
            }
            66..76 => {
                self.now = self.now.plus_ms(rest % 3_000);
                self.apply(Command::Tick);
            }
            76..84 => self.loaded(),
            84 => self.apply(Command::Purge { session: SessionId(1), channel: CHANNEL }),
            85 => self.restart(),
            _ => self.door(rest),
        }
    }

    fn list(&mut self) -> Vec<JobView> {
        let filter = JobFilter::default();
        self.ask(JobAsk::List { queue: "q".into(), filter, cursor: None, limit: 1_000 });
        std::mem::take(&mut self.views)
    }

    /// Everything in memory goes; what is settled stays as it was, and nothing that is pending is
    /// settled by it.
    fn restart(&mut self) {
        let mut before: BTreeMap<Name, JobView> =
            self.list().into_iter().map(|it| (it.id.clone(), it)).collect();
        self.queue = JobQueue::new(policy(), [self.seed, self.end], self.now);
        self.held.clear();
        self.load.clear();
        let mut effects = Vec::new();
        for (position, it) in &self.messages {
            let restored = Restored {
                place: Place::Log { position: *position, end: LogPosition(position.0 + 50) },
                origin: *position,
                size: it.message.body_len(),
                facts: MessageFacts::default(),
                arrived: it.arrived,
                redelivered: true,
                acquired: 0,
                failed: 0,
            };
            let newest = self.newest.get(position);
            let record = newest.map(|at| (self.records[at].clone(), *at));
            let job = RestoredJob { restored, message: &it.message, record };
            self.queue.restore(job, self.now, &mut effects);
        }
        self.carry_out(effects);
        for after in self.list() {
            let before = before.remove(&after.id).expect("no job comes from nowhere");
            if before.state.is_settled() {
                assert_eq!(before, after);
            } else if after.state.is_settled() {
                let is_asked = before.cancel_requested && after.state == State::Cancelled;
                let is_late = before.expires.is_some() && after.state == State::Expired;
                let is_lost = before.lease.is_some() && after.state == State::Failed;
                assert!(is_asked || is_late || is_lost, "{before:?} {after:?}");
            }
            assert_eq!(before.generation, after.generation);
        }
        self.apply(Command::Tick);
    }

    fn check(&mut self) {
        let jobs = self.list();
        let depth = self.queue.depth();
        let count = |state| jobs.iter().filter(|it| it.state == state).count() as u64;
        assert_eq!(depth.ready, count(State::Ready));
        assert_eq!(depth.unsettled, count(State::Running));
        assert_eq!(depth.delayed, count(State::Scheduled) + count(State::Waiting));
        let ids: BTreeSet<_> = jobs.iter().map(|it| &it.id).collect();
        assert_eq!(ids.len(), jobs.len(), "an id names one job");
        let mut places = Vec::new();
        self.queue.for_each_place(|it| {
            places.extend(match it {
                Place::Log { position, .. } => Some(position),
                _ => None,
            })
        });
        places.sort_unstable();
        assert!(places.iter().eq(self.messages.keys()), "the log has what the queue has");
    }

    /// In the end everything is forgotten, and nothing is left in memory.
    fn come_to_an_end(&mut self) {
        for session in [1, 2, 3, 9].map(SessionId) {
            self.apply(Command::EndSession { session, is_orderly: true });
        }
        self.held.clear();
        self.loaded();
        self.now = self.now.plus_ms(60_000);
        self.apply(Command::Tick);
        self.apply(Command::Purge { session: SessionId(1), channel: CHANNEL });
        for _ in 0..4 {
            self.now = self.now.plus_ms(60_000);
            self.apply(Command::Tick);
            self.loaded();
            self.apply(Command::Purge { session: SessionId(1), channel: CHANNEL });
        }
        assert_eq!(self.list().len(), 0);
        assert!(self.messages.is_empty());
        assert_eq!((self.queue.resident_bytes(), self.queue.depth().ready_bytes), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn whatever_happens_counts_agree_and_a_restart_finds_what_was_settled(
        draws in prop::collection::vec(any::<u64>(), 1..250),
    ) {
        let mut world = World::new();
        for draw in draws {
            world.step(draw);
            world.check();
        }
        world.come_to_an_end();
    }
}
