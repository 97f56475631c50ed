//! The handle that everybody holds: sessions connect through it, threads of the node serve it. It
//! keeps the parts together and turns shards until nothing is left to do.

use crate::{
    budget::Budget,
    hand_over::{After, Aftermath, Gone, HandOver, Load, ShardCommand},
    mailbox::Mailbox,
    owner::Owner,
    reclaim_progress::Reclaim,
    replies::Replies,
    restore::{Restoration, Restorer},
    shard::Shard,
    shared::{Hooks, Shared},
    spill::{OpenSpill, Spill},
};
use catalog::User;
use engine::{Queue, record, record::kind};
use foldhash::HashMap;
use model::{LogPosition, Notice, Refusal, SessionId, ShardId, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use storage::{Kind, Log, LogError};

/// Shards that a broker has at most: as many as bits in [`Touched`].
pub const SHARDS_MAX: usize = 64;

/// How a broker is made.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// 1 to [`SHARDS_MAX`].
    pub shards: usize,
    pub bodies_bytes_max: u64,
    /// Backlog of the log, in octets, at which publishers are held back.
    pub pending_bytes_max: u64,
    /// The log was closed in order, so it tells exactly what had been delivered.
    pub orderly: bool,
    /// Records of the catalog may be missing.
    pub catalog_damaged: bool,
    /// Segments in which something is damaged or missing: they stay for the operator to look at.
    pub damaged_segments: Vec<u32>,
    /// Numbers that nobody can guess.
    pub seed: [u64; 2],
}

/// Shards that have got something, one bit each.
pub(crate) type Touched = u64;

/// What the broker knows of a connected session.
pub(crate) struct Connected {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) user: model::Name,
    pub(crate) vhost: model::Name,
}

struct Inner {
    shared: Shared,
    shards: Vec<Shard>,
    owner: Mutex<Owner>,
    /// Held shared by everybody at work; exclusively to see all shards at rest.
    world: RwLock<()>,
    loads: Mutex<VecDeque<Load>>,
    sessions: Mutex<HashMap<SessionId, Connected>>,
    next_session: AtomicU64,
    blocked: Mutex<Option<&'static str>>,
    reclaim: Reclaim,
    /// Segments that must stay: they hold orphans, or could not be read.
    pinned: Mutex<BTreeSet<u32>>,
    seed: [u64; 2],
}

/// A running broker. Cloning shares it.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

impl Broker {
    /// Puts back what the restorer has collected and begins.
    pub fn new(
        options: BrokerOptions,
        log: Arc<Log>,
        spill: OpenSpill,
        restorer: Restorer,
        hooks: Box<dyn Hooks>,
        now: Timestamp,
    ) -> (Self, Restoration) {
        let shards = options.shards.clamp(1, SHARDS_MAX);
        let lasting: BTreeSet<u32> = log.lasting_segments().map(|it| it.0).collect();
        let mut restored =
            restorer.finish(options.orderly, options.catalog_damaged, lasting.clone());
        let budget = Budget::new(options.bodies_bytes_max);
        let catalog = restored.catalog.clone();
        let owner = Owner::new(catalog.clone(), &restored.catalog_segments, shards);
        let (most, key, spill) = (options.pending_bytes_max, options.seed, Spill::new(spill));
        let shared = Shared::new(log, spill, catalog.clone(), budget, most, key, hooks);
        let shard_ids = (0..shards).map(|it| ShardId(u16::try_from(it).unwrap_or(0)));
        let shards: Vec<Shard> = shard_ids.map(Shard::new).collect();
        for declared in catalog.queues() {
            let mut state = shards[usize::from(declared.shard.0) % shards.len()].lock();
            if declared.policy.jobs.is_some() {
                state.restore_jobs(&declared.policy, &mut restored, &shared, now);
                continue;
            }
            let mut queue = Queue::new(Arc::clone(&declared.policy), now);
            // In log order, so that one look at the count serves many.
            let (mut at, mut count) = (0, 0);
            let arrive = |position: LogPosition| {
                if at != position.segment() {
                    state.occupancy.arrive_again(at, std::mem::take(&mut count));
                    at = position.segment();
                }
                count += 1;
            };
            let origins = restored.fill(&mut queue, arrive);
            state.occupancy.arrive_again(at, count);
            state.insert(queue, origins);
        }
        {
            let mut state = shards[0].lock();
            for (segment, ever) in &restored.ever {
                state.occupancy.had(*segment, *ever);
            }
            // Notes about segments that are gone speak about nothing.
            let notes = restored.notes.iter().filter(|((_, about), _)| lasting.contains(about));
            notes.for_each(|((at, about), count)| state.occupancy.noted(*at, *about, *count));
        }
        let mut found = restored.found.clone();
        found.queues = catalog.queues().count() as u64;
        let orphaned = restored.orphan_segments.iter().copied();
        let pinned = orphaned.chain(options.damaged_segments.iter().copied()).collect();
        let inner = Inner {
            shared,
            shards,
            owner: Mutex::new(owner),
            world: RwLock::new(()),
            loads: Mutex::default(),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(1),
            blocked: Mutex::default(),
            reclaim: Reclaim::default(),
            pinned: Mutex::new(pinned),
            seed: options.seed,
        };
        let broker = Self(Arc::new(inner));
        broker.wake_restored(now);
        (broker, found)
    }

