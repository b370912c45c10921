//! Whether a model may run at all, before a byte of it is fetched.
//!
//! A model is code by other means: it runs on Envoy's main thread and decides whose claims count. So what is signed is not the file
//! but the statement "from epoch N on, run the file with this digest": an old file with an old, true signature is refused, and going
//! back takes a new statement.

use ed25519_dalek::{Signature, VerifyingKey};
use forebay_wire::model::{ModelDigest, ModelStatement, ReleaseKind};
use forebay_wire::sync::ModelRelease;

/// A longer path is not one of our server's.
const PATH_BYTES_MOST: usize = 256;

/// What a model is offered for. A statement of one kind is none of the other: a challenger's must never put it in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its forecasts become claims.
    InForce,
    /// Its forecasts are compared with those of the one in force.
    Beside,
}

/// The public keys from the plugin's configuration.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<VerifyingKey>);

/// A release whose signature one of the trusted keys has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRelease {
    /// What was signed.
    pub statement: ModelStatement,
    /// Where the file is.
    pub path: String,
    /// Size of the file.
    pub bytes: u64,
}

/// Why a model is not run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A field does not have the shape that the protocol says.
    #[error(
        "the offered model's {field} is malformed; update the control plane or the plugin to the same version"
    )]
    Malformed {
        /// Which field.
        field: &'static str,
    },
    /// No key is configured.
    #[error(
        "no public key is configured; put the control plane's into model.public_keys of the forecaster's configuration"
    )]
    NoKey,
    /// None of the keys verifies the signature.
    #[error(
        "the signature of model epoch {epoch} is not by a key of model.public_keys; sign it with the right key"
    )]
    Signature {
        /// Epoch of the offer.
        epoch: u64,
    },
    /// The statement is not newer than the running one.
    #[error(
        "model epoch {offered} is not above epoch {floor}, which ran before; a roll-back needs a new signed statement"
    )]
    Stale {
        /// Epoch of the offer.
        offered: u64,
        /// Highest epoch that ran.
        floor: u64,
    },
    /// The file is too large for this gateway.
    #[error("the model has {bytes} bytes; this gateway takes {most} (model.max_bytes)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// The file could not be fetched.
    #[error("fetching the model was answered with status {status}; it will be tried again")]
    Fetch {
        /// HTTP status; 0 for no answer.
        status: u16,
    },
    /// The bytes are not the ones that were signed.
    #[error(
        "the fetched file is not the signed one: its SHA-256 differs; something between control plane and gateway changes it"
    )]
    Digest,
    /// The file was refused by the model loader.
    #[error(transparent)]
    Model(#[from] forebay_forecast::ModelError),
}

// === impl Role ===

impl Role {
    fn takes(self, kind: ReleaseKind) -> bool {
        (kind == ReleaseKind::Challenger) == (self == Self::Beside)
    }
}

// === impl TrustedKeys ===

impl TrustedKeys {
    /// Keys written as 64 hexadecimal digits. `None` when one of them is not a key.
    #[must_use]
    pub fn from_hex(keys: &[String]) -> Option<Self> {
        keys.iter()
            .map(|key| VerifyingKey::from_bytes(&bytes_of_hex(key)?).ok())
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// Whether any model can run here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn verifies(&self, statement: &ModelStatement, signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else {
            return false;
        };
        let bytes = statement.to_bytes();
        self.0
            .iter()
            .any(|key| key.verify_strict(&bytes, &signature).is_ok())
    }
}

// === impl SignedRelease ===

impl SignedRelease {
    /// Checks an offer from a sync reply.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(
        offer: &ModelRelease,
        role: Role,
        keys: &TrustedKeys,
        floor: u64,
        bytes_most: u32,
    ) -> Result<Self, Refusal> {
        if keys.is_empty() {
            return Err(Refusal::NoKey);
        }
        let digest: ModelDigest = offer
            .digest
            .as_slice()
            .try_into()
            .map_err(|_| Refusal::Malformed { field: "digest" })?;
        let kind = ReleaseKind::from_code(offer.kind)
            .filter(|kind| role.takes(*kind))
            .ok_or(Refusal::Malformed { field: "kind" })?;
        if !is_plain_path(&offer.path) {
            return Err(Refusal::Malformed { field: "path" });
        }
        if offer.epoch <= floor {
            return Err(Refusal::Stale {
                offered: offer.epoch,
                floor,
            });
        }
        if offer.bytes > u64::from(bytes_most) {
            return Err(Refusal::TooLarge {
                bytes: offer.bytes,
                most: u64::from(bytes_most),
            });
        }
        let statement = ModelStatement {
            digest,
            epoch: offer.epoch,
            kind,
        };
        if !keys.verifies(&statement, &offer.signature) {
            return Err(Refusal::Signature { epoch: offer.epoch });
        }
        Ok(Self {
            statement,
            path: offer.path.clone(),
            bytes: offer.bytes,
        })
    }
}

