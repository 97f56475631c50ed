//! The methods of AMQP 0-9-1 with RabbitMQ's extensions: one table, from which the enum, its
//! decoder and its encoder come. Publishes and acks have views that build nothing.

use crate::secret::Secret;
use bytes::{BufMut, Bytes};
use model::{Name, Table, value::TableError};
use std::ops::Range;

/// Class and method id.
pub type MethodIds = (u16, u16);

const BASIC_PUBLISH: [u8; 4] = [0, 60, 0, 40];
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];

/// Why a payload is no method, and which method it says to be, as far as that can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct DecodeError {
    /// (0, 0) when the payload is too short to hold them.
    pub ids: MethodIds,
    pub kind: DecodeErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    #[error("unknown method")]
    UnknownMethod,
    #[error("arguments end in the middle of a field")]
    Truncated,
    #[error("arguments are followed by {0} octets")]
    TooLong(usize),
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8,
    #[error("{0}")]
    Table(#[from] TableError),
}

struct Reader<'a> {
    rest: &'a [u8],
    /// What is left of an octet of bits: consecutive bits share octets, lowest first.
    bits: u8,
    bits_left: u8,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeErrorKind> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeErrorKind::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeErrorKind> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeErrorKind::Truncated)?;
        self.rest = rest;
        self.bits_left = 0;
        Ok(*taken)
    }

    fn long_octets(&mut self) -> Result<&'a [u8], DecodeErrorKind> {
        let length = u32::from_be_bytes(self.fixed()?);
        self.take(length as usize)
    }

    fn bit(&mut self) -> Result<bool, DecodeErrorKind> {
        if self.bits_left == 0 {
            [self.bits] = self.fixed()?;
            self.bits_left = 8;
        }
        let bit = self.bits & 1 != 0;
        self.bits >>= 1;
        self.bits_left -= 1;
        Ok(bit)
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Bits in the last octet that are taken; 0 when the next bit needs a new one.
    bits_taken: u8,
}

impl Writer<'_> {
    fn octets(&mut self, octets: &[u8]) {
        self.bits_taken = 0;
        self.out.put_slice(octets);
    }

    fn long_octets(&mut self, octets: &[u8]) {
        let length = u32::try_from(octets.len()).expect("a long string fits its frame");
        self.octets(&length.to_be_bytes());
        self.octets(octets);
    }

    fn bit(&mut self, bit: bool) {
        if self.bits_taken == 0 {
            self.out.push(0);
        }
        let octet = self.out.last_mut().expect("an octet of bits was begun");
        *octet |= u8::from(bit) << self.bits_taken;
        self.bits_taken = (self.bits_taken + 1) % 8;
    }
}

/// A type of the specification: how one field is read and written.
trait Field: Sized + Default {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind>;
    fn write(&self, writer: &mut Writer<'_>);
}

macro_rules! number_fields {
    ($($number:ty),*) => { $(
        impl Field for $number {
            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
                reader.fixed().map(Self::from_be_bytes)
            }

            fn write(&self, writer: &mut Writer<'_>) {
                writer.octets(&self.to_be_bytes());
            }
        }
    )* };
}

number_fields!(u8, u16, u32, u64);

impl Field for bool {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        reader.bit()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bit(*self);
    }
}

impl Field for Name {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        let [length] = reader.fixed()?;
        let octets = reader.take(length.into())?;
        std::str::from_utf8(octets).map(Self::new).map_err(|_| DecodeErrorKind::NotUtf8)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.octets(&[u8::try_from(self.len()).expect("a name has at most 255 octets")]);
        writer.octets(self.as_bytes());
    }
}

impl Field for Bytes {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        reader.long_octets().map(Self::copy_from_slice)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_octets(self);
    }
}

impl Field for Secret {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        reader.long_octets().map(Self::new)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_octets(self.expose());
    }
}

impl Field for Table {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
        let before = reader.rest;
        let inner = reader.long_octets()?;
        let (table, _) = Self::decode(&before[..4 + inner.len()])?;
        Ok(table)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bits_taken = 0;
        self.encode(writer.out);
    }
}

