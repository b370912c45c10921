//! The model registry: files by digest, releases by model epoch, the newest release runs.
//!
//! A release is a signed statement (file, epoch, kind). Epochs only grow, so a gateway that remembers the highest one it has
//! seen cannot be handed an old model, not even by this server. The server signs itself if it has the key; otherwise a
//! statement signed elsewhere is brought to it.

use super::audit::{Deed, Done};
use super::{Now, Plane};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::models::{MAX_MODEL_BYTES, Verdict, digest_of, from_hex, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::{ModelDigest, ModelStatement, ReleaseKind};
use forebay_wire::sync::ModelRelease;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files that are kept. The running one and those rolled back to are never dropped silently: uploading stops instead.
const MAX_MODELS: usize = 64;

/// How far an epoch may be above the running one. Enough for a clock in milliseconds; but one slip, or one statement that this
/// server cannot verify, must not use up all the epochs there are.
const MAX_EPOCH_LEAP: u64 = 1 << 42;

/// A model in the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelView {
    /// SHA-256 of the file.
    pub digest: String,
    /// Size of the file.
    pub bytes: u64,
    /// When it was uploaded.
    pub uploaded_at_unix_ms: u64,
    /// What the forecaster in the sandbox said of it.
    pub verdict: Verdict,
    /// Epoch under which it runs now, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_epoch: Option<u64>,
}

/// A signed release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// Model epoch.
    pub epoch: u64,
    /// SHA-256 of the file.
    pub digest: String,
    /// True if an older model was put back.
    pub roll_back: bool,
    /// Ed25519 signature, 128 hexadecimal digits.
    pub signature: String,
    /// When it was activated.
    pub activated_at_unix_ms: u64,
}

/// A wish to run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// SHA-256 of the file; `None`: the file that ran before the present one (roll-back only).
    pub digest: Option<ModelDigest>,
    /// Release or roll-back.
    pub kind: ReleaseKind,
    /// A statement signed elsewhere: its epoch and signature. `None`: the server signs.
    pub signed: Option<(u64, [u8; 64])>,
}

/// Who signs, or whose signatures count.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The server's own key, if it has one.
    pub key: Option<&'a crate::models::SigningKeyFile>,
    /// The public key that gateways trust.
    pub public_key: Option<[u8; 32]>,
}

/// Models and releases.
#[derive(Debug, Default)]
pub struct ModelBook {
    models: BTreeMap<ModelDigest, ModelView>,
    releases: BTreeMap<u64, Release>,
}

// === impl ReleaseRequest ===

impl ReleaseRequest {
    fn deed(&self, by: &Caller) -> Deed {
        let action = match self.kind {
            ReleaseKind::Release => "model.activate",
            ReleaseKind::RollBack => "model.rollback",
        };
        let object = self
            .digest
            .map_or("the model before".to_owned(), |digest| hex(&digest));
        Deed::new(by, action, object).with("signed_epoch", self.signed.map(|(epoch, _)| epoch))
    }
}

// === impl ModelBook ===

