//! The HTTP interface: routes, and who may take them.
//!
//! Handlers only translate. Each route checks the token before a byte of the body is read, and each body has a bound.

mod alerts;
mod allocations;
mod anomalies;
mod audit;
mod body;
mod covariates;
mod customers;
mod documents;
mod forecasts;
mod gateways;
mod history;
mod metrics;
mod models;
mod openapi;
mod policies;
mod routes;
mod spillover;
mod sync;
mod throttle;
mod training;

pub use openapi::document as openapi_document;
pub use routes::{Route, routes};
pub use throttle::Throttle;

use crate::auth::{Access, Caller, Tokens};
use crate::error::ApiError;
use crate::models::{Sandbox, SigningKeyFile};
use crate::plane::Plane;
use crate::tls::{Certified, Tls};
use crate::training::Training;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use tokio::runtime::Handle;

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
    /// How often gateways may sync.
    pub throttle: Throttle,
    /// What speaks TLS, if the server does.
    pub tls: Option<Arc<Tls>>,
    /// Models from the usage of one's own customers.
    pub training: Training,
}

type Shared = State<Arc<Server>>;
/// Whose token it was: the guard leaves it with the request.
type By = Extension<Caller>;
type Answer<T> = Result<Json<T>, ApiError>;

impl Server {
    /// Begins what it does without being asked, for as long as somebody holds it.
    #[must_use]
    pub fn begin(self, background: &Handle) -> Arc<Self> {
        let server = Arc::new(self);
        server.training.begin(&server, background);
        crate::forecasts::begin(&server, background);
        crate::allocation::begin(&server, background);
        crate::dry_run::begin(&server, background);
        crate::risk::begin(&server, background);
        crate::anomaly::begin(&server, background);
        server
    }
}

/// All routes, each behind its guard.
pub fn router(server: &Arc<Server>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        let guarded = from_fn_with_state((Arc::clone(server), route.access), guard);
        router.route(route.path, route.handler.route_layer(guarded))
    });
    router
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::clone(server))
}

async fn guard(
    State((server, access)): State<(Arc<Server>, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    let certified = request.extensions().get::<Certified>();
    match server.tokens.require(request.headers(), certified, access) {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            if let Err(error) = check_query(request.uri()) {
                return error.into_response();
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Refuses parameters that are no text: those who read them would put U+FFFD for what they cannot read, and answer about somebody else.
fn check_query(uri: &Uri) -> Result<(), ApiError> {
    let parameters = uri.query().unwrap_or_default().split('&');
    let mut wrong =
        parameters.filter(|parameter| percent_decode_str(parameter).decode_utf8().is_err());
    let Some(parameter) = wrong.next() else {
        return Ok(());
    };
    let name = parameter.split('=').next().unwrap_or_default();
    let message = format!("the parameter `{name}` of the query is not UTF-8 when it is decoded");
    let hint = "write it in percent-encoded UTF-8";
    Err(ApiError::malformed(message, hint).at("query"))
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
