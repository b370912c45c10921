//! The score of a pair, and what it is made of.

use crate::risk::normal::{TWO_SIDED, two_sided_p, wilson};
use crate::risk::tails::at_least;

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
    /// probability that it is short at all.
    pub likelihood: f64,
    /// Of 95 %, from as many cases as there were spikes that lie apart.
    pub likelihood_interval: Interval,
    /// The probability that shortages differ as much by the chance of spikes and scenarios.
    pub p_value: f64,
    /// The probability that it is short, spike or not.
    pub usual: f64,
    /// What it is short of when it is, given the spike, in tokens per second.
    pub magnitude_per_s: f64,
    /// Of 95 %.
    pub magnitude_interval: Interval,
    /// What it is short of more, in expectation, when the first one spikes: the part of its rate that the spike costs it. Where it is hardly ever
    /// short otherwise, that is `likelihood x magnitude / rate`; that product itself would fall when a pool gets so small that the account is always
    /// short. 0 where it is not short of more.
    pub score: f64,
    /// Of 95 %.
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
            p_value: 1.0,
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
        pair.rate(other, spikes, share, cases);
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
    /// The score: from the means of shortages with the spike and without it.
    fn rate(&mut self, other: &Party, spikes: &[u32], share: f64, cases: f64) {
        if other.rate <= 0.0 {
            return;
        }
        let all = Moments::of(other.short.iter().copied());
        let with = Moments::of(
            spikes
                .iter()
                .map(|scenario| other.short[*scenario as usize]),
        );
        let without = all.less(&with);
        let of_rate = share / other.rate;
        let more = with.mean() - without.mean();
        let half = TWO_SIDED
            * (with.variance() / cases.max(1.0) + without.variance() / without.count.max(1.0))
                .sqrt();
        self.score = more.max(0.0) * of_rate;
        self.score_interval = Interval {
            low: (more - half).max(0.0) * of_rate,
            high: (more + half).max(0.0) * of_rate,
        };
        // If the spike made no difference, both would have the variance of all.
        let chance = all.variance() * (1.0 / cases.max(1.0) + 1.0 / without.count.max(1.0));
        if chance > 0.0 {
            self.p_value = two_sided_p(more / chance.sqrt());
        }
        if self.usual < 0.5 {
            // What is seldom is too skew for that: a few large shortages are no proof if they are not more than usual, too.
            let short = ((self.likelihood + self.usual) * cases).round();
            let more_often = at_least(short as usize, cases.round() as usize, self.usual);
            self.p_value = self.p_value.max(more_often);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

// === impl Moments ===

impl Moments {
    fn of(values: impl Iterator<Item = f32>) -> Self {
        values.fold(Self::default(), |all, value| {
            let value = f64::from(value);
            Self {
                count: all.count + 1.0,
                sum: all.sum + value,
                squares: all.squares + value * value,
            }
        })
    }

    fn less(&self, part: &Self) -> Self {
        Self {
            count: self.count - part.count,
            sum: self.sum - part.sum,
            squares: self.squares - part.squares,
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    fn variance(&self) -> f64 {
        (self.squares / self.count.max(1.0) - self.mean() * self.mean()).max(0.0)
    }
}
