//! Gateways: take back what one holds that is surely gone.

use super::{By, Shared};
use crate::error::ApiError;
use crate::plane::StatusView;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};

pub(super) async fn retire(
    State(server): Shared,
    Extension(by): By,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<StatusView>, ApiError> {
    let Path(id) = id?;
    server.plane.retire_gateway(&by, &id).await?;
    Ok(Json(server.plane.status()))
}
