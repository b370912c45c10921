//! Tokens that went wrong are counted by cause: admitted beyond a contract, or lost to everybody for a while.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use kit::{Gateway, TestServer, settings};
use serde_json::{Value, json};

const SYNC_MS: u64 = 250;

fn policy(burst: u64) -> Value {
    json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {"capacity_per_s": 1000}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 100, "burst": burst}}}},
        "customers": [{"key": "acme", "contract": "gold"}]
    })
}

async fn server_and_gateway() -> (TestServer, Gateway) {
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy(50)).await;
    let mut gateway = Gateway::new("g1", 7);
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    (server, gateway)
}

/// Sums by cause.
async fn tokens(server: &TestServer, what: &str) -> Value {
    server.ok("GET", "/v1/status", Value::Null).await[what].clone()
}

async fn of_cause(server: &TestServer, what: &str, cause: &str) -> f64 {
    let by_cause = tokens(server, what).await;
    let others = by_cause.as_object().unwrap().iter();
    for (other, sum) in others.filter(|(other, _)| *other != cause) {
        assert_eq!(sum.as_f64(), Some(0.0), "{what}: {other}");
    }
    by_cause[cause].as_f64().unwrap()
}

/// The gateway admits so many requests with each of its syncs for so many seconds.
async fn admits(server: &TestServer, gateway: &mut Gateway, a_sync: u64, seconds: u64) {
    for _ in 0..seconds * 1_000 / SYNC_MS {
        server.advance_ms(SYNC_MS);
        gateway.spend("acme", a_sync);
        gateway.sync(server).await;
    }
}

#[tokio::test]
async fn a_gateway_that_keeps_the_contract_is_not_blamed_and_one_that_does_not_is() {
    let (server, mut gateway) = server_and_gateway().await;
    server.advance_ms(60_000);
    gateway.sync(&server).await;
    admits(&server, &mut gateway, 0, 20).await;
    admits(&server, &mut gateway, 25, 60).await;
    let over = of_cause(&server, "over_admitted_tokens", "other").await;
    assert_eq!(over, 0.0, "100 a second are the contract's");
    admits(&server, &mut gateway, 50, 60).await;
    let over = of_cause(&server, "over_admitted_tokens", "other").await;
    assert!((4_300.0..=6_000.0).contains(&over), "{over} of 6000");
    let (_, metrics) = server.request("GET", "/metrics", "", Body::empty()).await;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = format!("forebay_over_admitted_tokens_total{{cause=\"other\"}} {over}\n");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn what_an_exempt_customer_uses_or_an_operator_gives_is_not_beyond_the_contract() {
    let (server, mut gateway) = server_and_gateway().await;
    admits(&server, &mut gateway, 0, 20).await;
    let credit = json!({"resource": "requests", "tokens": 1_000});
    server.ok("POST", "/v1/customers/acme/credit", credit).await;
    admits(&server, &mut gateway, 50, 10).await;
    server
        .ok("POST", "/v1/customers/acme/exempt", Value::Null)
        .await;
    admits(&server, &mut gateway, 500, 30).await;
    let over = of_cause(&server, "over_admitted_tokens", "other").await;
    assert_eq!(over, 0.0);
}

#[tokio::test]
async fn tokens_of_a_gateway_that_fell_silent_are_stranded_and_those_of_the_centre_after_a_crash() {
    let (server, gateway) = server_and_gateway().await;
    let held = gateway.granted_tokens("acme");
    assert!(held > 0.0);
    let settings = settings();
    let gone_ms = settings.lease_ttl_ms + settings.fallback_ttl_ms + 10_000;
    server.advance_ms(u64::from(gone_ms));
    let mut other = Gateway::new("g2", 8);
    other.sync(&server).await;
    other.sync(&server).await;
    other.spend("acme", 1);
    other.sync(&server).await;
    let stranded = of_cause(&server, "stranded_tokens", "partition").await;
    assert_eq!(stranded, held);
    // Of what is divided among two a part stays in the centre. What the centre holds when nobody asks any more reaches the store within half a
    // minute.
    let mut third = Gateway::new("g3", 9);
    for second in 0..40 {
        server.advance_ms(1_000);
        if second < 10 {
            other.spend("acme", 1);
        }
        other.sync(&server).await;
        third.sync(&server).await;
    }
    let server = server.killed();
    let stranded = of_cause(&server, "stranded_tokens", "cold_start").await;
    assert!(stranded > 0.0 && stranded <= 50.0, "{stranded}");
}
