//! Forecasts of the control plane: what it says of customers and groups, from which history, and within which limits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod deployment;
mod kit;

use deployment::*;
use forebay_control_plane::document::Format;
use forebay_control_plane::forecasts::{ForecastsQuery, ForecastsView, Limits};
use forebay_control_plane::history::{Chunk, Series, chunk_key};
use forebay_control_plane::plane::ImportedSeries;
use forebay_control_plane::store::{Batch, Store, Table};
use kit::{Gateway, hash};
use serde_json::json;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Waker};

#[tokio::test]
async fn customers_and_groups_are_forecast_as_far_as_the_history_allows_and_do_not_contradict_each_other()
 {
    let keys = ["acme", "bolt", "cord", "dune"];
    let mut deployment = Deployment::new(Limits::default(), &keys).await;
    assert_eq!(deployment.look().forecasts, []);
    for (seed, key) in (1..).zip(keys) {
        deployment
            .import(key, noisy(seed, 600.0 * seed as f64, HISTORY_STEPS))
            .await;
    }
    let view = deployment.look();
    let groups = [
        "all",
        "tier:1",
        "tier:2",
        "contract:gold",
        "contract:silver",
    ];
    assert_eq!(names(&view)[..5], groups);
    assert_eq!(
        (names(&view).len(), view.series, view.rest_series),
        (9, 4, 0)
    );
    let unavailable: Vec<&str> = view
        .horizons
        .iter()
        .filter_map(|horizon| {
            horizon
                .unavailable
                .as_deref()
                .map(|_| horizon.horizon.as_str())
        })
        .collect();
    assert_eq!(unavailable, ["1d", "1w"]);
    let lack = view.horizons[4].unavailable.as_ref().unwrap();
    assert!(lack.contains("--history-steps"), "{lack}");
    for horizon in ["5m", "15m", "30m", "1h"] {
        let of = |name: &str| ahead(of_subject(&view, name), horizon);
        let medians = |keys: &[&str]| -> f64 {
            let medians = keys.iter().map(|key| of(&named(key)).mean_per_s.p50);
            medians.map(f64::from).sum()
        };
        for (group, members) in [
            ("all", &keys[..]),
            ("tier:1", &["acme", "cord"]),
            ("contract:gold", &["acme", "cord"]),
            ("tier:2", &["bolt", "dune"]),
        ] {
            let median = f64::from(of(group).mean_per_s.p50);
            let sum = medians(members);
            assert!(is_near(median, sum), "{group} {horizon}: {median} {sum}");
        }
        // Not all are above their mean at once.
        let margin = |name: &str| of(name).mean_per_s.p90 - of(name).mean_per_s.p50;
        let sum: f32 = keys.iter().map(|key| margin(&named(key))).sum();
        assert!(
            margin("all") < 0.8 * sum,
            "{horizon}: {} {sum}",
            margin("all")
        );
        for one in &view.forecasts {
            let ahead = ahead(one, horizon);
            let odds = ahead.odds.unwrap();
            let sum = odds.low + odds.normal + odds.high + odds.spike;
            assert!((sum - 1.0).abs() < 1e-9, "{odds:?}");
            assert!(ahead.peak_per_s.p50 >= ahead.mean_per_s.p50);
            assert_eq!(Some(ahead.from_unix_ms), view.known_until_unix_ms);
        }
        let all = of("all").mean_per_s;
        assert!((90.0..110.0).contains(&all.p50), "{horizon}: {all:?}");
    }
}

