//! Models: upload, describe, list, fetch, activate, promote, roll back, compare.

use super::body::{SMALL_BYTES, json, read};
use super::{Answer, By, Server, Shared};
use crate::error::ApiError;
use crate::models::{MAX_MODEL_BYTES, SandboxError, from_hex};
use crate::plane::{
    ChallengeRequest, ChallengerView, ModelView, Origin, Promotion, Release, ReleaseRequest, Share,
    Signer,
};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use forebay_wire::model::{ModelDigest, ReleaseKind};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Models {
    models: Vec<ModelView>,
}

/// At which gateways, and a statement that was signed elsewhere; or nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Activate {
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    signature: Option<String>,
    /// Percent of the gateways that run it first, 1 to 99. Without it all do; null is refused, because whoever writes it has a share in mind.
    #[serde(
        default,
        deserialize_with = "written",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "u8")]
    share: Option<u8>,
    /// Who gives it to all, or takes it back: with a share only.
    #[serde(default)]
    promote: Option<Promotion>,
}

/// Who ends the comparison, and a statement that was signed elsewhere; or nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Challenge {
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    signature: Option<String>,
    /// Who releases the model, or withdraws it.
    #[serde(default)]
    promote: Option<Promotion>,
}

/// Where a model comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    /// SHA-256 of the model that it was made from.
    #[serde(default)]
    parent: Option<String>,
    /// SHA-256 of the data that it was made from. What the card says need not be said again.
    #[serde(default)]
    data_digest: Option<String>,
    /// The card that the trainer has written, at most 32 KiB.
    #[serde(default)]
    card: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollBack {
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    signature: Option<String>,
}

pub(super) async fn list(State(server): Shared) -> Json<Models> {
    Json(Models {
        models: server.plane.models(),
    })
}

pub(super) async fn file(
    State(server): Shared,
    digest: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(digest) = digest?;
    let file = server.plane.model_file(&digest_from(&digest)?)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], file).into_response())
}

pub(super) async fn upload(
    State(server): Shared,
    Extension(by): By,
    body: Body,
) -> Answer<ModelView> {
    let file = read(body, MAX_MODEL_BYTES).await?.to_vec();
    let judge = Arc::clone(&server);
    let judged = tokio::task::spawn_blocking(move || {
        judge.sandbox.check(&file).map(|verdict| (file, verdict))
    })
    .await;
    let (file, verdict) = match judged {
        Ok(Ok(judged)) => judged,
        Ok(Err(error)) => return Err(unjudged(&error)),
        Err(error) => {
            let hint = "look at the server's log";
            return Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "sandbox_failed",
                error.to_string(),
                hint,
            ));
        }
    };
    if !verdict.ok {
        let message = format!("the forecaster refuses the model: {}", verdict.message);
        let hint = "correct and export it again; the released model has not changed";
        return Err(ApiError::invalid("model_refused", message, hint).at("body"));
    }
    server.plane.add_model(&by, file, verdict).await.map(Json)
}

