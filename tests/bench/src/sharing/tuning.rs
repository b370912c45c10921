//! What tuning is worth: learned from some seeds, and tried on other seeds and a later time, beside the policy's own values.
//!
//! Off-line exploring costs nothing, so the first seeds go by any arm by chance in each cycle of the third quarter of the trace. What their
//! log teaches, if by the log itself it is surely a gain, is then followed in every cycle of the last quarter of the others: the most that
//! tuning could bring. The guarded tuner in the same place, which explores in one cycle of twenty, is what it would cost.

use std::collections::BTreeMap;
use std::ops::Range;

use forebay_families::in_parallel;
use forebay_sharing::tuning::{
    Arms, Context, Decision, Estimate, Features, Hold, Knob, Learned, Logged, Outcome, Ranges,
    Rules, Tuner, best_features, doubly_robust, inverse_propensity,
};
use forebay_sharing::{Outlook, Settings};
use forebay_simulator::Mean;
use forebay_simulator::pool::{
    Arrivals, Ask, CYCLE_S, Demand, Market, Mechanism, PoolFigures, run_tuned,
};
use serde_json::{Value, json};

use super::forecasts::outlooks;
use super::trial::{CAPACITIES, CUSTOMERS, Trace};

/// Seeds that are learned from, and those that what was learned is tried on.
const LEARNED: u64 = 5;
const TRIED: u64 = 5;
/// Of the policy's rewards, the part that the guarded tuner may lose.
pub(crate) const LOSS_MOST: f64 = 0.01;
/// Of the decisions, the part that it explores at most.
const SHARE: f64 = 0.05;
const CYCLE_MINUTES: usize = CYCLE_S / 60;

/// What came of one trace at one capacity by one mechanism. Differences are to the policy's own values, seed by seed.
pub(crate) struct Tuned {
    pub(crate) trace: &'static str,
    pub(crate) has_bars: bool,
    pub(crate) capacity: f64,
    pub(crate) mechanism: Mechanism,
    features: Features,
    /// What was learned is expected to bring, by the log that it was learned from.
    expected: Estimate,
    own: Mean,
    pub(crate) gain: Mean,
    goodput: Mean,
    missed: Mean,
    /// Of the cycles, the part that went by another arm, and which of them most did.
    followed: f64,
    mostly: String,
    pub(crate) guarded: Mean,
    explored: f64,
    fallbacks: f64,
    /// The same gain, as the guarded tuner's own log has it.
    by_log: Estimate,
    by_propensities: Estimate,
    /// Of the guarded tuner's cycles, the part in which it could not explore, by reason.
    held: BTreeMap<&'static str, f64>,
    /// Of each seed, the arm that the guarded tuner has most evidence for.
    leading: Vec<Value>,
    named: usize,
}

/// Everything that is the same for all with one seed.
struct Case {
    market: Market,
    demand: Demand,
    outlooks: Vec<Vec<Outlook>>,
}

/// Of a run: what its cycles earned.
#[derive(Default)]
struct Earned {
    sum: f64,
    cycles: f64,
    /// Cycles by arm.
    arms: BTreeMap<usize, f64>,
    fallbacks: f64,
    /// Cycles that could not explore, by reason.
    held: BTreeMap<&'static str, f64>,
    log: Vec<Logged>,
}

/// Any arm, by chance.
struct ByChance<'a> {
    arms: &'a Arms,
    seed: u64,
    number: u64,
    last: Option<(usize, Context)>,
    log: Vec<Logged>,
}

/// What was learned; the policy's own values where nothing was.
struct Follow<'a> {
    arms: &'a Arms,
    learned: Option<&'a Learned>,
    earned: Earned,
}

/// At most one cycle of twenty.
struct Guarded {
    tuner: Tuner,
    earned: Earned,
}

/// A seed on which what was learned was tried.
struct Trial {
    own: (PoolFigures, Earned),
    follow: (PoolFigures, Earned),
    guarded: Earned,
    leading: Value,
    named: usize,
}

/// The ranges that are tried: wide enough that what was found by hand lies within them.
fn ranges() -> Ranges {
    Ranges::default()
        .with(Knob::QuantileOfTier1, 0.9, 0.99)
        .with(Knob::QuantileOfTier2, 0.75, 0.99)
        .with(Knob::QuantileOfTier3, 0.5, 0.9)
        .with(Knob::ReserveShare, 0.1, 0.4)
        .with(Knob::QuietShare, 0.0, 0.3)
}

