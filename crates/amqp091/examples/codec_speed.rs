//! Measures what the codec costs per message: `cargo run --release --example codec_speed`.

use amqp091::{
    frame::{CONTENT_HEADER_LEN, FRAME_MAX_UNTUNED, content_header, frame_at},
    method::{Method, ack_view, publish_view},
    output::Output,
};
use bytes::Bytes;
use model::{
    Message, Name,
    message::Layout,
    properties::{Facts, Properties},
};
use std::{
    hint::black_box,
    io::{IoSlice, Write, stdout},
    time::Instant,
};

const MESSAGES: usize = 2_000;
const ROUNDS: usize = 200;

fn properties() -> Vec<u8> {
    let content_type = Some(Name::new("application/json"));
    Properties { delivery_mode: Some(2), content_type, ..Properties::default() }.encoded()
}

/// Everything that waits, joined.
fn taken(output: &mut Output) -> Bytes {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = output.as_io_slices(&mut slices);
    let joined: Vec<u8> = slices[..filled].iter().flat_map(|it| it.iter().copied()).collect();
    output.advance(joined.len());
    joined.into()
}

/// Publishes as a client sends them.
fn publishes(body_len: usize) -> Bytes {
    let publish = Method::BasicPublish {
        exchange: Name::new("orders"),
        routing_key: Name::new("orders.created"),
        mandatory: false,
        immediate: false,
    };
    let message = Message::new("", "", &properties(), &vec![7; body_len]);
    let mut output = Output::new();
    for _ in 0..MESSAGES {
        assert!(output.content(1, &publish, &properties(), &message));
    }
    taken(&mut output)
}

/// Cuts publishes into messages that share the buffer, as a session does; `steps` below 3 stop
/// earlier.
fn read(buffer: &Bytes, steps: usize) -> usize {
    let (mut at, mut count) = (0, 0);
    let mut frame = || {
        let place = frame_at(buffer, at, FRAME_MAX_UNTUNED).ok().flatten()?;
        at = place.end();
        Some(place)
    };
    while let (Some(method), Some(header), Some(body)) = (frame(), frame(), frame()) {
        count += 1;
        if steps == 0 {
            black_box((&method, &header, &body));
            continue;
        }
        let view = publish_view(&buffer[method.payload.clone()]).expect("a publish");
        let found = content_header(&buffer[header.payload.clone()]).expect("a header");
        assert_eq!(found.body_size, body.payload.len() as u64);
        if steps == 1 {
            black_box(&view);
            continue;
        }
        let properties = header.payload.start + CONTENT_HEADER_LEN..header.payload.end;
        let facts = Facts::parse(&buffer[properties.clone()]).expect("good properties");
        if steps == 2 {
            black_box(&facts);
            continue;
        }
        let address = method.payload.start + view.address();
        let layout = Layout { address, properties, body: body.payload };
        black_box(Message::within(buffer.clone(), &layout, Vec::new(), &facts));
    }
    count
}

fn measured(what: &str, mut round: impl FnMut() -> usize) {
    round();
    let (begin, mut count) = (Instant::now(), 0);
    for _ in 0..ROUNDS {
        count += round();
    }
    let each = begin.elapsed().as_nanos() as f64 / count as f64;
    writeln!(stdout(), "{what:48} {each:7.1} ns each, {:6.2} M/s", 1_000.0 / each)
        .expect("someone reads");
}

fn deliveries(body_len: usize) {
    let message =
        Message::new("orders", "orders.created", &properties(), &vec![7; body_len]).detached();
    let mut output = Output::new();
    output.set_frame_max(131_072);
    measured(&format!("deliveries written, body of {body_len}"), || {
        let mut written = 0;
        while written < MESSAGES {
            // As much as may wait for a socket.
            while output.len() < 256 * 1024 && written < MESSAGES {
                let tag = written as u64;
                assert!(output.deliver(1, "ctag1.0123456789", tag, false, &message, None));
                written += 1;
            }
            let mut slices = [IoSlice::new(&[]); 64];
            black_box(output.as_io_slices(&mut slices));
            output.advance(output.len());
        }
        written
    });
}

fn main() {
    for body_len in [0, 16, 1_024, 7_000] {
        let buffer = publishes(body_len.max(1));
        let steps = ["frames cut", "and their address found", "and properties checked", "whole"];
        for (number, step) in steps.iter().enumerate() {
            let what = format!("publishes of {} octets, {step}", body_len.max(1));
            measured(&what, || read(&buffer, number));
        }
    }
    for body_len in [0, 16, 1_024, 7_000, 16_384, 1_000_000] {
        deliveries(body_len);
    }
    let mut output = Output::new();
    measured("acks written", || {
        (0..MESSAGES as u64).for_each(|tag| output.ack(1, tag, false));
        output.advance(output.len());
        MESSAGES
    });
    (0..MESSAGES as u64).for_each(|tag| output.ack(1, tag, false));
    let acks = taken(&mut output);
    measured("acks read", || {
        let (mut at, mut count) = (0, 0);
        while let Ok(Some(place)) = frame_at(&acks, at, FRAME_MAX_UNTUNED) {
            at = place.end();
            black_box(ack_view(&acks[place.payload]).expect("an ack"));
            count += 1;
        }
        count
    });
}
