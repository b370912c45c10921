//! Spillover in the control plane: whose spike would leave whom short, what is given before it comes, and when that is over.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

#[path = "../../sharing/tests/fleet/mod.rs"]
mod fleet;
mod kit;

use fleet::{Fleet, STEP_S, TWO_WEEKS};
use forebay_control_plane::allocation::{
    AllocationsQuery, CycleView, LoanReason, LoansQuery, replays,
};
use forebay_control_plane::auth::{Caller, Role};
use forebay_control_plane::document::Format;
use forebay_control_plane::forecasts::{Limits as ForecastLimits, Worker as Forecaster};
use forebay_control_plane::history::{Chunk, Series, chunk_key};
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{Clock, ImportedSeries, Plane, Settings};
use forebay_control_plane::risk::{
    AccountPair, By, Limits, LinksQuery, SpilloverQuery, SpilloverView, Worker,
};
use forebay_control_plane::store::{Batch, MemoryStore, Store, Table};
use forebay_wire::key::CustomerHash;
use kit::hash;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STEP_MS: u32 = STEP_S * 1_000;
const TTL_MS: u64 = 600_000;
/// Capacity over what is expected of all.
const TIGHT: f64 = 1.05;
/// More than anybody could need.
const AMPLE: f64 = 1e6;

/// A control plane whose time is moved by hand, and who forecasts and scores for it.
struct Deployment {
    store: Arc<MemoryStore>,
    clock: Arc<AtomicU64>,
    plane: Plane,
    forecaster: Forecaster,
    worker: Worker,
}

// === impl Deployment ===

impl Deployment {
    fn new() -> Self {
        Self::on(
            Arc::default(),
            Arc::new(AtomicU64::new(1_000_000)),
            Limits::default(),
        )
    }

    fn on(store: Arc<MemoryStore>, clock: Arc<AtomicU64>, limits: Limits) -> Self {
        let settings = Settings {
            step_ms: STEP_MS,
            history_steps: TWO_WEEKS as u64,
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
            forecaster: Forecaster::new(ForecastLimits::default()),
            worker: Worker::new(limits),
        }
    }

    async fn apply(&self, policy: &Value) {
        let (by, policy) = (admin(), policy.to_string());
        let applied = self.plane.apply_policy(&by, &policy, Format::Json);
        applied.await.unwrap();
    }

    /// Usage in tokens per second that ends with the newest step.
    async fn import(&self, key: &str, usage: impl IntoIterator<Item = f32>) {
        let usage = usage.into_iter();
        let series = ImportedSeries {
            key: key.to_owned(),
            resource: None,
            step_ms: STEP_MS,
            newest_step: None,
            usage: usage
                .map(|per_s| Some(f64::from(per_s) * f64::from(STEP_S)))
                .collect(),
        };
        let by = admin();
        self.plane.import_history(&by, vec![series]).await.unwrap();
    }

    async fn import_all(&self, usage: &[Vec<f32>]) {
        for (place, usage) in usage.iter().enumerate() {
            self.import(&key(place), usage.iter().copied()).await;
        }
    }

    /// Forecasts by what is in the history.
    fn forecast(&mut self) {
        self.forecaster.look(&self.plane).unwrap();
    }

    async fn cycle(&self) -> CycleView {
        self.plane.allocate_now(&admin()).await.unwrap()
    }

    /// Looks, and asks for all pairs.
    fn look(&mut self) -> SpilloverView {
        self.worker.look(&self.plane).unwrap();
        self.ask(SpilloverQuery::default())
    }

    fn ask(&self, query: SpilloverQuery) -> SpilloverView {
        self.plane.spillover(&query).unwrap()
    }

    fn pass_ms(&self, ms: u64) {
        self.clock.fetch_add(ms * 1_000, Ordering::SeqCst);
    }

    fn expected_per_s(&self) -> f64 {
        let view = self
            .plane
            .allocations(&AllocationsQuery::default())
            .unwrap();
        let customers = view.customers.iter();
        customers
            .map(|customer| customer.resources[0].expected_per_s)
            .sum()
    }

    /// Headroom that the cycle in force has given, by customer.
    fn headroom(&self) -> Vec<(String, f64)> {
        let view = self
            .plane
            .allocations(&AllocationsQuery::default())
            .unwrap();
        let given = view.customers.into_iter().map(|customer| {
            let per_s = customer.resources[0].headroom_per_s;
            (customer.customer, per_s)
        });
        given.filter(|(_, per_s)| *per_s > 0.0).collect()
    }

