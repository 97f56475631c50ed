//! One load: publishers and consumers at work, watched until everything has come or nobody waits
//! any longer, and what they did as one result.

use crate::{
    arrivals::Arrivals,
    clock::{Clock, MILLISECOND, Nanos},
    connection::{Connection, Product},
    consumer::{self, Consumed, ConsumerPlan},
    error::BenchError,
    histogram::Latency,
    progress::Progress,
    publisher::{self, Published, PublisherPlan},
    resources::{CpuTimes, Memory, ServerProcess},
    shared::{Counts, Phase, Shared},
    uri::Uri,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

const WATCH_EVERY: Duration = Duration::from_millis(10);

/// Where and under which circumstances loads are made.
pub(crate) struct Site {
    pub(crate) uri: Uri,
    pub(crate) clock: Clock,
    /// Set by a signal.
    pub(crate) interrupted: Arc<AtomicBool>,
    pub(crate) progress: Progress,
    pub(crate) product: Product,
    pub(crate) server: Option<ServerProcess>,
}

impl Site {
    /// Asks the broker what it is. Without a `pid`, its process is looked for.
    pub(crate) fn visit(
        uri: Uri,
        clock: Clock,
        interrupted: &Arc<AtomicBool>,
        is_quiet: bool,
        pid: Option<u32>,
    ) -> Result<Self, BenchError> {
        let connection = Connection::open(&uri)?;
        let local = connection.stream.local_addr()?;
        let server = match pid {
            Some(pid) => ServerProcess::of_pid(pid),
            None => ServerProcess::at(local, connection.peer),
        };
        let product = connection.product.clone();
        connection.close()?;
        Ok(Self {
            uri,
            clock,
            interrupted: Arc::clone(interrupted),
            progress: Progress::new(is_quiet),
            product,
            server,
        })
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits; an interruption ends it, a tenth of a second later at most.
    pub(crate) fn sleep_until(&self, moment: Nanos) -> Result<(), BenchError> {
        while self.clock.now() < moment {
            if self.is_interrupted() {
                return Err(BenchError::Interrupted);
            }
            let left = moment.saturating_sub(self.clock.now()).min(100 * MILLISECOND);
            thread::sleep(Duration::from_nanos(left));
        }
        Ok(())
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    pub(crate) label: String,
    pub(crate) publishers: Vec<PublisherPlan>,
    pub(crate) consumers: Vec<ConsumerPlan>,
    /// Each gets a copy of every message.
    pub(crate) queues: usize,
    /// What lies in the queues already: messages of each publisher of an earlier load, and how
    /// many of them the broker refused.
    pub(crate) earlier: Vec<u64>,
    pub(crate) earlier_rejected: u64,
    /// When nothing has come for so long, it is taken for lost.
    pub(crate) patience: Nanos,
    /// At this moment the run ends, whether it is complete or not.
    pub(crate) deadline: Option<Nanos>,
}

#[derive(Debug, Default)]
pub(crate) struct Publishing {
    pub(crate) by_publisher: Vec<u64>,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) rejected: u64,
    pub(crate) published_at: Nanos,
    pub(crate) confirmed_at: Nanos,
    pub(crate) confirm_latency: Latency,
    pub(crate) blocked: Nanos,
}

#[derive(Debug, Default)]
pub(crate) struct Consuming {
    pub(crate) consumed: u64,
    pub(crate) redelivered: u64,
    pub(crate) doubled: u64,
    pub(crate) foreign: u64,
    pub(crate) lost: u64,
    pub(crate) first_at: Nanos,
    pub(crate) last_at: Nanos,
    pub(crate) delivery_latency: Latency,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) started_at: Nanos,
    pub(crate) publishing: Option<Publishing>,
    pub(crate) consuming: Option<Consuming>,
    pub(crate) cpu: CpuTimes,
    pub(crate) memory: Option<Memory>,
    /// Ended by its deadline: what has not come is not lost.
    pub(crate) is_cut: bool,
}

enum Event {
    Subscribed,
    Published(Result<Published, BenchError>),
    Consumed(Result<Consumed, BenchError>),
}

impl Load {
    /// Makes the load.
    pub(crate) fn run(&self, site: &mut Site) -> Result<Done, BenchError> {
        let shared = Shared::new(&site.interrupted);
        let open = |uri: &Uri, count| {
            (0..count).map(|_| Connection::open(uri)).collect::<Result<Vec<_>, _>>()
        };
        let consuming = open(&site.uri, self.consumers.len())?;
        let mut publishing = open(&site.uri, self.publishers.len())?;
        for (connection, plan) in publishing.iter_mut().zip(&self.publishers) {
            if plan.window.is_some() {
                connection.select_confirms()?;
            }
        }
        if let Some(server) = &site.server {
            server.reset_peak();
        }
        let clock = site.clock;
        site.progress.begin(&self.label, clock.now());
        let done = thread::scope(|scope| {
            let (events, arriving) = mpsc::channel();
            let mut watch = Watch::new(self, site, &shared, arriving);
            for (plan, connection) in self.consumers.iter().zip(consuming) {
                let (events, shared) = (events.clone(), &shared);
                scope.spawn(move || consume(plan, connection, clock, shared, &events));
            }
            if !self.publishers.is_empty() {
                watch.wait_for_subscriptions();
                watch.start();
            }
            for (plan, connection) in self.publishers.iter().zip(publishing) {
                let (events, shared) = (events.clone(), &shared);
                scope.spawn(move || {
                    let _last = Last(shared);
                    let result = publisher::run(plan, connection, clock, shared);
                    events.send(Event::Published(result)).ok();
                });
            }
            drop(events);
            watch.until_all_have_ended();
            watch.done()
        });
        site.progress.end();
        done
    }

    fn messages_expected(&self, published: u64, rejected: u64) -> u64 {
        let earlier: u64 = self.earlier.iter().sum();
        let messages = earlier - self.earlier_rejected + published - rejected;
        messages * self.queues as u64
    }
}

fn consume(
    plan: &ConsumerPlan,
    connection: Connection,
    clock: Clock,
    shared: &Shared,
    events: &Sender<Event>,
) {
    let _last = Last(shared);
    let on_ready = || drop(events.send(Event::Subscribed));
    let result = consumer::run(plan, connection, clock, shared, on_ready);
    events.send(Event::Consumed(result)).ok();
}

/// A thread that ends by a bug ends the others, so that the bug is told and not waited for.
struct Last<'a>(&'a Shared);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.enter(Phase::Abandoned);
        }
    }
}

