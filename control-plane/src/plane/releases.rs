//! Releases by model epoch: signed statements, of which the newest runs, or a canary and the one before it.
//!
//! A release is a signed statement (file, epoch, kind). Epochs only grow, so a gateway that remembers the highest one it has
//! seen cannot be handed an old model, not even by this server. The server signs itself if it has the key; otherwise a
//! statement signed elsewhere is brought to it.

use super::audit::{Deed, Done};
use super::canary::{Canary, Share};
use super::challenger::withdraw;
use super::models::{ModelBook, unwritable};
use super::{Now, Plane};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::models::{SigningKeyFile, from_hex, hex};
use crate::store::{Batch, StoreError, Table};
use forebay_wire::model::{ModelDigest, ModelStatement, ReleaseKind};
use forebay_wire::sync::ModelRelease;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far an epoch may be above the running one. Enough for a clock in milliseconds; but one slip, or one statement that this
/// server cannot verify, must not use up all the epochs there are.
const MAX_EPOCH_LEAP: u64 = 1 << 42;

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
    /// True for a canary that was rolled back: it never ran everywhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
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
    /// At which gateways it runs first; `None`: at all of them. Of a roll-back always all.
    pub share: Option<Share>,
}

/// Who signs, or whose signatures count.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The server's own key, if it has one.
    pub key: Option<&'a crate::models::SigningKeyFile>,
    /// The public key that gateways trust.
    pub public_key: Option<[u8; 32]>,
}

// === impl ReleaseRequest ===

impl ReleaseRequest {
    fn deed(&self, by: &Caller) -> Deed {
        self.described(|action, object| Deed::new(by, action, object))
    }

    /// The same, where nobody but the server does it.
    pub(super) fn deed_of_the_server(&self) -> Deed {
        self.described(Deed::of_the_server)
    }

    fn described(&self, deed: impl FnOnce(&'static str, String) -> Deed) -> Deed {
        let action = match self.kind {
            ReleaseKind::Release => "model.activate",
            ReleaseKind::RollBack => "model.rollback",
            ReleaseKind::Challenger => "model.challenge",
        };
        let object = self
            .digest
            .map_or("the model before".to_owned(), |digest| hex(&digest));
        deed(action, object)
            .with("signed_epoch", self.signed.map(|(epoch, _)| epoch))
            .with(
                "share",
                self.share.map(|share| format!("{}%", share.percent)),
            )
            .with("promote", self.share.map(|share| share.promotion.name()))
    }
}

// === impl ModelBook ===

impl ModelBook {
    /// The release that gateways should run, but for those where a canary runs.
    #[must_use]
    pub fn active(&self) -> Option<&Release> {
        match &self.canary {
            Some(canary) => self.releases.get(&canary.champion),
            None => self.releases.values().next_back(),
        }
    }

    /// What a gateway should run, as it goes there.
    #[must_use]
    pub fn offer(&self, gateway: &str) -> Option<ModelRelease> {
        let canary = self.canary.as_ref();
        let release = match canary.filter(|canary| canary.runs_at(gateway)) {
            Some(canary) => self.releases.get(&canary.epoch)?,
            None => self.active()?,
        };
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
            .find(|release| !release.withdrawn && release.digest != active.digest)?;
        from_hex(&before.digest)
    }

    fn next_epoch(&self) -> u64 {
        let newest = self.releases.keys().next_back();
        newest.copied().unwrap_or(0).saturating_add(1)
    }

