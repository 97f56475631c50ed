//! A message: address, properties and body, immutable, shared by reference count from the socket's
//! read buffer to the last write. In the common case all of it is one slice of that buffer.

use crate::properties::Facts;
use bytes::Bytes;
use std::ops::Range;

/// A message as it was published. What queues add to it (order, expiry, counters) stands in their
/// entries.
#[derive(Clone, Debug)]
pub struct Message {
    /// Address, properties and the first part of the body, in this order, other octets in between.
    bytes: Bytes,
    address: u32,
    exchange_len: u8,
    key_len: u8,
    properties: Range<u32>,
    body: Range<u32>,
    /// The parts of the body after the first one, where there are any.
    rest: Option<Box<Parts>>,
    size: u32,
    /// Asked for by the publisher; whether a queue keeps it is the queue's matter.
    pub persistent: bool,
    pub priority: Option<u8>,
    /// The message's own time to live in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The death history in the headers was written by this broker and may be continued. One that a
    /// publisher sent is an ordinary header.
    pub deaths_known: bool,
    /// No headers, user id, reply address or expiration: nothing of the properties needs a second
    /// look.
    pub plain: bool,
}

/// Further parts of a body.
#[derive(Clone, Debug)]
struct Parts {
    slices: Vec<Bytes>,
    bytes: u64,
}

// With its two counts it must stay within what the allocator hands out at once for its size: eight
// octets more cost a hundred instructions per message.
const _: () = assert!(size_of::<Message>() <= 88);

/// Where the parts of a message lie in one buffer.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Start of the address: exchange and routing key, each behind its length octet, adjacent.
    pub address: usize,
    pub properties: Range<usize>,
    pub body: Range<usize>,
}

