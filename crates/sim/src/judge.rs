//! Compares what a drain has found with what the clients know.

use crate::{
    history::History,
    token::{InstanceId, State, Token},
    world::{SPECS, SpecId},
};
use std::collections::{BTreeMap, BTreeSet};

/// A delivery of a drain.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Absent where the octets are nobody's.
    pub number: Option<u64>,
    pub redelivered: bool,
}

/// What a queue had.
#[derive(Clone, Debug, Default)]
pub struct DrainedQueue {
    /// As its declaration said before.
    pub ready: u64,
    pub seen: Vec<Seen>,
    pub is_bound: bool,
}

/// What all of them had.
#[derive(Clone, Debug)]
pub struct Drained {
    /// By number in the table; absent where there is no such queue.
    pub queues: Vec<Option<DrainedQueue>>,
}

impl Drained {
    /// Nothing seen yet.
    pub fn new(depths: Vec<Option<u64>>) -> Self {
        let queue = |ready| DrainedQueue { ready, ..DrainedQueue::default() };
        Self { queues: depths.into_iter().map(|it| it.map(queue)).collect() }
    }

    /// Counts are true.
    ///
    /// # Errors
    /// A text: one is not.
    pub fn check_counts(&self) -> Result<(), String> {
        for (spec, queue) in self.queues.iter().enumerate() {
            if let Some(queue) = queue
                && queue.ready != queue.seen.len() as u64
            {
                let (name, found) = (SPECS[spec].name, queue.seen.len());
                return Err(format!("{name} says {} and has {found}", queue.ready));
            }
        }
        Ok(())
    }
}

struct Judge<'a> {
    history: &'a History,
    drained: &'a Drained,
    wrong: Vec<String>,
    /// Where each token was found.
    found: BTreeMap<usize, InstanceId>,
}

/// Everything that is wrong. `history` has been told of the restart, if there was one.
pub fn judge(history: &History, drained: &Drained, specs: &[SpecId]) -> Vec<String> {
    let (wrong, found) = (Vec::new(), BTreeMap::new());
    let mut judge = Judge { history, drained, wrong, found };
    for spec in specs {
        judge.queue(*spec);
    }
    judge.losses();
    judge.units();
    judge.wrong
}

impl Judge<'_> {
    fn exists(&self, instance: InstanceId) -> bool {
        let spec = self.history.instances[instance].spec;
        self.last(spec) == Some(instance) && self.drained.queues[spec].is_some()
    }

    fn last(&self, spec: SpecId) -> Option<InstanceId> {
        self.history.instances.iter().rposition(|it| it.spec == spec)
    }

    fn queue(&mut self, spec: SpecId) {
        let name = SPECS[spec].name;
        let instance = self.last(spec);
        let found = self.drained.queues[spec].as_ref();
        let Some(instance) = instance else {
            if found.is_some() {
                self.wrong.push(format!("queue {name} was never declared"));
            }
            return;
        };
        let known = &self.history.instances[instance];
        let Some(found) = found else {
            if self.history.must_have_been(instance) && !known.deleting {
                self.wrong.push(format!("queue {name} is missing"));
            }
            return;
        };
        if known.deleted {
            self.wrong.push(format!("queue {name} is back"));
        }
        if !known.binding.possible().contains(&found.is_bound) {
            let bound = found.is_bound;
            self.wrong.push(format!("queue {name} is bound: {bound}, known {:?}", known.binding));
        }
        let seen = found.seen.clone();
        self.messages(instance, name, &seen);
    }

    fn messages(&mut self, instance: InstanceId, name: &str, seen: &[Seen]) {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        for Seen { number, redelivered } in seen {
            let Some(number) = number else {
                self.wrong.push(format!("{name} has octets that nobody published"));
                continue;
            };
            if !numbers.insert(number) {
                self.wrong.push(format!("{name} has message {number} twice"));
            }
            let Some(at) = self.history.token_in(*number, instance) else {
                let why = self.tokens_of(*number);
                self.wrong.push(format!("{name} has message {number}, which cannot be: {why}"));
                continue;
            };
            let token = &self.history.tokens[at];
            if !redelivered && token.delivered.contains(&instance) {
                self.wrong.push(format!("{name} has message {number}, delivered and not marked"));
            }
            if token.home == instance
                && let Some(message) = self.history.messages.get(number)
                && let Some(before) = last.insert(message.channel, *number)
                && *number < before
            {
                self.wrong.push(format!("{name} has message {number} behind {before}"));
            }
            if self.found.insert(at, instance).is_some() {
                self.wrong.push(format!("{name} has message {number}, and its source too"));
            }
        }
    }

    fn tokens_of(&self, number: u64) -> String {
        let message = self.history.messages.get(&number);
        let tokens = message.map_or(&[][..], |it| &it.tokens);
        let tokens: Vec<_> = tokens.iter().map(|it| &self.history.tokens[*it]).collect();
        format!("{tokens:?}")
    }

    /// What is nowhere must be allowed to be nowhere.
    fn losses(&mut self) {
        let instances = self.history.instances.iter();
        // Messages that automatic fetches may have taken out.
        let mut taken: Vec<u64> = instances.map(|it| it.losses).collect();
        for (at, token) in self.history.tokens.iter().enumerate() {
            if self.found.contains_key(&at) || self.may_be_gone(token) {
                continue;
            }
            let places = token.possible().iter().filter_map(|it| match it {
                State::At { instance, .. } => Some(*instance),
                _ => None,
            });
            match places.into_iter().find(|it| 0 < taken[*it]) {
                Some(place) => taken[place] -= 1,
                None => {
                    let name = SPECS[self.history.instances[token.home].spec].name;
                    self.wrong.push(format!("{name} has lost {token:?}"));
                }
            }
        }
    }

    fn may_be_gone(&self, token: &Token) -> bool {
        token.possible().iter().any(|it| match it {
            State::Absent | State::Gone => true,
            State::Deleted(instance) => !self.exists(*instance),
            // A queue that may be missing takes its messages along.
            State::At { instance, .. } => !self.exists(*instance),
        })
    }

    /// What was written as one is there as a whole or not at all.
    fn units(&mut self) {
        let mut units: BTreeMap<(bool, u64), (Vec<u64>, Vec<u64>)> = BTreeMap::new();
        for (number, message) in &self.history.messages {
            for at in &message.tokens {
                let token = &self.history.tokens[*at];
                let home = &self.history.instances[token.home];
                let is_taken = 0 < home.losses || SPECS[home.spec].refuses;
                if is_taken || !token.is_untouched() || !self.exists(token.home) {
                    continue;
                }
                let unit = match message.transaction {
                    Some(transaction) => (true, transaction),
                    None => (false, *number),
                };
                let (there, missing) = units.entry(unit).or_default();
                let list = if self.found.contains_key(at) { there } else { missing };
                list.push(*number);
            }
        }
        for ((_, unit), (there, missing)) in units {
            if !there.is_empty() && !missing.is_empty() {
                self.wrong.push(format!("unit {unit} is cut: {there:?} there, {missing:?} not"));
            }
        }
    }
}
