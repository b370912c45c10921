//! Who spikes with whom: dependence in the upper tail, where contention is.
//!
//! Two numbers. The tail dependence is the rank estimator (Schmidt and Stadtmüller 2006): of the k highest steps of one account, the part at which
//! the other has one of its k highest as many steps later. The coincidence rate counts spikes and not steps (event coincidence analysis,
//! Donges et al. 2016): of the beginnings of spikes of one account, the part that a beginning of the other follows within the
//! horizon. Steps of one spike are not independent of one another, beginnings nearly are, and so the second one has an exact test.

use crate::risk::chance::Chance;
use crate::risk::pair::Interval;
use crate::risk::residuals::Residuals;

/// The k highest steps are this many times the square root of all.
const HIGHEST: f64 = 2.0;

/// Draws of the bootstrap, and the steps of its blocks: half a day at five minutes.
const DRAWS: usize = 200;
const BLOCK: usize = 144;

/// The spikes of all customers.
#[derive(Clone, Debug)]
pub(crate) struct Tails {
    steps: usize,
    reach: usize,
    /// For each customer: steps in its upper tail, and those of them before which there was none for longer than the horizon.
    highest: Vec<Vec<u32>>,
    beginnings: Vec<Vec<u32>>,
}

/// Tail dependence of an ordered pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// At which it is largest.
    pub lag_steps: usize,
    /// From 0 to 1; `by_chance` where accounts have nothing in common.
    pub dependence: f64,
    /// 95 %, by a bootstrap of half-day blocks.
    pub interval: Interval,
    /// The part of all steps that is in the tail.
    pub by_chance: f64,
}

/// How often the spikes of one account are followed by spikes of another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coincidence {
    /// Spikes of the first account.
    pub spikes: usize,
    /// Those of them that the second one follows within the horizon.
    pub followed: usize,
    /// The part of them that would be followed by chance.
    pub by_chance: f64,
    /// The probability of as many by chance.
    pub p_value: f64,
}

// === impl Tails ===

impl Tails {
    /// Finds the spikes. `reach_steps` is the horizon: how many steps later a spike may still be the consequence of another.
    pub(crate) fn of(residuals: &Residuals, reach_steps: usize) -> Self {
        let highest: Vec<Vec<u32>> = residuals.values.iter().map(|row| highest(row)).collect();
        let beginnings = highest
            .iter()
            .map(|steps| beginnings(steps, reach_steps))
            .collect();
        Self {
            steps: residuals.steps(),
            reach: reach_steps,
            highest,
            beginnings,
        }
    }

    /// The tail dependence of an ordered pair at the lag where it is largest.
    pub(crate) fn dependence(&self, from: usize, to: usize, seed: u64) -> Tail {
        let (spikes, others) = (&self.highest[from], &self.highest[to]);
        let count_at = |lag: usize| common(spikes, others, lag).count();
        let lag_steps = (0..=self.reach)
            .rev()
            .max_by_key(|lag| count_at(*lag))
            .unwrap_or(0);
        let mut blocks = vec![(0.0, 0.0); self.steps.div_ceil(BLOCK)];
        for step in spikes {
            blocks[*step as usize / BLOCK].1 += 1.0;
        }
        for step in common(spikes, others, lag_steps) {
            blocks[step as usize / BLOCK].0 += 1.0;
        }
        let ratio = |(followed, all): (f64, f64)| if all > 0.0 { followed / all } else { 0.0 };
        let total =
            |(left, right): (f64, f64), block: &(f64, f64)| (left + block.0, right + block.1);
        let mut chance = Chance::of_part(seed, from.wrapping_mul(1 << 20) ^ to);
        let mut draws: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn = (0..blocks.len()).map(|_| chance.below(blocks.len()));
                ratio(drawn.fold((0.0, 0.0), |sum, at| total(sum, &blocks[at])))
            })
            .collect();
        draws.sort_unstable_by(f64::total_cmp);
        Tail {
            lag_steps,
            dependence: ratio(blocks.iter().fold((0.0, 0.0), total)),
            interval: Interval {
                low: draws[DRAWS / 40],
                high: draws[DRAWS - 1 - DRAWS / 40],
            },
            by_chance: others.len() as f64 / self.steps.max(1) as f64,
        }
    }

    /// How often the second account's spikes follow the first one's.
    pub(crate) fn coincidence(&self, from: usize, to: usize) -> Coincidence {
        let (spikes, others) = (&self.beginnings[from], &self.beginnings[to]);
        let mut next = 0;
        let mut followed = 0;
        for spike in spikes {
            while others.get(next).is_some_and(|other| other < spike) {
                next += 1;
            }
            let within = |other: &u32| (*other - *spike) as usize <= self.reach;
            followed += usize::from(others.get(next).is_some_and(within));
        }
        // Beginnings are further apart than the horizon, so that what they cover does not overlap.
        let covered = others.len() * (self.reach + 1);
        let by_chance = (covered as f64 / self.steps.max(1) as f64).min(1.0);
        Coincidence {
            spikes: spikes.len(),
            followed,
            by_chance,
            p_value: at_least(followed, spikes.len(), by_chance),
        }
    }

    /// Ordered pairs with the most coincidences for what chance gives, at most `most` of them: what a fleet of thousands is screened by.
    pub(crate) fn screen(&self, most: usize) -> Vec<(usize, usize)> {
        let mut starting = vec![Vec::new(); self.steps];
        for (customer, beginnings) in self.beginnings.iter().enumerate() {
            for step in beginnings {
                starting[*step as usize].push(customer as u32);
            }
        }
        let mut pairs: Vec<(f32, u32, u32)> = Vec::new();
        let mut counts = vec![0_u16; self.beginnings.len()];
        for (from, beginnings) in self.beginnings.iter().enumerate() {
            for step in beginnings {
                let to = (*step as usize + self.reach + 1).min(self.steps);
                for customer in starting[*step as usize..to].iter().flatten() {
                    counts[*customer as usize] += 1;
                }
            }
            for (to, count) in counts.iter_mut().enumerate() {
                let count = std::mem::take(count);
                if count >= 3 && to != from {
                    let chance = self.beginnings[to].len() * beginnings.len() * (self.reach + 1);
                    let chance = chance as f32 / self.steps as f32;
                    // How far above what chance gives, in standard deviations.
                    let excess = (f32::from(count) - chance) / chance.sqrt();
                    if excess > 4.0 {
                        pairs.push((excess, from as u32, to as u32));
                    }
                }
            }
        }
        pairs.sort_unstable_by(|left, right| {
            right
                .0
                .total_cmp(&left.0)
                .then((left.1, left.2).cmp(&(right.1, right.2)))
        });
        pairs.truncate(most);
        pairs
            .into_iter()
            .map(|(_, from, to)| (from as usize, to as usize))
            .collect()
    }
}

