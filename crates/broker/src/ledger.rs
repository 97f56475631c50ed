//! What a session still hears of from more than one shard. A publish that went to queues of several
//! shards is confirmed when the last of them has it, and nacked when one refuses; a request that
//! every shard answers is answered once.

use model::{ChannelId, Notice};
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    publishes: HashMap<(ChannelId, u64), Open>,
    /// Answers of shards that are still to come, and the answer so far.
    joined: HashMap<ChannelId, Open>,
}

#[derive(Debug)]
struct Open {
    shards: usize,
    refused: bool,
}

impl Ledger {
    /// The publish waits for so many shards.
    pub(crate) fn open(&mut self, channel: ChannelId, number: u64, shards: usize) {
        debug_assert!(1 < shards, "one shard answers for itself");
        self.publishes.insert((channel, number), Open { shards, refused: false });
    }

    /// The channel's next `Done` or `Committed` comes from so many shards.
    pub(crate) fn join(&mut self, channel: ChannelId, shards: usize) {
        if 1 < shards {
            self.joined.insert(channel, Open { shards, refused: false });
        }
    }

    /// Replaces what shards said by what the session may hear.
    pub(crate) fn settle(&mut self, notices: &mut Vec<Notice>) {
        if self.publishes.is_empty() && self.joined.is_empty() {
            return;
        }
        let mut out = Vec::with_capacity(notices.len());
        for notice in notices.drain(..) {
            match notice {
                Notice::Confirmed { channel, first, last } => {
                    self.confirm(channel, first, last, &mut out);
                }
                Notice::Nacked { channel, number } => self.answer(channel, number, true, &mut out),
                Notice::Done { channel } | Notice::Committed { channel } => {
                    if self.is_last(channel) {
                        out.push(notice);
                    }
                }
                other => out.push(other),
            }
        }
        *notices = out;
    }

    fn confirm(&mut self, channel: ChannelId, first: u64, last: u64, out: &mut Vec<Notice>) {
        for number in first..=last {
            self.answer(channel, number, false, out);
        }
    }

    fn answer(&mut self, channel: ChannelId, number: u64, refused: bool, out: &mut Vec<Notice>) {
        let refused = match self.publishes.get_mut(&(channel, number)) {
            None => refused,
            Some(open) => {
                open.shards -= 1;
                open.refused |= refused;
                if 0 < open.shards {
                    return;
                }
                let refused = open.refused;
                self.publishes.remove(&(channel, number));
                refused
            }
        };
        match out.last_mut() {
            _ if refused => out.push(Notice::Nacked { channel, number }),
            Some(Notice::Confirmed { channel: before, last, .. })
                if *before == channel && *last + 1 == number =>
            {
                *last = number;
            }
            _ => out.push(Notice::Confirmed { channel, first: number, last: number }),
        }
    }

    fn is_last(&mut self, channel: ChannelId) -> bool {
        let Some(open) = self.joined.get_mut(&channel) else { return true };
        open.shards -= 1;
        let last = open.shards == 0;
        if last {
            self.joined.remove(&channel);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId(1);

    fn settled(ledger: &mut Ledger, mut notices: Vec<Notice>) -> String {
        ledger.settle(&mut notices);
        let text = notices.iter().map(|it| match it {
            Notice::Confirmed { first, last, .. } => format!("+{first}-{last}"),
            Notice::Nacked { number, .. } => format!("-{number}"),
            Notice::Done { .. } => "done".to_owned(),
            other => format!("{other:?}"),
        });
        text.collect::<Vec<_>>().join(" ")
    }

    fn plus(first: u64, last: u64) -> Notice {
        Notice::Confirmed { channel: CHANNEL, first, last }
    }

    #[test]
    fn publish_to_two_shards_is_confirmed_by_the_second() {
        let mut ledger = Ledger::default();
        ledger.open(CHANNEL, 2, 2);
        assert_eq!(settled(&mut ledger, vec![plus(1, 3)]), "+1-1 +3-3");
        assert_eq!(settled(&mut ledger, vec![plus(2, 2)]), "+2-2");
        assert_eq!(settled(&mut ledger, vec![plus(4, 9)]), "+4-9");
    }

    #[test]
    fn one_refusal_of_two_shards_is_a_nack() {
        let mut ledger = Ledger::default();
        ledger.open(CHANNEL, 1, 2);
        assert_eq!(settled(&mut ledger, vec![Notice::Nacked { channel: CHANNEL, number: 1 }]), "");
        assert_eq!(settled(&mut ledger, vec![plus(1, 1)]), "-1");
    }

    #[test]
    fn joined_answer_comes_once() {
        let mut ledger = Ledger::default();
        ledger.join(CHANNEL, 2);
        let done = || Notice::Done { channel: CHANNEL };
        assert_eq!(settled(&mut ledger, vec![done()]), "");
        assert_eq!(settled(&mut ledger, vec![done()]), "done");
        assert_eq!(settled(&mut ledger, vec![done()]), "done");
    }
}
