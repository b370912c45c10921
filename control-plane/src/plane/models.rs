//! The model registry: files by digest, what is known of each, and which one it was made from.

use super::Plane;
use super::audit::{Deed, Done};
use super::canary::Canary;
use super::challenger::Challenger;
use super::releases::Release;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::models::{MAX_MODEL_BYTES, Verdict, digest_of, from_hex, hex};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_wire::model::ModelDigest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files that are kept.
const MAX_MODELS: usize = 64;

/// Of those, so many that were released last are never dropped: one of them runs, and somebody may want to go back to the others.
const RELEASED_KEPT: usize = 8;

/// Largest card, as it is stored.
const MAX_CARD_BYTES: usize = 32 << 10;

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
    /// Epoch under which it runs as a canary, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_epoch: Option<u64>,
    /// Epoch under which it is compared with the one that runs, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger_epoch: Option<u64>,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where a model comes from, as far as somebody has said so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// SHA-256 of the model that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// SHA-256 of the data that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_digest: Option<String>,
    /// The card that the trainer has written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Models, releases, and the canary or the challenger.
#[derive(Debug, Default)]
pub struct ModelBook {
    pub(super) models: BTreeMap<ModelDigest, ModelView>,
    pub(super) releases: BTreeMap<u64, Release>,
    pub(super) canary: Option<Canary>,
    pub(super) challenger: Option<Challenger>,
}

// === impl Origin ===

impl Origin {
    /// Completes and checks what was said of a model: what the card says counts as said.
    ///
    /// # Errors
    /// When something is no digest, or two places disagree.
    fn checked(mut self, model: &ModelDigest) -> Result<Self, ApiError> {
        let lowered = |digest: Option<String>| digest.map(|text| text.to_ascii_lowercase());
        (self.parent, self.data_digest) = (lowered(self.parent), lowered(self.data_digest));
        let of_card = |field: &str| {
            let value = self.card.as_ref()?.get(field)?.as_str()?;
            Some(value.to_ascii_lowercase())
        };
        if of_card("model_sha256").is_some_and(|digest| digest != hex(model)) {
            let message = "the card is that of another model: its model_sha256 is not the digest";
            let hint = "bring the card that forebay-train has written beside this very file";
            return Err(ApiError::invalid("wrong_card", message, hint).at("card.model_sha256"));
        }
        let data_of_card = of_card("data_sha256");
        if let (Some(said), Some(of_card)) = (&self.data_digest, &data_of_card)
            && said != of_card
        {
            let message = "data_digest and the card's data_sha256 are not the same";
            let hint = "leave data_digest out: the card says it";
            return Err(ApiError::invalid("wrong_card", message, hint).at("data_digest"));
        }
        self.data_digest = self.data_digest.or(data_of_card);
        for (place, digest) in [("parent", &self.parent), ("data_digest", &self.data_digest)] {
            let is_digest = |text: &String| from_hex::<32>(text).is_some();
            if !digest.as_ref().is_none_or(is_digest) {
                let hint = "write the 64 hexadecimal digits of a SHA-256";
                return Err(ApiError::malformed("that is not a digest", hint).at(place));
            }
        }
        if self.parent.as_deref() == Some(hex(model).as_str()) {
            let hint = "name the model that this one was made from, or none";
            return Err(
                ApiError::invalid("own_parent", "a model is not its own parent", hint).at("parent"),
            );
        }
        let bytes = self.card.as_ref().map_or(0, |card| {
            serde_json::to_vec(card).map_or(usize::MAX, |text| text.len())
        });
        if bytes > MAX_CARD_BYTES {
            let message = format!("the card has {bytes} bytes, more than {MAX_CARD_BYTES}");
            let hint = "leave out what is not about the model as a whole";
            return Err(ApiError::invalid("card_too_large", message, hint).at("card"));
        }
        Ok(self)
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
        book.canary = Canary::load(store)?;
        book.challenger = Challenger::load(store)?;
        Ok(book)
    }

    fn unknown(digest: &ModelDigest) -> ApiError {
        let message = format!("there is no model {}", hex(digest));
        ApiError::not_found("no_such_model", message, "`forebay model list` shows them")
            .at("digest")
    }

    /// A model, with where it runs.
    fn view(&self, model: &ModelView) -> ModelView {
        let epoch_of = |release: Option<&Release>| {
            let of_model = release.filter(|release| release.digest == model.digest);
            of_model.map(|release| release.epoch)
        };
        let canary = self.canary.as_ref();
        let challenger = self.challenger.as_ref();
        let challenger = challenger.filter(|challenger| challenger.digest == model.digest);
        ModelView {
            challenger_epoch: challenger.map(|challenger| challenger.epoch),
            active_epoch: epoch_of(self.active()),
            canary_epoch: epoch_of(canary.and_then(|canary| self.releases.get(&canary.epoch))),
            ..model.clone()
        }
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
        let deed = |object: String| Deed::new(by, "model.upload", object);
        self.keep_model(deed, file, verdict, None).await
    }