/// Each capacity and mechanism, under bursty arrivals.
pub(crate) fn of_trace(trace: &Trace) -> Vec<Tuned> {
    let own = Settings::default();
    let arms = Arms::around(&own, &ranges()).expect("the ranges hold the defaults");
    let ways: Vec<(f64, Mechanism)> = CAPACITIES
        .into_iter()
        .flat_map(|times| Mechanism::ALL.map(|mechanism| (times, mechanism)))
        .collect();
    let seeds = |from: u64, count: u64| (from..from + count).collect::<Vec<u64>>();

    let minutes = trace.tenants.iter().map(Vec::len).max().unwrap_or(0) * trace.step_s / 60;
    let quarter = |number: usize| minutes * number / 4 / CYCLE_MINUTES * CYCLE_MINUTES;
    // [seed][way]
    let logs = in_parallel(&seeds(0, LEARNED), |_, seed| {
        let case = Case::new(trace, quarter(2)..quarter(3), *seed);
        let of_way = ways.iter().map(|(times, mechanism)| {
            let mut ask = ByChance {
                arms: &arms,
                seed: *seed,
                number: 0,
                last: None,
                log: Vec::new(),
            };
            case.run(*times, *mechanism, &mut ask);
            ask.log
        });
        of_way.collect::<Vec<_>>()
    });
    let taught: Vec<(Features, Estimate, Learned)> = (0..ways.len())
        .map(|way| {
            let log: Vec<Logged> = logs
                .iter()
                .flat_map(|of_seed| &of_seed[way])
                .copied()
                .collect();
            let (features, expected) = best_features(&log, arms.len());
            (
                features,
                expected,
                Learned::from_log(features, arms.len(), &log),
            )
        })
        .collect();
    let trials = in_parallel(&seeds(LEARNED, TRIED), |_, seed| {
        let case = Case::new(trace, quarter(3)..minutes, *seed);
        let of_way = ways.iter().zip(&taught);
        of_way
            .map(|((times, mechanism), (features, expected, learned))| {
                let follow = |learned| {
                    let mut ask = Follow {
                        arms: &arms,
                        learned,
                        earned: Earned::default(),
                    };
                    (case.run(*times, *mechanism, &mut ask), ask.earned)
                };
                let rules = Rules {
                    ranges: ranges(),
                    features: *features,
                    share: SHARE,
                    loss_most: LOSS_MOST,
                    seed: *seed,
                };
                let tuner = Tuner::new(&own, &rules).expect("the rules are within their bounds");
                let mut guarded = Guarded {
                    tuner: tuner.knowing(learned.clone()),
                    earned: Earned::default(),
                };
                case.run(*times, *mechanism, &mut guarded);
                Trial {
                    own: follow(None),
                    follow: follow(is_gain(expected).then_some(learned)),
                    leading: leading(*seed, &guarded.tuner),
                    named: usize::from(guarded.tuner.better().is_some()),
                    guarded: guarded.earned,
                }
            })
            .collect::<Vec<Trial>>()
    });
    let each = ways.into_iter().zip(taught).enumerate();
    each.map(
        |(way, ((capacity, mechanism), (features, expected, learned)))| {
            let of_way: Vec<&Trial> = trials.iter().map(|of_seed| &of_seed[way]).collect();
            let mean = |value: &dyn Fn(&Trial) -> f64| {
                Mean::of(
                    &of_way
                        .iter()
                        .map(|trial| value(trial))
                        .collect::<Vec<f64>>(),
                )
            };
            let log: Vec<Logged> = of_way
                .iter()
                .flat_map(|trial| &trial.guarded.log)
                .copied()
                .collect();
            let followed = |context: &Context| match is_gain(&expected) {
                true => learned.surest(context),
                false => 0,
            };
            Tuned {
                trace: trace.name,
                has_bars: trace.has_bars,
                capacity,
                mechanism,
                features,
                expected,
                own: mean(&|trial| trial.own.1.mean()),
                gain: mean(&|trial| trial.follow.1.mean() - trial.own.1.mean()),
                goodput: mean(&|trial| trial.follow.0.goodput - trial.own.0.goodput),
                missed: mean(&|trial| {
                    trial.follow.0.guarantee_missed_steady - trial.own.0.guarantee_missed_steady
                }),
                followed: mean(&|trial| trial.follow.1.others()).mean,
                mostly: mostly(&arms, of_way.iter().map(|trial| &trial.follow.1)),
                guarded: mean(&|trial| trial.guarded.mean() - trial.own.1.mean()),
                explored: mean(&|trial| trial.guarded.others()).mean,
                fallbacks: mean(&|trial| trial.guarded.fallbacks).mean,
                by_log: doubly_robust(&log, &learned, followed),
                by_propensities: inverse_propensity(&log, followed),
                held: held(of_way.iter().map(|trial| &trial.guarded)),
                leading: of_way.iter().map(|trial| trial.leading.clone()).collect(),
                named: of_way.iter().map(|trial| trial.named).sum(),
            }
        },
    )
    .collect()
}

