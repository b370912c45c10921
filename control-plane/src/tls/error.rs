//! Why TLS cannot be spoken as the options say.

use std::path::PathBuf;

/// What is wrong with a file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("cannot read {path}, which {option} names: {reason}")]
    File {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// There is no certificate in it, or one that is broken.
    #[error(
        "{path}, which {option} names, does not hold certificates in PEM (`-----BEGIN CERTIFICATE-----`): {reason}"
    )]
    Certificate {
        /// The option.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no key in it that can be used. What the file holds is not repeated: it may be the key.
    #[error(
        "{path}, which --tls-key names, does not hold an unencrypted private key in PEM that fits TLS (PKCS#8, RSA or EC)"
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// They do not belong together.
    #[error(
        "the key in {key} is not that of the first certificate in {certificate}: name the two files of one pair, the server's certificate before those of its issuers"
    )]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// No client would take it.
    #[error("the certificate in {path}, which --tls-cert names, has expired: renew it")]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// No client would take it yet.
    #[error(
        "the certificate in {path}, which --tls-cert names, is not valid yet: it is used as soon as it is, if the clocks are right"
    )]
    TooEarly {
        /// The file.
        path: PathBuf,
    },
    /// This replica could not know who leads.
    #[error(
        "with --store and TLS, replicas pass requests on to the one that leads and must know it by its certificate: name the CA of their certificates with --tls-replica-ca FILE"
    )]
    NoReplicaCa,
    /// rustls takes no part in it.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}
