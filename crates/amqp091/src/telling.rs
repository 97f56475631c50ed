//! What the broker tells: notices become frames, end the waits of channels and let kept frames go
//! on.

use crate::{
    answers::{self, Answered},
    channel::{Mode, return_delivery},
    method::Method,
    output::Output,
    reading::Source,
    reply::Reply,
    session::{Event, Session, Sink, Stage},
};
use model::{ChannelId, ConsumerNumber, Delivery, Message, Notice, Request, Timestamp};

/// A reply that ends the channel of this number, or the connection.
type Told = Result<(), (u16, Reply)>;

impl Session {
    /// Takes what the broker tells. Frames that waited for it go on.
    pub fn notify(
        &mut self,
        notices: impl Iterator<Item = Notice>,
        _now: Timestamp,
        requests: &mut Vec<Request>,
        output: &mut Output,
    ) -> Option<Event> {
        let mut sink = Sink { requests, output };
        for notice in notices {
            if self.is_open() {
                self.notice(notice, &mut sink);
            }
        }
        if !self.confirmed.is_empty() {
            self.flush_confirms(sink.output);
        }
        if !self.answered.is_empty() {
            self.go_on(&mut sink);
        }
        self.finished()
    }

    /// Takes what the broker tells, one by one.
    #[inline]
    fn notice(&mut self, notice: Notice, sink: &mut Sink<'_>) {
        let told = match notice {
            Notice::Delivery(delivery) => self.delivery(&delivery, sink),
            Notice::Confirmed { channel, first, last } => {
                self.confirmed(channel, (first, last), true);
                Ok(())
            }
            Notice::Nacked { channel, number } => {
                self.confirmed(channel, (number, number), false);
                Ok(())
            }
            Notice::Returned { channel, message } => self.returned(channel, &message, sink.output),
            Notice::Reply { channel, message } => self.reply(channel, &message, sink.output),
            Notice::Cancelled { consumer } => {
                self.cancelled(consumer, sink.output);
                Ok(())
            }
            Notice::Blocked { reason } => {
                self.blocked = Some(reason);
                self.tell_blocked(sink.output);
                Ok(())
            }
            Notice::Unblocked => {
                self.unblocked(sink.output);
                Ok(())
            }
            Notice::Closed { refusal } => {
                self.close(*refusal, sink.output);
                Ok(())
            }
            // Only who asks about jobs is told of them, and no AMQP client can.
            Notice::Job(_) => Ok(()),
            Notice::Fetched { channel, .. }
            | Notice::Declared { channel, .. }
            | Notice::Deleted { channel, .. }
            | Notice::Purged { channel, .. }
            | Notice::Done { channel }
            | Notice::Subscribed { channel, .. }
            | Notice::Unsubscribed { channel, .. }
            | Notice::ReplyOpened { channel, .. }
            | Notice::Committed { channel }
            | Notice::Refused { channel, .. } => {
                self.answer(channel, notice, sink);
                Ok(())
            }
        };
        if let Err((number, reply)) = told {
            self.fault(number, &reply, sink);
        }
    }

    #[inline]
    fn delivery(&mut self, delivery: &Delivery, sink: &mut Sink<'_>) -> Told {
        let Some(consumer) = self.consumers.get(delivery.consumer) else {
            self.stray(delivery, sink);
            return Ok(());
        };
        let Some(channel) = self.channels.get(consumer.channel).filter(|_| !consumer.is_ending)
        else {
            return_delivery(consumer.channel_id, delivery, sink.requests);
            return Ok(());
        };
        let number = channel.number;
        channel.deliver(&consumer.tag, delivery, sink.output).map_err(|it| (number, it))?;
        self.consumers.owe(delivery.consumer, delivery.message.size());
        Ok(())
    }

    /// A delivery that was under way when its consumer went: it goes back, and leaves no trace in
    /// the limit of a channel that is still there.
    fn stray(&mut self, delivery: &Delivery, sink: &mut Sink<'_>) {
        let (number, id) = self.consumers.former_channel(delivery.consumer).unwrap_or_default();
        return_delivery(id, delivery, sink.requests);
        let (channels, mut around) = self.around(sink);
        if let Some(channel) = channels.get(number).filter(|it| it.id == id)
            && !delivery.automatic
        {
            channel.give_credit(1, &mut around);
        }
    }

