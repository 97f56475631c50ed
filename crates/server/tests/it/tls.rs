//! TLS: the handshake, certificates of clients, and files read again.

use crate::{harness::TestServer, script};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use server::Service;
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version},
};

/// An authority and the folder with the files it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.sign("server", &["localhost"], "server");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, alternative_names: &[&str], common_name: &str) {
        let names: Vec<String> = alternative_names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    async fn start(&self, verify: &str) -> TestServer {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        let (certificate, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
        let mut flags = vec![
            ("listeners.tls", "127.0.0.1:0"),
            ("listeners.https", "127.0.0.1:0"),
            ("tls.certificate", &certificate),
            ("tls.key", &key),
        ];
        if verify != "none" {
            flags.extend([("tls.client_verify", verify), ("tls.client_ca", &*ca)]);
        }
        TestServer::start_with(&flags).await
    }

    async fn connect(
        &self,
        server: &TestServer,
        certificate: Option<&str>,
        with_13: bool,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.client(certificate, with_13);
        self.connect_to(server.tls_address(), config).await
    }

    fn client(&self, certificate: Option<&str>, with_13: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let versions = [if with_13 { &version::TLS13 } else { &version::TLS12 }];
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                builder.with_client_auth_cert(vec![chain.unwrap()], key.unwrap()).unwrap()
            }
        }
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }
}

const EXTERNAL: &str = "send-raw \"AMQP\\x00\\x00\\x09\\x01\"
expect 0 10.10
send 0 10.11 table short:EXTERNAL long: short:en_US
expect 0 10.30";

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_versions_open_a_channel() {
    let authority = Authority::new();
    let server = authority.start("none").await;
    for with_13 in [false, true] {
        let mut stream = authority.connect(&server, None, with_13).await.unwrap();
        script::play(&mut stream, include_str!("scripts/open.txt")).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_logs_its_user_in() {
    let authority = Authority::new();
    authority.sign("by_name", &["guest"], "nobody");
    authority.sign("by_common_name", &[], "guest");
    let server = authority.start("optional").await;
    for certificate in ["by_name", "by_common_name"] {
        let mut stream = authority.connect(&server, Some(certificate), true).await.unwrap();
        script::play(&mut stream, EXTERNAL).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_nobody_and_a_missing_one_do_not_log_in() {
    let authority = Authority::new();
    authority.sign("nobody", &[], "nobody");
    let server = authority.start("optional").await;
    let refused = EXTERNAL.replace("expect 0 10.30", "expect-close");
    for certificate in [Some("nobody"), None] {
        let mut stream = authority.connect(&server, certificate, true).await.unwrap();
        script::play(&mut stream, &refused).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demanded_certificate_must_be_of_the_authority() {
    let authority = Authority::new();
    authority.sign("client", &[], "guest");
    let stranger = Authority::new();
    stranger.sign("client", &[], "guest");
    std::fs::copy(stranger.path("client.pem"), authority.path("stranger.pem")).unwrap();
    std::fs::copy(stranger.path("client.key"), authority.path("stranger.key")).unwrap();
    let server = authority.start("required").await;
    let mut stream = authority.connect(&server, Some("client"), false).await.unwrap();
    script::play(&mut stream, EXTERNAL).await;
    for certificate in [Some("stranger"), None] {
        assert!(authority.connect(&server, certificate, false).await.is_err());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_read_again_and_bad_ones_change_nothing() {
    let authority = Authority::new();
    let server = authority.start("none").await;
    let shown = async || {
        let stream = authority.connect(&server, None, true).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let first = shown().await;
    authority.sign("server", &["localhost"], "server");
    assert_eq!(shown().await, first);
    server.server.reload_tls().unwrap();
    let second = shown().await;
    assert_ne!(second, first);
    std::fs::write(authority.path("server.pem"), "nothing").unwrap();
    let error = server.server.reload_tls().unwrap_err().to_string();
    assert!(error.contains("there is no certificate in the file"), "{error}");
    assert_eq!(shown().await, second);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_tls_is_disconnected() {
    let authority = Authority::new();
    let server = authority.start("none").await;
    let mut socket = TcpStream::connect(server.tls_address()).await.unwrap();
    let script = "send-raw \"AMQP\\x00\\x00\\x09\\x01\"\nexpect-close";
    script::play(&mut socket, script).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_spoken_over_tls_too() {
    let authority = Authority::new();
    let server = authority.start("none").await;
    let listening = server.server.listening();
    let address = listening.iter().find(|it| it.service == Service::HttpTls).unwrap().address;
    let client = authority.client(None, true);
    let mut stream = authority.connect_to(address, client).await.unwrap();
    let head = "GET /v1/jobs/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let login = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
    stream.write_all(format!("{head}{login}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("unknown-job"), "{answer}");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "nothing is answered in the clear");
    server.stop().await;
}
