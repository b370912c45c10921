//! The real control plane on a fresh embedded store, with the policy, the history and the model of the demo.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use serde_json::{Value, json};

use crate::http::Endpoint;
use crate::places::Places;
use crate::processes::Process;
use crate::scenario::{Customer, Scenario};

/// Opening an empty store takes milliseconds, but the machine may be busy.
const READY_POLLS: u32 = 600;
const POLL: Duration = Duration::from_millis(50);

/// What gateway and control plane share. Fixed, because both live for a minute on 127.0.0.1.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    /// The gateway's credential.
    pub gateway_token: String,
    /// Under which customer keys are hashed, 32 hexadecimal digits.
    pub key_hash: String,
}

/// What the control plane knows of a customer that the client cannot see.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Insight {
    /// Quantiles 0.1 and 0.9 of the forecast for the running step.
    pub band_per_s: Option<(f64, f64)>,
    /// Tokens in the standard bucket.
    pub standard_tokens: Option<f64>,
    /// Claims in the shadow bucket, and its depth.
    pub shadow_tokens: Option<(f64, f64)>,
    /// Whether the contention flag is raised.
    pub contended: bool,
}

/// A running `forebay serve`.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    api: Endpoint,
    secrets: Secrets,
    model_key: String,
    model_digest: String,
    process: Process,
}

impl ControlPlane {
    /// Starts it and hands over policy and model.
    pub(crate) async fn start(
        places: &Places,
        folder: &Path,
        scenario: &Scenario,
        shadow_on: bool,
    ) -> Result<Self> {
        let secrets = Secrets {
            gateway_token: "gateway-token-of-the-demo".to_owned(),
            key_hash: "000102030405060708090a0b0c0d0e0f".to_owned(),
        };
        let admin_token = "admin-token-of-the-demo".to_owned();
        let signing_key = folder.join("model.key");
        let model_key = generate_key(&places.forebay, &signing_key)?;
        let log = folder.join("forebay.log");
        let mut process = Process::start("forebay", &places.forebay, &log, |command| {
            command
                .args([
                    "serve",
                    "--listen",
                    "127.0.0.1:0",
                    "--step-ms",
                    &scenario.step_ms.to_string(),
                ])
                .arg("--data")
                .arg(folder.join("store"))
                .arg("--forecaster-wasm")
                .arg(&places.forecaster)
                .arg("--model-signing-key")
                .arg(&signing_key)
                .env("FOREBAY_GATEWAY_TOKEN", &secrets.gateway_token)
                .env("FOREBAY_ADMIN_TOKEN", &admin_token)
                .env("FOREBAY_KEY_HASH_SECRET", &secrets.key_hash);
        })?;
        let address = listening(&mut process, &log).await?;
        let api = Endpoint {
            address,
            token: Some(admin_token),
        };
        api.send_json(Method::POST, "/v1/policies", &policy(scenario, shadow_on))
            .await?;
        let model_digest = upload_model(&api, &places.model).await?;
        Ok(Self {
            api,
            secrets,
            model_key,
            model_digest,
            process,
        })
    }

    /// Where the gateway synchronises.
    pub(crate) fn address(&self) -> SocketAddr {
        self.api.address
    }

    /// What the gateway must be given.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Key under which models are signed, hexadecimal.
    pub(crate) fn model_key(&self) -> &str {
        &self.model_key
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}
impl ControlPlane {
    /// Imports what each customer used before the replay, which starts at `start_ms`, the edge of a step.
    pub(crate) async fn import_history(&self, scenario: &Scenario, start_ms: u64) -> Result<()> {
        let newest_step = start_ms / scenario.step_ms - 1;
        let series: Vec<Value> = scenario
            .customers
            .iter()
            .map(|c| {
                json!({
                    "key": c.name,
                    "resource": "requests",
                    "step_ms": scenario.step_ms,
                    "newest_step": newest_step,
                    // NaN becomes null: a gap.
                    "usage": c.history,
                })
            })
            .collect();
        self.api
            .send_json(Method::PUT, "/v1/history", &json!({ "series": series }))
            .await?;
        Ok(())
    }

