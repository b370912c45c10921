//! How often each alert fires while nothing is wrong, and how soon when something is. The figures of docs/internals/drift.md:
//! `cargo test -p forebay-alerts --test false_alarms -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod fleets;

use fleets::{CALM, DAY_ROUNDS, DEMANDS, Demand, Fleet};
use forebay_alerts::{Kind, Stage, Watch};

/// Days of a fleet that is always the same.
const DAYS: u64 = 200;
/// Fleets of a kind.
const FLEETS: u64 = 5;
const KINDS: [Kind; 3] = [
    Kind::ForecastLoss,
    Kind::ForecastCoverage,
    Kind::ForecastDrift,
];

fn firing_since(watch: &Watch, kind: Kind) -> Option<u64> {
    let mut alerts = watch.alerts().filter(|(key, _)| key.kind == kind);
    alerts.find_map(|(_, alert)| match alert.stage {
        Stage::Firing { since_unix_ms, .. } => Some(since_unix_ms),
        _ => None,
    })
}

/// How often each kind fires in [`FLEETS`] fleets of [`DAYS`] days.
fn false_alarms(demand: Demand) -> [usize; 3] {
    let mut count = [0; 3];
    for seed in 1..=FLEETS {
        let (mut fleet, mut watch) = (Fleet::new(demand, seed), Watch::new(60_000));
        let mut fired: [Option<u64>; 3] = [None; 3];
        for _ in 0..DAYS * DAY_ROUNDS {
            fleet.show(&mut watch);
            for (place, kind) in KINDS.into_iter().enumerate() {
                let since = firing_since(&watch, kind);
                if since.is_some() && since != fired[place] {
                    fired[place] = since;
                    count[place] += 1;
                }
            }
        }
    }
    count
}

/// Minutes from a change until each kind fires, of the median fleet; `None`: not within two days.
fn delays(change: impl Fn(&mut Fleet)) -> [Option<u64>; 3] {
    const RUNS: u64 = 9;
    let mut delays: [Vec<Option<u64>>; 3] = Default::default();
    for seed in 1..=RUNS {
        let (mut fleet, mut watch) = (Fleet::new(DEMANDS[1], seed << 32), Watch::new(60_000));
        (0..10 * DAY_ROUNDS).for_each(|_| fleet.show(&mut watch));
        change(&mut fleet);
        let mut found = [None; 3];
        for minute in 1..=2 * DAY_ROUNDS {
            fleet.show(&mut watch);
            for (found, kind) in found.iter_mut().zip(KINDS) {
                if found.is_none() && firing_since(&watch, kind).is_some() {
                    *found = Some(minute);
                }
            }
        }
        for (delays, found) in delays.iter_mut().zip(found) {
            delays.push(found);
        }
    }
    delays.map(|mut delays| {
        delays.sort_by_key(|delay| delay.unwrap_or(u64::MAX));
        delays[delays.len() / 2]
    })
}

#[test]
fn false_alarms_are_as_rare_as_the_document_says() {
    println!("seeds 1 to {FLEETS}, {DAYS} days each: loss, coverage, drift");
    for demand in DEMANDS {
        let [loss, coverage, drift] = false_alarms(demand);
        println!("| {} | {loss} | {coverage} | {drift} |", demand.name);
        assert!(loss <= 2, "{}: {loss}", demand.name);
        assert!(coverage <= 5, "{}: {coverage}", demand.name);
        assert!(drift <= 10, "{}: {drift}", demand.name);
    }
}

#[test]
fn what_changes_is_told_within_hours() {
    let show = |name, delays: [Option<u64>; 3]| {
        println!("| {name} | {delays:?} |");
        delays
    };
    let [loss, coverage, drift] = show("demand twice as wild", delays(|fleet| fleet.wilder = 2.0));
    assert!(loss.is_some_and(|minutes| minutes < 60), "{loss:?}");
    assert!(
        coverage.is_some_and(|minutes| minutes < 400),
        "{coverage:?}"
    );
    assert!(drift.is_some_and(|minutes| minutes < 400), "{drift:?}");
    let [_, coverage, drift] = show("forecasts 20 % too low", delays(|fleet| fleet.bias = 0.22));
    assert!(
        coverage.is_some_and(|minutes| minutes < 400),
        "{coverage:?}"
    );
    let _ = drift;
    let [_, _, drift] = show("demand a third wilder", delays(|fleet| fleet.wilder = 1.33));
    assert!(drift.is_some_and(|minutes| minutes < 600), "{drift:?}");
    let nothing = show("nothing", delays(|_| {}));
    assert_eq!(nothing, [None; 3]);
    assert_eq!(CALM.series, 20);
}
