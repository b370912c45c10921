//! Policies: check, apply to all customers or a share of them, list, show, activate.

use super::body::read;
use super::documents::{in_turn, place_for};
use super::{Answer, By, Server, Shared};
use crate::document::Format;
use crate::dry_run::{DryRunQuery, DryRunView};
use crate::error::ApiError;
use crate::plane::{RolloutView, VersionInfo};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::{Extension, Json};
use forebay_policy::{PolicyDiff, diff};
use forebay_wire::policy::PolicyDocument;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    #[schemars(with = "Option<u8>")]
    share: Option<String>,
}

pub(super) async fn check(
    State(server): Shared,
    headers: HeaderMap,
    body: Body,
) -> Answer<Checked> {
    let place = place_for(&server, &body)?;
    let (text, format) = document_text(&headers, body).await?;
    let check = move |server: Arc<Server>| async move {
        let checked = server.plane.check_policy(&text, format)?;
        Ok(Checked {
            customers: checked.compiled.customers.len(),
            contracts: checked.document.contracts.len(),
            resources: checked.document.resources.len(),
        })
    };
    in_turn(&server, place, check).await.map(Json)
}

pub(super) async fn apply(
    State(server): Shared,
    Extension(by): By,
    whom: Result<Query<For>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer<VersionInfo> {
    let Query(For { share }) = whom?;
    let share = share.as_deref().map(percent).transpose()?;
    let place = place_for(&server, &body)?;
    let (text, format) = document_text(&headers, body).await?;
    let apply = move |server: Arc<Server>| async move {
        let plane = &server.plane;
        let Some(percent) = share else {
            return plane.apply_policy(&by, &text, format).await;
        };
        plane.policy_settled(base(&server)).await?;
        plane.roll_out_policy(&by, &text, format, percent).await
    };
    in_turn(&server, place, apply).await.map(Json)
}

pub(super) async fn try_candidate(
    State(server): Shared,
    Extension(by): By,
    headers: HeaderMap,
    body: Body,
) -> Answer<DryRunView> {
    let place = place_for(&server, &body)?;
    let (text, format) = document_text(&headers, body).await?;
    let take_up =
        move |server: Arc<Server>| async move { server.plane.try_policy(&by, &text, format).await };
    in_turn(&server, place, take_up).await.map(Json)
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
    let place = server.plane.document_place(0)?;
    let promote = move |server: Arc<Server>| async move {
        // The newer document became durable together with the version that is in force.
        if let Some(rollout) = server.plane.rollout() {
            server.plane.policy_settled(rollout.version).await?;
        }
        server.plane.promote_policy(&by).await
    };
    in_turn(&server, place, promote).await.map(Json)
}

pub(super) async fn roll_back(State(server): Shared, Extension(by): By) -> Answer<VersionInfo> {
    let place = server.plane.document_place(0)?;
    let roll_back = move |server: Arc<Server>| async move {
        server.plane.policy_settled(base(&server)).await?;
        server.plane.roll_back_policy(&by).await
    };
    in_turn(&server, place, roll_back).await.map(Json)
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
    let version = version(&server, &text)?;
    let place = server.plane.document_place(0)?;
    let read = move |server: Arc<Server>| async move { document_of(&server, version).await };
    in_turn(&server, place, read).await.map(Json)
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
    let place = server.plane.document_place(0)?;
    let compare = move |server: Arc<Server>| async move {
        let before = document_of(&server, from).await;
        let before = before.map_err(|error| error.at("from"))?;
        let after = document_of(&server, to).await;
        let after = after.map_err(|error| error.at("to"))?;
        Ok(diff(&before, &after))
    };
    let diff = in_turn(&server, place, compare).await?;
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
    let version = number(&version)?;
    let place = server.plane.document_place(0)?;
    let activate = move |server: Arc<Server>| async move {
        server.plane.policy_settled(version).await?;
        server.plane.activate_policy(&by, version).await
    };
    in_turn(&server, place, activate).await.map(Json)
}

/// Read here, so that a share that is no whole number is answered with what it may be.
fn percent(text: &str) -> Result<u8, ApiError> {
    let hint = "leave it out to put the policy in force for all customers";
    match text.parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        Ok(percent) => {
            let message = format!("a share of {percent} % is none of 1 to 99");
            Err(ApiError::invalid("bad_share", message, hint).at("share"))
        }
        Err(_) => {
            let shown: String = text.chars().take(16).collect();
            let message = format!("the share `{shown}` is no whole number of percent, 1 to 99");
            Err(ApiError::malformed(message, hint).at("share"))
        }
    }
}

async fn document_of(server: &Server, version: u64) -> Result<PolicyDocument, ApiError> {
    server.plane.policy_settled(version).await?;
    server.plane.policy_document(version)
}

/// The version that those go by who have no share of a newer policy.
fn base(server: &Server) -> u64 {
    let running = server.plane.rollout().map(|rollout| rollout.base);
    running.unwrap_or_else(|| server.plane.active_policy().unwrap_or(0))
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