    /// Up to when the newest step lasts, in seconds since 1970.
    fn known_until_s(&self) -> u64 {
        let now_s = self.plane.now().unix_ms / 1_000;
        now_s - now_s % u64::from(STEP_S)
    }
}

fn admin() -> Caller {
    Caller {
        role: Role::Admin,
        fingerprint: String::new(),
    }
}

fn key(place: usize) -> String {
    format!("c{place:02}")
}

fn named(place: usize) -> String {
    format!("hash:{}", hash(&key(place)))
}

/// So many customers with one contract, some of whom are in campaigns; one that is guaranteed much and asks for nothing.
fn policy(customers: usize, capacity_per_s: f64, spillover: Value) -> Value {
    let listed = (0..customers).map(|place| {
        let group = if place % 2 == 0 { "even" } else { "odd" };
        json!({"key": key(place), "contract": "bulk", "group": group})
    });
    let idle = json!({"key": "idle", "contract": "gold"});
    let mut policy = json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": capacity_per_s.round()}},
        "sharing": {"interval_ms": 300_000, "reserve_share": 0.05},
        "groups": {"even": {}, "odd": {}},
        "contracts": {
            "bulk": {"tier": 2, "limits": {"requests": {"rate_per_s": 300, "burst": 300, "guarantee_per_s": 20}}},
            "gold": {"limits": {"requests": {"rate_per_s": 100, "burst": 100, "guarantee_per_s": 100}}},
            "free": {"tier": 3, "limits": {"requests": {"rate_per_s": 10, "burst": 10}}}
        },
        "customers": listed.chain([idle]).collect::<Vec<_>>(),
    });
    if !spillover.is_null() {
        policy["sharing"]["spillover"] = spillover;
    }
    policy
}

fn rule() -> Value {
    json!({"threshold_score": 0.003, "headroom_share": 0.1, "ttl_ms": TTL_MS})
}

/// Twelve customers of whom the seventh follows the first and the eighth the second, in a pool that is ample.
async fn planted() -> (Deployment, Fleet) {
    let fleet = Fleet::planted(12, 1);
    let mut deployment = Deployment::new();
    deployment.apply(&policy(12, AMPLE, rule())).await;
    deployment
        .import_all(&fleet.demand(TWO_WEEKS, true, 3))
        .await;
    deployment.forecast();
    deployment.cycle().await;
    (deployment, fleet)
}

/// Makes the pool tight, and a cycle of it.
async fn tighten(deployment: &mut Deployment, spillover: Value) {
    let capacity_per_s = deployment.expected_per_s() * TIGHT;
    deployment
        .apply(&policy(12, capacity_per_s, spillover))
        .await;
    deployment.pass_ms(61_000);
    deployment.cycle().await;
}

fn pair(view: &SpilloverView, spiker: usize, hit: usize) -> &AccountPair {
    let (spiker, hit) = (named(spiker), named(hit));
    let mut pairs = view.pairs.iter();
    let found = pairs.find(|pair| pair.spiker == spiker && pair.hit == hit);
    found.unwrap_or_else(|| panic!("no pair of {spiker} and {hit}: {view:?}"))
}

#[tokio::test]
async fn a_planted_pair_has_a_score_and_a_reason_where_the_pool_is_tight_and_nobody_where_it_is_ample()
 {
    let (mut deployment, fleet) = planted().await;
    let ample = deployment.look();
    assert_eq!(
        (ample.pairs.len(), ample.headroom.len()),
        (0, 0),
        "{ample:?}"
    );
    assert!(ample.cycle.is_some() && ample.unavailable.is_none());
    let study = ample.study.unwrap();
    assert_eq!(
        (study.series, study.step_ms, study.reach_ms),
        (12, 300_000, 1_800_000)
    );
    tighten(&mut deployment, rule()).await;
    let view = deployment.look();
    let planted = fleet.planted_pairs();
    let links = deployment
        .plane
        .spillover_links(&LinksQuery::default())
        .unwrap();
    let matrices = &links.resources[0];
    for (from, to, ..) in &fleet.drives {
        let pair = pair(&view, *from, *to);
        let scores = (pair.score_interval.low, pair.score_interval.high);
        assert!(scores.0 <= pair.score && pair.score <= scores.1, "{pair:?}");
        assert!(pair.score > 0.0 && pair.magnitude_per_s > 0.0, "{pair:?}");
        let shares = pair.shares;
        assert!((shares.spike + shares.own + shares.others - 1.0).abs() < 1e-9);
        assert!(pair.explanation.contains(&pair.spiker) && pair.explanation.contains(" %"));
        let place = |customer: usize| {
            let mut accounts = matrices.accounts.iter();
            accounts
                .position(|account| *account == named(customer))
                .unwrap()
        };
        let (row, column) = (place(*from), place(*to));
        let (correlation, partial) = (
            matrices.correlations[row][column],
            matrices.partial_correlations[row][column],
        );
        assert!(correlation.abs() <= 1.0 && partial.abs() <= 1.0);
        assert_eq!(matrices.correlations[row][row], 1.0);
    }
    let follower = pair(&view, 0, 6).link.as_ref().unwrap();
    assert_eq!(
        (follower.lag_ms, follower.from.clone()),
        (300_000, named(0))
    );
    assert!(follower.followed * 2 > follower.spikes, "{follower:?}");
    // The largest are those that were planted.
    let names: Vec<(String, String)> = planted
        .iter()
        .map(|(from, to)| (named(*from), named(*to)))
        .collect();
    let largest = view.pairs.iter().take(planted.len());
    let right = largest.filter(|pair| names.contains(&(pair.spiker.clone(), pair.hit.clone())));
    assert!(right.count() * 4 >= planted.len() * 3, "{view:?}");
    assert!(view.pairs.is_sorted_by(|one, next| one.score >= next.score));
    assert!(view.pairs[0].score > 0.003, "{view:?}");
}

