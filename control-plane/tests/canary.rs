//! A release at a share of the gateways, and what becomes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_wire::model::ReleaseKind;
use forebay_wire::sync::{ForecastScore, ModelState};
use kit::modelled::{DAY_MS, Modelled, Site, activate, auto, noise, running};
use kit::{ADMIN_TOKEN, STEP_MS};
use serde_json::{Value, json};

/// More steps than any decision of these tests needs.
const STEPS_MOST: u32 = 600;

/// Lets a step pass in which the models have these losses per step.
async fn step(fleet: &mut [Modelled], site: &Site, second: &str, losses: (f64, f64), number: u32) {
    for gateway in fleet.iter_mut() {
        let loss = if gateway.runs(second) {
            losses.1
        } else {
            losses.0
        };
        gateway.mature(loss * noise(number));
    }
    site.pass_step(fleet).await;
}

/// Some steps in which the second model is better.
async fn steps_of_an_hour(fleet: &mut [Modelled], site: &Site, second: &str) {
    for number in 0..3 {
        step(fleet, site, second, (50.0, 35.0), number).await;
    }
}

/// A day goes by, with some steps in each of its hours.
async fn a_day(fleet: &mut [Modelled], site: &Site, second: &str) {
    for _ in 0..24 {
        site.server.advance_ms(DAY_MS / 24);
        steps_of_an_hour(fleet, site, second).await;
    }
}

/// Steps until the canary has ended. Returns how many.
async fn until_decided(
    fleet: &mut [Modelled],
    site: &Site,
    second: &str,
    losses: (f64, f64),
) -> u32 {
    for number in 0..STEPS_MOST {
        step(fleet, site, second, losses, number).await;
        if site.status().await.get("canary").is_none() {
            return number;
        }
    }
    panic!("undecided: {}", site.status().await["canary"]);
}

#[tokio::test]
async fn a_share_of_the_gateways_runs_it_until_it_is_promoted_also_after_a_restart() {
    let mut site = Site::new(true).await;
    let (_, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(10);
    site.sync_all(&mut fleet).await;
    let release = site
        .server
        .ok("POST", &activate(&second), json!({"share": 25}))
        .await;
    assert_eq!(release["epoch"], 2);
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &second), 3, "a quarter of ten, rounded up");
    let chosen: Vec<bool> = fleet.iter().map(|gateway| gateway.runs(&second)).collect();
    site = site.killed();
    site.sync_all(&mut fleet).await;
    let still: Vec<bool> = fleet.iter().map(|gateway| gateway.runs(&second)).collect();
    assert_eq!(chosen, still);
    let status = site.status().await;
    let canary = &status["canary"];
    assert_eq!(
        (
            &canary["epoch"],
            &canary["champion_epoch"],
            &canary["digest"]
        ),
        (&json!(2), &json!(1), &json!(second))
    );
    assert_eq!(status["model_epoch"], 1);
    let marked = status["gateways"].as_array().unwrap().iter();
    let marked = marked.filter(|gateway| gateway["canary"] == json!(true));
    assert_eq!(marked.count(), 3);
    let third = site.upload("another").await;
    let (_, error) = site
        .server
        .admin("POST", &activate(&third), Value::Null)
        .await;
    assert_eq!(error["code"], "canary_runs");
    let promoted = site
        .server
        .ok("POST", "/v1/models/promote", Value::Null)
        .await;
    assert_eq!(
        (&promoted["epoch"], &promoted["digest"]),
        (&json!(2), &json!(second))
    );
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &second), 10);
    let (_, error) = site
        .server
        .admin("POST", "/v1/models/promote", Value::Null)
        .await;
    assert_eq!(error["code"], "no_canary");
    let deed = site.last_deed().await;
    assert_eq!(
        (&deed["action"], &deed["role"]),
        (&json!("model.promote"), &json!("admin"))
    );
    site = site.killed();
    site.sync_all(&mut fleet).await;
    assert_eq!(site.status().await["model_epoch"], 2);
}

