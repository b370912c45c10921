//! Envoys with nothing but their own rate limit filters, as clients of the same buckets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_envoy_tests::{
    Bootstrap, Client, ControlPlane, Envoy, Listener, Place, Protocol, Traffic, until,
};
use hyper::Method;
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
    let mut fleet = Vec::new();
    let started = Instant::now();
    for _ in 0..2 {
        fleet.push(Member::start(&plane, is_assigned()).await);
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
    let place = Place {
        grpc_listen: Some("127.0.0.1:0".to_owned()),
        ..Place::default()
    };
    let plane = ControlPlane::start_in(place).await.unwrap();
    let policy = json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": 1_000 } },
        "contracts": { "standard": { "limits": { "requests": { "rate_per_s": RATE_PER_S, "burst": BURST } } } },
        "customers": [{ "key": "acme", "contract": "standard" }],
    });
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", &policy)
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    // The gateway behind the filters has the policy.
    until("the quota gateway has the policy", PATIENCE, async || {
        let answer = plane.admin(Method::GET, "/v1/status", &Value::Null).await;
        let (_, status) = answer.unwrap();
        let gateways = status["gateways"].as_array()?.clone();
        gateways
            .iter()
            .any(|gateway| gateway["policy_version"] == 1)
            .then_some(())
    })
    .await;
    plane
}

fn grpc_service() -> Value {
    let bearer = format!("Bearer {}", ControlPlane::filter_token());
    json!({
        "envoy_grpc": { "cluster_name": "quota" },
        "initial_metadata": [{ "key": "authorization", "value": bearer }],
        "timeout": "5s",
    })
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

/// Envoy's `rate_limit_quota` filter. It lets requests pass for which it can build no bucket id, so those without the header
/// get a bucket of nobody's.
fn is_assigned() -> Value {
    let customer = json!({
        "name": "customer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "x-customer",
        },
    });
    let settings = |bucket_id: Value| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
            "bucket_id_builder": { "bucket_id_builder": bucket_id },
            "reporting_interval": "1s",
            "no_assignment_behavior": { "fallback_rate_limit": { "blanket_rule": "DENY_ALL" } },
            "expired_assignment_behavior": { "fallback_rate_limit": { "blanket_rule": "DENY_ALL" } },
        })
    };
    let action =
        |bucket_id| json!({ "action": { "name": "quota", "typed_config": settings(bucket_id) } });
    json!({
        "name": "envoy.filters.http.rate_limit_quota",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
            "domain": "test",
            "rlqs_server": grpc_service(),
            "bucket_matchers": {
                "matcher_list": { "matchers": [{
                    "predicate": { "single_predicate": {
                        "input": customer,
                        "value_match": { "safe_regex": { "google_re2": {}, "regex": ".+" } },
                    } },
                    "on_match": action(json!({ "customer": { "custom_value": customer } })),
                }] },
                "on_no_match": action(json!({ "nobody": { "string_value": "1" } })),
            },
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
