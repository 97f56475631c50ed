//! What the broker answers on a channel: each notice ends a wait and becomes the method that the
//! client waits for.

use crate::{
    channel::{Around, Awaited, Channel, Phase, Waiting, return_delivery},
    direct_reply::ReplyConsumer,
    method::Method,
    publishing::PUBLISH,
    reply::{NO_METHOD, Reply, ReplyCode},
};
use model::{ChannelId, ConsumerNumber, Name, Notice, QueueId, Request};

/// What an answer means beyond itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The channel goes on.
    Open,
    /// The client's `channel.close` is answered: the channel is no more.
    Closed,
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Channel {
    /// Takes what ends the channel's wait.
    ///
    /// # Errors
    /// The reply that ends the channel or the connection.
    pub(crate) fn answer(
        &mut self,
        notice: Notice,
        around: &mut Around<'_>,
    ) -> Result<Answered, Reply> {
        if self.phase == Phase::Closing {
            late(self.id, notice, around);
            return Ok(Answered::Open);
        }
        self.flush_confirms(around.output);
        let Some(Waiting { ids, is_silent, what }) = self.waiting.take() else {
            return self.unasked(&notice);
        };
        let method = match (what, notice) {
            (Awaited::QueueDeclared, Notice::Declared { queue, ready, consumers, .. }) => {
                self.last_queue = Some(queue.clone());
                let (message_count, consumer_count) = (narrow(ready), narrow(consumers));
                Method::QueueDeclareOk { queue, message_count, consumer_count }
            }
            (Awaited::QueueDeleted, Notice::Deleted { messages, .. }) => {
                Method::QueueDeleteOk { message_count: narrow(messages) }
            }
            (Awaited::QueuePurged, Notice::Purged { messages, .. }) => {
                Method::QueuePurgeOk { message_count: narrow(messages) }
            }
            (Awaited::Done(method), Notice::Done { .. }) => method,
            (Awaited::Closed, Notice::Done { .. }) => {
                around.output.method(self.number, &Method::ChannelCloseOk {});
                return Ok(Answered::Closed);
            }
            (Awaited::Subscribed(awaited), Notice::Subscribed { consumer, queue, .. })
                if awaited == consumer =>
            {
                let consumer_tag = subscribed(consumer, queue, around);
                Method::BasicConsumeOk { consumer_tag }
            }
            (Awaited::Unsubscribed(awaited, tag), Notice::Unsubscribed { consumer, .. })
                if awaited == consumer =>
            {
                self.consumers.retain(|it| *it != consumer);
                around.consumers.remove(consumer);
                Method::BasicCancelOk { consumer_tag: tag }
            }
            (Awaited::Fetched, Notice::Fetched { delivery: Some(delivery), ready, .. }) => {
                self.fetched(&delivery, narrow(ready), around.output)?;
                return Ok(Answered::Open);
            }
            (Awaited::Fetched, Notice::Fetched { .. }) => Method::BasicGetEmpty {},
            (Awaited::ReplyOpened { tag }, Notice::ReplyOpened { address, .. }) => {
                self.reply = Some(ReplyConsumer::new(tag.clone(), &address));
                Method::BasicConsumeOk { consumer_tag: tag }
            }
            (Awaited::Committed(settled), Notice::Committed { .. }) => {
                let consumed = settled.iter().filter(|it| it.is_consumed()).count();
                self.give_credit(consumed as i64, around);
                Method::TxCommitOk {}
            }
            (what, notice) => {
                self.waiting = Some(Waiting { ids, is_silent, what });
                return self.other(notice, around);
            }
        };
        if !is_silent {
            around.output.method(self.number, &method);
        }
        Ok(Answered::Open)
    }

    /// A notice while the channel waits for another one.
    fn other(&mut self, notice: Notice, around: &mut Around<'_>) -> Result<Answered, Reply> {
        let Some(waiting) = &self.waiting else { return self.unasked(&notice) };
        match (&waiting.what, notice) {
            // The client has closed the channel already: it does not want to know.
            (Awaited::Closed, Notice::Refused { .. }) => {
                around.output.method(self.number, &Method::ChannelCloseOk {});
                Ok(Answered::Closed)
            }
            (Awaited::Closed, notice) => {
                late(self.id, notice, around);
                Ok(Answered::Open)
            }
            (_, Notice::Refused { refusal, publish, .. }) => {
                let ids = if publish { PUBLISH } else { waiting.ids };
                Err(Reply::refused(&refusal, ids))
            }
            // A consumer that the broker has ended meanwhile.
            (_, Notice::Unsubscribed { .. }) => Ok(Answered::Open),
            _ => Err(unexpected()),
        }
    }

    /// A notice while the channel waits for none.
    fn unasked(&self, notice: &Notice) -> Result<Answered, Reply> {
        match notice {
            Notice::Refused { refusal, .. } => Err(Reply::refused(refusal, PUBLISH)),
            Notice::Unsubscribed { .. } => Ok(Answered::Open),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> Reply {
    let text = "an answer came that nobody waits for";
    Reply::new(ReplyCode::InternalError, text, NO_METHOD)
}

fn subscribed(consumer: ConsumerNumber, queue: QueueId, around: &mut Around<'_>) -> Name {
    let Some(consumer) = around.consumers.get(consumer) else { return Name::default() };
    consumer.queue = Some(queue);
    consumer.tag.clone()
}

/// Takes a notice for a channel that is no more, or soon: what it hands out goes back.
pub(crate) fn late(channel: ChannelId, notice: Notice, around: &mut Around<'_>) {
    match notice {
        Notice::Subscribed { consumer, queue, .. } => {
            subscribed(consumer, queue, around);
            around.requests.push(Request::Unsubscribe { channel, consumer, queue });
        }
        Notice::Unsubscribed { consumer, .. } => drop(around.consumers.remove(consumer)),
        Notice::Fetched { delivery: Some(delivery), .. } => {
            return_delivery(channel, &delivery, around.requests);
        }
        Notice::ReplyOpened { .. } => around.requests.push(Request::CloseReply { channel }),
        _ => {}
    }
}
