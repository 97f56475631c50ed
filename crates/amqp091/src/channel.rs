//! One channel: what it holds (unsettled deliveries, consumers, a half publish, a transaction),
//! what it waits for, and how it ends.

use crate::{
    config::SessionConfig,
    confirm::{Answer, Confirms, UNCONFIRMED_MAX},
    consuming::{self, Consumers, Held, SharedLimit, Unsettled},
    direct_reply::ReplyConsumer,
    method::{Method, MethodIds},
    naming::Naming,
    output::Output,
    publishing::{self, Content, PUBLISH, Published, Samples},
    reply::{NO_METHOD, Reply, ReplyCode},
    transaction::{Full, Transaction},
};
use bytes::Bytes;
use model::{
    ChannelId, ConsumerNumber, Delivery, Message, Name, Outcome, Publish, QueueId, Request,
};
use std::{collections::VecDeque, sync::Arc};

/// What the client told about itself, as far as channels care.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) vhost: Name,
    /// A changed prefetch acts on running consumers too.
    pub(crate) changes_prefetch_live: bool,
    /// Wants to hear of consumers that the broker ends.
    pub(crate) hears_cancel: bool,
}

/// What channels share: the session around them, and where requests and frames go.
pub(crate) struct Around<'a> {
    pub(crate) config: &'a SessionConfig,
    pub(crate) client: &'a Client,
    pub(crate) consumers: &'a mut Consumers,
    pub(crate) naming: &'a mut Naming,
    pub(crate) requests: &'a mut Vec<Request>,
    pub(crate) output: &'a mut Output,
}

/// What a channel may be in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The broker closed it; only the client's word that it has seen it counts.
    Closing,
}

/// A request that the broker has not answered. Frames of the channel wait meanwhile.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The method that asked.
    pub(crate) ids: MethodIds,
    /// The client wants no answer.
    pub(crate) is_silent: bool,
    pub(crate) what: Awaited,
}

#[derive(Debug)]
pub(crate) enum Awaited {
    QueueDeclared,
    QueueDeleted,
    QueuePurged,
    /// `Done`, passed on as this method.
    Done(Method),
    Subscribed(ConsumerNumber),
    /// With the tag that the client cancels.
    Unsubscribed(ConsumerNumber, Name),
    Fetched,
    ReplyOpened {
        tag: Name,
    },
    /// Deliveries that the transaction settles.
    Committed(Vec<Held>),
    /// Everything before the client's `channel.close` is done.
    Closed,
}

/// Whether publishes are confirmed, held back, or neither.
#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// On the wire.
    pub(crate) number: u16,
    /// Towards the broker.
    pub(crate) id: ChannelId,
    pub(crate) phase: Phase,
    pub(crate) waiting: Option<Waiting>,
    /// Whole frames of this channel that came while it waits, in order.
    pub(crate) stash: VecDeque<Bytes>,
    pub(crate) content: Content,
    /// How the last publishes looked.
    pub(crate) samples: Samples,
    pub(crate) mode: Mode,
    last_tag: u64,
    pub(crate) unsettled: Unsettled,
    pub(crate) limit: SharedLimit,
    /// Of consumers to come; 0 is none.
    pub(crate) prefetch: u16,
    pub(crate) consumers: Vec<ConsumerNumber>,
    pub(crate) reply: Option<ReplyConsumer>,
    pub(crate) last_queue: Option<Name>,
}

/// The message does not fit the frames that this client takes.
fn too_large_for_frames() -> Reply {
    let text = "properties do not fit the negotiated frame size";
    Reply::new(ReplyCode::ResourceError, text, NO_METHOD)
}

impl Channel {
    pub(crate) fn new(number: u16, id: ChannelId) -> Self {
        Self {
            number,
            id,
            phase: Phase::Open,
            waiting: None,
            stash: VecDeque::new(),
            content: Content::default(),
            samples: Samples::default(),
            mode: Mode::Plain,
            last_tag: 0,
            unsettled: Unsettled::default(),
            limit: SharedLimit::new(),
            prefetch: 0,
            consumers: Vec::new(),
            reply: None,
            last_queue: None,
        }
    }

    /// Waits for the broker's answer.
    pub(crate) fn wait(&mut self, ids: MethodIds, is_silent: bool, what: Awaited) {
        self.waiting = Some(Waiting { ids, is_silent, what });
    }

    /// Numbers without a confirm.
    pub(crate) fn unconfirmed(&self) -> u64 {
        if let Mode::Confirm(confirms) = &self.mode { confirms.open() } else { 0 }
    }

    /// Too many publishes have no confirm.
    pub(crate) fn is_crowded(&self) -> bool {
        UNCONFIRMED_MAX <= self.unconfirmed()
    }

