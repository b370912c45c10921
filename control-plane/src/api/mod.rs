//! The HTTP interface: routes, and who may take them.
//!
//! Handlers only translate. Each group of routes checks its token before a byte of the body is read, and each body has a bound.

mod body;
mod customers;
mod gateways;
mod history;
mod metrics;
mod models;
mod policies;
mod sync;

use crate::auth::{Role, Tokens};
use crate::error::ApiError;
use crate::models::{Sandbox, SigningKeyFile};
use crate::plane::{Plane, StatusView};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;

/// What handlers need.
#[derive(Debug)]
pub struct Server {
    /// The control plane.
    pub plane: Plane,
    /// The judge of models.
    pub sandbox: Sandbox,
    /// The key that releases are signed with, if the server has it.
    pub signing_key: Option<SigningKeyFile>,
    /// The public key that signatures brought from elsewhere must fit, if it is known.
    pub public_key: Option<[u8; 32]>,
    /// Who may ask.
    pub tokens: Tokens,
}

type Shared = State<Arc<Server>>;
type Answer<T> = Result<Json<T>, ApiError>;

/// All routes.
pub fn router(server: &Arc<Server>) -> Router {
    let gateway = Router::new()
        .route("/v1/sync", post(sync::sync))
        .layer(from_fn_with_state(Arc::clone(server), require_gateway));
    let either = Router::new()
        .route("/v1/models/{digest}", get(models::file))
        .layer(from_fn_with_state(Arc::clone(server), require_either));
    let open = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(async || "ok\n"));
    gateway
        .merge(either)
        .merge(admin().layer(from_fn_with_state(Arc::clone(server), require_admin)))
        .merge(open)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::clone(server))
}

fn admin() -> Router<Arc<Server>> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/policies", get(policies::list).post(policies::apply))
        .route("/v1/policies/check", post(policies::check))
        .route("/v1/policies/{version}", get(policies::document))
        .route("/v1/policies/{version}/activate", post(policies::activate))
        .route("/v1/customers", get(customers::list))
        .route("/v1/customers/{key}", get(customers::show))
        .route("/v1/customers/{key}/{change}", post(customers::change))
        .route("/v1/models", get(models::list).post(models::upload))
        .route("/v1/models/{digest}/activate", post(models::activate))
        .route("/v1/models/rollback", post(models::roll_back))
        .route("/v1/history", get(history::export).put(history::import))
        .route("/v1/gateways/{id}/retire", post(gateways::retire))
}

async fn status(State(server): Shared) -> Json<StatusView> {
    Json(server.plane.status())
}

async fn require_gateway(State(server): Shared, request: Request, next: Next) -> Response {
    guard(&server, &[Role::Gateway], request, next).await
}

async fn require_admin(State(server): Shared, request: Request, next: Next) -> Response {
    guard(&server, &[Role::Admin], request, next).await
}

async fn require_either(State(server): Shared, request: Request, next: Next) -> Response {
    guard(&server, &[Role::Gateway, Role::Admin], request, next).await
}

async fn guard(server: &Server, roles: &[Role], request: Request, next: Next) -> Response {
    match server.tokens.require(request.headers(), roles) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn no_such_route(request: Request) -> ApiError {
    let message = format!("there is nothing at {}", request.uri().path());
    ApiError::not_found(
        "no_such_route",
        message,
        "docs/reference/api.md lists the routes",
    )
}

async fn no_such_method(request: Request) -> ApiError {
    let message = format!(
        "{} has no method {}",
        request.uri().path(),
        request.method()
    );
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        message,
        "docs/reference/api.md lists the routes",
    )
}
