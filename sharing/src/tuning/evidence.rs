//! Which arm is better than the policy's own values, decided as soon as the evidence allows.
//!
//! A cycle that explored is compared with the mean of its neighbours, the last one before and the first one after that went by the policy.
//! Demand moves from hour to hour by far more than any arm does, and a drift that is straight over three cycles cancels. Which cycle
//! explores is decided by chance, so an arm that changes nothing has differences whose mean is 0.
//!
//! The test is that by which models are promoted: betting against the claim that the mean difference is at most 0 (Waudby-Smith and Ramdas,
//! JRSS B 86(1), 2024), with stakes chosen from the differences before. One may look after each; the probability that any of the arms that
//! change nothing is ever called better is at most 5 %. Importance-weighted differences (Karampatziakis et al., ICML 2021) need no
//! neighbours, and their range is the inverse of a propensity, here one in 320: a bet that must not lose more than there is may stake next
//! to nothing on each.

use crate::tuning::kept::{Words, put_optional};
use crate::tuning::learned::NOISE;

/// Probability that an arm that is no better is ever called so, all arms together.
const ERROR: f64 = 0.05;
/// Part of what may be staked.
const STAKE_MOST: f64 = 0.75;
/// Stands for the variance before there are any differences: bets begin small.
const VARIANCE_FIRST: f64 = 0.05;
/// The 0.975 quantile of the normal distribution.
const NORMAL_975: f64 = 1.96;
/// Cycles that explored and wait for a neighbour at once; what is beyond is not compared.
const OPEN_MOST: usize = 16;

/// By how much an arm differs from the policy's own values, in rewards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Cycles that were compared.
    pub count: u32,
    /// Mean difference.
    pub mean: f64,
    /// Half of its 95 % interval at this count; no number with fewer than two. Who looks again and again should read [`Evidence::e_value`].
    pub ci95: f64,
}

/// What was seen of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    count: u32,
    sum: f64,
    squares: f64,
    log_wealth: f64,
    /// Of the bounded differences that are betted on.
    betted: f64,
    betted_squares: f64,
}

/// A cycle that explored and waits for the neighbour after it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Open {
    arm: usize,
    reward: f64,
    before: f64,
}

/// Compares cycles of all arms with their neighbours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Neighbours {
    /// The last reward of the policy's own values.
    before: Option<f64>,
    open: Vec<Open>,
    /// By arm. The first is the policy's own and stays empty.
    arms: Vec<Evidence>,
}

// === impl Evidence ===

impl Evidence {
    fn see(&mut self, difference: f64) {
        let bounded = (difference / NOISE).clamp(-1.0, 1.0);
        self.log_wealth += libm::log1p(self.stake() * bounded);
        self.betted += bounded;
        self.betted_squares += bounded * bounded;
        self.count = self.count.saturating_add(1);
        self.sum += difference;
        self.squares += difference * difference;
    }

    /// About what makes the wealth grow fastest if differences go on as they were.
    fn stake(&self) -> f64 {
        let count = f64::from(self.count) + 1.0;
        let second_moment = (VARIANCE_FIRST + self.betted_squares) / count;
        (self.betted / count / second_moment).clamp(0.0, STAKE_MOST)
    }

    fn put(&self, words: &mut Vec<u64>) {
        words.push(u64::from(self.count));
        let numbers = [
            self.sum,
            self.squares,
            self.log_wealth,
            self.betted,
            self.betted_squares,
        ];
        words.extend(numbers.map(f64::to_bits));
    }

    fn take(words: &mut Words<'_>) -> Option<Self> {
        Some(Self {
            count: words.small()?,
            sum: words.number()?,
            squares: words.number()?,
            log_wealth: words.number()?,
            betted: words.number()?,
            betted_squares: words.number()?,
        })
    }

    /// The mean difference.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let count = f64::from(self.count);
        let mean = if self.count > 0 {
            self.sum / count
        } else {
            0.0
        };
        let variance = (self.squares - count * mean * mean).max(0.0) / (count - 1.0);
        Effect {
            count: self.count,
            mean,
            ci95: if self.count > 1 {
                NORMAL_975 * (variance / count).sqrt()
            } else {
                f64::NAN
            },
        }
    }

    /// Evidence that the arm is better.
    #[must_use]
    pub fn e_value(&self) -> f64 {
        libm::exp(self.log_wealth)
    }
}

// === impl Neighbours ===

