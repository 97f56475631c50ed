//! What doors ask about jobs: who may, which queue it is, and on to its shard.

use crate::{
    gate,
    hand_over::{After, ShardCommand},
    session::{SessionHandle, Store},
};
use catalog::{Catalog, Queue, Who};
use engine::{
    Enqueue, JobCommand, Place,
    job::{Named, Token},
    record::{MessageRecord, Target},
};
use model::{
    ChannelId, Message, Name, Notice, Permission, QueueId, Refusal, ShardId, Timestamp,
    job::{JOB_PREFIX, JobAnswer, JobAsk, JobNotice, JobRefusal, JobRequest},
};
use smallvec::SmallVec;
use std::{
    sync::Arc,
    task::{Context, Waker},
};

fn refused(number: u64, refusal: JobRefusal) -> Notice {
    Notice::Job(Box::new(JobNotice { number, answer: JobAnswer::Refused(refusal) }))
}

fn refusal_of(refusal: &Refusal, queue: &Name) -> JobRefusal {
    match refusal {
        Refusal::NotFound { .. } => JobRefusal::UnknownQueue(queue.clone()),
        other => JobRefusal::Access(other.to_string()),
    }
}

impl SessionHandle {
    pub(crate) fn job_request(&mut self, it: JobRequest, now: Timestamp) {
        let JobRequest { number, ask } = it;
        if let Err(refusal) = self.ask_of_job(number, ask, now) {
            self.mailbox.push(refused(number, refusal));
        }
    }

    fn ask_of_job(&mut self, number: u64, ask: JobAsk, now: Timestamp) -> Result<(), JobRefusal> {
        let catalog = self.catalog();
        let queue = match &ask {
            JobAsk::Forget { .. } => {
                self.forget_request(number, &ask);
                return Ok(());
            }
            JobAsk::Submit { queue, message } => {
                let (queue, message) = (queue.clone(), Arc::clone(message));
                return self.submit_job(number, &catalog, &queue, message, now);
            }
            JobAsk::Complete { token, .. }
            | JobAsk::Extend { token, .. }
            | JobAsk::Release { token } => {
                let token = Token::parse(token).ok_or(JobRefusal::StaleToken)?;
                self.ask_shard(number, token.shard, token.queue, ask, JobRefusal::StaleToken);
                return Ok(());
            }
            JobAsk::Lease { queue, .. } | JobAsk::List { queue, .. } => {
                self.job_queue(&catalog, queue, Permission::Read)?
            }
            JobAsk::Look { queue, id }
            | JobAsk::Wait { queue, id, .. }
            | JobAsk::Result { queue, id } => {
                self.queue_of_job(&catalog, queue.as_ref(), id, Permission::Read, now)?
            }
            JobAsk::Cancel { queue, id }
            | JobAsk::Retry { queue, id }
            | JobAsk::Patch { queue, id, .. } => {
                self.queue_of_job(&catalog, queue.as_ref(), id, Permission::Write, now)?
            }
        };
        let gone = JobRefusal::UnknownQueue(queue.name.clone());
        self.ask_shard(number, queue.shard, queue.id, ask, gone);
        Ok(())
    }

    fn ask_shard(
        &mut self,
        number: u64,
        shard: ShardId,
        queue: QueueId,
        ask: JobAsk,
        gone: JobRefusal,
    ) {
        let command = Box::new(JobCommand::Ask { session: self.session, number, ask });
        let otherwise = Some(Box::new(refused(number, gone)));
        let shard = usize::from(shard.0) % self.outgoing.len();
        self.outgoing[shard].push(ShardCommand::Job { queue, command, otherwise });
    }

    /// The queue of that name, if it is one of jobs and the user has this permission.
    fn job_queue(
        &self,
        catalog: &Catalog,
        name: &Name,
        permission: Permission,
    ) -> Result<Arc<Queue>, JobRefusal> {
        let found = self.decide(catalog, |catalog, who| catalog.queue_for(who, name, permission));
        let queue = found.map_err(|it| refusal_of(&it, name))?;
        match queue.policy.jobs {
            Some(_) => Ok(queue),
            None => Err(JobRefusal::NotJobQueue(name.clone())),
        }
    }

    /// The queue that has the job: the one that is named, or the only one that knows the id.
    fn queue_of_job(
        &self,
        catalog: &Catalog,
        name: Option<&Name>,
        id: &Name,
        permission: Permission,
        now: Timestamp,
    ) -> Result<Arc<Queue>, JobRefusal> {
        if let Some(name) = name {
            return self.job_queue(catalog, name, permission);
        }
        let is_open = |it: &&Arc<Queue>| {
            it.policy.jobs.is_some()
                && it.vhost_name == self.vhost
                && self.job_queue(catalog, &it.name, Permission::Read).is_ok()
        };
        let queues: Vec<_> = catalog.queues().filter(is_open).cloned().collect();
        let mut having = Vec::new();
        let mut forgotten = None;
        for queue in queues {
            let named = {
                let state = self.broker.shard(queue.shard).lock();
                state.jobs.get(&queue.id).map(|it| it.queue.named(id, now))
            };
            match named {
                Some(Named::Job(_)) => having.push(queue),
                Some(Named::Forgotten) => forgotten = Some(queue),
                Some(Named::Unknown) | None => {}
            }
        }
        // Who found a shard taken by this look has left its batch there and gone on.
        self.broker.turn_shards(crate::broker::Touched::MAX, now);
        match having.len() {
            0 => forgotten.ok_or(JobRefusal::UnknownJob),
            1 => {
                let queue = having.swap_remove(0);
                self.job_queue(catalog, &queue.name, permission)
            }
            _ => {
                let mut names: Vec<_> = having.iter().map(|it| it.name.clone()).collect();
                names.sort_unstable();
                Err(JobRefusal::Ambiguous(names))
            }
        }
    }

