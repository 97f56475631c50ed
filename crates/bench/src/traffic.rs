//! The modes that send messages: what is declared, which loads are made, and what they say.

use crate::{
    arguments::{Mode, Traffic},
    clock::{Nanos, per_second, seconds},
    connection::QueueKind,
    consumer::ConsumerPlan,
    error::BenchError,
    load::{Done, Load, Publishing, Site},
    objects::{Objects, Wanted},
    publisher::PublisherPlan,
    report::{Amount, Section, grouped},
};
use serde_json::{Value, json};

/// What a mode has found, and what is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) sections: Vec<Section>,
    pub(crate) notes: Vec<String>,
    /// Messages that were lost and the like: the run has failed.
    pub(crate) verdict: Option<String>,
    /// For those who compare loads: the halves as they were.
    pub(crate) done: Vec<Done>,
}

/// Which halves of a load a run has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Publish,
    Consume,
    Both,
}

impl Traffic {
    /// Declares, measures and deletes. A deadline ends it early, and is no failure.
    pub(crate) fn run(
        &self,
        site: &mut Site,
        deadline: Option<Nanos>,
    ) -> Result<Found, BenchError> {
        let uri = site.uri.clone();
        let objects = Objects::declare(&uri, &self.wanted())?;
        let mut found = Found::default();
        match self.mode {
            Mode::Throughput | Mode::Latency | Mode::Fanout => {
                let load = self.load(&objects, Half::Both, None, deadline);
                found.add("", load.run(site)?);
            }
            Mode::Publish => {
                let load = self.load(&objects, Half::Publish, None, deadline);
                found.add("", load.run(site)?);
            }
            Mode::Drain => {
                let filling = self.load(&objects, Half::Publish, None, deadline).run(site)?;
                let emptying =
                    self.load(&objects, Half::Consume, filling.publishing.as_ref(), deadline);
                let done = emptying.run(site);
                found.add("publish", filling);
                found.add("drain", done?);
            }
        }
        let left = objects.delete()?;
        if self.mode == Mode::Publish {
            let published = found.done.iter().filter_map(|it| it.publishing.as_ref());
            let kept: u64 = published.map(|it| it.published - it.rejected).sum();
            let missing = kept.saturating_sub(left);
            if missing != 0 && found.done.iter().all(|it| !it.is_cut) {
                found.complain(&format!("messages missing in the queue: {missing}"));
            }
        }
        Ok(found)
    }

    /// What was asked for, for programs: a figure without it means nothing.
    pub(crate) fn settings(&self) -> Value {
        json!({
            "publishers": self.publishers,
            "consumers": self.consumers,
            "queues": self.queues,
            "size": self.body_size,
            "persistent": self.is_persistent,
            "durable_queue": self.is_durable,
            "queue_type": self.queue_type,
            "confirm": self.window,
            "ack": self.ack.to_string(),
            "prefetch": self.prefetch,
            "rate": self.rate,
            "count": self.count,
            "seconds": seconds(self.duration),
            "warmup": seconds(self.warmup),
        })
    }

    /// The same for people, shorter.
    pub(crate) fn described(&self) -> String {
        let durability = match (self.is_persistent, self.is_durable) {
            (true, true) => "durable",
            (true, false) => "persistent, transient queues",
            (false, true) => "transient, durable queues",
            (false, false) => "transient",
        };
        let confirms = match self.window {
            0 => "no confirms".to_owned(),
            window => format!("confirmed, at most {} unconfirmed", grouped(window)),
        };
        let mut parts = vec![
            counted(self.publishers, "publisher"),
            counted(self.consumers, "consumer"),
            format!("{} B", grouped(self.body_size as u64)),
            durability.to_owned(),
            confirms,
        ];
        if self.consumers != 0 {
            parts.push(format!("ack {}", self.ack));
        }
        if let Some(rate) = self.rate {
            parts.push(format!("{rate}/s"));
        }
        parts.join(", ")
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            name: self.queue_name.clone(),
            kind: QueueKind { is_durable: self.is_durable, kind: self.queue_type.clone() },
            queues: self.queues,
            has_fanout: self.mode == Mode::Fanout,
        }
    }

    fn load(
        &self,
        objects: &Objects<'_>,
        half: Half,
        earlier: Option<&Publishing>,
        deadline: Option<Nanos>,
    ) -> Load {
        let label = match (self.mode, half) {
            (Mode::Drain, Half::Publish) => "fill",
            (mode, _) => mode.name(),
        };
        Load {
            label: label.to_owned(),
            publishers: if half == Half::Consume { Vec::new() } else { self.publishers(objects) },
            consumers: if half == Half::Publish { Vec::new() } else { self.consumers(objects) },
            queues: self.queues,
            earlier: earlier.map_or_else(Vec::new, |it| it.by_publisher.clone()),
            earlier_rejected: earlier.map_or(0, |it| it.rejected),
            patience: self.patience,
            deadline,
        }
    }

    /// The count and the rate are shared out among them.
    fn publishers(&self, objects: &Objects<'_>) -> Vec<PublisherPlan> {
        let publishers = self.publishers as u64;
        let queue = objects.queues.first().cloned().unwrap_or_default();
        let (exchange, routing_key) =
            objects.exchange.clone().map_or((String::new(), queue), |it| (it, String::new()));
        let count_of = |index| {
            self.count.map_or(u64::MAX, |it| it / publishers + u64::from(index < it % publishers))
        };
        let rate_of =
            |index| self.rate.map(|it| (it / publishers as f64, index as f64 / publishers as f64));
        (0..publishers)
            .map(|index| PublisherPlan {
                index: index as usize,
                exchange: exchange.clone(),
                routing_key: routing_key.clone(),
                body_size: self.body_size,
                is_persistent: self.is_persistent,
                window: Some(self.window).filter(|it| *it != 0),
                count_max: count_of(index),
                duration_max: self.duration,
                rate: rate_of(index),
                warmup: self.warmup,
            })
            .collect()
    }

    /// Each queue has as many consumers as the others, or each consumer as many queues.
    fn consumers(&self, objects: &Objects<'_>) -> Vec<ConsumerPlan> {
        let queues = &objects.queues;
        let of_consumer = |index: usize| {
            let all = queues.iter().cloned().enumerate();
            if queues.len() <= self.consumers {
                all.skip(index % queues.len()).take(1).collect()
            } else {
                all.skip(index).step_by(self.consumers).collect()
            }
        };
        (0..self.consumers)
            .map(|index| ConsumerPlan {
                queues: of_consumer(index),
                publishers: self.publishers,
                ack: self.ack,
                prefetch: self.prefetch,
                body_size: self.body_size,
            })
            .collect()
    }
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Publish => "publish",
            Self::Drain => "drain",
            Self::Fanout => "fanout",
        }
    }
}

