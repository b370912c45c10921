//! Forecasts of the control plane: what it says of customers and groups, from which history, and within which limits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod process;

use forebay_control_plane::auth::{Caller, Role};
use forebay_control_plane::document::Format;
use forebay_control_plane::forecasts::{
    ForecastScore, ForecastsQuery, ForecastsView, HorizonForecast, Limits, SubjectForecasts, Worker,
};
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{Clock, ImportedSeries, Plane, Settings};
use forebay_control_plane::store::{MemoryStore, Store};
use kit::{Gateway, hash};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN, send};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;

const STEP_MS: u32 = 60_000;
const HISTORY_STEPS: u64 = 4_032;
const STEP_S: f64 = 60.0;

/// A control plane whose time is moved by hand, and who forecasts for it.
struct Deployment {
    store: Arc<MemoryStore>,
    clock: Arc<AtomicU64>,
    plane: Plane,
    worker: Worker,
}

// === impl Deployment ===

impl Deployment {
    async fn new(limits: Limits, customers: &[&str]) -> Self {
        let deployment = Self::on(Arc::default(), Arc::new(AtomicU64::new(1_000_000)), limits);
        let listed = customers.iter().enumerate().map(|(place, key)| {
            let contract = if place % 2 == 0 { "gold" } else { "silver" };
            json!({"key": key, "contract": contract})
        });
        let limits = json!({"requests": {"rate_per_s": 1000, "burst": 100_000}});
        let policy = json!({
            "version": 1,
            "unknown": {"action": "default_contract", "contract": "free"},
            "resources": {"requests": {}},
            "contracts": {
                "gold": {"limits": limits}, "silver": {"tier": 2, "limits": limits},
                "free": {"tier": 3, "limits": limits}
            },
            "customers": listed.collect::<Vec<_>>(),
        });
        let policy = policy.to_string();
        let by = admin();
        let applied = deployment.plane.apply_policy(&by, &policy, Format::Json);
        applied.await.unwrap();
        deployment
    }

    fn on(store: Arc<MemoryStore>, clock: Arc<AtomicU64>, limits: Limits) -> Self {
        let settings = Settings {
            step_ms: STEP_MS,
            history_steps: HISTORY_STEPS,
            ..kit::settings()
        };
        let plane = Plane::start(
            Arc::clone(&store) as Arc<dyn Store>,
            Keys::new(None, None).unwrap(),
            settings,
            Clock::Manual(Arc::clone(&clock)),
        );
        Self {
            store,
            clock,
            plane: plane.unwrap(),
            worker: Worker::new(limits),
        }
    }

    async fn import(&self, key: &str, usage: Vec<Option<f64>>) {
        let series = ImportedSeries {
            key: key.to_owned(),
            resource: None,
            step_ms: STEP_MS,
            newest_step: None,
            usage,
        };
        let by = admin();
        let imported = self.plane.import_history(&by, vec![series]);
        imported.await.unwrap();
    }

    fn look(&mut self) -> ForecastsView {
        self.worker.look(&self.plane).unwrap();
        self.plane.forecasts(&ForecastsQuery::default()).unwrap()
    }

    /// A step in which a gateway reports as often as it does.
    async fn step(&self, gateway: &mut Gateway, usage: &[(&str, u64)]) {
        for (key, tokens) in usage {
            gateway.spend(key, *tokens);
        }
        for _ in 0..3 {
            let answer = self.plane.sync(gateway.request()).await;
            assert_eq!(answer.status, 200, "{:?}", answer.reply.error);
            gateway.apply(&answer.reply);
            self.clock.fetch_add(20_000_000, Ordering::SeqCst);
        }
    }
}

fn admin() -> Caller {
    Caller {
        role: Role::Admin,
        fingerprint: String::new(),
    }
}

/// A number from 0 to 1 that looks like chance.
fn noise(seed: u64, place: u64) -> f64 {
    let mixed = (seed << 32 | place)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Noisy usage around a mean in tokens per step.
fn noisy(seed: u64, mean: f64, steps: u64) -> Vec<Option<f64>> {
    (0..steps)
        .map(|step| Some(mean * (0.5 + noise(seed, step))))
        .collect()
}

fn of_subject<'a>(view: &'a ForecastsView, name: &str) -> &'a SubjectForecasts {
    let found = view
        .forecasts
        .iter()
        .find(|one| one.group.as_deref().or(one.customer.as_deref()) == Some(name));
    found.unwrap_or_else(|| panic!("no forecast of {name}: {:?}", names(view)))
}

fn names(view: &ForecastsView) -> Vec<String> {
    let names = view.forecasts.iter();
    names
        .map(|one| one.group.clone().or(one.customer.clone()).unwrap())
        .collect()
}

