//! Policies: check, apply, list, show, activate.

use super::body::read;
use super::{Answer, By, Shared};
use crate::document::Format;
use crate::error::ApiError;
use crate::plane::VersionInfo;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::{Extension, Json};
use forebay_wire::policy::PolicyDocument;
use serde::Serialize;

/// Largest policy: a million customers in JSON.
const MAX_POLICY_BYTES: usize = 128 << 20;

#[derive(Debug, Serialize)]
pub(super) struct Checked {
    customers: usize,
    contracts: usize,
    resources: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Versions {
    active: u64,
    versions: Vec<VersionInfo>,
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
    headers: HeaderMap,
    body: Body,
) -> Answer<VersionInfo> {
    let (text, format) = document_text(&headers, body).await?;
    server
        .plane
        .apply_policy(&by, &text, format)
        .await
        .map(Json)
}

pub(super) async fn list(State(server): Shared) -> Json<Versions> {
    Json(Versions {
        active: server.plane.active_policy().unwrap_or(0),
        versions: server.plane.policy_versions(),
    })
}

pub(super) async fn document(
    State(server): Shared,
    version: Result<Path<String>, PathRejection>,
) -> Answer<PolicyDocument> {
    let Path(version) = version?;
    let version = if version == "active" {
        server.plane.active_policy()?
    } else {
        number(&version)?
    };
    server.plane.policy_document(version).map(Json)
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
        .unwrap_or_default();
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
