//! Two policies on one record.

use super::*;
use crate::SimulationError;
use forebay_core::policy::Tier;
use forebay_sharing::{Lend, Outlook, Settings, Terms};

const CYCLE_S: u32 = 60;
const STEPS: usize = 40;

/// Tier 2, with a burst of two seconds.
pub(super) fn member(rate_per_s: f64, guarantee_per_s: f64) -> Member {
    Member {
        tier: Tier::Two,
        priority: 0,
        weight: 1.0,
        group: None,
        terms: Terms {
            guarantee_per_s,
            rate_per_s,
            ceiling_per_s: rate_per_s,
            lend: Lend::Auto,
        },
        burst: 2.0 * rate_per_s,
        borrow_depth: 0.0,
        refused_until_s: 0,
        is_exempt: false,
    }
}

fn side(capacity_per_s: f64, members: Vec<Member>) -> Side {
    Side {
        pool: Some(Pool {
            capacity_per_s,
            depth: capacity_per_s,
            protected_share: 0.5,
            claimed_quantile: Some(0.9),
        }),
        division: Some(Division {
            settings: Settings {
                interval_s: f64::from(CYCLE_S),
                ..Settings::default()
            },
            groups: Vec::new(),
        }),
        cycle_s: CYCLE_S,
        members,
    }
}

/// So much per second of each customer, in steps of a minute.
fn steady(per_s: &[f64]) -> Usage {
    let steps = per_s.iter().map(|per_s| vec![60.0 * per_s; STEPS]);
    Usage::new(60, steps.collect()).unwrap()
}

/// What was asked for in the cycle before.
fn outlooks(usage: &Usage) -> Vec<Vec<Outlook>> {
    let usage = usage.per_cycle(CYCLE_S).unwrap();
    (0..STEPS)
        .map(|cycle| {
            let last = |of: &Vec<f64>| cycle.checked_sub(1).map_or(0.0, |last| of[last]);
            usage
                .iter()
                .map(|of| Outlook::of_demand(last(of)))
                .collect()
        })
        .collect()
}

fn compared(usage: &Usage, old: &Side, new: &Side, seed: u64) -> [Outcome; 2] {
    let outlooks = outlooks(usage);
    let told = |side| Told {
        side,
        outlooks: &outlooks,
    };
    compare(usage, [told(old), told(new)], seed)
}

/// Three who ask for 60 each, of a pool of 100.
fn three(guarantee_per_s: f64) -> Side {
    side(
        100.0,
        vec![
            member(80.0, guarantee_per_s),
            member(80.0, 10.0),
            member(80.0, 10.0),
        ],
    )
}

#[test]
fn a_policy_against_itself_changes_nothing_and_all_that_was_asked_for_is_accounted_for() {
    let usage = steady(&[60.0, 60.0, 60.0]);
    let [old, new] = compared(&usage, &three(10.0), &three(10.0), 1);
    assert_eq!(old, new);
    let total = old.total();
    assert!((total.asked / (180.0 * 60.0 * STEPS as f64) - 1.0).abs() < 1e-6);
    let all = total.admitted + total.denied_by_contract + total.denied_by_pool + total.refused;
    assert!((all / total.asked - 1.0).abs() < 1e-9, "{total:?}");
    assert!(total.admitted <= 100.0 * (usage.seconds() + 1) as f64);
    assert!(total.denied_by_pool > 0.2 * total.asked, "{total:?}");
}

#[test]
fn a_raised_guarantee_admits_more_for_its_owner_under_shortage_and_the_others_pay() {
    let usage = steady(&[60.0, 60.0, 60.0]);
    let [old, new] = compared(&usage, &three(10.0), &three(55.0), 1);
    let change = |customer: usize| new.tallies[customer].admitted - old.tallies[customer].admitted;
    assert!(change(0) > 0.1 * old.tallies[0].asked, "{}", change(0));
    assert!(change(1) < 0.0 && change(2) < 0.0);
    let paid = -(change(1) + change(2));
    assert!(
        (change(0) / paid - 1.0).abs() < 0.1,
        "{} of {paid}",
        change(0)
    );
}

