//! Certificates: read from PEM files, read again on demand, and the user that a client's names.

use crate::config::{ClientVerify, Config, LoginFrom};
use model::{Name, limits};
use parking_lot::RwLock;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};
use x509_cert::{
    Certificate,
    der::{
        Decode as _,
        asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// Octets of a PEM file that are read at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be set up: the key of the configuration, the file and the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {path}: {problem}")]
pub struct TlsError {
    pub key: &'static str,
    pub path: String,
    pub problem: String,
}

impl TlsError {
    fn new(key: &'static str, path: &Path, problem: impl ToString) -> Self {
        Self { key, path: path.display().to_string(), problem: problem.to_string() }
    }
}

/// The files that a server's TLS is made of.
#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_verify: ClientVerify,
}

/// TLS of one server, as of the last time its files were read.
pub(crate) struct Tls {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// `None` when no listener is configured for it.
    pub(crate) fn open(config: &Config) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else {
            return Ok(None);
        };
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: config.tls_client_ca.clone(),
            client_verify: config.tls_client_verify,
        };
        let current = RwLock::new(files.read()?);
        Ok(Some(Self { files, current }))
    }

    /// Reads the files again. Connections that exist keep what they have.
    ///
    /// # Errors
    /// The first problem; everything stays as it was.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let next = self.files.read()?;
        *self.current.write() = next;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read()))
    }
}

impl Files {
    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates("tls.certificate", &self.certificate)?;
        let key = private_key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| TlsError::new("tls.certificate", &self.certificate, error))?;
        let builder = match self.verifier(&provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let problem = format!("the key does not belong to {}", self.certificate.display());
                TlsError::new("tls.key", &self.key, problem)
            }
            error => TlsError::new("tls.certificate", &self.certificate, error),
        })?;
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (Some(path), ClientVerify::Optional | ClientVerify::Required) =
            (&self.client_ca, self.client_verify)
        else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("tls.client_ca", path)? {
            let added = roots.add(certificate);
            added.map_err(|error| TlsError::new("tls.client_ca", path, error))?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = match self.client_verify {
            ClientVerify::Optional => builder.allow_unauthenticated(),
            _ => builder,
        };
        let verifier = builder.build();
        verifier.map(Some).map_err(|error| TlsError::new("tls.client_ca", path, error))
    }
}

fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let problem = |error: std::io::Error| TlsError::new(key, path, error);
    if FILE_BYTES_MAX < std::fs::metadata(path).map_err(problem)?.len() {
        return Err(TlsError::new(key, path, "the file is larger than 1 MiB"));
    }
    std::fs::read(path).map_err(problem)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let octets = read_file(key, path)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&octets).collect();
    let chain = chain.map_err(|error| TlsError::new(key, path, error))?;
    if chain.is_empty() {
        return Err(TlsError::new(key, path, "there is no certificate in the file"));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let octets = read_file("tls.key", path)?;
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            TlsError::new("tls.key", path, "there is no private key in the file")
        }
        error => TlsError::new("tls.key", path, error),
    })
}

/// The user that a client's certificate, already checked, names. `None` when it names none that a
/// user could have.
pub(crate) fn login_name(certificate: &CertificateDer<'_>, from: LoginFrom) -> Option<Name> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let name = match from {
        LoginFrom::First => alternative_name(&certificate).or_else(|| common_name(&certificate)),
        LoginFrom::SubjectAlternativeName => alternative_name(&certificate),
        LoginFrom::CommonName => common_name(&certificate),
    }?;
    let fits = !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX;
    fits.then(|| Name::from(name))
}

/// The first host name, mail address or URI.
fn alternative_name(certificate: &Certificate) -> Option<String> {
    let (_, names) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
    names.0.iter().find_map(|it| match it {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::Rfc822Name(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        _ => None,
    })
}

/// The last common name of the subject, which is the most specific one.
fn common_name(certificate: &Certificate) -> Option<String> {
    let parts = certificate.tbs_certificate.subject.0.iter();
    let mut attributes = parts.flat_map(|it| it.0.iter());
    let attribute = attributes.rfind(|it| it.oid == COMMON_NAME)?;
    let value = &attribute.value;
    let text = (value.decode_as::<Utf8StringRef<'_>>().map(|it| it.as_str().to_owned()))
        .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|it| it.as_str().to_owned()))
        .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|it| it.as_str().to_owned()))
        .or_else(|_| value.decode_as::<TeletexStringRef<'_>>().map(|it| it.as_str().to_owned()));
    text.ok()
}

const COMMON_NAME: x509_cert::der::oid::ObjectIdentifier =
    x509_cert::der::oid::ObjectIdentifier::new_unwrap("2.5.4.3");