    /// Sends a whole publish to the broker, or holds it for the commit.
    ///
    /// # Errors
    /// The reply, when it wants answers to an address that the channel does not have, or the
    /// transaction is full.
    pub(crate) fn publish(
        &mut self,
        published: Published,
        requests: &mut Vec<Request>,
    ) -> Result<(), Reply> {
        let Published { mut message, mandatory, wants_reply } = published;
        if wants_reply {
            let Some(reply) = &self.reply else {
                let text = "fast reply consumer does not exist";
                return Err(Reply::new(ReplyCode::PreconditionFailed, text, PUBLISH));
            };
            message = Arc::new(publishing::with_reply_address(&message, &reply.address));
        }
        let confirm = match &mut self.mode {
            Mode::Confirm(confirms) => Some(confirms.issue()),
            _ => None,
        };
        let publish = Publish { channel: self.id, message, mandatory, confirm };
        match &mut self.mode {
            Mode::Transaction(transaction) => {
                transaction.publish(publish).map_err(|Full| transaction_full(PUBLISH))
            }
            _ => {
                requests.push(Request::Publish(publish));
                Ok(())
            }
        }
    }

    /// Settles one delivery, or all up to it.
    ///
    /// # Errors
    /// The reply, when the tag names no delivery that is held, or the transaction is full.
    pub(crate) fn settle(
        &mut self,
        ids: MethodIds,
        (tag, multiple): (u64, bool),
        outcome: Outcome,
        around: &mut Around<'_>,
    ) -> Result<(), Reply> {
        let (mut consumed, mut room, id) = (0, Ok(()), self.id);
        let mode = &mut self.mode;
        let mut each = |held: Held| match mode {
            Mode::Transaction(transaction) => {
                let fits = transaction.settle(id, held, outcome);
                room = room.and(fits);
            }
            _ => {
                consumed += i64::from(held.is_consumed());
                consuming::settle(around.requests, id, &held, outcome);
            }
        };
        let is_known = match (multiple, tag) {
            (true, 0) => {
                self.unsettled.take_all(each);
                true
            }
            (true, tag) => self.unsettled.take_through(tag, each),
            (false, tag) => self.unsettled.take(tag).map(&mut each).is_some(),
        };
        if !is_known {
            let text = format!("unknown delivery tag {tag}");
            return Err(Reply::new(ReplyCode::PreconditionFailed, &text, ids));
        }
        self.give_credit(consumed, around);
        room.map_err(|Full| transaction_full(ids))
    }

    /// Settled deliveries leave room in the channel's limit.
    pub(crate) fn give_credit(&mut self, consumed: i64, around: &mut Around<'_>) {
        if 0 < consumed && self.limit.give(consumed) {
            self.resume(around);
        }
    }

    /// The channel's limit had been reached and is no more: its consumers are to be looked at.
    pub(crate) fn resume(&self, around: &mut Around<'_>) {
        for &consumer in &self.consumers {
            if let Some((queue, false)) = around.consumers.place(consumer) {
                around.requests.push(Request::Resume { consumer, queue });
            }
        }
    }

    /// Gives all deliveries back to their queues.
    pub(crate) fn requeue_all(&mut self, failed: bool, requests: &mut Vec<Request>) -> i64 {
        let mut held = Vec::with_capacity(self.unsettled.len());
        self.unsettled.take_all(|it| held.push(it));
        held.sort_by_key(|it| (it.queue, it.consumer));
        let outcome = Outcome::Release { failed };
        held.iter().for_each(|it| consuming::settle(requests, self.id, it, outcome));
        held.iter().filter(|it| it.is_consumed()).count() as i64
    }

    fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Gives a delivery its tag, and remembers it unless it is settled already.
    fn hold(&mut self, delivery: &Delivery) -> u64 {
        let tag = self.next_tag();
        if !delivery.automatic {
            let (queue, entry) = (delivery.queue, delivery.entry);
            self.unsettled.push(Held::new(tag, queue, entry, delivery.consumer));
        }
        tag
    }

    /// Writes a delivery to a consumer.
    ///
    /// # Errors
    /// The reply, when its properties do not fit a frame.
    pub(crate) fn deliver(
        &mut self,
        consumer_tag: &str,
        delivery: &Delivery,
        output: &mut Output,
    ) -> Result<(), Reply> {
        let tag = self.hold(delivery);
        let counted = with_counts(delivery);
        let (message, redelivered) = (&delivery.message, delivery.redelivered);
        let counted = counted.as_deref().filter(|it| output.fits(it.len()));
        let fits = output.deliver(self.number, consumer_tag, tag, redelivered, message, counted);
        if fits { Ok(()) } else { Err(too_large_for_frames()) }
    }

    /// Writes the answer to `basic.get`.
    ///
    /// # Errors
    /// As [`Channel::deliver`].
    pub(crate) fn fetched(
        &mut self,
        delivery: &Delivery,
        ready: u32,
        output: &mut Output,
    ) -> Result<(), Reply> {
        let tag = self.hold(delivery);
        let counted = with_counts(delivery);
        let (message, redelivered) = (&delivery.message, delivery.redelivered);
        let counted = counted.as_deref().filter(|it| output.fits(it.len()));
        let fits = output.fetched(self.number, tag, redelivered, ready, message, counted);
        if fits { Ok(()) } else { Err(too_large_for_frames()) }
    }