#[test]
fn an_idle_guarantee_is_lent_to_who_asks_and_a_lend_limit_ends_that() {
    let usage = steady(&[0.0, 90.0]);
    let lends = |lend| {
        let mut lender = member(80.0, 60.0);
        lender.terms.lend = lend;
        side(100.0, vec![lender, member(95.0, 10.0)])
    };
    let [all, none] = compared(&usage, &lends(Lend::Auto), &lends(Lend::Never), 1);
    let loan = all.loans[0];
    assert_eq!((loan.lender, loan.borrower), (0, 1));
    assert!(loan.token_seconds > 0.0);
    assert!((loan.token_seconds - all.tallies[0].lent).abs() < 1e-6 * loan.token_seconds);
    assert!((loan.token_seconds - all.tallies[1].borrowed).abs() < 1e-6 * loan.token_seconds);
    assert!(none.loans.is_empty(), "{:?}", none.loans);
}

#[test]
fn who_is_refused_has_nothing_until_then_and_who_is_exempt_has_all() {
    let usage = steady(&[10.0, 10.0]);
    let mut refused = member(20.0, 5.0);
    refused.refused_until_s = 600;
    let mut exempt = member(1.0, 0.0);
    exempt.is_exempt = true;
    let plain = side(100.0, vec![member(20.0, 5.0), member(1.0, 0.0)]);
    let other = side(100.0, vec![refused, exempt]);
    let [old, new] = compared(&usage, &plain, &other, 1);
    assert_eq!(old.tallies[0].refused, 0.0);
    let refused = new.tallies[0].refused;
    assert!((refused - 6_000.0).abs() < 0.1, "{refused}");
    assert!(old.tallies[1].denied_by_contract > 0.8 * old.tallies[1].asked);
    assert_eq!(new.tallies[1].admitted, new.tallies[1].asked);
    // What is refused is denied for that and for nothing else.
    for tally in &new.tallies {
        let all = tally.admitted + tally.denied_by_contract + tally.denied_by_pool + tally.refused;
        assert!((all / tally.asked - 1.0).abs() < 1e-9, "{tally:?}");
    }
}

#[test]
fn a_guarantee_is_kept_by_its_credit_where_nothing_is_allocated() {
    let usage = steady(&[8.0, 79.0, 79.0]);
    let unclaimed = |guarantee_per_s| {
        let mut side = three(guarantee_per_s);
        side.division = None;
        let pool = side.pool.as_mut().unwrap();
        pool.claimed_quantile = None;
        side
    };
    let [none, kept] = compared(&usage, &unclaimed(0.0), &unclaimed(60.0), 1);
    assert!(none.tallies[0].denied_by_pool > 0.02 * none.tallies[0].asked);
    assert!(kept.tallies[0].denied_by_pool < 0.1 * none.tallies[0].denied_by_pool);
    assert_eq!(kept.tallies[0].guarantee_missed_s, 0);
}

