//! Customers: list, show, and what may be done to one.

use super::body::{SMALL_BYTES, json};
use super::{Answer, By, Server, Shared};
use crate::error::ApiError;
use crate::plane::{CustomerChange, CustomerView};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use forebay_wire::policy::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MAX_LISTED: usize = 1_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Hash of a customer: those behind it.
    #[serde(default)]
    after: Option<String>,
    /// At most so many, 1000 without it.
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Customers {
    customers: Vec<CustomerView>,
}

/// Bodies of changes. One type per change, so that a field of another is refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credit {
    /// May be left out where there is one.
    #[serde(default)]
    resource: Option<String>,
    /// Up to 6 decimals; negative takes.
    tokens: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    /// Seconds since 1970; without it there is no end.
    #[serde(default)]
    until_unix_s: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn list(
    State(server): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Customers> {
    let Query(page) = page?;
    let after = page
        .after
        .map(|hash| server.plane.hash_of(&format!("hash:{hash}")))
        .transpose()?;
    let limit = page.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
    Ok(Json(Customers {
        customers: server.plane.customers(after, limit),
    }))
}

pub(super) async fn show(State(server): Shared, key: Key) -> Answer<CustomerView> {
    let Path(key) = key?;
    let customer = server.plane.hash_of(&key)?;
    server.plane.customer(customer).map(Json)
}

type Key = Result<Path<String>, PathRejection>;

pub(super) async fn credit(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    let Credit { resource, tokens } = json(body, SMALL_BYTES).await?;
    let size = Decimal::from_f64(tokens.abs()).map_err(|error| {
        let hint = "give tokens such as 100 or -0.5";
        ApiError::invalid("bad_amount", error.to_string(), hint).at("tokens")
    })?;
    let micro = if tokens < 0.0 {
        -size.micro()
    } else {
        size.micro()
    };
    change(&server, by, key, CustomerChange::Credit { resource, micro }).await
}

pub(super) async fn ban(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    let Ban { until_unix_s } = json(body, SMALL_BYTES).await?;
    let until_unix_ms = until_unix_s.map(|seconds| seconds.saturating_mul(1_000));
    change(&server, by, key, CustomerChange::Ban { until_unix_ms }).await
}

pub(super) async fn unban(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Unban).await
}

pub(super) async fn reset(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Reset).await
}

pub(super) async fn freeze(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Freeze).await
}

pub(super) async fn unfreeze(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Thaw).await
}

pub(super) async fn exempt(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Exempt).await
}

pub(super) async fn unexempt(
    State(server): Shared,
    by: By,
    key: Key,
    body: Body,
) -> Answer<CustomerView> {
    plain_change(&server, by, key, body, CustomerChange::Unexempt).await
}

async fn plain_change(
    server: &Server,
    by: By,
    key: Key,
    body: Body,
    what: CustomerChange,
) -> Answer<CustomerView> {
    let Nothing {} = json(body, SMALL_BYTES).await?;
    change(server, by, key, what).await
}

async fn change(
    server: &Server,
    Extension(by): By,
    key: Key,
    what: CustomerChange,
) -> Answer<CustomerView> {
    let Path(key) = key?;
    let customer = server.plane.hash_of(&key)?;
    let view = server.plane.change_customer(&by, customer, what).await?;
    Ok(Json(view))
}
