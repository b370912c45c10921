//! A gateway whose control plane dies, comes back, and is handed broken models: traffic goes on and nothing is
//! admitted twice.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_envoy_tests::{ControlPlane, Envoy, Protocol, gateway, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const RATE_PER_S: u64 = 100;
const BURST: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(90);

/// Longer than any answer takes on a busy machine, far shorter than a request that waits for a dead server.
const SLOWEST_ANSWER: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_killed_and_comes_back_never_refills_a_bucket() {
    let mut plane = ControlPlane::start().await.unwrap();
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", &policy())
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    let started = Instant::now();
    let envoy = gateway(&plane, plane.cluster(), "gateway-1", 2)
        .await
        .unwrap();
    let load = Load::start(&envoy).await;
    load.until_more_are_admitted(100).await;

    plane.kill().unwrap();
    let (answered, admitted) = (load.answered(), load.admitted());
    until(
        "a thousand more requests are answered without a control plane",
        PATIENCE,
        || async { (load.answered() > answered + 1_000).then_some(()) },
    )
    .await;
    let admitted_alone = load.admitted() - admitted;

    plane.restart().await.unwrap();
    load.until_more_are_admitted(100).await;
    let admitted = load.stop().await;
    let allowed = BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64();
    println!(
        "{admitted} admitted ({admitted_alone} of them without a control plane), {allowed:.0} allowed"
    );
    assert!(
        admitted as f64 <= allowed,
        "{admitted} admitted, {allowed} allowed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_break_off_do_not_stop_the_forecaster() {
    let plane = ControlPlane::start().await.unwrap();
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", &policy())
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = plane.cluster();
    *cluster
        .pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value")
        .unwrap() = json!(between.local_addr().unwrap().port());
    let address = plane.address();
    let broken = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&broken);
    let relay = tokio::spawn(async move {
        loop {
            let (mut gateway, _) = between.accept().await.unwrap();
            if counts.fetch_add(1, Ordering::Relaxed) < 3 {
                let mut request = [0; 1_024];
                let _read = gateway.read(&mut request).await;
                let _written = gateway
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbroken off")
                    .await;
                continue;
            }
            let mut server = TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut gateway, &mut server).await });
        }
    });
    let envoy = gateway(&plane, cluster, "gateway-1", 2).await.unwrap();
    let load = Load::start(&envoy).await;
    load.until_more_are_admitted(100).await;
    assert!(broken.load(Ordering::Relaxed) > 3);
    load.stop().await;
    relay.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_models_are_refused_with_a_reason_and_the_good_one_stays() {
    let plane = ControlPlane::start().await.unwrap();
    let (status, answer) = plane
        .admin(Method::POST, "/v1/policies", &policy())
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");
    let envoy = gateway(&plane, plane.cluster(), "gateway-1", 2)
        .await
        .unwrap();
    let load = Load::start(&envoy).await;
    let model = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo.onnx"))
        .unwrap();
    let (status, answer) = plane.upload_model(model.clone()).await.unwrap();
    assert!(status < 300, "{status} {answer}");
    let digest = answer["digest"].as_str().unwrap().to_owned();
    let activate = format!("/v1/models/{digest}/activate");
    let (status, answer) = plane
        .admin(Method::POST, &activate, &json!({}))
        .await
        .unwrap();
    assert!(status < 300, "{status} {answer}");

    let flipped = {
        let mut broken = model.clone();
        let middle = broken.len() / 2;
        for byte in &mut broken[middle..middle + 64] {
            *byte ^= 0xff;
        }
        broken
    };
    for (what, broken) in [
        ("cut off", model[..model.len() / 2].to_vec()),
        ("with wrong bytes", flipped),
        ("that is no model", b"not a model".to_vec()),
        ("of nothing", Vec::new()),
    ] {
        let (status, answer) = plane.upload_model(broken).await.unwrap();
        assert!(
            (400..500).contains(&status),
            "a model {what}: {status} {answer}"
        );
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|message| message.len() > 10),
            "a model {what}: {answer}"
        );
    }
    let (_, models) = plane
        .admin(Method::GET, "/v1/models", &Value::Null)
        .await
        .unwrap();
    let models = models["models"].as_array().unwrap();
    assert_eq!(models.len(), 1, "only the good one is kept: {models:?}");
    load.until_more_are_admitted(50).await;
    load.stop().await;
}

/// A contract with a guarantee, so that a gateway that was cut off has something to go on with.
fn policy() -> Value {
    json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": 1_000 } },
        "contracts": { "standard": { "limits": { "requests": {
            "rate_per_s": RATE_PER_S, "burst": BURST, "guarantee_per_s": 20,
        } } } },
        "customers": [{ "key": "acme", "contract": "standard" }],
    })
}

/// About 300 requests a second over six connections, until it is stopped.
struct Load {
    counts: Arc<Counts>,
    connections: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    answered: AtomicU64,
}

// === impl Load ===

impl Load {
    async fn start(envoy: &Envoy) -> Self {
        let counts = Arc::new(Counts::default());
        let mut connections = Vec::new();
        for _ in 0..6 {
            let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
            let counts = Arc::clone(&counts);
            connections.push(tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(20));
                loop {
                    ticks.tick().await;
                    let sent = Instant::now();
                    let reply = client.get("/", &[("x-customer", "acme")]).await.unwrap();
                    assert!(
                        sent.elapsed() < SLOWEST_ANSWER,
                        "a request waited {:?}",
                        sent.elapsed()
                    );
                    assert!(matches!(reply.status, 200 | 429), "{reply:?}");
                    counts.answered.fetch_add(1, Ordering::Relaxed);
                    if reply.status == 200 {
                        counts.admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Self {
            counts,
            connections,
        }
    }

    fn admitted(&self) -> u64 {
        self.counts.admitted.load(Ordering::Relaxed)
    }

    fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    async fn until_more_are_admitted(&self, more: u64) {
        let before = self.admitted();
        until(format!("{more} more are admitted"), PATIENCE, || async {
            assert!(
                self.connections
                    .iter()
                    .all(|connection| !connection.is_finished()),
                "a connection failed"
            );
            (self.admitted() >= before + more).then_some(())
        })
        .await;
    }

    async fn stop(self) -> u64 {
        for connection in &self.connections {
            connection.abort();
        }
        for connection in self.connections {
            if let Err(error) = connection.await {
                assert!(error.is_cancelled(), "a connection failed: {error}");
            }
        }
        self.counts.admitted.load(Ordering::Relaxed)
    }
}