#[test]
fn without_a_pool_contracts_alone_decide_and_without_a_division_forecasts_claim() {
    let usage = steady(&[60.0, 60.0, 60.0]);
    let mut without_pool = three(10.0);
    without_pool.pool = None;
    let mut undivided = three(10.0);
    undivided.division = None;
    let [pool_gone, divided_not] = compared(&usage, &without_pool, &undivided, 1);
    assert_eq!(pool_gone.total().denied_by_pool, 0.0);
    assert!(divided_not.total().denied_by_pool > 0.0);
    assert_eq!(divided_not.total().lent, 0.0);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let usage = steady(&[60.0, 3.0, 0.02]);
    let text = |seed| format!("{:?}", compared(&usage, &three(10.0), &three(20.0), seed));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

/// The same record, as it would have been measured.
fn stepwise(usage: &[Vec<f64>], sides: [Side; 2], from: usize) -> Stepwise {
    let outlooks = outlooks(&Usage::new(60, usage.to_vec()).unwrap());
    let all = sides.clone().map(|side| side.members);
    let first = sides.map(|mut side| {
        side.members.truncate(from);
        side
    });
    let mut stepwise = Stepwise::new(first, 60, 7).unwrap();
    for customer in from..usage.len() {
        stepwise
            .add(all.each_ref().map(|members| members[customer].clone()))
            .unwrap();
    }
    for (step, outlooks) in outlooks.iter().enumerate() {
        let asked: Vec<f64> = usage.iter().map(|of| of[step]).collect();
        stepwise.step(&asked, [outlooks, outlooks]);
    }
    stepwise
}

#[test]
fn step_by_step_comes_to_what_the_whole_record_comes_to_whenever_customers_are_added() {
    let usage: Vec<Vec<f64>> = [60.0, 3.0, 90.0]
        .iter()
        .map(|per_s| {
            (0..STEPS)
                .map(|step| per_s * (step % 7) as f64 * 20.0)
                .collect()
        })
        .collect();
    let sides = || [three(10.0), three(30.0)];
    let whole = Usage::new(60, usage.clone()).unwrap();
    let expected = compared(&whole, &sides()[0], &sides()[1], 7);
    for from in [0, 1, 3] {
        assert_eq!(
            stepwise(&usage, sides(), from).outcomes(),
            expected,
            "{from}"
        );
    }
    assert_ne!(expected[0], expected[1]);
}

#[test]
fn a_customer_is_treated_otherwise_from_a_step_on() {
    let mut both = Stepwise::new([three(10.0), three(10.0)], 60, 1).unwrap();
    let asked = [60.0, 60.0, 60.0];
    both.step(&asked, [&[], &[]]);
    let refused = Standing {
        is_refused: true,
        is_exempt: false,
    };
    both.treat(0, [Standing::default(), refused]);
    both.step(&asked, [&[], &[]]);
    both.treat(0, [Standing::default(), Standing::default()]);
    both.step(&asked, [&[], &[]]);
    let [old, new] = both.outcomes();
    assert_eq!(old.tallies[0].refused, 0.0);
    assert!((new.tallies[0].refused - 60.0).abs() < 1e-3);
    assert!((new.tallies[0].asked - 180.0).abs() < 1e-3);
}

#[test]
fn what_is_no_amount_counts_as_nothing_and_there_is_an_end_to_customers() {
    let mut both = Stepwise::new([three(10.0), three(10.0)], 60, 1).unwrap();
    both.step(&[f64::NAN, -5.0, f64::INFINITY], [&[], &[]]);
    both.step(&[1.0], [&[], &[]]);
    assert!((both.outcomes()[0].total().asked - 1.0).abs() < 1e-6);
    while both.customers() < CUSTOMERS_MOST {
        both.add([member(1.0, 0.0), member(1.0, 0.0)]).unwrap();
    }
    let error = both.add([member(1.0, 0.0), member(1.0, 0.0)]).unwrap_err();
    assert!(matches!(error, SimulationError::TooLarge { .. }), "{error}");
    assert!(Stepwise::new([three(1.0), three(1.0)], 0, 1).is_err());
}

#[test]
fn a_cycle_has_the_mean_of_the_steps_in_it_and_gaps_are_no_zeros() {
    let gap = f64::NAN;
    let usage = Usage::new(60, vec![vec![60.0, 180.0, gap, 30.0, gap], vec![6.0]]).unwrap();
    let cycles = usage.per_cycle(90).unwrap();
    assert_eq!(cycles[0][0], (60.0 + 90.0) / 90.0);
    assert_eq!(cycles[0][1], 3.0, "30 s of the second step, and a gap");
    assert_eq!(cycles[0][2], 0.5);
    assert!(cycles[0][3].is_nan() && cycles[1][1].is_nan());
    assert_eq!(cycles[1][0], 0.1);
}

#[test]
fn what_is_too_much_or_no_usage_is_refused_before_any_work() {
    let refused = |step_s, customers, steps| {
        Usage::check(step_s, customers, steps)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(0, 1, 1).contains("a step of 0 s"));
    assert!(refused(7_200, 1, 1).contains("a step of 7200 s"));
    assert!(refused(1, 10_001, 1).contains("10001 customers"));
    assert!(refused(60, 1, 1_000_000).contains("--seconds"));
    assert!(refused(60, 10_000, 10_000).contains("customers' seconds"));
    assert!(refused(1, 500, 1_000_000).contains("customers' steps"));
    for amount in [-1.0, f64::INFINITY, 1e13] {
        let error = Usage::new(60, vec![vec![0.0], vec![1.0, amount]]).unwrap_err();
        let SimulationError::NotAnAmount { customer, step, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((customer, step), (2, 2));
    }
    let long = Usage::new(3_600, vec![vec![1.0; 700]; 100]).unwrap();
    let error = long.per_cycle(10).unwrap_err().to_string();
    assert!(error.contains("customers' cycles"), "{error}");
}
