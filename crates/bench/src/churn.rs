//! Connections that come and go, and those that do nothing.

use crate::{
    arguments::{Churn, Idle},
    clock::{MILLISECOND, Nanos, per_second},
    connection::{Connection, QueueKind},
    error::BenchError,
    histogram::Latency,
    load::Site,
    objects::{Objects, Wanted},
    report::{Amount, Section},
    resources::CpuTimes,
    shared::{Counts, Shared},
    traffic::Found,
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// What one client of the churn did.
#[derive(Default)]
struct Opened {
    count: u64,
    latency: Latency,
}

impl Churn {
    /// Connects, opens a channel, closes both in order, and again.
    pub(crate) fn run(&self, site: &mut Site) -> Result<Found, BenchError> {
        let shared = Shared::new(&site.interrupted);
        let begun = AtomicU64::new(0);
        let cpu_before = CpuTimes::read(site.server.as_ref());
        let started_at = site.clock.now();
        site.progress.begin("churn", started_at);
        let (uri, clock) = (site.uri.clone(), site.clock);
        let one = || {
            let mut opened = Opened::default();
            while !shared.is_interrupted() && clock.now() < started_at + self.duration {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if self.count.is_some_and(|it| it <= number) {
                    break;
                }
                let before = clock.now();
                let connection = Connection::open(&uri)?;
                opened.latency.record(clock.now() - before);
                connection.close()?;
                opened.count += 1;
                shared.add_published(1);
            }
            Ok(opened)
        };
        let results: Vec<Result<Opened, BenchError>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients).map(|_| scope.spawn(one)).collect();
            while threads.iter().any(|it| !it.is_finished()) {
                let (now, done) = (clock.now(), shared.counts().published);
                let by_time = (now - started_at) as f64 / self.duration.max(1) as f64;
                let by_count = self.count.map_or(0.0, |it| done as f64 / it as f64);
                site.progress.show(now, Some(by_time.max(by_count)), Counts::default());
                thread::sleep(Duration::from_millis(10));
            }
            let joined = threads.into_iter().map(|it| it.join().expect("no client panics"));
            joined.collect()
        });
        let ended_at = clock.now();
        site.progress.end();
        let mut all = Opened::default();
        for opened in results {
            let opened = opened?;
            all.count += opened.count;
            all.latency.merge(&opened.latency);
        }
        if shared.is_interrupted() {
            return Err(BenchError::Interrupted);
        }
        let cpu = CpuTimes::read(site.server.as_ref()).since(cpu_before);
        Ok(Self::found(&all, (started_at, ended_at), cpu))
    }

    fn found(all: &Opened, (from, to): (Nanos, Nanos), cpu: CpuTimes) -> Found {
        let mut section = Section::new("");
        section.add("connections", "connections", Amount::Count(all.count));
        let rate = per_second(all.count, from, to);
        section.add("connections_per_s", "opened and closed", Amount::PerSecond(rate));
        let latency = all.latency.percentiles().map(Amount::Latency);
        section.add("open_latency_us", "until the channel is open", latency);
        let each = |it: f64| Amount::Micros(it * 1e6 / all.count.max(1) as f64);
        section.add("server_cpu_s", "server CPU", cpu.server.map(Amount::Seconds));
        section.add("server_cpu_us_per_connection", "server CPU, each", cpu.server.map(each));
        section.add("client_cpu_s", "client CPU", cpu.client.map(Amount::Seconds));
        Found { sections: vec![section], ..Found::default() }
    }
}

impl Idle {
    /// Opens what shall be idle, waits, and reads the broker's memory before and after.
    pub(crate) fn run(&self, site: &mut Site) -> Result<Found, BenchError> {
        let Some(server) = site.server.clone() else {
            let text = "the broker's memory cannot be read: it runs on another machine or belongs \
                        to another user; name its process with --server-pid";
            return Err(BenchError::Usage(text.to_owned()));
        };
        raise_file_limit();
        let unreadable =
            || BenchError::OwnBroker(format!("the memory of process {} is hidden", server.pid));
        let before = server.memory().ok_or_else(unreadable)?;
        let uri = site.uri.clone();
        let started_at = site.clock.now();
        site.progress.begin("idle", started_at);
        let wanted = Wanted {
            name: None,
            kind: QueueKind { is_durable: self.is_durable, kind: self.queue_type.clone() },
            queues: self.queues,
            has_fanout: false,
        };
        let objects = match self.queues {
            0 => None,
            _ => Some(Objects::declare(&uri, &wanted)?),
        };
        let mut connections = Vec::with_capacity(self.connections);
        while connections.len() < self.connections {
            if site.is_interrupted() {
                return Err(BenchError::Interrupted);
            }
            connections.push(Connection::open(&uri)?);
            let share = connections.len() as f64 / self.connections as f64;
            site.progress.show(site.clock.now(), Some(share), Counts::default());
        }
        let opened_at = site.clock.now();
        site.sleep_until(opened_at + self.wait.max(MILLISECOND))?;
        let after = server.memory().ok_or_else(unreadable)?;
        for connection in connections {
            connection.close()?;
        }
        objects.map_or(Ok(0), Objects::delete)?;
        site.progress.end();
        let added = after.resident_mib - before.resident_mib;
        let mut section = Section::new("");
        section.add("connections", "connections", Amount::Count(self.connections as u64));
        section.add("queues", "queues", Amount::Count(self.queues as u64));
        let opening = (opened_at - started_at) as f64 / 1e9;
        section.add("open_s", "opened and declared in", Amount::Seconds(opening));
        section.add("server_memory_before_mib", "memory before", Amount::Mib(before.resident_mib));
        section.add("server_memory_mib", "memory with them", Amount::Mib(after.resident_mib));
        let each = added * 1024.0 / (self.connections + self.queues).max(1) as f64;
        section.add("added_kib_each", "added for each", Amount::Text(format!("{each:.1} KiB")));
        Ok(Found { sections: vec![section], ..Found::default() })
    }
}

/// As many sockets as the system lets this user have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, opening says so soon enough.
    let _ = setrlimit(Resource::Nofile, limit);
}