impl ModelBook {
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let mut book = Self::default();
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            what: "model",
            reason: error.to_string(),
        };
        store.visit(Table::Models, &mut |key, value| {
            let digest = key.try_into().map_err(|_| StoreError::Damaged {
                what: "model",
                reason: "its digest".to_owned(),
            })?;
            book.models
                .insert(digest, serde_json::from_slice(value).map_err(damaged)?);
            Ok(())
        })?;
        store.visit(Table::Releases, &mut |_, value| {
            let release: Release = serde_json::from_slice(value).map_err(damaged)?;
            book.releases.insert(release.epoch, release);
            Ok(())
        })?;
        Ok(book)
    }

    /// The release that gateways should run.
    #[must_use]
    pub fn active(&self) -> Option<&Release> {
        self.releases.values().next_back()
    }

    /// The same, as it goes to gateways.
    #[must_use]
    pub fn release(&self) -> Option<ModelRelease> {
        let release = self.active()?;
        let digest = from_hex::<32>(&release.digest)?;
        let kind = if release.roll_back {
            ReleaseKind::RollBack
        } else {
            ReleaseKind::Release
        };
        Some(ModelRelease {
            epoch: release.epoch,
            digest: digest.to_vec(),
            kind: u32::from(kind.code()),
            signature: from_hex::<64>(&release.signature)?.to_vec(),
            path: format!("/v1/models/{}", release.digest),
            bytes: self.models.get(&digest)?.bytes,
        })
    }

    /// The file that ran before the present one.
    fn before(&self) -> Option<ModelDigest> {
        let active = self.active()?;
        let before = self
            .releases
            .values()
            .rev()
            .find(|release| release.digest != active.digest)?;
        from_hex(&before.digest)
    }

    fn next_epoch(&self) -> u64 {
        self.active()
            .map_or(0, |release| release.epoch)
            .saturating_add(1)
    }

    fn statement(&self, request: &ReleaseRequest) -> Result<ModelStatement, ApiError> {
        let digest = request.digest.or_else(|| self.before()).ok_or_else(|| {
            let hint = "name the digest of the model to run; `forebay model list` shows them";
            ApiError::conflict(
                "nothing_to_roll_back_to",
                "no other model ran before the present one",
                hint,
            )
        })?;
        if !self.models.contains_key(&digest) {
            let message = format!("there is no model {}", hex(&digest));
            return Err(ApiError::not_found(
                "no_such_model",
                message,
                "upload it first: `forebay model upload FILE`",
            )
            .at("digest"));
        }
        let ran_before = self
            .releases
            .values()
            .any(|release| release.digest == hex(&digest));
        if request.kind == ReleaseKind::RollBack && !ran_before {
            let message = format!(
                "model {} never ran, so it cannot be rolled back to",
                hex(&digest)
            );
            return Err(
                ApiError::conflict("never_ran", message, "activate it instead").at("digest"),
            );
        }
        let epoch = request.signed.map_or(self.next_epoch(), |(epoch, _)| epoch);
        if epoch < self.next_epoch() {
            let message = format!(
                "model epoch {epoch} is not above the running one, {}",
                self.next_epoch().saturating_sub(1)
            );
            let hint = format!(
                "sign the statement with --epoch {} or higher",
                self.next_epoch()
            );
            return Err(ApiError::conflict("stale_epoch", message, hint).at("epoch"));
        }
        if epoch > self.next_epoch().saturating_add(MAX_EPOCH_LEAP) {
            let message = format!("model epoch {epoch} is absurdly far above the running one");
            let hint = format!(
                "no lower one could ever be released after it: sign the statement with --epoch {}",
                self.next_epoch()
            );
            return Err(ApiError::invalid("bad_epoch", message, hint).at("epoch"));
        }
        Ok(ModelStatement {
            digest,
            epoch,
            kind: request.kind,
        })
    }
}

impl Plane {
    /// Keeps a model that the sandbox has accepted.
    ///
    /// # Errors
    /// When the registry is full, or the store cannot be written.
    pub async fn add_model(
        &self,
        by: &Caller,
        file: Vec<u8>,
        verdict: Verdict,
    ) -> Result<ModelView, ApiError> {
        if file.len() > MAX_MODEL_BYTES {
            return Err(ApiError::too_large(MAX_MODEL_BYTES));
        }
        self.make_room(file.len())?;
        let digest = digest_of(&file);
        let deed = Deed::new(by, "model.upload", hex(&digest)).with("bytes", Some(file.len()));
        self.change(deed, |state, batch, now| {
            let book = &mut state.models;
            if book.models.len() >= MAX_MODELS && !book.models.contains_key(&digest) {
                drop_oldest(book, batch)?;
            }
            let model = ModelView {
                digest: hex(&digest),
                bytes: file.len() as u64,
                uploaded_at_unix_ms: now.unix_ms,
                verdict,
                active_epoch: None,
            };
            let value = serde_json::to_vec(&model).map_err(|error| unwritable(&error))?;
            batch.put(Table::ModelFiles, digest, file);
            batch.put(Table::Models, digest, value);
            book.models.insert(digest, model.clone());
            Ok(Done::new(model, "in the registry"))
        })
        .await
    }

