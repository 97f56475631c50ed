//! The threads of a node: one syncs the log, one reads bodies back, one watches timers, one keeps
//! the log's house. None of them changes a queue but by turning its shard like everybody else.

use crate::{clock::Clock, scheduling, signal::Signal};
use broker::{Broker, Checkpointed, Checkpointer, Hooks};
use parking_lot::Mutex;
use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread::{self, JoinHandle},
    time::Duration,
};
use storage::{Log, Space};

/// Longest time that something stays in memory which nobody waits for.
const LAZY_SYNC_MS: u64 = 200;
/// Time between two looks at the house.
const KEEP_HOUSE_MS: u64 = 500;
/// Steps of preparing segments, while the log is behind, before reclaim has its turn.
const STEPS_AT_ONCE: u32 = 16;
/// Time between two looks at what a checkpoint could stand for.
const CHECKPOINT: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_millis(1_000);
/// A log to which nothing comes for so long keeps no buffers. Shorter than it takes until the
/// program counts as idle, which is when free memory goes back to the system.
const REST: Duration = Duration::from_millis(500);

/// Signals to the threads, and the end of the log if there was one.
#[derive(Default)]
pub(crate) struct Signals {
    sync: Signal,
    load: Signal,
    timer: Signal,
    house: Signal,
    checkpoint: Signal,
    stop: AtomicBool,
    failure: Mutex<Failure>,
}

#[derive(Default)]
struct Failure {
    why: Option<String>,
    wakers: Vec<Waker>,
}

/// What the broker sees of the signals.
pub(crate) struct NodeHooks(pub(crate) Arc<Signals>);

impl Hooks for NodeHooks {
    fn sync_wanted(&self) {
        self.0.sync.give();
    }

    fn load_wanted(&self) {
        self.0.load.give();
    }

    fn deadline_moved(&self) {
        self.0.timer.give();
    }

    fn failed(&self, why: &str) {
        self.0.fail(why);
    }

    fn damaged(&self, what: &str) {
        tracing::error!(code = "FMQ-0101", "{what}");
    }
}

