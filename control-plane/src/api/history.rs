//! Usage history: import and export.

use super::body::json;
use super::{Answer, By, Shared};
use crate::error::ApiError;
use crate::plane::{ImportedSeries, SeriesView};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest import: some millions of values.
const MAX_IMPORT_BYTES: usize = 64 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    series: Vec<ImportedSeries>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Imported {
    values: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The customer's key, or `hash:` and its hash.
    key: String,
    /// May be left out where there is one.
    #[serde(default)]
    resource: Option<String>,
    /// What else was measured, instead of usage.
    #[serde(default)]
    covariate: Option<String>,
    /// The newest so many; all that are kept without it.
    #[serde(default)]
    steps: Option<u64>,
}

pub(super) async fn import(
    State(server): Shared,
    Extension(by): By,
    body: Body,
) -> Answer<Imported> {
    let Import { series } = json(body, MAX_IMPORT_BYTES).await?;
    let values = server.plane.import_history(&by, series).await?;
    Ok(Json(Imported { values }))
}

pub(super) async fn export(
    State(server): Shared,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<SeriesView>, ApiError> {
    let Query(wanted) = wanted?;
    let plane = &server.plane;
    let series = match (&wanted.covariate, &wanted.resource) {
        (None, resource) => plane.export_history(&wanted.key, resource.as_deref(), wanted.steps)?,
        (Some(covariate), None) => plane.export_covariate(&wanted.key, covariate, wanted.steps)?,
        (Some(_), Some(_)) => {
            let message = "a covariate is of no resource";
            let hint = "ask for `resource` or for `covariate`";
            return Err(ApiError::malformed(message, hint).at("covariate"));
        }
    };
    Ok(Json(series))
}
