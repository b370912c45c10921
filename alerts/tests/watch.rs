//! The whole watch: what comes in, which alerts come out, and what is kept.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod fleets;

use fleets::{CALM, DAY_ROUNDS, Fleet, MINUTE_MS};
use forebay_alerts::{
    Alert, GatewayRound, Kind, ModelRound, Refusal, Round, Stage, Sums, UnusualCustomer, Watch,
};
use proptest::prelude::*;

const SUMS: Sums = Sums::of_one(20.0, 18.0, 5.0, 100.0);

fn runs(gateway: &str, model: &str) -> GatewayRound {
    GatewayRound {
        gateway: gateway.to_owned(),
        model: Some(model.to_owned()),
        sums: Some(SUMS),
        ..GatewayRound::default()
    }
}

fn refuses(gateway: &str, model: &str) -> GatewayRound {
    GatewayRound {
        refusal: Some(Refusal {
            model: model.to_owned(),
            reason: "it is\nbroken".to_owned(),
        }),
        ..runs(gateway, "before")
    }
}

fn round(number: u64, gateways: Vec<GatewayRound>) -> Round {
    let mut models: Vec<String> = gateways
        .iter()
        .filter_map(|one| one.model.clone())
        .collect();
    models.sort();
    models.dedup();
    let models = models.into_iter().map(|model| ModelRound {
        model,
        sums: Some(SUMS),
    });
    Round {
        unix_ms: number * MINUTE_MS,
        models: models.collect(),
        gateways,
        ..Round::default()
    }
}

/// Name, gateway and stage of each alert.
fn alerts(watch: &Watch) -> Vec<(&'static str, Option<String>, &'static str)> {
    let alerts = watch.alerts();
    alerts
        .map(|(key, alert)| (key.kind.name(), key.gateway.clone(), alert.stage.name()))
        .collect()
}

#[test]
fn a_refusal_is_pending_fires_and_is_over_when_the_gateway_runs_what_it_is_to_run() {
    let mut watch = Watch::new(60_000);
    let mut seen = Vec::new();
    for number in 1..40 {
        let gateway = match number {
            1..=6 => refuses("g", "new"),
            _ => runs("g", "new"),
        };
        watch.observe(&round(number, vec![gateway]));
        let stages: Vec<_> = alerts(&watch).iter().map(|(_, _, stage)| *stage).collect();
        if seen.last() != Some(&stages) {
            seen.push(stages);
        }
    }
    let expected = [vec!["pending"], vec!["firing"], vec!["resolved"], vec![]];
    assert_eq!(seen, expected);
}

#[test]
fn what_an_alert_says_names_the_model_the_gateway_and_the_reason() {
    let mut watch = Watch::new(60_000);
    for number in 1..5 {
        watch.observe(&round(number, vec![refuses("g", &"ab".repeat(32))]));
    }
    let (key, alert) = watch.alerts().next().unwrap();
    assert_eq!(key.model.as_deref(), Some("ab".repeat(32).as_str()));
    assert_eq!(alert.summary, "Gateway g has refused model abababababab");
    assert!(
        alert.description.contains("It says: it is broken."),
        "{alert:?}"
    );
}

#[test]
fn a_gateway_that_has_left_is_nobodys_trouble() {
    let mut watch = Watch::new(60_000);
    let lacks = GatewayRound {
        gateway: "b".to_owned(),
        lacks: Some("new".to_owned()),
        ..GatewayRound::default()
    };
    for number in 1..20 {
        watch.observe(&round(number, vec![refuses("a", "new"), lacks.clone()]));
    }
    let firing = [
        ("ForebayModelRefused", Some("a".to_owned()), "firing"),
        ("ForebayModelMissing", Some("b".to_owned()), "firing"),
    ];
    assert_eq!(alerts(&watch), firing);
    for number in 20..24 {
        watch.observe(&round(number, Vec::new()));
    }
    assert!(
        alerts(&watch)
            .iter()
            .all(|(_, _, stage)| *stage == "resolved")
    );
    let says = |(_, alert): (_, &Alert)| alert.summary.starts_with("Gateway ");
    assert!(watch.alerts().all(says), "what it was about");
}

#[test]
fn a_customer_is_told_of_as_long_as_it_is_unusual_and_of_many_the_first() {
    let mut watch = Watch::new(60_000);
    let unusual = |customer: usize| UnusualCustomer {
        customer: format!("hash:{customer:04}"),
        says: "9.0 times\nthe demand".to_owned(),
        is_capped: customer == 0,
    };
    let news = |number, customers: usize| Round {
        unusual: (0..customers).map(unusual).collect(),
        ..round(number, Vec::new())
    };
    watch.observe(&news(1, 1));
    let (key, alert) = watch.alerts().next().unwrap();
    assert_eq!(
        (key.kind, key.customer.as_deref(), alert.stage.is_firing()),
        (Kind::CustomerUnusual, Some("hash:0000"), true)
    );
    assert!(alert.description.contains("9.0 times the demand"));
    assert!(alert.description.contains("nothing beyond its contract"));
    watch.observe(&news(2, 0));
    assert_eq!(
        alerts(&watch),
        [("ForebayCustomerUnusual", None, "resolved")]
    );
    watch.observe(&news(3, 1_000));
    let firing = watch.alerts().filter(|(_, alert)| alert.stage.is_firing());
    assert_eq!(firing.count(), 64);
}