/// A line: ids, variant, name on the wire, types of the reserved fields in front, the fields, types
/// of the reserved fields behind. Reserved fields are written as zero and ignored when read.
macro_rules! methods {
    ($(
        $class:literal $method:literal $variant:ident $name:literal
        ($($before:ty),*) { $($field:ident: $type:ty),* } ($($after:ty),*)
    )*) => {
        /// A method with its arguments.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method {
            $( #[doc = concat!("`", $name, "`")] $variant { $($field: $type),* }, )*
        }

        /// Every method there is: its ids and its name.
        pub const METHODS: &[(MethodIds, &str)] = &[$( (($class, $method), $name) ),*];

        impl Method {
            /// Class and method id.
            pub fn ids(&self) -> MethodIds {
                match self { $( Self::$variant { .. } => ($class, $method), )* }
            }

            /// The name on the wire, such as `queue.declare`.
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $name, )* }
            }

            fn read(ids: MethodIds, reader: &mut Reader<'_>) -> Result<Self, DecodeErrorKind> {
                match ids {
                    $( ($class, $method) => {
                        $( <$before>::read(reader)?; )*
                        $( let $field = <$type>::read(reader)?; )*
                        $( <$after>::read(reader)?; )*
                        Ok(Self::$variant { $($field),* })
                    } )*
                    _ => Err(DecodeErrorKind::UnknownMethod),
                }
            }

            fn write(&self, writer: &mut Writer<'_>) {
                match self {
                    $( Self::$variant { $($field),* } => {
                        $( <$before>::default().write(writer); )*
                        $( $field.write(writer); )*
                        $( <$after>::default().write(writer); )*
                    } )*
                }
            }

            /// One of every method, filled by who knows how to make a field.
            #[cfg(test)]
            fn samples(maker: &mut tests::Maker) -> Vec<Self> {
                vec![$( Self::$variant { $($field: tests::Sample::sample(maker)),* } ),*]
            }
        }
    };
}

