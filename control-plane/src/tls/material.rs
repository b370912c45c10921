//! What the files of the options hold, and what rustls makes of it.

use super::certificate::Facts;
use super::client::client_config;
use super::error::TlsError;
use super::provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A connection speaks HTTP/1.1 and nothing else.
const ALPN: &[u8] = b"http/1.1";

/// Files of the options.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) replica_ca: Option<PathBuf>,
}

/// What they hold at a moment.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    replica_ca: Option<Vec<u8>>,
}

/// What connections are made with.
#[derive(Debug)]
pub(super) struct Material {
    /// For those who connect.
    pub(super) server: Arc<ServerConfig>,
    /// Whom to believe of them, if anybody.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// For connections to other replicas, if there may be any.
    pub(super) to_replicas: Option<Arc<ClientConfig>>,
    /// Of the server's certificate.
    pub(super) facts: Facts,
    /// Of the files.
    digest: [u8; 32],
}

// === impl Files ===

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        let ca = |option, path: &Option<PathBuf>| {
            let path = path.as_deref();
            path.map(|path| read(option, path)).transpose()
        };
        Ok(Contents {
            certificate: read("--tls-cert", &self.certificate)?,
            key: read("--tls-key", &self.key)?,
            client_ca: ca("--tls-client-ca", &self.client_ca)?,
            replica_ca: ca("--tls-replica-ca", &self.replica_ca)?,
        })
    }
}

// === impl Contents ===

impl Contents {
    fn digest(&self) -> [u8; 32] {
        let files = [
            Some(&self.certificate),
            Some(&self.key),
            self.client_ca.as_ref(),
            self.replica_ca.as_ref(),
        ];
        let mut digest = Sha256::new();
        for file in files.into_iter().flatten() {
            digest.update(Sha256::digest(file));
        }
        digest.finalize().into()
    }
}

// === impl Material ===

impl Material {
    pub(super) fn read(files: &Files) -> Result<Self, TlsError> {
        Self::new(files, &files.read()?)
    }

    /// Reads the files anew; `None` if they hold the same.
    pub(super) fn read_again(&self, files: &Files) -> Result<Option<Self>, TlsError> {
        let contents = files.read()?;
        if contents.digest() == self.digest {
            return Ok(None);
        }
        Self::new(files, &contents).map(Some)
    }

    fn new(files: &Files, contents: &Contents) -> Result<Self, TlsError> {
        let chain = certificates("--tls-cert", &files.certificate, &contents.certificate)?;
        let not_one = || TlsError::Certificate {
            option: "--tls-cert",
            path: files.certificate.clone(),
            reason: "the first one cannot be read".to_owned(),
        };
        let facts = chain.first().and_then(Facts::of).ok_or_else(not_one)?;
        if facts.expires_in().is_zero() {
            let path = files.certificate.clone();
            return Err(TlsError::Expired { path });
        }
        if !facts.has_begun() {
            let path = files.certificate.clone();
            return Err(TlsError::TooEarly { path });
        }
        let no_key = || TlsError::Key {
            path: files.key.clone(),
        };
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| no_key())?;
        let clients = match (&files.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => Some(client_verifier(path, pem)?),
            _ => None,
        };
        let to_replicas = match (&files.replica_ca, &contents.replica_ca) {
            (Some(path), Some(pem)) => Some(client_config("--tls-replica-ca", path, pem)?),
            _ => None,
        };
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let pair = |error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Pair {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            },
            rustls::Error::InvalidCertificate(_) => not_one(),
            _ => no_key(),
        };
        let mut server = builder.with_single_cert(chain, key).map_err(pair)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A session that is taken up again is not verified again: a certificate that has expired meanwhile would go on.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            server: Arc::new(server),
            clients,
            to_replicas,
            facts,
            digest: contents.digest(),
        })
    }
}

/// Certificates of a CA.
pub(super) fn roots(
    option: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(option, path, pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| bad(option, path, error.to_string()))?;
    }
    Ok(roots)
}

/// Reads a file that an option names.
pub(super) fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|reason| TlsError::File {
        option,
        path: path.to_owned(),
        reason,
    })
}

/// Clients may show no certificate: people have tokens, and probes have nothing.
fn client_verifier(path: &Path, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = roots("--tls-client-ca", path, pem)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))
}

fn certificates(
    option: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        // Its own message may quote the file, which is the key's if the options are mixed up.
        .map_err(|_| bad(option, path, "a block of it is broken".to_owned()))?;
    if certificates.is_empty() {
        return Err(bad(option, path, "there is none in it".to_owned()));
    }
    Ok(certificates)
}

fn bad(option: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::Certificate {
        option,
        path: path.to_owned(),
        reason,
    }
}
