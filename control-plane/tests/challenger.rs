//! A model that is compared beside the one in force, and what becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_control_plane::models::{Sandbox, SigningKeyFile, generate_key, hex, verify};
use forebay_control_plane::store::MemoryStore;
use forebay_wire::model::{ModelStatement, ReleaseKind};
use forebay_wire::sync::{
    ChallengerStatus, ForecastScore, ModelRelease, ModelState, ModelStatus, SyncReply,
};
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{ADMIN_TOKEN, Gateway, STEP_MS, TestServer, policy};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A day, which the compared steps must span before a model is released.
const DAY_MS: u64 = 86_400_000;

/// Syncs of each gateway in a step.
const SYNCS_PER_STEP: u32 = 4;

/// Servers on one store, one after the other.
struct Site {
    directory: tempfile::TempDir,
    key: Option<SigningKeyFile>,
    server: TestServer,
}

/// A gateway that runs what it is offered, and what it is to compare beside it.
struct Modelled {
    gateway: Gateway,
    status: ModelStatus,
    /// It is of a version that knows no challengers.
    is_old: bool,
    refuses: bool,
}

// === impl Site ===

impl Site {
    /// Two models, the first of which runs everywhere.
    async fn new(has_key: bool) -> (Self, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let key = generate_key(&directory.path().join("key")).unwrap();
        let (store, clock) = (Arc::default(), Arc::new(AtomicU64::new(1_000_000)));
        let server = serve(&directory, Some(key.clone()), store, clock);
        server.ok("POST", "/v1/policies", policy()).await;
        let mut site = Self {
            directory,
            key: Some(key),
            server,
        };
        let (first, second) = (site.upload("first").await, site.upload("second").await);
        let path = format!("/v1/models/{first}/activate");
        site.server.ok("POST", &path, Value::Null).await;
        if !has_key {
            site.key = None;
            site = site.killed();
        }
        (site, first, second)
    }

    /// The server is killed, and another one begins where the store ends.
    fn killed(self) -> Self {
        let Self {
            directory,
            key,
            server,
        } = self;
        let (store, clock) = (Arc::clone(&server.store), Arc::clone(&server.clock));
        drop(server);
        let server = serve(&directory, key.clone(), store, clock);
        Self {
            directory,
            key,
            server,
        }
    }

    async fn upload(&self, model: &str) -> String {
        let body = model.as_bytes().to_vec();
        let (status, answer) = self
            .server
            .request("POST", "/v1/models", ADMIN_TOKEN, body)
            .await;
        assert_eq!(status, 200);
        let view: Value = serde_json::from_slice(&answer).unwrap();
        view["digest"].as_str().unwrap().to_owned()
    }

    async fn challenge(&self, digest: &str, body: Value) -> Value {
        let path = format!("/v1/models/{digest}/challenge");
        self.server.ok("POST", &path, body).await
    }

    async fn refused(&self, digest: &str, body: Value) -> String {
        let path = format!("/v1/models/{digest}/challenge");
        let (status, error) = self.server.admin("POST", &path, body).await;
        assert!(status.is_client_error(), "{error}");
        error["code"].as_str().unwrap().to_owned()
    }

    async fn status(&self) -> Value {
        self.server.ok("GET", "/v1/status", Value::Null).await
    }

    /// What is shown of the challenger, if there is one.
    async fn challenger(&self) -> Option<Value> {
        let (status, view) = self
            .server
            .admin("GET", "/v1/models/challenger", Value::Null)
            .await;
        assert_eq!(
            self.status().await.get("challenger"),
            (status == 200).then_some(&view)
        );
        (status == 200).then_some(view)
    }

    /// The newest record of the audit log.
    async fn last_deed(&self) -> Value {
        let log = self.server.ok("GET", "/v1/audit", Value::Null).await;
        log["records"].as_array().unwrap().last().unwrap().clone()
    }
}

fn serve(
    directory: &tempfile::TempDir,
    key: Option<SigningKeyFile>,
    store: Arc<MemoryStore>,
    clock: Arc<AtomicU64>,
) -> TestServer {
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), LIMITS);
    TestServer::with(store, clock, sandbox, key)
}

