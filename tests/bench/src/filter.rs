//! `bench-filter`: what the admission filter adds to a request, in units of what the SDK costs when it does nothing.
//!
//! Client -> one single-worker Envoy -> a direct-response listener of the same Envoy. All variants are listeners
//! of one process and take turns, so that a machine that gets slower slows all of them. Each lap begins with another variant,
//! and each turn with requests that do not count: caches are cold then, and every customer has to draw, because a
//! worker gives its chunks back while the others have their turns.
//!
//! What a virtual machine's neighbours do changes within seconds and can double the cost of a request, of which a filter is a tenth.
//! So a round has several laps, and takes of each variant the turn that was disturbed least; the figures are medians of the rounds.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use forebay_envoy_tests::{
    Admission, Bootstrap, Envoy, Listener, Options, Wasm, artefact, minimal_config,
};
use serde_json::{Value, json};

use crate::load::{self, CUSTOMERS, Load};
use crate::report::{Report, median};

const ROUNDS: usize = 7;
/// Turns of each variant in a round.
const LAPS: usize = 4;
const TURN: Duration = Duration::from_millis(1_500);
const WARM_UP: Duration = Duration::from_millis(500);

/// In this order within a round.
const VARIANTS: [&str; 4] = ["none", "noop", "admission", "full"];

/// The least disturbed of one variant's turns.
#[derive(Clone, Copy, Debug)]
struct Best {
    requests_per_s: f64,
    cpu_us_per_request: f64,
    busy: f64,
}

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let envoy = start().await?;
    let mut loads = Vec::new();
    for variant in VARIANTS {
        loads.push(Load::connect(envoy.address(variant)).await?);
    }
    let mut rounds: Vec<Vec<Best>> = vec![Vec::new(); VARIANTS.len()];
    for round in 0..ROUNDS {
        let mut best = [Best::default(); VARIANTS.len()];
        for lap in 0..LAPS {
            for step in 0..VARIANTS.len() {
                let variant = (lap + step) % VARIANTS.len();
                let turn = measure(&envoy, &mut loads[variant])
                    .await
                    .context(VARIANTS[variant])?;
                best[variant] = best[variant].or(turn);
            }
        }
        let cpu: Vec<String> = best
            .iter()
            .map(|best| format!("{:.1}", best.cpu_us_per_request))
            .collect();
        eprintln!(
            "round {} of {ROUNDS}: CPU us per request {}",
            round + 1,
            cpu.join(" ")
        );
        for (variant, best) in rounds.iter_mut().zip(best) {
            variant.push(best);
        }
    }
    let [none, noop, admission, full] = &rounds[..] else {
        bail!("a variant is missing")
    };
    let mut report = Report::default();
    // Of differences: in a single round the divisor can be next to nothing.
    let difference = |variant: &[Best]| {
        per_round(none, variant, |none, variant| {
            variant.cpu_us_per_request - none.cpu_us_per_request
        })
    };
    let added = |variant: &[Best]| difference(variant) / difference(noop);
    let ratio = |variant: &[Best]| {
        per_round(none, variant, |none, variant| {
            variant.requests_per_s / none.requests_per_s
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
    let of_all = |turns: &[Best], figure: fn(&Best) -> f64| {
        median(&turns.iter().map(figure).collect::<Vec<_>>())
    };
    for (variant, turns) in VARIANTS.iter().zip(&rounds) {
        report.add(
            &format!("cpu_us_{variant}"),
            of_all(turns, |best| best.cpu_us_per_request),
            "worker CPU per request, us",
        );
    }
    report.add(
        "requests_per_s_none",
        of_all(none, |best| best.requests_per_s),
        "requests/s without a filter",
    );
    let busy = of_all(&rounds.concat(), |best| best.busy);
    report.add(
        "worker_busy",
        busy,
        "share of the time that the worker ran (needs 0.98)",
    );
    if busy < 0.98 {
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

async fn measure(envoy: &Envoy, load: &mut Load) -> Result<Best> {
    load.run(Instant::now() + WARM_UP).await?;
    let (started, cpu_before_ns) = (Instant::now(), envoy.worker_cpu_ns()?);
    let answered = load.run(started + TURN).await?;
    let (elapsed, cpu_ns) = (started.elapsed(), envoy.worker_cpu_ns()? - cpu_before_ns);
    if answered.other > 0 || answered.ok == 0 {
        bail!(
            "{} answers were 200, {} were not\n{}",
            answered.ok,
            answered.other,
            envoy.log()
        );
    }
    let requests = answered.ok as f64;
    Ok(Best {
        requests_per_s: requests / elapsed.as_secs_f64(),
        cpu_us_per_request: cpu_ns as f64 / 1000.0 / requests,
        busy: cpu_ns as f64 / elapsed.as_nanos() as f64,
    })
}

/// The median over rounds of a figure computed within each round.
fn per_round(one: &[Best], other: &[Best], figure: impl Fn(&Best, &Best) -> f64) -> f64 {
    let figures: Vec<f64> = one
        .iter()
        .zip(other)
        .map(|(one, other)| figure(one, other))
        .collect();
    median(&figures)
}

// === impl Best ===

impl Best {
    fn or(self, turn: Self) -> Self {
        if turn.cpu_us_per_request < self.cpu_us_per_request {
            turn
        } else {
            self
        }
    }
}

impl Default for Best {
    /// Before the first turn: worse than any.
    fn default() -> Self {
        Self {
            requests_per_s: 0.0,
            cpu_us_per_request: f64::INFINITY,
            busy: 0.0,
        }
    }
}
