//! Configurations that change under load: good ones bind, bad ones are refused, none refills a bucket.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_envoy_tests::{
    Admission, Bootstrap, Envoy, Listener, Protocol, Reply, minimal_config, until,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const BURST: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_under_load_lose_no_request_and_refill_no_bucket() {
    let (envoy, mut version) = (started(&minimal_config(0, BURST, &["acme"])).await, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let admitted = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for _ in 0..8 {
        let (stop, admitted) = (Arc::clone(&stop), Arc::clone(&admitted));
        let address = envoy.address("front");
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // A listener that was replaced drains: each request has a connection of its own.
                let mut client = forebay_envoy_tests::Client::connect(address, Protocol::Http1)
                    .await
                    .unwrap();
                let reply = client.get("/", &[("x-customer", "acme")]).await.unwrap();
                match reply.status {
                    200 => admitted.fetch_add(1, Ordering::Relaxed),
                    429 => 0,
                    other => panic!("status {other}: {reply:?}"),
                };
            }
        });
    }
    for round in 0..6 {
        version += 1;
        let mut config = minimal_config(0, BURST, &["acme"]);
        // Something that shows which configuration is in force.
        config["denial"] = json!({ "body": format!("round {round}") });
        update(&envoy, version, &config).await;
        bound(&envoy, |reply| {
            reply.status == 200 || reply.body == format!("round {round}")
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    let admitted = admitted.load(Ordering::Relaxed);
    assert!(
        admitted <= BURST,
        "{admitted} of {BURST} admitted over six updates"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_configuration_is_refused_with_its_place_and_the_last_good_one_stays() {
    let envoy = started(&minimal_config(0, 2, &["acme"])).await;
    let mut bad = minimal_config(0, 1_000, &["acme"]);
    bad["rules"][0]["charges"][0]["resource"] = json!("requets");
    let before = envoy
        .stat("listener_manager.lds.update_rejected")
        .await
        .unwrap();
    envoy.set_listeners(2, &[front(&bad)]).unwrap();
    until("the update is refused", PATIENCE, || async {
        let now = envoy
            .stat("listener_manager.lds.update_rejected")
            .await
            .ok()?;
        (now > before).then_some(())
    })
    .await;
    assert!(
        envoy.log().contains("rules[0].charges[0].resource"),
        "no place in:\n{}",
        envoy.log()
    );
    let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(
            client
                .get("/", &[("x-customer", "acme")])
                .await
                .unwrap()
                .status,
        );
    }
    assert_eq!(
        statuses,
        [200, 200, 429],
        "the burst of two is still in force"
    );
    // And the next good one is taken.
    let mut good = minimal_config(0, 2, &["acme"]);
    good["denial"] = json!({ "status": 503 });
    update(&envoy, 3, &good).await;
    bound(&envoy, |reply| reply.status == 503).await;
}

async fn started(config: &Value) -> Envoy {
    let bootstrap = Bootstrap {
        dynamic_listeners: true,
        ..Bootstrap::default()
    };
    let mut envoy = Envoy::start(&bootstrap, 2).await.unwrap();
    envoy.set_listeners(1, &[front(config)]).unwrap();
    until("the first listener listens", PATIENCE, || async {
        let active = envoy
            .stat("listener_manager.total_listeners_active")
            .await
            .ok()?;
        (active == 2).then_some(())
    })
    .await;
    envoy.find_ports().await.unwrap();
    envoy
}

async fn update(envoy: &Envoy, version: u32, config: &Value) {
    let before = envoy
        .stat("listener_manager.lds.update_success")
        .await
        .unwrap();
    envoy.set_listeners(version, &[front(config)]).unwrap();
    until("the update is taken", PATIENCE, || async {
        let now = envoy
            .stat("listener_manager.lds.update_success")
            .await
            .ok()?;
        (now > before).then_some(())
    })
    .await;
}

/// Waits until an answer shows the configuration that must be in force.
async fn bound(envoy: &Envoy, is_new: impl Fn(&Reply) -> bool) {
    until("the new configuration binds", PATIENCE, || async {
        let mut client = envoy.connect("front", Protocol::Http1).await.ok()?;
        let reply = client.get("/", &[("x-customer", "nobody")]).await.ok()?;
        is_new(&reply).then_some(())
    })
    .await;
}

fn front(config: &Value) -> Listener {
    Listener::direct(
        "front",
        Some(Admission::new("updates", config.clone()).filter().unwrap()),
    )
}
