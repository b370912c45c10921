//! What holds of every policy.

use super::run::drive;
use super::*;
use crate::random::Random;
use forebay_sharing::{Outlook, Settings};

const MINUTES: usize = 240;

/// Tenants whose demand wanders and jumps, so that a tight pool is often short.
fn tenants() -> Vec<Vec<f64>> {
    let mut random = Random::new(5);
    (0..30)
        .map(|tenant| {
            let mut level = 30.0 * f64::from(1 + tenant % 7);
            (0..MINUTES)
                .map(|_| {
                    level *= 0.8 + 0.4 * random.uniform();
                    level = level.clamp(5.0, 2_000.0);
                    if random.chance(0.05) {
                        5.0 * level
                    } else {
                        level
                    }
                    .round()
                })
                .collect()
        })
        .collect()
}

pub(super) fn market(seed: u64) -> Market {
    Market::new(&tenants(), 60, 12, seed)
}

pub(super) fn demand_of(market: &Market, seed: u64) -> Demand {
    Demand::new(market, Arrivals::Bursty, MINUTES / 2..MINUTES, 1, seed)
}

/// Forecasts that are wrong in an ordinary way: the last demand, and multiples of it.
pub(super) fn outlooks(demand: &Demand) -> Vec<Vec<Outlook>> {
    (0..demand.cycles())
        .map(|cycle| {
            let last = demand.before(cycle).into_iter();
            last.map(|last| Outlook {
                quantiles_per_s: [last, 1.3 * last, 2.0 * last],
            })
            .collect()
        })
        .collect()
}

fn schemes() -> Vec<Scheme> {
    let settings = Settings::default();
    let with_credits = Settings {
        with_credits: true,
        ..settings
    };
    let rules = [
        Rule::Static,
        Rule::Reactive,
        Rule::ReactiveAboveGuarantees,
        Rule::Quantile(0.9),
        Rule::Borrowing,
        Rule::Ours(View::Forecast, settings),
        Rule::Ours(View::Median, settings),
        Rule::Ours(View::LastDemand, settings),
        Rule::Ours(View::Forecast, with_credits),
    ];
    let with = |rule, reserve_share, has_credit| Scheme {
        rule,
        reserve_share,
        has_credit,
    };
    rules
        .into_iter()
        .flat_map(|rule| [with(rule, 0.25, false), with(rule, 0.0, true)])
        .collect()
}