#[tokio::test]
async fn one_may_ask_for_a_part_of_them() {
    let (mut deployment, _) = planted().await;
    tighten(&mut deployment, rule()).await;
    let all = deployment.look();
    let of = |customer: Option<usize>, spiker: Option<usize>, hit: Option<usize>| SpilloverQuery {
        customer: customer.map(key),
        spiker: spiker.map(key),
        hit: hit.map(key),
        ..SpilloverQuery::default()
    };
    let one = deployment.ask(of(Some(0), None, None));
    let has = |pair: &AccountPair| pair.spiker == named(0) || pair.hit == named(0);
    assert!(!one.pairs.is_empty() && one.pairs.iter().all(has));
    assert_eq!(one.total, all.pairs.iter().filter(|pair| has(pair)).count());
    assert_eq!(
        deployment.ask(of(None, Some(0), Some(6))).pairs,
        [pair(&all, 0, 6).clone()]
    );
    let mut paged = Vec::new();
    while paged.len() < all.total {
        let page = deployment.ask(SpilloverQuery {
            offset: Some(paged.len()),
            limit: Some(3),
            ..SpilloverQuery::default()
        });
        assert!(!page.pairs.is_empty() && page.pairs.len() <= 3);
        paged.extend(page.pairs);
    }
    assert_eq!(paged, all.pairs);
    let groups = deployment.ask(SpilloverQuery {
        by: Some(By::Group),
        ..SpilloverQuery::default()
    });
    assert!(
        groups
            .pairs
            .iter()
            .all(|pair| pair.spiker.starts_with("group:") && pair.link.is_none())
    );
    assert!(!groups.pairs.is_empty(), "two groups share one tight pool");
    let both = SpilloverQuery {
        by: Some(By::Tier),
        ..of(Some(0), None, None)
    };
    let water = SpilloverQuery {
        resource: Some("water".to_owned()),
        ..SpilloverQuery::default()
    };
    for (query, status, place) in [
        (both, 400, "by"),
        (water, 422, "resource"),
        (of(None, Some(0), Some(0)), 404, "hit"),
    ] {
        let refused = deployment.plane.spillover(&query).unwrap_err();
        assert_eq!((refused.status, refused.place.as_str()), (status, place));
    }
}

