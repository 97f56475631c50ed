//! The end of a server, as its clients see it.

use crate::{harness::TestServer, script};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const OPEN: &str = include_str!("scripts/open.txt");
const FORCED: &str = "expect 0 10.50 320 CONNECTION_FORCED";

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_that_the_server_stops() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    script::play(&mut socket, OPEN).await;
    let told = tokio::spawn(async move {
        script::play(&mut socket, &format!("{FORCED}\nsend 0 10.51\nexpect-close")).await;
    });
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "nobody had to be waited for");
    told.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_is_not_waited_for_long() {
    let server = TestServer::start_with(&[("shutdown.timeout", "200ms")]).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    script::play(&mut socket, OPEN).await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8));
    script::play(&mut socket, &format!("{FORCED}\nexpect-close")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_not_logged_in_is_cut_off() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    script::play(&mut socket, "send-raw \"AMQP\\x00\\x00\\x09\\x01\"\nexpect 0 10.10").await;
    let address = server.address();
    server.stop().await;
    script::play(&mut socket, "expect-close").await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_waits_for_nobody() {
    let server = TestServer::start_with(&[("shutdown.timeout", "600s")]).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    script::play(&mut socket, OPEN).await;
    server.server.hurrier()();
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "the client has not answered");
}
