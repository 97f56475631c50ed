//! The loop: one seed, one history. Clients, log thread, reader, timers and reclaim are steps that
//! it takes in a random order; now and then the power goes, the process dies, or it stops in
//! order.

use crate::{
    client::{Client, binding_request, declaration},
    drain::{Asking, RESTING_MS, check_reclaim, drain},
    history::History,
    host::{Host, Sizes},
    image::Bench,
    judge::judge,
    random::Random,
    world::{FANOUT, SPECS, SpecId, spec_of},
};
use model::{ChannelId, Request, Table, Timestamp, request::DeclareExchange};
use std::panic::{AssertUnwindSafe, catch_unwind};
use storage::{Fault, FaultKind, MemoryDisk};

/// Clients at a time.
const CLIENTS_MAX: usize = 4;
/// Steps that clients take after the log has failed.
const STEPS_AFTER_FAILURE: u64 = 30;

/// How a simulation runs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Steps of the loop.
    pub steps: u64,
    /// Steps between two restarts, on the average.
    pub restart_every: u64,
    /// Steps between two rests in which reclaim works, on the average.
    pub reclaim_every: u64,
    /// Disks that are judged at each restart.
    pub images: usize,
    /// Operations of the disk fail.
    pub faults: bool,
    /// See [`Sizes::is_lenient`].
    pub is_lenient: bool,
    /// Lines about everything that happens.
    pub traced: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (faults, is_lenient, traced) = (false, false, false);
        Self {
            steps: 70,
            restart_every: 25,
            reclaim_every: 40,
            images: 20,
            faults,
            is_lenient,
            traced,
        }
    }
}

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seed: u64,
    /// Disks that were judged.
    pub states: u64,
    pub restarts: u64,
    pub checkpoints: u64,
    /// Restarts that began with a checkpoint.
    pub checkpointed: u64,
    pub failures: u64,
    pub published: u64,
    pub confirmed: u64,
    pub delivered: u64,
    pub wrong: Vec<String>,
    pub trace: Vec<String>,
}

/// Runs one seed. Panics of the broker count as wrong.
pub fn run(seed: u64, plan: Plan) -> Outcome {
    let run = || {
        let mut simulation = Simulation::new(seed, plan);
        if let Err(wrong) = simulation.go() {
            simulation.history.fault(wrong);
        }
        simulation.outcome()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        let wrong = vec![format!("panic: {}", text.unwrap_or_default())];
        Outcome { seed, wrong, ..Outcome::default() }
    })
}

struct Simulation {
    seed: u64,
    plan: Plan,
    random: Random,
    sizes: Sizes,
    specs: Vec<SpecId>,
    history: History,
    clients: Vec<Client>,
    host: Option<Host>,
    outcome: Outcome,
}