#[tokio::test]
async fn one_may_ask_for_a_part_of_them() {
    let mut deployment = Deployment::new(Limits::default(), &["acme", "bolt"]).await;
    for key in ["acme", "bolt"] {
        deployment.import(key, noisy(1, 60.0, 500)).await;
    }
    let all = names(&deployment.look());
    let ask = |query: ForecastsQuery| deployment.plane.forecasts(&query);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let query = ForecastsQuery {
            after: after.clone(),
            limit: Some(2),
            ..ForecastsQuery::default()
        };
        let page = names(&ask(query).unwrap());
        let Some(last) = page.last() else {
            break;
        };
        assert!(page.len() <= 2);
        after = Some(last.clone());
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let of_customer = |customer: &str| ForecastsQuery {
        customer: Some(customer.to_owned()),
        ..ForecastsQuery::default()
    };
    let of_group = |group: &str| ForecastsQuery {
        group: Some(group.to_owned()),
        ..ForecastsQuery::default()
    };
    let of_resource = |resource: &str| ForecastsQuery {
        resource: Some(resource.to_owned()),
        ..ForecastsQuery::default()
    };
    assert_eq!(names(&ask(of_customer("acme")).unwrap()), [named("acme")]);
    assert_eq!(names(&ask(of_group("tier:2")).unwrap()), ["tier:2"]);
    assert_eq!(names(&ask(of_resource("requests")).unwrap()), all);
    let both = ForecastsQuery {
        group: Some("all".to_owned()),
        ..of_customer("acme")
    };
    for (query, status, place) in [
        (of_customer("nobody"), 404, "customer"),
        (of_customer(""), 400, "customer"),
        (of_group("tier:9"), 404, "group"),
        (of_group("tier:gold"), 400, "group"),
        (of_group("colour"), 400, "group"),
        (both, 400, "group"),
        (of_resource("water"), 422, "resource"),
    ] {
        let refused = ask(query).unwrap_err();
        assert_eq!((refused.status, refused.place.as_str()), (status, place));
    }
}

#[tokio::test]
async fn only_the_largest_are_forecast_by_themselves_and_all_others_together() {
    let keys = ["acme", "bolt", "cord", "dune", "echo"];
    let limits = Limits {
        series: 2,
        contracts: 1,
    };
    let mut deployment = Deployment::new(limits, &keys).await;
    for (seed, key) in (1..).zip(keys) {
        deployment
            .import(key, noisy(seed, 600.0 * seed as f64, 1_000))
            .await;
    }
    let view = deployment.look();
    let mut largest = [named("dune"), named("echo")];
    largest.sort();
    let found = names(&view);
    // Strangers' contract is the one that is a group in any case, and nobody has used anything under it.
    assert_eq!(found[..4], ["all", "tier:1", "tier:2", "rest"]);
    assert_eq!(found[4..], largest);
    assert_eq!((view.series, view.rest_series), (2, 3));
    for horizon in ["5m", "1h"] {
        let median = |name: &str| f64::from(ahead(of_subject(&view, name), horizon).mean_per_s.p50);
        let sum = median("rest") + median(&largest[0]) + median(&largest[1]);
        assert!(
            is_near(median("all"), sum),
            "{horizon}: {sum} {}",
            median("all")
        );
        assert!(
            (50.0..70.0).contains(&median("rest")),
            "{horizon}: {}",
            median("rest")
        );
    }
    // Whoever comes later is counted with them too.
    let mut gateway = Gateway::new("g1", 1);
    let mut later = view.clone();
    for _ in 0..7 {
        deployment.step(&mut gateway, &[("newcomer", 60_000)]).await;
        later = deployment.look();
    }
    assert_eq!(later.series, 2);
    let median = |name: &str| ahead(of_subject(&later, name), "5m").mean_per_s.p50;
    assert!(!names(&later).contains(&named("newcomer")));
    for group in ["rest", "all"] {
        let before = ahead(of_subject(&view, group), "5m").mean_per_s.p50;
        let (after, more) = (median(group), 30.0);
        assert!(after > before + more, "{group}: {before} {after}");
    }
}