methods! {
    10 10 ConnectionStart "connection.start"
        () { version_major: u8, version_minor: u8, server_properties: Table, mechanisms: Bytes,
             locales: Bytes } ()
    10 11 ConnectionStartOk "connection.start-ok"
        () { client_properties: Table, mechanism: Name, response: Secret, locale: Name } ()
    10 20 ConnectionSecure "connection.secure" () { challenge: Secret } ()
    10 21 ConnectionSecureOk "connection.secure-ok" () { response: Secret } ()
    10 30 ConnectionTune "connection.tune"
        () { channel_max: u16, frame_max: u32, heartbeat_s: u16 } ()
    10 31 ConnectionTuneOk "connection.tune-ok"
        () { channel_max: u16, frame_max: u32, heartbeat_s: u16 } ()
    10 40 ConnectionOpen "connection.open" () { virtual_host: Name } (Name, bool)
    10 41 ConnectionOpenOk "connection.open-ok" () {} (Name)
    10 50 ConnectionClose "connection.close"
        () { reply_code: u16, reply_text: Name, class_id: u16, method_id: u16 } ()
    10 51 ConnectionCloseOk "connection.close-ok" () {} ()
    10 60 ConnectionBlocked "connection.blocked" () { reason: Name } ()
    10 61 ConnectionUnblocked "connection.unblocked" () {} ()
    10 70 ConnectionUpdateSecret "connection.update-secret"
        () { new_secret: Secret, reason: Name } ()
    10 71 ConnectionUpdateSecretOk "connection.update-secret-ok" () {} ()

    20 10 ChannelOpen "channel.open" () {} (Name)
    20 11 ChannelOpenOk "channel.open-ok" () {} (Bytes)
    20 20 ChannelFlow "channel.flow" () { active: bool } ()
    20 21 ChannelFlowOk "channel.flow-ok" () { active: bool } ()
    20 40 ChannelClose "channel.close"
        () { reply_code: u16, reply_text: Name, class_id: u16, method_id: u16 } ()
    20 41 ChannelCloseOk "channel.close-ok" () {} ()

    30 10 AccessRequest "access.request"
        () { realm: Name, exclusive: bool, passive: bool, active: bool, write: bool, read: bool } ()
    30 11 AccessRequestOk "access.request-ok" () { ticket: u16 } ()

    40 10 ExchangeDeclare "exchange.declare"
        (u16) { exchange: Name, kind: Name, passive: bool, durable: bool, auto_delete: bool,
                internal: bool, no_wait: bool, arguments: Table } ()
    40 11 ExchangeDeclareOk "exchange.declare-ok" () {} ()
    40 20 ExchangeDelete "exchange.delete"
        (u16) { exchange: Name, if_unused: bool, no_wait: bool } ()
    40 21 ExchangeDeleteOk "exchange.delete-ok" () {} ()
    40 30 ExchangeBind "exchange.bind"
        (u16) { destination: Name, source: Name, routing_key: Name, no_wait: bool,
                arguments: Table } ()
    40 31 ExchangeBindOk "exchange.bind-ok" () {} ()
    40 40 ExchangeUnbind "exchange.unbind"
        (u16) { destination: Name, source: Name, routing_key: Name, no_wait: bool,
                arguments: Table } ()
    40 51 ExchangeUnbindOk "exchange.unbind-ok" () {} ()

    50 10 QueueDeclare "queue.declare"
        (u16) { queue: Name, passive: bool, durable: bool, exclusive: bool, auto_delete: bool,
                no_wait: bool, arguments: Table } ()
    50 11 QueueDeclareOk "queue.declare-ok"
        () { queue: Name, message_count: u32, consumer_count: u32 } ()
    50 20 QueueBind "queue.bind"
        (u16) { queue: Name, exchange: Name, routing_key: Name, no_wait: bool,
                arguments: Table } ()
    50 21 QueueBindOk "queue.bind-ok" () {} ()
    50 30 QueuePurge "queue.purge" (u16) { queue: Name, no_wait: bool } ()
    50 31 QueuePurgeOk "queue.purge-ok" () { message_count: u32 } ()
    50 40 QueueDelete "queue.delete"
        (u16) { queue: Name, if_unused: bool, if_empty: bool, no_wait: bool } ()
    50 41 QueueDeleteOk "queue.delete-ok" () { message_count: u32 } ()
    50 50 QueueUnbind "queue.unbind"
        (u16) { queue: Name, exchange: Name, routing_key: Name, arguments: Table } ()
    50 51 QueueUnbindOk "queue.unbind-ok" () {} ()

    60 10 BasicQos "basic.qos"
        () { prefetch_size: u32, prefetch_count: u16, global: bool } ()
    60 11 BasicQosOk "basic.qos-ok" () {} ()
    60 20 BasicConsume "basic.consume"
        (u16) { queue: Name, consumer_tag: Name, no_local: bool, no_ack: bool, exclusive: bool,
                no_wait: bool, arguments: Table } ()
    60 21 BasicConsumeOk "basic.consume-ok" () { consumer_tag: Name } ()
    60 30 BasicCancel "basic.cancel" () { consumer_tag: Name, no_wait: bool } ()
    60 31 BasicCancelOk "basic.cancel-ok" () { consumer_tag: Name } ()
    60 40 BasicPublish "basic.publish"
        (u16) { exchange: Name, routing_key: Name, mandatory: bool, immediate: bool } ()
    60 50 BasicReturn "basic.return"
        () { reply_code: u16, reply_text: Name, exchange: Name, routing_key: Name } ()
    60 60 BasicDeliver "basic.deliver"
        () { consumer_tag: Name, delivery_tag: u64, redelivered: bool, exchange: Name,
             routing_key: Name } ()
    60 70 BasicGet "basic.get" (u16) { queue: Name, no_ack: bool } ()
    60 71 BasicGetOk "basic.get-ok"
        () { delivery_tag: u64, redelivered: bool, exchange: Name, routing_key: Name,
             message_count: u32 } ()
    60 72 BasicGetEmpty "basic.get-empty" () {} (Name)
    60 80 BasicAck "basic.ack" () { delivery_tag: u64, multiple: bool } ()
    60 90 BasicReject "basic.reject" () { delivery_tag: u64, requeue: bool } ()
    60 100 BasicRecoverAsync "basic.recover-async" () { requeue: bool } ()
    60 110 BasicRecover "basic.recover" () { requeue: bool } ()
    60 111 BasicRecoverOk "basic.recover-ok" () {} ()
    60 120 BasicNack "basic.nack" () { delivery_tag: u64, multiple: bool, requeue: bool } ()

    85 10 ConfirmSelect "confirm.select" () { no_wait: bool } ()
    85 11 ConfirmSelectOk "confirm.select-ok" () {} ()

    90 10 TxSelect "tx.select" () {} ()
    90 11 TxSelectOk "tx.select-ok" () {} ()
    90 20 TxCommit "tx.commit" () {} ()
    90 21 TxCommitOk "tx.commit-ok" () {} ()
    90 30 TxRollback "tx.rollback" () {} ()
    90 31 TxRollbackOk "tx.rollback-ok" () {} ()
}

