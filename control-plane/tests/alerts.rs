//! Alerts as the server finds them in what gateways report.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_control_plane::store::{Batch, Store, Table};
use forebay_wire::sync::ModelState;
use kit::modelled::{Modelled, Site};
use kit::{Gateway, STEP_MS, VIEWER_TOKEN};
use serde_json::{Value, json};

/// Steps before the watch says anything of losses: a gateway warms up, and what is usual at an hour is learned.
const USUAL_STEPS: u64 = 30 + 1_440;

/// Steps before it finds drift: then what varies is learned.
const LEARNED_STEPS: u64 = USUAL_STEPS + 2_900;

impl Site {
    async fn release(&self, model: &str, share: Option<u8>) -> String {
        let digest = self.upload(model).await;
        let body = share.map_or(json!({}), |share| json!({"share": share}));
        self.activate(&digest, body).await;
        digest
    }

    async fn alerts(&self) -> Value {
        let (status, body) = self
            .server
            .request("GET", "/v1/alerts", VIEWER_TOKEN, Vec::new())
            .await;
        assert_eq!(status, 200);
        serde_json::from_slice(&body).unwrap()
    }

    /// Name, gateway and state of each alert that is not pending.
    async fn told(&self) -> Vec<(String, String, String)> {
        let view = self.alerts().await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alerts = view["alerts"].as_array().unwrap().iter();
        let alerts = alerts.filter(|alert| alert["state"] != "pending");
        alerts
            .map(|alert| {
                let [name, gateway, state] = ["name", "gateway", "state"];
                (
                    text(&alert[name]),
                    text(&alert[gateway]),
                    text(&alert[state]),
                )
            })
            .collect()
    }

    /// Lets a step pass in which forecasts lose as much, with noise that is the same for all: that of the demand.
    async fn step(&self, fleet: &mut [Modelled], loss: f64, number: u64) {
        let noise = 1.0 + 0.2 * (number as f64 * 1.7).sin();
        for gateway in fleet.iter_mut() {
            gateway.mature(loss * noise);
        }
        self.sync_all(fleet).await;
        self.server.advance_ms(u64::from(STEP_MS));
    }

    async fn steps(&self, fleet: &mut [Modelled], loss: f64, count: u64) {
        for number in 0..count {
            self.step(fleet, loss, number).await;
        }
    }
}

fn told(name: &str, gateway: &str, state: &str) -> (String, String, String) {
    (name.to_owned(), gateway.to_owned(), state.to_owned())
}

#[tokio::test]
async fn a_model_that_loses_more_than_it_used_to_is_told_and_so_is_drift() {
    let site = Site::new(true).await;
    let digest = site.release("first", None).await;
    let mut fleet = [Modelled::new("g1")];
    site.steps(&mut fleet, 50.0, LEARNED_STEPS).await;
    assert_eq!(site.told().await, [], "nothing is wrong");
    let before = site.server.server.plane.now().unix_ms;
    assert_eq!(site.server.server.plane.drift_since(0), None);
    site.steps(&mut fleet, 150.0, 60).await;
    assert_eq!(
        site.told().await,
        [told("ForebayForecastLoss", "", "firing")]
    );
    site.steps(&mut fleet, 150.0, 400).await;
    let drift = site.server.server.plane.drift_since(before).unwrap();
    assert_eq!(drift.model, digest);
    assert_eq!(site.alerts().await["newest_drift"]["model"], digest);
    assert_eq!(
        site.told().await,
        [
            told("ForebayForecastLoss", "", "firing"),
            told("ForebayForecastDrift", "", "firing")
        ]
    );
    site.steps(&mut fleet, 50.0, 45).await;
    let still = told("ForebayForecastLoss", "", "firing");
    assert!(!site.told().await.contains(&still));
}

#[tokio::test]
async fn a_gateway_that_loses_more_than_the_others_is_told_once_it_is_warm() {
    let site = Site::new(true).await;
    site.release("first", None).await;
    let mut fleet = ["g1", "g2", "g3"].map(Modelled::new);
    fleet[1].factor = 3.0;
    site.steps(&mut fleet, 50.0, 45).await;
    assert_eq!(
        site.told().await,
        [],
        "it has learned nothing about its customers yet"
    );
    site.steps(&mut fleet, 50.0, 40).await;
    assert_eq!(
        site.told().await,
        [told("ForebayGatewayForecasts", "g2", "firing")]
    );
    fleet[1].factor = 1.0;
    site.steps(&mut fleet, 50.0, 45).await;
    assert_eq!(
        site.told().await,
        [told("ForebayGatewayForecasts", "g2", "resolved")]
    );
}

