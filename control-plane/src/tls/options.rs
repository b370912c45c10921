//! Options of `forebay serve` that are about TLS. What contradicts itself is refused by clap, before anything is opened.

use super::NamePattern;
use clap::Args;
use std::path::PathBuf;

/// TLS: none of these, or at least certificate and key.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsOptions {
    /// Speak TLS with the certificates of this file, in PEM: the server's, then those of its issuers. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CA certificates, in PEM, that certificates of gateways are verified against
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_gateway_name"])]
    pub tls_client_ca: Option<PathBuf>,
    /// Whose certificates are those of gateways, which then need no token: spiffe://example.org/ns/*/sa/gateway, where `*` is any
    /// one segment and `{gateway}` one that must be the gateway's id. May be given several times
    #[arg(long, value_name = "PATTERN", requires = "tls_client_ca")]
    pub tls_gateway_name: Vec<NamePattern>,
    /// CA certificates, in PEM, that certificates of other replicas are verified against
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        conflicts_with = "data"
    )]
    pub tls_replica_ca: Option<PathBuf>,
}
