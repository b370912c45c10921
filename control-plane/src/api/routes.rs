//! The routes: method, path, who may take it, and what answers, in one table.
//!
//! The router is built from the table, so there is no route without a role. Roles beside the router, looked up by path, were
//! the worse alternative: a route that is forgotten there is open to everybody, or to nobody.

use super::{Server, Shared, audit, customers, gateways, history, metrics, models, policies, sync};
use crate::auth::{Access, Role};
use crate::plane::StatusView;
use axum::Json;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{self, MethodRouter};
use std::sync::Arc;

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{parameters}`.
    pub path: &'static str,
    /// Who may take it.
    pub access: Access,
    /// What answers.
    pub(super) handler: MethodRouter<Arc<Server>>,
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    let at_least = Access::AtLeast;
    vec![
        get("/healthz", Access::Open, async || "ok\n"),
        get("/metrics", Access::Open, metrics::metrics),
        post("/v1/sync", Access::GatewayOnly, sync::sync),
        get("/v1/status", at_least(Viewer), status),
        get("/v1/audit", at_least(Viewer), audit::list),
        get("/v1/policies", at_least(Viewer), policies::list),
        post("/v1/policies", at_least(Admin), policies::apply),
        post("/v1/policies/check", at_least(Operator), policies::check),
        get("/v1/policies/diff", at_least(Viewer), policies::compare),
        get(
            "/v1/policies/{version}",
            at_least(Viewer),
            policies::document,
        ),
        // What is restored was in force before: somebody with a larger role has decided it.
        post(
            "/v1/policies/{version}/activate",
            at_least(Operator),
            policies::activate,
        ),
        get("/v1/customers", at_least(Viewer), customers::list),
        get("/v1/customers/{key}", at_least(Viewer), customers::show),
        post(
            "/v1/customers/{key}/credit",
            at_least(Operator),
            customers::credit,
        ),
        post(
            "/v1/customers/{key}/reset",
            at_least(Operator),
            customers::reset,
        ),
        post(
            "/v1/customers/{key}/ban",
            at_least(Operator),
            customers::ban,
        ),
        post(
            "/v1/customers/{key}/unban",
            at_least(Operator),
            customers::unban,
        ),
        post(
            "/v1/customers/{key}/freeze",
            at_least(Operator),
            customers::freeze,
        ),
        post(
            "/v1/customers/{key}/unfreeze",
            at_least(Operator),
            customers::unfreeze,
        ),
        get("/v1/models", at_least(Viewer), models::list),
        post("/v1/models", at_least(Admin), models::upload),
        // Gateways fetch what they are told to run.
        get("/v1/models/{digest}", at_least(Role::Gateway), models::file),
        post(
            "/v1/models/{digest}/activate",
            at_least(Admin),
            models::activate,
        ),
        post("/v1/models/rollback", at_least(Admin), models::roll_back),
        get("/v1/history", at_least(Viewer), history::export),
        put("/v1/history", at_least(Admin), history::import),
        post(
            "/v1/gateways/{id}/retire",
            at_least(Operator),
            gateways::retire,
        ),
    ]
}

async fn status(State(server): Shared) -> Json<StatusView> {
    Json(server.plane.status())
}

fn get<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::GET, routing::get(handler));
    Route {
        method,
        path,
        access,
        handler,
    }
}

fn post<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::POST, routing::post(handler));
    Route {
        method,
        path,
        access,
        handler,
    }
}

fn put<H: Handler<T, Arc<Server>>, T: 'static>(
    path: &'static str,
    access: Access,
    handler: H,
) -> Route {
    let (method, handler) = (Method::PUT, routing::put(handler));
    Route {
        method,
        path,
        access,
        handler,
    }
}