fn named(key: &str) -> String {
    format!("hash:{}", hash(key))
}

fn ahead<'a>(of: &'a SubjectForecasts, horizon: &str) -> &'a HorizonForecast {
    let mut horizons = of.horizons.iter();
    horizons.find(|one| one.horizon == horizon).unwrap()
}

/// Whether two rates are the same but for single precision.
fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * one.abs().max(other.abs()).max(1e-9)
}

fn score<'a>(view: &'a ForecastsView, horizon: &str, of: &str) -> Option<&'a ForecastScore> {
    let mut scores = view.scores.iter();
    scores.find(|one| one.horizon == horizon && one.of == of)
}

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
    for _ in 0..7 {
        deployment.step(&mut gateway, &[("newcomer", 60_000)]).await;
    }
    let later = deployment.look();
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

#[tokio::test]
async fn a_restart_forecasts_the_same_from_what_the_store_has() {
    let mut deployment = Deployment::new(Limits::default(), &["acme", "bolt"]).await;
    for (seed, key) in [(1, "acme"), (2, "bolt")] {
        deployment.import(key, noisy(seed, 600.0, 2_000)).await;
    }
    let mut gateway = Gateway::new("g1", 1);
    for step in 0..4 {
        deployment.step(&mut gateway, &[("acme", 100 + step)]).await;
        deployment.look();
    }
    let before = deployment.look();
    deployment.plane.stop().await.unwrap();
    assert_eq!(
        deployment.look(),
        before,
        "a server that has stopped forecasts nothing more"
    );
    let Deployment { store, clock, .. } = deployment;
    let mut again = Deployment::on(store, clock, Limits::default());
    let after = again.look();
    // The step that was running when it stopped is all that could be known more now.
    for horizon in ["5m", "15m"] {
        let of = |view: &ForecastsView| ahead(of_subject(view, "all"), horizon).clone();
        assert_eq!(of(&before).horizon, of(&after).horizon);
        let (before, after) = (of(&before).mean_per_s, of(&after).mean_per_s);
        let apart = (before.p50 - after.p50).abs();
        assert!(apart < 0.2 * before.p50, "{before:?} {after:?}");
    }
    assert_eq!(names(&before), names(&after));
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

/// `forebay serve` with minutes, as it is by default.
async fn serve(data: &Path) -> Process {
    let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
    program
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
        .env("FOREBAY_VIEWER_TOKEN", VIEWER_TOKEN)
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .stderr(Stdio::null());
    Process::spawned(program, false).await
}

/// Asks until there is a forecast of this.
async fn forecast_of(server: &Process, query: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let path = format!("/v1/forecasts?{query}");
        let answer = send(&server.address, "GET", &path, VIEWER_TOKEN, Vec::new()).await;
        let (status, body) = answer.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        if status == 200 {
            return answer;
        }
        assert_eq!(answer["code"], "no_forecast");
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_forecasts_what_was_imported_and_does_so_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = serve(&data).await;
    let policy = json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 10, "burst": 20}}}},
        "customers": [{"key": "acme", "contract": "gold"}],
    });
    let usage = noisy(1, 600.0, 3_000);
    let series = json!([{"key": "acme", "step_ms": STEP_MS, "usage": usage}]);
    let history = json!({ "series": series });
    for (method, path, body) in [
        ("POST", "/v1/policies", policy),
        ("PUT", "/v1/history", history),
    ] {
        let body = body.to_string().into_bytes();
        let (status, answer) = send(&server.address, method, path, ADMIN_TOKEN, body)
            .await
            .unwrap();
        assert_eq!(status, 200, "{path}: {answer:?}");
    }
    for _ in 0..2 {
        let view = forecast_of(&server, "customer=acme").await;
        let median = view["forecasts"][0]["horizons"][3]["mean_per_s"]["p50"]
            .as_f64()
            .unwrap();
        assert!((9.0..11.0).contains(&median), "{view}");
        let of_group = forecast_of(&server, "group=contract:gold&resource=requests").await;
        assert_eq!(of_group["forecasts"].as_array().unwrap().len(), 1);
        let said = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["forecasts", "--group", "all", "--resource", "requests"])
            .env("FOREBAY_SERVER", format!("http://{}", server.address))
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .await
            .unwrap();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["forecasts"][0]["group"], "all");
        let metrics = send(&server.address, "GET", "/metrics", "", Vec::new()).await;
        let metrics = String::from_utf8(metrics.unwrap().1.to_vec()).unwrap();
        assert!(
            metrics.contains("\nforebay_forecast_series 1\n"),
            "{metrics}"
        );
        server.terminate().await;
        server = serve(&data).await;
    }
}
