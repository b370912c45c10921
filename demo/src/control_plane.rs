//! The real control plane on a fresh embedded store, with the policy, the history and the model of the demo.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};

use crate::http::Endpoint;
use crate::places::Places;
use crate::processes::Process;
use crate::scenario::{Customer, Scenario};

/// Opening an empty store takes milliseconds; a machine that compiles at the same time is slower.
const READY_POLLS: u32 = 600;
const POLL: Duration = Duration::from_millis(50);

/// What gateway and control plane share. Fixed, because both live for a minute on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The gateway's credential.
    pub gateway_token: String,
    /// Under which customer keys are hashed, 32 hexadecimal digits.
    pub key_hash: String,
}

/// What the control plane knows of a customer that the client cannot see.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Insight {
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
pub struct ControlPlane {
    api: Endpoint,
    secrets: Secrets,
    model_key: String,
    model_digest: String,
    process: Process,
}

impl ControlPlane {
    /// Starts it and hands over policy and model.
    pub async fn start(
        places: &Places,
        folder: &Path,
        scenario: &Scenario,
        shadow_on: bool,
    ) -> Result<Self> {
        let secrets = Secrets {
            gateway_token: "demo-gateway".to_owned(),
            key_hash: "000102030405060708090a0b0c0d0e0f".to_owned(),
        };
        let admin_token = "demo-admin".to_owned();
        let address = free_address()?;
        let process = Process::start(
            "forebay",
            &places.forebay,
            &folder.join("forebay.log"),
            |command| {
                command
                    .args(["serve", "--listen", &address.to_string(), "--data"])
                    .arg(folder.join("store"))
                    .arg("--forecaster-wasm")
                    .arg(&places.forecaster)
                    .env("FOREBAY_GATEWAY_TOKEN", &secrets.gateway_token)
                    .env("FOREBAY_ADMIN_TOKEN", &admin_token)
                    .env("FOREBAY_KEY_HASH_SECRET", &secrets.key_hash);
            },
        )?;
        let api = Endpoint {
            address,
            token: Some(admin_token),
        };
        let mut plane = Self {
            api,
            secrets,
            model_key: String::new(),
            model_digest: String::new(),
            process,
        };
        plane.wait_ready().await?;
        plane
            .api
            .send_json(Method::PUT, "/v1/policy", &policy(scenario, shadow_on))
            .await?;
        plane.upload_model(&places.model).await?;
        Ok(plane)
    }

    /// Where the gateway synchronises.
    pub fn address(&self) -> SocketAddr {
        self.api.address
    }

    /// What the gateway must be given.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Key under which models are signed, hexadecimal.
    pub fn model_key(&self) -> &str {
        &self.model_key
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}
impl ControlPlane {
    /// Imports what each customer used before the replay; the newest step ends at `until_ms` on the wall clock.
    pub async fn import_history(&self, scenario: &Scenario, until_ms: u64) -> Result<()> {
        let customers: Vec<Value> = scenario
            .customers
            .iter()
            .map(|c| json!({ "key": c.name, "resource": "requests", "usage": c.history }))
            .collect();
        let body = json!({ "step_ms": scenario.step_ms, "until_unix_ms": until_ms, "customers": customers });
        self.api
            .send_json(Method::PUT, "/v1/history", &body)
            .await?;
        Ok(())
    }

    /// What it knows of each customer, in the scenario's order.
    pub async fn insights(&self, scenario: &Scenario) -> Result<Vec<Insight>> {
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

    async fn wait_ready(&mut self) -> Result<()> {
        for _ in 0..READY_POLLS {
            self.process.check()?;
            if self.api.get("/v1/status").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!(
            "forebay serve is not ready; end of its log:\n{}",
            self.process.log_tail()
        )
    }

    async fn upload_model(&mut self, file: &Path) -> Result<()> {
        let model = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let answer = self
            .api
            .call(
                Method::POST,
                "/v1/models",
                "application/octet-stream",
                model,
            )
            .await?;
        let answer: Value =
            serde_json::from_slice(&answer).context("the answer to the upload is not JSON")?;
        self.model_digest = answer["digest"]
            .as_str()
            .context("the answer to the upload has no digest")?
            .to_owned();
        let status = self.api.get_json("/v1/status").await?;
        self.model_key = status["model_public_key"]
            .as_str()
            .context("the status has no public key")?
            .to_owned();
        Ok(())
    }

    /// Lets the gateway fetch the model that was uploaded.
    pub async fn activate_model(&self) -> Result<()> {
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
        let resource = &answer["resources"]["requests"];
        Self {
            band_per_s: resource["forecast_low_per_s"]
                .as_f64()
                .zip(resource["forecast_high_per_s"].as_f64()),
            standard_tokens: resource["tokens"].as_f64(),
            shadow_tokens: None,
            contended: resource["contended"].as_bool().unwrap_or(false),
        }
    }
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
        "shadow": { "enabled": shadow_on, "credit_ms": 50 },
        "contracts": contracts,
        "customers": customers,
    })
}

/// A port that nobody uses at this moment. The control plane is told its port, so it cannot be left to the system.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    listener.local_addr().context("the address of a free port")
}
