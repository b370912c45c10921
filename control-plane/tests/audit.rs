//! The audit log: no change without its record, and a chain that shows what was done to it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use forebay_control_plane::api::routes;
use forebay_control_plane::audit::{ChainError, verify};
use forebay_control_plane::auth::{Caller, Role};
use forebay_control_plane::document::Format;
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{AuditPage, Clock, CustomerChange, Plane};
use forebay_control_plane::store::{Batch, MemoryStore, Row, Store, StoreError, Table, Visitor};
use kit::{
    ADMIN_TOKEN, OPERATOR_TOKEN, TestServer, VIEWER_TOKEN, hash, policy, server_and_gateway,
    settings,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const NONE: Value = Value::Null;

async fn log(server: &TestServer) -> AuditPage {
    serde_json::from_value(server.ok("GET", "/v1/audit", NONE).await).unwrap()
}

fn check(log: &AuditPage) -> Result<(), ChainError> {
    verify(&log.anchor, &log.head, &log.records)
}

/// A change that succeeds on the server of the tests, and what its record says.
struct Change {
    route: (&'static str, &'static str),
    path: String,
    body: Value,
    action: &'static str,
    object: String,
    parameters: Value,
    outcome: &'static str,
}

fn change(
    route: (&'static str, &'static str),
    path: &str,
    body: Value,
    (action, object): (&'static str, &str),
    parameters: Value,
    outcome: &'static str,
) -> Change {
    Change {
        route,
        path: path.to_owned(),
        body,
        action,
        object: object.to_owned(),
        parameters,
        outcome,
    }
}

fn changes() -> Vec<Change> {
    let acme = format!("hash:{}", hash("acme"));
    let of_acme = |route: &'static str, body: Value, action, parameters, outcome| {
        let path = route.replace("{key}", "acme");
        change(
            ("POST", route),
            &path,
            body,
            (action, &acme),
            parameters,
            outcome,
        )
    };
    let none = || json!({});
    let series = json!({"series": [{"key": "acme", "step_ms": kit::STEP_MS, "usage": [1, 2]}]});
    vec![
        change(
            ("POST", "/v1/policies/{version}/activate"),
            "/v1/policies/1/activate",
            NONE,
            ("policy.activate", "version 1"),
            none(),
            "version 2",
        ),
        of_acme(
            "/v1/customers/{key}/credit",
            json!({"tokens": -0.5, "resource": "requests"}),
            "customer.credit",
            json!({"resource": "requests", "tokens": "-0.5"}),
            "as the contract says",
        ),
        of_acme(
            "/v1/customers/{key}/reset",
            NONE,
            "customer.reset",
            none(),
            "as the contract says",
        ),
        of_acme(
            "/v1/customers/{key}/ban",
            json!({"until_unix_s": 4_000_000_000_u64}),
            "customer.ban",
            json!({"until_unix_ms": "4000000000000"}),
            "banned until 4000000000000",
        ),
        of_acme(
            "/v1/customers/{key}/freeze",
            NONE,
            "customer.freeze",
            none(),
            "banned until 4000000000000, frozen",
        ),
        of_acme(
            "/v1/customers/{key}/unban",
            NONE,
            "customer.unban",
            none(),
            "frozen",
        ),
        of_acme(
            "/v1/customers/{key}/unfreeze",
            NONE,
            "customer.unfreeze",
            none(),
            "as the contract says",
        ),
        of_acme(
            "/v1/customers/{key}/exempt",
            NONE,
            "customer.exempt",
            none(),
            "exempt",
        ),
        of_acme(
            "/v1/customers/{key}/unexempt",
            NONE,
            "customer.unexempt",
            none(),
            "as the contract says",
        ),
        change(
            ("PUT", "/v1/history"),
            "/v1/history",
            series,
            ("history.import", "history"),
            json!({"series": "1"}),
            "2 values",
        ),
        change(
            ("POST", "/v1/gateways/{id}/retire"),
            "/v1/gateways/g1/retire",
            NONE,
            ("gateway.retire", "g1"),
            none(),
            "retired",
        ),
    ]
}

/// Changes whose records are looked at elsewhere: the policy below, models in tests/models.rs, tests/model_origin.rs, tests/canary.rs and
/// tests/challenger.rs, training in tests/training.rs, shares of customers in tests/rollout.rs, candidates in tests/dry_run.rs, allocations in tests/allocation_cycles.rs.
const ELSEWHERE: [(&str, &str); 15] = [
    ("POST", "/v1/policies"),
    ("POST", "/v1/policies/promote"),
    ("POST", "/v1/policies/rollback"),
    ("POST", "/v1/policies/candidate"),
    ("DELETE", "/v1/policies/candidate"),
    ("POST", "/v1/models"),
    ("POST", "/v1/models/{digest}/activate"),
    ("PUT", "/v1/models/{digest}/about"),
    ("POST", "/v1/models/promote"),
    ("POST", "/v1/models/rollback"),
    ("POST", "/v1/models/{digest}/challenge"),
    ("POST", "/v1/models/withdraw"),
    ("POST", "/v1/training"),
    ("POST", "/v1/training/stop"),
    ("POST", "/v1/allocations/run"),
];

/// Routes that change nothing on a person's behalf.
const CHANGE_NOTHING: [(&str, &str); 3] = [
    ("POST", "/v1/sync"),
    ("POST", "/api/v1/write"),
    ("POST", "/v1/policies/check"),
];

#[tokio::test]
async fn every_change_leaves_a_record_that_says_who_did_what() {
    let (server, _) = server_and_gateway().await;
    let first = log(&server).await.records;
    assert_eq!(
        (
            first.len(),
            first[0].action.as_str(),
            first[0].outcome.as_str()
        ),
        (1, "policy.apply", "version 1")
    );
    assert!(first[0].object.starts_with("sha256:") && first[0].object.len() == 71);
    let changes = changes();
    for change in &changes {
        let before = log(&server).await.head.sequence;
        server
            .ok(change.route.0, &change.path, change.body.clone())
            .await;
        let log = log(&server).await;
        assert_eq!(log.head.sequence, before + 1, "{}", change.path);
        let record = log.records.last().unwrap();
        let seen = (
            record.action.as_str(),
            &record.object,
            json!(record.parameters),
        );
        assert_eq!(
            seen,
            (change.action, &change.object, change.parameters.clone())
        );
        assert_eq!(record.outcome, change.outcome, "{}", change.path);
        assert_eq!(
            (record.role.as_str(), record.at_unix_ms),
            ("admin", server.server.plane.now().unix_ms)
        );
        check(&log).unwrap();
    }
    let routes = routes();
    let changing: BTreeSet<(&str, &str)> = routes
        .iter()
        .filter(|route| route.method != Method::GET)
        .map(|route| (route.method.as_str(), route.path))
        .collect();
    let seen = changes.iter().map(|change| change.route);
    let known: BTreeSet<(&str, &str)> = seen.chain(ELSEWHERE).chain(CHANGE_NOTHING).collect();
    assert_eq!(
        changing, known,
        "each route that changes something is tried here"
    );
}

#[tokio::test]
async fn records_tell_tokens_apart_and_hold_neither_tokens_nor_keys() {
    let (server, _) = server_and_gateway().await;
    for token in [OPERATOR_TOKEN, ADMIN_TOKEN, OPERATOR_TOKEN] {
        let path = "/v1/customers/acme/reset";
        let (status, _) = server.request("POST", path, token, Body::empty()).await;
        assert_eq!(status, StatusCode::OK);
    }
    let records = log(&server).await.records;
    let who: Vec<_> = records[1..]
        .iter()
        .map(|record| (&record.role, &record.token))
        .collect();
    assert_eq!(
        (who[0].0.as_str(), who[1].0.as_str()),
        ("operator", "admin")
    );
    assert_eq!(who[0], who[2]);
    assert_ne!(who[0].1, who[1].1);
    let text: String = records.iter().map(|record| record.line()).collect();
    assert!(
        !text.contains(OPERATOR_TOKEN) && !text.contains(ADMIN_TOKEN) && !text.contains("acme"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_refused_leaves_a_number_and_no_record() {
    let (server, _) = server_and_gateway().await;
    let head = log(&server).await.head;
    for (token, path, body) in [
        (VIEWER_TOKEN, "/v1/customers/acme/freeze", ""),
        ("nobody's", "/v1/customers/acme/freeze", ""),
        ("nobody's", "/v1/customers/acme/freeze", ""),
        (ADMIN_TOKEN, "/v1/customers/acme/credit", "{}"),
        (ADMIN_TOKEN, "/v1/gateways/nobody/retire", ""),
    ] {
        let (status, _) = server.request("POST", path, token, body).await;
        assert!(status.is_client_error(), "{path} {status}");
    }
    assert_eq!(log(&server).await.head, head);
    let (_, metrics) = server.request("GET", "/metrics", "", Body::empty()).await;
    let metrics = String::from_utf8(metrics).unwrap();
    for (code, count) in [("no_token", 0), ("wrong_token", 2), ("role_too_small", 1)] {
        let line = format!("\nforebay_requests_refused_total{{code=\"{code}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn a_change_and_its_record_survive_together_or_not_at_all() {
    let (server, _) = server_and_gateway().await;
    server.ok("POST", "/v1/customers/acme/freeze", NONE).await;
    server.store.set_full(true);
    let (status, _) = server
        .admin("POST", "/v1/customers/acme/unfreeze", NONE)
        .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        log(&server).await.records.len(),
        2,
        "what is not durable is not shown"
    );
    // The process dies while the disk is full: the writer's last attempt fails as well.
    let (store, clock) = (Arc::clone(&server.store), Arc::clone(&server.clock));
    drop(server);
    store.set_full(false);
    let lost = TestServer::on(store, clock);
    let frozen = |view: Value| view["frozen"].clone();
    assert_eq!(
        frozen(lost.ok("GET", "/v1/customers/acme", NONE).await),
        json!(true)
    );
    let log_after = log(&lost).await;
    assert_eq!(log_after.records.len(), 2);
    lost.ok("POST", "/v1/customers/acme/unfreeze", NONE).await;
    let log_after = log(&lost).await;
    assert_eq!(log_after.records[2].action, "customer.unfreeze");
    check(&log_after).unwrap();
}

/// A store that remembers which tables each commit has touched.
#[derive(Debug, Default)]
struct Witness {
    rows: MemoryStore,
    commits: Mutex<Vec<BTreeSet<Table>>>,
}

impl Store for Witness {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let tables = batch.changes().iter().map(|(table, _, _)| table);
        self.commits.lock().unwrap().push(tables.collect());
        self.rows.commit(batch)
    }

    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.rows.make_room(bytes)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
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
async fn no_commit_holds_a_change_without_its_record() {
    let store = Arc::new(Witness::default());
    let keys = Keys::new(None, None).unwrap();
    let of_plane = Arc::clone(&store) as Arc<dyn Store>;
    let plane = Plane::start(of_plane, keys, settings(), Clock::system()).unwrap();
    let by = Caller {
        role: Role::Admin,
        fingerprint: String::new(),
    };
    let text = policy().to_string();
    plane.apply_policy(&by, &text, Format::Json).await.unwrap();
    // Many, because commits that follow each other closely are lumped.
    for _ in 0..100 {
        for change in [CustomerChange::Freeze, CustomerChange::Thaw] {
            plane
                .change_customer(&by, hash("acme"), change)
                .await
                .unwrap();
        }
    }
    let commits = store.commits.lock().unwrap();
    let changes = [Table::Overrides, Table::Policies];
    let with_change = commits
        .iter()
        .filter(|tables| changes.iter().any(|table| tables.contains(table)));
    let with_change: Vec<_> = with_change.collect();
    assert!(with_change.len() > 100, "{}", with_change.len());
    assert!(
        with_change
            .iter()
            .all(|tables| tables.contains(&Table::Audit)),
        "{with_change:?}"
    );
}

#[tokio::test]
async fn the_log_keeps_its_newest_records_and_the_hash_of_the_last_one_it_dropped() {
    let (server, _) = server_and_gateway().await;
    let keep = settings().audit_keep as u64;
    for _ in 0..keep + 20 {
        server.ok("POST", "/v1/customers/acme/reset", NONE).await;
    }
    let server = server.killed();
    server.ok("POST", "/v1/customers/acme/reset", NONE).await;
    let whole = log(&server).await;
    let newest = keep + 22;
    assert_eq!(
        (whole.anchor.sequence, whole.head.sequence),
        (newest - keep, newest)
    );
    let numbers: Vec<u64> = whole.records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (newest - keep + 1..=newest).collect::<Vec<_>>());
    check(&whole).unwrap();
    let rows = server
        .store
        .range(Table::Audit, &[0; 8], &[0xff; 8])
        .unwrap();
    assert_eq!(rows.len() as u64, keep);
    let page = server
        .ok(
            "GET",
            &format!("/v1/audit?after={}&limit=2", newest - 10),
            NONE,
        )
        .await;
    let numbers = page["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["sequence"].as_u64());
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        [Some(newest - 9), Some(newest - 8)]
    );
    let none = server.ok("GET", "/v1/audit?limit=0", NONE).await;
    assert_eq!(none["records"], json!([]));
    assert_eq!(none["head"]["sequence"], json!(newest));
}

/// A record's number, and what is stored under it.
type StoredLine = (u64, Option<Vec<u8>>);

#[tokio::test]
async fn whatever_is_done_to_the_stored_log_shows() {
    let (server, mut gateway) = server_and_gateway().await;
    for _ in 0..8 {
        server.ok("POST", "/v1/customers/acme/reset", NONE).await;
        gateway.sync(&server).await;
    }
    let good = log(&server).await;
    assert_eq!(good.records.len(), 9);
    check(&good).unwrap();
    let key = |sequence: u64| sequence.to_be_bytes();
    let line = |sequence: u64| {
        server
            .store
            .get(Table::Audit, &key(sequence))
            .unwrap()
            .unwrap()
    };
    let cases: Vec<(&str, Vec<StoredLine>, ChainError)> = {
        let changed = |sequence: u64| {
            let text = String::from_utf8(line(sequence)).unwrap();
            Some(
                text.replace("customer.reset", "customer.unban")
                    .into_bytes(),
            )
        };
        vec![
            ("changed", vec![(4, changed(4))], ChainError::Changed(4)),
            (
                "the newest changed",
                vec![(9, changed(9))],
                ChainError::Changed(9),
            ),
            (
                "taken out",
                vec![(4, None)],
                ChainError::Missing {
                    expected: 4,
                    found: 5,
                },
            ),
            (
                "the first taken out",
                vec![(1, None)],
                ChainError::Missing {
                    expected: 1,
                    found: 2,
                },
            ),
            (
                "cut off",
                vec![(8, None), (9, None)],
                ChainError::CutOff {
                    expected: 9,
                    found: 7,
                },
            ),
            (
                "swapped",
                vec![(4, Some(line(5))), (5, Some(line(4)))],
                ChainError::Missing {
                    expected: 4,
                    found: 5,
                },
            ),
        ]
    };
    for (what, tampering, shows) in cases {
        let before: Vec<_> = tampering
            .iter()
            .map(|(sequence, _)| (*sequence, Some(line(*sequence))))
            .collect();
        let apply = |rows: Vec<StoredLine>| {
            let mut batch = Batch::default();
            for (sequence, value) in rows {
                match value {
                    Some(value) => batch.put(Table::Audit, key(sequence), value),
                    None => batch.delete(Table::Audit, key(sequence)),
                }
            }
            server.store.commit(&batch).unwrap();
        };
        apply(tampering);
        assert_eq!(check(&log(&server).await), Err(shows), "{what}");
        apply(before);
        check(&log(&server).await).unwrap();
    }
}

#[tokio::test]
async fn a_log_that_goes_on_while_it_is_read_is_whole() {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    let mut read = log(&server).await;
    // Retention has dropped what was read meanwhile.
    for _ in 0..settings().audit_keep {
        server.ok("POST", "/v1/customers/acme/reset", NONE).await;
    }
    let rest: AuditPage =
        serde_json::from_value(server.ok("GET", "/v1/audit?after=1", NONE).await).unwrap();
    assert_eq!(rest.anchor.sequence, 1);
    read.records.extend(rest.records);
    verify(&rest.anchor, &rest.head, &read.records).unwrap();
}
