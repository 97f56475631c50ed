//! From the first octet to an open virtual host, and what does not get so far.

use crate::{harness::TestServer, script};
use lapin::ErrorKind;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const OPEN: &str = include_str!("scripts/open.txt");

#[tokio::test(flavor = "multi_thread")]
async fn a_client_opens_a_channel_and_says_goodbye() {
    let server = TestServer::start().await;
    server.play(&format!("{OPEN}\n{}", include_str!("scripts/goodbye.txt"))).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_arrives_in_single_octets() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for octet in b"AMQP\x00\x00\x09\x01" {
        socket.write_all(&[*octet]).await.unwrap();
    }
    script::play(&mut socket, "expect 0 10.10").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    let server = TestServer::start().await;
    server.play(include_str!("scripts/wrong_password.txt")).await;
    let error = server.connect_as("guest:wrong").await.unwrap_err();
    let ErrorKind::ProtocolError(error) = error.kind() else { panic!("{error}") };
    let expected = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
         details see the broker logfile.";
    assert_eq!((error.get_id(), error.get_message().as_str()), (403, expected));
    let error = server.connect_as("nobody:guest").await.unwrap_err();
    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_virtual_host_is_refused() {
    let server = TestServer::start().await;
    server.play(include_str!("scripts/unknown_vhost.txt")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_answered_by_our_header() {
    let server = TestServer::start().await;
    server.play(include_str!("scripts/http.txt")).await;
    server.play(include_str!("scripts/amqp_1_0.txt")).await;
    server.play(include_str!("scripts/tls.txt")).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_is_disconnected_without_a_frame() {
    let server = TestServer::start_with(&[("handshake_timeout", "300ms")]).await;
    server.play("expect-close").await;
    server.play("send-raw \"AMQP\\x00\\x00\\x09\\x01\"\nexpect 0 10.10\nexpect-close").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_closed_and_the_next_one_after_an_end_is_served() {
    let server = TestServer::start_with(&[("limits.connections", "1")]).await;
    let mut first = TcpStream::connect(server.address()).await.unwrap();
    script::play(&mut first, OPEN).await;
    server.play("expect-close").await;
    script::play(&mut first, include_str!("scripts/goodbye.txt")).await;
    drop(first);
    // The end of the first is noticed by the server in its own time.
    while server.connect_as("guest:guest").await.is_err() {}
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_changes_what_is_announced() {
    for (identity, product) in [("ferrymq", "FerryMQ"), ("rabbitmq", "RabbitMQ")] {
        let server = TestServer::start_with(&[("compat.identity", identity)]).await;
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
        let mut start = vec![0; 512];
        let count = tokio::io::AsyncReadExt::read(&mut socket, &mut start).await.unwrap();
        let start = String::from_utf8_lossy(&start[..count]).into_owned();
        assert!(start.contains(product), "{start}");
        server.stop().await;
    }
}