impl Neighbours {
    pub(crate) fn new(arms: usize) -> Self {
        Self {
            before: None,
            open: Vec::new(),
            arms: vec![Evidence::default(); arms],
        }
    }

    /// A cycle by the policy's own values.
    pub(crate) fn see_own(&mut self, reward: f64) {
        for Open {
            arm,
            reward: explored,
            before,
        } in std::mem::take(&mut self.open)
        {
            if let Some(evidence) = self.arms.get_mut(arm) {
                evidence.see(explored - 0.5 * (before + reward));
            }
        }
        self.before = Some(reward);
    }

    /// A cycle by another arm. Without a neighbour before it, it says nothing.
    pub(crate) fn see(&mut self, arm: usize, reward: f64) {
        if let Some(before) = self.before
            && self.open.len() < OPEN_MOST
        {
            self.open.push(Open {
                arm,
                reward,
                before,
            });
        }
    }

    pub(crate) fn put(&self, words: &mut Vec<u64>) {
        put_optional(words, self.before);
        words.push(self.open.len() as u64);
        for open in &self.open {
            words.extend([
                open.arm as u64,
                open.reward.to_bits(),
                open.before.to_bits(),
            ]);
        }
        self.arms.iter().for_each(|arm| arm.put(words));
    }

    pub(crate) fn take(arms: usize, words: &mut Words<'_>) -> Option<Self> {
        let before = words.optional()?;
        let count = usize::try_from(words.word()?).ok()?;
        let open = (0..count.min(OPEN_MOST)).map(|_| {
            Some(Open {
                arm: usize::try_from(words.word()?).ok()?,
                reward: words.number()?,
                before: words.number()?,
            })
        });
        let open = open.collect::<Option<_>>()?;
        let arms = (0..arms).map(|_| Evidence::take(words));
        Some(Self {
            before,
            open,
            arms: arms.collect::<Option<_>>()?,
        })
    }

    pub(crate) fn arms(&self) -> &[Evidence] {
        &self.arms
    }

    /// The arm with the most evidence, if that is enough.
    pub(crate) fn better(&self) -> Option<usize> {
        let needed = (self.arms.len().max(2) - 1) as f64 / ERROR;
        let arms = self.arms.iter().enumerate();
        arms.map(|(arm, evidence)| (arm, evidence.e_value()))
            .filter(|(_, e_value)| *e_value >= needed)
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .map(|(arm, _)| arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::chance::Chance;

    /// From 0 up to 1.
    fn uniform(chance: &mut Chance) -> f64 {
        (chance.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// After how many differences an arm with this mean effect is called better, within so many. Rewards drift, and have noise.
    fn found(effect: f64, most: u32, seed: u64) -> Option<u32> {
        let mut neighbours = Neighbours::new(2);
        let mut chance = Chance::of_part(seed, 0);
        let mut level = 0.9;
        for count in 1..=most {
            for explores in [false, true, false] {
                level = (level + 0.02 * (uniform(&mut chance) - 0.5)).clamp(0.7, 0.95);
                let noise = 0.04 * (uniform(&mut chance) - 0.5);
                match explores {
                    true => neighbours.see(1, level + noise + effect),
                    false => neighbours.see_own(level + noise),
                }
            }
            if neighbours.better().is_some() {
                return Some(count);
            }
        }
        None
    }

    #[test]
    fn an_arm_that_changes_nothing_is_hardly_ever_called_better() {
        let seeds = 0..400;
        let wrong = seeds
            .filter(|seed| found(0.0, 400, *seed).is_some())
            .count();
        assert!(wrong <= 20, "{wrong} of 400");
    }

    #[test]
    fn an_arm_that_is_better_by_a_point_is_found() {
        let counts: Vec<Option<u32>> = (0..40).map(|seed| found(0.01, 400, seed)).collect();
        assert!(counts.iter().flatten().count() >= 38, "{counts:?}");
        assert!((0..40).all(|seed| found(-0.01, 400, seed).is_none()));
    }

    #[test]
    fn a_straight_drift_is_no_effect_and_one_difference_has_no_interval() {
        let mut neighbours = Neighbours::new(2);
        neighbours.see_own(0.5);
        neighbours.see(1, 0.75);
        assert_eq!(neighbours.arms()[1].effect().count, 0);
        neighbours.see_own(1.0);
        let effect = neighbours.arms()[1].effect();
        assert_eq!((effect.count, effect.mean), (1, 0.0));
        assert!(effect.ci95.is_nan());
    }
}
