//! Policies: check, apply to all customers or a share of them, list, show, activate.

use super::body::read;
use super::{Answer, By, Server, Shared};
use crate::document::Format;
use crate::dry_run::{DryRunQuery, DryRunView};
use crate::error::ApiError;
use crate::plane::{RolloutView, VersionInfo};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use forebay_policy::{PolicyDiff, diff};
use forebay_wire::policy::PolicyDocument;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest policy: a million customers in JSON.
const MAX_POLICY_BYTES: usize = 128 << 20;

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Checked {
    customers: usize,
    contracts: usize,
    resources: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Versions {
    active: u64,
    versions: Vec<VersionInfo>,
    /// The policy that has a share of the customers, while one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<RolloutView>,
}

/// For whom a policy is put in force.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    /// Percent of the customers, 1 to 99; without it, all.
    #[serde(default)]
    share: Option<u8>,
}

pub(super) async fn check(
    State(server): Shared,
    headers: HeaderMap,
    body: Body,
) -> Answer<Checked> {
    let (text, format) = document_text(&headers, body).await?;
    let checked = server.plane.check_policy(&text, format)?;
    Ok(Json(Checked {
        customers: checked.compiled.customers.len(),
        contracts: checked.document.contracts.len(),
        resources: checked.document.resources.len(),
    }))
}

pub(super) async fn apply(
    State(server): Shared,
    Extension(by): By,
    whom: Result<Query<For>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer<VersionInfo> {
    let Query(For { share }) = whom?;
    let (text, format) = document_text(&headers, body).await?;
    let plane = &server.plane;
    match share {
        None => plane.apply_policy(&by, &text, format).await.map(Json),
        Some(percent @ 1..=99) => {
            let rolled = plane.roll_out_policy(&by, &text, format, percent).await;
            rolled.map(Json)
        }
        Some(percent) => {
            let message = format!("a share of {percent} % is none of 1 to 99");
            let hint = "leave it out to put the policy in force for all customers";
            Err(ApiError::invalid("bad_share", message, hint).at("share"))
        }
    }
}

pub(super) async fn try_candidate(
    State(server): Shared,
    Extension(by): By,
    headers: HeaderMap,
    body: Body,
) -> Answer<DryRunView> {
    let (text, format) = document_text(&headers, body).await?;
    server.plane.try_policy(&by, &text, format).await.map(Json)
}

pub(super) async fn show_candidate(
    State(server): Shared,
    query: Result<Query<DryRunQuery>, QueryRejection>,
) -> Answer<DryRunView> {
    let Query(query) = query?;
    server.plane.dry_run(&query).map(Json)
}

pub(super) async fn end_candidate(State(server): Shared, Extension(by): By) -> Answer<DryRunView> {
    server.plane.end_dry_run(&by).await.map(Json)
}

pub(super) async fn promote(State(server): Shared, Extension(by): By) -> Answer<VersionInfo> {
    server.plane.promote_policy(&by).await.map(Json)
}

pub(super) async fn roll_back(State(server): Shared, Extension(by): By) -> Answer<VersionInfo> {
    server.plane.roll_back_policy(&by).await.map(Json)
}

pub(super) async fn list(State(server): Shared) -> Json<Versions> {
    Json(Versions {
        active: server.plane.active_policy().unwrap_or(0),
        versions: server.plane.policy_versions(),
        rollout: server.plane.rollout(),
    })
}

pub(super) async fn document(
    State(server): Shared,
    text: Result<Path<String>, PathRejection>,
) -> Answer<PolicyDocument> {
    let Path(text) = text?;
    server
        .plane
        .policy_document(version(&server, &text)?)
        .map(Json)
}

/// From one version to another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FromTo {
    /// Number of the older version, or `active`.
    from: String,
    /// Number of the newer version, or `active`.
    to: String,
}

/// What one version changes against another.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Compared {
    from: u64,
    to: u64,
    same: bool,
    diff: PolicyDiff,
}

pub(super) async fn compare(
    State(server): Shared,
    versions: Result<Query<FromTo>, QueryRejection>,
) -> Answer<Compared> {
    let Query(FromTo { from, to }) = versions?;
    let from = version(&server, &from).map_err(|error| error.at("from"))?;
    let to = version(&server, &to).map_err(|error| error.at("to"))?;
    // A million customers take a second.
    let comparing = tokio::task::spawn_blocking(move || {
        let before = document_of(&server, from, "from")?;
        let after = document_of(&server, to, "to")?;
        Ok(diff(&before, &after))
    });
    let diff = comparing.await.unwrap_or_else(|error| {
        let hint = "look at the server's log";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Err(ApiError::new(
            status,
            "compare_failed",
            error.to_string(),
            hint,
        ))
    })?;
    Ok(Json(Compared {
        from,
        to,
        same: diff.is_empty(),
        diff,
    }))
}

pub(super) async fn activate(
    State(server): Shared,
    Extension(by): By,
    version: Result<Path<String>, PathRejection>,
) -> Answer<VersionInfo> {
    let Path(version) = version?;
    server
        .plane
        .activate_policy(&by, number(&version)?)
        .await
        .map(Json)
}

fn document_of(server: &Server, version: u64, place: &str) -> Result<PolicyDocument, ApiError> {
    let found = server.plane.policy_document(version);
    found.map_err(|error| error.at(place))
}

fn version(server: &Server, text: &str) -> Result<u64, ApiError> {
    match text {
        "active" => server.plane.active_policy(),
        text => number(text),
    }
}

fn number(text: &str) -> Result<u64, ApiError> {
    let refuse = || {
        ApiError::malformed("that is not a policy version", "use a number, or `active`")
            .at("version")
    };
    text.parse().map_err(|_| refuse())
}

async fn document_text(headers: &HeaderMap, body: Body) -> Result<(String, Format), ApiError> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let format = if content_type.contains("yaml") {
        Format::Yaml
    } else {
        Format::Json
    };
    let bytes = read(body, MAX_POLICY_BYTES).await?;
    let text = String::from_utf8(bytes.into()).map_err(|error| {
        let place = format!("byte {}", error.utf8_error().valid_up_to());
        ApiError::malformed("the document is not UTF-8", "save it as UTF-8").at(place)
    })?;
    Ok((text, format))
}