    /// What it knows of each customer, in the scenario's order.
    pub(crate) async fn insights(&self, scenario: &Scenario) -> Result<Vec<Insight>> {
        let mut insights = Vec::with_capacity(scenario.customers.len());
        for customer in &scenario.customers {
            let answer = self
                .api
                .get_json(&format!("/v1/customers/{}", customer.name))
                .await?;
            insights.push(Insight::new(&answer));
        }
        Ok(insights)
    }

    /// Lets the gateway fetch the model that was uploaded.
    pub(crate) async fn activate_model(&self) -> Result<()> {
        self.api
            .send_json(
                Method::POST,
                &format!("/v1/models/{}/activate", self.model_digest),
                &json!({}),
            )
            .await?;
        Ok(())
    }
}

impl Insight {
    fn new(answer: &Value) -> Self {
        let resource = &answer["resources"][0];
        let number = |field: &str| resource[field].as_f64();
        Self {
            band_per_s: number("forecast_low_per_s").zip(number("forecast_high_per_s")),
            standard_tokens: number("gateway_tokens"),
            shadow_tokens: number("shadow_tokens").zip(number("shadow_depth")),
            contended: resource["contended"].as_bool().unwrap_or(false),
        }
    }
}

/// Makes the key that models are signed with, and returns the public half that gateways are given.
fn generate_key(forebay: &Path, file: &Path) -> Result<String> {
    let output = Command::new(forebay)
        .args(["model", "keygen", "--out"])
        .arg(file)
        .output()
        .with_context(|| format!("cannot run {}", forebay.display()))?;
    ensure!(
        output.status.success(),
        "forebay model keygen: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: Value =
        serde_json::from_slice(&output.stdout).context("the answer of forebay model keygen")?;
    Ok(answer["public_key"]
        .as_str()
        .context("forebay model keygen names no public key")?
        .to_owned())
}

/// The address that the control plane says it listens on; the system chooses the port.
async fn listening(process: &mut Process, log: &Path) -> Result<SocketAddr> {
    for _ in 0..READY_POLLS {
        process.check()?;
        let said = fs::read_to_string(log).unwrap_or_default();
        if let Some(address) = said
            .lines()
            .find_map(|line| line.strip_prefix("listening on ")?.parse().ok())
        {
            return Ok(address);
        }
        tokio::time::sleep(POLL).await;
    }
    bail!(
        "forebay serve does not listen after {:?}; end of its log:\n{}",
        POLL * READY_POLLS,
        process.log_tail()
    )
}

async fn upload_model(api: &Endpoint, file: &Path) -> Result<String> {
    let model = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let answer = api
        .call(
            Method::POST,
            "/v1/models",
            "application/octet-stream",
            model,
        )
        .await?;
    let answer: Value =
        serde_json::from_slice(&answer).context("the answer to the upload is not JSON")?;
    Ok(answer["digest"]
        .as_str()
        .context("the answer to the upload has no digest")?
        .to_owned())
}

fn policy(scenario: &Scenario, shadow_on: bool) -> Value {
    let contract = |customer: &Customer| json!({ "limits": { "requests": { "rate_per_s": customer.rate_per_s, "burst": customer.burst } } });
    let contracts: serde_json::Map<String, Value> = scenario
        .customers
        .iter()
        .map(|c| (c.name.to_owned(), contract(c)))
        .collect();
    let customers: Vec<Value> = scenario
        .customers
        .iter()
        .map(|c| json!({ "key": c.name, "contract": c.name }))
        .collect();
    json!({
        "version": 1,
        "resources": { "requests": { "capacity_per_s": scenario.capacity_per_s } },
        // Shallow claims: a tenth of a second of the forecast. What is protected is not served, and the demo is short.
        "shadow": { "enabled": shadow_on, "span_ms": 50 },
        "contracts": contracts,
        "customers": customers,
    })
}