/// Parts of all cycles that could not explore, by reason.
fn held<'a>(runs: impl Iterator<Item = &'a Earned>) -> BTreeMap<&'static str, f64> {
    let (mut held, mut all) = (BTreeMap::new(), 0.0);
    for run in runs {
        all += run.arms.values().sum::<f64>();
        for (why, cycles) in &run.held {
            *held.entry(*why).or_insert(0.0) += cycles;
        }
    }
    held.values_mut().for_each(|cycles| *cycles /= all);
    held
}

/// The arm with most evidence that it is better than the policy's own values.
fn leading(seed: u64, tuner: &Tuner) -> Value {
    let arms = tuner.arms().iter().zip(tuner.evidence());
    let compared = arms.filter(|(_, evidence)| evidence.effect().count > 0);
    let others = compared.filter_map(|(arm, evidence)| Some((arm.knob?, arm.settings, evidence)));
    let leads = others.max_by(|one, other| one.2.e_value().total_cmp(&other.2.e_value()));
    leads.map_or(Value::Null, |(knob, settings, evidence)| {
        let effect = evidence.effect();
        json!({
            "seed": seed,
            "knob": knob.name(),
            "value": knob.of(&settings),
            "compared": effect.count,
            "effect": [effect.mean, effect.ci95],
            "e_value": evidence.e_value(),
        })
    })
}

/// Whether all of the interval is above 0: what the log does not show to be a gain is not followed.
fn is_gain(expected: &Estimate) -> bool {
    expected.mean > expected.ci95
}

/// The arm beside the policy's own that most cycles went by, in words.
fn mostly<'a>(arms: &Arms, runs: impl Iterator<Item = &'a Earned>) -> String {
    let mut counts = BTreeMap::<usize, f64>::new();
    for (arm, cycles) in runs.flat_map(|run| &run.arms) {
        *counts.entry(*arm).or_default() += cycles;
    }
    let others = counts.into_iter().filter(|(arm, _)| *arm > 0);
    let most = others.max_by(|one, other| one.1.total_cmp(&other.1));
    let arm = most.and_then(|(arm, _)| arms.at(arm));
    arm.and_then(|arm| Some((arm.knob?, arm.settings)))
        .map_or_else(String::new, |(knob, settings)| {
            format!("{} {}", knob.name(), knob.of(&settings))
        })
}

/// A line for each, in per cent.
pub(crate) fn print(all: &[Tuned]) {
    println!(
        "\ntuning, bursty arrivals: learned from {LEARNED} seeds in the third quarter, tried on {TRIED} others in the last; \
         rewards in %, differences to the policy's own values, +- half of the 95 % interval"
    );
    println!(
        "{:<14} {:>5} {:<7} {:<9} {:>8} {:>14} {:>14} {:>14} {:>15} {:>9} {:<24} {:>14} {:>9} {:>10} {:>15} {:>6}",
        "",
        "cap.",
        "",
        "features",
        "own",
        "expected",
        "gain",
        "of it goodput",
        "missed",
        "followed",
        "mostly",
        "guarded",
        "explored",
        "fallbacks",
        "gain by log",
        "named"
    );
    for tuned in all {
        let percent = |mean: f64, ci95: f64| match mean.is_finite() {
            true => format!("{:+.3} +-{:.3}", 100.0 * mean, 100.0 * ci95),
            false => "not explored".to_owned(),
        };
        let of = |mean: Mean| percent(mean.mean, mean.ci95);
        println!(
            "{:<14} {:>5.2} {:<7} {:<9} {:>8.3} {:>14} {:>14} {:>14} {:>15} {:>9.1} {:<24} {:>14} {:>9.2} {:>10.1} {:>15} {:>6}",
            tuned.trace,
            tuned.capacity,
            tuned.mechanism.name(),
            tuned.features.name(),
            100.0 * tuned.own.mean,
            percent(tuned.expected.mean, tuned.expected.ci95),
            of(tuned.gain),
            of(tuned.goodput),
            of(tuned.missed),
            100.0 * tuned.followed,
            tuned.mostly,
            of(tuned.guarded),
            100.0 * tuned.explored,
            tuned.fallbacks,
            percent(tuned.by_log.mean, tuned.by_log.ci95),
            tuned.named,
        );
    }
}

// === impl Tuned ===

