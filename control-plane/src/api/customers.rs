//! Customers: list, show, and what may be done to one.

use super::body::{SMALL_BYTES, json};
use super::{Answer, Shared};
use crate::error::ApiError;
use crate::plane::{CustomerChange, CustomerView};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use forebay_wire::policy::Decimal;
use serde::{Deserialize, Serialize};

const MAX_LISTED: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Customers {
    customers: Vec<CustomerView>,
}

/// Bodies of changes. One type per change, so that a field of another is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    #[serde(default)]
    resource: Option<String>,
    tokens: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(default)]
    until_unix_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

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

pub(super) async fn show(
    State(server): Shared,
    key: Result<Path<String>, PathRejection>,
) -> Answer<CustomerView> {
    let Path(key) = key?;
    let customer = server.plane.hash_of(&key)?;
    server.plane.customer(customer).map(Json)
}

pub(super) async fn change(
    State(server): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Body,
) -> Answer<CustomerView> {
    let Path((key, change)) = path?;
    let customer = server.plane.hash_of(&key)?;
    let change = read_change(&change, body).await?;
    server
        .plane
        .change_customer(customer, change)
        .await
        .map(Json)
}

async fn read_change(change: &str, body: Body) -> Result<CustomerChange, ApiError> {
    Ok(match change {
        "credit" => {
            let Credit { resource, tokens } = json(body, SMALL_BYTES).await?;
            let size = Decimal::from_f64(tokens.abs()).map_err(|error| {
                ApiError::invalid(
                    "bad_amount",
                    error.to_string(),
                    "give tokens such as 100 or -0.5",
                )
                .at("tokens")
            })?;
            CustomerChange::Credit {
                resource,
                micro: if tokens < 0.0 {
                    -size.micro()
                } else {
                    size.micro()
                },
            }
        }
        "ban" => {
            let Ban { until_unix_s } = json(body, SMALL_BYTES).await?;
            CustomerChange::Ban {
                until_unix_ms: until_unix_s.map(|seconds| seconds.saturating_mul(1_000)),
            }
        }
        "reset" | "unban" | "freeze" | "unfreeze" => {
            let Nothing {} = json(body, SMALL_BYTES).await?;
            match change {
                "reset" => CustomerChange::Reset,
                "unban" => CustomerChange::Unban,
                "freeze" => CustomerChange::Freeze,
                _ => CustomerChange::Thaw,
            }
        }
        other => {
            let message = format!("`{other}` is nothing that can be done to a customer");
            let hint = "use credit, reset, ban, unban, freeze or unfreeze";
            return Err(ApiError::not_found("no_such_change", message, hint).at("path"));
        }
    })
}
