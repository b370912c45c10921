//! What shadow buckets are for, simulated: five steady customers beside one that spikes, on a pool that cannot serve all.
//!
//! Capacity 1000/s, five steady customers of 180/s, one spiker of 3000/s with a contract of 1000/s and a forecast of 200/s.
//! Arrivals are random with a fixed seed. Each test compares denials that the customer's own contract would have admitted.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::policy::{Limits, Tier};
use forebay_core::{Policy, Rate, Reason, Verdict};
use gateway::{FIRST, Gateway, contract, cost, per_s, policy, splitmix, tokens};

const STEADY: usize = 5;
const SPIKER: usize = 5;
const CAPACITY: u64 = 1_000;
const SECONDS: u64 = 40;
/// What happens before everyone has settled in is not counted.
const WARM_UP_S: u64 = 5;

#[derive(Clone, Copy, Debug)]
enum Protection {
    None,
    Shadow,
    /// What may be protected is handed out once per window of ten seconds, instead of refilling.
    LumpPerWindow,
    /// Shadow buckets whose depths are not scaled down to half of the pool.
    NoHalfDepthRule,
}

#[derive(Clone, Copy, Debug)]
struct Scene {
    protection: Protection,
    /// Demand of each steady customer per second.
    steady_per_s: f64,
    spiker_per_s: f64,
    /// Forecast of each steady customer and of the spiker.
    forecast_per_s: u64,
    spiker_forecast_per_s: u64,
    batch: i64,
    idle_claimants: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Denials per second of each steady customer that its contract would have admitted.
    steady_denied_per_s: f64,
    steady_admitted_per_s: f64,
    spiker_admitted_per_s: f64,
    admitted_per_s: f64,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            protection: Protection::Shadow,
            steady_per_s: 180.0,
            spiker_per_s: 3000.0,
            forecast_per_s: 200,
            spiker_forecast_per_s: 200,
            batch: 1,
            idle_claimants: 0,
        }
    }
}

fn the_policy(enabled: bool) -> Policy {
    let steady = Limits::plain(per_s(250), tokens(250));
    let spiker = Limits::plain(per_s(1000), tokens(1000));
    let contracts = vec![
        contract("steady", Tier::One, &[steady]),
        contract("spiker", Tier::One, &[spiker]),
    ];
    let mut policy = policy(&[Some(CAPACITY)], contracts);
    policy.shadow.enabled = enabled;
    policy
}

/// Writes the forecasts as the forecaster does for contracts of one tier, priority and weight: all depths scaled alike, so that
/// together they stay within half of the pool.
fn forecast(gateway: &mut Gateway, scene: &Scene) {
    let rates: Vec<Rate> = (0..STEADY + 1 + scene.idle_claimants)
        .map(|number| {
            per_s(if number == SPIKER {
                scene.spiker_forecast_per_s
            } else {
                scene.forecast_per_s
            })
        })
        .collect();
    let full_us = gateway.policy.shadow_span_us();
    let span_us = match scene.protection {
        Protection::None | Protection::NoHalfDepthRule => full_us,
        Protection::Shadow | Protection::LumpPerWindow => {
            let sum = rates.iter().fold(Rate::ZERO, |sum, rate| sum.plus(*rate));
            let half = CAPACITY * 1_000_000 / 2 * 1_000_000 / sum.get();
            full_us.min(half as u32)
        }
    };
    let (policy, now, lease) = (
        gateway.policy.clone(),
        gateway.now,
        gateway.ledger.state().lease,
    );
    for (number, rate) in rates.into_iter().enumerate() {
        gateway.edit(number as u64, |entry| {
            entry.refill(&policy, &lease, now);
            match scene.protection {
                Protection::None => {}
                Protection::Shadow | Protection::NoHalfDepthRule => {
                    entry.set_shadow(FIRST, rate, span_us)
                }
                Protection::LumpPerWindow => {
                    // The same depth, there at the start of the window; over the longest span it hardly refills.
                    let depth = rate.amount_in(u64::from(span_us));
                    let holding = entry.holdings.at_mut(FIRST);
                    holding.shadow_rate = Rate::new(depth.get().unsigned_abs() / 60);
                    holding.shadow_span_us = 60_000_000;
                    holding.shadow.level = holding.shadow_depth();
                }
            }
        });
    }
}

