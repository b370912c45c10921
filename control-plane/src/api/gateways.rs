//! Gateways: take back what one holds that is surely gone.

use super::Shared;
use crate::error::ApiError;
use crate::plane::StatusView;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

pub(super) async fn retire(
    State(server): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<StatusView>, ApiError> {
    let Path(id) = id?;
    server.plane.retire_gateway(&id).await?;
    Ok(Json(server.plane.status()))
}
