//! The other end: connections to a server that speaks TLS, from the command line and from one replica to another.
//!
//! No certificate is shown. People have tokens, and for a replica's own word there is a better way (`vouch`): if the certificate
//! of a replica were also one of a gateway, whatever it passed on would come from that gateway.

use super::error::TlsError;
use super::material::{read, roots};
use super::provider;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to servers whose certificates are of one CA.
#[derive(Clone)]
pub(crate) struct Connector(Arc<ClientConfig>);

// === impl Connector ===

impl Connector {
    /// Reads the certificates of the CA.
    pub(crate) fn new(option: &'static str, ca: &Path) -> Result<Self, TlsError> {
        client_config(option, ca, &read(option, ca)?).map(Self)
    }

    pub(super) fn of(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    /// Speaks TLS with the server at HOST:PORT, whose certificate must be that of the host.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        authority: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host(authority).to_owned())
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        TlsConnector::from(Arc::clone(&self.0))
            .connect(name, stream)
            .await
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Connector(..)")
    }
}

pub(super) fn client_config(
    option: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .with_root_certificates(roots(option, path, pem)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Without port, and without the brackets of an IPv6 address.
fn host(authority: &str) -> &str {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}
