//! `bench-forecast`: the forecaster at work in Envoy's V8, with ten thousand customers and a real control plane.
//!
//! Inference is what the plugin's own histogram says. A tick is measured from outside, by the CPU time of Envoy's main
//! thread: the plugin's clock also counts the time in which the system ran something else. Nothing is mocked: the
//! policy, the customers' windows and the signed model come by sync, as in production.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use forebay_envoy_tests::{Bootstrap, Envoy, Listener, Options, artefact, binary};
use serde_json::{Value, json};

use crate::call::{Endpoint, cluster};
use crate::report::Report;
use crate::singleton;

const CUSTOMERS: usize = 10_000;
const BATCH_ROWS: f64 = 64.0;
/// History of each customer: two days of ten-minute steps, so that the season is known too.
const HISTORY_STEPS: usize = 288;
/// Customers in one import.
const IMPORT: usize = 500;
/// A step of ten minutes passes in this time.
const STEP: Duration = Duration::from_secs(60);
const MODEL_STEP_S: u64 = 600;
/// How long the forecaster is watched once all windows have come: every customer is forecast twice.
const WATCH: Duration = Duration::from_secs(150);
const LOADED_WITHIN: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);
/// Time between two ticks of the forecaster, as it is configured by default.
const TICK_MS: u64 = 20;
/// How often the main thread's CPU time is read: a tick falls into one or two of these spans.
const SPAN: Duration = Duration::from_millis(5);

const GATEWAY_TOKEN: &str = "gateway-token-of-the-bench";
const ADMIN_TOKEN: &str = "admin-token-of-the-bench";

/// A running `forebay serve`; dropping it ends the process.
#[derive(Debug)]
struct ControlPlane {
    process: Child,
    api: Endpoint,
    public_key: String,
}

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let control_plane = ControlPlane::start(folder.path()).await?;
    control_plane.fill().await?;
    let envoy = start_envoy(&control_plane).await?;
    control_plane.activate_model().await?;
    let swap_us = until_swapped(&envoy).await?;
    until_forecast(&envoy).await?;
    eprintln!(
        "all {CUSTOMERS} customers are forecast; watching for {} s",
        WATCH.as_secs()
    );
    let tick_ms = watch(&envoy).await?;

    let batch_us = quantile(&envoy, "forecast_batch_us", "P50").await?;
    let mut report = Report::default();
    report.add(
        "us_per_customer",
        batch_us / BATCH_ROWS,
        "inference in batches of 64, median, us (bar: 12)",
    );
    report.add(
        "tick_ms_p999",
        at(&tick_ms, 0.999),
        "CPU time of a tick with 10 000 customers, ms (bar: 2)",
    );
    report.add(
        "model_swap_ms",
        swap_us / 1e3,
        "loading, checking and swapping a model, ms (bar: 100)",
    );
    report.add("tick_ms_p50", at(&tick_ms, 0.5), "the same, median");
    report.add(
        "tick_wall_ms_p999",
        quantile(&envoy, "forecaster_tick_us", "P99.9").await? / 1e3,
        "by the plugin's clock, since the start",
    );
    report.add(
        "forecasts",
        counter(&envoy, "forebay.forecasts_network").await?,
        "forecasts by the network",
    );
    report.publish("bench-forecast")
}

async fn start_envoy(control_plane: &ControlPlane) -> Result<Envoy> {
    let now_ms = u64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_millis(),
    )?;
    let config = json!({
        "version": 1,
        "control_plane": { "cluster": "control_plane", "gateway_id": "bench", "sync_interval_ms": 50 },
        "calendar": {
            "speed_up": MODEL_STEP_S / STEP.as_secs(),
            "wall_start_ms": now_ms,
            "calendar_start_ms": now_ms,
        },
        "series": { "max_series": CUSTOMERS, "step_s": MODEL_STEP_S },
        "ledger": { "max_policy_customers": CUSTOMERS, "max_other_customers": 64 },
        "model": { "public_keys": [control_plane.public_key] },
    });
    let bootstrap = Bootstrap {
        clusters: vec![cluster("control_plane", control_plane.api.address)],
        extensions: vec![singleton::extension(&config)?],
        ..Bootstrap::with(vec![Listener::direct("direct", None)])
    };
    let options = Options {
        concurrency: 1,
        hop_port: None,
        environment: vec![("FOREBAY_GATEWAY_TOKEN".to_owned(), GATEWAY_TOKEN.to_owned())],
    };
    Envoy::start_with(&bootstrap, &options).await
}

