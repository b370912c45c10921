//! Certificates of tests, and clients that show them.

#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOUR: Duration = Duration::from_secs(3_600);

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a certificate is to be.
#[derive(Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) begins: SystemTime,
    pub(crate) ends: SystemTime,
    pub(crate) is_ca: bool,
    /// Also good for the host 127.0.0.1.
    pub(crate) is_on_loopback: bool,
}

/// A folder with the files that a server is started with.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

/// An HTTP client on a connection that it keeps.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

// === impl Ca ===

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(&self, wanted: &Wanted<'_>) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params(wanted).signed_by(&key, &self.0).unwrap();
        Pair::new(certificate.pem(), &key)
    }

    /// Of a server on the loopback.
    pub(crate) fn server(&self) -> Pair {
        self.issue(&Wanted::server())
    }

    /// Of a client with these URIs.
    pub(crate) fn client(&self, uris: &[&str]) -> Pair {
        self.issue(&Wanted::client(uris))
    }
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    pub(crate) fn client(uris: &'a [&'a str]) -> Self {
        let now = SystemTime::now();
        Self {
            uris,
            usage: ExtendedKeyUsagePurpose::ClientAuth,
            begins: now - HOUR,
            ends: now + HOUR,
            is_ca: false,
            is_on_loopback: false,
        }
    }

    pub(crate) fn server() -> Self {
        Self {
            usage: ExtendedKeyUsagePurpose::ServerAuth,
            is_on_loopback: true,
            ..Self::client(&[])
        }
    }
}

fn params(wanted: &Wanted<'_>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uris = wanted.uris.iter();
    params
        .subject_alt_names
        .extend(uris.map(|uri| SanType::URI((*uri).try_into().unwrap())));
    if wanted.is_on_loopback {
        let loopback = SanType::IpAddress([127, 0, 0, 1].into());
        params.subject_alt_names.push(loopback);
    }
    params.extended_key_usages = vec![wanted.usage.clone()];
    params.not_before = wanted.begins.into();
    params.not_after = wanted.ends.into();
    if wanted.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

// === impl Pair ===

impl Pair {
    fn new(certificate: String, key: &KeyPair) -> Self {
        let key = key.serialize_pem();
        Self { certificate, key }
    }

    /// One that no CA has signed.
    pub(crate) fn self_signed(wanted: &Wanted<'_>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(wanted).self_signed(&key).unwrap();
        Self::new(certificate.pem(), &key)
    }
}

// === impl Files ===

impl Files {
    pub(crate) fn new(server: &Pair, ca: &Ca) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { folder };
        files.put_server(server);
        files.put("ca.pem", &ca.pem());
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whole or not at all, as those do who take care.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub(crate) fn put_server(&self, server: &Pair) {
        self.put("server.pem", &server.certificate);
        self.put("server.key", &server.key);
    }

    /// Options of a server with TLS.
    pub(crate) fn server_options(&self) -> Vec<String> {
        self.options(&[("--tls-cert", "server.pem"), ("--tls-key", "server.key")])
    }

    /// The same for one that knows gateways by their names.
    pub(crate) fn options_with(&self, patterns: &[&str]) -> Vec<String> {
        let mut options = self.server_options();
        options.extend(self.options(&[("--tls-client-ca", "ca.pem")]));
        for pattern in patterns {
            options.extend(["--tls-gateway-name".to_owned(), (*pattern).to_owned()]);
        }
        options
    }

    pub(crate) fn options(&self, named: &[(&str, &str)]) -> Vec<String> {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let pairs = named.iter();
        pairs
            .flat_map(|(option, name)| [(*option).to_owned(), path(name)])
            .collect()
    }
}

/// What clients of one kind have in common, sessions included.
pub(crate) fn config(
    ca: &str,
    shown: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            config
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    };
    Arc::new(config)
}

/// Speaks TLS with a server on the loopback.
pub(crate) async fn connect(
    address: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

// === impl Client ===

impl Client {
    /// `None` if the server refuses to speak with it, which with TLS 1.3 may show with the first request.
    pub(crate) async fn connect(address: &str, ca: &str, shown: Option<&Pair>) -> Option<Self> {
        Self::connect_by(address, ca, shown, rustls::ALL_VERSIONS).await
    }

    pub(crate) async fn connect_by(
        address: &str,
        ca: &str,
        shown: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Option<Self> {
        let stream = connect(address, config(ca, shown, versions)).await.ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .ok()?;
        tokio::spawn(connection);
        Some(Self(sender))
    }

    /// Status and body; `None` if the server has closed the connection.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Option<(u16, Bytes)> {
        self.0.ready().await.ok()?;
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header("host", "127.0.0.1")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = self.0.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, body))
    }

    /// Whether the server still answers here.
    pub(crate) async fn is_answered(&mut self) -> bool {
        let answer = self.ask("GET", "/healthz", &[], Vec::new()).await;
        answer.is_some_and(|(status, _)| status == 200)
    }
}

/// Text of a file that does not change.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
