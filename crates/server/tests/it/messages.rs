//! What a real client does with messages.

use crate::{harness::TestServer, script};
use lapin::{
    BasicProperties, Channel, ErrorKind,
    message::BasicGetMessage,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    publisher_confirm::Confirmation,
    types::FieldTable,
};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

const PATIENCE: Duration = Duration::from_secs(30);

const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

async fn confirming(connection: &lapin::Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

async fn declare(channel: &Channel, queue: &str, options: QueueDeclareOptions) -> u32 {
    let declared = channel.queue_declare(queue, options, FieldTable::default()).await;
    declared.unwrap().message_count()
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> Confirmation {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("", queue, options, body, properties).await;
    sent.unwrap().await.unwrap()
}

async fn get(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel.basic_get(queue, BasicGetOptions::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_confirmed_fetched_and_gone_after_its_ack() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    declare(&channel, "q", DURABLE).await;
    let confirmation = publish(&channel, "q", b"hello").await;
    assert!(confirmation.is_ack() && confirmation.take_message().is_none());
    let message = get(&channel, "q").await.unwrap();
    assert_eq!((message.data.as_slice(), message.redelivered), (&b"hello"[..], false));
    message.ack(BasicAckOptions::default()).await.unwrap();
    assert!(get(&channel, "q").await.is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_mandatory_message_comes_back_before_its_confirm() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    let confirmation = publish(&channel, "nowhere", b"lost").await;
    assert!(confirmation.is_ack());
    let returned = confirmation.take_message().unwrap();
    assert_eq!((returned.reply_code, returned.delivery.data.as_slice()), (312, &b"lost"[..]));
    assert_eq!(returned.reply_text.as_str(), "NO_ROUTE");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_everything_in_order_and_a_nack_brings_back() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let publisher = confirming(&connection).await;
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "q", DURABLE).await;
    channel.basic_qos(10, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("q", "c", options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    for number in 0..500_u32 {
        let body = number.to_be_bytes();
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default().with_delivery_mode(2);
        let sent = publisher.basic_publish("", "q", options, &body, properties).await;
        drop(sent.unwrap());
    }
    for number in 0..500_u32 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.data, number.to_be_bytes());
        if number == 499 {
            let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            delivery.nack(options).await.unwrap();
        } else {
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!((again.data.as_slice(), again.redelivered), (&499_u32.to_be_bytes()[..], true));
    again.ack(BasicAckOptions::default()).await.unwrap();
    assert!(publisher.wait_for_confirms().await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_declaration_of_a_queue_closes_the_channel_with_the_difference() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "q", DURABLE).await;
    let other = QueueDeclareOptions { durable: false, ..DURABLE };
    let error = channel.queue_declare("q", other, FieldTable::default()).await.unwrap_err();
    let ErrorKind::ProtocolError(error) = error.kind() else { panic!("{error}") };
    let expected = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': \
         received 'false' but current is 'true'";
    assert_eq!((error.get_id(), error.get_message().as_str()), (406, expected));
    let channel = connection.create_channel().await.unwrap();
    assert_eq!(declare(&channel, "q", DURABLE).await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_durable_queues_and_their_persistent_messages() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    declare(&channel, "kept", DURABLE).await;
    declare(&channel, "lost", QueueDeclareOptions { durable: false, ..DURABLE }).await;
    for number in 0..100_u8 {
        assert!(publish(&channel, "kept", &[number]).await.is_ack());
    }
    let folder = server.stop().await;
    let server = TestServer::start_on(folder, &[]).await;
    let connection = server.connect().await;
    let channel = connection.create_channel().await.unwrap();
    assert_eq!(declare(&channel, "kept", DURABLE).await, 100);
    for number in 0..100_u8 {
        let message = get(&channel, "kept").await.unwrap();
        assert_eq!(message.data, [number]);
        message.ack(BasicAckOptions::default()).await.unwrap();
    }
    let passive = QueueDeclareOptions { passive: true, ..DURABLE };
    let error = channel.queue_declare("lost", passive, FieldTable::default()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NOT_FOUND - no queue 'lost' in vhost '/'"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_many_frames_arrives_whole() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    declare(&channel, "q", DURABLE).await;
    let body: Vec<u8> =
        (0..5_000_000_u32).map(|it| it.to_le_bytes()[0] ^ it.to_le_bytes()[1]).collect();
    assert!(publish(&channel, "q", &body).await.is_ack());
    let message = get(&channel, "q").await.unwrap();
    assert!(message.data == body);
    message.ack(BasicAckOptions::default()).await.unwrap();
    server.stop().await;
}

/// Much more than a consumer may be owed at a time, so it must be given credit as it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_reads_gets_more_than_its_first_credit() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    declare(&channel, "q", DURABLE).await;
    let body = vec![7; 100_000];
    for _ in 0..100 {
        assert!(publish(&channel, "q", &body).await.is_ack());
    }
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume("q", "c", options, FieldTable::default());
    let mut consumer = consumer.await.unwrap();
    for _ in 0..100 {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("in time");
        assert!(next.unwrap().unwrap().data == body);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_read_is_disconnected_and_loses_nothing() {
    let server = TestServer::start_with(&[("limits.write_timeout", "1s")]).await;
    let connection = server.connect().await;
    let channel = confirming(&connection).await;
    declare(&channel, "q", DURABLE).await;
    let body = vec![7; 500_000];
    for _ in 0..60 {
        assert!(publish(&channel, "q", &body).await.is_ack());
    }
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let consume = "send 1 60.20 u16:0 short:q short:c u8:0 table\nexpect 1 60.21";
    script::play(&mut socket, &format!("{}\n{consume}", include_str!("scripts/open.txt"))).await;
    let consumers = async || {
        let passive = QueueDeclareOptions { passive: true, ..DURABLE };
        let queue = channel.queue_declare("q", passive, FieldTable::default()).await.unwrap();
        queue.consumer_count()
    };
    assert_eq!(consumers().await, 1);
    let alone = async { while consumers().await != 0 {} };
    tokio::time::timeout(PATIENCE, alone).await.expect("the server gives up");
    assert_eq!(declare(&channel, "q", DURABLE).await, 60);
    server.stop().await;
}
