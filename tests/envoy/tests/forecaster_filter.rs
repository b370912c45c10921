//! The forecaster as an ordinary filter, which has a VM on each thread of Envoy: one of them leads, and a configuration that is replaced
//! hands over.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_envoy_tests::{
    Admission, Bootstrap, ControlPlane, Envoy, Listener, Options, Protocol, Traffic, artefact,
    until, wrapped,
};
use hyper::Method;
use serde_json::{Value, json};

const VM_ID: &str = "gateway";
const WORKERS: u32 = 4;
const RATE_PER_S: u64 = 100;
const BURST: u64 = 50;
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_vm_of_all_syncs_for_the_gateway_and_forecasts() {
    let plane = plane().await;
    let started = Instant::now();
    let envoy = gateway(&plane, &config(&plane)).await;
    let traffic = Traffic::start(&envoy, "acme").await.unwrap();
    traffic.switch(true);
    until("requests are admitted", PATIENCE, || async {
        (traffic.admitted() > 100).then_some(())
    })
    .await;
    until("forecasts become refills", PATIENCE, || async {
        let refills = stat(&envoy, "shadow_refills_source=fallback").await;
        (refills > 0).then_some(())
    })
    .await;
    let (before, since) = (syncs(&envoy).await, Instant::now());
    until("fifty more syncs", PATIENCE, || async {
        (syncs(&envoy).await >= before + 50).then_some(())
    })
    .await;
    let elapsed = since.elapsed();
    let each = elapsed / u32::try_from(syncs(&envoy).await - before).unwrap();
    println!("a sync each {each:?}");
    // One VM may come early for one sync in four; five of them would take a fifth of the interval.
    assert!(each > SYNC_INTERVAL / 2, "a sync each {each:?}");
    traffic.switch(false);
    let allowed = BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64();
    assert!((traffic.admitted() as f64) <= allowed);
    incarnation(&plane).await;
    assert_eq!(stat(&envoy, "forecaster_elected").await, 1);
    assert_eq!(stat(&envoy, "sync_result=failed").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_replaced_hands_over_before_it_has_drained() {
    let plane = plane().await;
    let started = Instant::now();
    let envoy = gateway(&plane, &config(&plane)).await;
    // A connection that stays: the listener before, and its VMs with their root contexts, live as long.
    let _kept = envoy.connect("front", Protocol::Http1).await.unwrap();
    let admitted = AtomicU64::new(0);
    until("a request is admitted", PATIENCE, || async {
        ask(&envoy).await.then_some(())
    })
    .await;
    let born = incarnation(&plane).await;
    for round in 1..=3_u64 {
        let mut newer = config(&plane);
        newer["tick"] = json!({ "period_ms": 20 + round });
        let version = u32::try_from(round).unwrap() + 1;
        envoy.set_listeners(version, &[front(&newer)]).unwrap();
        until(
            "a VM with the newer configuration leads",
            PATIENCE,
            || async {
                admitted.fetch_add(u64::from(ask(&envoy).await), Ordering::Relaxed);
                (stat(&envoy, "forecaster_elected").await == round + 1).then_some(())
            },
        )
        .await;
        let before = syncs(&envoy).await;
        until("it syncs", PATIENCE, || async {
            (syncs(&envoy).await >= before + 20).then_some(())
        })
        .await;
    }
    assert_eq!(stat(&envoy, "forecaster_elected").await, 4, "once for each");
    assert_eq!(incarnation(&plane).await, born);
    let allowed = BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64();
    let admitted = admitted.into_inner();
    assert!(
        (admitted as f64) <= allowed,
        "{admitted} admitted, {allowed} allowed"
    );
    assert!(admitted > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forecaster_that_traps_is_followed_on_another_thread_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("trapping.wasm");
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trap_at_the_eighth_answer.wat");
    wrapped("forecaster", "on_http_call_response", &wrapper, &module).unwrap();
    let plane = plane().await;
    let started = Instant::now();
    let envoy = gateway_with(&plane, front_with(&module, &config(&plane))).await;
    let traffic = Traffic::start(&envoy, "acme").await.unwrap();
    traffic.switch(true);
    let mut born = None;
    for term in 2..=4 {
        until("another VM leads", PATIENCE, || async {
            (stat(&envoy, "forecaster_elected").await == term).then_some(())
        })
        .await;
        let before = (syncs(&envoy).await, traffic.admitted());
        until("it syncs, and requests are admitted", PATIENCE, || async {
            let is_served = traffic.admitted() > before.1 + 20;
            (syncs(&envoy).await > before.0 && is_served).then_some(())
        })
        .await;
        let incarnation = incarnation(&plane).await;
        assert_eq!(*born.get_or_insert(incarnation), incarnation, "term {term}");
    }
    traffic.switch(false);
    let allowed = BURST as f64 + RATE_PER_S as f64 * started.elapsed().as_secs_f64();
    let admitted = traffic.admitted();
    println!("{admitted} admitted, {allowed:.0} allowed");
    assert!(
        admitted as f64 <= allowed,
        "{admitted} admitted, {allowed} allowed"
    );
}

async fn plane() -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
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
    plane
}

/// Steps of a second, so that a forecast comes soon.
fn config(plane: &ControlPlane) -> Value {
    let mut config = plane.forecaster_config("gateway-1");
    config["series"] = json!({ "step_s": 1 });
    config
}

/// An Envoy without bootstrap extensions: all that it has comes with its listener, as from a service mesh.
async fn gateway(plane: &ControlPlane, forecaster: &Value) -> Envoy {
    gateway_with(plane, front(forecaster)).await
}

async fn gateway_with(plane: &ControlPlane, front: Listener) -> Envoy {
    let bootstrap = Bootstrap {
        clusters: vec![plane.cluster()],
        dynamic_listeners: true,
        ..Bootstrap::default()
    };
    let options = Options {
        concurrency: WORKERS,
        hop_port: None,
        environment: ControlPlane::environment(),
    };
    let mut envoy = Envoy::start_with(&bootstrap, &options).await.unwrap();
    envoy.set_listeners(1, &[front]).unwrap();
    until("the listener listens", PATIENCE, || async {
        let active = envoy.stat("listener_manager.total_listeners_active").await;
        (active.ok()? == 2).then_some(())
    })
    .await;
    envoy.find_ports().await.unwrap();
    envoy
}

fn front(forecaster: &Value) -> Listener {
    front_with(&artefact("forecaster").unwrap(), forecaster)
}

fn front_with(module: &Path, forecaster: &Value) -> Listener {
    let config = json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": "x-customer", "trusted": true } },
            "charges": [{ "resource": "requests" }],
        }],
        "control_plane": { "cold_start": "deny" },
    });
    let mut admission = Admission::new(VM_ID, config).filter().unwrap();
    admission.host_env_keys = ControlPlane::environment_names();
    let mut listener = Listener::direct("front", Some(admission));
    listener
        .filters_before
        .push(ControlPlane::forecaster_filter(module, VM_ID, forecaster));
    listener
}

/// Whether a request was admitted, on a connection of its own: a listener that was replaced takes no more.
async fn ask(envoy: &Envoy) -> bool {
    let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
    let reply = client.get("/", &[("x-customer", "acme")]).await.unwrap();
    assert!(matches!(reply.status, 200 | 429), "{reply:?}");
    reply.status == 200
}

/// The incarnation of the only gateway that the control plane knows; it has refused none of its syncs.
async fn incarnation(plane: &ControlPlane) -> u64 {
    let (_, status) = plane
        .admin(Method::GET, "/v1/status", &Value::Null)
        .await
        .unwrap();
    let gateways = status["gateways"].as_array().unwrap();
    assert_eq!(gateways.len(), 1, "{status}");
    assert_eq!(gateways[0]["id"], "gateway-1");
    assert_eq!(status["syncs_refused"], 0, "{status}");
    gateways[0]["incarnation"].as_u64().unwrap()
}

async fn syncs(envoy: &Envoy) -> u64 {
    stat(envoy, "sync_result=ok").await
}

async fn stat(envoy: &Envoy, name: &str) -> u64 {
    envoy
        .stat(&format!("wasmcustom.forebay.{name}"))
        .await
        .unwrap()
}
