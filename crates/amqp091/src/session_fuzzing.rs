//! Entry point for fuzz targets of the session and their corpora: any octets from a client, with a
//! broker that answers everything and remembers nothing.

use crate::{
    config::SessionConfig,
    frame::{PROTOCOL_HEADER, take_frame},
    method::Method,
    output::Output,
    secret::Secret,
    session::{Event, Session},
};
use bytes::BytesMut;
use model::{
    ConsumerNumber, Delivery, EntryId, Message, Name, Notice, QueueId, Request, ShardId, Table,
    Timestamp, properties::Properties,
};
use std::{io::IoSlice, sync::Arc};

const NOW: Timestamp = Timestamp(1);

/// What a broker without memory answers.
pub fn answer(request: &Request) -> Option<Notice> {
    Some(match request {
        Request::Publish(it) => {
            let (channel, number) = (it.channel, it.confirm?);
            Notice::Confirmed { channel, first: number, last: number }
        }
        Request::DeclareQueue(it) => {
            let (channel, queue) = (it.channel, it.queue.clone());
            Notice::Declared { channel, queue, ready: 0, consumers: 0 }
        }
        Request::DeleteQueue { channel, .. } => Notice::Deleted { channel: *channel, messages: 1 },
        Request::PurgeQueue { channel, .. } => Notice::Purged { channel: *channel, messages: 1 },
        Request::DeclareExchange(it) => Notice::Done { channel: it.channel },
        Request::Bind(it) | Request::Unbind(it) => Notice::Done { channel: it.channel },
        Request::DeleteExchange { channel, .. } | Request::Barrier { channel } => {
            Notice::Done { channel: *channel }
        }
        Request::Subscribe(it) => Notice::Subscribed {
            channel: it.channel,
            consumer: it.consumer,
            queue: QueueId(1),
            shard: ShardId(0),
        },
        Request::Unsubscribe { channel, consumer, .. } => {
            Notice::Unsubscribed { channel: *channel, consumer: *consumer }
        }
        Request::Fetch { channel, automatic, .. } => {
            let delivery = Some(delivery(*automatic));
            Notice::Fetched { channel: *channel, delivery, ready: 0 }
        }
        Request::OpenReply { channel } => {
            Notice::ReplyOpened { channel: *channel, address: Name::new("gx") }
        }
        Request::Commit { channel, .. } => Notice::Committed { channel: *channel },
        Request::Settle(_)
        | Request::Credit { .. }
        | Request::Prefetch { .. }
        | Request::Resume { .. }
        | Request::Job(_)
        | Request::CloseReply { .. } => return None,
    })
}

fn delivery(automatic: bool) -> Delivery {
    Delivery {
        consumer: ConsumerNumber::default(),
        queue: QueueId(1),
        entry: EntryId(1),
        message: Arc::new(Message::new("", "q", &Properties::default().encoded(), b"body")),
        redelivered: false,
        counts: None,
        automatic,
    }
}

/// Gives the octets to a session that is open and has channel 1, in parts as long as the first
/// octet says; answers what it asks of the broker and checks that it writes whole frames.
pub fn session(octets: &[u8]) {
    let part_len = octets.first().map_or(1, |it| usize::from(*it).max(1));
    let mut session = Session::new(Arc::new(SessionConfig::default()), 1);
    let (mut input, mut output) = (BytesMut::from(&opening()[..]), Output::new());
    let mut requests = Vec::new();
    let login = session.receive(&mut input, NOW, &mut requests, &mut output);
    assert!(matches!(login, Some(Event::Login { .. })));
    session.logged_in(true, NOW, &mut output);
    let open = session.receive(&mut input, NOW, &mut requests, &mut output);
    assert!(matches!(open, Some(Event::Open { .. })));
    session.opened(Ok(()), &mut output);
    for part in octets.chunks(part_len) {
        input.extend_from_slice(part);
        if session.receive(&mut input, NOW, &mut requests, &mut output).is_some() {
            break;
        }
        while !requests.is_empty() {
            let mut notices: Vec<_> = requests.iter().filter_map(answer).collect();
            requests.clear();
            session.notify(notices.drain(..), NOW, &mut requests, &mut output);
            session.flushed(&mut requests);
        }
    }
    assert!(!session.holds_back(), "every request was answered");
    check(&mut output);
}

/// What a client sends until its channel is open.
fn opening() -> Vec<u8> {
    let (channel_max, frame_max, heartbeat_s) = (2_047, 131_072, 0);
    let mut out = Output::new();
    out.raw(&PROTOCOL_HEADER);
    for (channel, method) in [
        (
            0,
            Method::ConnectionStartOk {
                client_properties: Table::default(),
                mechanism: Name::new("PLAIN"),
                response: Secret::new(b"\0u\0p"),
                locale: Name::default(),
            },
        ),
        (0, Method::ConnectionTuneOk { channel_max, frame_max, heartbeat_s }),
        (0, Method::ConnectionOpen { virtual_host: Name::new("/") }),
        (1, Method::ChannelOpen {}),
    ] {
        out.method(channel, &method);
    }
    taken(&mut out).to_vec()
}

fn taken(output: &mut Output) -> BytesMut {
    let mut octets = BytesMut::new();
    while !output.is_empty() {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = output.as_io_slices(&mut slices);
        let before = octets.len();
        slices[..filled].iter().for_each(|it| octets.extend_from_slice(it));
        output.advance(octets.len() - before);
    }
    octets
}

fn check(output: &mut Output) {
    let mut octets = taken(output);
    while take_frame(&mut octets, u32::MAX).expect("frames are written").is_some() {}
    assert!(octets.is_empty(), "whole frames are written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_of_short_inputs_is_taken() {
        for octets in [&b""[..], b"\x01", b"\xff\xff\xff\xff", &[8, 0, 0, 0, 0, 0, 0, 0xce, 1]] {
            session(octets);
        }
    }
}