    pub(super) fn statement(&self, request: &ReleaseRequest) -> Result<ModelStatement, ApiError> {
        if let Some(canary) = &self.canary {
            self.fits_canary(canary, request)?;
        }
        let back_to = || match &self.canary {
            Some(_) => from_hex(&self.active()?.digest),
            None => self.before(),
        };
        let digest = request.digest.or_else(back_to).ok_or_else(|| {
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
            .any(|release| !release.withdrawn && release.digest == hex(&digest));
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
    /// Signs releases by itself.
    #[must_use]
    pub fn signed_by(mut self, key: Option<SigningKeyFile>) -> Self {
        self.signing_key = key;
        self
    }

    /// Puts a model in force, everywhere or at a share of the gateways.
    ///
    /// # Errors
    /// When there is no such model, nobody has signed it, or the signature does not fit.
    pub async fn release_model(
        &self,
        by: &Caller,
        request: ReleaseRequest,
        signer: Signer<'_>,
    ) -> Result<Release, ApiError> {
        self.release_as(request.deed(by), request, signer).await
    }

    pub(super) async fn release_as(
        &self,
        deed: Deed,
        request: ReleaseRequest,
        signer: Signer<'_>,
    ) -> Result<Release, ApiError> {
        self.change(deed, |state, batch, now| {
            let present = state.fleet.present(self.settings.terms(), now.mono);
            release(&mut state.models, batch, now, &request, signer, present)
        })
        .await
    }

    /// Lets the canary run everywhere.
    ///
    /// # Errors
    /// When there is none.
    pub async fn promote_model(&self, by: &Caller) -> Result<Release, ApiError> {
        let deed = Deed::new(by, "model.promote", "the canary");
        self.change(deed, |state, batch, _| promote(&mut state.models, batch))
            .await
    }
}

/// Lets the canary run everywhere. The other gateways take it under the epoch that it has.
pub(super) fn promote(book: &mut ModelBook, batch: &mut Batch) -> Result<Done<Release>, ApiError> {
    let canary = book.canary.as_ref().ok_or_else(|| {
        let hint = "`forebay model activate DIGEST --share 10%` begins with one";
        ApiError::conflict("no_canary", "no model runs as a canary", hint)
    })?;
    let release = book.releases.get(&canary.epoch).cloned();
    let release = release.ok_or_else(|| StoreError::Damaged {
        what: "canary",
        reason: format!("there is no release of epoch {}", canary.epoch),
    })?;
    tracing::info!(epoch = release.epoch, digest = %release.digest, "the canary runs everywhere");
    let outcome = format!(
        "model {} under epoch {} everywhere; {}",
        release.digest,
        release.epoch,
        canary.trial.evidence().words()
    );
    // Nothing can fail from here on: what was refused must not have ended the canary.
    Canary::delete(batch);
    book.canary = None;
    Ok(Done::new(release, outcome))
}

/// `present`: the gateways that a share is a share of.
pub(super) fn release(
    book: &mut ModelBook,
    batch: &mut Batch,
    now: Now,
    request: &ReleaseRequest,
    signer: Signer<'_>,
    present: Vec<(u64, String)>,
) -> Result<Done<Release>, ApiError> {
    let statement = book.statement(request)?;
    let canary = request
        .share
        .map(|share| book.begin_canary(share, &statement, signer, present, now))
        .transpose()?;
    let signature = signature_of(&statement, request.signed, signer)?;
    let release = Release {
        epoch: statement.epoch,
        digest: hex(&statement.digest),
        roll_back: statement.kind == ReleaseKind::RollBack,
        signature: hex(&signature),
        activated_at_unix_ms: now.unix_ms,
        withdrawn: false,
    };
    let mut outcome = format!("model {} under epoch {}", release.digest, release.epoch);
    let mut changed = vec![release.clone()];
    if let Some(before) = &book.canary {
        outcome = format!("{outcome}; {}", before.trial.evidence().words());
        let withdrawn = book.releases.get(&before.epoch).cloned();
        changed.extend(withdrawn.map(|release| Release {
            withdrawn: true,
            ..release
        }));
    }
    // All that can fail comes first: neither the state nor the batch, with which a sync goes on, may be left half-way.
    let rows = changed.iter().map(serde_json::to_vec);
    let rows: Vec<Vec<u8>> = rows
        .collect::<Result<_, _>>()
        .map_err(|error| unwritable(&error))?;
    let canary_row = canary.as_ref().map(Canary::row).transpose()?;
    if book.challenger.is_some() {
        // It was compared with what ran before.
        outcome = format!("{outcome}; {}", withdraw(book, batch));
    }
    Canary::delete(batch);
    if let Some((canary, row)) = canary.as_ref().zip(canary_row) {
        outcome = format!("{outcome}, at {}", canary.extent());
        Canary::put(batch, row);
    }
    for (release, row) in changed.iter().zip(rows) {
        batch.put(Table::Releases, release.epoch.to_be_bytes(), row);
    }
    book.canary = canary;
    let changed = changed.into_iter().map(|release| (release.epoch, release));
    book.releases.extend(changed);
    tracing::info!(epoch = release.epoch, digest = %release.digest, roll_back = release.roll_back, "a model is released");
    Ok(Done::new(release, outcome))
}

/// The signature that gateways will ask for: the one that was brought, or the server's own.
pub(super) fn signature_of(
    statement: &ModelStatement,
    signed: Option<(u64, [u8; 64])>,
    signer: Signer<'_>,
) -> Result<[u8; 64], ApiError> {
    let signature = match (signed, signer.key) {
        (Some((_, signature)), _) => signature,
        (None, Some(key)) => crate::models::sign(key, statement),
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
        && !crate::models::verify(&public_key, statement, &signature)
    {
        let message = "the signature is not by the key that this server was started with, or signs another digest, epoch or kind";
        let hint = "gateways would refuse it: sign exactly this digest and epoch (and --roll-back for a roll-back, --challenger for a challenger)";
        return Err(ApiError::invalid("bad_signature", message, hint).at("signature"));
    }
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_that_fails_leaves_the_canary_as_it_is() {
        let mut book = ModelBook {
            canary: Some(Canary::sample()),
            ..ModelBook::default()
        };
        let mut batch = Batch::default();
        assert!(promote(&mut book, &mut batch).is_err());
        assert!(batch.is_empty());
        assert_eq!(book.canary, Some(Canary::sample()));
    }
}
