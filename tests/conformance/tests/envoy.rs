//! The cases against a real Envoy in real time: a listener and a VM for each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_conformance::{Case, Seen, Sent};
use forebay_envoy_tests::{
    Bootstrap, Client, Envoy, Listener, Protocol, Reply, Wasm, artefact, until,
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Loading a module for each case takes its time.
const ALL_LISTEN_WITHIN: Duration = Duration::from_secs(180);

/// Cases at a time. A case says at which instant its requests come; with all cases at once on one worker they would come too
/// late to mean the same.
const RUNNING_MOST: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_has_its_answers_in_envoy() {
    let cases: Vec<Case> = forebay_conformance::all();
    let bootstrap = Bootstrap {
        dynamic_listeners: true,
        ..Bootstrap::default()
    };
    let mut envoy = Envoy::start(&bootstrap, 1).await.unwrap();
    let listeners: Vec<Listener> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| listener(number, case))
        .collect();
    envoy.set_listeners(1, &listeners).unwrap();
    let good = cases.iter().filter(|case| case.refused.is_empty()).count();
    // The bootstrap's own upstream listener is one more.
    until(
        format!("{good} listeners listen"),
        ALL_LISTEN_WITHIN,
        || async {
            let active = envoy
                .stat("listener_manager.total_listeners_active")
                .await
                .ok()?;
            (active == good as u64 + 1).then_some(())
        },
    )
    .await;
    envoy.find_ports().await.unwrap();

    let log = envoy.log();
    let mut wrong: Vec<String> = Vec::new();
    for case in cases.iter().filter(|case| !case.refused.is_empty()) {
        let said = log
            .lines()
            .any(|line| case.refused.iter().all(|word| line.contains(word)));
        if !said {
            wrong.push(format!(
                "{}: no line of Envoy's log holds {:?}",
                case.name, case.refused
            ));
        }
    }
    let envoy = Arc::new(envoy);
    let mut answered: Vec<(usize, Case)> = cases
        .iter()
        .cloned()
        .enumerate()
        .filter(|(_, case)| case.refused.is_empty())
        .collect();
    // The longest first: the others run beside them.
    answered.sort_by_key(|(_, case)| Reverse(case.steps.last().map(|step| step.at_ms)));
    let places = Arc::new(Semaphore::new(RUNNING_MOST));
    let mut running = JoinSet::new();
    for (number, case) in answered {
        let address = envoy.address(&format!("case-{number}"));
        let places = places.clone();
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            run(address, &case)
                .await
                .map_err(|error| format!("{}: {error}", case.name))
        });
    }
    wrong.extend(running.join_all().await.into_iter().filter_map(Result::err));
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn listener(number: usize, case: &Case) -> Listener {
    let name = format!("case-{number}");
    let wasm = Wasm {
        module: artefact("admission").unwrap().display().to_string(),
        vm_id: name.clone(),
        config: case.config.clone(),
        reload: false,
        host_env_keys: Vec::new(),
    };
    // Stands for a filter that verified a token: it puts the claim where such filters put it.
    let claims = json!({
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
            "request_rules": [{
                "header": "x-claim-sub",
                "on_header_present": { "metadata_namespace": "claims", "key": "sub", "type": "STRING" },
                "remove": true,
            }],
        },
    });
    let mut listener = Listener::hop(&name, Some(wasm));
    listener.filters_before.push(claims);
    listener
}

async fn run(address: SocketAddr, case: &Case) -> Result<(), String> {
    let start = Instant::now();
    for (index, step) in case.steps.iter().enumerate() {
        sleep_until(start + Duration::from_millis(step.at_ms)).await;
        let seen = send(address, &step.sent)
            .await
            .map_err(|error| format!("request {}: {error:#}", index + 1))?;
        if let Some(difference) = step.expected.difference(&seen) {
            let at = start.elapsed();
            return Err(format!(
                "request {}, after {at:?} (meant for {} ms): {difference}",
                index + 1,
                step.at_ms
            ));
        }
    }
    Ok(())
}

/// A connection for each request: the client's address is a property of the connection.
async fn send(address: SocketAddr, sent: &Sent) -> anyhow::Result<Seen> {
    let protocol = if sent.is_grpc() {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let mut client = Client::connect_from(
        SocketAddr::from(([127, 0, 0, sent.source], 0)),
        address,
        protocol,
    )
    .await?;
    let mut headers: Vec<(&str, &[u8])> = sent
        .headers
        .iter()
        .map(|(name, value)| (*name, &value[..]))
        .collect();
    if let Some(cost) = sent.upstream_cost {
        headers.push(("x-echo-cost", cost.as_bytes()));
    }
    if sent.is_grpc() {
        headers.push(("te", b"trailers"));
    }
    let reply: Reply = client
        .send(&sent.method.parse()?, sent.path, &headers, Bytes::new())
        .await?;
    let headers = reply
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(Seen {
        status: reply.status,
        headers: headers.collect(),
        body: reply.body.to_vec(),
        grpc_status: reply.grpc_status(),
    })
}
