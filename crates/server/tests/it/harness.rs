//! A server for one test, and clients for it.

use crate::script;
use lapin::{Connection, ConnectionProperties};
use node::Node;
use server::{
    Server, Service,
    config::{Config, KEYS, Sources, load},
    node_options,
};
use std::{net::SocketAddr, sync::Arc};
use tempfile::TempDir;
use tokio::net::TcpStream;

pub(crate) struct TestServer {
    pub(crate) server: Server,
    node: Arc<Node>,
    folder: TempDir,
}

impl TestServer {
    /// On an empty folder, with the defaults.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these keys set as flags would.
    pub(crate) async fn start_with(flags: &[(&str, &str)]) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), flags).await
    }

    pub(crate) async fn start_on(folder: TempDir, flags: &[(&str, &str)]) -> Self {
        let config = config(flags);
        let mut options = node_options(&config, folder.path());
        options.segment_bytes = Some(options.segment_bytes.unwrap_or(4 << 20));
        let node = tokio::task::spawn_blocking(|| Node::open(options)).await.unwrap().unwrap();
        let node = Arc::new(node);
        let server = Server::start(&config, Arc::clone(&node), None).unwrap();
        Self { server, node, folder }
    }

    /// The first address without TLS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.listening().iter().find(|it| it.service == Service::Amqp).unwrap().address
    }

    pub(crate) fn http_address(&self) -> SocketAddr {
        self.server.listening().iter().find(|it| it.service == Service::Http).unwrap().address
    }

    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.server.listening().iter().find(|it| it.service == Service::AmqpTls).unwrap().address
    }

    /// Plays a script on a new connection.
    pub(crate) async fn play(&self, script: &str) {
        let mut socket = TcpStream::connect(self.address()).await.unwrap();
        script::play(&mut socket, script).await;
    }

    /// The broker behind it.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.connect_as("guest:guest").await.unwrap()
    }

    pub(crate) async fn connect_as(&self, login: &str) -> lapin::Result<Connection> {
        Self::connect_to(self.address(), login).await
    }

    /// Connects through something that passes everything on.
    pub(crate) async fn connect_to(address: SocketAddr, login: &str) -> lapin::Result<Connection> {
        let uri = format!("amqp://{login}@{address}/%2f");
        let properties = ConnectionProperties::default()
            .with_executor(tokio_executor_trait::Tokio::current())
            .with_reactor(tokio_reactor_trait::Tokio::current());
        Connection::connect(&uri, properties).await
    }

    /// Stops in order; the folder remains.
    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await;
        let node = self.node;
        tokio::task::spawn_blocking(move || node.close()).await.unwrap().unwrap();
        self.folder
    }
}

fn config(flags: &[(&str, &str)]) -> Config {
    let key = |name: &str| KEYS.iter().find(|it| it.name == name).unwrap();
    let mut all = vec![(key("listeners.tcp"), vec!["127.0.0.1:0".to_owned()])];
    all.extend(flags.iter().map(|it| (key(it.0), vec![it.1.to_owned()])));
    load(&Sources { flags: all, ..Sources::default() }).unwrap().config
}
