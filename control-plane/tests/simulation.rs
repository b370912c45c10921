//! The real control plane in simulated fleets: it keeps to the contracts whatever goes wrong, and gets over it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

use forebay_control_plane::plane::Settings;
use forebay_control_plane::simulated::SimulatedPlane;
use forebay_sharing::Law;
use forebay_simulator::{
    Arrival, Comparison, Contract, Coordinator, Demand, Fault, Figures, PolicyName, Scenario,
    SimulationError, Trace,
};

const US_PER_S: u64 = 1_000_000;

/// A lease and its fallback end within a run.
const SETTINGS: Settings = Settings {
    lease_ttl_ms: 2_000,
    fallback_ttl_ms: 4_000,
    sync_interval_ms: 250,
    step_ms: 60_000,
    history_steps: 16,
    max_other_customers: 1,
    audit_keep: 1,
};

/// Two sync intervals, after the last lease and its fallback: in seconds, rounded up.
const SETTLED_AFTER_S: u64 = 8;

fn coordinator(
    scenario: &Scenario,
    law: &'static dyn Law,
) -> Result<Box<dyn Coordinator>, SimulationError> {
    Ok(Box::new(SimulatedPlane::new(scenario, SETTINGS, law)?))
}

/// Three tenants, one of which asks for three times as much in the second half as in the first.
fn trace(seconds: u64) -> Trace {
    let steady = |per_s: f64| vec![per_s; usize::try_from(seconds).unwrap()];
    let growing = (0..seconds).map(|second| if second < seconds / 2 { 20.0 } else { 60.0 });
    Trace {
        tenants: ["acme", "bolt", "cord"].map(str::to_owned).to_vec(),
        demand: Demand::Counts {
            step_us: US_PER_S,
            counts: vec![steady(30.0), steady(6.0), growing.collect()],
        },
        length_us: seconds * US_PER_S,
    }
}

fn settings(gateways: usize, faults_until_s: u64) -> forebay_simulator::Settings {
    forebay_simulator::Settings {
        gateways,
        capacity: 1.35,
        reserve: 0.0,
        faults_until_us: faults_until_s * US_PER_S,
    }
}

fn run(policy: PolicyName, scenario: &Scenario) -> (Figures, Vec<bool>) {
    let record = policy
        .run(scenario, &coordinator)
        .unwrap_or_else(|error| panic!("seed {}: {error}", scenario.seed));
    let admitted = (0..scenario.arrivals.len()).map(|index| record.is_admitted(index));
    (Figures::of(scenario, &record), admitted.collect())
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let compare = |seeds: &[u64]| {
        let settings = forebay_simulator::Settings {
            reserve: 0.25,
            ..settings(4, 30)
        };
        let all = PolicyName::ALL;
        let compared = Comparison::new(&trace(30), settings, &all, seeds, &coordinator).unwrap();
        let json = serde_json::to_string(&compared.fields()).unwrap();
        (json, compared.csv())
    };
    let first = compare(&[3, 4]);
    assert_eq!(first, compare(&[3, 4]));
    assert_ne!(first, compare(&[3, 5]));
}

#[test]
fn whatever_goes_wrong_the_fleet_admits_no_more_than_the_contracts() {
    let trace = trace(24);
    let (mut faults, mut used) = (0, 0.0);
    for seed in 1..=200 {
        // Every token is asked for, wherever it lies: one too many would be spent.
        let settings = forebay_simulator::Settings {
            capacity: 0.25,
            ..settings(4, 24)
        };
        let scenario = Scenario::new(&trace, settings, seed);
        faults += scenario.faults.len();
        let (figures, _) = run(PolicyName::Forebay, &scenario);
        assert!(
            figures.over_admitted == 0.0
                && figures.over_admitted_1s == 0.0
                && figures.over_admitted_10s == 0.0,
            "seed {seed}: {figures:?} after {:?}",
            scenario.faults
        );
        used += figures.goodput / run(PolicyName::Oracle, &scenario).0.goodput / 200.0;
    }
    assert!(faults > 1_000, "{faults} faults in all runs");
    assert!(
        used > 0.5,
        "{used} of what the contracts allow was admitted"
    );
}