#[tokio::test]
async fn what_is_scored_was_said_before_the_usage_came() {
    let mut deployment = Deployment::new(Limits::default(), &["acme"]).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &[("acme", 0)]).await;
    }
    deployment.import("acme", noisy(1, 60.0, 1_000)).await;
    let said = deployment.look();
    assert_eq!(said.scores, []);
    let p90 = f64::from(
        ahead(of_subject(&said, &named("acme")), "5m")
            .mean_per_s
            .p90,
    );
    assert!((0.9..2.0).contains(&p90), "{p90}");
    // A hundred times as much as ever before.
    let mut view = said.clone();
    for step in 0..8 {
        let is_over = score(&view, "5m", "customers").is_some();
        if is_over {
            break;
        }
        assert!(step < 7, "{view:?}");
        deployment.step(&mut gateway, &[("acme", 6_000)]).await;
        view = deployment.look();
    }
    let from = |view: &ForecastsView| ahead(of_subject(view, &named("acme")), "5m").from_unix_ms;
    assert_eq!(
        from(&view) - from(&said),
        300_000,
        "as soon as its time was over"
    );
    for of in ["customers", "groups"] {
        let score = score(&view, "5m", of).unwrap();
        assert_eq!(
            (score.coverage, score.peak_coverage),
            (0.0, 0.0),
            "{score:?}"
        );
        assert_eq!(score.matured, if of == "customers" { 1 } else { 3 });
    }
    let of_customer = score(&view, "5m", "customers").unwrap();
    // It was a spike, and these are the odds that it would be less.
    let odds = ahead(of_subject(&said, &named("acme")), "5m").odds.unwrap();
    let less = [odds.low, odds.low + odds.normal, 1.0 - odds.spike];
    let odds_loss = less.map(|odds| odds * odds).iter().sum::<f64>() / 3.0;
    assert!(
        is_near(of_customer.odds_loss.unwrap(), odds_loss),
        "{of_customer:?} {odds:?}"
    );
    let usage = usage_of(&deployment, from(&said), 5);
    let mean = usage.iter().sum::<f64>() / 5.0 / STEP_S;
    assert!(mean > 50.0, "{usage:?}");
    let loss = 0.9 * (mean - p90) / mean;
    assert!(is_near(of_customer.loss, loss), "{of_customer:?} {loss}");
}

/// Usage of acme in some steps from a moment on, as the history has it.
fn usage_of(deployment: &Deployment, from_unix_ms: u64, steps: u64) -> Vec<f64> {
    let history = deployment.plane.export_history("acme", None, None).unwrap();
    let first = from_unix_ms / u64::from(STEP_MS);
    let oldest = history.newest_step + 1 - history.usage.len() as u64;
    let usage =
        (first..first + steps).map(|step| history.usage[usize::try_from(step - oldest).unwrap()]);
    usage.map(|usage| f64::from(usage.unwrap())).collect()
}

/// Usage that rises, and jumps twice a day.
fn moving(base: u64, step: u64) -> u64 {
    let times = if step % 1_440 < 720 { 4 } else { 1 };
    base * times + step
}

#[tokio::test]
async fn a_restart_forecasts_the_same_from_what_the_store_has() {
    let keys = ["acme", "bolt", "cord", "dune"];
    let limits = Limits {
        series: 2,
        contracts: 64,
    };
    let usage = |step: u64| {
        keys.iter()
            .zip(1..)
            .map(move |(key, base)| (*key, moving(100 * base, step)))
    };
    let mut deployment = Deployment::new(limits, &keys).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &[]).await;
    }
    deployment.sync(&mut gateway).await;
    // The next jump comes with the first step that is not imported.
    for (place, key) in keys.iter().enumerate() {
        let steps = (0..2_160).map(|step| usage(step).nth(place).unwrap().1 as f64);
        deployment.import(key, steps.map(Some).collect()).await;
    }
    let first = deployment.look().known_until_unix_ms.unwrap();
    // All horizons are made anew at once ten minutes later.
    let mut before = deployment.look();
    for step in 2_160.. {
        if before.known_until_unix_ms.unwrap() == first + 600_000 {
            break;
        }
        assert!(step < 2_180);
        let usage: Vec<(&str, u64)> = usage(step).collect();
        deployment.step(&mut gateway, &usage).await;
        before = deployment.look();
    }
    // Another run finds the running step by who has asked for something in it.
    gateway.spend("acme", 1);
    deployment.sync(&mut gateway).await;
    deployment.plane.stop().await.unwrap();
    assert_eq!(
        deployment.look(),
        before,
        "a server that has stopped forecasts nothing more"
    );
    let Deployment { store, clock, .. } = deployment;
    let mut again = Deployment::on(store, clock, limits);
    let after = again.look();
    assert_eq!(after.known_until_unix_ms, before.known_until_unix_ms);
    assert_eq!(names(&after), names(&before));
    for (after, before) in after.forecasts.iter().zip(&before.forecasts) {
        assert_eq!(before.horizons.len(), 4);
        assert_eq!(after, before);
    }
    assert_eq!((after.series, after.rest_series), (2, 2));
}

