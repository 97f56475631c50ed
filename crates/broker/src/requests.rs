//! Every request but the publish: what is looked up in the catalog, what the owner changes, and
//! which shard gets what.

use crate::{
    consumer_arguments,
    hand_over::{After, Delete, ShardCommand},
    replies::REPLY_PREFIX,
    session::SessionHandle,
};
use catalog::{Catalog, Change, Declared, Queue, Who};
use engine::{Command, Subscriber};
use model::{
    ChannelId, LogPosition, Name, Notice, Permission, QueueId, Refusal, Request, ResourceKind,
    Settle, Subscribe, Timestamp,
    request::{Binding, DeclareExchange, DeclareQueue},
};
use std::sync::Arc;

impl SessionHandle {
    /// One line per request.
    pub(crate) fn other_request(&mut self, request: Request, now: Timestamp) {
        if self.skips(&request) {
            return;
        }
        match request {
            // Publishes go another way.
            Request::Publish(_) => {}
            Request::Settle(it) => self.settle(it),
            Request::Credit { consumer, queue, bytes } => {
                let session = self.session;
                self.send(queue, Command::Credit { session, consumer, bytes }, None);
            }
            Request::Prefetch { consumer, queue, prefetch } => {
                let session = self.session;
                self.send(queue, Command::Prefetch { session, consumer, prefetch }, None);
            }
            Request::Resume { consumer, queue } => {
                let session = self.session;
                self.send(queue, Command::Resume { session, consumer }, None);
            }
            Request::DeclareQueue(it) => self.answer(it.channel, |me| me.declare_queue(it)),
            Request::DeleteQueue { channel, queue, if_unused, if_empty } => {
                self.answer(channel, |me| me.delete_queue(channel, &queue, if_unused, if_empty));
            }
            Request::PurgeQueue { channel, queue } => {
                self.answer(channel, |me| me.purge_queue(channel, &queue));
            }
            Request::DeclareExchange(it) => {
                self.answer(it.channel, |me| me.declare_exchange(&it));
            }
            Request::DeleteExchange { channel, exchange, if_unused } => {
                self.change(channel, |catalog, who| {
                    catalog.delete_exchange(who, &exchange, if_unused)
                });
            }
            Request::Bind(it) => self.bind(&it),
            Request::Unbind(it) => self.unbind(&it),
            Request::Subscribe(it) => self.answer(it.channel, |me| me.subscribe(it)),
            Request::Unsubscribe { channel, consumer, queue } => {
                let session = self.session;
                let command = Command::Unsubscribe { session, channel, consumer };
                let otherwise = Notice::Unsubscribed { channel, consumer };
                self.send(queue, command, Some(otherwise));
            }
            Request::Fetch { channel, queue, automatic } => {
                self.answer(channel, |me| me.fetch(channel, &queue, automatic));
            }
            Request::OpenReply { channel } => {
                let address = self.broker.replies().open(self.session, channel, &self.mailbox);
                self.mailbox.push(Notice::ReplyOpened { channel, address });
            }
            Request::CloseReply { channel } => {
                self.broker.replies().close(self.session, Some(channel));
            }
            Request::Commit { channel, requests } => self.commit(channel, requests, now),
            Request::Barrier { channel } => {
                self.join(channel, &Notice::Done { channel }, After::Position(None));
            }
            Request::Job(it) => self.job_request(*it, now),
        }
    }