    fn confirmed(&mut self, id: ChannelId, (first, last): (u64, u64), is_safe: bool) {
        let Some(number) = self.channels.number_of(id) else { return };
        if let Some(channel) = self.channels.get(number)
            && let Mode::Confirm(confirms) = &mut channel.mode
        {
            match is_safe {
                true => confirms.confirm(first, last),
                false => confirms.refuse(first),
            }
            if self.confirmed.last() != Some(&number) {
                self.confirmed.push(number);
            }
        }
        if self.channels.is_crowded() {
            self.channels.count_unconfirmed(number);
        }
    }

    fn returned(&mut self, id: ChannelId, message: &Message, output: &mut Output) -> Told {
        let Some(number) = self.channels.number_of(id) else { return Ok(()) };
        let Some(channel) = self.channels.get(number) else { return Ok(()) };
        channel.write_return(message, output).map_err(|it| (number, it))
    }

    fn reply(&mut self, id: ChannelId, message: &Message, output: &mut Output) -> Told {
        let Some(number) = self.channels.number_of(id) else { return Ok(()) };
        let Some(channel) = self.channels.get(number) else { return Ok(()) };
        channel.deliver_reply(message, output).map_err(|it| (number, it))
    }

    fn cancelled(&mut self, number: ConsumerNumber, output: &mut Output) {
        let Some(consumer) = self.consumers.remove(number) else { return };
        let is_heard = self.channels.get(consumer.channel).is_some_and(|it| it.lose(number));
        if is_heard && !consumer.is_ending && self.client.hears_cancel {
            let cancel = Method::BasicCancel { consumer_tag: consumer.tag, no_wait: true };
            output.method(consumer.channel, &cancel);
        }
    }

    fn unblocked(&mut self, output: &mut Output) {
        self.blocked = None;
        if std::mem::take(&mut self.has_told_blocked) {
            output.method(0, &Method::ConnectionUnblocked {});
        }
        if std::mem::take(&mut self.is_held) {
            self.answered.extend(self.channels.with_stash());
            // The inbox may hold publishes, though no channel does.
            self.answered.push(0);
        }
    }

    fn answer(&mut self, id: ChannelId, notice: Notice, sink: &mut Sink<'_>) {
        if let Notice::Unsubscribed { consumer, .. } = notice
            && self.consumers.get(consumer).is_some_and(|it| it.is_ending)
        {
            // It ended with its channel, which waits for no such word.
            self.consumers.remove(consumer);
            return;
        }
        let Some(number) = self.channels.number_of(id) else {
            let (_, mut around) = self.around(sink);
            answers::late(id, notice, &mut around);
            return;
        };
        let is_refused = matches!(notice, Notice::Refused { .. });
        let (channels, mut around) = self.around(sink);
        let Some(channel) = channels.get(number) else { return };
        match channel.answer(notice, &mut around) {
            Ok(Answered::Open) => {}
            Ok(Answered::Closed) => {
                let is_stale = is_refused || 0 < channel.unconfirmed();
                let frames = channels.remove(number, is_stale);
                if !frames.is_empty() {
                    self.orphans.push((number, frames));
                }
            }
            Err(reply) => self.fault(number, &reply, sink),
        }
        self.answered.push(number);
    }

    /// Lets the frames of answered channels go on, then those that waited behind them.
    fn go_on(&mut self, sink: &mut Sink<'_>) {
        for (number, pieces) in std::mem::take(&mut self.orphans) {
            for piece in pieces {
                let at = self.walk(&piece, Source::Orphans, sink);
                if at < piece.len() {
                    self.channels.stash(number, piece.slice(at..));
                }
            }
        }
        for number in std::mem::take(&mut self.answered) {
            self.replay(number, sink);
        }
        self.part(sink.output);
        self.read_inbox(sink);
    }

    fn replay(&mut self, number: u16, sink: &mut Sink<'_>) {
        while self.is_open() && !self.is_held {
            let Some(piece) = self.channels.unstash(number) else { return };
            let at = self.walk(&piece, Source::Stash, sink);
            if at < piece.len() && !matches!(self.stage, Stage::Over) {
                self.channels.stash_again(number, piece.slice(at..));
            }
        }
    }
}