    /// Lets the timers of restored queues begin.
    fn wake_restored(&self, now: Timestamp) {
        for shard in &self.0.shards {
            let mut aftermath = Aftermath::default();
            let mut state = shard.lock();
            let queues: Vec<_> = state.queues.keys().chain(state.jobs.keys()).copied().collect();
            for queue in queues {
                state.apply(queue, engine::Command::Tick, &self.0.shared, now, &mut aftermath);
            }
            shard.finish(&mut state, &self.0.shared);
            drop(state);
            self.defer(aftermath);
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn shards(&self) -> &[Shard] {
        &self.0.shards
    }

    pub(crate) fn owner(&self) -> &Mutex<Owner> {
        &self.0.owner
    }

    pub(crate) fn world(&self) -> &RwLock<()> {
        &self.0.world
    }

    pub(crate) fn replies(&self) -> &Replies {
        &self.0.shared.replies
    }

    pub(crate) fn sessions(&self) -> &Mutex<HashMap<SessionId, Connected>> {
        &self.0.sessions
    }

    pub(crate) fn reclaim_state(&self) -> &Reclaim {
        &self.0.reclaim
    }

    pub(crate) fn seed(&self) -> u64 {
        self.0.seed[0]
    }

    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.0.next_session.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn shard(&self, shard: ShardId) -> &Shard {
        &self.0.shards[usize::from(shard.0) % self.0.shards.len()]
    }

    pub(crate) fn bit(&self, shard: ShardId) -> Touched {
        1 << (usize::from(shard.0) % self.0.shards.len())
    }

    /// The user's record, if there is such a user.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.0.shared.catalog.load().user(name).cloned()
    }

    /// Nothing is in the catalog: the folder is new.
    pub fn is_new(&self) -> bool {
        let catalog = self.0.shared.catalog.load();
        catalog.vhosts().next().is_none() && catalog.users().next().is_none()
    }

    /// Somebody waits for something that is not durable yet.
    pub fn waits_for_sync(&self) -> bool {
        self.0.shared.durable() < self.0.shared.wanted() && !self.0.shared.has_failed()
    }

    /// The log has been written, and maybe synced: who waited for that is told.
    pub fn synced(&self, now: Timestamp) {
        self.0.shared.relieve();
        let _world = self.0.world.read();
        self.0.shards.iter().for_each(Shard::poke);
        self.turn_shards(Touched::MAX, now);
    }

    /// The spill file, if it was ever needed.
    pub fn spill(&self) -> Option<Arc<Log>> {
        self.0.shared.spill.existing().cloned()
    }

    /// When the next timer is due.
    pub fn deadline(&self) -> Timestamp {
        let deadlines = self.0.shards.iter().map(Shard::deadline);
        deadlines.min().unwrap_or(Timestamp(u64::MAX))
    }

    /// Lets the timers that are due run.
    pub fn tick(&self, now: Timestamp) {
        let _world = self.0.world.read();
        let mut touched = 0;
        for (index, shard) in self.0.shards.iter().enumerate() {
            if shard.deadline() <= now {
                shard.poke();
                touched |= 1 << index;
            }
        }
        self.turn_shards(touched, now);
    }

    pub(crate) fn take_load(&self) -> Option<Load> {
        self.0.loads.lock().pop_front()
    }

    /// Hands over one batch of the broker's own and turns.
    pub(crate) fn carry(&self, shard: ShardId, batch: HandOver, now: Timestamp) {
        let _world = self.0.world.read();
        self.shard(shard).hand_over(batch);
        self.turn_shards(self.bit(shard), now);
    }

    /// Turns the touched shards, and what their turns touch, until nothing is left. The caller
    /// holds the world.
    pub(crate) fn turn_shards(&self, mut touched: Touched, now: Timestamp) {
        let mut aftermath = Aftermath::default();
        while touched != 0 {
            for (index, shard) in self.0.shards.iter().enumerate() {
                if touched & 1 << index != 0 {
                    shard.turn(&self.0.shared, now, &mut aftermath);
                }
            }
            touched = if aftermath.is_empty() { 0 } else { self.dispatch(&mut aftermath) };
        }
    }

    /// Turns all shards; the caller holds the world exclusively.
    pub(crate) fn turn_all_held(&self, now: Timestamp) {
        self.turn_shards(Touched::MAX, now);
    }

    /// Leaves what a turn left to others to them. They are turned by whoever comes next.
    pub(crate) fn defer(&self, mut aftermath: Aftermath) {
        self.dispatch(&mut aftermath);
    }

    fn dispatch(&self, aftermath: &mut Aftermath) -> Touched {
        let mut touched = 0;
        for (shard, published) in aftermath.forwards.drain(..) {
            self.shard(shard).hand_over(HandOver {
                session: SessionId::default(),
                mailbox: None,
                commands: vec![ShardCommand::Publish(published)],
            });
            touched |= self.bit(shard);
        }
        for (shard, command) in aftermath.commands.drain(..) {
            let (session, commands) = (SessionId::default(), vec![command]);
            self.shard(shard).hand_over(HandOver { session, mailbox: None, commands });
            touched |= self.bit(shard);
        }
        if !aftermath.loads.is_empty() {
            self.0.loads.lock().extend(aftermath.loads.drain(..));
            self.0.shared.hooks.load_wanted();
        }
        for gone in aftermath.gone.drain(..) {
            touched |= self.forget_queue(&gone);
        }
        touched
    }

    /// Takes a queue that its shard has let go out of the catalog.
    fn forget_queue(&self, gone: &Gone) -> Touched {
        let (shard, after) = match self.0.owner.lock().forget_queue(gone.queue, &self.0.shared) {
            Ok(Some(done)) => done,
            Ok(None) => (ShardId(0), None),
            Err(error) => {
                self.0.shared.fail(&error);
                return 0;
            }
        };
        let Some((session, channel, messages)) = gone.reply else { return 0 };
        let after = After::Position(after);
        let tell = ShardCommand::Tell { notice: Notice::Deleted { channel, messages }, after };
        let mailbox = self.0.sessions.lock().get(&session).map(|it| Arc::clone(&it.mailbox));
        self.shard(shard).hand_over(HandOver { session, mailbox, commands: vec![tell] });
        self.bit(shard)
    }

    /// Holds publishers back, or lets them go on.
    pub fn block_publishers(&self, reason: Option<&'static str>) {
        {
            let mut blocked = self.0.blocked.lock();
            if *blocked == reason {
                return;
            }
            *blocked = reason;
        }
        for connected in self.0.sessions.lock().values() {
            connected.mailbox.push(match reason {
                Some(reason) => Notice::Blocked { reason },
                None => Notice::Unblocked,
            });
        }
        if reason.is_none() {
            self.0.shared.wake_held_back();
        }
    }

    /// Ready when publishers are not blocked.
    pub(crate) fn poll_unblocked(&self, context: &Context<'_>) -> Poll<()> {
        if self.blocked().is_some() {
            self.0.shared.hold_back(context.waker());
            // The block may have ended before the waker was in the list.
            if self.blocked().is_some() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    pub(crate) fn blocked(&self) -> Option<&'static str> {
        *self.0.blocked.lock()
    }

    /// Ends every session with this reason.
    pub fn close_sessions(&self, refusal: &Refusal) {
        for connected in self.0.sessions.lock().values() {
            connected.mailbox.push(Notice::Closed { refusal: refusal.clone().into() });
        }
    }

    /// Sessions that are connected.
    pub fn sessions_open(&self) -> usize {
        self.0.sessions.lock().len()
    }

    /// Octets of bodies in memory.
    pub fn bodies_bytes(&self) -> u64 {
        self.0.shared.budget.held()
    }

    pub(crate) fn is_pinned(&self, segment: u32) -> bool {
        self.0.pinned.lock().contains(&segment)
    }

    pub(crate) fn pin(&self, segment: u32) {
        self.0.pinned.lock().insert(segment);
    }

    pub(crate) fn holds_catalog(&self, segment: u32) -> bool {
        self.0.owner.lock().holds(segment)
    }

    pub(crate) fn write_catalog_snapshot(&self) -> Result<(), LogError> {
        self.0.owner.lock().write_snapshot(&self.0.shared)
    }

    /// Writes down what had been delivered, so that an orderly stop loses nothing of it. No thread
    /// of the node runs any more.
    ///
    /// # Errors
    /// [`LogError`], when the log has failed.
    pub fn stop(&self, now: Timestamp) -> Result<(), LogError> {
        // What is on its way through a read has left its queue and arrived nowhere yet.
        while self.serve_load(now) {}
        let _world = self.0.world.write();
        self.turn_all_held(now);
        let mut payload = Vec::new();
        for shard in &self.0.shards {
            let state = shard.lock();
            let plain = state.queues.iter().map(|(id, it)| (id, it.queue.redelivered_positions()));
            let jobs = state.jobs.iter().map(|(id, it)| (id, it.queue.redelivered_positions()));
            for (queue, mut redelivered) in plain.chain(jobs) {
                redelivered.sort_unstable();
                for part in redelivered.chunks(4_096) {
                    payload.clear();
                    record::encode_stopped(*queue, part, &mut payload);
                    let mut appender = self.0.shared.log.begin()?;
                    appender.record(Kind(kind::STOPPED), &[&payload])?;
                }
            }
        }
        Ok(())
    }
}