#[tokio::test]
async fn gateways_that_refuse_a_model_or_have_none_are_told_and_others_are_not() {
    let site = Site::new(true).await;
    site.release("first", None).await;
    // The last one has never said anything of models.
    let mut fleet = ["g1", "g2", "g3"].map(Modelled::new);
    fleet[0].takes = ModelState::Refused;
    fleet[1].takes = ModelState::Fetching;
    let mut silent = Gateway::new("silent", 1);
    for number in 0..20 {
        silent.sync(&site.server).await;
        site.step(&mut fleet, 50.0, number).await;
    }
    assert_eq!(
        site.told().await,
        [
            told("ForebayModelRefused", "g1", "firing"),
            told("ForebayModelMissing", "g2", "firing")
        ]
    );
    fleet
        .iter_mut()
        .for_each(|gateway| gateway.takes = ModelState::Running);
    site.steps(&mut fleet, 50.0, 6).await;
    let states = site.told().await;
    assert!(
        states.iter().all(|(_, _, state)| state == "resolved"),
        "{states:?}"
    );
}

#[tokio::test]
async fn alerts_end_where_no_gateway_is_left_and_somebody_looks() {
    let site = Site::new(true).await;
    site.release("first", None).await;
    let mut fleet = [Modelled::new("g1")];
    fleet[0].takes = ModelState::Refused;
    site.steps(&mut fleet, 50.0, 6).await;
    assert_eq!(
        site.told().await,
        [told("ForebayModelRefused", "g1", "firing")]
    );
    for _ in 0..4 {
        site.server.advance_ms(60_000);
        site.server.ok("GET", "/v1/status", Value::Null).await;
    }
    assert_eq!(
        site.told().await,
        [told("ForebayModelRefused", "g1", "resolved")]
    );
}

#[tokio::test]
async fn a_canary_that_was_taken_back_is_told_for_a_day_also_by_a_server_that_starts_anew() {
    let mut site = Site::new(true).await;
    site.release("first", None).await;
    let mut fleet = ["g1", "g2"].map(Modelled::new);
    site.steps(&mut fleet, 50.0, 3).await;
    site.release("second", Some(50)).await;
    site.steps(&mut fleet, 50.0, 3).await;
    assert_eq!(site.told().await, []);
    site.server
        .ok("POST", "/v1/models/rollback", json!({}))
        .await;
    for _ in 0..2 {
        site.steps(&mut fleet, 50.0, 2).await;
        assert_eq!(
            site.told().await,
            [told("ForebayCanaryTakenBack", "", "firing")]
        );
        site = site.killed();
    }
    site.steps(&mut fleet, 50.0, 2).await;
    site.server.advance_ms(86_400_000);
    site.steps(&mut fleet, 50.0, 2).await;
    assert_eq!(
        site.told().await,
        [told("ForebayCanaryTakenBack", "", "resolved")]
    );
}

#[tokio::test]
async fn what_is_usual_survives_a_server_that_is_killed() {
    let mut site = Site::new(true).await;
    site.release("first", None).await;
    let mut fleet = [Modelled::new("g1")];
    site.steps(&mut fleet, 50.0, USUAL_STEPS + 50).await;
    site = site.killed();
    // The gateway warms up before this server: sums are differences of what it has said here.
    site.steps(&mut fleet, 50.0, 35).await;
    assert_eq!(site.told().await, []);
    site.steps(&mut fleet, 150.0, 60).await;
    let firing = [told("ForebayForecastLoss", "", "firing")];
    assert_eq!(site.told().await, firing);
    // And a store that says nonsense of it keeps no server from starting.
    site = site.killed();
    let mut batch = Batch::default();
    batch.put(Table::Meta, "alerts", "{\"models\": 7");
    site.server.store.commit(&batch).unwrap();
    site = site.killed();
    site.steps(&mut fleet, 150.0, 60).await;
    assert_eq!(site.told().await, []);
}
