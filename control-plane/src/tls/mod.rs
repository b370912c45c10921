//! TLS of the listener: certificates of the server and of gateways, which are read again when they change.
//!
//! A gateway that shows a certificate with the right name needs no token, and a name can bind the one gateway id that it may sync as: then
//! a gateway that was taken over speaks for itself and for no other. A proxy in front was the worse alternative for that: it
//! would say in a header whose certificate it has seen, and whoever reaches the server around it could say the same.

mod certificate;
mod client;
mod error;
mod material;
mod name;
mod options;
mod peer;
mod vouch;

pub(crate) use client::Connector;
pub use error::TlsError;
pub use name::{BadPattern, GatewayName, NamePattern};
pub use options::TlsOptions;
pub use peer::Certified;

use crate::error::ApiError;
use axum::extract::Request;
use material::{Files, Material};
use peer::Peer;
use rustls::crypto::{CryptoProvider, ring};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vouch::Voucher;

/// How long a client may take until TLS is spoken.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How often the files are looked at. They are read and compared, because neither a time stamp nor a signal is to be relied on: secrets
/// of Kubernetes change by a symbolic link, and nobody signals.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a certificate is believed until it is verified again: of its issuers one may expire before it does.
const VERIFY_EVERY: Duration = Duration::from_secs(60);

/// What speaks TLS.
pub struct Tls {
    files: Files,
    patterns: Vec<NamePattern>,
    voucher: Voucher,
    material: watch::Sender<Arc<Material>>,
    reload_failures: AtomicU64,
    failed_handshakes: AtomicU64,
}

/// A connection that speaks TLS, and who is at its other end.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) certified: Option<Certified>,
    pub(crate) welcome: Welcome,
}

/// How long the other end's certificate is good.
pub(crate) struct Welcome {
    peer: Option<Peer>,
    material: watch::Receiver<Arc<Material>>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files; `None` if the options ask for no TLS.
    ///
    /// # Errors
    /// When something in the files cannot be used.
    pub fn new(
        options: &TlsOptions,
        admin_token: &str,
        is_replica: bool,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else {
            return Ok(None);
        };
        if is_replica && options.tls_replica_ca.is_none() {
            return Err(TlsError::NoReplicaCa);
        }
        let files = Files {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: options.tls_client_ca.clone(),
            replica_ca: options.tls_replica_ca.clone(),
        };
        let material = Material::read(&files)?;
        Ok(Some(Arc::new(Self {
            files,
            patterns: options.tls_gateway_name.clone(),
            voucher: Voucher::new(admin_token),
            material: watch::Sender::new(Arc::new(material)),
            reload_failures: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
        })))
    }

    /// Looks for new files for ever. New connections use them; what cannot be used is logged, and the last good files stay.
    pub(crate) async fn watch_files(self: Arc<Self>) {
        let mut complaint = String::new();
        loop {
            sleep(LOOK_EVERY).await;
            let (files, in_force) = (self.files.clone(), self.material.borrow().clone());
            match spawn_blocking(move || in_force.read_again(&files)).await {
                Ok(Ok(None)) => complaint.clear(),
                Ok(Ok(Some(material))) => {
                    self.put_in_force(material);
                    complaint.clear();
                }
                Ok(Err(error)) => self.complain(&error, &mut complaint),
                Err(error) if error.is_cancelled() => return,
                Err(error) => tracing::error!(%error, "the files of TLS cannot be looked at"),
            }
        }
    }

    fn put_in_force(&self, material: Material) {
        let expires_in_s = material.facts.expires_in().as_secs();
        tracing::info!(expires_in_s, "the files of TLS are in force");
        self.material.send_replace(Arc::new(material));
    }

    /// Once for each reason, but counted each time: what grows is broken still.
    fn complain(&self, error: &TlsError, complaint: &mut String) {
        self.reload_failures.fetch_add(1, Ordering::Relaxed);
        let text = error.to_string();
        if *complaint != text {
            tracing::error!("{text}; the files before that stay in force");
            *complaint = text;
        }
    }

    /// Speaks TLS with whoever has connected; `None` if it does not, or too slowly. That is counted and not written down: anybody
    /// could fill the disk with it.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<Accepted> {
        let material = self.material.subscribe();
        let acceptor = TlsAcceptor::from(Arc::clone(&material.borrow().server));
        let stream = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await;
        let Ok(Ok(stream)) = stream else {
            self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let peer = Peer::new(stream.get_ref().1.peer_certificates());
        Some(Accepted {
            certified: peer.as_ref().map(|peer| peer.certified(&self.patterns)),
            welcome: Welcome { peer, material },
            stream,
        })
    }

    /// For connections to other replicas.
    pub(crate) fn to_replicas(&self) -> Option<Connector> {
        let material = self.material.borrow();
        material.to_replicas.clone().map(Connector::of)
    }

    /// Says to the leader, with a request that is passed on to it, what is known of the client here.
    pub(crate) fn vouch(&self, request: &mut Request) {
        self.voucher.vouch(request);
    }

    /// Believes what the replica says that has passed a request on.
    ///
    /// # Errors
    /// When it was none of ours.
    pub(crate) fn believe(&self, request: &mut Request) -> Result<(), ApiError> {
        self.voucher.believe(request)
    }

    /// When the server's certificate expires, seconds since 1970.
    #[must_use]
    pub fn expires_unix_s(&self) -> u64 {
        self.material.borrow().facts.expires_unix_s
    }

    /// How many clients have not come to speak TLS: with a certificate that is not believed, not in time, or not at all.
    #[must_use]
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    /// How often the files were looked at and could not be used.
    #[must_use]
    pub fn reload_failures(&self) -> u64 {
        self.reload_failures.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls(..)")
    }
}

// === impl Welcome ===

impl Welcome {
    /// Returns when the certificate of the other end is no longer good: it has expired, or its CA is no longer there. Never for
    /// whoever has shown none.
    pub(crate) async fn is_over(&mut self) {
        let Some(peer) = &self.peer else {
            return std::future::pending().await;
        };
        loop {
            let verifier = self.material.borrow_and_update().clients.clone();
            if !verifier.is_some_and(|verifier| peer.is_good(verifier.as_ref())) {
                return;
            }
            // A second more than it is good, which is told in whole ones.
            let good_for = peer.expires_in().saturating_add(Duration::from_secs(1));
            tokio::select! {
                () = sleep(good_for.min(VERIFY_EVERY)) => {}
                // The server ends, and its connections by themselves.
                changed = self.material.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Of the two that rustls knows, the one that the workspace has already.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