#[tokio::test]
async fn a_canary_that_is_rolled_back_gives_the_model_before_a_new_epoch() {
    let site = Site::new(true).await;
    let (first, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(4);
    site.sync_all(&mut fleet).await;
    site.server
        .ok("POST", &activate(&second), json!({"share": 1}))
        .await;
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &second), 1, "at least one");
    let (_, error) = site
        .server
        .admin("POST", "/v1/models/rollback", json!({"digest": second}))
        .await;
    assert_eq!(error["code"], "canary_runs");
    let back = site
        .server
        .ok("POST", "/v1/models/rollback", Value::Null)
        .await;
    assert_eq!(
        (&back["epoch"], &back["digest"], &back["roll_back"]),
        (&json!(3), &json!(first), &json!(true))
    );
    let reply = fleet[0].sync(&site.server).await.model.unwrap();
    assert_eq!(
        (reply.epoch, ReleaseKind::from_code(reply.kind)),
        (3, Some(ReleaseKind::RollBack))
    );
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &first), 4);
    // What was a canary only is nothing to go back to.
    let (_, error) = site
        .server
        .admin("POST", "/v1/models/rollback", Value::Null)
        .await;
    assert_eq!(error["code"], "nothing_to_roll_back_to");
    let site = site.killed();
    let (_, error) = site
        .server
        .admin("POST", "/v1/models/rollback", json!({"digest": second}))
        .await;
    assert_eq!(error["code"], "never_ran");
}

