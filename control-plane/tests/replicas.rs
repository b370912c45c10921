//! Two real `forebay serve` on one real Redis: any of them answers, one leads, and the other takes its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod process;

use forebay_redis_tests::Node;
use process::{ADMIN_TOKEN, Process, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A lease lasts 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

async fn ask(replica: &Process, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let (status, bytes) = send(&replica.address, method, path, ADMIN_TOKEN, body).await?;
    Some((
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    ))
}

async fn until_status(replica: &Process, path: &str, expected: u16) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(replica, "GET", path, &Value::Null).await;
        if let Some((status, value)) = &answer
            && *status == expected
        {
            return value.clone();
        }
        assert!(
            Instant::now() < deadline,
            "{path} of {}: {answer:?}",
            replica.address
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The one that leads first, and the one that stands by.
async fn pair(node: &Node) -> (Process, Process) {
    let first = Process::start_replica(&node.url()).await;
    until_status(&first, "/readyz", 200).await;
    let second = Process::start_replica(&node.url()).await;
    until_status(&second, "/v1/status", 200).await;
    (first, second)
}

async fn apply_policy(replica: &Process) -> u64 {
    let policy = json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 10, "burst": 10}}}},
        "customers": [{"key": "acme", "contract": "gold"}],
    });
    let (status, answer) = ask(replica, "POST", "/v1/policies", &policy).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer["version"].as_u64().unwrap()
}

async fn newest_policy(replica: &Process) -> u64 {
    let answer = until_status(replica, "/v1/policies", 200).await;
    answer["versions"][0]["version"].as_u64().unwrap()
}

async fn store_epoch(replica: &Process) -> u64 {
    let status = until_status(replica, "/v1/status", 200).await;
    status["store_epoch"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_answers_and_one_leads() {
    let node = Node::start().unwrap();
    let (first, second) = pair(&node).await;
    until_status(&second, "/readyz", 503).await;
    until_status(&second, "/healthz", 200).await;
    assert_eq!(apply_policy(&second).await, 1);
    assert_eq!(newest_policy(&first).await, 1);
    let large = vec![b'x'; 1 << 20];
    let (status, answer) = send(&second.address, "POST", "/v1/policies", ADMIN_TOKEN, large)
        .await
        .unwrap();
    assert_eq!(status, 422, "{answer:?}");
    let (status, _) = send(&second.address, "GET", "/v1/status", "wrong", Vec::new())
        .await
        .unwrap();
    assert_eq!(status, 403, "the token is judged by the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_followed_with_all_that_it_acknowledged() {
    let node = Node::start().unwrap();
    let (mut first, second) = pair(&node).await;
    assert_eq!(apply_policy(&first).await, 1);
    let epoch = store_epoch(&first).await;
    first.kill().await;
    until_status(&second, "/readyz", 200).await;
    assert_eq!(newest_policy(&second).await, 1);
    assert!(
        store_epoch(&second).await > epoch,
        "balances count as after a crash"
    );
    assert_eq!(apply_policy(&second).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_stopped_hands_over_at_once_and_cleanly() {
    let node = Node::start().unwrap();
    let (mut first, second) = pair(&node).await;
    assert_eq!(apply_policy(&first).await, 1);
    let epoch = store_epoch(&first).await;
    first.terminate().await;
    let stopped = Instant::now();
    until_status(&second, "/readyz", 200).await;
    println!("the other one leads after {:?}", stopped.elapsed());
    assert_eq!(store_epoch(&second).await, epoch);
    assert_eq!(newest_policy(&second).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_finds_itself_replaced_and_stands_by() {
    let node = Node::start().unwrap();
    let (first, second) = pair(&node).await;
    first.signal("STOP").await;
    until_status(&second, "/readyz", 200).await;
    assert_eq!(apply_policy(&second).await, 1);
    first.signal("CONT").await;
    until_status(&first, "/readyz", 503).await;
    assert_eq!(
        newest_policy(&first).await,
        1,
        "by way of the one that leads"
    );
    until_status(&second, "/readyz", 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_emptied_is_not_taken_for_a_new_one_by_either() {
    let node = Node::start().unwrap();
    let (first, second) = pair(&node).await;
    assert_eq!(apply_policy(&first).await, 1);
    node.ask(&["FLUSHALL"]).unwrap();
    // Each of them has tried several times by then.
    let deadline = Instant::now() + Duration::from_secs(4);
    until_status(&first, "/readyz", 503).await;
    while Instant::now() < deadline {
        for replica in [&first, &second] {
            until_status(replica, "/v1/status", 503).await;
            until_status(replica, "/healthz", 200).await;
        }
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(node.ask(&["DBSIZE"]).unwrap(), "0", "nobody has begun anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nothing_is_answered_and_afterwards_all_is_there() {
    let mut node = Node::start_with(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ])
    .unwrap();
    let (first, second) = pair(&node).await;
    assert_eq!(apply_policy(&first).await, 1);
    node.kill().unwrap();
    for replica in [&first, &second] {
        until_status(replica, "/v1/status", 503).await;
        until_status(replica, "/healthz", 200).await;
    }
    node.restart().unwrap();
    for replica in [&first, &second] {
        assert_eq!(newest_policy(replica).await, 1);
    }
    assert_eq!(apply_policy(&second).await, 2);
}