#[tokio::test]
async fn headroom_is_there_before_the_spike_and_goes_back_when_its_time_is_over() {
    let (mut deployment, fleet) = planted().await;
    tighten(&mut deployment, rule()).await;
    assert_eq!(deployment.headroom(), []);
    let view = deployment.look();
    let capacity_per_s = deployment.expected_per_s() * TIGHT;
    let wanted: f64 = view.headroom.iter().map(|extra| extra.per_s).sum();
    assert!(
        wanted > 0.0 && wanted <= 0.1 * capacity_per_s * 1.001,
        "{view:?}"
    );
    deployment.pass_ms(1_000);
    deployment.cycle().await;
    let given = deployment.headroom();
    let hit: Vec<&String> = view.headroom.iter().map(|extra| &extra.customer).collect();
    assert!(
        !given.is_empty() && given.iter().all(|(customer, _)| hit.contains(&customer)),
        "{given:?}"
    );
    assert!(
        view.headroom
            .iter()
            .all(|extra| extra.customer == extra.hit)
    );
    assert_eq!(replays(&*deployment.store).unwrap(), Some(true));
    let loans = deployment
        .plane
        .loans(&LoansQuery::default())
        .unwrap()
        .loans;
    let for_headroom: Vec<&String> = loans
        .iter()
        .filter(|loan| loan.reason == LoanReason::Headroom && loan.side == "borrowed")
        .map(|loan| &loan.customer)
        .collect();
    assert_eq!(
        for_headroom,
        given
            .iter()
            .map(|(customer, _)| customer)
            .collect::<Vec<_>>()
    );
    // Nobody asks for anything any more.
    let quiet = fleet.demand(TWO_WEEKS, true, 3);
    for (place, usage) in quiet.iter().enumerate() {
        let silent = usage.iter().enumerate();
        let silent = silent.map(|(step, per_s)| {
            if step < TWO_WEEKS - fleet::DAY {
                *per_s
            } else {
                0.0
            }
        });
        deployment.import(&key(place), silent).await;
    }
    deployment.pass_ms(120_000);
    deployment.forecast();
    deployment.cycle().await;
    let after = deployment.look();
    assert_eq!(after.pairs, []);
    deployment.pass_ms(1_000);
    deployment.cycle().await;
    assert!(!deployment.headroom().is_empty(), "its time is not over");
    deployment.pass_ms(TTL_MS);
    assert_eq!(deployment.ask(SpilloverQuery::default()).headroom, []);
    deployment.cycle().await;
    assert_eq!(deployment.headroom(), []);
    assert_eq!(replays(&*deployment.store).unwrap(), Some(true));
}

#[tokio::test]
async fn nobody_is_scored_or_given_anything_unless_the_policy_asks() {
    let (mut deployment, _) = planted().await;
    tighten(&mut deployment, Value::Null).await;
    let view = deployment.look();
    assert!(view.study.is_none() && view.pairs.is_empty());
    assert!(view.unavailable.unwrap().contains("sharing.spillover"));
    // Pairs are shown, and nothing is given.
    let mut shown = rule();
    shown["headroom_share"] = json!(0);
    tighten(&mut deployment, shown).await;
    let view = deployment.look();
    assert!(!view.pairs.is_empty() && view.headroom.is_empty());
    tighten(&mut deployment, rule()).await;
    assert!(!deployment.look().headroom.is_empty());
    // A policy that does not ask ends it at once, whether or not anybody has looked.
    tighten(&mut deployment, Value::Null).await;
    assert_eq!(deployment.headroom(), []);
}

#[tokio::test]
async fn who_spikes_is_given_headroom_where_the_policy_feeds_it() {
    let (mut deployment, _) = planted().await;
    let mut spiker = rule();
    spiker["protect"] = json!("spiker");
    tighten(&mut deployment, spiker).await;
    let view = deployment.look();
    assert!(!view.headroom.is_empty());
    assert!(
        view.headroom
            .iter()
            .all(|extra| extra.customer == extra.spiker)
    );
}

#[tokio::test]
async fn a_restart_finds_the_same_again() {
    let (mut deployment, _) = planted().await;
    tighten(&mut deployment, rule()).await;
    let before = deployment.look();
    let links = deployment
        .plane
        .spillover_links(&LinksQuery::default())
        .unwrap();
    let Deployment {
        store,
        clock,
        plane,
        ..
    } = deployment;
    drop(plane);
    let mut again = Deployment::on(store, clock, Limits::default());
    let view = again.look();
    assert!(!view.pairs.is_empty());
    assert_eq!((&view.pairs, view.cycle), (&before.pairs, before.cycle));
    assert_eq!(view.headroom, before.headroom);
    let links_again = again.plane.spillover_links(&LinksQuery::default()).unwrap();
    assert_eq!(links_again.resources, links.resources);
}

