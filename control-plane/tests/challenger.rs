//! A model that is compared beside the one in force, and what becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_control_plane::models::{hex, verify};
use forebay_wire::model::{ModelStatement, ReleaseKind};
use forebay_wire::sync::ModelStatus;
use kit::ADMIN_TOKEN;
use kit::modelled::{DAY_MS, Modelled, Site, noise};
use serde_json::{Value, json};

/// Two models, the first of which runs everywhere, on a server that has the key or has it no more.
async fn two_models(has_key: bool) -> (Site, String, String) {
    let mut site = Site::new(true).await;
    let (first, second) = site.two_models().await;
    if !has_key {
        site = site.killed_without_key();
    }
    (site, first, second)
}

impl Site {
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
}

/// Lets steps pass in which champion and challenger have these losses.
async fn steps(fleet: &mut [Modelled], site: &Site, losses: (f64, f64), count: u32) {
    for number in 0..count {
        for gateway in fleet.iter_mut() {
            let of = |loss: f64| [(loss * noise(number), 1e3)];
            gateway.mature_beside(&of(losses.0), &of(losses.1));
        }
        site.pass_step(fleet).await;
    }
}

#[tokio::test]
async fn it_runs_at_every_gateway_that_can_and_changes_what_none_of_them_is_to_run() {
    let (mut site, first, second) = two_models(true).await;
    let mut fleet = Modelled::fleet(3);
    fleet[2].is_old = true;
    site.sync_all(&mut fleet).await;
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
        let (site, _, second) = two_models(true).await;
        // One gateway is enough: it compares by itself.
        let mut fleet = Modelled::fleet(1);
        site.sync_all(&mut fleet).await;
        site.challenge(&second, json!({"promote": promote})).await;
        site.sync_all(&mut fleet).await;
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
    let (site, first, second) = two_models(true).await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
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
    fleet[1].refuses_challengers = true;
    for promote in ["manual", "auto"] {
        site.challenge(&second, json!({"promote": promote})).await;
        for _ in 0..2 {
            site.sync_all(&mut fleet).await;
        }
        match (promote, site.challenger().await) {
            ("manual", Some(view)) => {
                let refused = json!([{"gateway": "gw-1", "message": "it looks back too far"}]);
                assert_eq!(view["refused"], refused);
                site.server
                    .ok("POST", "/v1/models/withdraw", Value::Null)
                    .await;
                site.sync_all(&mut fleet).await;
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
    let (site, first, second) = two_models(true).await;
    let third = site.upload("another").await;
    let mut fleet = Modelled::fleet(2);
    site.sync_all(&mut fleet).await;
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
    site.sync_all(&mut fleet).await;
    assert_eq!(site.refused(&second, Value::Null).await, "canary_runs");
    let rollback = "/v1/models/rollback";
    site.server.ok("POST", rollback, Value::Null).await;
    site.sync_all(&mut fleet).await;
    site.challenge(&second, Value::Null).await;
    let activate = format!("/v1/models/{third}/activate");
    site.server.ok("POST", &activate, Value::Null).await;
    assert!(site.challenger().await.is_none());
}

#[tokio::test]
async fn a_server_without_a_key_takes_a_statement_for_a_challenger_and_for_nothing_else() {
    let (site, _, second) = two_models(false).await;
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
        let (site, _, second) = two_models(true).await;
        let mut fleet = Modelled::fleet(2);
        site.sync_all(&mut fleet).await;
        site.challenge(&second, Value::Null).await;
        site.sync_all(&mut fleet).await;
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

#[tokio::test]
async fn one_that_is_worse_for_requests_is_withdrawn_however_many_bytes_there_are() {
    let (site, _, second) = two_models(true).await;
    let mut fleet = Modelled::fleet(1);
    site.sync_all(&mut fleet).await;
    site.challenge(&second, json!({"promote": "auto"})).await;
    site.sync_all(&mut fleet).await;
    for number in 0..300 {
        let noise = noise(number);
        let of = |requests: f64| [(requests * noise, 1e3), (5e7 * noise, 1e9)];
        fleet[0].mature_beside(&of(50.0), &of(100.0));
        site.pass_step(&mut fleet).await;
    }
    assert!(site.challenger().await.is_none());
    let deed = site.last_deed().await;
    assert_eq!(deed["parameters"]["reason"], "worse than the one before");
}