impl Found {
    pub(crate) const TIME_IS_OVER: &str = "The time was over before everything was done.";

    fn add(&mut self, key: &'static str, done: Done) {
        self.sections.push(section(key, &done));
        if let Some(it) = &done.publishing
            && it.rejected != 0
        {
            self.complain(&format!("messages refused by the broker: {}", it.rejected));
        }
        if let Some(it) = &done.consuming {
            for (count, what) in [
                (it.doubled, "that came twice"),
                (it.foreign, "that nobody of this run sent"),
                (if done.is_cut { 0 } else { it.lost }, "lost"),
            ] {
                if count != 0 {
                    self.complain(&format!("messages {what}: {count}"));
                }
            }
        }
        if done.is_cut {
            self.notes.push(Self::TIME_IS_OVER.to_owned());
        }
        self.done.push(done);
    }

    pub(crate) fn complain(&mut self, problem: &str) {
        match &mut self.verdict {
            Some(it) => *it += &format!("; {problem}"),
            None => self.verdict = Some(problem.to_owned()),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

fn section(key: &'static str, done: &Done) -> Section {
    let mut section = Section::new(key);
    let mut messages = 0;
    if let Some(it) = &done.publishing {
        messages = it.published;
        let rate = per_second(it.published, done.started_at, it.published_at);
        section.add("published", "published", Amount::Count(it.published));
        section.add("published_per_s", "published", Amount::PerSecond(rate));
        if it.confirmed + it.rejected != 0 {
            let rate = per_second(it.confirmed, done.started_at, it.confirmed_at);
            section.add("confirmed", "confirmed", Amount::Count(it.confirmed));
            section.add("confirmed_per_s", "confirmed", Amount::PerSecond(rate));
            section.add("rejected", "refused", Amount::Count(it.rejected));
            let latency = it.confirm_latency.percentiles().map(Amount::Latency);
            section.add("confirm_latency_us", "confirm latency", latency);
        }
        section.add("blocked_s", "held back", Amount::Seconds(seconds(it.blocked)));
    }
    if let Some(it) = &done.consuming {
        messages = messages.max(it.consumed);
        let rate = per_second(it.consumed, done.started_at, it.last_at);
        section.add("consumed", "consumed", Amount::Count(it.consumed));
        section.add("consumed_per_s", "consumed", Amount::PerSecond(rate));
        let latency = it.delivery_latency.percentiles().map(Amount::Latency);
        section.add("delivery_latency_us", "delivery latency", latency);
        let first = seconds(it.first_at.saturating_sub(done.started_at));
        let first = (it.consumed != 0).then_some(Amount::Seconds(first));
        section.add("first_delivery_s", "first delivery after", first);
        section.add("lost", "lost", (!done.is_cut).then_some(Amount::Count(it.lost)));
        section.add("duplicates", "came twice", Amount::Count(it.doubled));
        section.add("redelivered", "marked as redelivered", Amount::Count(it.redelivered));
    }
    let each = |cpu_s: f64| Amount::Micros(cpu_s * 1e6 / messages.max(1) as f64);
    section.add("server_cpu_s", "server CPU", done.cpu.server.map(Amount::Seconds));
    section.add("server_cpu_us_per_message", "server CPU, each", done.cpu.server.map(each));
    section.add("client_cpu_s", "client CPU", done.cpu.client.map(Amount::Seconds));
    let memory = |of: fn(crate::resources::Memory) -> f64| done.memory.map(of).map(Amount::Mib);
    section.add("server_memory_mib", "server memory", memory(|it| it.resident_mib));
    section.add("server_memory_peak_mib", "server memory, peak", memory(|it| it.peak_mib));
    section
}
