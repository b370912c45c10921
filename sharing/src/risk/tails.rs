//! Who spikes with whom: dependence in the upper tail, where contention is.
//!
//! Two numbers. The tail dependence is the rank estimator (Schmidt and Stadtmüller 2006): of the k highest steps of one account, the part at which
//! the other has one of its k highest as many steps later. The coincidence rate counts spikes and not steps (event coincidence analysis,
//! Donges et al. 2016): of the beginnings of spikes of one account, the part that a beginning of the other follows within the
//! horizon. Steps of one spike are not independent of one another, beginnings nearly are, and so the second one has an exact test.
//!
//! Both are of the steps at which both accounts are known. Over the whole grid, two accounts that joined last week would be linked by
//! nothing but that: all of their spikes lie in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::risk::chance::Chance;
use crate::risk::pair::Interval;
use crate::risk::residuals::Residuals;

/// The k highest steps are this many times the square root of all.
const HIGHEST: f64 = 2.0;

/// Draws of the bootstrap, and the steps of its blocks: half a day at five minutes.
const DRAWS: usize = 200;
const BLOCK: usize = 144;

/// How far a pair's coincidences are above chance, and the pair: the first of equals goes first.
type Rank = (u32, Reverse<u32>, Reverse<u32>);

/// The spikes of all customers.
#[derive(Clone, Debug)]
pub(crate) struct Tails {
    steps: usize,
    reach: usize,
    /// For each customer: the steps at which it is known, in order.
    known: Vec<Vec<Range<u32>>>,
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
    /// The part of the steps at which both are known that is in the tail of the second one.
    pub by_chance: f64,
}

/// How often the spikes of one account are followed by spikes of another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coincidence {
    /// Spikes of the first account while both are known.
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
            known: residuals.values.iter().map(|row| known(row)).collect(),
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
        let both = both(&self.known[from], &self.known[to], lag_steps as u32);
        let mut blocks = vec![(0.0, 0.0); self.steps.div_ceil(BLOCK)];
        for step in spikes.iter().filter(|step| is_in(&both, **step)) {
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
            by_chance: {
                let lag = lag_steps as u32;
                let is_in_both = |other: &&u32| **other >= lag && is_in(&both, **other - lag);
                let in_tail = others.iter().filter(is_in_both).count();
                in_tail as f64 / f64::from(length(&both).max(1))
            },
        }
    }

    /// How often the second account's spikes follow the first one's.
    pub(crate) fn coincidence(&self, from: usize, to: usize) -> Coincidence {
        let (spikes, others) = (&self.beginnings[from], &self.beginnings[to]);
        let both = both(&self.known[from], &self.known[to], 0);
        let mut next = 0;
        let (mut trials, mut followed) = (0, 0);
        for spike in spikes.iter().filter(|spike| is_in(&both, **spike)) {
            while others.get(next).is_some_and(|other| other < spike) {
                next += 1;
            }
            let within = |other: &u32| (*other - *spike) as usize <= self.reach;
            trials += 1;
            followed += usize::from(others.get(next).is_some_and(within));
        }
        // Beginnings are further apart than the horizon, so that what they cover does not overlap.
        let reach = self.reach as u32;
        let covered: u32 = others
            .iter()
            .map(|other| overlap(&both, other.saturating_sub(reach)..other + 1))
            .sum();
        let by_chance = f64::from(covered) / f64::from(length(&both).max(1));
        Coincidence {
            spikes: trials,
            followed,
            by_chance,
            p_value: at_least(followed, trials, by_chance),
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
        let spans: Vec<Range<u32>> = self.known.iter().map(|known| span(known)).collect();
        // The least of those that are kept in front: all that pass, of ten thousand customers, can be a hundred million.
        let mut kept: BinaryHeap<Reverse<Rank>> = BinaryHeap::new();
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
                if count < 3 || to == from {
                    continue;
                }
                let chance = self.coincidences_by_chance(&spans, from, to);
                // How far above what chance gives, in standard deviations.
                let excess = (f32::from(count) - chance) / chance.sqrt();
                if excess > 4.0 {
                    // Bits of positive numbers are in the order of the numbers.
                    let rank: Rank = (excess.to_bits(), Reverse(from as u32), Reverse(to as u32));
                    if kept.len() < most {
                        kept.push(Reverse(rank));
                    } else if let Some(mut least) = kept.peek_mut()
                        && rank > least.0
                    {
                        *least = Reverse(rank);
                    }
                }
            }
        }
        kept.into_sorted_vec()
            .into_iter()
            .map(|Reverse((_, Reverse(from), Reverse(to)))| (from as usize, to as usize))
            .collect()
    }

    /// How many coincidences chance gives, from when both have joined until the first one has left. Gaps between count as known: this is to
    /// choose what is looked at, for up to a hundred million pairs.
    fn coincidences_by_chance(&self, spans: &[Range<u32>], from: usize, to: usize) -> f32 {
        let (left, right) = (&spans[from], &spans[to]);
        let common = left.start.max(right.start)..left.end.min(right.end);
        let in_common = |beginnings: &[u32]| {
            let before = |end: u32| beginnings.partition_point(|step| *step < end);
            (before(common.end) - before(common.start).min(before(common.end))) as f32
        };
        let covered = in_common(&self.beginnings[to]) * (self.reach + 1) as f32;
        in_common(&self.beginnings[from]) * covered / common.len() as f32
    }
}