impl Signals {
    fn fail(&self, why: &str) {
        let wakers = {
            let mut failure = self.failure.lock();
            failure.why.get_or_insert_with(|| why.to_owned());
            std::mem::take(&mut failure.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Why the log failed, once it has.
    pub(crate) async fn failed(&self) -> String {
        poll_fn(|context| {
            let mut failure = self.failure.lock();
            match &failure.why {
                Some(why) => Poll::Ready(why.clone()),
                None => {
                    failure.wakers.push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }
}

/// The running threads.
pub(crate) struct Threads {
    signals: Arc<Signals>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(
        broker: &Broker,
        log: &Arc<Log>,
        clock: Clock,
        signals: &Arc<Signals>,
    ) -> io::Result<Self> {
        let mut threads = Self { signals: Arc::clone(signals), handles: Vec::new() };
        let (to_sync, to_signal) = (broker.clone(), Arc::clone(signals));
        let log_to_sync = Arc::clone(log);
        threads.spawn("log-sync", move || sync_log(&to_sync, &log_to_sync, clock, &to_signal))?;
        let (to_read, to_signal) = (broker.clone(), Arc::clone(signals));
        threads.spawn("read-ahead", move || read_ahead(&to_read, clock, &to_signal))?;
        let (to_tick, to_signal, log_to_watch) =
            (broker.clone(), Arc::clone(signals), Arc::clone(log));
        threads
            .spawn("timers", move || watch_timers(&to_tick, &log_to_watch, clock, &to_signal))?;
        let (to_keep, to_signal) = (broker.clone(), Arc::clone(signals));
        let log_to_keep = Arc::clone(log);
        threads
            .spawn("log-house", move || keep_house(&to_keep, &log_to_keep, clock, &to_signal))?;
        let (to_write, to_signal) = (Checkpointer::new(Arc::clone(log)), Arc::clone(signals));
        threads.spawn("log-checkpoint", move || keep_checkpoint(to_write, &to_signal))?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let run = move || {
            scheduling::run_in_short_slices();
            run();
        };
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.handles.push(handle);
        Ok(())
    }

    /// Ends all of them.
    pub(crate) fn stop(&mut self) {
        self.signals.stop.store(true, Ordering::Release);
        let signals = &self.signals;
        for signal in
            [&signals.sync, &signals.load, &signals.timer, &signals.house, &signals.checkpoint]
        {
            signal.give();
        }
        for handle in self.handles.drain(..) {
            // A panic of the thread has been printed where it happened.
            let _ = handle.join();
        }
    }
}

/// Writes and syncs what is appended. One sync at a time serves everybody who waits.
fn sync_log(broker: &Broker, log: &Log, clock: Clock, signals: &Signals) {
    signals.sync.adopt();
    let mut synced_at = clock.now();
    while signals.runs() {
        if !broker.waits_for_sync() && !signals.sync.wait(REST) && !log.has_pending() {
            log.rest();
            if let Some(spill) = broker.spill() {
                spill.rest();
            }
        }
        if !signals.runs() {
            return;
        }
        let now = clock.now();
        let is_due = synced_at.plus_ms(LAZY_SYNC_MS) <= now;
        let sync = broker.waits_for_sync() || is_due;
        let flushed = match log.has_pending() || (sync && log.durable() < log.end()) {
            true => log.flush(sync).map(|_| ()),
            false => Ok(()),
        };
        let spill = broker.spill().filter(|it| it.has_pending());
        let spilled = spill.map_or(Ok(()), |it| it.flush(false).map(|_| ()));
        if let Err(error) = flushed.and(spilled) {
            signals.fail(&error.to_string());
            return;
        }
        if sync {
            synced_at = now;
        }
        if log.is_behind() && log.space() == Space::Plenty {
            signals.house.give();
        }
        broker.synced(clock.now());
    }
}

fn read_ahead(broker: &Broker, clock: Clock, signals: &Signals) {
    signals.load.adopt();
    while signals.runs() {
        if !broker.serve_load(clock.now()) {
            signals.load.wait(IDLE);
        }
    }
}

fn watch_timers(broker: &Broker, log: &Log, clock: Clock, signals: &Signals) {
    signals.timer.adopt();
    while signals.runs() {
        let now = clock.now();
        if broker.deadline() <= now {
            broker.tick(now);
        }
        if log.has_pending() || log.durable() < log.end() {
            signals.sync.give();
        }
        let until = broker.deadline().0.saturating_sub(clock.now().0);
        signals.timer.wait(Duration::from_millis(until.clamp(1, LAZY_SYNC_MS)));
    }
}

/// Prepares segments ahead, gives dead ones back, and blocks publishers while there is no room.
fn keep_house(broker: &Broker, log: &Log, clock: Clock, signals: &Signals) {
    signals.house.adopt();
    while signals.runs() {
        let mut more = false;
        match broker.reclaim(clock.now()) {
            Ok(freed) => more |= freed,
            Err(error) => return signals.fail(&error.to_string()),
        }
        for step in 1..=STEPS_AT_ONCE {
            let spill = broker.spill();
            let spaces = log.prepare().and_then(|log_space| {
                Ok((log_space, spill.as_ref().map_or(Ok(Space::Plenty), |it| it.prepare())?))
            });
            let low = match spaces {
                Ok(spaces) => spaces != (Space::Plenty, Space::Plenty),
                Err(error) => return signals.fail(&error.to_string()),
            };
            broker.block_publishers(low.then_some("low on disk"));
            let is_behind = log.is_behind() || spill.is_some_and(|it| it.is_behind());
            if low || !is_behind || !signals.runs() {
                break;
            }
            // Reclaim has its turn, too: what it gives back need not be prepared.
            more |= step == STEPS_AT_ONCE;
        }
        if !more {
            signals.house.wait(Duration::from_millis(KEEP_HOUSE_MS));
        }
    }
}

/// Writes down what the log amounts to, and looks through what the start did not read. A checkpoint
/// that cannot be written costs the next start time, and nothing else.
fn keep_checkpoint(mut checkpointer: Checkpointer, signals: &Signals) {
    signals.checkpoint.adopt();
    scheduling::run_behind_others();
    // Whoever waits for the start goes first.
    signals.checkpoint.wait(CHECKPOINT);
    while signals.runs() {
        match checkpointer.look(&|| !signals.runs()) {
            Ok(Checkpointed::Written) => continue,
            Ok(Checkpointed::Verified(lines)) => {
                for line in lines {
                    tracing::error!(code = "FMQ-0101", "{line}");
                }
            }
            Ok(Checkpointed::Nothing) => {}
            Err(error) => {
                tracing::warn!(%error, "no checkpoint: the next start reads more of the log");
            }
        }
        signals.checkpoint.wait(CHECKPOINT);
    }
}
