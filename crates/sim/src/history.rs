//! What the clients know: every queue that was declared, every message that was published, and what
//! was said about them. The judge compares it with what a drain finds.

use crate::{
    token::{InstanceId, Route, Token},
    world::{SPECS, SpecId},
};
use std::collections::BTreeMap;

/// One life of a queue, from its declaration to its deletion.
#[derive(Clone, Debug)]
pub struct Instance {
    pub spec: SpecId,
    /// The catalog names it.
    pub live: bool,
    /// A declaration of it was answered.
    pub declared: bool,
    /// Its deletion was asked for, and answered.
    pub deleting: bool,
    pub deleted: bool,
    /// Messages that automatic fetches may have taken without showing them to anybody.
    pub losses: u64,
    pub binding: Binding,
}

/// Whether a queue is bound to the fanout exchange, change by change.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Not bound at first.
    pub changes: Vec<bool>,
    /// The last one that was answered.
    pub floor: usize,
}

impl Binding {
    pub fn is_bound(&self) -> bool {
        self.changes.last().copied().unwrap_or(false)
    }

    /// What it may be after a restart; after an orderly one only the last is.
    pub fn possible(&self) -> &[bool] {
        &self.changes[self.floor..]
    }
}

/// A publish and its answer.
#[derive(Clone, Debug)]
pub struct Published {
    /// Which channel of which client, over the whole simulation.
    pub channel: u64,
    pub exchange: &'static str,
    pub key: &'static str,
    pub persistent: bool,
    pub mandatory: bool,
    pub returned: bool,
    pub tokens: Vec<usize>,
    /// End of the log before it was handed over.
    pub log_end: u64,
    /// Published in this transaction.
    pub transaction: Option<u64>,
    pub confirmed: bool,
}

/// A client and one of its consumers, or 0 for fetches.
pub type Holder = (u64, u32);

/// Everything that has happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub instances: Vec<Instance>,
    pub tokens: Vec<Token>,
    /// By number: what was published first has the lower one.
    pub messages: BTreeMap<u64, Published>,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// The last delivery that was not marked redelivered, by queue, channel and consumer.
    fresh: BTreeMap<(InstanceId, u64, Holder), u64>,
    pub transactions: u64,
    pub clients: u64,
    pub confirmed: u64,
    pub delivered: u64,
    /// The disk may fail, and requests with it.
    pub may_fail: bool,
    pub trace: Option<Vec<String>>,
}

