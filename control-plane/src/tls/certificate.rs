//! What is read from certificates that rustls has verified, or that are our own: names, and until when they are good.
//!
//! rustls-webpki hands out neither the end of validity nor names that it cannot read, and a name that is passed over silently would
//! make a certificate with two names one with a single one.

use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What is needed of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its URIs among the subject's alternative names.
    pub(super) uris: Vec<String>,
    /// The beginning of its validity, seconds since 1970.
    pub(super) begins_unix_s: u64,
    /// The end of it.
    pub(super) expires_unix_s: u64,
}

// === impl Facts ===

impl Facts {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let certificate = certificate.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>().ok()?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let uris = names.into_iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        });
        let validity = certificate.validity();
        Some(Self {
            uris: uris.collect(),
            begins_unix_s: validity.not_before.to_unix_duration().as_secs(),
            expires_unix_s: validity.not_after.to_unix_duration().as_secs(),
        })
    }

    /// Whether it is good by now. One that is made ahead of its time must not take the place of one that is.
    pub(super) fn has_begun(&self) -> bool {
        let begins = UNIX_EPOCH.checked_add(Duration::from_secs(self.begins_unix_s));
        begins.is_some_and(|begins| begins <= SystemTime::now())
    }

    /// How long it is still good; nothing if it is no longer.
    pub(super) fn expires_in(&self) -> Duration {
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_unix_s));
        expires
            .and_then(|expires| expires.duration_since(SystemTime::now()).ok())
            .unwrap_or_default()
    }
}
