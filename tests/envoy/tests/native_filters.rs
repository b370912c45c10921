//! Envoys with nothing but their own rate limit filters, as clients of the same buckets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod native;

use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_envoy_tests::{Bootstrap, Client, ControlPlane, Envoy, Listener, Protocol, Traffic};
use hyper::Method;
use native::{grpc_service, is_assigned, plane_with};
use serde_json::{Value, json};

const RATE_PER_S: u64 = 100;
const BURST: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);
/// Nearly all of the rate within a second can only be where nearly all of it is.
const FULL: u64 = RATE_PER_S * 9 / 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_that_ask_for_each_request_share_one_contract() {
    let plane = plane().await;
    let mut fleet = Vec::new();
    let started = Instant::now();
    for _ in 0..2 {
        fleet.push(Member::start(&plane, asks()).await);
    }
    for member in &fleet {
        member.until_served("the contract", FULL).await;
    }
    fleet[0].traffic.switch(true);
    fleet[1]
        .until_served("half of it beside another one", RATE_PER_S / 4)
        .await;
    assert_within(&fleet, started, 0);

    let mut client = fleet[1]
        .envoy
        .connect("front", Protocol::Http1)
        .await
        .unwrap();
    let mut denied = client.get("/", &[("x-customer", "acme")]).await.unwrap();
    for _ in 0..1_000 {
        if denied.status == 429 {
            break;
        }
        denied = client.get("/", &[("x-customer", "acme")]).await.unwrap();
    }
    fleet[0].traffic.switch(false);
    assert_eq!(denied.header("retry-after"), Some("1"));
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    for customer in [&b"stranger"[..], b"", b"\xff\xfe"] {
        assert_eq!(ask_as(&mut client, customer).await, 429, "{customer:?}");
    }
    let reply = client.get("/", &[]).await.unwrap();
    assert_eq!(reply.status, 200, "nobody is charged for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_that_are_assigned_buckets_share_one_contract_by_their_demand() {
    let mut plane = plane().await;
    let deny = json!({ "fallback_rate_limit": { "blanket_rule": "DENY_ALL" } });
    let denied = json!({ "no_assignment_behavior": deny, "expired_assignment_behavior": deny });
    let mut fleet = Vec::new();
    let started = Instant::now();
    for _ in 0..2 {
        fleet.push(Member::start(&plane, is_assigned("test", &denied)).await);
    }
    for member in &fleet {
        member.until_served("the contract", FULL).await;
    }
    // None of these is a customer, and none may cost the others their assignments.
    let mut client = fleet[0]
        .envoy
        .connect("front", Protocol::Http1)
        .await
        .unwrap();
    for customer in [&b"stranger"[..], b"", b"\xff\xfe"] {
        assert_eq!(ask_as(&mut client, customer).await, 429, "{customer:?}");
    }
    fleet[0]
        .until_served("the contract after those", FULL)
        .await;
    // An assignment that is lowered has to reach the Envoy: half a second of it is far more than that takes.
    let on_its_way = RATE_PER_S / 2;
    assert_within(&fleet, started, on_its_way);
    plane.kill().unwrap();
    plane.restart().await.unwrap();
    fleet[0]
        .until_served("the contract after a restart", FULL)
        .await;
    assert_within(&fleet, started, on_its_way);
}

/// The status of a request for a customer whose key may be anything.
async fn ask_as(client: &mut Client, customer: &[u8]) -> u16 {
    let headers = [("x-customer", customer)];
    let reply = client.send(&Method::GET, "/", &headers, Bytes::new()).await;
    reply.unwrap().status
}

/// The fleet admits no more than one bucket would, and what was on its way.
fn assert_within(fleet: &[Member], started: Instant, on_its_way: u64) {
    let admitted: u64 = fleet.iter().map(|member| member.traffic.admitted()).sum();
    let allowed = BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64();
    println!("{admitted} admitted, {allowed:.0} allowed");
    assert!(
        admitted as f64 <= allowed + on_its_way as f64,
        "{admitted} admitted, {allowed} allowed"
    );
}

async fn plane() -> ControlPlane {
    plane_with(&json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": 1_000 } },
        "contracts": { "standard": { "limits": { "requests": { "rate_per_s": RATE_PER_S, "burst": BURST } } } },
        "customers": [{ "key": "acme", "contract": "standard" }],
    }))
    .await
}

/// Envoy's `ratelimit` filter.
fn asks() -> Value {
    json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "test",
            "failure_mode_deny": true,
            "timeout": "5s",
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limit_service": { "grpc_service": grpc_service(), "transport_api_version": "V3" },
            "rate_limits": [{ "actions": [{
                "request_headers": { "header_name": "x-customer", "descriptor_key": "customer" },
            }] }],
        },
    })
}

/// An Envoy with one of its own filters, and its clients.
struct Member {
    // Ends before the Envoy that it asks.
    traffic: Traffic,
    envoy: Envoy,
}

// === impl Member ===

impl Member {
    async fn start(plane: &ControlPlane, filter: Value) -> Self {
        let mut front = Listener::hop("front", None);
        front.filters_before.push(filter);
        let mut bootstrap = Bootstrap::with(vec![front]);
        bootstrap.clusters.push(plane.grpc_cluster().unwrap());
        let envoy = Envoy::start(&bootstrap, 2).await.unwrap();
        let traffic = Traffic::start(&envoy, "acme").await.unwrap();
        Self { envoy, traffic }
    }

    async fn until_served(&self, what: &str, requests: u64) {
        let (traffic, span) = (&self.traffic, Duration::from_secs(1));
        traffic.until_served(what, requests, span, PATIENCE).await;
    }
}
