//! What this replica is at the moment, and what it does with a request.

use super::forward::{FORWARDED, forward};
use crate::api;
use crate::error::ApiError;
use crate::store::Lease;
use crate::tls::Tls;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, PoisonError, RwLock};
use tower::ServiceExt;

/// A replica's role, shared between those who answer requests and the one who changes it.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    now: Arc<RwLock<Now>>,
    /// What speaks TLS, with clients and with other replicas.
    tls: Option<Arc<Tls>>,
}

#[derive(Clone, Debug, Default)]
enum Now {
    /// It knows of no leader.
    #[default]
    Waits,
    /// Another one leads.
    Follows { leader: String },
    /// It leads.
    Leads { app: Router, lease: Arc<Lease> },
}

// === impl Role ===

impl Role {
    /// It waits for a leader to be known.
    pub(crate) fn new(tls: Option<Arc<Tls>>) -> Self {
        let now = Arc::default();
        Self { now, tls }
    }

    /// Requests are answered here from now on.
    pub(crate) fn leads(&self, server: &Arc<api::Server>, lease: Arc<Lease>) {
        let app = api::router(server);
        self.becomes(Now::Leads { app, lease });
    }

    /// Requests are passed on from now on.
    pub(crate) fn follows(&self, leader: String) {
        self.becomes(Now::Follows { leader });
    }

    /// Requests are refused from now on.
    pub(crate) fn waits(&self) {
        self.becomes(Now::Waits);
    }

    fn becomes(&self, now: Now) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn now(&self) -> Now {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }
}

/// Everything that is asked of a replica.
pub(crate) fn router(role: &Role) -> Router {
    Router::new().fallback(answer).with_state(role.clone())
}

async fn answer(State(role): State<Role>, mut request: Request) -> Response {
    let path = request.uri().path();
    match role.now() {
        // A process that is restarted because the store is away would forget what it had seen of it.
        _ if path == "/healthz" => "ok\n".into_response(),
        Now::Leads { app, lease } => {
            // What a client says of itself in this way takes its certificate away and brings nothing.
            if let Some(tls) = &role.tls
                && request.headers().contains_key(FORWARDED)
                && let Err(error) = tls.believe(&mut request)
            {
                return error.into_response();
            }
            let Ok(response) = app.oneshot(request).await;
            // Changes were refused by the store when another one leads. What needed none is held back here: another one may have
            // changed it meanwhile, and a gateway would take the answer for a longer lease.
            if lease.is_held() {
                response
            } else {
                nobody_leads("this replica has not heard of the store for too long")
            }
        }
        Now::Follows { leader } if path == "/readyz" => {
            nobody_leads(&format!("this replica stands by, {leader} leads"))
        }
        Now::Follows { leader } if request.headers().contains_key(FORWARDED) => nobody_leads(
            &format!("a request was passed on to this replica, which stands by for {leader}"),
        ),
        Now::Follows { leader } => forward(&leader, role.tls.as_deref(), request)
            .await
            .unwrap_or_else(|reason| nobody_leads(&reason)),
        Now::Waits => nobody_leads("no replica leads"),
    }
}

fn nobody_leads(message: &str) -> Response {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no_leader",
        message,
        "try again: when the leader is lost another replica takes its place within seconds",
    )
    .into_response()
}