fn choose(random: &mut Random) -> Vec<SpecId> {
    let mut chosen: Vec<SpecId> = (0..SPECS.len()).filter(|_| random.once_in(3)).collect();
    chosen.push(random.index(SPECS.len()));
    let dead: Vec<_> = chosen.iter().filter_map(|it| SPECS[*it].dead).map(spec_of).collect();
    chosen.extend(dead);
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

impl Simulation {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut random = Random::new(seed);
        let sizes = Sizes {
            shards: random.pick(&[1, 2, 2, 3]),
            segment_bytes: random.pick(&[8 << 10, 16 << 10, 32 << 10]),
            bodies_bytes_max: random.pick(&[0, 500, 4_000, 1 << 20]),
            sync_within: random.pick(&[0, 2, 5]),
            is_lenient: plan.is_lenient,
        };
        let specs = choose(&mut random);
        let mut history = History::default();
        history.may_fail = plan.faults;
        history.trace = plan.traced.then(Vec::new);
        let outcome = Outcome { seed, ..Outcome::default() };
        let clients = Vec::new();
        Self { seed, plan, random, sizes, specs, history, clients, host: None, outcome }
    }

    fn outcome(self) -> Outcome {
        let history = self.history;
        Outcome {
            published: history.messages.len() as u64,
            confirmed: history.confirmed,
            delivered: history.delivered,
            wrong: history.wrong,
            trace: history.trace.unwrap_or_default(),
            ..self.outcome
        }
    }

    fn host(&mut self) -> &mut Host {
        self.host.as_mut().expect("a broker runs between two restarts")
    }

    fn bench(&self, now: Timestamp, orderly: bool) -> Bench<'_> {
        let may_fail = self.plan.faults;
        Bench { sizes: self.sizes, specs: &self.specs, now, orderly, may_fail }
    }

    fn go(&mut self) -> Result<(), String> {
        let (seed, sizes, specs) = (self.seed, self.sizes, self.specs.clone());
        let names: Vec<_> = specs.iter().map(|it| SPECS[*it].name).collect();
        self.history.note(|| format!("seed {seed}, {sizes:?}, {names:?}"));
        let host = Host::open(MemoryDisk::new(), sizes, Timestamp(1_000_000), seed)?;
        host.found()?;
        let history = &mut self.history;
        declare_all(&host, history, &specs)?;
        self.host = Some(host);
        let fails_at = match self.plan.faults {
            true => self.random.below(self.plan.steps),
            false => u64::MAX,
        };
        for step in 0..self.plan.steps {
            if step == fails_at {
                self.break_disk();
            }
            if self.random.once_in(self.plan.restart_every) {
                self.restart()?;
            } else if let Err(error) = self.step_or_rest() {
                self.after_failure(&error)?;
            } else if self.host().failure().is_some() {
                let why = self.host().failure().unwrap_or_default();
                self.after_failure(&why)?;
            }
            if !self.history.wrong.is_empty() {
                return Ok(());
            }
        }
        self.end()
    }

    fn break_disk(&mut self) {
        let within = self.random.below(40);
        let kinds = [FaultKind::Eio, FaultKind::Enospc, FaultKind::Eintr, FaultKind::Short];
        let kind = self.random.pick(&kinds);
        let forever = matches!(kind, FaultKind::Eio) && self.random.once_in(2);
        let disk = self.host().disk.clone();
        let fault = Fault { at: disk.operations() + within, kind, forever };
        self.history.note(|| format!("{fault:?}"));
        disk.fail(fault);
    }

    fn step_or_rest(&mut self) -> Result<(), String> {
        if self.random.once_in(self.plan.reclaim_every) {
            self.history.note(|| "reclaim at rest".to_owned());
            return self.reclaim_at_rest();
        }
        self.step()
    }

    fn step(&mut self) -> Result<(), String> {
        let which = self.random.below(100);
        self.take_step(which)
    }

    fn take_step(&mut self, which: u64) -> Result<(), String> {
        let random = &mut self.random;
        let Some(host) = &mut self.host else { return Ok(()) };
        let history = &mut self.history;
        match which {
            0..=43 if !self.clients.is_empty() => {
                let client = random.index(self.clients.len());
                self.clients[client].act(random, host, history, &self.specs);
            }
            44..=63 if !self.clients.is_empty() => {
                let client = random.index(self.clients.len());
                self.clients[client].listen(host, history);
            }
            97 if 1 < self.clients.len() => {
                let client = self.clients.swap_remove(random.index(self.clients.len()));
                client.close(host, history);
            }
            0..=63 | 97..=99 if self.clients.len() < CLIENTS_MAX => {
                self.clients.push(Client::connect(host, history)?);
            }
            other => return self.broker_step(other),
        }
        Ok(())
    }

    /// A step of one of the node's threads; only the clients' doings change the history.
    fn broker_step(&mut self, which: u64) -> Result<(), String> {
        let Some(host) = &mut self.host else { return Ok(()) };
        let mut note = |what: &str| self.history.note(|| what.to_owned());
        match which {
            64..=68 => {
                note("written");
                host.flush(false)?;
            }
            69..=77 => {
                note("synced");
                host.flush(true)?;
            }
            78..=83 => {
                note("told");
                host.synced();
            }
            84..=89 => {
                note("load");
                host.load();
            }
            90..=92 => {
                note("time passes");
                host.pass(1 + self.random.below(30));
            }
            93..=94 => {
                note("reclaim");
                host.reclaim()?;
            }
            95 => {
                note("checkpoint");
                let written = host.checkpoint().and_then(|it| host.look().map(|()| it));
                self.take_checkpoint(written)?;
            }
            _ => {
                note("prepare");
                host.prepare()?;
            }
        }
        Ok(())
    }

    /// On a failing disk there may be none; that is no failure of the log.
    fn take_checkpoint(&mut self, written: Result<bool, String>) -> Result<(), String> {
        match written {
            Ok(written) => self.outcome.checkpoints += u64::from(written),
            Err(error) if !self.plan.faults => return Err(error),
            Err(error) => self.history.note(|| format!("no checkpoint: {error}")),
        }
        Ok(())
    }

    /// A few looks at segments in which nothing changes, as far as a random end.
    fn reclaim_at_rest(&mut self) -> Result<(), String> {
        for _ in 0..=self.random.below(6) {
            let Some(host) = &mut self.host else { return Ok(()) };
            host.pass(RESTING_MS);
            host.reclaim()?;
            let mut written = Ok(false);
            for _ in 0..self.random.below(4) {
                match self.random.below(4) {
                    0 => host.flush(true)?,
                    1 => host.synced(),
                    2 => written = host.checkpoint(),
                    _ => host.prepare()?,
                }
            }
            self.take_checkpoint(written)?;
        }
        Ok(())
    }

    /// The log has failed: nothing more becomes durable, and a fresh process recovers.
    fn after_failure(&mut self, why: &str) -> Result<(), String> {
        if !self.plan.faults {
            return Err(format!("the log fails on a good disk: {why}"));
        }
        self.history.note(|| format!("failed: {why}"));
        self.outcome.failures += 1;
        // A broker that gives up for want of room has a log that goes on.
        let is_poisoned = self.host().log.failure().is_some();
        let durable = self.host().log.durable();
        for _ in 0..STEPS_AFTER_FAILURE {
            // The process is about to end, and what fails now has failed before.
            let which = 44 + self.random.below(53);
            let _ = self.take_step(which);
        }
        if is_poisoned && self.host().log.durable() != durable {
            return Err("something becomes durable after the log has failed".to_owned());
        }
        self.crash()
    }

    fn restart(&mut self) -> Result<(), String> {
        if self.random.once_in(4) { self.stop() } else { self.crash() }
    }

    fn listen_maybe(&mut self) {
        if self.random.once_in(2) {
            let Some(host) = &self.host else { return };
            self.clients.iter_mut().for_each(|it| it.listen(host, &mut self.history));
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.listen_maybe();
        let recorded = self.random.once_in(2);
        let mut disks = if recorded { self.recorded_disks() } else { self.crash_disks() };
        let main = disks.pop();
        for client in std::mem::take(&mut self.clients) {
            client.forget(&mut self.history);
        }
        let Some(host) = self.host.take() else { return Ok(()) };
        let (disk, now) = (host.disk.clone(), host.now);
        drop(host);
        disk.heal();
        self.history.note(|| "crash".to_owned());
        self.history.restart(true);
        for disk in disks {
            let mut random = Random::new(self.random.number());
            let bench = self.bench(now, false);
            let states = bench.judge(disk, &self.history, &mut random)?;
            self.outcome.states += states;
        }
        // Only the process has died, or the power has gone.
        let only_process = !recorded && self.random.once_in(3);
        self.reopen(main.filter(|_| !only_process).unwrap_or(disk), now, false)
    }

    /// Disks as they may look now; one more than is judged.
    fn crash_disks(&mut self) -> Vec<MemoryDisk> {
        let disk = self.host().disk.clone();
        (0..=self.plan.images).map(|_| disk.crash(self.random.number())).collect()
    }

    /// Disks as they may look between two operations of the next steps.
    fn recorded_disks(&mut self) -> Vec<MemoryDisk> {
        let disk = self.host().disk.clone();
        let count = self.plan.images + 1;
        disk.record_crashes(self.random.number());
        for _ in 0..=self.random.below(5) {
            let which = 64 + self.random.below(36);
            // A failed disk stays failed.
            let _ = self.broker_step(which);
        }
        let mut crashes = disk.take_crashes();
        let mut chosen = vec![disk.crash(self.random.number())];
        while chosen.len() < count && !crashes.is_empty() {
            chosen.push(crashes.swap_remove(self.random.index(crashes.len())));
        }
        chosen
    }

    fn stop(&mut self) -> Result<(), String> {
        self.listen_maybe();
        let Some(host) = self.host.take() else { return Ok(()) };
        for client in std::mem::take(&mut self.clients) {
            client.close(&host, &mut self.history);
        }
        self.history.note(|| "stop".to_owned());
        let stopped = host.failure().map_or_else(|| host.stop(), Err);
        if let Err(error) = stopped {
            self.host = Some(host);
            return self.after_failure(&error);
        }
        let (disk, now) = (host.disk.clone(), host.now);
        drop(host);
        disk.heal();
        self.history.restart(false);
        for image in [disk.copy(), disk.crash(self.random.number())] {
            let mut random = Random::new(self.random.number());
            let bench = self.bench(now, true);
            self.outcome.states += bench.judge(image, &self.history, &mut random)?;
        }
        self.reopen(disk, now, true)
    }

    fn reopen(&mut self, disk: MemoryDisk, now: Timestamp, orderly: bool) -> Result<(), String> {
        self.outcome.restarts += 1;
        let seed = self.random.number();
        let host = self.bench(now, orderly).open(&disk, seed)?;
        self.outcome.checkpointed += u64::from(host.recovery.checkpoint.is_some());
        let mut asking = Asking::connect(&host)?;
        let depths = asking.depths(&host, &self.specs)?;
        asking.close(&host);
        for spec in &self.specs {
            self.history.resolve(*spec, depths[*spec].is_some());
        }
        self.history.note(|| format!("open again: {depths:?}"));
        let again: Vec<SpecId> = self
            .specs
            .iter()
            .copied()
            .filter(|it| !SPECS[*it].churns || self.history.live(*it).is_some())
            .collect();
        declare_all(&host, &mut self.history, &again)?;
        self.host = Some(host);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.host().disk.heal();
        if self.host().settle_down().is_err() || self.host().failure().is_some() {
            self.after_failure("at the end")?;
        }
        let Some(host) = &mut self.host else { return Ok(()) };
        for _ in 0..64 {
            // There is room again.
            host.prepare()?;
        }
        for _ in 0..3 {
            host.settle_down()?;
            self.clients.iter_mut().for_each(|it| it.listen(host, &mut self.history));
        }
        self.clients.iter().for_each(|it| it.check_idle(&mut self.history));
        for client in std::mem::take(&mut self.clients) {
            client.close(host, &mut self.history);
        }
        host.settle_down()?;
        let drained = drain(host, &self.history, &self.specs)?;
        let wrong = judge(&self.history, &drained, &self.specs);
        wrong.into_iter().for_each(|it| self.history.fault(it));
        check_reclaim(host)?;
        host.complaint().map_or(Ok(()), Err)
    }
}