/// Follows the threads of a load.
struct Watch<'a> {
    load: &'a Load,
    site: &'a mut Site,
    shared: &'a Shared,
    arriving: Receiver<Event>,
    started_at: Nanos,
    cpu_before: CpuTimes,
    /// Since the load was complete, or given up.
    cpu: Option<CpuTimes>,
    subscribed: usize,
    published: Vec<Published>,
    consumed: Vec<Consumed>,
    ended: usize,
    error: Option<BenchError>,
    last_counts: (Nanos, Counts),
    is_cut: bool,
}

impl<'a> Watch<'a> {
    fn new(
        load: &'a Load,
        site: &'a mut Site,
        shared: &'a Shared,
        arriving: Receiver<Event>,
    ) -> Self {
        let mut watch = Self {
            load,
            site,
            shared,
            arriving,
            started_at: 0,
            cpu_before: CpuTimes::default(),
            cpu: None,
            subscribed: 0,
            published: Vec::new(),
            consumed: Vec::new(),
            ended: 0,
            error: None,
            last_counts: (0, Counts::default()),
            is_cut: false,
        };
        watch.start();
        watch
    }

    /// From now on it counts.
    fn start(&mut self) {
        self.cpu_before = CpuTimes::read(self.site.server.as_ref());
        self.started_at = self.site.clock.now();
        self.last_counts = (self.started_at, Counts::default());
    }

    fn wait_for_subscriptions(&mut self) {
        let is_waiting = |it: &Self| it.subscribed < it.load.consumers.len() && it.ended == 0;
        while is_waiting(self) && self.shared.phase() == Phase::Running {
            self.take_event();
        }
    }

    fn until_all_have_ended(&mut self) {
        while self.ended < self.load.consumers.len() + self.load.publishers.len() {
            if !self.take_event() {
                break;
            }
            self.judge();
        }
    }

    /// Whether there may be more.
    fn take_event(&mut self) -> bool {
        let event = match self.arriving.recv_timeout(WATCH_EVERY) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let failed = match event {
            Event::Subscribed => {
                self.subscribed += 1;
                return true;
            }
            Event::Published(Ok(it)) => {
                self.published.push(it);
                None
            }
            Event::Consumed(Ok(it)) => {
                self.consumed.push(it);
                None
            }
            Event::Published(Err(error)) | Event::Consumed(Err(error)) => Some(error),
        };
        self.ended += 1;
        if let Some(error) = failed {
            // The first one is the cause.
            self.error.get_or_insert(error);
            self.shared.enter(Phase::Abandoned);
        }
        true
    }