/// The k highest known steps, in order of time.
fn highest(values: &[f32]) -> Vec<u32> {
    let mut known: Vec<u32> = (0..values.len() as u32)
        .filter(|step| !values[*step as usize].is_nan())
        .collect();
    let count = ((known.len() as f64).sqrt() * HIGHEST) as usize;
    let by_height = |left: &u32, right: &u32| {
        let (left_value, right_value) = (values[*left as usize], values[*right as usize]);
        right_value.total_cmp(&left_value).then(left.cmp(right))
    };
    if count < known.len() {
        known.select_nth_unstable_by(count, by_height);
        known.truncate(count);
    }
    known.sort_unstable();
    known
}

/// Steps before which there was none for longer than `reach`.
fn beginnings(steps: &[u32], reach: usize) -> Vec<u32> {
    let mut last: Option<u32> = None;
    let mut beginnings = Vec::new();
    for step in steps {
        if last.is_none_or(|last| (*step - last) as usize > reach) {
            beginnings.push(*step);
        }
        last = Some(*step);
    }
    beginnings
}

/// Steps of the first list that are, `lag` later, in the second one; both are in order.
fn common<'a>(steps: &'a [u32], others: &'a [u32], lag: usize) -> impl Iterator<Item = u32> + 'a {
    let mut next = 0;
    steps.iter().copied().filter(move |step| {
        let later = step.saturating_add(lag as u32);
        while others.get(next).is_some_and(|other| *other < later) {
            next += 1;
        }
        others.get(next) == Some(&later)
    })
}

/// The probability of at least `successes` in `trials`, each with `probability`.
pub(crate) fn at_least(successes: usize, trials: usize, probability: f64) -> f64 {
    if successes == 0 || probability >= 1.0 {
        return 1.0;
    }
    if probability <= 0.0 {
        return 0.0;
    }
    let (trials_f, odds) = (trials as f64, probability / (1.0 - probability));
    let mut log = trials_f * (1.0 - probability).ln();
    let mut sum = 0.0;
    for at in 0..=trials {
        if at >= successes {
            sum += log.exp();
        }
        log += ((trials_f - at as f64) / (at as f64 + 1.0) * odds).ln();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spikes of three steps, every 50 steps, and those of the other three steps later but for every fifth.
    fn tails() -> Tails {
        let mut chance = Chance::of_part(1, 0);
        let mut row = |lag: usize, all: bool| -> Vec<f32> {
            (0..2000)
                .map(|step: usize| {
                    let step = step.wrapping_sub(lag);
                    let spikes =
                        step < 2000 && step % 50 < 2 && (all || !(step / 50).is_multiple_of(5));
                    let height = if spikes { 10.0 } else { 0.0 };
                    height + chance.below(1000) as f32 / 1000.0
                })
                .collect()
        };
        let values = vec![row(0, true), row(3, false)];
        let residuals = Residuals {
            scores: values.clone(),
            values,
        };
        Tails::of(&residuals, 6)
    }

    #[test]
    fn who_follows_and_how_many_steps_later_is_found() {
        let tails = tails();
        let tail = tails.dependence(0, 1, 7);
        assert_eq!(tail.lag_steps, 3);
        assert!((tail.dependence - 0.8).abs() < 0.1, "{tail:?}");
        assert!(
            tail.interval.low > 0.5 && tail.interval.high < 1.0,
            "{tail:?}"
        );
        assert!(tails.dependence(1, 0, 7).dependence < 0.1);
        let there = tails.coincidence(0, 1);
        assert!(there.p_value < 1e-6, "{there:?}");
        assert!(tails.coincidence(1, 0).p_value > 0.01);
        assert_eq!(tails.screen(10), [(0, 1)]);
    }

    #[test]
    fn chances_of_coincidences_are_binomial() {
        assert!((at_least(1, 3, 0.5) - 0.875).abs() < 1e-12);
        assert!((at_least(3, 3, 0.5) - 0.125).abs() < 1e-12);
        assert!((at_least(2, 4, 0.25) - 0.261_718_75).abs() < 1e-12);
        assert_eq!(at_least(0, 3, 0.1), 1.0);
    }
}