    /// After a refused publish the channel does nothing more in this batch.
    fn skips(&self, request: &Request) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        let channel = match request {
            Request::DeclareQueue(it) => it.channel,
            Request::DeclareExchange(it) => it.channel,
            Request::Bind(it) | Request::Unbind(it) => it.channel,
            Request::Subscribe(it) => it.channel,
            Request::DeleteQueue { channel, .. }
            | Request::PurgeQueue { channel, .. }
            | Request::DeleteExchange { channel, .. }
            | Request::Fetch { channel, .. }
            | Request::Commit { channel, .. }
            | Request::OpenReply { channel } => *channel,
            _ => return false,
        };
        self.refused.contains(&channel)
    }

    fn answer(
        &mut self,
        channel: ChannelId,
        carry_out: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) {
        if let Err(refusal) = carry_out(self) {
            self.refuse(channel, refusal, false);
        }
    }

    /// Decides on the owner's catalog and carries the changes out before anybody else decides.
    fn decide_and_commit(
        &self,
        decision: impl FnOnce(&Catalog, &Who<'_>) -> Result<Vec<Change>, Refusal>,
    ) -> Result<Option<LogPosition>, Refusal> {
        let shared = self.broker.shared();
        let mut owner = self.broker.owner().lock();
        let changes = self.decide(owner.catalog(), decision)?;
        owner.commit(&changes, shared).map_err(|error| {
            shared.fail(&error);
            Refusal::Internal("the log has failed".to_owned())
        })
    }

    /// A change that is answered by `Done` once it is durable.
    fn change(
        &mut self,
        channel: ChannelId,
        decision: impl FnOnce(&Catalog, &Who<'_>) -> Result<Vec<Change>, Refusal>,
    ) {
        match self.decide_and_commit(decision) {
            Ok(after) => self.tell(Notice::Done { channel }, after),
            Err(refusal) => self.refuse(channel, refusal, false),
        }
    }

    /// Says it once the position is durable.
    fn tell(&mut self, notice: Notice, after: Option<LogPosition>) {
        match after {
            None => self.mailbox.push(notice),
            Some(_) => {
                let after = After::Position(after);
                self.outgoing[0].push(ShardCommand::Tell { notice, after });
            }
        }
    }

    fn shard_of(&self, queue: &Queue) -> usize {
        usize::from(queue.shard.0) % self.outgoing.len()
    }

    /// A command for a queue that the session knows by number. A queue that has gone needs none.
    fn send(&mut self, queue: QueueId, command: Command, otherwise: Option<Notice>) {
        let Some(shard) = self.catalog().queue(queue).map(|it| self.shard_of(it)) else {
            if let Some(notice) = otherwise {
                self.mailbox.push(notice);
            }
            return;
        };
        let otherwise = otherwise.map(Box::new);
        self.outgoing[shard].push(ShardCommand::Queue { queue, command, otherwise });
    }

    fn settle(&mut self, it: Settle) {
        let Settle { queue, consumer, entries, outcome, .. } = it;
        let session = self.session;
        self.send(queue, Command::Settle { session, consumer, entries, outcome }, None);
    }

    fn declare_queue(&mut self, it: DeclareQueue) -> Result<(), Refusal> {
        let channel = it.channel;
        if it.queue.starts_with(REPLY_PREFIX)
            && self.broker.replies().requester(&it.queue).is_some()
        {
            let queue = it.queue;
            self.mailbox.push(Notice::Declared { channel, queue, ready: 0, consumers: 1 });
            return Ok(());
        }
        let shared = self.broker.shared();
        let after;
        let queue = {
            let mut owner = self.broker.owner().lock();
            let shard = owner.next_shard();
            let declared = self
                .decide(owner.catalog(), |catalog, who| catalog.declare_queue(who, &it, shard))?;
            match declared {
                Declared::Exists(queue) => {
                    // Whoever made it may still wait for the disk.
                    after = owner.last();
                    queue
                }
                Declared::Created(change, queue) => {
                    after = owner.commit(&[change], shared).map_err(|error| {
                        shared.fail(&error);
                        Refusal::Internal("the log has failed".to_owned())
                    })?;
                    // Under the owner's lock: who sees the queue in a snapshot finds it in its
                    // shard.
                    let shard = self.broker.shard(queue.shard);
                    shard.hand_over(crate::hand_over::HandOver {
                        session: self.session,
                        mailbox: None,
                        commands: vec![ShardCommand::Create(Arc::clone(&queue.policy))],
                    });
                    queue
                }
            }
        };
        let index = self.shard_of(&queue);
        let (id, name) = (queue.id, queue.name.clone());
        self.outgoing[index].push(ShardCommand::Look { queue: id, channel, name, after });
        Ok(())
    }

    fn delete_queue(
        &mut self,
        channel: ChannelId,
        name: &Name,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(), Refusal> {
        let catalog = self.catalog();
        let found = self.decide(&catalog, |catalog, who| catalog.delete_queue(who, name))?;
        let Some(queue) = found else {
            let after = self.broker.owner().lock().last();
            self.tell(Notice::Deleted { channel, messages: 0 }, after);
            return Ok(());
        };
        let shard = self.shard_of(&queue);
        self.outgoing[shard].push(ShardCommand::Delete(Delete {
            queue: queue.id,
            name: queue.name.clone(),
            vhost: queue.vhost_name.clone(),
            if_unused,
            if_empty,
            channel: Some(channel),
        }));
        Ok(())
    }

    /// Queues of this session alone go with it.
    pub(crate) fn delete_exclusive(&mut self) {
        let owned = self.broker.owner().lock().take_exclusive(self.session);
        let catalog = self.catalog();
        for queue in owned.iter().filter_map(|it| catalog.queue(*it)) {
            let shard = self.shard_of(queue);
            self.outgoing[shard].push(ShardCommand::Delete(Delete {
                queue: queue.id,
                name: queue.name.clone(),
                vhost: queue.vhost_name.clone(),
                if_unused: false,
                if_empty: false,
                channel: None,
            }));
        }
    }

    fn queue_to_read(&self, name: &Name) -> Result<Arc<Queue>, Refusal> {
        let catalog = self.catalog();
        self.decide(&catalog, |catalog, who| catalog.queue_for(who, name, Permission::Read))
    }

    /// A request that the queue itself answers.
    fn ask_queue(&mut self, channel: ChannelId, queue: &Queue, command: Command) {
        let refusal = Refusal::NotFound {
            kind: ResourceKind::Queue,
            name: queue.name.clone(),
            vhost: queue.vhost_name.clone(),
        };
        let refusal = refusal.into();
        let otherwise = Box::new(Notice::Refused { channel, refusal, publish: false });
        let shard = self.shard_of(queue);
        let (queue, otherwise) = (queue.id, Some(otherwise));
        self.outgoing[shard].push(ShardCommand::Queue { queue, command, otherwise });
    }

    fn purge_queue(&mut self, channel: ChannelId, name: &Name) -> Result<(), Refusal> {
        let queue = self.queue_to_read(name)?;
        self.ask_queue(channel, &queue, Command::Purge { session: self.session, channel });
        Ok(())
    }

    fn fetch(&mut self, channel: ChannelId, name: &Name, automatic: bool) -> Result<(), Refusal> {
        let queue = self.queue_to_read(name)?;
        let command = Command::Fetch { session: self.session, channel, automatic };
        self.ask_queue(channel, &queue, command);
        Ok(())
    }

    fn subscribe(&mut self, it: Subscribe) -> Result<(), Refusal> {
        let queue = self.queue_to_read(&it.queue)?;
        let arguments = consumer_arguments::read(&queue, &it.arguments)?;
        let subscriber = Subscriber {
            session: self.session,
            channel: it.channel,
            consumer: it.consumer,
            automatic: it.automatic,
            exclusive: it.exclusive,
            priority: arguments.priority,
            prefetch: it.prefetch,
            shared: it.shared,
            timeout_ms: arguments.timeout_ms,
        };
        self.ask_queue(it.channel, &queue, Command::Subscribe(subscriber));
        Ok(())
    }

    fn declare_exchange(&mut self, it: &DeclareExchange) -> Result<(), Refusal> {
        let channel = it.channel;
        let after = self.decide_and_commit(|catalog, who| {
            Ok(catalog.declare_exchange(who, it)?.into_iter().collect())
        })?;
        self.tell(Notice::Done { channel }, after);
        Ok(())
    }

    fn bind(&mut self, it: &Binding) {
        self.change(it.channel, |catalog, who| Ok(catalog.bind(who, it)?.into_iter().collect()));
    }

    fn unbind(&mut self, it: &Binding) {
        self.change(it.channel, |catalog, who| catalog.unbind(who, it));
    }

    /// All of a transaction: its publishes are admitted first, and none of it happens when one is
    /// refused.
    fn commit(&mut self, channel: ChannelId, requests: Vec<Request>, now: Timestamp) {
        // What came before the transaction is not part of it.
        self.hand_over(now);
        if self.broker.shared().has_failed() {
            return;
        }
        let mut others = Vec::new();
        for request in requests {
            match request {
                Request::Publish(publish) => {
                    if let Err(refusal) = self.admit(publish, now) {
                        self.forget_batch();
                        return self.refuse(channel, refusal, true);
                    }
                }
                other => others.push(other),
            }
        }
        if let Err(error) = self.store(true) {
            self.forget_batch();
            return self.broker.shared().fail(&error);
        }
        for request in others {
            self.other_request(request, now);
        }
        self.join(channel, &Notice::Committed { channel }, After::Turn);
    }
}