#[tokio::test]
async fn a_worse_canary_is_taken_back_by_itself_with_its_evidence_in_the_audit_log() {
    let mut site = Site::new(true).await;
    let (first, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(5);
    site.sync_all(&mut fleet).await;
    site.server
        .ok(
            "POST",
            &activate(&second),
            json!({"share": 20, "promote": "auto"}),
        )
        .await;
    site.sync_all(&mut fleet).await;
    for number in 0..60 {
        step(&mut fleet, &site, &second, (50.0, 70.0), number).await;
    }
    let pairs = |status: &Value| status["canary"]["evidence"]["pairs"].as_u64().unwrap();
    let before = pairs(&site.status().await);
    assert!(before > 10, "{before}");
    site = site.killed();
    assert_eq!(
        pairs(&site.status().await),
        before,
        "evidence is in the store"
    );
    until_decided(&mut fleet, &site, &second, (50.0, 70.0)).await;
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &first), 5);
    assert_eq!(site.status().await["model_epoch"], 3);
    let deed = site.last_deed().await;
    assert_eq!(
        (&deed["action"], &deed["role"], &deed["object"]),
        (&json!("model.rollback"), &json!("server"), &json!(second))
    );
    assert_eq!(deed["parameters"]["reason"], "worse than the one before");
    let outcome = deed["outcome"].as_str().unwrap();
    assert!(
        outcome.contains("loss 0.07") && outcome.contains("against 0.05"),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_better_canary_is_promoted_by_itself_and_a_manual_one_waits_for_somebody() {
    for (promote, expected) in [("auto", 5), ("manual", 1)] {
        let site = Site::new(true).await;
        let (_, second) = site.two_models().await;
        let mut fleet = Modelled::fleet(5);
        site.sync_all(&mut fleet).await;
        let body = json!({"share": 20, "promote": promote});
        site.server.ok("POST", &activate(&second), body).await;
        site.sync_all(&mut fleet).await;
        for number in 0..150 {
            step(&mut fleet, &site, &second, (50.0, 35.0), number).await;
        }
        let early = site.status().await;
        assert!(
            early["canary"]["evidence"]["better"].as_f64()
                > early["canary"]["evidence"]["needed"].as_f64()
        );
        assert!(early["canary"].get("finding").is_none(), "not within a day");
        // Somebody who is asleep at night is not judged by the next morning.
        site.server.advance_ms(DAY_MS);
        steps_of_an_hour(&mut fleet, &site, &second).await;
        let sparse = site.status().await;
        assert!(sparse["canary"]["evidence"]["span_ms"].as_u64() > Some(DAY_MS));
        assert!(
            sparse["canary"].get("finding").is_none(),
            "two of its hours"
        );
        a_day(&mut fleet, &site, &second).await;
        site.sync_all(&mut fleet).await;
        assert_eq!(running(&fleet, &second), expected, "{promote}");
        let canary = &site.status().await["canary"];
        match promote {
            "auto" => assert_eq!(site.last_deed().await["action"], "model.promote"),
            _ => assert_eq!(canary["finding"], "better"),
        }
    }
}

/// Steps of two resources: requests, and bytes of which there are a million times as many.
async fn steps_of_two(fleet: &mut [Modelled], site: &Site, second: &str, requests: (f64, f64)) {
    for number in 0..STEPS_MOST {
        for gateway in fleet.iter_mut() {
            let loss = if gateway.runs(second) {
                requests.1
            } else {
                requests.0
            };
            let noise = noise(number);
            gateway.mature_each(&[(loss * noise, 1e3), (5e7 * noise, 1e9)]);
        }
        site.pass_step(fleet).await;
        if site.status().await.get("canary").is_none() {
            return;
        }
    }
    panic!("undecided: {}", site.status().await["canary"]);
}

#[tokio::test]
async fn a_canary_that_is_worse_for_requests_is_taken_back_however_many_bytes_there_are() {
    let site = Site::new(true).await;
    let (first, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
    site.activate(&second, auto(30)).await;
    site.sync_all(&mut fleet).await;
    steps_of_two(&mut fleet, &site, &second, (50.0, 100.0)).await;
    let deed = site.last_deed().await;
    assert_eq!(deed["parameters"]["reason"], "worse than the one before");
    let outcome = deed["outcome"].as_str().unwrap();
    // The means of both resources: 0.1 and 0.05 for requests, 0.05 for bytes, as the noise of so few steps makes them.
    assert!(
        outcome.contains("loss 0.07") && outcome.contains("against 0.0"),
        "{outcome}"
    );
    assert_eq!(site.status().await["model_digest"], json!(first));
}

#[tokio::test]
async fn gateways_that_do_not_tell_resources_apart_are_compared_by_what_they_say() {
    for old in [&[0, 1, 2][..], &[0]] {
        let site = Site::new(true).await;
        let (_, second) = site.two_models().await;
        let mut fleet = Modelled::fleet(3);
        for gateway in old {
            fleet[*gateway].is_old = true;
        }
        site.sync_all(&mut fleet).await;
        site.activate(&second, auto(30)).await;
        site.sync_all(&mut fleet).await;
        until_decided(&mut fleet, &site, &second, (50.0, 80.0)).await;
        let deed = site.last_deed().await;
        assert_eq!(deed["action"], "model.rollback", "{old:?}: {deed}");
    }
}

#[tokio::test]
async fn a_canary_that_a_gateway_refuses_is_taken_back_at_once() {
    let site = Site::new(true).await;
    let (first, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
    // One has refused something long ago: that says nothing about what comes.
    for gateway in &mut fleet {
        gateway.status.set_state(ModelState::Refused);
        gateway.takes = ModelState::Refused;
    }
    let body = json!({"share": 30, "promote": "auto"});
    site.server.ok("POST", &activate(&second), body).await;
    site.sync_all(&mut fleet).await;
    assert!(site.status().await.get("canary").is_some());
    site.sync_all(&mut fleet).await;
    assert!(site.status().await.get("canary").is_none());
    let deed = site.last_deed().await;
    let reason = deed["parameters"]["reason"].as_str().unwrap();
    assert!(reason.contains("the golden vector differs"), "{reason}");
    assert_eq!(site.status().await["model_digest"], json!(first));
}

#[tokio::test]
async fn what_the_server_could_not_do_is_shown_and_does_not_keep_it_from_deciding_later() {
    let with_key = Site::new(true).await;
    let (_, second) = with_key.two_models().await;
    let mut fleet = Modelled::fleet(3);
    with_key.sync_all(&mut fleet).await;
    let body = json!({"share": 30, "promote": "auto"});
    with_key.server.ok("POST", &activate(&second), body).await;
    // Without the key it cannot take the canary back.
    let site = with_key.killed_without_key();
    for gateway in &mut fleet {
        gateway.takes = ModelState::Refused;
    }
    site.sync_all(&mut fleet).await;
    site.sync_all(&mut fleet).await;
    let stuck = site.status().await["canary"]["stuck"].clone();
    assert!(stuck.as_str().unwrap().contains("signing key"), "{stuck}");
    // Its operator mends what was in the way, and it can be promoted without the key.
    for gateway in &mut fleet {
        gateway.takes = ModelState::Running;
        gateway.status.offered_epoch = gateway.status.epoch;
    }
    for number in 0..150 {
        step(&mut fleet, &site, &second, (50.0, 35.0), number).await;
    }
    assert!(site.status().await["canary"].get("stuck").is_none());
    a_day(&mut fleet, &site, &second).await;
    assert_eq!(site.last_deed().await["action"], "model.promote");
    assert_eq!(running(&fleet, &second), 3);
}

#[tokio::test]
async fn a_canary_whose_gateway_is_gone_says_so_and_goes_on_at_the_next_that_comes() {
    let site = Site::new(true).await;
    let (_, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
    let body = json!({"share": 30, "promote": "auto"});
    site.server.ok("POST", &activate(&second), body).await;
    site.sync_all(&mut fleet).await;
    assert_eq!(running(&fleet, &second), 1);
    fleet.retain(|gateway| !gateway.runs(&second));
    // Until its session has ended, and long enough to be worth saying.
    for number in 0..150 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let canary = &site.status().await["canary"];
    assert_eq!(canary["lacks"], "canaries");
    fleet.push(Modelled::new("pod-of-another-name"));
    for number in 0..40 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    assert!(fleet[2].runs(&second));
    let canary = &site.status().await["canary"];
    assert!(canary.get("lacks").is_none(), "{canary}");
    assert!(
        canary["evidence"]["pairs"].as_u64().unwrap() > 0,
        "{canary}"
    );
}

#[tokio::test]
async fn gateways_that_are_started_anew_warm_up_and_decide_nothing_meanwhile() {
    let site = Site::new(true).await;
    let (_, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
    let body = json!({"share": 30, "promote": "auto"});
    site.server.ok("POST", &activate(&second), body).await;
    site.sync_all(&mut fleet).await;
    for number in 0..40 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let pairs = |status: &Value| status["canary"]["evidence"]["pairs"].as_u64().unwrap();
    let before = pairs(&site.status().await);
    assert!(before > 0);
    // The canary's Envoy is started anew: it has learned nothing, and forecasts ten times as badly.
    let canary = fleet.iter_mut().find(|gateway| gateway.runs(&second));
    canary.unwrap().status.score = None;
    for number in 0..30 {
        step(&mut fleet, &site, &second, (50.0, 500.0), number).await;
    }
    assert_eq!(pairs(&site.status().await), before);
    for number in 0..20 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let status = site.status().await;
    assert!(pairs(&status) > before);
    assert!(status["canary"].get("finding").is_none());
}

#[tokio::test]
async fn claims_on_customers_that_stay_silent_count_with_the_next_usage() {
    let site = Site::new(true).await;
    let (_, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(3);
    site.sync_all(&mut fleet).await;
    site.server
        .ok("POST", &activate(&second), json!({"share": 30}))
        .await;
    site.sync_all(&mut fleet).await;
    for number in 0..40 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let shown = |status: Value| {
        let evidence = &status["canary"]["evidence"];
        let (pairs, loss) = (&evidence["pairs"], &evidence["canary_loss"]);
        let pairs = pairs.as_u64().unwrap();
        (pairs, pairs as f64 * loss.as_f64().unwrap())
    };
    let (pairs, before) = shown(site.status().await);
    for number in 0..6 {
        for gateway in &mut fleet {
            let claimed = if gateway.runs(&second) { 500.0 } else { 0.0 };
            gateway.mature_each(&[(claimed + 50.0 * noise(number), 0.0)]);
        }
        site.pass_step(&mut fleet).await;
    }
    // The step in which the silence began has been compared at most.
    let (silent, _) = shown(site.status().await);
    assert!(silent <= pairs + 1, "{silent} after {pairs}");
    for number in 0..2 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let (after, loss) = shown(site.status().await);
    assert!(after > silent);
    // 3,000 tokens of loss over the usage of a step or two.
    assert!(loss - before > 1.0, "{before} became {loss}");
}

#[tokio::test]
async fn scores_that_cannot_be_change_nothing_and_refuse_no_sync() {
    let site = Site::new(true).await;
    let (_, second) = site.two_models().await;
    let mut fleet = Modelled::fleet(2);
    site.sync_all(&mut fleet).await;
    let body = json!({"share": 50, "promote": "auto"});
    site.server.ok("POST", &activate(&second), body).await;
    site.sync_all(&mut fleet).await;
    for (number, wrong) in [f64::NAN, f64::INFINITY, -1.0, f64::MAX]
        .into_iter()
        .enumerate()
    {
        for gateway in &mut fleet {
            gateway.status.score = Some(ForecastScore {
                matured: 10 * (number as u64 + 1),
                covered: 0,
                loss: wrong,
                usage: wrong,
                resources: Vec::new(),
            });
        }
        site.server.advance_ms(u64::from(STEP_MS));
        site.sync_all(&mut fleet).await;
    }
    let status = site.status().await;
    assert_eq!(status["canary"]["warm_up_left"], 30);
    assert!(status["gateways"][0].get("model_score").is_none());
    // And what can be is taken again, seen by gateway and by model.
    for gateway in &mut fleet {
        gateway.status.score = None;
    }
    for number in 0..3 {
        step(&mut fleet, &site, &second, (50.0, 50.0), number).await;
    }
    let status = site.status().await;
    assert_eq!(status["canary"]["warm_up_left"], 28);
    assert_eq!(status["gateways"][0]["model_score"]["matured"], 30);
    let (_, metrics) = site.server.request("GET", "/metrics", "", Vec::new()).await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(
        metrics.contains(&format!(
            "forebay_model_forecasts_matured{{model=\"{second}\"}} 30"
        )),
        "{metrics}"
    );
    assert!(metrics.contains("forebay_canary_epoch 2"), "{metrics}");
}

#[tokio::test]
async fn a_full_registry_drops_what_was_released_long_ago_and_nothing_that_somebody_may_go_back_to()
{
    let site = Site::new(true).await;
    let mut digests = Vec::new();
    for number in 0..64 {
        let digest = site.upload(&format!("number {number}")).await;
        site.server
            .ok("POST", &activate(&digest), Value::Null)
            .await;
        digests.push(digest);
    }
    for number in 64..130 {
        site.upload(&format!("number {number}")).await;
    }
    let models = site.server.ok("GET", "/v1/models", Value::Null).await;
    let models = models["models"].as_array().unwrap();
    assert_eq!(models.len(), 64);
    let is_kept = |digest: &String| models.iter().any(|model| model["digest"] == json!(digest));
    let kept: Vec<usize> = (0..64)
        .filter(|number| is_kept(&digests[*number]))
        .collect();
    assert!(kept.ends_with(&(56..64).collect::<Vec<_>>()), "{kept:?}");
    assert!(!kept.contains(&0), "{kept:?}");
    let back = site
        .server
        .ok("POST", "/v1/models/rollback", Value::Null)
        .await;
    assert_eq!(back["digest"], json!(digests[62]));
}

#[tokio::test]
async fn what_cannot_be_a_canary_is_refused() {
    let site = Site::new(false).await;
    let digest = site.upload("first").await;
    let path = activate(&digest);
    for (body, code) in [
        (json!({"share": 0}), "bad_share"),
        (json!({"share": 100}), "bad_share"),
        (json!({"share": 300}), "malformed"),
        (json!({"share": null}), "malformed"),
        (json!({"promote": "auto"}), "malformed"),
        (json!({"share": 10, "promote": "perhaps"}), "malformed"),
        (json!({"share": 10}), "no_champion"),
    ] {
        let (_, error) = site.server.admin("POST", &path, body.clone()).await;
        assert_eq!(error["code"], code, "{body}: {error}");
    }
    let with_key = Site::new(true).await;
    let (first, _) = with_key.two_models().await;
    let (_, error) = with_key
        .server
        .admin("POST", &activate(&first), json!({"share": 10}))
        .await;
    assert_eq!(error["code"], "same_model");
    // The same store, but the key is gone: nobody could take the canary back.
    let keyless = with_key.killed_without_key();
    let second = keyless.upload("second").await;
    let body = json!({"share": 10, "promote": "auto"});
    let (_, error) = keyless.server.admin("POST", &activate(&second), body).await;
    assert_eq!(
        (error["code"].as_str(), error["where"].as_str()),
        (Some("not_signed"), Some("promote"))
    );
    let body = json!({"share": 10, "promote": "auto"});
    let alone = Site::new(true).await;
    let (_, second) = alone.two_models().await;
    let mut fleet = Modelled::fleet(1);
    alone.sync_all(&mut fleet).await;
    let (_, error) = alone.server.admin("POST", &activate(&second), body).await;
    assert_eq!(
        (error["code"].as_str(), error["where"].as_str()),
        (Some("too_few_gateways"), Some("promote"))
    );
}

#[tokio::test]
async fn a_model_that_runs_still_does_when_its_file_comes_again() {
    let site = Site::new(true).await;
    site.two_models().await;
    let body = b"first".to_vec();
    let (_, answer) = site
        .server
        .request("POST", "/v1/models", ADMIN_TOKEN, body)
        .await;
    let view: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(view["active_epoch"], 1);
}