impl Method {
    /// Reads the payload of a method frame, which must hold nothing else.
    ///
    /// # Errors
    /// [`DecodeError`], when it names no known method or its arguments are cut short, too long or
    /// wrong.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError { ids: (0, 0), kind: DecodeErrorKind::Truncated };
        let ids = method_ids(payload).ok_or(truncated)?;
        let mut reader = Reader { rest: &payload[4..], bits: 0, bits_left: 0 };
        let method = Self::read(ids, &mut reader).map_err(|kind| DecodeError { ids, kind })?;
        match reader.rest.len() {
            0 => Ok(method),
            more => Err(DecodeError { ids, kind: DecodeErrorKind::TooLong(more) }),
        }
    }

    /// Appends ids and arguments: the payload of a method frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (class_id, method_id) = self.ids();
        out.put_u16(class_id);
        out.put_u16(method_id);
        self.write(&mut Writer { out, bits_taken: 0 });
    }
}

/// The ids in front of a method's arguments; `None` when the payload is too short for them.
pub fn method_ids(payload: &[u8]) -> Option<MethodIds> {
    let &[class_high, class_low, method_high, method_low] = payload.first_chunk()?;
    let class_id = u16::from_be_bytes([class_high, class_low]);
    Some((class_id, u16::from_be_bytes([method_high, method_low])))
}

/// A publish, looked at in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishView {
    /// Where the exchange's name lies in the payload.
    pub exchange: Range<usize>,
    pub routing_key: Range<usize>,
    pub mandatory: bool,
    pub immediate: bool,
}

impl PublishView {
    /// Where the address begins in the payload: exchange and routing key, adjacent, each behind its
    /// length octet. This is what `model::message::Layout` asks for.
    pub fn address(&self) -> usize {
        self.exchange.start - 1
    }
}

/// Looks at a well-formed `basic.publish`. `None` for anything else: `Method::decode` then says
/// what it is or what is wrong with it.
#[inline]
pub fn publish_view(payload: &[u8]) -> Option<PublishView> {
    const ADDRESS: usize = 6;
    if *payload.first_chunk()? != BASIC_PUBLISH {
        return None;
    }
    let exchange_at = ADDRESS + 1;
    let exchange = exchange_at..exchange_at + usize::from(*payload.get(ADDRESS)?);
    let key_at = exchange.end + 1;
    let routing_key = key_at..key_at + usize::from(*payload.get(exchange.end)?);
    let bits = *payload.get(routing_key.end)?;
    let utf8 = |range: &Range<usize>| std::str::from_utf8(&payload[range.clone()]).is_ok();
    if payload.len() != routing_key.end + 1 || !utf8(&exchange) || !utf8(&routing_key) {
        return None;
    }
    let (mandatory, immediate) = (bits & 1 != 0, bits & 2 != 0);
    Some(PublishView { exchange, routing_key, mandatory, immediate })
}

/// An ack, looked at in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckView {
    pub delivery_tag: u64,
    pub multiple: bool,
}