/// Declares the queues that are not there and binds those that are to be bound.
fn declare_all(host: &Host, history: &mut History, specs: &[SpecId]) -> Result<(), String> {
    let mut asking = Asking::connect(host)?;
    let mut requests = vec![Request::DeclareExchange(DeclareExchange {
        channel: ChannelId(1),
        exchange: FANOUT.into(),
        kind: "fanout".into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Table::default(),
    })];
    for spec in specs {
        let channel = ChannelId(u16::try_from(*spec).unwrap_or(0) + 2);
        requests.push(declaration(channel, *spec));
        let instance = history.declare(*spec);
        history.instances[instance].declared = true;
        let bind = SPECS[*spec].fanout || SPECS[*spec].churns;
        if bind {
            let channel = ChannelId(channel.0 + 100);
            requests.push(binding_request(channel, *spec, true));
            let binding = &mut history.instances[instance].binding;
            binding.changes = vec![false, true];
            binding.floor = 1;
        }
    }
    let asked = requests.len();
    let answered = asking.ask(host, requests)?;
    let is_refusal = |it: &model::Notice| matches!(it, model::Notice::Refused { .. });
    if answered.len() != asked || answered.iter().any(is_refusal) {
        return Err(format!("declarations are answered by {answered:?}"));
    }
    asking.close(host);
    Ok(())
}
