//! What another way to choose would have earned, from a log of decisions with their propensities.
//!
//! Of a decision that chose otherwise the log says nothing about what was not done. Inverse propensities make up for that without any model
//! and have a large spread. The doubly robust estimate (Dudik, Langford and Li, ICML 2011) weighs only what a model does not explain: it is
//! right if the propensities or the model are, and its spread is that of the model's errors. Both are of differences to the policy's own
//! values, which is what is asked for.

use crate::tuning::context::{Context, Features};
use crate::tuning::learned::Learned;

/// The 0.975 quantile of the normal distribution.
const NORMAL_975: f64 = 1.96;
/// Parts of a log: one is judged by what the others have taught.
const FOLDS: usize = 5;

/// A decision and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    /// What was known.
    pub context: Context,
    /// What was chosen; 0 is the policy's own.
    pub arm: usize,
    /// How likely that was.
    pub propensity: f64,
    /// What it earned, from 0 to 1.
    pub reward: f64,
}

/// A mean of decisions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean; no number of none.
    pub mean: f64,
    /// Half of its 95 % interval, as if decisions had nothing to do with one another; no number with fewer than two.
    pub ci95: f64,
}

/// By how much `choose` would have earned more than the policy's own values, per decision that could have been made otherwise, by inverse
/// propensities.
pub fn inverse_propensity(log: &[Logged], choose: impl Fn(&Context) -> usize) -> Estimate {
    Estimate::of(open(log).map(|logged| {
        let is = |arm: usize| if logged.arm == arm { 1.0 } else { 0.0 };
        let chosen = choose(&logged.context);
        (is(chosen) - is(0)) * logged.reward / logged.propensity
    }))
}

/// The same, doubly robust. `learned` must not have been taught by this log.
pub fn doubly_robust(
    log: &[Logged],
    learned: &Learned,
    choose: impl Fn(&Context) -> usize,
) -> Estimate {
    Estimate::of(open(log).map(|logged| robust(logged, learned, choose(&logged.context))))
}

/// How contexts are best read, by the log itself: each part of it judges what the others have taught. Simpler ones win ties.
#[must_use]
pub fn best_features(log: &[Logged], arms: usize) -> (Features, Estimate) {
    let judged = Features::ALL.map(|features| (features, cross_judged(log, arms, features)));
    let best = judged.into_iter().reduce(|best, other| {
        if other.1.mean > best.1.mean {
            other
        } else {
            best
        }
    });
    best.unwrap_or((Features::Constant, Estimate::of(std::iter::empty())))
}

/// What the choices that these features lead to are worth, on logs that they were not taught by.
fn cross_judged(log: &[Logged], arms: usize, features: Features) -> Estimate {
    let of_fold = log.len().div_ceil(FOLDS).max(1);
    let mut gains = Vec::with_capacity(log.len());
    for (fold, judging) in log.chunks(of_fold).enumerate() {
        let others = log.chunks(of_fold).enumerate();
        let others = others.filter(|(other, _)| *other != fold);
        let teaching: Vec<Logged> = others.flat_map(|(_, part)| part).copied().collect();
        let learned = Learned::from_log(features, arms, &teaching);
        let each = open(judging);
        gains.extend(each.map(|logged| robust(logged, &learned, learned.surest(&logged.context))));
    }
    Estimate::of(gains.into_iter())
}

/// Decisions that could have been made otherwise. Where a guard left no choice, nothing is said of what was not chosen.
fn open(log: &[Logged]) -> impl Iterator<Item = &Logged> {
    log.iter().filter(|logged| logged.propensity < 1.0)
}

fn robust(logged: &Logged, learned: &Learned, chosen: usize) -> f64 {
    let value = |arm: usize| {
        let expected = learned.expects(&logged.context, arm);
        if logged.arm == arm {
            expected + (logged.reward - expected) / logged.propensity
        } else {
            expected
        }
    };
    value(chosen) - value(0)
}

// === impl Estimate ===

impl Estimate {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for value in values {
            count += 1.0;
            sum += value;
            squares += value * value;
        }
        let mean = sum / count;
        let variance = (squares - count * mean * mean).max(0.0) / (count - 1.0);
        Self {
            mean,
            ci95: if count > 1.0 {
                NORMAL_975 * (variance / count).sqrt()
            } else {
                f64::NAN
            },
        }
    }
}
