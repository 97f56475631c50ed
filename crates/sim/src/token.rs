//! One message in one queue, from its publish to its end. Its states stand in the order in which
//! the log tells them, so that after a crash it is in one of those from the durable one on.

/// Index of a queue's life in the history.
pub type InstanceId = usize;

/// Where a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not published, as far as the log knows.
    Absent,
    /// In this queue. `kept`: a restart leaves it there.
    At { instance: InstanceId, kept: bool },
    /// By a recorded act.
    Gone,
    /// Together with this queue.
    Deleted(InstanceId),
}

/// What is known of one message in one queue.
#[derive(Clone, Debug)]
pub struct Token {
    pub message: u64,
    /// The queue that the message was routed to.
    pub home: InstanceId,
    pub states: Vec<State>,
    /// The queue may move it on by itself from state 1 to state 2.
    leaks: bool,
    /// States before this one are over for ever: the log has durably more.
    pub floor: usize,
    /// It is in a state of these now.
    pub low: usize,
    pub high: usize,
    /// The last state that the last restart could have found.
    restored: usize,
    /// Queues in which it has reached a consumer.
    pub delivered: Vec<InstanceId>,
    /// The client that holds it.
    pub holder: Option<u64>,
    /// It was rejected, and may be on its way to its dead letters.
    limbo: bool,
}

/// A token's route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub home: InstanceId,
    pub kept: bool,
    /// Its dead letters, and whether they keep it.
    pub dead: Option<(InstanceId, bool)>,
    pub leaks: bool,
    pub refuses: bool,
}

impl Token {
    pub fn new(message: u64, route: Route) -> Self {
        let mut states = vec![State::Absent, State::At { instance: route.home, kept: route.kept }];
        if route.leaks {
            states.push(match route.dead {
                Some((instance, kept)) => State::At { instance, kept },
                None => State::Gone,
            });
        }
        Self {
            message,
            home: route.home,
            leaks: route.leaks,
            floor: 0,
            low: usize::from(!route.refuses),
            high: states.len() - 1,
            restored: 0,
            delivered: Vec::new(),
            holder: None,
            limbo: false,
            states,
        }
    }

    fn end(&mut self, state: State) {
        self.states.push(state);
        self.high = self.states.len() - 1;
    }

    /// The possible state in which it is in this queue.
    pub fn place(&self, instance: InstanceId) -> Option<usize> {
        let is_here = |it: &usize| match self.states[*it] {
            State::At { instance: at, .. } => at == instance,
            _ => false,
        };
        (self.low..=self.high).find(is_here)
    }

    /// It has been seen in this queue; `None` when it cannot be there.
    pub fn observe(&mut self, instance: InstanceId) -> Option<()> {
        let at = self.place(instance)?;
        let leads = self.leaks && at == 1;
        self.states.truncate(if leads { 3 } else { at + 1 });
        self.limbo = false;
        self.low = at;
        self.high = self.states.len() - 1;
        let kept = matches!(self.states[at], State::At { kept: true, .. });
        if at <= self.restored && kept {
            // Recovery showed it, so it is durable; where it moves on by itself, maybe at home.
            self.floor = self.floor.max(if self.leaks { 1 } else { at });
        }
        self.restored = self.restored.min(at);
        Some(())
    }

    /// Its consumer is done with it. Returns the state that it has now.
    pub fn accept(&mut self) -> usize {
        self.holder = None;
        self.end(State::Gone);
        self.low = self.high;
        self.high
    }

    /// It goes to its dead letters, or away.
    pub fn reject(&mut self, dead: Option<(InstanceId, bool)>) {
        self.holder = None;
        let Some((instance, kept)) = dead else {
            self.accept();
            return;
        };
        let at = self.low;
        self.states.truncate(at + 1);
        self.end(State::At { instance, kept });
        self.low = self.high;
        self.delivered.retain(|it| *it != instance);
        self.limbo = true;
    }

    /// The queue was purged; what a client holds stays.
    pub fn purge(&mut self, instance: InstanceId) {
        if self.place(instance).is_some() && self.holder.is_none() {
            self.end(State::Gone);
        }
    }

    /// The queue is deleted.
    pub fn delete(&mut self, instance: InstanceId) {
        if self.place(instance).is_some() {
            self.holder = None;
            self.end(State::Deleted(instance));
            self.low = self.high;
        }
    }

    /// The deletion is durable.
    pub fn deletion_is_durable(&mut self, instance: InstanceId) {
        if let Some(at) = self.states.iter().position(|it| *it == State::Deleted(instance)) {
            self.floor = self.floor.max(at);
        }
    }

    /// Its publish is confirmed.
    pub fn confirm(&mut self) {
        self.low = self.low.max(1);
        if matches!(self.states[1], State::At { kept: true, .. }) {
            self.floor = self.floor.max(1);
        }
    }

    /// Its queue has refused it.
    pub fn refuse(&mut self) {
        self.end(State::Gone);
        self.low = self.high;
    }

    /// The state is durable, if it is still the one it has.
    pub fn is_durable(&mut self, state: usize) {
        if state == self.high && self.low == self.high {
            self.floor = self.floor.max(state);
        }
    }

    /// The broker has stopped; after a crash what was not durable may not have happened.
    pub fn restart(&mut self, crash: bool) {
        if crash {
            self.low = self.floor;
            // A death that has not happened may happen again, and its letter is then a new message.
            let undone = self.states.iter().skip(self.floor.max(1) + 1).copied();
            let undone: Vec<State> = undone.collect();
            let is_undone = |it: &InstanceId| {
                undone
                    .iter()
                    .any(|state| matches!(state, State::At { instance, .. } if instance == it))
            };
            self.delivered.retain(|it| !is_undone(it));
        } else if self.limbo {
            self.low -= 1;
        }
        self.limbo = false;
        self.holder = None;
        for state in &mut self.states {
            if matches!(state, State::At { kept: false, .. }) {
                *state = State::Gone;
            }
        }
        self.restored = self.high;
    }

    /// The queue has survived the restart: its deletion has not happened.
    pub fn queue_survived(&mut self, instance: InstanceId) {
        if let Some(at) = self.states.iter().position(|it| *it == State::Deleted(instance)) {
            self.states.truncate(at);
            self.high = self.high.min(at - 1);
            self.low = self.low.min(self.high);
        }
    }

    /// The queue has not survived the restart.
    pub fn queue_is_lost(&mut self, instance: InstanceId) {
        for state in &mut self.states {
            if matches!(state, State::At { instance: at, .. } if *at == instance) {
                *state = State::Deleted(instance);
            }
        }
    }

    /// The states that it may be in.
    pub fn possible(&self) -> &[State] {
        &self.states[self.low..=self.high]
    }

    /// The queue that it was published to writes it to the log.
    pub fn is_kept(&self) -> bool {
        matches!(self.states[1], State::At { kept: true, .. })
    }

    /// Nothing has happened to it since its publish, of which nothing is known to be durable.
    pub fn is_untouched(&self) -> bool {
        self.floor == 0
            && self.low == 0
            && self.high == 1
            && matches!(self.states[1], State::At { kept: true, .. })
    }
}
