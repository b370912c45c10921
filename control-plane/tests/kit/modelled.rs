//! Gateways that run models, the site whose server compares them, and the steps that pass there.

use super::forecaster::{LIMITS, fake_forecaster};
use super::{ADMIN_TOKEN, Gateway, STEP_MS, TestServer, policy};
use forebay_control_plane::models::{Sandbox, SigningKeyFile, generate_key, hex};
use forebay_control_plane::store::MemoryStore;
use forebay_wire::sync::{
    ChallengerStatus, ForecastScore, ModelRelease, ModelState, ModelStatus, ResourceScore,
    SyncReply,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A day, which the compared steps must span before a model is promoted.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Syncs of each gateway in a step: all have reported when its middle comes.
const SYNCS_PER_STEP: u32 = 4;

/// Tokens that are used in a step.
const USAGE: f64 = 1_000.0;

/// Servers on one store, one after the other.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    pub(crate) key: Option<SigningKeyFile>,
    pub(crate) server: TestServer,
}

/// A gateway that runs what it is offered, and says how that forecasts.
pub(crate) struct Modelled {
    gateway: Gateway,
    pub(crate) status: ModelStatus,
    /// What becomes of the model that it is offered.
    pub(crate) takes: ModelState,
    pub(crate) refuses_challengers: bool,
    /// It is of a version that knows neither challengers nor resources.
    pub(crate) is_old: bool,
    /// By how much it loses more than others.
    pub(crate) factor: f64,
}

// === impl Site ===

impl Site {
    /// A policy is in force, and no model.
    pub(crate) async fn new(has_key: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = generate_key(&directory.path().join("key")).unwrap();
        let key = has_key.then_some(key);
        let (store, clock) = (Arc::default(), Arc::new(AtomicU64::new(1_000_000)));
        let server = serve(&directory, &key, store, clock);
        server.ok("POST", "/v1/policies", policy()).await;
        Self {
            directory,
            key,
            server,
        }
    }

    /// The server is killed, and another one begins where the store ends.
    pub(crate) fn killed(self) -> Self {
        let Self {
            directory,
            key,
            server,
        } = self;
        let (store, clock) = (Arc::clone(&server.store), Arc::clone(&server.clock));
        drop(server);
        let server = serve(&directory, &key, store, clock);
        Self {
            directory,
            key,
            server,
        }
    }

    /// The same, but the next one has no key.
    pub(crate) fn killed_without_key(self) -> Self {
        Self { key: None, ..self }.killed()
    }

    pub(crate) async fn upload(&self, model: &str) -> String {
        let body = model.as_bytes().to_vec();
        let (status, answer) = self
            .server
            .request("POST", "/v1/models", ADMIN_TOKEN, body)
            .await;
        assert_eq!(status, 200);
        let view: Value = serde_json::from_slice(&answer).unwrap();
        view["digest"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn activate(&self, digest: &str, body: Value) -> Value {
        self.server.ok("POST", &activate(digest), body).await
    }

    /// Two models, the first of which runs everywhere.
    pub(crate) async fn two_models(&self) -> (String, String) {
        let digests = (self.upload("first").await, self.upload("second").await);
        self.activate(&digests.0, Value::Null).await;
        digests
    }

    pub(crate) async fn status(&self) -> Value {
        self.server.ok("GET", "/v1/status", Value::Null).await
    }

    /// The newest record of the audit log.
    pub(crate) async fn last_deed(&self) -> Value {
        let log = self.server.ok("GET", "/v1/audit", Value::Null).await;
        log["records"].as_array().unwrap().last().unwrap().clone()
    }

    pub(crate) async fn sync_all(&self, fleet: &mut [Modelled]) {
        for gateway in fleet {
            gateway.sync(&self.server).await;
        }
    }

    /// A step passes, in which each gateway syncs several times.
    pub(crate) async fn pass_step(&self, fleet: &mut [Modelled]) {
        for _ in 0..SYNCS_PER_STEP {
            self.sync_all(fleet).await;
            self.server.advance_ms(u64::from(STEP_MS / SYNCS_PER_STEP));
        }
    }
}

fn serve(
    directory: &tempfile::TempDir,
    key: &Option<SigningKeyFile>,
    store: Arc<MemoryStore>,
    clock: Arc<AtomicU64>,
) -> TestServer {
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), LIMITS);
    TestServer::with(store, clock, sandbox, key.clone())
}

pub(crate) fn activate(digest: &str) -> String {
    format!("/v1/models/{digest}/activate")
}

/// Noise of a step that is the same for all: that of the demand.
pub(crate) fn noise(number: u32) -> f64 {
    1.0 + 0.5 * f64::from(number).sin()
}