#[tokio::test]
async fn a_step_that_was_closed_unseen_is_no_silence_of_those_who_are_forecast_together() {
    let keys = ["acme", "bolt", "cord", "dune", "echo"];
    let limits = Limits {
        series: 2,
        contracts: 64,
    };
    let usage: Vec<(&str, u64)> = keys.iter().copied().zip((1..).map(|of| of * 600)).collect();
    let mut deployment = Deployment::new(limits, &keys).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &usage).await;
    }
    for (key, tokens) in &usage {
        deployment
            .import(key, vec![Some(*tokens as f64); 1_000])
            .await;
    }
    let before = deployment.look();
    let mut after = before.clone();
    for step in 0..24 {
        deployment.step(&mut gateway, &usage).await;
        if step % 3 != 0 {
            after = deployment.look();
        }
    }
    for (group, tokens) in [
        ("all", 9_000.0),
        ("tier:1", 5_400.0),
        ("contract:gold", 5_400.0),
        ("rest", 3_600.0),
    ] {
        for horizon in ["5m", "15m"] {
            let said = ahead(of_subject(&after, group), horizon);
            for rate in [
                said.mean_per_s.p10,
                said.mean_per_s.p90,
                said.peak_per_s.p90,
            ] {
                let part = f64::from(rate) * STEP_S / tokens;
                assert!((0.97..1.03).contains(&part), "{group} {said:?}");
            }
        }
    }
    let score = score(&after, "5m", "groups").unwrap();
    assert!(score.matured > 0 && score.loss < 0.01, "{score:?}");
}

#[tokio::test]
async fn a_step_that_is_closed_after_long_silence_is_known_too() {
    let mut deployment = Deployment::new(Limits::default(), &["acme"]).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &[("acme", 60)]).await;
    }
    deployment.import("acme", noisy(1, 60.0, 1_000)).await;
    assert_eq!(deployment.look().series, 1);
    // This step is closed by whoever syncs next.
    deployment.step(&mut gateway, &[("newcomer", 600)]).await;
    deployment.pass(600);
    deployment.look();
    for _ in 0..3 {
        deployment.sync(&mut gateway).await;
        deployment.look();
        deployment.pass(60);
    }
    assert_eq!(deployment.look().series, 2);
}

#[tokio::test]
async fn whatever_comes_of_an_import_it_is_forecast_from() {
    let mut deployment = Deployment::new(Limits::default(), &["acme", "bolt"]).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &[]).await;
    }
    assert_eq!(deployment.look().series, 0);
    let series = |key: &str| ImportedSeries {
        key: key.to_owned(),
        resource: None,
        step_ms: STEP_MS,
        newest_step: None,
        usage: noisy(1, 60.0, 1_000),
    };
    // Whoever asked does not wait for the end, unless that comes at once.
    let mut given_up = (0..100).filter_map(|attempt| {
        deployment.look();
        let (by, key) = (admin(), format!("customer-{attempt}"));
        let mut import = pin!(deployment.plane.import_history(&by, vec![series(&key)]));
        let mut context = Context::from_waker(Waker::noop());
        let polled = import.as_mut().poll(&mut context);
        polled.is_pending().then_some(key)
    });
    let given_up = given_up.next().unwrap();
    deployment.step(&mut gateway, &[]).await;
    assert!(names(&deployment.look()).contains(&named(&given_up)));
    // Of the second of two a part of the history cannot be read.
    let step = deployment.plane.now().unix_ms / u64::from(STEP_MS);
    let broken = Series::new(hash("dune"), 0);
    let mut batch = Batch::default();
    batch.put(
        Table::History,
        chunk_key(broken, Chunk::number_of(step - 500)),
        "broken",
    );
    deployment.store.commit(&batch).unwrap();
    let by = admin();
    let two = vec![series("bolt"), series("dune")];
    assert!(deployment.plane.import_history(&by, two).await.is_err());
    let found = names(&deployment.look());
    assert!(found.contains(&named("bolt")), "{found:?}");
}