/// The steps at which something is known.
fn known(values: &[f32]) -> Vec<Range<u32>> {
    let mut from = 0;
    let mut known = Vec::new();
    for run in values.chunk_by(|left, right| left.is_nan() == right.is_nan()) {
        let to = from + run.len() as u32;
        if !run[0].is_nan() {
            known.push(from..to);
        }
        from = to;
    }
    known
}

/// From the first of them to the last.
fn span(known: &[Range<u32>]) -> Range<u32> {
    match (known.first(), known.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

/// The steps that are in the first list and, `lag` later, in the second one.
fn both(left: &[Range<u32>], right: &[Range<u32>], lag: u32) -> Vec<Range<u32>> {
    let (mut at_left, mut at_right) = (0, 0);
    let mut both = Vec::new();
    while let (Some(l), Some(r)) = (left.get(at_left), right.get(at_right)) {
        let (r_start, r_end) = (r.start.saturating_sub(lag), r.end.saturating_sub(lag));
        let common = l.start.max(r_start)..l.end.min(r_end);
        if !common.is_empty() {
            both.push(common);
        }
        if l.end < r_end {
            at_left += 1;
        } else {
            at_right += 1;
        }
    }
    both
}

fn length(ranges: &[Range<u32>]) -> u32 {
    ranges.iter().map(|range| range.len() as u32).sum()
}

fn is_in(ranges: &[Range<u32>], step: u32) -> bool {
    let at = ranges.partition_point(|range| range.end <= step);
    ranges.get(at).is_some_and(|range| range.contains(&step))
}

/// How many steps of `of` are in the ranges.
fn overlap(ranges: &[Range<u32>], of: Range<u32>) -> u32 {
    ranges[ranges.partition_point(|range| range.end <= of.start)..]
        .iter()
        .take_while(|range| range.start < of.end)
        .map(|range| range.end.min(of.end) - range.start.max(of.start))
        .sum()
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

    /// Noise of forty accounts that are known in the last tenth only, and in it but for a gap.
    fn newcomers() -> Tails {
        let mut chance = Chance::of_part(3, 0);
        let values: Vec<Vec<f32>> = (0..40)
            .map(|_| {
                (0..4000)
                    .map(|step| match step {
                        3600..3800 | 3850..4000 => chance.below(100_000) as f32,
                        _ => f32::NAN,
                    })
                    .collect()
            })
            .collect();
        let residuals = Residuals {
            scores: values.clone(),
            values,
        };
        Tails::of(&residuals, 6)
    }

    #[test]
    fn to_have_joined_late_is_nothing_in_common() {
        let tails = newcomers();
        let pairs = (0..40).flat_map(|from| (0..40).map(move |to| (from, to)));
        let (mut found, mut all, mut above) = (0, 0, 0.0);
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let coincidence = tails.coincidence(from, to);
            found += usize::from(coincidence.p_value <= 0.01);
            all += 1;
            above +=
                coincidence.followed as f64 - coincidence.by_chance * coincidence.spikes as f64;
        }
        println!("{found} of {all} at 1 %");
        assert!(found * 50 <= all);
        assert!((above / all as f64).abs() < 1.0, "{above}");
        assert!(tails.screen(10_000).len() * 100 <= all);
        let tail = tails.dependence(0, 1, 7);
        assert!((tail.by_chance - 0.1).abs() < 0.03, "{tail:?}");
    }

    #[test]
    fn of_many_pairs_those_with_the_largest_excess_are_kept() {
        // All spike together, the later ones more seldom.
        let mut chance = Chance::of_part(5, 0);
        let values: Vec<Vec<f32>> = (0..12)
            .map(|customer: usize| {
                (0..4000)
                    .map(|step: usize| {
                        let is_spike = step % 50 == customer % 5 && step / 50 % 12 >= customer;
                        let noise = chance.below(1000) as f32 / 1000.0;
                        noise + if is_spike { 10.0 } else { 0.0 }
                    })
                    .collect()
            })
            .collect();
        let residuals = Residuals {
            scores: values.clone(),
            values,
        };
        let tails = Tails::of(&residuals, 6);
        let all = tails.screen(usize::MAX);
        println!("{} pairs", all.len());
        assert!(all.len() > 10);
        for most in [0, 1, 7, all.len() - 1] {
            assert_eq!(tails.screen(most), all[..most], "{most}");
        }
        let excess = |(from, to): (usize, usize)| {
            let spans = vec![0..4000; 12];
            let chance = tails.coincidences_by_chance(&spans, from, to);
            let others = &tails.beginnings[to];
            let follows = |step: &u32| {
                let within = |other: &&u32| **other >= *step && **other - *step <= 6;
                others.iter().filter(within).count()
            };
            let count: usize = tails.beginnings[from].iter().map(follows).sum();
            (count as f32 - chance) / chance.sqrt()
        };
        assert!(
            all.windows(2)
                .all(|pair| excess(pair[0]) >= excess(pair[1]))
        );
    }
}
