//! Forecasts of the control plane, page by page.

use super::{Answer, Shared};
use crate::forecasts::{ForecastsQuery, ForecastsView};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};

pub(super) async fn list(
    State(server): Shared,
    query: Result<Query<ForecastsQuery>, QueryRejection>,
) -> Answer<ForecastsView> {
    let Query(query) = query?;
    server.plane.forecasts(&query).map(Json)
}