    /// The request may stand in any shard that this session has asked.
    fn forget_request(&mut self, number: u64, ask: &JobAsk) {
        let catalog = self.catalog();
        for queue in catalog.queues().filter(|it| it.policy.jobs.is_some()) {
            let shard = usize::from(queue.shard.0) % self.outgoing.len();
            let is_asked = self.known & 1 << shard != 0 || !self.outgoing[shard].is_empty();
            if is_asked && queue.vhost_name == self.vhost {
                let (session, ask) = (self.session, ask.clone());
                let command = Box::new(JobCommand::Ask { session, number, ask });
                let (queue, otherwise) = (queue.id, None);
                self.outgoing[shard].push(ShardCommand::Job { queue, command, otherwise });
            }
        }
    }

    fn submit_job(
        &mut self,
        number: u64,
        catalog: &Catalog,
        name: &Name,
        message: Arc<Message>,
        now: Timestamp,
    ) -> Result<(), JobRefusal> {
        let who =
            Who { user: &self.user, vhost: &self.vhost, session: self.session, client_id: None };
        let allowed = catalog.authorize_publish(&who, "", &[name]);
        allowed.map_err(|it| JobRefusal::Access(it.to_string()))?;
        let found = catalog.vhost(&self.vhost).and_then(|it| it.queue(name)).cloned();
        let queue = found.ok_or_else(|| JobRefusal::UnknownQueue(name.clone()))?;
        if queue.policy.jobs.is_none() {
            return Err(JobRefusal::NotJobQueue(name.clone()));
        }
        if let Some(reason) = self.broker.blocked() {
            return Err(JobRefusal::Resource(format!("publishers are held back: {reason}")));
        }
        if let Some(expiration) = message.facts().expiration {
            let checked = gate::check_expiration(expiration);
            checked.map_err(|it| JobRefusal::Invalid(it.to_string()))?;
        }
        let is_addressed = message.exchange().is_empty() && message.routing_key() == name.as_str();
        let message = match is_addressed {
            true => message,
            false => Arc::new(message.readdressed("", name, message.properties())),
        };
        let shard = usize::from(queue.shard.0) % self.outgoing.len();
        let room = self.broker.shared().budget.has_room();
        let keep = queue.policy.keeps(message.persistent);
        let spill = !room && !keep;
        if keep || spill {
            let mut targets = SmallVec::new();
            targets.push(Target { queue: queue.id, ..Target::default() });
            let front = MessageRecord { arrived: now, targets, replaces: SmallVec::new() };
            let start = self.fronts.len();
            front.encode(&message, &mut self.fronts);
            let front = start..self.fronts.len();
            let commands = std::iter::once((shard, self.outgoing[shard].len())).collect();
            let message = Arc::clone(&message);
            self.stores.push(Store { message, front, commands, keep, spill });
        }
        let enqueue = Enqueue { message, place: Place::Memory, room, redelivered: false };
        let command = Box::new(JobCommand::Submit { session: self.session, number, enqueue });
        let gone = JobRefusal::UnknownQueue(name.clone());
        let otherwise = Some(Box::new(refused(number, gone)));
        self.outgoing[shard].push(ShardCommand::Job { queue: queue.id, command, otherwise });
        Ok(())
    }

    /// A worker answers on the address of its attempt.
    pub(crate) fn answer_for_job(
        &mut self,
        message: Arc<Message>,
        confirm: Option<(ChannelId, u64)>,
    ) {
        let text = message.routing_key().strip_prefix(JOB_PREFIX);
        let token = text.and_then(Token::parse);
        let shard = token.map_or(0, |it| usize::from(it.shard.0)) % self.outgoing.len();
        if let Some(Token { queue, secret, .. }) = token {
            let command = Box::new(JobCommand::Answer { secret, message });
            self.outgoing[shard].push(ShardCommand::Job { queue, command, otherwise: None });
        }
        if let Some((channel, number)) = confirm {
            let notice = Notice::Confirmed { channel, first: number, last: number };
            self.outgoing[shard].push(ShardCommand::Tell { notice, after: After::Turn });
        }
    }

    /// Leases that were given and that nobody has seen come back.
    pub(crate) fn return_leases(&mut self) {
        let mut unseen = Vec::new();
        let _ = self.mailbox.poll(&mut Context::from_waker(Waker::noop()), &mut unseen);
        for notice in unseen {
            if let Notice::Job(it) = notice
                && let JobNotice { number, answer: JobAnswer::Leased { token, .. } } = *it
                && let Some(known) = Token::parse(&token)
            {
                let ask = JobAsk::Release { token };
                self.ask_shard(number, known.shard, known.queue, ask, JobRefusal::StaleToken);
            }
        }
    }
}
