//! What a channel holds back until `tx.commit`: publishes and settles, in order and within limits.

use crate::consuming::{self, Held};
use model::{ChannelId, Outcome, Publish, Request, limits};

/// One transaction. It goes on, empty, after each commit and rollback.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    requests: Vec<Request>,
    /// Deliveries whose settles are among the requests.
    settled: Vec<Held>,
    publishes: usize,
    bytes: u64,
}

/// The transaction holds as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Transaction {
    fn room(&self, requests: usize, bytes: u64) -> Result<(), Full> {
        let held = self.publishes + self.settled.len();
        let fits = held + requests <= limits::TRANSACTION_REQUESTS_MAX
            && self.bytes + bytes <= limits::TRANSACTION_BYTES_MAX;
        if fits { Ok(()) } else { Err(Full) }
    }

    /// Holds a publish.
    ///
    /// # Errors
    /// [`Full`], when it would be one too many or too large.
    pub(crate) fn publish(&mut self, publish: Publish) -> Result<(), Full> {
        let bytes = publish.message.body_len();
        self.room(1, bytes)?;
        self.publishes += 1;
        self.bytes += bytes;
        self.requests.push(Request::Publish(publish));
        Ok(())
    }

    /// Holds the settle of one delivery, which the client may not settle again meanwhile.
    ///
    /// # Errors [`Full`], when it would be one too many. The delivery is held nevertheless, so that
    /// a rollback finds it.
    pub(crate) fn settle(
        &mut self,
        channel: ChannelId,
        held: Held,
        outcome: Outcome,
    ) -> Result<(), Full> {
        let room = self.room(1, 0);
        self.settled.push(held);
        consuming::settle(&mut self.requests, channel, &held, outcome);
        room
    }

    /// Takes out everything: the requests, and the deliveries that they settle.
    pub(crate) fn take(&mut self) -> (Vec<Request>, Vec<Held>) {
        let taken = std::mem::take(self);
        (taken.requests, taken.settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ConsumerNumber, EntryId, Message, QueueId};

    fn publish(body: &[u8]) -> Publish {
        let message = Message::new("", "q", &[0, 0], body);
        Publish { channel: ChannelId(1), message: message.into(), mandatory: false, confirm: None }
    }

    fn held(tag: u64) -> Held {
        Held::new(tag, QueueId(1), EntryId(tag), ConsumerNumber(1))
    }

    #[test]
    fn requests_are_held_in_order_and_taken_once() {
        let mut transaction = Transaction::default();
        for tag in [1, 2] {
            transaction.settle(ChannelId(1), held(tag), Outcome::Accept).expect("room");
        }
        transaction.publish(publish(b"x")).expect("room");
        let (requests, settled) = transaction.take();
        assert!(matches!(&requests[..], [Request::Settle(it), Request::Publish(_)]
            if it.entries.len() == 2));
        assert_eq!(settled, [held(1), held(2)]);
        assert!(transaction.take().0.is_empty());
    }

    #[test]
    fn limits_of_count_and_size_hold() {
        let mut transaction = Transaction::default();
        for _ in 0..limits::TRANSACTION_REQUESTS_MAX {
            transaction.publish(publish(b"x")).expect("room");
        }
        assert_eq!(transaction.publish(publish(b"x")), Err(Full));
        assert_eq!(transaction.settle(ChannelId(1), held(1), Outcome::Accept), Err(Full));
        transaction.take();
        let half = vec![0; limits::TRANSACTION_BYTES_MAX as usize / 2];
        transaction.publish(publish(&half)).expect("room");
        transaction.publish(publish(&half)).expect("room");
        assert_eq!(transaction.publish(publish(b"x")), Err(Full));
    }
}
