//! Envoy's own rate limit filters beside the HTTP API: `forebay_quota` as one more gateway of this fleet, in this process.
//!
//! It syncs through the same router as every other gateway, so that a replica that stands by passes its syncs on to the leader, and
//! nothing of the state is reached by another way.

use crate::auth::FilterToken;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use forebay_quota::{Answer, Authorize, Call, Gateway, GatewayError, GatewayOptions, Uplink};
use forebay_wire::sync::MAX_REPLY_BYTES;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// What is needed to serve them.
pub(crate) struct QuotaFront {
    /// The gateway.
    pub(crate) gateway: GatewayOptions,
    /// Who may ask.
    pub(crate) token: FilterToken,
    /// What answers syncs.
    pub(crate) app: Router,
}

#[derive(Clone)]
struct InProcess(Router);

// === impl QuotaFront ===

impl QuotaFront {
    /// Serves on `listener` until `stopped`.
    ///
    /// # Errors
    /// When the gateway's options can never work.
    pub(crate) fn start(
        self,
        listener: TcpListener,
        stopped: watch::Receiver<bool>,
    ) -> Result<JoinHandle<()>, GatewayError> {
        let gateway = Gateway::new(&self.gateway)?;
        let desk = gateway.desk();
        let token = self.token;
        let authorize: Authorize = Arc::new(move |headers| token.is_in(headers));
        // One task, so that nobody is served from a gateway that has broken off.
        Ok(tokio::spawn(async move {
            let steps = gateway.run(InProcess(self.app), stopped.clone());
            let serving = forebay_quota::serve(listener, desk, authorize, stopped);
            if let ((), Err(error)) = tokio::join!(steps, serving) {
                tracing::error!(%error, "Envoy's own rate limit filters are served no longer");
            }
        }))
    }
}

// === impl InProcess ===

impl Uplink for InProcess {
    async fn call(&self, call: Call) -> Answer {
        let mut request = Request::builder();
        for (name, value) in &call.headers {
            request = match name.as_str() {
                ":method" => request.method(value.as_str()),
                ":path" => request.uri(value.as_str()),
                ":authority" => request.header("host", value),
                _ => request.header(name, value),
            };
        }
        let Ok(request) = request.body(Body::from(call.body)) else {
            return Answer::default();
        };
        let Ok(response) = self.0.clone().oneshot(request).await;
        let status = response.status().as_u16();
        match to_bytes(response.into_body(), MAX_REPLY_BYTES).await {
            Ok(body) => Answer {
                status,
                body: body.into(),
            },
            Err(_) => Answer::default(),
        }
    }
}
