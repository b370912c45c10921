//! The policies that need no control plane.

use super::even_split::EvenSplit;
use super::{MakeCoordinator, PolicyName};
use crate::error::SimulationError;
use crate::figures::Figures;
use crate::run::run;
use crate::scenario::{Scenario, Settings};
use crate::trace::{Demand, Trace};

const SECONDS: u64 = 60;

fn scenario(seed: u64, reserve: f64, faults_until_s: u64) -> Scenario {
    let steady = |per_s: f64| vec![per_s; SECONDS as usize];
    let trace = Trace {
        tenants: vec!["acme".into(), "bolt".into()],
        demand: Demand::Counts {
            step_us: 1_000_000,
            counts: vec![steady(40.0), steady(15.0)],
        },
        length_us: SECONDS * 1_000_000,
    };
    let settings = Settings {
        gateways: 5,
        capacity: 0.8,
        reserve,
        faults_until_us: faults_until_s * 1_000_000,
    };
    Scenario::new(&trace, settings, seed)
}

fn figures(policy: PolicyName, scenario: &Scenario) -> Figures {
    let none: &MakeCoordinator<'_> = &|_, _| {
        Err(SimulationError::Coordinator(
            "this test has no control plane".into(),
        ))
    };
    Figures::of(scenario, &policy.run(scenario, none).unwrap())
}

#[test]
fn the_whole_rate_for_everybody_is_seen_as_over_admission_and_an_even_part_is_not() {
    let scenario = scenario(1, 0.0, 0);
    let of = |parts| {
        Figures::of(
            &scenario,
            &run(EvenSplit::new(&scenario, parts), &scenario).unwrap(),
        )
    };
    let (even, whole) = (of(5), of(1));
    assert_eq!(
        (
            even.over_admitted,
            even.over_admitted_1s,
            even.over_admitted_10s
        ),
        (0.0, 0.0, 0.0)
    );
    assert!(whole.over_admitted > 100.0, "{whole:?}");
    assert!(whole.over_admitted_10s > 10.0, "{whole:?}");
    assert!(even.false_rejected > 0.1, "{even:?}");
    assert!(whole.goodput > even.goodput);
}

#[test]
fn the_oracle_denies_nothing_falsely_and_is_beaten_by_nobody_who_keeps_to_the_contracts() {
    for seed in 1..=5 {
        let scenario = scenario(seed, 0.0, 0);
        let oracle = figures(PolicyName::Oracle, &scenario);
        assert_eq!((oracle.false_rejected, oracle.over_admitted), (0.0, 0.0));
        assert!(
            oracle.goodput < 0.95,
            "there is something to deny: {oracle:?}"
        );
        for policy in [PolicyName::EvenSplit, PolicyName::Rpc] {
            let figures = figures(policy, &scenario);
            assert_eq!(figures.over_admitted, 0.0, "{policy}, seed {seed}");
            // The last requests are decided in the middle a moment later, when a little more has flowed in.
            let late = 2.0 / scenario.arrivals.len() as f64;
            assert!(
                figures.goodput <= oracle.goodput + late,
                "{policy}, seed {seed}: {figures:?}"
            );
        }
    }
}

#[test]
fn a_central_bucket_decides_as_the_oracle_and_everybody_waits_for_both_ways() {
    let scenario = scenario(2, 0.0, 0);
    let rpc = figures(PolicyName::Rpc, &scenario);
    let oracle = figures(PolicyName::Oracle, &scenario);
    assert!(
        (rpc.goodput - oracle.goodput).abs() < 1e-3,
        "{rpc:?} {oracle:?}"
    );
    assert_eq!((rpc.waited, rpc.wait_ms), (1.0, 2.0));
    assert!((rpc.messages_per_request - 2.0).abs() < 0.01, "{rpc:?}");
}

#[test]
fn a_service_that_cannot_be_reached_admits_everything() {
    let scenario = scenario(3, 0.0, SECONDS);
    let rpc = figures(PolicyName::Rpc, &scenario);
    assert!(rpc.over_admitted > 0.0, "{rpc:?}");
    assert!(rpc.wait_ms > 2.0 && rpc.wait_ms <= 20.0, "{rpc:?}");
}

#[test]
fn a_reserve_takes_back_what_an_even_split_denies_at_the_price_of_messages() {
    let without = figures(PolicyName::EvenSplit, &scenario(4, 0.0, 0));
    let with = figures(PolicyName::EvenSplit, &scenario(4, 0.5, 0));
    assert!(with.goodput > without.goodput + 0.1, "{with:?} {without:?}");
    assert_eq!(
        (with.over_admitted, without.messages_per_request),
        (0.0, 0.0)
    );
    assert!(
        with.messages_per_request > 0.1 && with.waited > 0.05,
        "{with:?}"
    );
}

#[test]
fn rare_reports_are_old_and_cost_few_messages() {
    let of = |policy| figures(policy, &scenario(5, 0.0, 0));
    let (five, one) = (of(PolicyName::Rlqs5s), of(PolicyName::Rlqs1s));
    assert!((2_000.0..3_000.0).contains(&five.staleness_ms), "{five:?}");
    assert!((400.0..600.0).contains(&one.staleness_ms), "{one:?}");
    assert!(one.messages_per_request > 4.0 * five.messages_per_request);
}

#[test]
fn a_reject_rate_holds_the_mean_and_not_the_bursts() {
    let scenario = scenario(6, 0.0, 0);
    let reported = figures(PolicyName::Report100ms, &scenario);
    let oracle = figures(PolicyName::Oracle, &scenario);
    assert!(reported.over_admitted > 0.0, "{reported:?}");
    assert!(
        (reported.goodput - oracle.goodput).abs() < 0.03,
        "{reported:?} {oracle:?}"
    );
}

#[test]
fn a_policy_that_there_is_not_is_named_with_those_that_there_are() {
    let error = "best".parse::<PolicyName>().unwrap_err().to_string();
    assert!(
        error.contains("`best`") && error.contains("forebay, oracle, even_split"),
        "{error}"
    );
    for policy in PolicyName::ALL {
        assert_eq!(policy.name().parse::<PolicyName>().unwrap(), policy);
    }
}