// === impl Modelled ===

impl Modelled {
    pub(crate) fn fleet(count: u64) -> Vec<Self> {
        (0..count)
            .map(|number| Self::new(&format!("gw-{number}")))
            .collect()
    }

    pub(crate) fn new(id: &str) -> Self {
        Self {
            gateway: Gateway::new(id, 1),
            status: ModelStatus::default(),
            takes: ModelState::Running,
            refuses_challengers: false,
            is_old: false,
            factor: 1.0,
        }
    }

    pub(crate) async fn sync(&mut self, server: &TestServer) -> SyncReply {
        let mut request = self.gateway.request();
        request.model_status = Some(self.status.clone());
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, 200, "{reply:?}");
        self.gateway.apply(&reply);
        if let Some(model) = &reply.model {
            self.take(model);
        }
        if !self.is_old {
            self.compare(reply.challenger.as_ref());
        }
        reply
    }

    fn take(&mut self, offer: &ModelRelease) {
        let is_known = self.status.offered_epoch == offer.epoch;
        if is_known && self.status.state() == self.takes {
            return;
        }
        assert!(
            is_known || offer.epoch > self.status.epoch,
            "epochs only grow"
        );
        self.status.offered_epoch = offer.epoch;
        self.status.set_state(self.takes);
        if self.takes != ModelState::Running {
            self.status.message = "the golden vector differs".to_owned();
            return;
        }
        if self.status.digest != offer.digest {
            (self.status.score, self.status.challenger) = (None, None);
        }
        self.status.epoch = offer.epoch;
        self.status.digest = offer.digest.clone();
    }

    fn compare(&mut self, offer: Option<&ModelRelease>) {
        let Some(offer) = offer else {
            self.status.challenger = None;
            return;
        };
        let before = self.status.challenger.as_ref();
        if before.is_some_and(|before| before.offered_epoch == offer.epoch) {
            return;
        }
        assert_eq!(offer.kind, 3);
        assert!(offer.epoch > self.status.epoch);
        self.status.challenger = Some(match self.refuses_challengers {
            true => ChallengerStatus {
                state: ModelState::Refused.into(),
                message: "it looks back too far".to_owned(),
                offered_epoch: offer.epoch,
                ..ChallengerStatus::default()
            },
            false => ChallengerStatus {
                epoch: offer.epoch,
                offered_epoch: offer.epoch,
                digest: offer.digest.clone(),
                state: ModelState::Running.into(),
                ..ChallengerStatus::default()
            },
        });
    }

    /// A step is over: ten forecasts have matured that lose so much of a thousand tokens.
    pub(crate) fn mature(&mut self, loss: f64) {
        self.mature_each(&[(loss, USAGE)]);
    }

    /// The same with loss and usage of each resource.
    pub(crate) fn mature_each(&mut self, resources: &[(f64, f64)]) {
        let (factor, is_old) = (self.factor, self.is_old);
        let lost = |(loss, usage): &(f64, f64)| (loss * factor, *usage);
        let lost: Vec<(f64, f64)> = resources.iter().map(lost).collect();
        add(&mut self.status.score, &lost, is_old);
    }

    /// The same of the model in force and of a challenger beside it.
    pub(crate) fn mature_beside(&mut self, champion: &[(f64, f64)], challenger: &[(f64, f64)]) {
        let is_old = self.is_old;
        if let Some(status) = &mut self.status.challenger {
            add(&mut status.champion_score, champion, is_old);
            add(&mut status.challenger_score, challenger, is_old);
        }
    }

    pub(crate) fn runs(&self, digest: &str) -> bool {
        hex(&self.status.digest) == digest
    }
}

fn add(score: &mut Option<ForecastScore>, resources: &[(f64, f64)], is_old: bool) {
    let score = score.get_or_insert_default();
    score.matured += 10;
    score.covered += 9;
    for (place, (loss, usage)) in resources.iter().enumerate() {
        score.loss += loss;
        score.usage += usage;
        if is_old {
            continue;
        }
        if score.resources.len() <= place {
            score.resources.push(ResourceScore {
                resource: u32::try_from(place).unwrap(),
                ..ResourceScore::default()
            });
        }
        let of_it = &mut score.resources[place];
        of_it.loss += loss;
        of_it.usage += usage;
    }
}

pub(crate) fn running(fleet: &[Modelled], digest: &str) -> usize {
    fleet.iter().filter(|gateway| gateway.runs(digest)).count()
}

/// A canary at so many percent of the gateways, which the server ends.
pub(crate) fn auto(share: u8) -> Value {
    json!({"share": share, "promote": "auto"})
}