pub(super) async fn activate(
    State(server): Shared,
    Extension(by): By,
    digest: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<Release> {
    let Path(digest) = digest?;
    let Activate {
        epoch,
        signature,
        share,
        promote,
    } = json(body, SMALL_BYTES).await?;
    let request = ReleaseRequest {
        digest: Some(digest_from(&digest)?),
        kind: ReleaseKind::Release,
        signed: signed(epoch, signature)?,
        share: share_from(share, promote)?,
    };
    server
        .plane
        .release_model(&by, request, signer(&server))
        .await
        .map(Json)
}

pub(super) async fn roll_back(
    State(server): Shared,
    Extension(by): By,
    body: Body,
) -> Answer<Release> {
    let RollBack {
        digest,
        epoch,
        signature,
    } = json(body, SMALL_BYTES).await?;
    let request = ReleaseRequest {
        digest: digest.as_deref().map(digest_from).transpose()?,
        kind: ReleaseKind::RollBack,
        signed: signed(epoch, signature)?,
        share: None,
    };
    server
        .plane
        .release_model(&by, request, signer(&server))
        .await
        .map(Json)
}

pub(super) async fn promote(State(server): Shared, Extension(by): By) -> Answer<Release> {
    server.plane.promote_model(&by).await.map(Json)
}

pub(super) async fn challenge(
    State(server): Shared,
    Extension(by): By,
    digest: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<ChallengerView> {
    let Path(digest) = digest?;
    let Challenge {
        epoch,
        signature,
        promote,
    } = json(body, SMALL_BYTES).await?;
    let request = ChallengeRequest {
        digest: digest_from(&digest)?,
        promotion: promote.unwrap_or_default(),
        signed: signed(epoch, signature)?,
    };
    server
        .plane
        .challenge_model(&by, request, signer(&server))
        .await
        .map(Json)
}

pub(super) async fn challenger(State(server): Shared) -> Answer<ChallengerView> {
    server.plane.challenger().map(Json)
}

pub(super) async fn withdraw(State(server): Shared, Extension(by): By) -> Answer<ChallengerView> {
    server.plane.withdraw_challenger(&by).await.map(Json)
}

pub(super) async fn about(
    State(server): Shared,
    digest: Result<Path<String>, PathRejection>,
) -> Answer<ModelView> {
    let Path(digest) = digest?;
    server.plane.model(&digest_from(&digest)?).map(Json)
}

pub(super) async fn describe(
    State(server): Shared,
    Extension(by): By,
    digest: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<ModelView> {
    let Path(digest) = digest?;
    let digest = digest_from(&digest)?;
    let Described {
        parent,
        data_digest,
        card,
    } = json(body, SMALL_BYTES).await?;
    let origin = Origin {
        parent,
        data_digest,
        card,
    };
    server
        .plane
        .describe_model(&by, digest, origin)
        .await
        .map(Json)
}

/// A value that is there if its name is: a program whose variable is empty writes null, and does not mean all gateways.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    u8::deserialize(deserializer).map(Some)
}

fn share_from(
    percent: Option<u8>,
    promotion: Option<Promotion>,
) -> Result<Option<Share>, ApiError> {
    match (percent, promotion) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let hint = "say at how many gateways the model runs first, or leave `promote` out";
            Err(ApiError::malformed("`promote` belongs to a share", hint).at("promote"))
        }
        (Some(percent), promotion) if (1..=99).contains(&percent) => Ok(Some(Share {
            percent,
            promotion: promotion.unwrap_or_default(),
        })),
        (Some(percent), _) => {
            let message = format!("a share of {percent} % is none of 1 to 99");
            let hint = "leave it out to release the model for all gateways";
            Err(ApiError::invalid("bad_share", message, hint).at("share"))
        }
    }
}

fn signer(server: &Server) -> Signer<'_> {
    Signer {
        key: server.signing_key.as_ref(),
        public_key: server.public_key,
    }
}

fn signed(
    epoch: Option<u64>,
    signature: Option<String>,
) -> Result<Option<(u64, [u8; 64])>, ApiError> {
    match (epoch, signature) {
        (None, None) => Ok(None),
        (Some(epoch), Some(signature)) => {
            let hint = "`forebay model sign` prints it";
            let refuse = || {
                ApiError::malformed("the signature is not 128 hexadecimal digits", hint)
                    .at("signature")
            };
            Ok(Some((epoch, from_hex(&signature).ok_or_else(refuse)?)))
        }
        _ => {
            let hint = "`forebay model sign` prints both; give neither and the server signs";
            Err(ApiError::malformed("epoch and signature belong together", hint).at("signature"))
        }
    }
}

fn digest_from(text: &str) -> Result<ModelDigest, ApiError> {
    let refuse = || {
        ApiError::malformed(
            "that is not a digest",
            "use the 64 hexadecimal digits of `forebay model list`",
        )
        .at("digest")
    };
    from_hex(text).ok_or_else(refuse)
}

fn unjudged(error: &SandboxError) -> ApiError {
    match error {
        SandboxError::Forecaster { .. } => {
            let hint = "the server needs forecaster.wasm to judge models";
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no_forecaster",
                error.to_string(),
                hint,
            )
        }
        SandboxError::Trap(_) | SandboxError::TooLong { .. } | SandboxError::Unreadable(_) => {
            let hint = "the file was not kept; the released model has not changed";
            ApiError::invalid("model_refused", error.to_string(), hint).at("body")
        }
    }
}
