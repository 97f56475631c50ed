//! Direct reply-to: a channel's own address for answers, without a queue.

use crate::publishing::REPLY_TO;
use model::Name;

/// The consumer of a channel's reply address.
#[derive(Debug)]
pub(crate) struct ReplyConsumer {
    pub(crate) tag: Name,
    /// The whole name under which others reach the channel.
    pub(crate) address: Name,
}

impl ReplyConsumer {
    /// `address`: what the broker made up, which stands behind the fixed name and a point.
    pub(crate) fn new(tag: Name, address: &str) -> Self {
        Self { tag, address: Name::from(format!("{REPLY_TO}.{address}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_fixed_name_in_front() {
        let consumer = ReplyConsumer::new(Name::new("t"), "g0123");
        assert_eq!(consumer.address.as_str(), "amq.rabbitmq.reply-to.g0123");
    }
}