#[tokio::test]
async fn who_is_not_among_the_largest_any_more_is_not_scored_and_that_is_said() {
    let limits = Limits {
        series: 1,
        contracts: 64,
    };
    let mut deployment = Deployment::new(limits, &["acme", "bolt"]).await;
    let mut gateway = Gateway::new("g1", 1);
    for _ in 0..2 {
        deployment.step(&mut gateway, &[]).await;
    }
    deployment.import("acme", noisy(1, 60.0, 1_000)).await;
    assert!(names(&deployment.look()).contains(&named("acme")));
    deployment.import("bolt", noisy(2, 6_000.0, 1_000)).await;
    let mut view = deployment.look();
    assert!(!names(&view).contains(&named("acme")));
    for step in 0..10 {
        if score(&view, "5m", "customers").is_some() {
            break;
        }
        assert!(step < 9, "{view:?}");
        deployment
            .step(&mut gateway, &[("acme", 60), ("bolt", 6_000)])
            .await;
        view = deployment.look();
    }
    let score = score(&view, "5m", "customers").unwrap();
    assert_eq!((score.matured, score.unscored), (1, 1));
}

#[tokio::test]
async fn nothing_in_the_history_makes_a_forecast_that_is_no_number() {
    let hostile = [
        "a\"b\\c{}",
        "zéro\u{202e}",
        "hash:",
        "long".repeat(60).leak(),
    ];
    let mut deployment = Deployment::new(Limits::default(), &[]).await;
    let mut histories = vec![
        (0..900)
            .map(|step| (step % 3 == 0).then_some(0.0))
            .collect(),
        (0..900)
            .map(|step| Some(if step % 97 == 0 { 1e12 } else { 0.0 }))
            .collect(),
        vec![None; 900],
        (0..900)
            .map(|step| (step < 400).then_some(1e12))
            .collect::<Vec<_>>(),
    ];
    for (key, usage) in hostile.iter().zip(histories.drain(..)) {
        // One that begins like a hash must be one.
        if !key.starts_with("hash:") {
            deployment.import(key, usage).await;
        }
    }
    let view = deployment.look();
    assert!(
        names(&view).contains(&"contract:free".to_owned()),
        "{:?}",
        names(&view)
    );
    for forecast in view.forecasts.iter().flat_map(|one| &one.horizons) {
        for quantiles in [forecast.mean_per_s, forecast.peak_per_s] {
            let row = [quantiles.p10, quantiles.p50, quantiles.p90, quantiles.p99];
            assert!(
                row.is_sorted() && row[0] >= 0.0 && row[3].is_finite(),
                "{row:?}"
            );
        }
    }
}