#[test]
fn when_faults_are_over_the_fleet_serves_no_less_than_without_any() {
    let trace = trace(50);
    let faults_until_s = 24;
    let (seeds, mut lost) = (12, 0.0);
    for seed in 1..=seeds {
        let with_faults = Scenario::new(&trace, settings(4, faults_until_s), seed);
        let without = Scenario::new(&trace, settings(4, 0), seed);
        assert!(!with_faults.faults.is_empty(), "seed {seed}");
        let settled_at = without
            .demand_starts
            .plus_us((faults_until_s + SETTLED_AFTER_S) * US_PER_S);
        let late = |scenario: &Scenario| {
            let (_, admitted) = run(PolicyName::Forebay, scenario);
            let arrivals = scenario.arrivals.iter().zip(admitted);
            let late: Vec<bool> = arrivals
                .filter(|(arrival, _)| arrival.at >= settled_at)
                .map(|(_, is_admitted)| is_admitted)
                .collect();
            let admitted = late.iter().filter(|is_admitted| **is_admitted).count();
            (late.len(), admitted as f64 / late.len() as f64)
        };
        let (recovered, undisturbed) = (late(&with_faults), late(&without));
        assert_eq!(recovered.0, undisturbed.0, "seed {seed}: the same requests");
        // Where tokens lie differs afterwards, and what chance brings there; and what an unclean stop has stranded is missing for as long as
        // more is asked for than flows. Over 48 seeds the difference is 0.000 in the mean, its deviation 0.017.
        assert!(
            recovered.1 > undisturbed.1 - 0.085,
            "seed {seed}: {recovered:?} after faults, {undisturbed:?} without"
        );
        lost += (undisturbed.1 - recovered.1) / seeds as f64;
    }
    assert!(lost < 0.01, "{lost} more was denied than without faults");
}

#[test]
fn nothing_that_keeps_to_the_contracts_admits_more_than_the_oracle() {
    let trace = trace(30);
    for seed in 1..=3 {
        let scenario = Scenario::new(&trace, settings(5, 0), seed);
        let (oracle, _) = run(PolicyName::Oracle, &scenario);
        assert_eq!((oracle.over_admitted, oracle.false_rejected), (0.0, 0.0));
        for policy in [PolicyName::Forebay, PolicyName::Reactive] {
            let (figures, _) = run(policy, &scenario);
            assert_eq!(figures.over_admitted, 0.0, "{policy}, seed {seed}");
            assert!(
                figures.goodput <= oracle.goodput,
                "{policy}, seed {seed}: {} above {}",
                figures.goodput,
                oracle.goodput
            );
        }
    }
}

#[test]
fn a_server_that_forgets_the_fleet_when_it_is_killed_is_found_out() {
    /// A control plane with an empty store after each restart.
    struct Forgetful {
        plane: SimulatedPlane,
        scenario: Scenario,
        law: &'static dyn Law,
    }

    impl Coordinator for Forgetful {
        fn key_fingerprint(&self) -> u64 {
            self.plane.key_fingerprint()
        }

        fn hash(&self, tenant: &str) -> forebay_core::CustomerHash {
            self.plane.hash(tenant)
        }

        fn sync(
            &mut self,
            request: forebay_wire::sync::SyncRequest,
            now: forebay_core::TimeUs,
        ) -> Result<forebay_wire::sync::SyncReply, SimulationError> {
            self.plane.sync(request, now)
        }

        fn restart(&mut self, _: bool, _: forebay_core::TimeUs) -> Result<(), SimulationError> {
            self.plane = SimulatedPlane::new(&self.scenario, SETTINGS, self.law)?;
            Ok(())
        }
    }

    let trace = trace(40);
    let over_admitted: f64 = (1..=10)
        .map(|seed| {
            let mut scenario = Scenario::new(&trace, settings(4, 40), seed);
            let stops =
                |(_, fault): &(_, Fault)| matches!(fault, Fault::Stop | Fault::Start { .. });
            scenario.faults.retain(stops);
            let forgetful = |scenario: &Scenario, law: &'static dyn Law| {
                let plane = SimulatedPlane::new(scenario, SETTINGS, law)?;
                let scenario = scenario.clone();
                let forgetful = Forgetful {
                    plane,
                    scenario,
                    law,
                };
                Ok(Box::new(forgetful) as Box<dyn Coordinator>)
            };
            let record = PolicyName::Forebay.run(&scenario, &forgetful).unwrap();
            Figures::of(&scenario, &record).over_admitted
        })
        .sum();
    assert!(over_admitted > 0.0);
}

