//! What the tests of the server share: a server in this process with a clock that is moved by hand, and a gateway that speaks
//! to it.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod forecaster;
pub(crate) mod ledger_gateway;
pub(crate) mod modelled;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use forebay_control_plane::api::{Server, Throttle, router};
use forebay_control_plane::auth::{Secrets, Tokens};
use forebay_control_plane::covariates::Chosen;
use forebay_control_plane::keys::Keys;
use forebay_control_plane::models::{Sandbox, SandboxLimits, SigningKeyFile};
use forebay_control_plane::plane::{Clock, Plane, Settings};
use forebay_control_plane::prometheus::RemoteWrite;
use forebay_control_plane::store::{MemoryStore, Store};
use forebay_control_plane::training::{Training, TrainingOptions};
use forebay_wire::key::{CustomerHash, KeySecret};
use forebay_wire::sync::{
    CustomerReport, FLAG_NOT_GRANTED, Grant, PROTOCOL, SyncReply, SyncRequest, WindowWish,
};
use http_body_util::BodyExt;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;
use tower::ServiceExt;

pub(crate) const GATEWAY_TOKEN: &str = "gateway-token-of-the-tests";
pub(crate) const SENDER_TOKEN: &str = "sender-token-of-the-tests";
pub(crate) const VIEWER_TOKEN: &str = "viewer-token-of-the-tests";
pub(crate) const OPERATOR_TOKEN: &str = "operator-token-of-the-tests";
pub(crate) const ADMIN_TOKEN: &str = "admin-token-of-the-tests";
pub(crate) const STEP_MS: u32 = 1_000;

/// Acme has 100 tokens/s and a burst of 50; unknown customers get 10/s and 5.
pub(crate) fn policy() -> Value {
    json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 1000}},
        "contracts": {
            "gold": {"limits": {"requests": {"rate_per_s": 100, "burst": 50, "guarantee_per_s": 20}}},
            "free": {"tier": 3, "limits": {"requests": {"rate_per_s": 10, "burst": 5}}}
        },
        "customers": [{"key": "acme", "contract": "gold"}, {"key": "bolt", "contract": "gold"}]
    })
}

pub(crate) fn settings() -> Settings {
    Settings {
        lease_ttl_ms: 10_000,
        fallback_ttl_ms: 60_000,
        sync_interval_ms: 250,
        step_ms: STEP_MS,
        history_steps: 512,
        max_other_customers: 100,
        audit_keep: 100,
    }
}

/// A server whose store outlives it.
pub(crate) struct TestServer {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) server: Arc<Server>,
    app: Router,
}

impl TestServer {
    pub(crate) fn new() -> Self {
        Self::on(
            Arc::new(MemoryStore::default()),
            Arc::new(AtomicU64::new(1_000_000)),
        )
    }

    pub(crate) fn on(store: Arc<MemoryStore>, clock: Arc<AtomicU64>) -> Self {
        Self::with(store, clock, nowhere(), None)
    }

    pub(crate) fn with(
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        sandbox: Sandbox,
        signing_key: Option<SigningKeyFile>,
    ) -> Self {
        // The clock of the tests stands still while gateways sync.
        let unlimited = Throttle::new(1_000_000);
        let training = no_training();
        Self::assemble(
            store,
            clock,
            sandbox,
            signing_key,
            unlimited,
            None,
            training,
        )
    }

    /// A server that trains, whenever it has a reason.
    pub(crate) fn training(
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        sandbox: Sandbox,
        signing_key: Option<SigningKeyFile>,
        training: Training,
    ) -> Self {
        let unlimited = Throttle::new(1_000_000);
        let server = Self::assemble(
            store,
            clock,
            sandbox,
            signing_key,
            unlimited,
            None,
            training,
        );
        server
            .server
            .training
            .begin(&server.server, &Handle::current());
        server
    }

    /// A server that sends the usage of finished steps.
    pub(crate) fn sending(
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        remote_write: RemoteWrite,
    ) -> Self {
        let unlimited = Throttle::new(1_000_000);
        Self::assemble(
            store,
            clock,
            nowhere(),
            None,
            unlimited,
            Some(remote_write),
            no_training(),
        )
    }

    /// A server that answers each gateway so many syncs a second.
    pub(crate) fn throttled(max_syncs_per_s: u32) -> Self {
        Self::assemble(
            Arc::default(),
            Arc::new(AtomicU64::new(1_000_000)),
            nowhere(),
            None,
            Throttle::new(max_syncs_per_s),
            None,
            no_training(),
        )
    }

