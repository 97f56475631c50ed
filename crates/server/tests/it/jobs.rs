//! Queues of jobs as real clients see them.

use crate::harness::TestServer;
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
        BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use model::{
    Name,
    job::{JobAnswer, JobAsk, JobResult, JobView, State, Until},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_stream::StreamExt as _;

const PATIENCE: Duration = Duration::from_secs(30);
const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in fields {
        table.insert(ShortString::from(*key), value.clone());
    }
    table
}

async fn declare_jobs(channel: &Channel, queue: &str) {
    let arguments = table(&[("x-jobs", AMQPValue::Boolean(true))]);
    channel.queue_declare(queue, DURABLE, arguments).await.unwrap();
}

async fn open(connection: &lapin::Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

fn durable(id: &str) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_message_id(id.into())
}

async fn publish(channel: &Channel, queue: &str, properties: BasicProperties, body: &[u8]) {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish("", queue, options, body, properties).await.unwrap();
    let confirmation = sent.await.unwrap();
    assert!(confirmation.is_ack() && confirmation.take_message().is_none());
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Consumer {
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue, "", options, FieldTable::default()).await.unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap()
}

fn attempt(delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().as_ref().unwrap();
    match headers.inner().get("x-attempt") {
        Some(AMQPValue::LongLongInt(it)) => *it,
        other => panic!("{other:?}"),
    }
}

async fn reply(channel: &Channel, to: &Delivery, body: &[u8]) {
    let address = to.properties.reply_to().clone().unwrap();
    let properties = BasicProperties::default().with_content_type("text/plain".into());
    publish(channel, address.as_str(), properties, body).await;
}

async fn ask(server: &TestServer, ask: JobAsk) -> JobAnswer {
    let session = server.node().connect("/", "guest").unwrap();
    let answer = session.ask_about_jobs(ask);
    tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap()
}

/// The job, once it is settled.
async fn settled(server: &TestServer, id: &str) -> JobView {
    let wait = JobAsk::Wait { queue: Some("q".into()), id: id.into(), until: Until::Settled };
    match ask(server, wait).await {
        JobAnswer::Job(view) => *view,
        other => panic!("{other:?}"),
    }
}

async fn view(server: &TestServer, id: &str) -> JobView {
    match ask(server, JobAsk::Look { queue: None, id: id.into() }).await {
        JobAnswer::Job(view) => *view,
        other => panic!("{other:?}"),
    }
}

async fn result(server: &TestServer, id: &str) -> Option<JobResult> {
    match ask(server, JobAsk::Result { queue: Some(Name::new("q")), id: id.into() }).await {
        JobAnswer::Result { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

/// Passes bytes on until it is aborted: then both sides see a connection that has died.
async fn proxy(to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_gets_the_answer_and_the_queue_keeps_it_over_a_restart() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let (caller, worker) = (open(&connection).await, open(&connection).await);
    declare_jobs(&caller, "q").await;
    let mut answers = consume(&caller, "amq.rabbitmq.reply-to", true).await;
    let asked = durable("job-1")
        .with_reply_to("amq.rabbitmq.reply-to".into())
        .with_correlation_id("c-1".into());
    publish(&caller, "q", asked, b"question").await;
    let mut jobs = consume(&worker, "q", false).await;
    let job = next(&mut jobs).await;
    assert_eq!((job.data.as_slice(), attempt(&job)), (&b"question"[..], 1));
    reply(&worker, &job, b"answer").await;
    job.ack(BasicAckOptions::default()).await.unwrap();
    let answer = next(&mut answers).await;
    assert_eq!(answer.data, b"answer");
    assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), "c-1");
    assert_eq!(settled(&server, "job-1").await.state, State::Succeeded);
    connection.close(200, "bye").await.unwrap();
    let server = TestServer::start_on(server.stop().await, &[]).await;
    let kept = result(&server, "job-1").await.unwrap();
    assert_eq!((&kept.body[..], kept.content_type), (&b"answer"[..], Some("text/plain".into())));
    let connection = server.connect().await;
    let channel = open(&connection).await;
    publish(&channel, "q", durable("job-1"), b"question").await;
    let declared = channel.queue_declare("q", passive(), FieldTable::default()).await.unwrap();
    assert_eq!(declared.message_count(), 0, "the same job again is none");
    server.stop().await;
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions { passive: true, ..DURABLE }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proper_close_costs_no_attempt_and_a_dead_connection_does() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = open(&connection).await;
    declare_jobs(&channel, "q").await;
    let one_try = table(&[("x-attempts", AMQPValue::LongInt(1))]);
    publish(&channel, "q", durable("a").with_headers(one_try), b"x").await;
    let first = server.connect().await;
    let mut jobs = consume(&open(&first).await, "q", false).await;
    assert_eq!(attempt(&next(&mut jobs).await), 1);
    first.close(200, "bye").await.unwrap();
    let second = server.connect().await;
    let worker = open(&second).await;
    let mut jobs = consume(&worker, "q", false).await;
    assert_eq!(attempt(&next(&mut jobs).await), 1);
    worker.close(200, "bye").await.unwrap();
    let (address, passing) = proxy(server.address()).await;
    let third = TestServer::connect_to(address, "guest:guest").await.unwrap();
    let mut jobs = consume(&open(&third).await, "q", false).await;
    assert_eq!(attempt(&next(&mut jobs).await), 1);
    passing.abort();
    let lost = settled(&server, "a").await;
    assert_eq!((lost.state, lost.attempt), (State::Failed, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_is_tried_again_later_and_a_reject_never() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = open(&connection).await;
    declare_jobs(&channel, "q").await;
    publish(&channel, "q", durable("a"), b"x").await;
    let mut jobs = consume(&channel, "q", false).await;
    let job = next(&mut jobs).await;
    let again = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    job.nack(again).await.unwrap();
    let job = next(&mut jobs).await;
    assert_eq!((attempt(&job), job.redelivered), (2, true));
    assert_eq!(view(&server, "a").await.state, State::Running);
    job.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    assert_eq!(settled(&server, "a").await.state, State::Failed);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_outlives_a_restart() {
    let server = TestServer::start().await;
    let connection = server.connect().await;
    let channel = open(&connection).await;
    declare_jobs(&channel, "q").await;
    let delay = |ms| durable("a").with_headers(table(&[("x-delay", AMQPValue::LongInt(ms))]));
    publish(&channel, "q", delay(1_500), b"x").await;
    let far = AMQPValue::Timestamp(32_503_680_000);
    publish(&channel, "q", durable("b").with_headers(table(&[("x-at", far)])), b"y").await;
    let due = view(&server, "a").await.at.unwrap();
    assert_eq!(view(&server, "b").await.state, State::Scheduled);
    connection.close(200, "bye").await.unwrap();
    let server = TestServer::start_on(server.stop().await, &[]).await;
    assert_eq!(view(&server, "b").await.state, State::Scheduled);
    let connection = server.connect().await;
    let mut jobs = consume(&open(&connection).await, "q", false).await;
    let job = next(&mut jobs).await;
    assert_eq!(job.data, b"x");
    assert!(due <= server.node().now(), "it came before its time");
    server.stop().await;
}