#[tokio::test]
async fn linked_accounts_are_forecast_together_at_each_level_and_do_not_contradict_their_members() {
    let (store, clock) = (Arc::default(), Arc::new(AtomicU64::new(1_000_000)));
    let mut deployment = Deployment::on(store, clock, Limits::default());
    let limits = json!({"requests": {"rate_per_s": 100, "burst": 1_000}});
    let policy = json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {"capacity_per_s": 1_000}},
        "sharing": {"interval_ms": 60_000},
        "groups": {"acme": {}, "acme-prod": {"parent": "acme"}},
        "contracts": {"gold": {"limits": limits}, "silver": {"tier": 2, "limits": limits}},
        "customers": [
            {"key": "acme-eu", "contract": "gold", "group": "acme-prod"},
            {"key": "acme-us", "contract": "silver", "group": "acme-prod"},
            {"key": "acme-labs", "contract": "silver", "group": "acme"},
            {"key": "bolt", "contract": "gold"}
        ],
    });
    let policy = policy.to_string();
    let by = admin();
    let applied = deployment.plane.apply_policy(&by, &policy, Format::Json);
    applied.await.unwrap();
    let keys = ["acme-eu", "acme-us", "acme-labs", "bolt"];
    for (seed, key) in (1..).zip(keys) {
        let usage = noisy(seed, 600.0 * seed as f64, HISTORY_STEPS);
        deployment.import(key, usage).await;
    }
    let view = deployment.look();
    for horizon in ["5m", "15m", "30m", "1h"] {
        let of = |name: &str| ahead(of_subject(&view, name), horizon).mean_per_s;
        for (group, members) in [
            ("group:acme", &keys[..3]),
            ("group:acme-prod", &keys[..2]),
            ("contract:silver", &keys[1..3]),
            ("all", &keys[..]),
        ] {
            let medians = members.iter().map(|key| f64::from(of(&named(key)).p50));
            let (median, sum) = (f64::from(of(group).p50), medians.sum());
            assert!(is_near(median, sum), "{group} {horizon}: {median} {sum}");
        }
        let margin = |name: &str| of(name).p90 - of(name).p50;
        let sum: f32 = keys[..3].iter().map(|key| margin(&named(key))).sum();
        assert!(
            margin("group:acme") < 0.9 * sum,
            "{horizon}: an interval of its own"
        );
    }
    let asked = |group: &str| {
        let query = ForecastsQuery {
            group: Some(group.to_owned()),
            ..ForecastsQuery::default()
        };
        deployment.plane.forecasts(&query)
    };
    assert_eq!(
        names(&asked("group:acme-prod").unwrap()),
        ["group:acme-prod"]
    );
    let error = asked("group:bolt").unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (404, "no_forecast"));
    let error = asked("acme").unwrap_err();
    assert!(error.hint.contains("`group:NAME`"), "{error:?}");
}

/// Chunks of a customer in the store.
fn chunks_of(deployment: &Deployment, key: &str) -> usize {
    let series = Series::new(hash(key), 0);
    let (from, to) = (chunk_key(series, 0), chunk_key(series, u64::MAX));
    let rows = deployment.store.range(Table::History, &from, &to);
    rows.unwrap().len()
}

#[tokio::test]
async fn chunks_of_who_has_gone_idle_leave_the_store_with_the_retention_and_no_sooner() {
    let mut deployment = Deployment::new(Limits::default(), &["acme", "bolt"]).await;
    let mut gateway = Gateway::new("g1", 1);
    deployment.import("acme", vec![Some(1.0); 300]).await;
    let before = chunks_of(&deployment, "acme");
    assert!(before >= 5, "{before}");
    let report = async |deployment: &Deployment, gateway: &mut Gateway, steps: u64| {
        for _ in 0..steps {
            deployment.sync(gateway).await;
            deployment.pass(60);
        }
    };
    report(&deployment, &mut gateway, HISTORY_STEPS - 310).await;
    deployment.import("bolt", vec![Some(1.0); 100]).await;
    deployment.look();
    // What a sync has changed is durable when it is answered, and so is what was queued before.
    report(&deployment, &mut gateway, 1).await;
    assert_eq!(chunks_of(&deployment, "acme"), before);
    report(&deployment, &mut gateway, 500).await;
    deployment.import("bolt", vec![Some(1.0); 100]).await;
    deployment.look();
    report(&deployment, &mut gateway, 1).await;
    assert_eq!(chunks_of(&deployment, "acme"), 0);
    let of_bolt = chunks_of(&deployment, "bolt");
    assert!(of_bolt >= 4, "{of_bolt}");
    // A clock that jumps a year ahead makes nothing old.
    deployment.pass(366 * 86_400);
    report(&deployment, &mut gateway, 10).await;
    deployment.import("acme", vec![Some(1.0); 2]).await;
    deployment.look();
    report(&deployment, &mut gateway, 1).await;
    assert_eq!(chunks_of(&deployment, "bolt"), of_bolt);
}