// === impl Modelled ===

impl Modelled {
    fn fleet(count: u64) -> Vec<Self> {
        let one = |number| Self {
            gateway: Gateway::new(&format!("gw-{number}"), 1),
            status: ModelStatus::default(),
            is_old: false,
            refuses: false,
        };
        (0..count).map(one).collect()
    }

    async fn sync(&mut self, server: &TestServer) -> SyncReply {
        let mut request = self.gateway.request();
        request.model_status = Some(self.status.clone());
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, 200, "{reply:?}");
        self.gateway.apply(&reply);
        if let Some(model) = &reply.model
            && self.status.offered_epoch != model.epoch
        {
            assert!(model.epoch > self.status.epoch, "epochs only grow");
            self.status = ModelStatus {
                epoch: model.epoch,
                offered_epoch: model.epoch,
                digest: model.digest.clone(),
                state: ModelState::Running.into(),
                ..ModelStatus::default()
            };
        }
        if !self.is_old {
            self.compare(reply.challenger.as_ref());
        }
        reply
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
        self.status.challenger = Some(match self.refuses {
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

    /// A step is over: ten forecasts of 100 tokens each have matured, of both.
    fn mature(&mut self, losses: (f64, f64)) {
        let Some(status) = &mut self.status.challenger else {
            return;
        };
        let add = |score: &mut Option<ForecastScore>, loss| {
            let score = score.get_or_insert_default();
            score.matured += 10;
            score.covered += 9;
            score.loss += loss;
            score.usage += 1_000.0;
        };
        add(&mut status.champion_score, losses.0);
        add(&mut status.challenger_score, losses.1);
    }
}

async fn sync_all(fleet: &mut [Modelled], server: &TestServer) {
    for gateway in fleet {
        gateway.sync(server).await;
    }
}

/// Lets steps pass in which champion and challenger have these losses, with noise that is the same for both: that of the demand.
async fn steps(fleet: &mut [Modelled], site: &Site, losses: (f64, f64), count: u32) {
    for number in 0..count {
        let noise = 1.0 + 0.5 * f64::from(number).sin();
        for gateway in fleet.iter_mut() {
            gateway.mature((losses.0 * noise, losses.1 * noise));
        }
        for _ in 0..SYNCS_PER_STEP {
            sync_all(fleet, &site.server).await;
            site.server.advance_ms(u64::from(STEP_MS / SYNCS_PER_STEP));
        }
    }
}

#[tokio::test]
async fn it_runs_at_every_gateway_that_can_and_changes_what_none_of_them_is_to_run() {
    let (mut site, first, second) = Site::new(true).await;
    let mut fleet = Modelled::fleet(3);
    fleet[2].is_old = true;
    sync_all(&mut fleet, &site.server).await;
    let view = site.challenge(&second, Value::Null).await;
    assert_eq!(
        (&view["digest"], &view["champion_epoch"], &view["promote"]),
        (&json!(second), &json!(1), &json!("manual"))
    );
    let reply = fleet[0].sync(&site.server).await;
    let (model, offer) = (reply.model.unwrap(), reply.challenger.unwrap());
    assert_eq!((model.epoch, hex(&model.digest)), (1, first.clone()));
    let statement = ModelStatement {
        digest: offer.digest.as_slice().try_into().unwrap(),
        epoch: offer.epoch,
        kind: ReleaseKind::Challenger,
    };
    let public = site.key.as_ref().unwrap().public_key();
    let signature = offer.signature.as_slice().try_into().unwrap();
    assert!(verify(&public, &statement, &signature));
    steps(&mut fleet, &site, (50.0, 40.0), 40).await;
    site = site.killed();
    steps(&mut fleet, &site, (50.0, 40.0), 40).await;
    let view = site.challenger().await.unwrap();
    assert_eq!(view["gateways"], 2, "{view}");
    let evidence = &view["evidence"];
    assert!(evidence["pairs"].as_u64() > Some(10), "{view}");
    let close = |name: &str, to: f64| (evidence[name].as_f64().unwrap() / to - 1.0).abs() < 0.05;
    assert!(close("champion_loss", 0.05), "{view}");
    assert!(close("challenger_loss", 0.04), "{view}");
    let status = site.status().await;
    assert_eq!(
        (&status["model_epoch"], &status["model_digest"]),
        (&json!(1), &json!(first))
    );
    let metrics = site
        .server
        .request("GET", "/metrics", ADMIN_TOKEN, Vec::new())
        .await
        .1;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(
        metrics.contains("\nforebay_challenger_epoch 2\n"),
        "{metrics}"
    );
    let ended = site
        .server
        .ok("POST", "/v1/models/withdraw", Value::Null)
        .await;
    assert_eq!(ended["digest"], json!(second));
    assert!(site.challenger().await.is_none());
    assert_eq!(fleet[0].sync(&site.server).await.challenger, None);
    let deed = site.last_deed().await;
    assert_eq!(
        (&deed["action"], &deed["role"]),
        (&json!("model.withdraw"), &json!("admin"))
    );
    assert!(
        deed["outcome"].as_str().unwrap().contains("pairs"),
        "{deed}"
    );
    let site = site.killed();
    assert!(site.challenger().await.is_none());
    let (_, error) = site
        .server
        .admin("POST", "/v1/models/withdraw", Value::Null)
        .await;
    assert_eq!(error["code"], "no_challenger");
}

#[tokio::test]
async fn the_better_one_is_released_by_itself_after_a_day_and_a_manual_one_waits_for_somebody() {
    for (promote, epoch) in [("auto", 2), ("manual", 1)] {
        let (site, _, second) = Site::new(true).await;
        // One gateway is enough: it compares by itself.
        let mut fleet = Modelled::fleet(1);
        sync_all(&mut fleet, &site.server).await;
        site.challenge(&second, json!({"promote": promote})).await;
        sync_all(&mut fleet, &site.server).await;
        steps(&mut fleet, &site, (50.0, 35.0), 150).await;
        let early = site.challenger().await.unwrap();
        let evidence = &early["evidence"];
        assert!(evidence["better"].as_f64() > evidence["needed"].as_f64());
        assert!(early.get("finding").is_none(), "not within a day");
        for _ in 0..24 {
            site.server.advance_ms(DAY_MS / 24);
            steps(&mut fleet, &site, (50.0, 35.0), 3).await;
        }
        assert_eq!(fleet[0].status.epoch, epoch, "{promote}");
        match promote {
            "auto" => {
                let deed = site.last_deed().await;
                assert_eq!(
                    (&deed["action"], &deed["role"], &deed["object"]),
                    (&json!("model.promote"), &json!("server"), &json!(second))
                );
                assert!(site.challenger().await.is_none());
                assert_eq!(hex(&fleet[0].status.digest), second);
            }
            _ => assert_eq!(site.challenger().await.unwrap()["finding"], "better"),
        }
    }
}

#[tokio::test]
async fn a_worse_one_is_withdrawn_with_its_evidence_and_so_is_one_that_a_gateway_refuses() {
    let (site, first, second) = Site::new(true).await;
    let mut fleet = Modelled::fleet(3);
    sync_all(&mut fleet, &site.server).await;
    let auto = json!({"promote": "auto"});
    site.challenge(&second, auto.clone()).await;
    steps(&mut fleet, &site, (50.0, 80.0), 200).await;
    assert!(site.challenger().await.is_none());
    let deed = site.last_deed().await;
    assert_eq!(
        (
            &deed["action"],
            &deed["role"],
            &deed["parameters"]["reason"]
        ),
        (
            &json!("model.withdraw"),
            &json!("server"),
            &json!("worse than the one before")
        )
    );
    let outcome = deed["outcome"].as_str().unwrap();
    assert!(outcome.contains("against 0.05"), "{outcome}");
    fleet[1].refuses = true;
    for promote in ["manual", "auto"] {
        site.challenge(&second, json!({"promote": promote})).await;
        for _ in 0..2 {
            sync_all(&mut fleet, &site.server).await;
        }
        match (promote, site.challenger().await) {
            ("manual", Some(view)) => {
                let refused = json!([{"gateway": "gw-1", "message": "it looks back too far"}]);
                assert_eq!(view["refused"], refused);
                site.server
                    .ok("POST", "/v1/models/withdraw", Value::Null)
                    .await;
                sync_all(&mut fleet, &site.server).await;
            }
            (_, None) => {
                let deed = site.last_deed().await;
                let reason = deed["parameters"]["reason"].as_str().unwrap();
                assert!(reason.contains("looks back too far"), "{reason}");
            }
            (_, view) => panic!("{view:?}"),
        }
    }
    assert_eq!(site.status().await["model_digest"], json!(first));
}

#[tokio::test]
async fn whatever_is_released_ends_it_and_it_does_not_begin_beside_a_canary() {
    let (site, first, second) = Site::new(true).await;
    let third = site.upload("another").await;
    let mut fleet = Modelled::fleet(2);
    sync_all(&mut fleet, &site.server).await;
    assert_eq!(site.refused(&first, Value::Null).await, "same_model");
    assert_eq!(
        site.refused(&"0".repeat(64), Value::Null).await,
        "no_such_model"
    );
    site.challenge(&second, Value::Null).await;
    assert_eq!(site.refused(&third, Value::Null).await, "challenger_runs");
    let canary = format!("/v1/models/{third}/activate");
    let release = site.server.ok("POST", &canary, json!({"share": 50})).await;
    assert_eq!(release["epoch"], 2, "a comparison uses up no epoch");
    assert!(site.challenger().await.is_none());
    let deed = site.last_deed().await;
    let outcome = deed["outcome"].as_str().unwrap();
    assert!(outcome.contains("is not compared any more"), "{outcome}");
    sync_all(&mut fleet, &site.server).await;
    assert_eq!(site.refused(&second, Value::Null).await, "canary_runs");
    let rollback = "/v1/models/rollback";
    site.server.ok("POST", rollback, Value::Null).await;
    sync_all(&mut fleet, &site.server).await;
    site.challenge(&second, Value::Null).await;
    let activate = format!("/v1/models/{third}/activate");
    site.server.ok("POST", &activate, Value::Null).await;
    assert!(site.challenger().await.is_none());
}

#[tokio::test]
async fn a_server_without_a_key_takes_a_statement_for_a_challenger_and_for_nothing_else() {
    let (site, _, second) = Site::new(false).await;
    assert_eq!(site.refused(&second, Value::Null).await, "not_signed");
    let auto = json!({"promote": "auto"});
    assert_eq!(site.refused(&second, auto).await, "not_signed");
    let other = json!({"epoch": 1, "signature": "00".repeat(64)});
    assert_eq!(site.refused(&second, other).await, "stale_epoch");
    let signed = json!({"epoch": 2, "signature": "00".repeat(64)});
    site.challenge(&second, signed).await;
    assert!(site.challenger().await.is_some());
}

#[tokio::test]
async fn sums_that_are_not_of_the_same_forecasts_or_not_of_these_two_models_do_not_count() {
    type Wrong = fn(&mut ModelStatus);
    let wrongs: [Wrong; 3] = [
        |status| {
            let told = status.challenger.as_mut().unwrap();
            told.challenger_score.as_mut().unwrap().usage += 1.0;
        },
        |status| status.digest = vec![7; 32],
        |status| status.challenger.as_mut().unwrap().digest = vec![7; 32],
    ];
    for (number, wrong) in wrongs.into_iter().enumerate() {
        let (site, _, second) = Site::new(true).await;
        let mut fleet = Modelled::fleet(2);
        sync_all(&mut fleet, &site.server).await;
        site.challenge(&second, Value::Null).await;
        sync_all(&mut fleet, &site.server).await;
        steps(&mut fleet, &site, (50.0, 40.0), 1).await;
        for gateway in &mut fleet {
            wrong(&mut gateway.status);
        }
        steps(&mut fleet, &site, (50.0, 40.0), 100).await;
        let view = site.challenger().await.unwrap();
        assert_eq!(view["evidence"]["pairs"], 0, "{number}: {view}");
        assert_eq!(view["lacks"], "gateways", "{number}: {view}");
    }
}