    /// Is it over?
    fn judge(&mut self) {
        let (now, counts) = (self.site.clock.now(), self.shared.counts());
        if counts != self.last_counts.1 {
            self.last_counts = (now, counts);
        }
        let share = self.share(now, counts);
        self.site.progress.show(now, share, counts);
        if self.cpu.is_some() {
            return;
        }
        let has_published = self.published.len() == self.load.publishers.len();
        let total = |of: fn(&Published) -> u64| self.published.iter().map(of).sum::<u64>();
        let expected =
            self.load.messages_expected(total(|it| it.published), total(|it| it.rejected));
        let is_complete =
            has_published && (self.load.consumers.is_empty() || expected <= counts.consumed);
        self.is_cut = !is_complete && self.load.deadline.is_some_and(|it| it <= now);
        let is_hopeless = has_published && self.last_counts.0 + self.load.patience <= now;
        let phase = match () {
            () if self.shared.phase() == Phase::Abandoned => Phase::Abandoned,
            () if is_complete => Phase::Complete,
            () if self.is_cut || is_hopeless => Phase::Abandoned,
            () => return,
        };
        self.cpu = Some(CpuTimes::read(self.site.server.as_ref()).since(self.cpu_before));
        self.shared.enter(phase);
    }

    /// How much of the load is done.
    fn share(&self, now: Nanos, counts: Counts) -> Option<f64> {
        let of = |done: u64, all: u64| done as f64 / all.max(1) as f64;
        let plans = &self.load.publishers;
        if plans.is_empty() {
            return Some(of(counts.consumed, self.load.messages_expected(0, 0)));
        }
        let count = plans.iter().try_fold(0_u64, |sum, it| sum.checked_add(it.count_max))?;
        let longest = plans.iter().map(|it| it.duration_max).max()?;
        let by_count = of(counts.published, count);
        Some(by_count.max(of(now.saturating_sub(self.started_at), longest)))
    }

    fn done(self) -> Result<Done, BenchError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.shared.is_interrupted() {
            return Err(BenchError::Interrupted);
        }
        let publishing = (!self.load.publishers.is_empty()).then(|| together(self.published));
        let consuming = (!self.load.consumers.is_empty()).then(|| {
            let published = publishing.as_ref();
            judged(self.load, self.consumed, self.started_at, published)
        });
        Ok(Done {
            started_at: self.started_at,
            publishing,
            consuming,
            cpu: self.cpu.unwrap_or_default(),
            memory: self.site.server.as_ref().and_then(ServerProcess::memory),
            is_cut: self.is_cut,
        })
    }
}

fn together(mut published: Vec<Published>) -> Publishing {
    published.sort_by_key(|it| it.index);
    let mut all = Publishing::default();
    for one in published {
        all.by_publisher.push(one.published);
        all.published += one.published;
        all.confirmed += one.confirmed;
        all.rejected += one.rejected;
        all.published_at = all.published_at.max(one.published_at);
        all.confirmed_at = all.confirmed_at.max(one.confirmed_at);
        all.confirm_latency.merge(&one.confirm_latency);
        all.blocked += one.blocked;
    }
    all
}

/// Adds up what the consumers got, and finds what none of them did.
fn judged(
    load: &Load,
    consumed: Vec<Consumed>,
    started_at: Nanos,
    publishing: Option<&Publishing>,
) -> Consuming {
    let by_publisher = publishing.map_or(&load.earlier, |it| &it.by_publisher);
    let rejected = publishing.map_or(load.earlier_rejected, |it| it.rejected);
    let mut arrivals = vec![vec![Arrivals::default(); by_publisher.len()]; load.queues];
    let mut all = Consuming { first_at: Nanos::MAX, last_at: started_at, ..Consuming::default() };
    for one in consumed {
        all.consumed += one.consumed;
        all.redelivered += one.redelivered;
        all.doubled += one.doubled;
        all.foreign += one.foreign;
        all.first_at = all.first_at.min(one.first_at.unwrap_or(Nanos::MAX));
        all.last_at = all.last_at.max(one.last_at);
        all.delivery_latency.merge(&one.latency);
        for (queue, found) in one.queues.iter().zip(&one.arrivals) {
            for (ours, theirs) in arrivals[*queue].iter_mut().zip(found) {
                all.doubled += ours.merge(theirs);
            }
        }
    }
    let copies = load.queues as u64;
    let expected = by_publisher.iter().sum::<u64>() * copies;
    let missing = if load.has_identities() {
        let of_queue = |it: &Vec<Arrivals>| -> u64 {
            it.iter().zip(by_publisher).map(|(it, count)| it.missing(*count)).sum()
        };
        arrivals.iter().map(of_queue).sum()
    } else {
        expected.saturating_sub(all.consumed)
    };
    if !load.has_identities() {
        all.doubled = all.consumed.saturating_sub(expected);
    }
    // What the broker refused need not come.
    all.lost = u64::saturating_sub(missing, rejected * copies);
    all
}

impl Load {
    /// Whether bodies say which message they are.
    fn has_identities(&self) -> bool {
        self.consumers.iter().all(ConsumerPlan::has_identities)
    }
}