impl History {
    /// Notes something that must not be.
    pub fn fault(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("WRONG: {what}"));
        self.wrong.push(what);
    }

    /// Writes a line, if anybody reads it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// The life of the queue that the catalog names.
    pub fn live(&self, spec: SpecId) -> Option<InstanceId> {
        self.instances.iter().rposition(|it| it.spec == spec && it.live)
    }

    /// The queue is declared.
    pub fn declare(&mut self, spec: SpecId) -> InstanceId {
        if let Some(known) = self.live(spec) {
            return known;
        }
        self.instances.push(Instance {
            spec,
            live: true,
            declared: false,
            deleting: false,
            deleted: false,
            losses: 0,
            binding: Binding { changes: vec![false], floor: 0 },
        });
        self.instances.len() - 1
    }

    /// The dead letters of a queue, and whether they keep a message.
    pub fn dead(&self, instance: InstanceId, persistent: bool) -> Option<(InstanceId, bool)> {
        let name = SPECS[self.instances[instance].spec].dead?;
        let spec = crate::world::spec_of(name);
        Some((self.live(spec)?, SPECS[spec].keeps(persistent)))
    }

    /// The queues that an address leads to.
    pub fn route(&self, exchange: &str, key: &str) -> Vec<InstanceId> {
        let leads = |it: &Instance| {
            let named = SPECS[it.spec].name == key;
            it.live && if exchange.is_empty() { named } else { it.binding.is_bound() }
        };
        let all = self.instances.iter().enumerate();
        all.filter(|(_, it)| leads(it)).map(|(at, _)| at).collect()
    }

    /// A message is published.
    pub fn publish(&mut self, number: u64, mut message: Published) {
        for home in self.route(message.exchange, message.key) {
            let spec = &SPECS[self.instances[home].spec];
            let mut token = Token::new(
                number,
                Route {
                    home,
                    kept: spec.keeps(message.persistent),
                    dead: self.dead(home, message.persistent),
                    leaks: spec.leaks,
                    refuses: spec.refuses,
                },
            );
            if self.instances[home].deleting {
                token.delete(home);
            }
            message.tokens.push(self.tokens.len());
            self.tokens.push(token);
        }
        self.messages.insert(number, message);
    }

    /// The publish was answered.
    pub fn answer(&mut self, number: u64, positive: bool) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.confirmed = positive;
        let tokens = message.tokens.clone();
        // A refusal inside of a transaction is told to nobody.
        let is_told = message.transaction.is_none();
        let lost = message.mandatory && tokens.is_empty() && !message.returned;
        for token in tokens {
            let refuses = SPECS[self.instances[self.tokens[token].home].spec].refuses;
            match positive {
                true if refuses && !is_told => {}
                true => self.tokens[token].confirm(),
                false if refuses => self.tokens[token].refuse(),
                false => {}
            }
        }
        if positive {
            self.confirmed += 1;
        }
        if lost {
            self.fault(format!("message {number} was not returned before its confirm"));
        }
    }

    /// The token of a message that may be in this queue, or could have been.
    pub fn token_in(&self, number: u64, instance: InstanceId) -> Option<usize> {
        let tokens = &self.messages.get(&number)?.tokens;
        tokens.iter().copied().find(|it| self.tokens[*it].place(instance).is_some())
    }

    /// A message has reached a client.
    pub fn deliver(
        &mut self,
        number: u64,
        instance: InstanceId,
        redelivered: bool,
        by: Holder,
    ) -> Option<usize> {
        let name = SPECS[self.instances[instance].spec].name;
        self.delivered += 1;
        if self.instances[instance].deleting {
            // On its way while the queue went. Should a crash undo that, it was delivered before.
            let tokens = self.messages.get(&number).map(|it| it.tokens.clone());
            for token in tokens.unwrap_or_default() {
                self.tokens[token].delivered.push(instance);
            }
            return None;
        }
        let Some(at) = self.token_in(number, instance) else {
            let tokens = self.messages.get(&number).map(|it| it.tokens.clone());
            let known = tokens.unwrap_or_default();
            let known: Vec<_> = known.iter().map(|it| self.tokens[*it].clone()).collect();
            self.fault(format!("message {number} cannot be in {name}: {known:?}"));
            return None;
        };
        let token = &mut self.tokens[at];
        let mut wrong = None;
        if let Some(holder) = token.holder {
            wrong = Some(format!("message {number} of {name} is held by client {holder} already"));
        }
        if !redelivered && token.delivered.contains(&instance) {
            wrong = Some(format!("message {number} of {name} comes again and is not marked"));
        }
        let _ = token.observe(instance);
        token.delivered.push(instance);
        token.holder = Some(by.0);
        if let Some(wrong) = wrong {
            self.fault(wrong);
        }
        if !redelivered && self.tokens[at].home == instance {
            self.check_order(number, instance, by);
        }
        Some(at)
    }

    fn check_order(&mut self, number: u64, instance: InstanceId, by: Holder) {
        let Some(message) = self.messages.get(&number) else { return };
        let before = self.fresh.insert((instance, message.channel, by), number);
        if before.is_some_and(|it| number < it) {
            let name = SPECS[self.instances[instance].spec].name;
            self.fault(format!("{name} delivers message {number} behind {before:?}"));
        }
    }

    /// Whoever asked for it has been told that the queue is gone.
    pub fn deleted(&mut self, instance: InstanceId) {
        self.instances[instance].deleted = true;
        self.tokens.iter_mut().for_each(|it| it.deletion_is_durable(instance));
    }

    /// The queue is to go with the batch that is being made.
    pub fn delete(&mut self, instance: InstanceId) {
        self.instances[instance].deleting = true;
        self.tokens.iter_mut().for_each(|it| it.delete(instance));
    }

    /// The broker has stopped.
    pub fn restart(&mut self, crash: bool) {
        self.tokens.iter_mut().for_each(|it| it.restart(crash));
        for (at, instance) in self.instances.iter_mut().enumerate() {
            if !crash {
                instance.binding.floor = instance.binding.changes.len() - 1;
            }
            if !SPECS[instance.spec].durable {
                (instance.deleting, instance.deleted) = (true, true);
                self.tokens.iter_mut().for_each(|it| it.queue_is_lost(at));
            }
        }
    }

    /// Kept messages were confirmed in it, so it was durably there.
    pub fn must_have_been(&self, instance: InstanceId) -> bool {
        self.instances[instance].declared
            || self.tokens.iter().any(|it| it.home == instance && 1 <= it.floor)
    }

    /// What the restart has left of the queues is known now.
    pub fn resolve(&mut self, spec: SpecId, exists: bool) {
        let Some(at) = self.instances.iter().rposition(|it| it.spec == spec) else { return };
        let instance = &mut self.instances[at];
        instance.live = exists;
        instance.deleting = !exists;
        instance.deleted = !exists;
        instance.declared |= exists;
        for token in &mut self.tokens {
            match exists {
                true => token.queue_survived(at),
                false => token.queue_is_lost(at),
            }
        }
    }
}