    /// Writes an answer that came to the channel's reply address.
    ///
    /// # Errors
    /// As [`Channel::deliver`].
    pub(crate) fn deliver_reply(
        &mut self,
        message: &Message,
        output: &mut Output,
    ) -> Result<(), Reply> {
        let Some(consumer_tag) = self.reply.as_ref().map(|it| it.tag.clone()) else {
            return Ok(());
        };
        let tag = self.next_tag();
        let fits = output.deliver(self.number, &consumer_tag, tag, false, message, None);
        if fits { Ok(()) } else { Err(too_large_for_frames()) }
    }

    /// Writes a publish back that no queue wanted.
    ///
    /// # Errors
    /// As [`Channel::deliver`].
    pub(crate) fn write_return(
        &mut self,
        message: &Message,
        output: &mut Output,
    ) -> Result<(), Reply> {
        if self.phase == Phase::Closing {
            return Ok(());
        }
        let code = ReplyCode::NoRoute;
        let fits = output.returned(self.number, code.number(), code.name(), message, None);
        if fits { Ok(()) } else { Err(too_large_for_frames()) }
    }

    /// Writes the confirms that wait.
    pub(crate) fn flush_confirms(&mut self, output: &mut Output) {
        let number = self.number;
        if let Mode::Confirm(confirms) = &mut self.mode
            && confirms.is_due()
        {
            confirms.flush(|answer| match answer {
                Answer::Ack { number: tag, multiple } => output.ack(number, tag, multiple),
                Answer::Nack { number: tag } => output.nack(number, tag, false),
            });
        }
    }

    /// Gives everything back that the channel holds of the broker.
    pub(crate) fn release(&mut self, around: &mut Around<'_>) {
        if let Mode::Transaction(transaction) = &mut self.mode {
            let (_, settled) = transaction.take();
            self.unsettled.restore(settled);
        }
        for consumer in self.consumers.drain(..) {
            if let Some(queue) = around.consumers.end(consumer) {
                let channel = self.id;
                around.requests.push(Request::Unsubscribe { channel, consumer, queue });
            }
        }
        self.requeue_all(true, around.requests);
        if self.reply.take().is_some() {
            around.requests.push(Request::CloseReply { channel: self.id });
        }
        self.content = Content::default();
    }

    /// Ends the channel from the broker's side. Frames that wait in it are the caller's matter.
    pub(crate) fn fail(&mut self, reply: &Reply, around: &mut Around<'_>) {
        if let Some(Waiting { what: Awaited::Committed(settled), .. }) = &mut self.waiting {
            self.unsettled.restore(std::mem::take(settled));
        }
        self.release(around);
        self.flush_confirms(around.output);
        self.mode = Mode::Plain;
        around.output.method(self.number, &reply.channel_close());
        self.phase = Phase::Closing;
    }

    /// The client closes the channel: everything goes back, then it is answered.
    pub(crate) fn close(&mut self, ids: MethodIds, around: &mut Around<'_>) {
        self.release(around);
        around.requests.push(Request::Barrier { channel: self.id });
        self.wait(ids, false, Awaited::Closed);
    }

    /// The broker has ended a consumer. True when the client is to hear of it.
    pub(crate) fn lose(&mut self, consumer: ConsumerNumber) -> bool {
        self.consumers.retain(|it| *it != consumer);
        let is_cancelled = matches!(
            &self.waiting,
            Some(Waiting { what: Awaited::Unsubscribed(it, _), .. }) if *it == consumer
        );
        self.phase == Phase::Open && !is_cancelled
    }

    /// A queue name in a request: the last declared queue when it is empty.
    ///
    /// # Errors
    /// The reply, when none was declared.
    pub(crate) fn queue_or_last(&self, queue: Name, ids: MethodIds) -> Result<Name, Reply> {
        if !queue.is_empty() {
            return Ok(queue);
        }
        let missing = || Reply::new(ReplyCode::NotFound, "no previously declared queue", ids);
        self.last_queue.clone().ok_or_else(missing)
    }
}

fn transaction_full(ids: MethodIds) -> Reply {
    Reply::new(ReplyCode::ResourceError, "transaction is too large", ids)
}

fn with_counts(delivery: &Delivery) -> Option<Vec<u8>> {
    consuming::counted(delivery.message.properties(), delivery.counts?)
}

/// Puts a delivery back that nobody waits for any more.
pub(crate) fn return_delivery(
    channel: ChannelId,
    delivery: &Delivery,
    requests: &mut Vec<Request>,
) {
    if !delivery.automatic {
        let (queue, entry): (QueueId, _) = (delivery.queue, delivery.entry);
        let held = Held::new(0, queue, entry, delivery.consumer);
        consuming::settle(requests, channel, &held, Outcome::Release { failed: false });
    }
}
