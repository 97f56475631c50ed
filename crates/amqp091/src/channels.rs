//! The channels of one session: found by their number on the wire or by the broker's id of them,
//! with what their frames that wait come to.

use crate::channel::Channel;
use bytes::Bytes;
use model::ChannelId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Octets of frames that may wait in all channels before the socket is not read any more.
pub(crate) const STASH_BYTES_MAX: usize = 1024 * 1024;

/// The open and closing channels.
///
/// To the broker a channel has its own number as id, unless an earlier channel of that number may
/// still be answered: then it gets a number that is free.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// In the order of their numbers.
    open: Vec<(u16, Box<Channel>)>,
    /// Where the last look-up ended; frames come in runs.
    recent: usize,
    /// Numbers of channels whose id is another one, by id.
    aliases: BTreeMap<u16, u16>,
    /// Ids of which answers may still come.
    stale: BTreeSet<u16>,
    id_next: u16,
    stash_bytes: usize,
    /// Channels that have too many publishes without a confirm.
    crowded: BTreeSet<u16>,
}

impl Channels {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn get(&mut self, number: u16) -> Option<&mut Channel> {
        let at = self.find(number)?;
        self.recent = at;
        Some(&mut self.open[at].1)
    }

    #[inline]
    fn find(&self, number: u16) -> Option<usize> {
        if self.open.get(self.recent).is_some_and(|it| it.0 == number) {
            return Some(self.recent);
        }
        self.open.binary_search_by_key(&number, |it| it.0).ok()
    }

    fn peek(&self, number: u16) -> Option<&Channel> {
        Some(&self.open[self.find(number)?].1)
    }

    /// The number of the channel that has this id; none when it is no more.
    pub(crate) fn number_of(&self, id: ChannelId) -> Option<u16> {
        let number = self.aliases.get(&id.0).copied().unwrap_or(id.0);
        self.peek(number).filter(|it| it.id == id).map(|it| it.number)
    }

    fn is_free(&self, id: u16) -> bool {
        !self.stale.contains(&id) && !self.aliases.contains_key(&id)
    }

    /// Opens a channel, which must not be there.
    pub(crate) fn add(&mut self, number: u16) {
        let mut id = number;
        if !self.is_free(id) {
            id = self.fresh_id();
            self.aliases.insert(id, number);
        }
        let at = self.open.partition_point(|it| it.0 < number);
        self.open.insert(at, (number, Box::new(Channel::new(number, ChannelId(id)))));
    }

    /// An id that nothing is known of. Ids go down from the highest, where numbers seldom are.
    fn fresh_id(&mut self) -> u16 {
        loop {
            self.id_next = self.id_next.checked_sub(1).unwrap_or_else(|| {
                // So many ended channels ago an answer is not to be expected any more.
                self.stale.clear();
                u16::MAX
            });
            if self.is_free(self.id_next) && self.peek(self.id_next).is_none() {
                return self.id_next;
            }
        }
    }

    /// Takes a channel out and returns the frames that wait in it. `is_stale`: the broker may still
    /// answer it.
    pub(crate) fn remove(&mut self, number: u16, is_stale: bool) -> VecDeque<Bytes> {
        self.crowded.remove(&number);
        let Some(at) = self.find(number) else { return VecDeque::new() };
        let (_, channel) = self.open.remove(at);
        self.aliases.remove(&channel.id.0);
        if is_stale {
            self.stale.insert(channel.id.0);
        }
        self.stash_bytes -= channel.stash.iter().map(Bytes::len).sum::<usize>();
        channel.stash
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps whole frames of a channel for later.
    pub(crate) fn stash(&mut self, number: u16, frames: Bytes) {
        let bytes = frames.len();
        if let Some(channel) = self.get(number) {
            channel.stash.push_back(frames);
            self.stash_bytes += bytes;
        }
    }

    /// Keeps frames that were taken out by [`Channels::unstash`] and could not be used up.
    pub(crate) fn stash_again(&mut self, number: u16, frames: Bytes) {
        let bytes = frames.len();
        if let Some(channel) = self.get(number) {
            channel.stash.push_front(frames);
            self.stash_bytes += bytes;
        }
    }

    /// The frames that have waited longest, unless their channel still waits.
    pub(crate) fn unstash(&mut self, number: u16) -> Option<Bytes> {
        let channel = self.get(number).filter(|it| it.waiting.is_none())?;
        let frames = channel.stash.pop_front()?;
        self.stash_bytes -= frames.len();
        Some(frames)
    }

    /// Forgets the frames of a channel.
    pub(crate) fn drop_stash(&mut self, number: u16) {
        while let Some(frames) = self.get(number).and_then(|it| it.stash.pop_front()) {
            self.stash_bytes -= frames.len();
        }
    }

    pub(crate) fn has_stash(&self) -> bool {
        0 < self.stash_bytes
    }

    pub(crate) fn is_stash_full(&self) -> bool {
        STASH_BYTES_MAX < self.stash_bytes
    }

    /// Numbers of the channels with frames that wait.
    pub(crate) fn with_stash(&self) -> Vec<u16> {
        self.open.iter().filter(|it| !it.1.stash.is_empty()).map(|it| it.0).collect()
    }

    /// Looks whether a channel has too many publishes without a confirm.
    pub(crate) fn count_unconfirmed(&mut self, number: u16) {
        if self.peek(number).is_some_and(Channel::is_crowded) {
            self.crowded.insert(number);
        } else {
            self.crowded.remove(&number);
        }
    }

    pub(crate) fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_whose_answers_may_still_come_gets_another_id() {
        let mut channels = Channels::default();
        channels.add(1);
        assert_eq!(channels.number_of(ChannelId(1)), Some(1));
        channels.remove(1, false);
        channels.add(1);
        assert_eq!(channels.number_of(ChannelId(1)), Some(1), "a clean end leaves the number");
        channels.remove(1, true);
        channels.add(1);
        assert_eq!(channels.number_of(ChannelId(1)), None);
        assert_eq!(channels.number_of(ChannelId(u16::MAX)), Some(1));
        channels.add(u16::MAX);
        assert_eq!(channels.number_of(ChannelId(u16::MAX)), Some(1));
        assert_eq!(channels.number_of(ChannelId(u16::MAX - 1)), Some(u16::MAX));
    }

    #[test]
    fn a_number_can_be_opened_again_for_ever() {
        let mut channels = Channels::default();
        for _ in 0..70_000 {
            channels.add(1);
            let id = channels.get(1).expect("open").id;
            assert_eq!(channels.number_of(id), Some(1));
            channels.remove(1, true);
        }
    }

    #[test]
    fn what_waits_is_counted_until_it_is_taken() {
        let mut channels = Channels::default();
        channels.add(1);
        channels.stash(1, Bytes::from(vec![0; STASH_BYTES_MAX]));
        channels.stash(1, Bytes::from_static(b"x"));
        assert!(channels.is_stash_full());
        let frames = channels.unstash(1).expect("frames");
        assert!(!channels.is_stash_full() && channels.has_stash());
        channels.stash_again(1, frames);
        assert!(channels.is_stash_full());
        channels.remove(1, false);
        assert!(!channels.has_stash());
    }
}