/// One tenant with so many thousandths of a token per second and twice that at once, whose requests come evenly: in each phase, how long it
/// is in seconds and how many come to each gateway in a second.
fn phases(rate_milli_per_s: u64, phases: &[(u64, &[u64])]) -> Scenario {
    let length_s: u64 = phases.iter().map(|(seconds, _)| seconds).sum();
    let gateways = phases.first().map_or(0, |(_, per_s)| per_s.len());
    let trace = Trace {
        tenants: vec!["acme".to_owned()],
        demand: Demand::Counts {
            step_us: US_PER_S,
            counts: vec![vec![0.0; usize::try_from(length_s).unwrap()]],
        },
        length_us: length_s * US_PER_S,
    };
    let mut scenario = Scenario::new(&trace, settings(gateways, 0), 1);
    scenario.contracts = vec![Contract { rate_milli_per_s }];
    let mut from = scenario.demand_starts;
    for (seconds, per_s) in phases {
        for (gateway, per_s) in per_s.iter().enumerate() {
            for number in 0..*seconds * *per_s {
                let at = from.plus_us(number * US_PER_S / *per_s);
                let tenant = 0;
                scenario.arrivals.push(Arrival {
                    at,
                    tenant,
                    gateway,
                });
            }
        }
        from = from.plus_us(*seconds * US_PER_S);
    }
    scenario.arrivals.sort_by_key(|arrival| arrival.at);
    scenario
}

/// What was admitted at each gateway in each second.
fn by_second(scenario: &Scenario) -> Vec<Vec<u64>> {
    let (_, admitted) = run(PolicyName::Forebay, scenario);
    let seconds = scenario.demand_ends.since(scenario.demand_starts) / US_PER_S;
    let mut counts = vec![vec![0; usize::try_from(seconds).unwrap()]; scenario.settings.gateways];
    for (arrival, is_admitted) in scenario.arrivals.iter().zip(admitted) {
        let second = arrival.at.since(scenario.demand_starts) / US_PER_S;
        counts[arrival.gateway][usize::try_from(second).unwrap()] += u64::from(is_admitted);
    }
    counts
}

#[test]
fn gateways_that_ask_for_the_same_get_the_same_whoever_had_it_before() {
    for pause_s in [0, 3, 20] {
        let scenario = phases(
            100_000,
            &[(10, &[0, 120]), (pause_s, &[0, 0]), (10, &[115, 115])],
        );
        let admitted = by_second(&scenario);
        // Two seconds later nothing is left of a bucket that was full at one of them.
        let from = usize::try_from(10 + pause_s + 3).unwrap();
        for second in from..from + 7 {
            let of = |gateway: usize| admitted[gateway][second];
            assert!(of(0).abs_diff(of(1)) <= 10, "{pause_s} s: {admitted:?}");
            assert!(of(0) + of(1) >= 90, "{pause_s} s: {admitted:?}");
        }
    }
}

#[test]
fn gateways_with_little_of_the_traffic_deny_hardly_any_of_it() {
    let scenario = phases(100_000, &[(10, &[70, 2, 2, 2, 2]), (20, &[70, 2, 2, 2, 2])]);
    let admitted = by_second(&scenario);
    for (gateway, by_second) in admitted.iter().enumerate() {
        let sum: u64 = by_second.iter().skip(10).sum();
        let asked = if gateway == 0 { 1_400 } else { 40 };
        assert!(sum >= asked - 1, "gateway {gateway}: {admitted:?}");
    }
}

#[test]
fn a_burst_of_a_token_or_two_is_served_wherever_its_traffic_is() {
    for (rate_milli_per_s, least) in [(500, 4), (1_000, 8), (1_500, 9)] {
        let asked: [(u64, &[u64]); 3] = [(20, &[0, 0, 0]), (20, &[2, 0, 0]), (20, &[0, 2, 0])];
        let admitted = by_second(&phases(rate_milli_per_s, &asked));
        for (gateway, from) in [(0, 30), (1, 50)] {
            let sum: u64 = admitted[gateway].iter().skip(from).take(10).sum();
            assert!(sum >= least, "{rate_milli_per_s}: {admitted:?}");
        }
    }
}
