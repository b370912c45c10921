//! A pool that is short, at a real gateway: the third tier gives first, and then the second.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_envoy_tests::{ControlPlane, Envoy, Protocol, gateway, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

const CAPACITY_PER_S: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(90);
/// Far below what a contract and the pool have.
const STEADY: Pace = Pace {
    connections: 1,
    every: Duration::from_millis(20),
};
/// Far above the capacity, even of a machine that is busy.
const FLOOD: Pace = Pace {
    connections: 8,
    every: Duration::from_millis(8),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_takes_nothing_from_the_tiers_above_it_from_its_first_request_on() {
    let contract = |tier: u8| json!({ "tier": tier, "limits": { "requests": { "rate_per_s": 2_000, "burst": 2_000 } } });
    let policy = json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": CAPACITY_PER_S } },
        "contracts": { "one": contract(1), "two": contract(2), "three": contract(3) },
        "customers": [
            { "key": "first", "contract": "one" },
            { "key": "second", "contract": "two" },
            { "key": "third", "contract": "three" },
        ],
    });
    let (plane, envoy, started) = site(&policy).await;
    let first = Asking::start(&envoy, "first", STEADY).await;
    let second = Asking::start(&envoy, "second", STEADY).await;
    let flood_of_third = Asking::start(&envoy, "third", FLOOD).await;
    first.until_served(50).await;
    second.until_served(50).await;
    // From here on nobody above the flood is denied, also while it begins.
    let before = [first.denied(), second.denied()];
    flood_of_third.switch(true);
    flood_of_third.until_denied(50).await;
    let admitted = [first.admitted(), second.admitted()];
    until(
        "both tiers were served beside the flood",
        PATIENCE,
        || async {
            let more = |asking: &Asking, before| asking.admitted() >= before + 100;
            (more(&first, admitted[0]) && more(&second, admitted[1])).then_some(())
        },
    )
    .await;
    assert_eq!(
        [first.denied(), second.denied()],
        before,
        "a flood of the third tier"
    );
    flood_of_third.switch(false);
    second.switch(false);

    // The second tier keeps the pool below what the third has to leave.
    let flood_of_second = Asking::start(&envoy, "second", FLOOD).await;
    let third = Asking::start(&envoy, "third", STEADY).await;
    let before = first.denied();
    flood_of_second.switch(true);
    flood_of_second.until_denied(50).await;
    third.switch(true);
    let admitted = (first.admitted(), third.admitted());
    third.until_denied(100).await;
    let until_then = third.admitted() - admitted.1;
    assert!(
        until_then <= 5,
        "{until_then} of the third tier beside a flood of the second"
    );
    until("the first tier was served", PATIENCE, || async {
        (first.admitted() >= admitted.0 + 100).then_some(())
    })
    .await;
    assert_eq!(first.denied(), before, "a flood of the second tier");
    let total: u64 = [&first, &second, &third, &flood_of_third, &flood_of_second]
        .into_iter()
        .map(Asking::admitted)
        .sum();
    let allowed = CAPACITY_PER_S as f64 * (1.0 + started.elapsed().as_secs_f64());
    assert!(
        total as f64 <= allowed,
        "{total} admitted, {allowed} allowed"
    );
    drop(plane);
}

async fn site(policy: &Value) -> (ControlPlane, Envoy, Instant) {
    let plane = ControlPlane::start().await.unwrap();
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", policy)
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    let started = Instant::now();
    let envoy = gateway(&plane, plane.cluster(), "gateway-1", 2)
        .await
        .unwrap();
    (plane, envoy, started)
}

/// How often each of several connections asks.
#[derive(Clone, Copy)]
struct Pace {
    connections: usize,
    every: Duration,
}

/// A customer that asks while it is switched on. It ends with it.
struct Asking {
    is_on: Arc<AtomicBool>,
    admitted: Arc<AtomicU64>,
    denied: Arc<AtomicU64>,
    connections: Vec<JoinHandle<()>>,
}

// === impl Asking ===

impl Asking {
    /// Switched off at first.
    async fn start(envoy: &Envoy, customer: &'static str, pace: Pace) -> Self {
        let is_on = Arc::new(AtomicBool::new(false));
        let (admitted, denied) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut connections = Vec::new();
        for _ in 0..pace.connections {
            let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
            let (is_on, admitted, denied) = (
                Arc::clone(&is_on),
                Arc::clone(&admitted),
                Arc::clone(&denied),
            );
            connections.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(pace.every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    if !is_on.load(Ordering::Relaxed) {
                        continue;
                    }
                    let reply = client.get("/", &[("x-customer", customer)]).await.unwrap();
                    let count = match reply.status {
                        200 => &admitted,
                        429 => &denied,
                        _ => panic!("{reply:?}"),
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self {
            is_on,
            admitted,
            denied,
            connections,
        }
    }

    fn switch(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Relaxed)
    }

    fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// Switches it on, and waits until so many of its requests in a row were admitted: what was granted for it has come.
    async fn until_served(&self, requests: u64) {
        self.switch(true);
        let mut since = (self.admitted(), self.denied());
        until("what was granted has come", PATIENCE, || {
            let (admitted, denied) = (self.admitted(), self.denied());
            if denied != since.1 {
                since = (admitted, denied);
            }
            let is_served = admitted >= since.0 + requests;
            async move { is_served.then_some(()) }
        })
        .await;
    }

    async fn until_denied(&self, requests: u64) {
        let before = self.denied();
        until("a pool is short", PATIENCE, || async {
            assert!(
                self.connections
                    .iter()
                    .all(|connection| !connection.is_finished()),
                "a connection failed"
            );
            (self.denied() >= before + requests).then_some(())
        })
        .await;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.abort();
        }
    }
}