/// Waits for the model and returns how long the swap took, in microseconds.
async fn until_swapped(envoy: &Envoy) -> Result<f64> {
    let deadline = Instant::now() + LOADED_WITHIN;
    while Instant::now() < deadline {
        let log = envoy.log();
        if let Some((_, rest)) = log.split_once("the swap took ") {
            let number = rest.split(' ').next().unwrap_or_default();
            return number
                .parse()
                .with_context(|| format!("a swap of `{number}` us"));
        }
        tokio::time::sleep(POLL).await;
    }
    bail!(
        "no model runs after {LOADED_WITHIN:?}; Envoy logged:\n{}",
        envoy.log()
    )
}

/// Waits until the network has forecast as often as there are customers.
async fn until_forecast(envoy: &Envoy) -> Result<()> {
    let deadline = Instant::now() + LOADED_WITHIN;
    while Instant::now() < deadline {
        if counter(envoy, "forebay.forecasts_network").await? >= CUSTOMERS as f64 {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    let stats = envoy.admin("/stats?filter=forebay").await?;
    bail!(
        "the network has not forecast {CUSTOMERS} customers after {LOADED_WITHIN:?}:\n{}\n{}",
        String::from_utf8_lossy(&stats.body),
        envoy.log()
    )
}

/// CPU time of the main thread around each tick, in milliseconds, ascending: the most that it used in two neighbouring spans. What else
/// runs on that thread counts too, so this is no less than the tick.
async fn watch(envoy: &Envoy) -> Result<Vec<f64>> {
    let end = Instant::now() + WATCH;
    let mut timer = tokio::time::interval(SPAN);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut ticks = Vec::new();
    let mut before = envoy.main_cpu_ns()?;
    let (mut last, mut most) = (0, 0);
    let mut next_tick = Instant::now() + Duration::from_millis(TICK_MS);
    while Instant::now() < end {
        timer.tick().await;
        let cpu = envoy.main_cpu_ns()?;
        let used = cpu - before;
        before = cpu;
        most = most.max(last + used);
        last = used;
        if Instant::now() >= next_tick {
            ticks.push(most as f64 / 1e6);
            next_tick += Duration::from_millis(TICK_MS);
            most = 0;
        }
    }
    ticks.sort_by(f64::total_cmp);
    Ok(ticks)
}

/// A quantile of ascending values.
fn at(ascending: &[f64], quantile: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending[(last as f64 * quantile).round() as usize]
}

/// A counter of the plugin, whatever prefix Envoy gives it.
async fn counter(envoy: &Envoy, name: &str) -> Result<f64> {
    let reply = envoy.admin("/stats?filter=forebay").await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let value = text.lines().find_map(|line| {
        line.split_once(": ")
            .filter(|(left, _)| left.ends_with(name))
    });
    Ok(value.map_or(0.0, |(_, number)| number.trim().parse().unwrap_or(0.0)))
}

/// A quantile of a histogram since the start, from a line like `NAME: P0(nan,1) P50(3,4) ... P99.9(8,9)`.
async fn quantile(envoy: &Envoy, name: &str, quantile: &str) -> Result<f64> {
    let reply = envoy.admin("/stats?filter=forebay&usedonly").await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let line = text
        .lines()
        .find(|line| line.contains(name))
        .with_context(|| format!("no histogram {name}"))?;
    let value = line.split_whitespace().find_map(|word| {
        word.strip_prefix(quantile)?
            .strip_prefix('(')?
            .strip_suffix(')')?
            .split_once(',')
    });
    let (_, since_start) = value.with_context(|| format!("no {quantile} in: {line}"))?;
    since_start
        .parse()
        .with_context(|| format!("{quantile} of {name} is {since_start}"))
}

// === impl ControlPlane ===

impl ControlPlane {
    async fn start(folder: &Path) -> Result<Self> {
        let forebay = binary("forebay")?;
        let signing_key = folder.join("model.key");
        let keygen = Command::new(&forebay)
            .args(["model", "keygen", "--out"])
            .arg(&signing_key)
            .output()?;
        ensure!(
            keygen.status.success(),
            "forebay model keygen: {}",
            String::from_utf8_lossy(&keygen.stderr)
        );
        let answer: Value = serde_json::from_slice(&keygen.stdout)?;
        let public_key = answer["public_key"]
            .as_str()
            .context("keygen names no public key")?
            .to_owned();
        let log = folder.join("forebay.log");
        let process = Command::new(&forebay)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--step-ms",
                &STEP.as_millis().to_string(),
            ])
            .arg("--data")
            .arg(folder.join("store"))
            .arg("--forecaster-wasm")
            .arg(artefact("forecaster")?)
            .arg("--model-signing-key")
            .arg(&signing_key)
            .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log)?)
            .stderr(fs::File::create(folder.join("forebay.err"))?)
            .spawn()
            .context("cannot start forebay serve")?;
        let api = Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: ADMIN_TOKEN.to_owned(),
        };
        let mut control_plane = Self {
            process,
            api,
            public_key,
        };
        control_plane.api.address = control_plane.listening(&log).await?;
        Ok(control_plane)
    }

    async fn listening(&mut self, log: &Path) -> Result<SocketAddr> {
        let deadline = Instant::now() + LOADED_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                bail!("forebay serve ended ({status})");
            }
            let said = fs::read_to_string(log).unwrap_or_default();
            let address = said
                .lines()
                .find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
            if let Some(address) = address {
                return Ok(address);
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("forebay serve does not listen after {LOADED_WITHIN:?}")
    }

    /// Ten thousand customers, each with a season and a phase of its own.
    async fn fill(&self) -> Result<()> {
        let customers: Vec<Value> = (0..CUSTOMERS)
            .map(|i| json!({ "key": name(i), "contract": "plain" }))
            .collect();
        let policy = json!({
            "version": 1,
            "resources": { "requests": { "capacity_per_s": 10_000_000 } },
            "contracts": { "plain": { "limits": { "requests": { "rate_per_s": 100, "burst": 100 } } } },
            "customers": customers,
        });
        self.api.json("POST", "/v1/policies", &policy).await?;
        for first in (0..CUSTOMERS).step_by(IMPORT) {
            let series: Vec<Value> = (first..first + IMPORT)
                .map(|i| {
                    json!({ "key": name(i), "resource": "requests", "step_ms": STEP.as_millis() as u64, "usage": history(i) })
                })
                .collect();
            self.api
                .json("PUT", "/v1/history", &json!({ "series": series }))
                .await?;
        }
        Ok(())
    }

    async fn activate_model(&self) -> Result<()> {
        let file = fs::read(model_path())
            .with_context(|| format!("cannot read {}: run `make train`", model_path().display()))?;
        let answer = self
            .api
            .call("POST", "/v1/models", "application/octet-stream", &file)
            .await?;
        let digest = answer["digest"]
            .as_str()
            .context("the upload's answer has no digest")?
            .to_owned();
        self.api
            .json("POST", &format!("/v1/models/{digest}/activate"), &json!({}))
            .await?;
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn name(customer: usize) -> String {
    format!("customer-{customer:05}")
}

/// Usage per step: a day's wave with a phase and a size of its own.
fn history(customer: usize) -> Vec<f64> {
    (0..HISTORY_STEPS)
        .map(|step| {
            let angle = (step + customer) as f64 * std::f64::consts::TAU / 144.0;
            ((50 + customer % 500) as f64 * (1.5 + angle.sin())).round()
        })
        .collect()
}

/// The committed model for gateways.
fn model_path() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir
        .ancestors()
        .nth(2)
        .unwrap_or(crate_dir)
        .join("models/edge.onnx")
}
