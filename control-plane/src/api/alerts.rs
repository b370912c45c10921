//! Alerts, as far as anybody is or was told of them.

use super::Shared;
use crate::plane::AlertsView;
use axum::Json;
use axum::extract::State;

pub(super) async fn list(State(server): Shared) -> Json<AlertsView> {
    Json(server.plane.alerts())
}
