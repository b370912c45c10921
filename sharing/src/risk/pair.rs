//! The score of a pair, and what it is made of.

use crate::risk::normal::{TWO_SIDED, wilson};

/// From a lower to an upper bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    /// Not below.
    pub low: f64,
    /// Not above.
    pub high: f64,
}

/// How far a spike of one account leaves another one short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Whose spike: a position among customers, or among labels.
    pub from: usize,
    /// Who is short.
    pub to: usize,
    /// The probability that it is short within the horizon, given that the first one asks for more than its 0.9 quantile now, less the
    /// probability without that.
    pub likelihood: f64,
    /// Of 95 %, from as many cases as there were spikes that lie apart.
    pub likelihood_interval: Interval,
    /// The probability without that.
    pub usual: f64,
    /// What it is short of when it is, given the spike, in tokens per second.
    pub magnitude_per_s: f64,
    /// Of 95 %.
    pub magnitude_interval: Interval,
    /// `max(0, likelihood) x magnitude / rate`: the part of what it has bought that it is expected to lack because of the spike.
    pub score: f64,
    /// From the intervals of both.
    pub score_interval: Interval,
    /// Where the demand comes from that leaves it short.
    pub shares: Shares,
}

/// Of the demand beyond what was expected, while the spike leaves the other one short: whose part it is. The sum is 1, or 0 where it is not short.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// The spike itself.
    pub spike: f64,
    /// What the account that is short asks for beyond its own forecast.
    pub own: f64,
    /// Everybody else, who may have the same cause. Events that were known are in the forecasts, and in none of the three.
    pub others: f64,
}

/// What one party does in all scenarios.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    /// Demand at the first step.
    pub(crate) now: Vec<f32>,
    /// What it is short of, at most, within the horizon.
    pub(crate) short: Vec<f32>,
    /// Demand beyond its median, at most, within the horizon.
    pub(crate) excess: Vec<f32>,
    pub(crate) rate: f64,
    /// How many independent spikes those of the scenarios go back to; none where each is one.
    pub(crate) spikes: Option<usize>,
}

/// In which scenarios a party spikes.
pub(crate) fn spikes(now: &[f32]) -> Vec<u32> {
    let mut sorted = now.to_vec();
    let at = sorted.len() * 9 / 10;
    if at >= sorted.len() {
        return Vec::new();
    }
    let line = *sorted.select_nth_unstable_by(at, f32::total_cmp).1;
    // Equal values at the line are no spikes, unless rounding alone tells them from others.
    (0..now.len() as u32)
        .filter(|scenario| now[*scenario as usize] > line)
        .collect()
}

impl Pair {
    /// From what both do in the same scenarios. `excess` is all demand beyond the medians.
    pub(crate) fn of(
        (from, spiker): (usize, &Party),
        spikes: &[u32],
        (to, other): (usize, &Party),
        excess: &[f32],
    ) -> Self {
        let all = other.short.len() as f64;
        let count = spikes.len() as f64;
        let short_in_all = other.short.iter().filter(|short| **short > 0.0).count() as f64;
        let hit = || {
            let all = spikes.iter().map(|scenario| *scenario as usize);
            all.filter(|scenario| other.short[*scenario] > 0.0)
        };
        let short = hit().count() as f64;
        let usual = short_in_all / all;
        let mut pair = Self {
            from,
            to,
            likelihood: 0.0,
            likelihood_interval: Interval::default(),
            usual,
            magnitude_per_s: 0.0,
            magnitude_interval: Interval::default(),
            score: 0.0,
            score_interval: Interval::default(),
            shares: Shares::default(),
        };
        if count == 0.0 || short_in_all == 0.0 {
            return pair;
        }
        let given = short / count;
        pair.likelihood = given - usual;
        // The rest of the scenarios is independent of the spikes; all of them are not.
        let without = (short_in_all - short) / (all - count).max(1.0);
        let share = 1.0 - count / all;
        let cases = spiker
            .spikes
            .map_or(count, |spikes| count.min(spikes as f64));
        let (with, rest) = (wilson(given, cases), wilson(without, all - count));
        // Newcombe's interval of a difference of proportions (1998), from both of Wilson's.
        let below = ((given - with.low).powi(2) + (rest.high - without).powi(2)).sqrt();
        let above = ((with.high - given).powi(2) + (without - rest.low).powi(2)).sqrt();
        pair.likelihood_interval = Interval {
            low: (given - without - below) * share,
            high: (given - without + above) * share,
        };
        if short == 0.0 {
            return pair;
        }
        let mean = |value: &dyn Fn(usize) -> f64| hit().map(value).sum::<f64>() / short;
        let magnitude = mean(&|at| f64::from(other.short[at]));
        let variance = mean(&|at| (f64::from(other.short[at]) - magnitude).powi(2));
        let half = TWO_SIDED * (variance / (short * cases / count).max(1.0)).sqrt();
        pair.magnitude_per_s = magnitude;
        pair.magnitude_interval = Interval {
            low: (magnitude - half).max(0.0),
            high: magnitude + half,
        };
        if other.rate > 0.0 {
            let score =
                |likelihood: f64, magnitude: f64| likelihood.max(0.0) * magnitude / other.rate;
            pair.score = score(pair.likelihood, magnitude);
            pair.score_interval = Interval {
                low: score(pair.likelihood_interval.low, pair.magnitude_interval.low),
                high: score(pair.likelihood_interval.high, pair.magnitude_interval.high),
            };
        }
        let spike = mean(&|at| f64::from(spiker.excess[at].max(0.0)));
        let own = mean(&|at| f64::from(other.excess[at].max(0.0)));
        let total = mean(&|at| f64::from(excess[at])).max(spike + own);
        if total > 0.0 {
            pair.shares = Shares {
                spike: spike / total,
                own: own / total,
                others: 1.0 - (spike + own) / total,
            };
        }
        pair
    }
}