fn run(scene: Scene) -> Outcome {
    let customers: Vec<u16> = (0..STEADY + 1 + scene.idle_claimants)
        .map(|number| u16::from(number == SPIKER))
        .collect();
    let mut gateway = Gateway::new(
        the_policy(!matches!(scene.protection, Protection::None)),
        1,
        &customers,
    );
    let mut random = 42_u64;
    let mut uniform = || {
        random = splitmix(random);
        (random >> 11) as f64 / (1_u64 << 53) as f64
    };
    let start = gateway.now;
    let mut next: Vec<f64> = (0..=SPIKER).map(|_| uniform() / 100.0).collect();
    let mut result = Outcome::default();
    let mut forecast_due = start;
    let counted_s = (SECONDS - WARM_UP_S) as f64;
    loop {
        let (number, at_s) = next
            .iter()
            .copied()
            .enumerate()
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
            .unwrap();
        if at_s >= SECONDS as f64 {
            return result;
        }
        let at = start.plus_us((at_s * 1e6) as u64);
        while forecast_due <= at {
            gateway.advance(forecast_due.since(gateway.now));
            forecast(&mut gateway, &scene);
            gateway.scan_all();
            forecast_due = forecast_due.plus_us(10_000_000);
        }
        gateway.advance(at.since(gateway.now));
        let verdict = gateway
            .request(0, number as u64, &cost(scene.batch))
            .unwrap();
        let rate = if number == SPIKER {
            scene.spiker_per_s
        } else {
            scene.steady_per_s
        } / scene.batch as f64;
        next[number] = if rate > 0.0 {
            at_s - (1.0 - uniform()).ln() / rate
        } else {
            f64::INFINITY
        };
        if at_s < WARM_UP_S as f64 || rate == 0.0 {
            continue;
        }
        let amount = scene.batch as f64 / counted_s;
        match verdict {
            Verdict::Denied(denial) if number != SPIKER && denial.reason == Reason::Pool => {
                result.steady_denied_per_s += amount / STEADY as f64;
            }
            Verdict::Denied(_) => {}
            _ => {
                result.admitted_per_s += amount;
                if number == SPIKER {
                    result.spiker_admitted_per_s += amount;
                } else {
                    result.steady_admitted_per_s += amount / STEADY as f64;
                }
            }
        }
    }
}

#[test]
fn predicted_customers_lose_far_fewer_requests_and_nothing_is_wasted() {
    let off = run(Scene {
        protection: Protection::None,
        ..Scene::default()
    });
    let on = run(Scene::default());
    eprintln!("off {off:?}\non  {on:?}");
    assert!(
        off.steady_denied_per_s > 40.0,
        "without protection the spiker should hurt: {off:?}"
    );
    assert!(
        on.steady_denied_per_s <= off.steady_denied_per_s * 0.5,
        "{on:?} against {off:?}"
    );
    assert!(
        on.admitted_per_s >= off.admitted_per_s * 0.995,
        "{on:?} against {off:?}"
    );
}

#[test]
fn what_nobody_claims_goes_to_the_spiker() {
    let alone = run(Scene {
        steady_per_s: 0.0,
        ..Scene::default()
    });
    eprintln!("{alone:?}");
    assert!(alone.spiker_admitted_per_s >= 985.0, "{alone:?}");
}

#[test]
fn a_forecast_that_is_wrong_by_a_third_or_twice_still_halves_the_denials() {
    let off = run(Scene {
        protection: Protection::None,
        ..Scene::default()
    });
    for (steady, spiker) in [(400, 400), (140, 140)] {
        let wrong = run(Scene {
            forecast_per_s: steady,
            spiker_forecast_per_s: spiker,
            ..Scene::default()
        });
        eprintln!("{steady}/{spiker}: {wrong:?}");
        assert!(
            wrong.steady_denied_per_s <= off.steady_denied_per_s * 0.55,
            "{wrong:?} against {off:?}"
        );
    }
}

#[test]
fn batches_of_twenty_are_protected_too() {
    let off = run(Scene {
        protection: Protection::None,
        batch: 20,
        ..Scene::default()
    });
    let on = run(Scene {
        batch: 20,
        ..Scene::default()
    });
    eprintln!("off {off:?}\non  {on:?}");
    assert!(
        on.steady_denied_per_s <= off.steady_denied_per_s * 0.6,
        "{on:?} against {off:?}"
    );
}

#[test]
fn a_windows_claim_as_one_lump_has_no_effect() {
    let off = run(Scene {
        protection: Protection::None,
        ..Scene::default()
    });
    let on = run(Scene::default());
    let lump = run(Scene {
        protection: Protection::LumpPerWindow,
        ..Scene::default()
    });
    eprintln!("off {off:?}\nlump {lump:?}\non  {on:?}");
    assert!(
        lump.steady_denied_per_s >= on.steady_denied_per_s * 2.0,
        "{lump:?} against {on:?}"
    );
}

#[test]
fn idle_claims_cost_others_nothing_unless_the_half_depth_rule_is_missing() {
    let idle = Scene {
        steady_per_s: 0.0,
        idle_claimants: 10,
        ..Scene::default()
    };
    let none = run(Scene {
        protection: Protection::None,
        ..idle
    });
    let soft = run(idle);
    let hard = run(Scene {
        protection: Protection::NoHalfDepthRule,
        ..idle
    });
    eprintln!("none {none:?}\nsoft {soft:?}\nhard {hard:?}");
    assert!(
        soft.spiker_admitted_per_s >= none.spiker_admitted_per_s * 0.995,
        "{soft:?} against {none:?}"
    );
    assert!(
        hard.spiker_admitted_per_s <= none.spiker_admitted_per_s * 0.75,
        "{hard:?} against {none:?}"
    );
}