/// Looks at a well-formed `basic.ack`. `None` for anything else.
#[inline]
pub fn ack_view(payload: &[u8]) -> Option<AckView> {
    let (ids, arguments) = payload.split_first_chunk()?;
    let (tag, bits) = arguments.split_first_chunk()?;
    match (*ids, bits) {
        (BASIC_ACK, &[bits]) => {
            Some(AckView { delivery_tag: u64::from_be_bytes(*tag), multiple: bits & 1 != 0 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Value;
    use proptest::prelude::*;

    /// Makes fields that differ from each other, in the order of the specification.
    #[derive(Default)]
    pub(crate) struct Maker {
        made: u8,
    }

    impl Maker {
        fn next(&mut self) -> u8 {
            self.made = self.made.wrapping_add(1);
            self.made
        }
    }

    pub(crate) trait Sample {
        fn sample(maker: &mut Maker) -> Self;
    }

    macro_rules! number_samples {
        ($($number:ty),*) => { $(
            impl Sample for $number {
                fn sample(maker: &mut Maker) -> Self {
                    <$number>::MAX - <$number>::from(maker.next() & 0x7f)
                }
            }
        )* };
    }

    number_samples!(u8, u16, u32, u64);

    impl Sample for bool {
        fn sample(maker: &mut Maker) -> Self {
            maker.next() % 2 == 1
        }
    }

    impl Sample for Name {
        fn sample(maker: &mut Maker) -> Self {
            Self::from(format!("né{}", maker.next()))
        }
    }

    impl Sample for Bytes {
        fn sample(maker: &mut Maker) -> Self {
            Self::from(vec![0xff; maker.next().into()])
        }
    }

    impl Sample for Secret {
        fn sample(maker: &mut Maker) -> Self {
            Self::new(&[0, maker.next()])
        }
    }

    impl Sample for Table {
        fn sample(maker: &mut Maker) -> Self {
            Self(vec![(Name::new("key"), Value::U8(maker.next()))])
        }
    }

    fn encoded(method: &Method) -> Vec<u8> {
        let mut octets = Vec::new();
        method.encode(&mut octets);
        octets
    }

    #[test]
    fn every_method_decodes_to_what_was_encoded() {
        for first in [0, 1, 99] {
            let samples = Method::samples(&mut Maker { made: first });
            assert_eq!(samples.len(), METHODS.len());
            for method in samples {
                assert_eq!(Method::decode(&encoded(&method)).as_ref(), Ok(&method));
                assert!(METHODS.contains(&(method.ids(), method.name())));
            }
        }
    }

    #[test]
    fn every_cut_and_every_extra_octet_is_refused() {
        for method in Method::samples(&mut Maker::default()) {
            let mut octets = encoded(&method);
            for length in 0..octets.len() {
                let ids = if length < 4 { (0, 0) } else { method.ids() };
                let truncated = DecodeError { ids, kind: DecodeErrorKind::Truncated };
                assert_eq!(Method::decode(&octets[..length]), Err(truncated), "{method:?}");
                assert_eq!(publish_view(&octets[..length]), None);
                assert_eq!(ack_view(&octets[..length]), None);
            }
            octets.push(0);
            let too_long = DecodeError { ids: method.ids(), kind: DecodeErrorKind::TooLong(1) };
            assert_eq!(Method::decode(&octets), Err(too_long), "{method:?}");
            assert_eq!((publish_view(&octets), ack_view(&octets)), (None, None));
        }
    }

    #[test]
    fn no_two_methods_share_ids_or_name() {
        for (at, (ids, name)) in METHODS.iter().enumerate() {
            for (other_ids, other_name) in &METHODS[at + 1..] {
                assert!(ids != other_ids && name != other_name, "{name}");
            }
        }
    }

    #[test]
    fn bits_share_an_octet_lowest_first() {
        let method = Method::QueueDeclare {
            queue: Name::new("q"),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: true,
            arguments: Table::default(),
        };
        assert_eq!(encoded(&method), [0, 50, 0, 10, 0, 0, 1, b'q', 0b10010, 0, 0, 0, 0]);
    }

    #[test]
    fn wrong_arguments_are_refused_with_their_kind() {
        let refused = |octets: &[u8]| Method::decode(octets).map_err(|it| (it.ids, it.kind));
        assert_eq!(refused(&[0, 60, 3, 231]), Err(((60, 999), DecodeErrorKind::UnknownMethod)));
        assert_eq!(refused(&[0, 99, 0, 10]), Err(((99, 10), DecodeErrorKind::UnknownMethod)));
        let not_utf8 = [0, 50, 0, 10, 0, 0, 2, 0xff, 0xfe, 0, 0, 0, 0, 0];
        assert_eq!(refused(&not_utf8), Err(((50, 10), DecodeErrorKind::NotUtf8)));
        let unknown_type = [0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 3, 1, b'k', b'z'];
        let kind = DecodeErrorKind::Table(TableError::UnknownType(b'z'));
        assert_eq!(refused(&unknown_type), Err(((50, 10), kind)));
        let cut_inside = [0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 3, 2, b'k', b't'];
        let kind = DecodeErrorKind::Table(TableError::Truncated);
        assert_eq!(refused(&cut_inside), Err(((50, 10), kind)));
    }

    #[test]
    fn a_publish_is_seen_where_it_lies() {
        let method = Method::BasicPublish {
            exchange: Name::new("ex"),
            routing_key: Name::new("key"),
            mandatory: true,
            immediate: false,
        };
        let octets = encoded(&method);
        let view = publish_view(&octets).expect("a publish");
        assert_eq!(&octets[view.exchange.clone()], b"ex");
        assert_eq!(&octets[view.routing_key.clone()], b"key");
        assert_eq!(&octets[view.address()..view.routing_key.end], b"\x02ex\x03key");
        assert_eq!((view.mandatory, view.immediate), (true, false));
        let mut immediate = octets.clone();
        *immediate.last_mut().expect("not empty") = 2;
        let view = publish_view(&immediate).expect("a publish");
        assert_eq!((view.mandatory, view.immediate), (false, true));
        let mut not_utf8 = octets;
        not_utf8[8] = 0xff;
        assert_eq!(publish_view(&not_utf8), None);
    }

    #[test]
    fn an_ack_is_seen() {
        let octets = encoded(&Method::BasicAck { delivery_tag: 1 << 40, multiple: true });
        assert_eq!(ack_view(&octets), Some(AckView { delivery_tag: 1 << 40, multiple: true }));
        let reject = encoded(&Method::BasicReject { delivery_tag: 1, requeue: true });
        assert_eq!(ack_view(&reject), None);
    }

    #[test]
    fn payloads_of_another_encoder_are_understood_and_written_alike() {
        let mut seen = std::collections::BTreeSet::new();
        for line in include_str!("../tests/data/methods.hex").lines() {
            let (name, digits) = line.split_once(' ').expect("a name and digits");
            let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
            let octets: Vec<u8> = (0..digits.len()).step_by(2).map(octet).collect();
            let method = Method::decode(&octets).expect("a good method");
            assert_eq!((method.name(), encoded(&method)), (name, octets));
            seen.insert(name);
        }
        // Those that the encoder lacks: connection.secure and its answer.
        assert_eq!(seen.len(), METHODS.len() - 2);
    }

    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        // Noise alone seldom gets past the ids.
        let known = (0..METHODS.len(), any::<Vec<u8>>()).prop_map(|(at, rest)| {
            let ((class_id, method_id), _) = METHODS[at];
            let ids = [class_id.to_be_bytes(), method_id.to_be_bytes()].concat();
            [ids, rest].concat()
        });
        let damaged = (0..METHODS.len(), any::<prop::sample::Index>(), any::<u8>());
        let damaged = damaged.prop_map(|(at, place, octet)| {
            let mut octets = encoded(&Method::samples(&mut Maker::default())[at]);
            let place = place.index(octets.len());
            octets[place] = octet;
            octets
        });
        prop_oneof![known, damaged, any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn any_octets_decode_or_are_refused_and_the_views_agree(octets in payloads()) {
            let decoded = Method::decode(&octets);
            let view = publish_view(&octets);
            let text = |range: &Range<usize>| String::from_utf8_lossy(&octets[range.clone()]);
            let seen = view.map(|it| Method::BasicPublish {
                exchange: Name::new(&text(&it.exchange)),
                routing_key: Name::new(&text(&it.routing_key)),
                mandatory: it.mandatory,
                immediate: it.immediate,
            });
            let is_publish = matches!(decoded, Ok(Method::BasicPublish { .. }));
            prop_assert_eq!(seen, decoded.clone().ok().filter(|_| is_publish));
            match (&decoded, ack_view(&octets)) {
                (Ok(Method::BasicAck { delivery_tag, multiple }), view) => prop_assert_eq!(
                    view,
                    Some(AckView { delivery_tag: *delivery_tag, multiple: *multiple })
                ),
                (_, view) => prop_assert_eq!(view, None),
            }
        }
    }
}
