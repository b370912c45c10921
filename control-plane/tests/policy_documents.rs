//! Documents of policies: one is compiled at a time, off the threads that answer syncs, and one that the store does not have yet is said to be just that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use axum::http::StatusCode;
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{Clock, Plane};
use forebay_control_plane::store::{Batch, MemoryStore, Row, Store, StoreError, Table, Visitor};
use kit::{ADMIN_TOKEN, Gateway, TestServer, policy, settings};
use serde_json::{Value, json};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const NONE: Value = Value::Null;
const DEADLINE: Duration = Duration::from_secs(30);

/// A store that gives no document while its gate is closed.
#[derive(Debug, Default)]
struct Gated {
    rows: MemoryStore,
    /// Whether it is closed, and how many stand before it.
    gate: Mutex<(bool, usize)>,
    moved: Condvar,
}

impl Gated {
    fn set_closed(&self, is_closed: bool) {
        self.gate.lock().unwrap().0 = is_closed;
        self.moved.notify_all();
    }
}

impl Store for Gated {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.rows.commit(batch)
    }

    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.rows.make_room(bytes)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if table == Table::Policies {
            let mut gate = self.gate.lock().unwrap();
            gate.1 += 1;
            // Not for ever: on a thread that answers, nobody would be left to open it.
            let opened = self
                .moved
                .wait_timeout_while(gate, DEADLINE, |gate| gate.0)
                .unwrap();
            assert!(
                !opened.1.timed_out(),
                "a document is read on the thread that answers"
            );
        }
        self.rows.get(table, key)
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        self.rows.range(table, from, to)
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.rows.visit(table, visitor)
    }
}

#[tokio::test]
async fn documents_take_turns_while_syncs_are_answered_and_too_many_are_told_to_come_again() {
    let (store, clock) = (
        Arc::new(Gated::default()),
        Arc::new(AtomicU64::new(1_000_000)),
    );
    let plane = Plane::start(
        Arc::clone(&store) as Arc<dyn Store>,
        Keys::new(None, None).unwrap(),
        settings(),
        Clock::Manual(Arc::clone(&clock)),
    )
    .unwrap();
    let server = Arc::new(TestServer::over(plane, clock));
    server.ok("POST", "/v1/policies", policy()).await;
    store.set_closed(true);
    let one = Arc::clone(&server);
    let reading = tokio::spawn(async move { one.ok("GET", "/v1/policies/active", NONE).await });
    let deadline = Instant::now() + DEADLINE;
    while store.gate.lock().unwrap().1 == 0 {
        assert!(Instant::now() < deadline, "nobody reads the document");
        tokio::task::yield_now().await;
    }
    // A gateway syncs meanwhile.
    let mut gateway = Gateway::new("one", 1);
    gateway.sync(&server).await;
    let checks: Vec<_> = (0..31)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(
                async move { server.admin("POST", "/v1/policies/check", policy()).await.0 },
            )
        })
        .collect();
    // Each takes its place when it runs first, and all of them run before this goes on.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    for attempt in 0..20 {
        let body = Body::from(policy().to_string());
        let response = server
            .respond("POST", "/v1/policies/check", ADMIN_TOKEN, body)
            .await;
        assert_eq!(
            response.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{attempt}"
        );
        assert_eq!(response.headers()["retry-after"], "5");
        gateway.sync(&server).await;
    }
    assert!(
        checks.iter().all(|check| !check.is_finished()),
        "a document is compiled beside another one"
    );
    store.set_closed(false);
    assert_eq!(reading.await.unwrap()["version"], 1);
    for check in checks {
        assert_eq!(check.await.unwrap(), StatusCode::OK);
    }
    server.ok("POST", "/v1/policies/check", policy()).await;
}

async fn refused(server: &TestServer, method: &str, path: &str, body: Value) -> String {
    let (status, answer) = server.admin(method, path, body).await;
    assert_eq!(
        status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{method} {path}: {answer}"
    );
    answer["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_document_that_the_store_has_not_taken_yet_is_neither_unknown_nor_damaged() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut newer = policy();
    newer["contracts"]["gold"]["limits"]["requests"]["rate_per_s"] = json!(80);
    server.store.set_full(true);
    assert_eq!(
        refused(&server, "POST", "/v1/policies?share=50", newer.clone()).await,
        "store_unavailable"
    );
    // It is in force, and its document is nowhere but in the journal.
    assert_eq!(
        server.ok("GET", "/v1/policies", NONE).await["active"],
        json!(2)
    );
    for (method, path) in [
        ("GET", "/v1/policies/active"),
        ("GET", "/v1/policies/2"),
        ("GET", "/v1/policies/diff?from=1&to=active"),
        ("POST", "/v1/policies/2/activate"),
        ("POST", "/v1/policies/promote"),
    ] {
        assert_eq!(
            refused(&server, method, path, NONE).await,
            "not_yet_durable",
            "{method} {path}"
        );
    }
    // What the store has is shown, and what it never had is not.
    server.ok("GET", "/v1/policies/1", NONE).await;
    let (status, _) = server.admin("GET", "/v1/policies/3", NONE).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    server.store.set_full(false);
    // The first of these waits for the store.
    let shown = server.ok("GET", "/v1/policies/active", NONE).await;
    assert_eq!(shown["version"], 1, "the format of the document");
    let promoted = server.ok("POST", "/v1/policies/promote", NONE).await;
    assert_eq!(promoted["version"], 3);
    let all = server.ok("GET", "/v1/policies/active", NONE).await;
    assert_eq!(
        all["contracts"]["gold"]["limits"]["requests"]["rate_per_s"].to_string(),
        "80"
    );
}
