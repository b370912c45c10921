//! Training: what runs and what has come of it, ask for one, end one.

use super::body::{SMALL_BYTES, json};
use super::{Answer, By, Shared};
use crate::error::ApiError;
use crate::training::TrainingView;
use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;

/// What to learn from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Train {
    /// Name of the resource; the policy's first without it.
    #[serde(default)]
    resource: Option<String>,
}

pub(super) async fn show(State(server): Shared) -> Json<TrainingView> {
    Json(server.training.view(server.plane.trainings()))
}

pub(super) async fn begin(
    State(server): Shared,
    Extension(by): By,
    body: Body,
) -> Answer<TrainingView> {
    let Train { resource } = json(body, SMALL_BYTES).await?;
    let desk = server.training.desk()?;
    // Said now and not an hour later.
    server.plane.resource_name(resource.as_deref())?;
    desk.ask(resource.clone())?;
    let noted = server.plane.training_asked(&by, resource.as_deref());
    if let Err(error) = noted.await {
        // Nothing happens that is not on record.
        desk.stop(by)?;
        return Err(error);
    }
    Ok(show(State(server)).await)
}

pub(super) async fn stop(
    State(server): Shared,
    Extension(by): By,
) -> Result<Json<TrainingView>, ApiError> {
    server.training.desk()?.stop(by.clone())?;
    server.plane.training_stopped(&by).await?;
    Ok(show(State(server)).await)
}