/// Every way to decide that keeps to the pool, with its name.
fn each_guarded(
    market: &Market,
    demand: &Demand,
    capacity_per_s: f64,
    mut see: impl FnMut(String, Decider<'_>),
) {
    for name in [
        CentralName::Oracle,
        CentralName::Counter,
        CentralName::CounterWithGuarantees,
    ] {
        see(format!("{name:?}"), Decider::Central(name));
    }
    let outlooks = outlooks(demand);
    for scheme in schemes() {
        let plan = Plan::new(scheme, market, demand, &outlooks, capacity_per_s);
        for mechanism in Mechanism::ALL {
            see(
                format!("{mechanism:?} {scheme:?}"),
                Decider::Allocated(mechanism, &plan),
            );
        }
    }
}

#[test]
fn no_policy_admits_more_than_the_pool_has_in_any_sub_step() {
    let market = market(1);
    let demand = demand_of(&market, 1);
    for times in [0.4, 0.9, 1.35] {
        let capacity = times * market.mean_per_s;
        each_guarded(&market, &demand, capacity, |name, decider| {
            let mut level = capacity;
            let mut short = 0;
            drive(
                &market,
                &demand,
                capacity,
                decider,
                |asked, denied, served| {
                    let sum: f64 = asked.iter().map(|asked| f64::from(*asked)).sum();
                    if served.is_short {
                        short += 1;
                        let admitted = sum - denied.iter().sum::<f64>();
                        assert!((admitted - served.admitted).abs() < 1e-6, "{name}");
                        let mut all = asked.iter().zip(denied);
                        assert!(
                            all.all(|(asked, denied)| (-1e-9..=f64::from(*asked) + 1e-9)
                                .contains(denied)),
                            "{name}"
                        );
                    } else {
                        assert!((sum - served.admitted).abs() < 1e-6, "{name}");
                    }
                    let available = level + capacity;
                    assert!(
                        served.admitted <= available * (1.0 + 1e-9),
                        "{name}: {} of {available}",
                        served.admitted
                    );
                    level = (available - served.admitted).clamp(0.0, capacity);
                },
            );
            assert!(times > 1.0 || short > 100, "{name} was short {short} times");
        });
    }
}

#[test]
fn no_policy_admits_more_than_the_oracle() {
    for seed in 1..=3 {
        let market = market(seed);
        let demand = demand_of(&market, seed);
        let capacity = 0.8 * market.mean_per_s;
        let oracle = run(
            &market,
            &demand,
            capacity,
            Decider::Central(CentralName::Oracle),
        );
        assert!(oracle.goodput < 0.95, "{oracle:?}");
        each_guarded(&market, &demand, capacity, |name, decider| {
            let figures = run(&market, &demand, capacity, decider);
            assert!(
                figures.goodput <= oracle.goodput + 1e-9,
                "{name}: {figures:?}"
            );
            assert_eq!(figures.over_admitted, 0.0, "{name}");
        });
        let plain = run(
            &market,
            &demand,
            capacity,
            Decider::Central(CentralName::Plain),
        );
        assert!(plain.over_admitted > 0.05, "{plain:?}");
        assert!((plain.goodput - oracle.goodput).abs() < 1e-9, "{plain:?}");
    }
}

#[test]
fn what_comes_later_moves_no_allocation() {
    let market = market(2);
    let capacity = 0.9 * market.mean_per_s;
    // From the 13th scored cycle on everything is different.
    let changed = 12;
    let spike = |tier| Spike {
        tier,
        factor: 3.0,
        from_minute: MINUTES / 2 + changed * CYCLE_MINUTES,
        minutes: MINUTES,
    };
    let mut other = market.clone();
    for tier in [
        forebay_core::policy::Tier::One,
        forebay_core::policy::Tier::Three,
    ] {
        other = other.with_spike(&spike(tier));
    }
    for (buyer, was) in other.buyers.iter_mut().zip(&market.buyers) {
        buyer.contract_per_s = was.contract_per_s;
    }
    let (now, later) = (demand_of(&market, 2), demand_of(&other, 2));
    assert_ne!(now, later);
    for scheme in schemes() {
        let plan = |market, demand: &Demand| {
            Plan::new(scheme, market, demand, &outlooks(demand), capacity)
        };
        let (one, two) = (plan(&market, &now), plan(&other, &later));
        for cycle in 0..=changed {
            assert_eq!(
                one.claims(cycle),
                two.claims(cycle),
                "{scheme:?} in {cycle}"
            );
        }
        if scheme.rule != Rule::Static {
            let differs = |cycle| one.claims(cycle) != two.claims(cycle);
            assert!((changed + 1..now.cycles()).any(differs), "{scheme:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let all = |seed| {
        let market = market(seed);
        let demand = demand_of(&market, seed);
        let mut text = String::new();
        each_guarded(&market, &demand, market.mean_per_s, |name, decider| {
            let figures = run(&market, &demand, market.mean_per_s, decider);
            text += &format!("{name} {figures:?}\n");
        });
        text
    };
    assert_eq!(all(9), all(9));
    assert_ne!(all(9), all(10));
}

#[test]
fn a_credit_of_the_guarantee_is_never_missed_and_its_absence_is() {
    let market = market(4);
    let demand = demand_of(&market, 4);
    let capacity = 0.7 * market.mean_per_s;
    let missed = |has_credit| {
        let scheme = Scheme {
            rule: Rule::Reactive,
            reserve_share: 0.25,
            has_credit,
        };
        let plan = Plan::new(scheme, &market, &demand, &outlooks(&demand), capacity);
        let decider = Decider::Allocated(Mechanism::Claims, &plan);
        run(&market, &demand, capacity, decider).guarantee_missed_steady
    };
    assert_eq!(missed(true), 0.0);
    assert!(missed(false) > 0.001, "{}", missed(false));
}