    /// All models, the newest first.
    #[must_use]
    pub fn models(&self) -> Vec<ModelView> {
        let state = self.lock();
        let active = state.models.active();
        let mut models: Vec<ModelView> = state.models.models.values().cloned().collect();
        for model in &mut models {
            model.active_epoch = active
                .filter(|release| release.digest == model.digest)
                .map(|release| release.epoch);
        }
        models.sort_by_key(|model| std::cmp::Reverse(model.uploaded_at_unix_ms));
        models
    }

    /// The file of a model.
    ///
    /// # Errors
    /// When there is none of that digest.
    pub fn model_file(&self, digest: &ModelDigest) -> Result<Vec<u8>, ApiError> {
        self.store.get(Table::ModelFiles, digest)?.ok_or_else(|| {
            ApiError::not_found(
                "no_such_model",
                format!("there is no model {}", hex(digest)),
                "`forebay model list` shows them",
            )
            .at("digest")
        })
    }

    /// Puts a model in force.
    ///
    /// # Errors
    /// When there is no such model, nobody has signed it, or the signature does not fit.
    pub async fn release_model(
        &self,
        by: &Caller,
        request: ReleaseRequest,
        signer: Signer<'_>,
    ) -> Result<Release, ApiError> {
        self.change(request.deed(by), |state, batch, now| {
            release(&mut state.models, batch, now, &request, signer)
        })
        .await
    }
}

fn release(
    book: &mut ModelBook,
    batch: &mut Batch,
    now: Now,
    request: &ReleaseRequest,
    signer: Signer<'_>,
) -> Result<Done<Release>, ApiError> {
    let statement = book.statement(request)?;
    let signature = match (request.signed, signer.key) {
        (Some((_, signature)), _) => signature,
        (None, Some(key)) => crate::models::sign(key, &statement),
        (None, None) => {
            let message = "this server has no signing key, and the request brings no signature";
            let hint = format!(
                "start it with --model-signing-key FILE, or sign elsewhere: `forebay model sign --key FILE --digest {} --epoch {}`",
                hex(&statement.digest),
                statement.epoch
            );
            return Err(ApiError::conflict("not_signed", message, hint).at("signature"));
        }
    };
    let public_key = signer
        .key
        .map(crate::models::SigningKeyFile::public_key)
        .or(signer.public_key);
    if let Some(public_key) = public_key
        && !crate::models::verify(&public_key, &statement, &signature)
    {
        let message = "the signature is not by the key that this server was started with, or signs another digest, epoch or kind";
        let hint = "gateways would refuse it: sign exactly this digest and epoch (and --roll-back for a roll-back)";
        return Err(ApiError::invalid("bad_signature", message, hint).at("signature"));
    }
    let release = Release {
        epoch: statement.epoch,
        digest: hex(&statement.digest),
        roll_back: statement.kind == ReleaseKind::RollBack,
        signature: hex(&signature),
        activated_at_unix_ms: now.unix_ms,
    };
    let value = serde_json::to_vec(&release).map_err(|error| unwritable(&error))?;
    batch.put(Table::Releases, release.epoch.to_be_bytes(), value);
    book.releases.insert(release.epoch, release.clone());
    tracing::info!(epoch = release.epoch, digest = %release.digest, roll_back = release.roll_back, "a model is released");
    let outcome = format!("model {} under epoch {}", release.digest, release.epoch);
    Ok(Done::new(release, outcome))
}

/// Makes room by dropping the oldest file that was never released.
fn drop_oldest(book: &mut ModelBook, batch: &mut Batch) -> Result<(), ApiError> {
    let is_released = |model: &ModelView| {
        book.releases
            .values()
            .any(|release| release.digest == model.digest)
    };
    let unused = book.models.iter().filter(|(_, model)| !is_released(model));
    let oldest = unused
        .min_by_key(|(_, model)| model.uploaded_at_unix_ms)
        .map(|(digest, _)| *digest)
        .ok_or_else(|| {
            let message =
                format!("the registry holds {MAX_MODELS} models and all of them were released");
            ApiError::conflict(
                "registry_full",
                message,
                "start a server with an empty --data directory",
            )
        })?;
    book.models.remove(&oldest);
    batch.delete(Table::ModelFiles, oldest);
    batch.delete(Table::Models, oldest);
    Ok(())
}

fn unwritable(error: &serde_json::Error) -> ApiError {
    StoreError::Damaged {
        what: "model",
        reason: error.to_string(),
    }
    .into()
}