    /// Keeps a model, and where it comes from if somebody has said so.
    pub(super) async fn keep_model(
        &self,
        deed: impl FnOnce(String) -> Deed,
        file: Vec<u8>,
        verdict: Verdict,
        origin: Option<Origin>,
    ) -> Result<ModelView, ApiError> {
        self.make_room(file.len())?;
        let digest = digest_of(&file);
        let origin = origin.map(|origin| origin.checked(&digest)).transpose()?;
        let deed = deed(hex(&digest)).with("bytes", Some(file.len()));
        self.change(deed, |state, batch, now| {
            let book = &mut state.models;
            if book.models.len() >= MAX_MODELS && !book.models.contains_key(&digest) {
                drop_oldest(book, batch)?;
            }
            let before = book.models.get(&digest);
            let model = ModelView {
                digest: hex(&digest),
                bytes: file.len() as u64,
                uploaded_at_unix_ms: now.unix_ms,
                verdict,
                active_epoch: None,
                canary_epoch: None,
                challenger_epoch: None,
                origin: origin
                    .or_else(|| before.map(|before| before.origin.clone()))
                    .unwrap_or_default(),
            };
            let value = serde_json::to_vec(&model).map_err(|error| unwritable(&error))?;
            batch.put(Table::ModelFiles, digest, file);
            batch.put(Table::Models, digest, value);
            book.models.insert(digest, model.clone());
            // It may run already: uploading it again does not stop it.
            Ok(Done::new(book.view(&model), "in the registry"))
        })
        .await
    }

    /// Keeps where a model comes from; what was said before is forgotten.
    ///
    /// # Errors
    /// When there is no such model, or what is said cannot be.
    pub async fn describe_model(
        &self,
        by: &Caller,
        digest: ModelDigest,
        origin: Origin,
    ) -> Result<ModelView, ApiError> {
        let origin = origin.checked(&digest)?;
        let deed = Deed::new(by, "model.describe", hex(&digest))
            .with("parent", origin.parent.as_ref())
            .with("data_digest", origin.data_digest.as_ref());
        self.change(deed, |state, batch, _| {
            let book = &mut state.models;
            let model = book.models.get_mut(&digest);
            let model = model.ok_or_else(|| ModelBook::unknown(&digest))?;
            let has_card = origin.card.is_some();
            model.origin = origin;
            let value = serde_json::to_vec(model).map_err(|error| unwritable(&error))?;
            batch.put(Table::Models, digest, value);
            let model = model.clone();
            let outcome = match has_card {
                true => "described, with a card",
                false => "described, without a card",
            };
            Ok(Done::new(book.view(&model), outcome))
        })
        .await
    }

    /// What is known of a model.
    ///
    /// # Errors
    /// When there is none of that digest.
    pub fn model(&self, digest: &ModelDigest) -> Result<ModelView, ApiError> {
        let state = self.lock();
        let model = state.models.models.get(digest);
        model
            .map(|model| state.models.view(model))
            .ok_or_else(|| ModelBook::unknown(digest))
    }

    /// All models, the newest first.
    #[must_use]
    pub fn models(&self) -> Vec<ModelView> {
        let state = self.lock();
        let book = &state.models;
        let mut models: Vec<ModelView> =
            book.models.values().map(|model| book.view(model)).collect();
        models.sort_by_key(|model| std::cmp::Reverse(model.uploaded_at_unix_ms));
        models
    }

    /// The file of a model.
    ///
    /// # Errors
    /// When there is none of that digest.
    pub fn model_file(&self, digest: &ModelDigest) -> Result<Vec<u8>, ApiError> {
        let file = self.store.get(Table::ModelFiles, digest)?;
        file.ok_or_else(|| ModelBook::unknown(digest))
    }
}

/// Makes room by dropping the oldest file that was never released, or else the one whose release is the longest ago.
fn drop_oldest(book: &mut ModelBook, batch: &mut Batch) -> Result<(), ApiError> {
    let mut released: Vec<&str> = Vec::new();
    for release in book.releases.values().rev() {
        if !released.contains(&release.digest.as_str()) {
            released.push(&release.digest);
        }
    }
    let running = book.active().map(|release| release.digest.as_str());
    // How long ago it was released; those that never were come before all others.
    let age = |model: &ModelView| released.iter().position(|digest| *digest == model.digest);
    let compared = book.challenger.as_ref();
    let compared = compared.map(|challenger| challenger.digest.as_str());
    let may_go = |model: &ModelView| {
        let is_in_use = [running, compared].contains(&Some(model.digest.as_str()));
        age(model).is_none_or(|age| age >= RELEASED_KEPT) && !is_in_use
    };
    let candidates = book.models.iter().filter(|(_, model)| may_go(model));
    let oldest = candidates
        .max_by_key(|(_, model)| {
            let age = age(model).unwrap_or(usize::MAX);
            (age, std::cmp::Reverse(model.uploaded_at_unix_ms))
        })
        .map(|(digest, _)| *digest)
        .ok_or_else(|| {
            let message = format!("the registry holds {MAX_MODELS} models and none may be dropped");
            let hint = "start a server with an empty --data directory";
            ApiError::conflict("registry_full", message, hint)
        })?;
    book.models.remove(&oldest);
    batch.delete(Table::ModelFiles, oldest);
    batch.delete(Table::Models, oldest);
    Ok(())
}

pub(super) fn unwritable(error: &serde_json::Error) -> ApiError {
    StoreError::Damaged {
        what: "model",
        reason: error.to_string(),
    }
    .into()
}
