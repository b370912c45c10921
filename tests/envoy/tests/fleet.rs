//! Three real gateways and one contract: it follows the traffic, survives deaths, and is never exceeded.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use forebay_envoy_tests::{ControlPlane, Envoy, Traffic, gateway};
use hyper::Method;
use serde_json::json;

const RATE_PER_S: u64 = 100;
const BURST: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_follows_its_traffic_and_is_never_exceeded_whoever_dies() {
    let mut plane = ControlPlane::start().await.unwrap();
    let policy = json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": 1_000 } },
        "contracts": { "standard": { "limits": { "requests": {
            "rate_per_s": RATE_PER_S, "burst": BURST, "guarantee_per_s": 30,
        } } } },
        "customers": [{ "key": "acme", "contract": "standard" }],
    });
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", &policy)
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    let started = Instant::now();
    let mut fleet = Vec::new();
    for number in 0..3 {
        fleet.push(Member::start(&plane, number).await);
    }
    let total = || fleet.iter().map(Member::admitted).sum::<u64>();
    for member in &fleet {
        member
            .until_served("its starter", 1, Duration::from_secs(1))
            .await;
    }
    // Nearly all of the rate within a second can only be where nearly all of it was granted.
    let full = RATE_PER_S * 9 / 10;
    for member in &fleet {
        member
            .until_served("the contract", full, Duration::from_secs(1))
            .await;
    }
    plane.kill().unwrap();
    fleet[2]
        .until_served(
            "the contract without a control plane",
            full,
            Duration::from_secs(1),
        )
        .await;
    plane.restart().await.unwrap();
    fleet[0]
        .until_served("the contract after a restart", full, Duration::from_secs(1))
        .await;

    let before = total();
    let allowed_before = allowed(started);
    let dead = fleet.remove(0);
    let admitted_by_dead = dead.admitted();
    drop(dead);
    // All but a third of the guarantee follows when the lease of the dead one has ended.
    fleet[0]
        .until_served(
            "most of the contract after a death",
            RATE_PER_S * 8 / 10,
            Duration::from_secs(1),
        )
        .await;
    let admitted = admitted_by_dead + fleet.iter().map(Member::admitted).sum::<u64>();
    let allowed = allowed(started);
    println!(
        "{admitted} admitted, {allowed:.0} allowed; {before} and {allowed_before:.0} before a gateway died"
    );
    assert!(
        admitted as f64 <= allowed,
        "{admitted} admitted, {allowed} allowed"
    );
    assert!(
        before as f64 <= allowed_before,
        "{before} admitted, {allowed_before} allowed"
    );
}

fn allowed(started: Instant) -> f64 {
    BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64()
}

/// A gateway and its clients.
struct Member {
    // Ends before the Envoy that it asks.
    traffic: Traffic,
    _envoy: Envoy,
}

// === impl Member ===

impl Member {
    async fn start(plane: &ControlPlane, number: u32) -> Self {
        let name = format!("gateway-{number}");
        let envoy = gateway(plane, plane.cluster(), &name, 1).await.unwrap();
        let traffic = Traffic::start(&envoy, "acme").await.unwrap();
        Self {
            _envoy: envoy,
            traffic,
        }
    }

    fn admitted(&self) -> u64 {
        self.traffic.admitted()
    }

    /// Sends it traffic until so much was admitted within a span of time.
    async fn until_served(&self, what: &str, requests: u64, span: Duration) {
        let traffic = &self.traffic;
        traffic.until_served(what, requests, span, PATIENCE).await;
    }
}