/// A path that cannot smuggle anything into the request that carries our token.
fn is_plain_path(path: &str) -> bool {
    path.len() <= PATH_BYTES_MOST
        && path.starts_with('/')
        && !path.starts_with("//")
        && path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte))
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 {
        return None;
    }
    for (place, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let (high, low) = (
            char::from(*pair.first()?).to_digit(16)?,
            char::from(*pair.get(1)?).to_digit(16)?,
        );
        *place = u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn trusted() -> TrustedKeys {
        let hex: String = key()
            .verifying_key()
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        TrustedKeys::from_hex(&[hex]).unwrap()
    }

    fn offer() -> ModelRelease {
        let statement = ModelStatement {
            digest: [1; 32],
            epoch: 5,
            kind: ReleaseKind::Release,
        };
        ModelRelease {
            epoch: 5,
            digest: vec![1; 32],
            kind: 1,
            signature: key().sign(&statement.to_bytes()).to_bytes().to_vec(),
            path: "/v1/models/01".to_owned(),
            bytes: 100,
        }
    }

    #[test]
    fn a_signed_release_is_taken() {
        let release = SignedRelease::verify(&offer(), Role::InForce, &trusted(), 4, 1_000).unwrap();
        assert_eq!(release.statement.epoch, 5);
    }

    #[test]
    fn a_signature_for_another_epoch_digest_or_kind_is_refused() {
        for changed in [
            ModelRelease {
                epoch: 6,
                ..offer()
            },
            ModelRelease {
                digest: vec![2; 32],
                ..offer()
            },
            ModelRelease { kind: 2, ..offer() },
            ModelRelease {
                signature: vec![0; 64],
                ..offer()
            },
            ModelRelease {
                signature: vec![],
                ..offer()
            },
        ] {
            let refusal =
                SignedRelease::verify(&changed, Role::InForce, &trusted(), 4, 1_000).unwrap_err();
            assert!(matches!(refusal, Refusal::Signature { .. }), "{refusal}");
        }
    }

    #[test]
    fn a_statement_for_one_role_is_none_for_the_other() {
        let statement = ModelStatement {
            digest: [1; 32],
            epoch: 5,
            kind: ReleaseKind::Challenger,
        };
        let challenger = ModelRelease {
            kind: 3,
            signature: key().sign(&statement.to_bytes()).to_bytes().to_vec(),
            ..offer()
        };
        assert!(SignedRelease::verify(&challenger, Role::Beside, &trusted(), 4, 1_000).is_ok());
        for (offer, role) in [(challenger, Role::InForce), (offer(), Role::Beside)] {
            let refusal = SignedRelease::verify(&offer, role, &trusted(), 4, 1_000).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed { field: "kind" }),
                "{role:?}: {refusal}"
            );
        }
    }

    #[test]
    fn an_older_statement_is_refused_even_if_it_was_signed_once() {
        let refusal =
            SignedRelease::verify(&offer(), Role::InForce, &trusted(), 5, 1_000).unwrap_err();
        assert!(matches!(
            refusal,
            Refusal::Stale {
                offered: 5,
                floor: 5
            }
        ));
    }

    #[test]
    fn a_path_that_could_leave_the_request_line_is_refused() {
        for path in [
            "",
            "v1",
            "//evil.example/x",
            "/a b",
            "/a\r\nx: y",
            "/a?b",
            "/ä",
        ] {
            let changed = ModelRelease {
                path: path.to_owned(),
                ..offer()
            };
            let refusal =
                SignedRelease::verify(&changed, Role::InForce, &trusted(), 4, 1_000).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Malformed { field: "path" }),
                "{path:?}: {refusal}"
            );
        }
    }

    #[test]
    fn without_a_key_no_model_runs() {
        let refusal =
            SignedRelease::verify(&offer(), Role::InForce, &TrustedKeys::default(), 0, 1_000)
                .unwrap_err();
        assert!(matches!(refusal, Refusal::NoKey));
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        assert!(TrustedKeys::from_hex(&["zz".repeat(32)]).is_none());
        assert!(TrustedKeys::from_hex(&["00".repeat(31)]).is_none());
    }
}
