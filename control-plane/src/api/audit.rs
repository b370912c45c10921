//! The audit log, page by page.

use super::{Answer, Shared};
use crate::plane::AuditPage;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::Deserialize;

/// Records in one answer: some hundred kilobytes.
const MAX_RECORDS: u64 = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Number of a record: those behind it.
    #[serde(default)]
    after: u64,
    /// At most so many, 1000 without it.
    #[serde(default)]
    limit: Option<u64>,
}

pub(super) async fn list(
    State(server): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<AuditPage> {
    let Query(Page { after, limit }) = page?;
    let limit = limit.unwrap_or(MAX_RECORDS).min(MAX_RECORDS);
    server.plane.audit(after, limit).map(Json)
}
