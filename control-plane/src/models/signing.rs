//! Ed25519 signatures of model releases, with a key file that may live on another machine.

use super::{from_hex, hex};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use forebay_wire::model::ModelStatement;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A signing key, read from a file of 64 hexadecimal digits.
#[derive(Clone)]
pub struct SigningKeyFile {
    key: SigningKey,
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("cannot use the key file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// It does not hold a key.
    #[error(
        "the key file {path} does not hold 64 hexadecimal digits: make one with `forebay model keygen --out FILE`"
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

// === impl SigningKeyFile ===

impl SigningKeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// When there is none, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|reason| KeyError::File {
            path: path.to_owned(),
            reason,
        })?;
        let seed = from_hex::<32>(text.trim()).ok_or_else(|| KeyError::Format {
            path: path.to_owned(),
        })?;
        Ok(Self {
            key: SigningKey::from_bytes(&seed),
        })
    }

    /// The public half, which gateways are configured with.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }
}

impl std::fmt::Debug for SigningKeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeyFile(public {})", public_key_hex(self))
    }
}

/// The public key in hexadecimal digits.
#[must_use]
pub fn public_key_hex(key: &SigningKeyFile) -> String {
    hex(&key.public_key())
}

/// Signs a statement.
#[must_use]
pub fn sign(key: &SigningKeyFile, statement: &ModelStatement) -> [u8; 64] {
    key.key.sign(&statement.to_bytes()).to_bytes()
}

/// Whether the signature of a statement is by the owner of this public key.
#[must_use]
pub fn verify(public_key: &[u8; 32], statement: &ModelStatement, signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public_key) else {
        return false;
    };
    key.verify_strict(&statement.to_bytes(), &Signature::from_bytes(signature))
        .is_ok()
}

/// Makes a new key file, readable by its owner only. Never overwrites one.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn generate_key(path: &Path) -> Result<SigningKeyFile, KeyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| KeyError::Random(error.to_string()))?;
    let failed = |reason| KeyError::File {
        path: path.to_owned(),
        reason,
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    writeln!(file, "{}", hex(&seed))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    SigningKeyFile::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::model::ReleaseKind;

    #[test]
    fn a_signature_is_for_one_digest_epoch_and_kind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let key = generate_key(&path).unwrap();
        assert!(
            generate_key(&path).is_err(),
            "a key file is never overwritten"
        );
        let statement = ModelStatement {
            digest: [3; 32],
            epoch: 7,
            kind: ReleaseKind::Release,
        };
        let signature = sign(&key, &statement);
        assert!(verify(&key.public_key(), &statement, &signature));
        for other in [
            ModelStatement {
                epoch: 8,
                ..statement
            },
            ModelStatement {
                digest: [4; 32],
                ..statement
            },
            ModelStatement {
                kind: ReleaseKind::RollBack,
                ..statement
            },
        ] {
            assert!(!verify(&key.public_key(), &other, &signature));
        }
        assert!(!format!("{key:?}").contains(std::fs::read_to_string(&path).unwrap().trim()));
    }
}
