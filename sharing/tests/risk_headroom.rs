//! Headroom: what scores lead to in the next cycle, and what they never do.

mod fleet;

use fleet::{Fleet, REACH, RESOURCE, STEP_S, TWO_WEEKS};
use forebay_core::resource::PerResource;
use forebay_sharing::risk::{
    Dependence, Extra, History, Interval, Pair, Protect, Question, Rules, Shares, add_headroom,
    headroom, largest_pairs, links, residuals,
};
use forebay_sharing::{Customer, allocate};

fn pair(from: usize, to: usize, score: f64, magnitude_per_s: f64) -> Pair {
    Pair {
        from,
        to,
        likelihood: score,
        likelihood_interval: Interval::default(),
        p_value: 0.0,
        usual: 0.0,
        magnitude_per_s,
        magnitude_interval: Interval::default(),
        score,
        score_interval: Interval::default(),
        shares: Shares::default(),
    }
}

fn given(extras: &[Extra]) -> Vec<(usize, f64)> {
    extras
        .iter()
        .map(|extra| (extra.customer, extra.per_s))
        .collect()
}

const RULES: Rules = Rules {
    threshold: 0.1,
    protect: Protect::Impacted,
    ttl_s: 600.0,
};

#[test]
fn the_highest_scores_above_the_threshold_are_served_first_with_what_is_left() {
    let pairs = [
        pair(0, 1, 0.3, 50.0),
        pair(0, 2, 0.5, 40.0),
        pair(3, 1, 0.2, 80.0),
        pair(3, 4, 0.1, 10.0),
    ];
    // Who is hit by two spikes is given for the worse of them.
    assert_eq!(
        given(&headroom(&pairs, &RULES, 1000.0, 0.0)),
        [(2, 40.0), (1, 80.0)]
    );
    assert_eq!(
        given(&headroom(&pairs, &RULES, 100.0, 0.0)),
        [(2, 40.0), (1, 60.0)]
    );
    assert_eq!(given(&headroom(&pairs, &RULES, 0.0, 0.0)), []);
    assert_eq!(given(&headroom(&pairs, &RULES, f64::NAN, 0.0)), []);
    let fed = Rules {
        protect: Protect::FeedSpiker,
        ..RULES
    };
    assert_eq!(
        given(&headroom(&pairs, &fed, 1000.0, 0.0)),
        [(0, 50.0), (3, 80.0)]
    );
    let because: Vec<_> = headroom(&pairs, &RULES, 1000.0, 0.0)
        .iter()
        .map(|extra| extra.because)
        .collect();
    assert_eq!(because, [(0, 2), (0, 1)]);
}

#[test]
fn headroom_ends_by_itself() {
    let demand = Fleet::planted(6, 1).demand(2000, false, 1);
    let mut customers = fleet::customers(&demand);
    let extras = headroom(&[pair(0, 1, 0.3, 50.0)], &RULES, 1000.0, 100.0);
    let held = |customers: &[Customer]| *customers[1].headroom_per_s.at(RESOURCE);
    add_headroom(&extras, RESOURCE, 699.0, &mut customers);
    assert_eq!(held(&customers), 50.0);
    add_headroom(&extras, RESOURCE, 699.0, &mut customers);
    assert_eq!(held(&customers), 50.0);
    add_headroom(&extras, RESOURCE, 700.0, &mut customers);
    assert_eq!(held(&customers), 0.0);
}

/// Scores of a fleet after two weeks, and the same customers with the headroom that follows.
fn with_headroom(seed: u64) -> (f64, Vec<Customer>, Vec<Customer>, Vec<Vec<f32>>) {
    let fleet = Fleet::planted(24, seed);
    let usage = fleet.demand(TWO_WEEKS, true, seed + 100);
    let residuals = residuals(&History {
        step_s: STEP_S,
        first_s: 0,
        usage: &usage,
        events: &[],
    });
    let links = links(&residuals, REACH, seed);
    let dependence = Dependence::of(&residuals, &links, REACH);
    let future = fleet.demand(60 * fleet::DAY, false, seed + 200);
    let customers = fleet::customers(&future);
    let capacity_per_s = fleet::medians(&customers) * 1.1;
    let question = Question {
        resource: RESOURCE,
        capacity_per_s: &PerResource::only_first(capacity_per_s),
        customers: &customers,
        groups: &[],
        settings: &fleet::settings(),
        dependence: &dependence,
    };
    let pairs = largest_pairs(&question, 1000, seed);
    let rules = Rules {
        threshold: 0.005,
        ..RULES
    };
    let mut raised = customers.clone();
    let extras = headroom(&pairs, &rules, capacity_per_s * 0.1, 0.0);
    add_headroom(&extras, RESOURCE, 1.0, &mut raised);
    // Headroom does not argue itself away.
    let again = Question {
        customers: &raised,
        ..question
    };
    assert_eq!(largest_pairs(&again, 1000, seed), pairs);
    (capacity_per_s, customers, raised, future)
}

#[test]
fn headroom_leaves_those_whom_it_protects_less_short_and_takes_nobodys_guarantee() {
    for seed in 1..=4 {
        let (capacity_per_s, before, after, future) = with_headroom(seed);
        let allocated = |customers: &[Customer]| -> Vec<f64> {
            let allocation = allocate(
                &PerResource::only_first(capacity_per_s),
                customers,
                &[],
                &fleet::settings(),
            );
            let parts = allocation.parts.iter();
            parts
                .map(|parts| parts.at(RESOURCE).allocated_per_s())
                .collect()
        };
        let protected: Vec<usize> = (0..after.len())
            .filter(|customer| *after[*customer].headroom_per_s.at(RESOURCE) > 0.0)
            .collect();
        assert!(!protected.is_empty());
        let (without, with) = (allocated(&before), allocated(&after));
        for (customer, with) in after.iter().zip(&with) {
            let guarantee = customer.terms.at(RESOURCE).guarantee_per_s;
            let needed = customer.outlook.at(RESOURCE).quantiles_per_s[2];
            assert!(*with >= guarantee.min(needed) - 1e-6);
        }
        for customer in &protected {
            assert!(with[*customer] > without[*customer]);
        }
        let short = |customers: &[Customer]| -> (f64, f64) {
            let all = fleet::shortages(capacity_per_s, customers, &future);
            let of = |customer: usize| all[customer].iter().sum::<f64>();
            let every: f64 = (0..all.len()).map(of).sum();
            (protected.iter().map(|customer| of(*customer)).sum(), every)
        };
        let ((before_protected, before_all), (after_protected, after_all)) =
            (short(&before), short(&after));
        println!(
            "seed {seed}: {} protected, short of {:.3} of what they were, all of {:.3}",
            protected.len(),
            after_protected / before_protected,
            after_all / before_all
        );
        assert!(after_protected < 0.7 * before_protected);
    }
}