/// A number of octets; the limits of messages lie far below four gigabytes.
fn short(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The range in few octets; it must lie within the buffer.
fn narrow(range: &Range<usize>, bytes: &Bytes) -> Range<u32> {
    assert!(range.start <= range.end && range.end <= bytes.len(), "a part lies in its buffer");
    let octets = "a message's buffer is smaller than 4 GiB";
    u32::try_from(range.start).expect(octets)..u32::try_from(range.end).expect(octets)
}

impl Message {
    /// A message whose parts lie in `bytes` as `layout` says; `rest` holds further parts of the
    /// body. `facts` must come from the same properties. `ttl_ms` is the publisher's expiration,
    /// decoded.
    ///
    /// # Panics
    /// When the layout points outside of the buffer: the doors have checked it.
    pub fn within(bytes: Bytes, layout: &Layout, rest: Vec<Bytes>, facts: &Facts<'_>) -> Self {
        let exchange_len = bytes[layout.address];
        let key_at = layout.address + 1 + usize::from(exchange_len);
        let key_len = bytes[key_at];
        let key_end = key_at + 1 + usize::from(key_len);
        let address = narrow(&(layout.address..key_end), &bytes);
        let rest = (!rest.is_empty()).then(|| {
            let bytes = rest.iter().map(|it| it.len() as u64).sum();
            Box::new(Parts { slices: rest, bytes })
        });
        let first = address.len() + layout.properties.len() + layout.body.len();
        let first = short(first as u64);
        Self {
            address: address.start,
            exchange_len,
            key_len,
            properties: narrow(&layout.properties, &bytes),
            body: narrow(&layout.body, &bytes),
            size: first.saturating_add(rest.as_ref().map_or(0, |it| short(it.bytes))),
            rest,
            persistent: facts.persistent,
            priority: facts.priority,
            ttl_ms: facts.expiration.and_then(|it| it.parse().ok()),
            deaths_known: false,
            plain: facts.headers.is_none()
                && facts.user_id.is_none()
                && facts.reply_to.is_none()
                && facts.expiration.is_none(),
            bytes,
        }
    }

    /// The next message of a publisher that sends many alike: address and properties lie in `bytes`
    /// where they lie in this one's buffer, octet for octet the same, which the caller has seen.
    ///
    /// # Panics
    /// When a part points outside of the buffer.
    #[inline]
    pub fn another(&self, bytes: Bytes, body: &Range<usize>) -> Self {
        let front = self.address_len() + self.properties.len();
        let body = narrow(body, &bytes);
        let address_end = self.address as usize + self.address_len();
        assert!(address_end <= bytes.len() && self.properties.end as usize <= bytes.len());
        Self {
            size: short((front + body.len()) as u64),
            body,
            bytes,
            rest: None,
            properties: self.properties.clone(),
            ..*self
        }
    }

    /// A message with a buffer of its own. Properties must be encoded and checked.
    pub fn new(exchange: &str, routing_key: &str, properties: &[u8], body: &[u8]) -> Self {
        Self::joined(exchange, routing_key, properties, std::iter::once(body))
    }

    /// A message of nothing, to leave where one was taken. Allocates nothing.
    pub fn empty() -> Self {
        const NOTHING: &[u8] = &[0, 0, 0, 0];
        let layout = Layout { address: 0, properties: 2..4, body: 4..4 };
        Self::within(Bytes::from_static(NOTHING), &layout, Vec::new(), &Facts::default())
    }

    fn joined<'a>(
        exchange: &str,
        routing_key: &str,
        properties: &[u8],
        body: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Self {
        let address_len = 2 + exchange.len() + routing_key.len();
        let body_len: usize = body.clone().map(<[u8]>::len).sum();
        let mut buffer = Vec::with_capacity(address_len + properties.len() + body_len);
        for name in [exchange, routing_key] {
            buffer.push(u8::try_from(name.len()).expect("a name has at most 255 octets"));
            buffer.extend_from_slice(name.as_bytes());
        }
        buffer.extend_from_slice(properties);
        body.for_each(|it| buffer.extend_from_slice(it));
        let layout = Layout {
            address: 0,
            properties: address_len..address_len + properties.len(),
            body: address_len + properties.len()..buffer.len(),
        };
        let facts = Facts::parse(properties).unwrap_or_default();
        Self::within(Bytes::from(buffer), &layout, Vec::new(), &facts)
    }

    /// The same message in a buffer of its own, so that a small one that stays does not hold the
    /// whole read buffer it came in.
    pub fn detached(&self) -> Self {
        let (address, properties) = (self.address(), self.properties());
        let mut buffer = Vec::with_capacity(address.len() + properties.len() + self.body_bytes());
        buffer.extend_from_slice(address);
        buffer.extend_from_slice(properties);
        self.body_parts().for_each(|it| buffer.extend_from_slice(it));
        let bytes = Bytes::from(buffer);
        let body_at = address.len() + properties.len();
        Self {
            address: 0,
            properties: narrow(&(address.len()..body_at), &bytes),
            body: narrow(&(body_at..bytes.len()), &bytes),
            bytes,
            rest: None,
            ..*self
        }
    }

    /// The same body under another address and other properties.
    pub fn readdressed(&self, exchange: &str, routing_key: &str, properties: &[u8]) -> Self {
        Self::joined(exchange, routing_key, properties, self.body_parts())
    }

    fn text(&self, start: usize, length: u8) -> &str {
        let octets = &self.bytes[start..start + usize::from(length)];
        std::str::from_utf8(octets).expect("the doors let in names of UTF-8 only")
    }

    pub fn exchange(&self) -> &str {
        self.text(self.address as usize + 1, self.exchange_len)
    }

    pub fn routing_key(&self) -> &str {
        self.text(self.address as usize + 2 + usize::from(self.exchange_len), self.key_len)
    }

    /// Exchange and routing key as encoded, each behind its length octet.
    pub fn address(&self) -> &[u8] {
        let start = self.address as usize;
        &self.bytes[start..start + self.address_len()]
    }

    fn address_len(&self) -> usize {
        2 + usize::from(self.exchange_len) + usize::from(self.key_len)
    }

    /// The encoded properties.
    pub fn properties(&self) -> &[u8] {
        &self.bytes[self.properties.start as usize..self.properties.end as usize]
    }

    /// What the broker must know of the properties.
    pub fn facts(&self) -> Facts<'_> {
        Facts::parse(self.properties()).unwrap_or_default()
    }

    /// Octets of the body.
    pub fn body_len(&self) -> u64 {
        u64::from(self.body.end - self.body.start) + self.rest.as_ref().map_or(0, |it| it.bytes)
    }

    /// Octets of address, properties and body: what the message costs in memory and on disk.
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// Octets of the body, all of which are in memory.
    fn body_bytes(&self) -> usize {
        self.body_parts().map(<[u8]>::len).sum()
    }

    /// The first part of the body; all of it in the common case.
    pub fn first_body_part(&self) -> &[u8] {
        &self.bytes[self.body.start as usize..self.body.end as usize]
    }

    /// The parts of the body in order.
    pub fn body_parts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let rest = self.rest.iter().flat_map(|it| it.slices.iter().map(|it| &it[..]));
        std::iter::once(self.first_body_part()).chain(rest)
    }

    /// The parts of the body as shared slices, for a write that outlives the message.
    pub fn shared_body_parts(&self) -> impl Iterator<Item = Bytes> + '_ {
        let first = self.bytes.slice(self.body.start as usize..self.body.end as usize);
        std::iter::once(first).chain(self.rest.iter().flat_map(|it| it.slices.iter().cloned()))
    }

    /// The whole body, joined; for tests and rare paths.
    pub fn body(&self) -> Vec<u8> {
        self.body_parts().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::Properties;

    #[test]
    fn parts_are_found_in_a_buffer_with_other_octets_between() {
        let properties = Properties { delivery_mode: Some(2), ..Properties::default() }.encoded();
        let mut buffer = b"xx\x02ex\x03keyYY".to_vec();
        let start = buffer.len();
        buffer.extend_from_slice(&properties);
        let middle = buffer.len();
        buffer.extend_from_slice(b"Zbody");
        let end = buffer.len();
        let layout = Layout { address: 2, properties: start..middle, body: middle + 1..end };
        let facts = Facts::parse(&properties).expect("good");
        let rest = vec![Bytes::from_static(b"more")];
        let message = Message::within(Bytes::from(buffer), &layout, rest, &facts);
        assert_eq!((message.exchange(), message.routing_key()), ("ex", "key"));
        assert_eq!(message.address(), b"\x02ex\x03key");
        assert_eq!(message.body(), b"bodymore");
        assert_eq!(message.body_len(), 8);
        assert!(message.persistent);
        let copy = message.detached();
        assert_eq!((copy.address(), copy.properties()), (message.address(), message.properties()));
        assert_eq!(copy.body(), b"bodymore");
        assert_eq!((copy.size(), message.size()), (18, 18));
        assert_eq!((copy.persistent, copy.plain), (true, true));
    }

    #[test]
    fn another_of_the_same_front_differs_in_its_body_alone() {
        let properties = Properties { priority: Some(3), ..Properties::default() }.encoded();
        let first = Message::new("ex", "key", &properties, b"body");
        let mut octets = [first.address(), first.properties()].concat();
        let front = octets.len();
        octets.extend_from_slice(b"-other-");
        let second = first.another(Bytes::from(octets), &(front + 1..front + 6));
        assert_eq!((second.address(), second.properties()), (first.address(), first.properties()));
        assert_eq!((second.priority, second.plain, second.persistent), (Some(3), true, false));
        assert_eq!(second.body(), b"other");
        assert_eq!(second.size(), front as u64 + 5);
    }
}
