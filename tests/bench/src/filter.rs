//! `bench-filter`: what the admission filter adds to a request, in units of what the SDK costs when it does nothing.
//!
//! Client -> one single-worker Envoy -> a direct-response listener of the same Envoy. All variants are listeners
//! of one process and take turns within each round, so that a machine that gets slower slows all of them. Many short
//! rounds beat few long ones: what a virtual machine's neighbours do changes within seconds, and a filter adds a tenth of
//! what the sockets cost. Each round begins with another variant, and each turn with requests that do not count: caches are
//! cold then, and every customer has to draw, because a worker gives its chunks back while the others have their turns.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use forebay_envoy_tests::{
    Admission, Bootstrap, Envoy, Listener, Options, Wasm, artefact, minimal_config,
};
use serde_json::{Value, json};

use crate::load::{self, CUSTOMERS};
use crate::report::{Report, median};

const ROUNDS: usize = 32;
const TURN: Duration = Duration::from_millis(700);
const WARM_UP: Duration = Duration::from_millis(300);

/// In this order within a round.
const VARIANTS: [&str; 4] = ["none", "noop", "admission", "full"];

/// One variant's turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    requests_per_s: f64,
    cpu_us_per_request: f64,
    busy: f64,
}

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let envoy = start().await?;
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); VARIANTS.len()];
    for round in 0..ROUNDS {
        for step in 0..VARIANTS.len() {
            let variant = (round + step) % VARIANTS.len();
            turns[variant].push(measure(&envoy, VARIANTS[variant]).await?);
        }
        let cpu: Vec<String> = turns
            .iter()
            .filter_map(|turns| turns.last())
            .map(|turn| format!("{:.1}", turn.cpu_us_per_request))
            .collect();
        eprintln!(
            "round {} of {ROUNDS}: CPU us per request {}",
            round + 1,
            cpu.join(" ")
        );
    }
    let [none, noop, admission, full] = &turns[..] else {
        bail!("a variant is missing")
    };
    let mut report = Report::default();
    let cpu = |turns: &[Turn]| {
        turns
            .iter()
            .map(|turn| turn.cpu_us_per_request)
            .collect::<Vec<_>>()
    };
    // Of differences: in a single round the divisor can be next to nothing.
    let difference = |variant: &[Turn]| {
        per_round(&[none, variant], |turn| {
            turn[1].cpu_us_per_request - turn[0].cpu_us_per_request
        })
    };
    let added = |variant: &[Turn]| difference(variant) / difference(noop);
    let ratio = |variant: &[Turn]| {
        per_round(&[none, variant], |turn| {
            turn[1].requests_per_s / turn[0].requests_per_s
        })
    };
    report.add(
        "added_vs_noop",
        added(admission),
        "CPU added, minimal / SDK no-op (bar: 1.25)",
    );
    report.add(
        "added_vs_noop_full",
        added(full),
        "with headers, filter state, settling (bar: 2.0)",
    );
    report.add(
        "ratio_no_filter",
        ratio(admission),
        "requests/s, minimal / no filter (bar: 0.90)",
    );
    report.add(
        "ratio_no_filter_full",
        ratio(full),
        "requests/s, full / no filter (bar: 0.85)",
    );
    report.add(
        "ratio_no_filter_noop",
        ratio(noop),
        "requests/s, SDK no-op / no filter",
    );
    for (variant, turns) in VARIANTS.iter().zip(&turns) {
        report.add(
            &format!("cpu_us_{variant}"),
            median(&cpu(turns)),
            "worker CPU per request, us",
        );
    }
    let rates: Vec<f64> = none.iter().map(|turn| turn.requests_per_s).collect();
    report.add(
        "requests_per_s_none",
        median(&rates),
        "requests/s without a filter",
    );
    let busy: Vec<f64> = turns.iter().flatten().map(|turn| turn.busy).collect();
    report.add(
        "worker_busy",
        median(&busy),
        "share of the time that the worker ran (needs 0.98)",
    );
    if median(&busy) < 0.98 {
        eprintln!(
            "bench-filter: the worker was not busy enough: something else uses this machine's cores"
        );
    }
    report.publish("bench-filter")
}

async fn start() -> Result<Envoy> {
    let names: Vec<String> = (0..CUSTOMERS).map(load::customer).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let minimal = minimal_config(1_000_000, 1_000_000, &keys);
    let noop = Wasm {
        module: artefact("noop")?.display().to_string(),
        vm_id: "noop".to_owned(),
        config: String::new(),
        reload: false,
        host_env_keys: Vec::new(),
    };
    let listeners = vec![
        Listener::hop("none", None),
        Listener::hop("noop", Some(noop)),
        Listener::hop(
            "admission",
            Some(Admission::new("minimal", minimal.clone()).filter()?),
        ),
        Listener::hop(
            "full",
            Some(Admission::new("full", full(minimal)).filter()?),
        ),
    ];
    // A TCP hop, as in production: the socket file that tests use would be cheaper.
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let options = Options {
        concurrency: 1,
        hop_port: Some(free),
        environment: Vec::new(),
    };
    Envoy::start_with(&Bootstrap::with(listeners), &options).await
}

/// All that an operator can switch on.
fn full(mut config: Value) -> Value {
    config["headers"] = json!({ "retry_after": true, "limit": true, "quota_policy": true, "remaining": true, "reset": true });
    config["access_log"] = json!({ "verdict": true, "customer": true });
    config["rules"][0]["charges"][0]["cost"] =
        json!({ "settle": { "estimate": 1, "response_header": "x-cost", "max": 10 } });
    config
}

async fn measure(envoy: &Envoy, variant: &str) -> Result<Turn> {
    load::run(envoy.address(variant), Instant::now() + WARM_UP).await?;
    let (started, cpu_before) = (Instant::now(), envoy.worker_cpu_ns()?);
    let answered = load::run(envoy.address(variant), started + TURN)
        .await
        .context(variant.to_owned())?;
    let (elapsed, cpu_ns) = (started.elapsed(), envoy.worker_cpu_ns()? - cpu_before);
    if answered.other > 0 || answered.ok == 0 {
        bail!(
            "{variant}: {} answers were 200, {} were not\n{}",
            answered.ok,
            answered.other,
            envoy.log()
        );
    }
    let requests = answered.ok as f64;
    Ok(Turn {
        requests_per_s: requests / elapsed.as_secs_f64(),
        cpu_us_per_request: cpu_ns as f64 / 1000.0 / requests,
        busy: cpu_ns as f64 / elapsed.as_nanos() as f64,
    })
}

/// The median over rounds of a figure computed within each round.
fn per_round(variants: &[&[Turn]], figure: impl Fn(&[Turn]) -> f64) -> f64 {
    let figures: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            figure(
                &variants
                    .iter()
                    .map(|turns| turns[round])
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    median(&figures)
}
