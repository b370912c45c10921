//! What credits are worth: over many cycles, telling the truth, lending and waiting pay.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{
    Customer, Held, Lend, Outlook, Settings, Terms, allocate, credits_after, credits_of_newcomer,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use std::cell::Cell;

const CYCLES: usize = 24;

/// How long is long.
const LONG: usize = 200;

/// Useful allocations of everybody over all cycles: what was had and really needed.
fn useful(capacity: f64, truth: &[Vec<f64>], said: &[Vec<f64>], with_credits: bool) -> Vec<f64> {
    let count = truth.len();
    let cycles = truth.first().map_or(0, Vec::len);
    let guarantee = capacity / 2.0 / count as f64;
    let settings = Settings {
        reserve_share: 0.0,
        with_credits,
        ..Settings::default()
    };
    let mut credits = vec![0.0; count];
    let mut useful = vec![0.0; count];
    for cycle in 0..cycles {
        let customers: Vec<Customer> = said
            .iter()
            .zip(&credits)
            .map(|(said, credits)| Customer {
                tier: Tier::Two,
                priority: 0,
                weight: 1.0,
                group: None,
                terms: PerResource::only_first(Terms {
                    guarantee_per_s: guarantee,
                    rate_per_s: capacity,
                    ceiling_per_s: capacity,
                    lend: Lend::Auto,
                }),
                outlook: PerResource::only_first(Outlook::of_demand(
                    said.get(cycle).copied().unwrap_or(0.0),
                )),
                headroom_per_s: PerResource::default(),
                held: PerResource::all(Held::default()),
                credits: *credits,
            })
            .collect();
        let capacities = PerResource::only_first(capacity);
        let allocation = allocate(&capacities, &customers, &[], &settings);
        for ((useful, truth), parts) in useful.iter_mut().zip(truth).zip(&allocation.parts) {
            let has = parts.at(ResourceIndex::FIRST).allocated_per_s();
            *useful += has.min(truth.get(cycle).copied().unwrap_or(0.0));
        }
        credits = credits_after(&capacities, &customers, &allocation, settings.interval_s);
    }
    useful
}

/// Demands of some customers, most of the time little and sometimes much.
fn demands(cycles: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
    let demand = prop_oneof![2 => 0.0..10.0, 1 => 10.0..60.0];
    prop::collection::vec(prop::collection::vec(demand, cycles), 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn to_ask_for_more_than_one_needs_gains_nothing(
        truth in demands(CYCLES),
        more in prop::collection::vec(prop_oneof![1 => Just(0.0), 1 => 0.0..60.0], CYCLES),
        capacity in 20.0..80.0,
    ) {
        let honest = useful(capacity, &truth, &truth, true);
        let mut said = truth.clone();
        for (said, more) in said[0].iter_mut().zip(&more) {
            *said += more;
        }
        let lied = useful(capacity, &truth, &said, true);
        prop_assert!(lied[0] <= honest[0] * (1.0 + 1e-9) + 1e-6, "{} instead of {}", lied[0], honest[0]);
    }

    #[test]
    fn in_the_long_run_nobody_has_less_than_by_a_static_split(
        truth in demands(LONG),
        capacity in 20.0..80.0,
    ) {
        let even = capacity / truth.len() as f64;
        let shared = useful(capacity, &truth, &truth, true);
        for (demands, shared) in truth.iter().zip(shared) {
            let alone: f64 = demands.iter().map(|demand| demand.min(even)).sum();
            prop_assert!(shared >= alone * 0.99, "{shared} instead of {alone}");
        }
    }
}

#[test]
fn a_newcomer_has_what_the_others_have_in_the_mean() {
    assert_eq!(credits_of_newcomer(&[]), 0.0);
    assert_eq!(credits_of_newcomer(&[3.0, -1.0, 4.0]), 2.0);
}

/// Whoever knows everybody's future can gain by asking for less for a while and be owed for it (Karma, section 4, has the bound of a half).
/// Without that knowledge it is a bet that loses in the mean.
#[test]
fn to_ask_for_less_than_one_needs_loses_in_the_mean() {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(10_000)
    });
    let (gains, most) = (Cell::new(0.0), Cell::new(0.0_f64));
    let worlds = (demands(CYCLES), 0.0..0.99, 20.0..80.0);
    let result = runner.run(&worlds, |(truth, part, capacity)| {
        let honest = useful(capacity, &truth, &truth, true);
        let mut said = truth.clone();
        for said in &mut said[0] {
            *said *= part;
        }
        let lied = useful(capacity, &truth, &said, true);
        let gain = lied[0] / honest[0].max(1e-9) - 1.0;
        gains.set(gains.get() + gain);
        most.set(most.get().max(gain));
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(
        gains.get() < 0.0,
        "gains {} in the mean",
        gains.get() / 10_000.0
    );
    assert!(most.get() < 0.5, "gains {} at the most", most.get());
}