    fn assemble(
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        sandbox: Sandbox,
        signing_key: Option<SigningKeyFile>,
        throttle: Throttle,
        remote_write: Option<RemoteWrite>,
        training: Training,
    ) -> Self {
        let mut plane = Plane::start(
            Arc::clone(&store) as Arc<dyn Store>,
            Keys::new(None, None).unwrap(),
            settings(),
            Clock::Manual(Arc::clone(&clock)),
        )
        .unwrap()
        .signed_by(signing_key.clone());
        if let Some(remote_write) = remote_write {
            plane = plane.exported_by(remote_write);
        }
        Self::of(
            plane,
            store,
            clock,
            sandbox,
            signing_key,
            throttle,
            training,
        )
    }

    /// A server that keeps covariates, and trains when it is asked to.
    pub(crate) fn measuring(
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        chosen: Chosen,
        sandbox: Sandbox,
        training: Training,
    ) -> Self {
        let plane = Plane::start(
            Arc::clone(&store) as Arc<dyn Store>,
            Keys::new(None, None).unwrap(),
            settings(),
            Clock::Manual(Arc::clone(&clock)),
        )
        .unwrap()
        .measuring(chosen)
        .unwrap();
        let unlimited = Throttle::new(1_000_000);
        let server = Self::of(plane, store, clock, sandbox, None, unlimited, training);
        server
            .server
            .training
            .begin(&server.server, &Handle::current());
        server
    }

    /// A server over a plane whose store is not that of the kit.
    pub(crate) fn over(plane: Plane, clock: Arc<AtomicU64>) -> Self {
        let unlimited = Throttle::new(1_000_000);
        let store = Arc::default();
        Self::of(
            plane,
            store,
            clock,
            nowhere(),
            None,
            unlimited,
            no_training(),
        )
    }

    fn of(
        plane: Plane,
        store: Arc<MemoryStore>,
        clock: Arc<AtomicU64>,
        sandbox: Sandbox,
        signing_key: Option<SigningKeyFile>,
        throttle: Throttle,
        training: Training,
    ) -> Self {
        let tokens = Tokens::new(Secrets {
            sender: Some(SENDER_TOKEN),
            gateway: Some(GATEWAY_TOKEN),
            viewer: Some(VIEWER_TOKEN),
            operator: Some(OPERATOR_TOKEN),
            admin: ADMIN_TOKEN,
        })
        .unwrap();
        let server = Arc::new(Server {
            plane,
            sandbox,
            signing_key,
            public_key: None,
            tokens,
            throttle,
            tls: None,
            training,
        });
        let app = router(&server);
        Self {
            store,
            clock,
            server,
            app,
        }
    }

    /// The process dies: nothing is said, everything in memory is gone.
    pub(crate) fn killed(self) -> Self {
        let Self {
            store,
            clock,
            server,
            app,
        } = self;
        drop((server, app));
        Self::on(store, clock)
    }

    /// The server stops as it should and starts again.
    pub(crate) async fn restarted(self) -> Self {
        self.server.plane.stop().await.unwrap();
        self.killed()
    }

    pub(crate) fn advance_ms(&self, ms: u64) {
        self.clock.fetch_add(ms * 1_000, Ordering::SeqCst);
    }

    pub(crate) async fn respond(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: impl Into<Body>,
    ) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(body.into())
            .unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Vec<u8>) {
        let response = self.respond(method, path, token, body).await;
        (response.status(), bytes_of(response).await)
    }

    /// An admin request; the answer must be JSON.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let (status, bytes) = self.request(method, path, ADMIN_TOKEN, body).await;
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| panic!("{method} {path}: {}", String::from_utf8_lossy(&bytes)));
        (status, value)
    }

    /// The same, and it must succeed.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.admin(method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {value}");
        value
    }

    pub(crate) async fn sync(&self, request: &SyncRequest) -> (StatusCode, SyncReply) {
        let (status, bytes) = self
            .request("POST", "/v1/sync", GATEWAY_TOKEN, request.encode_to_vec())
            .await;
        (status, SyncReply::decode(bytes.as_slice()).unwrap())
    }
}

/// A judge without a forecaster.
pub(crate) fn nowhere() -> Sandbox {
    Sandbox::new(
        Path::new("/nonexistent/forecaster.wasm"),
        SandboxLimits::default(),
    )
}

