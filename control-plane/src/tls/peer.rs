//! Who is at the other end of a connection.

use super::certificate::Facts;
use super::name::{GatewayName, NamePattern, find};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use std::time::Duration;

/// What the certificate of a client says, which was verified. It goes with each request of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certified {
    /// A gateway.
    Gateway(GatewayName),
    /// Somebody else; why it is no gateway, for people.
    Other(String),
}

/// A client that has shown a certificate.
#[derive(Debug)]
pub(super) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    facts: Option<Facts>,
}

// === impl Certified ===

impl Certified {
    fn by(facts: Option<&Facts>, patterns: &[NamePattern]) -> Self {
        let uris = facts.map_or(&[][..], |facts| facts.uris.as_slice());
        // An X.509-SVID has one. With two, which one counts would be a matter of luck.
        let [name] = uris else {
            return Self::Other(format!(
                "it has {} URIs among the subject's alternative names, and one is needed: a SPIFFE ID",
                uris.len()
            ));
        };
        if let Some(name) = find(patterns, name) {
            return Self::Gateway(name);
        }
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        Self::Other(format!(
            "its name is {}, and --tls-gateway-name admits {}",
            name.escape_debug(),
            patterns.join(" and ")
        ))
    }
}

// === impl Peer ===

impl Peer {
    /// Takes what a client has shown, if it has shown anything.
    pub(super) fn new(chain: Option<&[CertificateDer<'static>]>) -> Option<Self> {
        let chain = chain.filter(|chain| !chain.is_empty())?.to_vec();
        let facts = chain.first().and_then(Facts::of);
        Some(Self { chain, facts })
    }

    pub(super) fn certified(&self, patterns: &[NamePattern]) -> Certified {
        Certified::by(self.facts.as_ref(), patterns)
    }

    /// How long the certificate is still good.
    pub(super) fn expires_in(&self) -> Duration {
        self.facts
            .as_ref()
            .map(Facts::expires_in)
            .unwrap_or_default()
    }

    /// Whether it would be taken now.
    pub(super) fn is_good(&self, verifier: &dyn ClientCertVerifier) -> bool {
        let Some((certificate, issuers)) = self.chain.split_first() else {
            return false;
        };
        verifier
            .verify_client_cert(certificate, issuers, UnixTime::now())
            .is_ok()
    }
}
