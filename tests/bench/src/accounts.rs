//! `bench-accounts`: what a million customers cost the control plane once a gateway has asked for each of them, in memory and in
//! either store.
//!
//! One gateway is enough: an account has a part for each gateway that holds something of it, and most customers of a large fleet are at
//! one. Time is not measured, so it need not be a quiet machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use forebay_core::{CustomerHash, Micro, TimeUs};
use forebay_envoy_tests::{Client, ControlPlane, Place, Protocol, until};
use forebay_redis_tests::Node;
use forebay_simulator::Gateway;
use forebay_wire::key::KeySecret;
use forebay_wire::sync::{CONTENT_TYPE, SYNC_PATH, SyncReply};
use hyper::Method;
use prost::Message;
use serde_json::json;
use tokio::time::Instant;

use crate::report::Report;

const CUSTOMERS: u32 = 1_000_000;
/// Customers that the gateway asks for between two syncs; their reports fit into one.
const PER_SYNC: usize = 4_000;
/// The server answers 40 syncs a second to a gateway.
const PAUSE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(300);
/// Rows of accounts follow their reports within 20 s, and the image the log within 30 s.
const STORED_WITHIN: Duration = Duration::from_secs(55);

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let mut report = Report::default();
    let plane = ControlPlane::start().await?;
    let resident_bytes = fill(&plane).await?;
    let per_customer = |bytes: u64| bytes as f64 / f64::from(CUSTOMERS);
    report.add(
        "bytes_per_customer_embedded",
        per_customer(plane.store_bytes()?),
        "on disk",
    );
    report.add(
        "bytes_per_customer_server",
        per_customer(resident_bytes),
        "resident memory of the server, all of it",
    );
    drop(plane);
    let node = Node::start()?;
    let before = used_memory(&node)?;
    let plane = ControlPlane::start_in(Place {
        store: Some(node.url()),
        ..Place::default()
    })
    .await?;
    fill(&plane).await?;
    report.add(
        "bytes_per_customer_redis",
        per_customer(used_memory(&node)?.saturating_sub(before)),
        "memory of Redis",
    );
    report.publish("bench-accounts")
}

/// Has each customer asked for at one gateway. Returns the server's resident memory when all of it is stored.
async fn fill(plane: &ControlPlane) -> Result<u64> {
    until("the server leads", PATIENCE, || async {
        plane.leads(plane.address()).await.then_some(())
    })
    .await;
    let key = |number: u32| format!("customer-{number}");
    let customers: Vec<_> = (0..CUSTOMERS)
        .map(|number| json!({"key": key(number), "contract": "gold"}))
        .collect();
    let policy = json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 2, "burst": 10}}}},
        "customers": customers,
    });
    let (status, answer) = plane.admin(Method::POST, "/v1/policies", &policy).await?;
    ensure!(
        status < 300,
        "the policy was refused with {status}: {answer}"
    );
    let secret = KeySecret::from_hex(ControlPlane::key_hash_secret())?;
    let mut gateway = Gateway::new("gateway".to_owned(), 1, secret.fingerprint());
    let mut client = Client::connect(plane.address(), Protocol::Http1).await?;
    let started = Instant::now();
    let now = || TimeUs(1_000_000 + u64::try_from(started.elapsed().as_micros()).unwrap_or(0));
    let joined_by = started + PATIENCE;
    while !gateway.is_ready() {
        ensure!(Instant::now() < joined_by, "the gateway got no policy");
        sync(&mut gateway, &mut client, now()).await?;
    }
    let hashes: Vec<CustomerHash> = (0..CUSTOMERS)
        .map(|number| CustomerHash(secret.hash(key(number).as_bytes()).0))
        .collect();
    let mut admitted = 0_u32;
    for some in hashes.chunks(PER_SYNC) {
        for customer in some {
            gateway.request(*customer, Micro::from_tokens(1), now());
        }
        // The first sync brings tokens to whoever had none, the second one says that they have come.
        for _ in 0..2 {
            sync(&mut gateway, &mut client, now()).await?;
        }
        for customer in some {
            admitted += u32::from(gateway.request(*customer, Micro::from_tokens(1), now()));
        }
    }
    ensure!(
        admitted > CUSTOMERS / 2,
        "only {admitted} customers were served"
    );
    // Nothing says when the last row is written.
    tokio::time::sleep(STORED_WITHIN).await;
    plane.resident_bytes()
}

async fn sync(gateway: &mut Gateway, client: &mut Client, now: TimeUs) -> Result<()> {
    let body = Bytes::from(gateway.next_request(now).encode_to_vec());
    let authorization = format!("Bearer {}", ControlPlane::gateway_token());
    let headers = [
        ("content-type", CONTENT_TYPE.as_bytes()),
        ("authorization", authorization.as_bytes()),
    ];
    let answer = client
        .send(&Method::POST, SYNC_PATH, &headers, body)
        .await?;
    ensure!(
        answer.status == 200,
        "a sync was answered with {}",
        answer.status
    );
    gateway.apply(&SyncReply::decode(&*answer.body)?, now)?;
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

fn used_memory(node: &Node) -> Result<u64> {
    let info = node.ask(&["info", "memory"])?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let bytes = line.context("Redis does not say how much memory it uses")?;
    Ok(bytes.trim().parse()?)
}