pub(crate) async fn bytes_of(response: Response) -> Vec<u8> {
    let body = response.into_body().collect().await.unwrap();
    body.to_bytes().to_vec()
}

/// A gateway as the server sees it: counters, grants applied once, and a policy that it puts in force.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    pub(crate) reply_applied: u64,
    pub(crate) epoch: u64,
    pub(crate) cursor: u64,
    /// Customer -> cumulative demand in micro-tokens.
    pub(crate) demand: BTreeMap<CustomerHash, u64>,
    /// Customer -> newest grant.
    pub(crate) grants: BTreeMap<CustomerHash, Grant>,
}

impl Gateway {
    pub(crate) fn new(id: &str, incarnation: u64) -> Self {
        Self {
            id: id.to_owned(),
            incarnation,
            sequence: 0,
            reply_applied: 0,
            epoch: 0,
            cursor: 0,
            demand: BTreeMap::new(),
            grants: BTreeMap::new(),
        }
    }

    pub(crate) fn spend(&mut self, key: &str, tokens: u64) {
        *self.demand.entry(hash(key)).or_default() += tokens * 1_000_000;
    }

    /// The next request: everything it knows, cumulative.
    pub(crate) fn request(&mut self) -> SyncRequest {
        self.sequence += 1;
        let customers = self.demand.iter().map(|(customer, demand)| {
            let (hash_high, hash_low) = customer.parts();
            let grant = self.grants.get(customer).copied().unwrap_or_default();
            let moved = grant
                .granted_cum_micro
                .wrapping_add_signed(grant.adjust_cum_micro);
            let flags = if self.grants.contains_key(customer) {
                0
            } else {
                FLAG_NOT_GRANTED
            };
            CustomerReport {
                hash_high,
                hash_low,
                demand_micro: *demand,
                admitted_micro: *demand,
                granted_seen_micro: grant.granted_cum_micro,
                adjust_seen_micro: grant.adjust_cum_micro,
                balance_micro: i64::try_from(moved.saturating_sub(*demand)).unwrap(),
                reply_applied: self.reply_applied,
                flags,
                ..CustomerReport::default()
            }
        });
        SyncRequest {
            protocol: PROTOCOL,
            gateway_id: self.id.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            sent_at_us: self.sequence * 1_000,
            key_fingerprint: KeySecret::development().fingerprint(),
            policy_epoch_applied: self.epoch,
            policy_epoch_seen: self.epoch,
            policy_cursor: self.cursor,
            customers: customers.collect(),
            reply_applied: self.reply_applied,
            ..SyncRequest::default()
        }
    }

    pub(crate) fn apply(&mut self, reply: &SyncReply) {
        assert_eq!(reply.error, None);
        self.reply_applied = reply.sequence;
        if let Some(policy) = &reply.policy {
            assert!(policy.complete, "the tests' policies fit into one part");
            (self.epoch, self.cursor) = (policy.epoch, policy.cursor);
        }
        for grant in &reply.grants {
            self.grants.insert(
                CustomerHash::from_parts(grant.hash_high, grant.hash_low),
                *grant,
            );
        }
    }

    /// Syncs and applies the reply.
    pub(crate) async fn sync(&mut self, server: &TestServer) -> SyncReply {
        let request = self.request();
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, StatusCode::OK, "{reply:?}");
        self.apply(&reply);
        reply
    }

    /// Tokens that were ever granted for a customer in this incarnation.
    pub(crate) fn granted_tokens(&self, key: &str) -> f64 {
        self.grants
            .get(&hash(key))
            .map_or(0.0, |grant| grant.granted_cum_micro as f64 / 1e6)
    }
}

pub(crate) fn hash(key: &str) -> CustomerHash {
    KeySecret::development().hash(key.as_bytes())
}

pub(crate) fn wish(key: &str) -> WindowWish {
    let (hash_high, hash_low) = hash(key).parts();
    WindowWish {
        hash_high,
        hash_low,
    }
}

/// A server with the policy in force, and a gateway that has it.
pub(crate) async fn server_and_gateway() -> (TestServer, Gateway) {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    (server, gateway)
}

/// There is no trainer beside a test.
pub(crate) fn no_training() -> Training {
    Training::new(TrainingOptions::default().choose(60_000, 1).unwrap())
}