impl Tuned {
    /// Means with half of their intervals.
    pub(crate) fn json(&self) -> Value {
        let pair = |mean: Mean| json!([mean.mean, mean.ci95]);
        let estimate = |found: Estimate| json!([found.mean, found.ci95]);
        json!({
            "trace": self.trace,
            "capacity": self.capacity,
            "mechanism": self.mechanism.name(),
            "features": self.features.name(),
            "expected_gain": estimate(self.expected),
            "own_reward": pair(self.own),
            "gain": pair(self.gain),
            "goodput_gain": pair(self.goodput),
            "guarantee_missed_gain": pair(self.missed),
            "followed": self.followed,
            "mostly": self.mostly,
            "guarded_gain": pair(self.guarded),
            "explored": self.explored,
            "fallbacks": self.fallbacks,
            "gain_by_log": estimate(self.by_log),
            "gain_by_propensities": estimate(self.by_propensities),
            "held": self.held,
            "leading_arms": self.leading,
            "seeds_with_a_better_arm": self.named,
        })
    }

    /// The part of the policy's rewards that the guarded tuner has lost.
    pub(crate) fn lost(&self) -> f64 {
        -self.guarded.mean / self.own.mean
    }
}

// === impl Case ===

impl Case {
    fn new(trace: &Trace, part: Range<usize>, seed: u64) -> Self {
        let market = Market::new(&trace.tenants, trace.step_s, CUSTOMERS, seed);
        let demand = Demand::new(&market, Arrivals::Bursty, part, trace.sub_step_s, seed);
        let outlooks = outlooks(&demand);
        Self {
            market,
            demand,
            outlooks,
        }
    }

    fn run(&self, times: f64, mechanism: Mechanism, ask: &mut impl Ask) -> PoolFigures {
        let capacity_per_s = times * self.market.mean_per_s;
        run_tuned(
            &self.market,
            &self.demand,
            &self.outlooks,
            capacity_per_s,
            mechanism,
            ask,
        )
    }
}

// === impl Earned ===

impl Earned {
    fn see(&mut self, outcome: &Outcome) {
        if let Some(reward) = outcome.reward() {
            self.sum += reward;
            self.cycles += 1.0;
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.cycles
    }

    fn go_by(&mut self, arm: usize) {
        *self.arms.entry(arm).or_default() += 1.0;
    }

    /// Of the cycles, the part that went by another arm than the policy's own.
    fn others(&self) -> f64 {
        let all: f64 = self.arms.values().sum();
        (all - self.arms.get(&0).unwrap_or(&0.0)) / all
    }
}

// === impl ByChance ===

impl Ask for ByChance<'_> {
    fn choose(&mut self, _: u64, context: &Context) -> Settings {
        self.number += 1;
        let arm = self.arms.by_chance(self.seed, self.number);
        self.last = Some((arm, *context));
        self.arms.at(arm).expect("it was drawn of these").settings
    }

    fn observe(&mut self, _: u64, outcome: &Outcome) {
        if let (Some((arm, context)), Some(reward)) = (self.last.take(), outcome.reward()) {
            self.log.push(Logged {
                context,
                arm,
                propensity: 1.0 / self.arms.len() as f64,
                reward,
            });
        }
    }
}

// === impl Follow ===

impl Ask for Follow<'_> {
    fn choose(&mut self, _: u64, context: &Context) -> Settings {
        let arm = self.learned.map_or(0, |learned| learned.surest(context));
        self.earned.go_by(arm);
        self.arms.at(arm).expect("it was learned of these").settings
    }

    fn observe(&mut self, _: u64, outcome: &Outcome) {
        self.earned.see(outcome);
    }
}

// === impl Guarded ===

impl Ask for Guarded {
    fn choose(&mut self, now_ms: u64, context: &Context) -> Settings {
        let Decision {
            arm,
            settings,
            hold,
            ..
        } = self.tuner.choose(now_ms, context);
        self.earned.go_by(arm);
        if let Some(hold) = hold {
            let why = match hold {
                Hold::Off => "off",
                Hold::Paused { .. } => "paused",
                Hold::Window { .. } => "window",
                Hold::Allowance { .. } => "allowance",
            };
            *self.earned.held.entry(why).or_default() += 1.0;
        }
        settings
    }

    fn observe(&mut self, now_ms: u64, outcome: &Outcome) {
        self.earned.see(outcome);
        let observed = self.tuner.observe(now_ms, Some(outcome));
        self.earned.log.extend(observed.logged);
        self.earned.fallbacks += f64::from(u8::from(observed.fallback.is_some()));
    }
}
