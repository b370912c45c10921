//! A gateway without a proxy: the forecaster's code, driven by a task, and the desk beside it.

use crate::desk::{Desk, TICK_MS};
use crate::memory::Memory;
use forebay_forecaster::host::{CallId, HttpAnswer};
use forebay_forecaster::{ConfigureError, Environment, Forecaster};
use forebay_wire::key::KeySecret;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Who this gateway is.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Its name in the fleet.
    pub id: String,
    /// The token of gateways.
    pub token: String,
    /// The secret under which customer keys are hashed, 32 hexadecimal digits; the development secret if there is none.
    pub key_hash_secret: Option<String>,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The options can never work.
    #[error("the quota gateway: {0}")]
    Options(#[from] ConfigureError),
    /// The secret is not one.
    #[error("the quota gateway: the secret for customer keys is not 32 hexadecimal digits")]
    Secret,
    /// The system has no random numbers.
    #[error("the quota gateway: the system gives no random numbers: {0}")]
    Random(String),
}

/// A call to the control plane.
#[derive(Clone, Debug)]
pub struct Call {
    /// Headers, with `:method` and `:path` among them.
    pub headers: Vec<(String, String)>,
    /// Body, may be empty.
    pub body: Vec<u8>,
    /// When nobody waits for the answer any longer.
    pub timeout: Duration,
}

/// The control plane's answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status; 0 if there was no answer.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// The way to the control plane.
pub trait Uplink: Clone + Send + Sync + 'static {
    /// Makes a call. One that fails has status 0.
    fn call(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// The gateway.
pub struct Gateway {
    memory: Memory,
    forecaster: Forecaster<Memory>,
    desk: Arc<Mutex<Desk>>,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway that has not synced yet.
    ///
    /// # Errors
    /// When the options can never work.
    pub fn new(options: &GatewayOptions) -> Result<Self, GatewayError> {
        let memory = Memory::new();
        let secret = match &options.key_hash_secret {
            Some(hex) => KeySecret::from_hex(hex).map_err(|_| GatewayError::Secret)?,
            None => KeySecret::development(),
        };
        // Models are for gateways with workers of their own; here forecasts come from the fallback.
        let config = serde_json::json!({
            "version": 1,
            "control_plane": { "cluster": "control-plane", "gateway_id": options.id },
        });
        let environment = Environment {
            gateway_token: Some(options.token.clone()),
            gateway_id: None,
            key_hash_secret: options.key_hash_secret.clone(),
            random: getrandom::u64().map_err(|error| GatewayError::Random(error.to_string()))?,
        };
        let config = config.to_string();
        let forecaster = Forecaster::configure(memory.clone(), config.as_bytes(), &environment)?;
        Ok(Self {
            desk: Arc::new(Mutex::new(Desk::new(memory.clone(), secret))),
            memory,
            forecaster,
        })
    }

    /// What decides, for those who serve.
    #[must_use]
    pub fn desk(&self) -> Arc<Mutex<Desk>> {
        Arc::clone(&self.desk)
    }

    /// Keeps the gateway in step with the control plane until `stopped`.
    pub async fn run(mut self, uplink: impl Uplink, mut stopped: watch::Receiver<bool>) {
        let mut forecaster_ticks = interval(Duration::from_millis(
            self.forecaster.tick_period_ms().into(),
        ));
        forecaster_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut desk_ticks = interval(Duration::from_millis(TICK_MS));
        desk_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calls: JoinSet<(CallId, HttpAnswer)> = JoinSet::new();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                _ = desk_ticks.tick() => self.tick_desk(),
                _ = forecaster_ticks.tick() => {
                    self.forecaster.on_tick();
                    for (id, call) in self.memory.take_calls() {
                        calls.spawn(made(uplink.clone(), id, call));
                    }
                }
                Some(answered) = calls.join_next() => match answered {
                    Ok((id, answer)) => self.forecaster.on_http_response(id, answer),
                    // The forecaster finds out by the time that a call may take.
                    Err(error) => tracing::error!(%error, "a call of the quota gateway broke off"),
                },
            }
        }
    }

    fn tick_desk(&self) {
        let desk = self.desk.lock();
        desk.unwrap_or_else(PoisonError::into_inner).on_tick();
    }
}

async fn made(uplink: impl Uplink, id: CallId, call: Call) -> (CallId, HttpAnswer) {
    let timeout = call.timeout;
    let answer = tokio::time::timeout(timeout, uplink.call(call)).await;
    let answer = answer.unwrap_or_default();
    let answer = HttpAnswer {
        status: answer.status,
        body: answer.body,
    };
    (id, answer)
}