#[tokio::test]
async fn what_was_announced_leaves_no_score_between_those_whom_it_moves() {
    let mut fleet = Fleet::independent(24, 1);
    fleet.campaign = vec![2, 9, 16];
    let mut deployment = Deployment::new();
    let among = |view: &SpilloverView| {
        let names: Vec<String> = fleet.campaign.iter().map(|place| named(*place)).collect();
        let pairs = view.pairs.iter();
        let pairs = pairs.filter(|pair| names.contains(&pair.spiker) && names.contains(&pair.hit));
        pairs.map(|pair| pair.score).fold(0.0, f64::max)
    };
    deployment.apply(&policy(24, AMPLE, rule())).await;
    deployment
        .import_all(&fleet.demand(TWO_WEEKS, true, 301))
        .await;
    deployment.forecast();
    deployment.cycle().await;
    let capacity_per_s = deployment.expected_per_s() * TIGHT;
    let mut tight = policy(24, capacity_per_s, rule());
    tight["contracts"]["sold"] = tight["contracts"]["bulk"].clone();
    for place in &fleet.campaign {
        tight["customers"][place]["contract"] = json!("sold");
    }
    deployment.apply(&tight).await;
    deployment.pass_ms(61_000);
    deployment.cycle().await;
    let unknown = among(&deployment.look());
    let first_s = deployment.known_until_s() - u64::from(STEP_S) * TWO_WEEKS as u64;
    let on: Vec<bool> = (0..TWO_WEEKS).map(Fleet::campaign_at).collect();
    let mut events = Vec::new();
    let mut from = 0;
    for run in on.chunk_by(PartialEq::eq) {
        let at = |step: usize| first_s + step as u64 * u64::from(STEP_S);
        if run[0] {
            events.push(json!({
                "name": format!("sale{from}"), "from_unix_s": at(from), "until_unix_s": at(from + run.len()),
                "factor": 3, "contracts": ["sold"]
            }));
        }
        from += run.len();
    }
    assert!(events.len() > 3);
    tight["events"] = json!(events);
    deployment.apply(&tight).await;
    // Another study may have to wait after one that took long.
    deployment.worker = Worker::new(Limits::default());
    deployment.pass_ms(61_000);
    deployment.cycle().await;
    let known = among(&deployment.look());
    assert!(unknown > 0.0 && known < 0.1 * unknown, "{unknown} {known}");
}

#[tokio::test]
async fn whatever_the_history_holds_somebody_answers() {
    let noisy = |place: usize| {
        (0..TWO_WEEKS).map(move |step| ((step * 7919 + place * 104_729) % 97) as f32)
    };
    let cases: [(&str, Vec<Vec<f32>>); 6] = [
        ("nobody", Vec::new()),
        ("one customer", vec![noisy(1).collect()]),
        ("zeros", vec![vec![0.0; TWO_WEEKS]; 3]),
        ("constants", vec![vec![5.0; TWO_WEEKS]; 3]),
        ("a step", vec![vec![1e9], vec![0.0]]),
        (
            "the largest and the smallest",
            vec![
                vec![3e9; TWO_WEEKS],
                vec![1e-9; TWO_WEEKS],
                noisy(2).collect(),
            ],
        ),
    ];
    for (case, usage) in cases {
        let mut deployment = Deployment::new();
        deployment.apply(&policy(3, 250.0, rule())).await;
        deployment.import_all(&usage).await;
        deployment.forecast();
        deployment.cycle().await;
        let view = deployment.look();
        assert!(
            view.pairs.iter().all(|pair| pair.score.is_finite()),
            "{case}: {view:?}"
        );
        assert!(view.study.is_some() || view.unavailable.is_some(), "{case}");
        assert!(
            !serde_json::to_string(&view).unwrap().contains("null"),
            "{case}"
        );
        deployment.pass_ms(1_000);
        deployment.cycle().await;
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_a_gap_and_of_thousands_only_the_largest_are_studied() {
    let mut deployment = Deployment::on(
        Arc::default(),
        Arc::new(AtomicU64::new(1_000_000)),
        Limits { customers: 20 },
    );
    deployment.apply(&policy(12, AMPLE, rule())).await;
    let fleet = Fleet::planted(12, 1);
    deployment
        .import_all(&fleet.demand(TWO_WEEKS, true, 3))
        .await;
    deployment.cycle().await;
    let newest = deployment.known_until_s() / u64::from(STEP_S) - 1;
    let mut batch = Batch::default();
    let damaged = Series::new(hash(&key(0)), 0);
    batch.put(
        Table::History,
        chunk_key(damaged, newest / 64 - 5),
        vec![1, 2, 3],
    );
    for number in 0..4_000_u64 {
        let mut name = [7; 16];
        name[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let mut chunk = Chunk::default();
        chunk.set(newest, number as f32 % 50.0);
        let series = Series::new(CustomerHash(name), 0);
        batch.put(
            Table::History,
            chunk_key(series, newest / 64),
            chunk.encode(),
        );
    }
    deployment.store.commit(&batch).unwrap();
    deployment.look();
    deployment.pass_ms(3_700_000);
    let view = deployment.look();
    assert_eq!(view.study.unwrap().series, 20);
    let links = deployment
        .plane
        .spillover_links(&LinksQuery::default())
        .unwrap();
    let planted = |link: &&forebay_control_plane::risk::LinkView| {
        link.from == named(0) && link.to == named(6)
    };
    assert!(
        links.resources[0].links.iter().any(|link| planted(&link)),
        "{links:?}"
    );
}