#[test]
fn a_canary_that_was_taken_back_is_told_at_once_and_until_it_is_no_news() {
    let mut watch = Watch::new(60_000);
    let news = |number, taken_back: Option<&str>| Round {
        taken_back: taken_back.map(str::to_owned),
        ..round(number, Vec::new())
    };
    watch.observe(&news(1, Some("canary")));
    assert_eq!(alerts(&watch), [("ForebayCanaryTakenBack", None, "firing")]);
    watch.observe(&news(2, None));
    assert_eq!(
        alerts(&watch),
        [("ForebayCanaryTakenBack", None, "resolved")]
    );
}

#[test]
fn drift_is_known_since_it_was_found_and_ends_with_its_model() {
    let (mut fleet, mut watch) = (Fleet::new(CALM, 7), Watch::new(60_000));
    (0..6 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
    assert_eq!(watch.drift_since(0), None);
    fleet.wilder = 2.0;
    let began = fleet.minute * MINUTE_MS;
    (0..600).for_each(|_| fleet.show(&mut watch));
    let found = watch.drift_since(began).cloned().unwrap();
    assert_eq!(found.model, "model");
    assert_eq!(watch.drift_since(found.unix_ms), Some(&found));
    assert_eq!(watch.drift_since(found.unix_ms + 1), None);
    let is_drift = |alert: &(&str, Option<String>, &str)| alert.0 == Kind::ForecastDrift.name();
    assert!(
        alerts(&watch)
            .iter()
            .any(|alert| is_drift(alert) && alert.2 == "firing")
    );
    // Another model is released everywhere.
    watch.observe(&round(fleet.minute + 1, vec![runs("g", "next")]));
    assert!(
        alerts(&watch)
            .iter()
            .all(|alert| !is_drift(alert) || alert.2 == "resolved")
    );
    assert!(
        watch.drift_since(began).is_some(),
        "it was found all the same"
    );
}

#[test]
fn a_model_that_comes_back_after_long_begins_anew() {
    for (absent_rounds, is_judged) in [(90, true), (110, false)] {
        let (mut fleet, mut watch) = (Fleet::new(CALM, 7), Watch::new(3_600_000));
        (0..2 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
        for _ in 0..absent_rounds {
            fleet.minute += 1;
            watch.observe(&round(fleet.minute, vec![runs("g", "other")]));
        }
        fleet.wilder = 4.0;
        (0..60).for_each(|_| fleet.show(&mut watch));
        let is_loss = |alert: &(&str, Option<String>, &str)| {
            alert.0 == Kind::ForecastLoss.name() && alert.2 == "firing"
        };
        assert_eq!(
            alerts(&watch).iter().any(is_loss),
            is_judged,
            "{absent_rounds}"
        );
    }
}

#[test]
fn however_many_models_and_gateways_come_and_go_what_is_kept_is_bounded() {
    let mut watch = Watch::new(3_600_000);
    let (mut sizes, mut most) = (Vec::new(), 0);
    for number in 1..120_u64 {
        let gateways = (0..1_500).map(|gateway| {
            let name = format!("gateway-{}", (number / 5) * 10_000 + gateway);
            refuses(&name, &format!("model-{gateway}"))
        });
        let mut seen = round(number, gateways.collect());
        seen.models = (0..100)
            .map(|model| ModelRound {
                model: format!("model-{}", number * 100 + model),
                sums: Some(SUMS),
            })
            .collect();
        watch.observe(&seen);
        sizes.push(format!("{watch:?}").len());
        most = most.max(watch.alerts().count());
    }
    assert_eq!(most, 4_096, "those beyond are not kept");
    let (early, late) = (sizes[..60].iter().max(), sizes[60..].iter().max());
    assert!(
        late.unwrap() < &(early.unwrap() * 11 / 10),
        "{early:?} {late:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever gateways have said for an hour, what they lose afterwards is told.
    #[test]
    fn nothing_that_is_said_blinds_the_watch(
        wild in prop::collection::vec(any::<[f64; 4]>(), 60),
        seed in any::<u64>(),
    ) {
        println!("seed {seed}");
        let (mut fleet, mut watch) = (Fleet::new(CALM, seed), Watch::new(60_000));
        (0..2 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
        for (number, [matured, covered, loss, usage]) in (fleet.minute..).zip(wild) {
            watch.observe(&Round {
                unix_ms: number * MINUTE_MS,
                models: vec![ModelRound {
                    model: "model".to_owned(),
                    sums: Some(Sums::of_one(matured, covered, loss, usage)),
                }],
                ..Round::default()
            });
        }
        fleet.minute += 60;
        (0..6 * 60).for_each(|_| fleet.show(&mut watch));
        fleet.wilder = 4.0;
        (0..120).for_each(|_| fleet.show(&mut watch));
        let is_firing = |kind: Kind| watch.alerts().any(|(key, alert)| key.kind == kind && alert.stage.is_firing());
        prop_assert!(is_firing(Kind::ForecastLoss));
    }
}

/// A watch that was written down and read again.
fn recalled(watch: &Watch) -> Watch {
    let text = serde_json::to_string(&watch.remember()).unwrap();
    let mut again = Watch::new(60_000);
    again.recall(serde_json::from_str(&text).unwrap());
    again
}

#[test]
fn what_is_usual_and_what_has_drifted_survives_being_written_down() {
    let (mut fleet, mut watch) = (Fleet::new(CALM, 11), Watch::new(60_000));
    (0..4 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
    let mut again = recalled(&watch);
    let mut blank = Watch::new(60_000);
    let mut other = Fleet::new(CALM, 11);
    (0..4 * DAY_ROUNDS).for_each(|_| {
        other.next();
    });
    fleet.wilder = 3.0;
    other.wilder = 3.0;
    for _ in 0..DAY_ROUNDS {
        fleet.show(&mut watch);
        other.show(&mut again);
    }
    let told = |watch: &Watch| -> Vec<(Kind, Stage)> {
        let alerts = watch.alerts();
        alerts.map(|(key, alert)| (key.kind, alert.stage)).collect()
    };
    assert!(told(&watch).len() >= 2, "{:?}", told(&watch));
    assert_eq!(told(&again), told(&watch));
    let drift = watch.drift_since(0).cloned();
    assert!(drift.is_some());
    assert_eq!(again.drift_since(0).cloned(), drift);
    // What fires already is not found once more by whoever reads it.
    let mut third = recalled(&watch);
    fleet.show(&mut third);
    assert_eq!(third.drift_since(0).cloned(), drift);
    (0..DAY_ROUNDS).for_each(|_| other.show(&mut blank));
    let knows_loss = told(&blank)
        .iter()
        .any(|(kind, _)| *kind == Kind::ForecastLoss);
    assert!(!knows_loss, "it would have had to learn for a day");
}

#[test]
fn what_was_found_before_a_restart_is_not_over_before_its_gateways_are_here_again() {
    let (mut fleet, mut watch) = (Fleet::new(CALM, 7), Watch::new(60_000));
    (0..6 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
    fleet.wilder = 2.0;
    (0..600).for_each(|_| fleet.show(&mut watch));
    let drift_of = |watch: &Watch| {
        let mut alerts = watch.alerts();
        let drift = alerts.find(|(key, _)| key.kind == Kind::ForecastDrift);
        drift.map(|(_, alert)| alert.stage)
    };
    let (told, found) = (drift_of(&watch), watch.drift_since(0).cloned());
    assert!(told.unwrap().is_firing());
    let mut again = recalled(&watch);
    // Nobody, and then one that has never had the model.
    again.observe(&round(fleet.minute + 1, Vec::new()));
    again.observe(&round(fleet.minute + 2, vec![runs("g", "other")]));
    fleet.minute += 2;
    assert_eq!(drift_of(&again), told, "it is not known to be over");
    fleet.show(&mut again);
    assert_eq!(drift_of(&again), told);
    assert_eq!(again.drift_since(0).cloned(), found, "not found once more");
    // From then on it is over when its model is gone; and where that never comes back, after a while.
    again.observe(&round(fleet.minute + 1, Vec::new()));
    assert!(!drift_of(&again).unwrap().is_firing());
    let mut never = recalled(&watch);
    let others = (1..=40).map(|later| round(fleet.minute + later, vec![runs("g", "other")]));
    let rounds = others.take_while(|round| {
        never.observe(round);
        drift_of(&never).unwrap().is_firing()
    });
    assert_eq!(rounds.count(), 30);
}

#[test]
fn what_is_written_down_is_bounded_and_of_the_same_steps() {
    let mut watch = Watch::new(60_000);
    for number in 0..2_000 {
        let gateways = (0..60).map(|one| runs(&format!("g{one}"), &format!("m{one}")));
        watch.observe(&round(number, gateways.collect()));
    }
    let text = serde_json::to_string(&watch.remember()).unwrap();
    assert!(text.len() < 256 << 10, "{} bytes", text.len());
    let mut of_hours = Watch::new(3_600_000);
    of_hours.recall(serde_json::from_str(&text).unwrap());
    assert_eq!(of_hours.remember(), Watch::new(3_600_000).remember());
}
