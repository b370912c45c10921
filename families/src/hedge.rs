//! Weights that are never much worse than the best family, whatever comes: exponential ones of discounted losses, at a rate that the losses set themselves.
//!
//! AdaHedge (de Rooij, van Erven, Grünwald and Koolen, JMLR 15, 2014) with a discount `d` per outcome. A family's weight is
//! `prior * exp(-rate * d * loss)` with its discounted sum of losses, and the rate is `ln(families) / gap`, where `gap` is the discounted sum of what
//! the mixture lost above the *mix loss* `-ln(sum of weight * exp(-rate * loss)) / rate`.
//!
//! **What holds.** For every sequence of losses, after every outcome, and against every family `i` with its part `p(i)` of the prior:
//!
//! ```text
//! discounted loss of the mixture <= that of family i + (1 + ln(1 / p(i)) / ln(families)) * gap
//! gap <= largest spread of losses at an outcome * sqrt((1 + ln(families) / 4) / (1 - d * d)), if outcomes are heard of at once
//! ```
//!
//! Why: with `P(t, rate) = -ln(sum of prior * exp(-rate * loss(t))) / rate`, the mix loss at `t` is `P(t, rate(t)) - d * P(t - 1, d * rate(t))`. `P` falls
//! in its rate, and `d * rate(t) <= rate(t - 1)` because no gap shrinks faster than by `d`; so the discounted mix losses telescope to at most
//! `P(t, rate(t)) <= loss(t, i) + ln(1 / p(i)) / rate(t)`. The mixture itself loses no more than the weighted mean of losses, for the pinball loss is convex. The
//! second line is Hoeffding's lemma, as for AdaHedge (Cesa-Bianchi and Lugosi, Prediction, Learning, and Games, 2006, section 2.2, for a fixed rate).
//! An outcome that is heard of late was forecast with older weights: what that costs is a part of the gap, so the first line holds still.
//!
//! A family that has no forecast of an outcome loses the mix loss there: the first line then holds for the outcomes that it forecast
//! (specialists: Freund, Schapire, Singer and Warmuth, STOC 1997).
//!
//! Weights that fall with a loss above the best one's *as a part of it* were the worse alternative: where the best family is nearly exact they follow the leader, and
//! an adversary makes such a mixture lose each time.

/// The least gap that the rate and the bound are taken of, as a part of the largest spread of losses lately: keeps rates finite.
const GAP_MIN: f64 = 1e-9;
/// And where there has been no spread yet.
const GAP_LEAST: f64 = 1e-200;

/// Weights of families by one loss.
#[derive(Clone, Debug)]
pub(crate) struct Hedge {
    /// Part of a loss that is kept per outcome.
    discount: f64,
    /// `[family]`: discounted sums.
    losses: Vec<f64>,
    /// Discounted sum of what the mixture lost above the mix loss.
    gap: f64,
    /// The largest difference between two families' losses at an outcome, which fades.
    spread: f64,
}

// === impl Hedge ===

impl Hedge {
    pub(crate) fn new(families: usize, discount: f64) -> Self {
        Self {
            discount,
            losses: vec![0.0; families],
            gap: 0.0,
            spread: 0.0,
        }
    }

    fn rate(&self) -> f64 {
        let families = self.losses.len().max(2) as f64;
        families.ln() / self.gap.max(GAP_MIN * self.spread).max(GAP_LEAST)
    }

    /// Weights of the families that are present, which sum to 1; zeros if none is.
    pub(crate) fn weights(
        &self,
        prior: impl Fn(usize) -> f64,
        is_present: impl Fn(usize) -> bool,
        out: &mut [f64],
    ) {
        let rate = self.rate() * self.discount;
        let present = self
            .losses
            .iter()
            .enumerate()
            .filter(|(family, _)| is_present(*family));
        let best = present.map(|(_, loss)| *loss).fold(f64::MAX, f64::min);
        let mut sum = 0.0;
        for (family, (weight, loss)) in out.iter_mut().zip(&self.losses).enumerate() {
            *weight = match is_present(family) {
                true => prior(family) * (-rate * (loss - best)).exp(),
                false => 0.0,
            };
            sum += *weight;
        }
        if sum > 0.0 {
            out.iter_mut().for_each(|weight| *weight /= sum);
        }
    }

    /// Learns what each family has lost, NaN without a forecast, when the mixture had the weights `given`.
    pub(crate) fn learn(&mut self, prior: impl Fn(usize) -> f64, given: &[f64], losses: &[f64]) {
        let least = losses.iter().copied().fold(f64::NAN, f64::min);
        let most = losses.iter().copied().fold(f64::NAN, f64::max);
        if least.is_nan() {
            return;
        }
        let rate = self.rate();
        let known = || losses.iter().enumerate().filter(|(_, loss)| !loss.is_nan());
        let best = known()
            .map(|(family, _)| self.losses[family])
            .fold(f64::MAX, f64::min);
        let before = |family: usize| {
            prior(family).ln() - rate * self.discount * (self.losses[family] - best)
        };
        let all = log_sum(known().map(|(family, _)| before(family)));
        let kept = log_sum(known().map(|(family, loss)| before(family) - rate * (loss - least)));
        let mix = least + (all - kept) / rate;
        let lost: f64 = known().map(|(family, loss)| given[family] * loss).sum();
        self.gap = self.discount * self.gap + (lost - mix).max(0.0);
        self.spread = (self.discount * self.spread).max(most - least);
        for (sum, loss) in self.losses.iter_mut().zip(losses) {
            *sum = self.discount * *sum + if loss.is_nan() { mix } else { *loss };
        }
    }
}

/// The logarithm of the sum of what these are logarithms of.
fn log_sum(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    most + logs.map(|log| (log - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAMILIES: usize = 4;
    const DISCOUNT: f64 = 0.95;

    /// What an adversary does who sees the weights.
    #[derive(Clone, Copy, Debug)]
    enum Move {
        /// Losses of no regard to weights.
        Blind([f64; FAMILIES]),
        /// Who has the most weight loses this, the others nothing.
        HurtTheLeader(f64),
        /// Who has the least weight loses nothing, the others this.
        HelpTheLast(f64),
        /// So has a family that gives no forecast, while the others lose as blindly.
        Absent(usize, [f64; FAMILIES]),
    }

    /// Losses over twelve powers of ten.
    fn loss() -> impl Strategy<Value = f64> {
        (-6.0..6.0_f64, any::<bool>())
            .prop_map(|(size, is_zero)| if is_zero { 0.0 } else { 10_f64.powf(size) })
    }

    fn moves() -> impl Strategy<Value = Move> {
        let blind = || [loss(), loss(), loss(), loss()];
        prop_oneof![
            blind().prop_map(Move::Blind),
            loss().prop_map(Move::HurtTheLeader),
            Just(Move::HurtTheLeader(1.0)),
            Just(Move::HelpTheLast(1.0)),
            loss().prop_map(Move::HelpTheLast),
            (0..FAMILIES, blind()).prop_map(|(family, losses)| Move::Absent(family, losses)),
        ]
    }

    fn losses_of(step: Move, weights: &[f64]) -> Vec<f64> {
        let by_weight = |a: &usize, b: &usize| weights[*a].total_cmp(&weights[*b]);
        let leader = (0..FAMILIES).max_by(by_weight).unwrap();
        let last = (0..FAMILIES).min_by(by_weight).unwrap();
        let of = |family: usize| match step {
            Move::Blind(losses) => losses[family],
            Move::HurtTheLeader(loss) => {
                if family == leader {
                    loss
                } else {
                    0.0
                }
            }
            Move::HelpTheLast(loss) => {
                if family == last {
                    0.0
                } else {
                    loss
                }
            }
            Move::Absent(absent, losses) => {
                if family == absent {
                    f64::NAN
                } else {
                    losses[family]
                }
            }
        };
        (0..FAMILIES).map(of).collect()
    }

    proptest! {
        /// Outcomes heard of at once, and up to three steps late.
        #[test]
        fn no_adversary_makes_the_mixture_lose_more_than_the_bound(
            steps in prop::collection::vec(moves(), 1..300),
            priors in prop::array::uniform4(0.01..1.0_f64),
            late in 0..4_usize,
        ) {
            let mut hedge = Hedge::new(FAMILIES, DISCOUNT);
            let prior = |family: usize| priors[family];
            let mut excess = [0.0; FAMILIES];
            let mut waiting = std::collections::VecDeque::new();
            let mut spread_most = 0.0_f64;
            for step in steps {
                let mut weights = vec![0.0; FAMILIES];
                hedge.weights(prior, |_| true, &mut weights);
                let losses = losses_of(step, &weights);
                // Who is known to be absent gets no weight.
                hedge.weights(prior, |family| !losses[family].is_nan(), &mut weights);
                let known = || losses.iter().filter(|loss| !loss.is_nan());
                let most = known().copied().fold(0.0, f64::max);
                spread_most = spread_most.max(most - known().copied().fold(f64::MAX, f64::min));
                waiting.push_back((weights, losses));
                if waiting.len() <= late {
                    continue;
                }
                let (weights, losses) = waiting.pop_front().unwrap();
                hedge.learn(prior, &weights, &losses);
                let known = || losses.iter().zip(&weights).filter(|(loss, _)| !loss.is_nan());
                let lost: f64 = known().map(|(loss, weight)| loss * weight).sum();
                let sum: f64 = priors.iter().sum();
                let gap = hedge.gap.max(GAP_MIN * hedge.spread);
                for family in 0..FAMILIES {
                    excess[family] *= DISCOUNT;
                    if !losses[family].is_nan() {
                        excess[family] += lost - losses[family];
                    }
                    let surprise = (sum / priors[family]).ln();
                    let bound = (1.0 + surprise / (FAMILIES as f64).ln()) * gap;
                    prop_assert!(excess[family] <= bound + 1e-9 * spread_most, "{} above {bound}", excess[family]);
                }
                if late == 0 {
                    let a_priori = (1.0 + (FAMILIES as f64).ln() / 4.0) / (1.0 - DISCOUNT * DISCOUNT);
                    prop_assert!(hedge.gap <= spread_most * a_priori.sqrt() * (1.0 + 1e-9), "{} of {spread_most}", hedge.gap);
                }
            }
        }
    }

    /// The worst that following the leader meets: whoever has the most weight loses, each time.
    #[test]
    fn an_adversary_that_always_hurts_the_leader_gains_no_more_than_the_bound() {
        let mut hedge = Hedge::new(FAMILIES, DISCOUNT);
        let (mut lost, mut sums) = (0.0, [0.0; FAMILIES]);
        let a_priori = (1.0 + (FAMILIES as f64).ln() / 4.0) / (1.0 - DISCOUNT * DISCOUNT);
        for _ in 0..400 {
            let mut weights = vec![0.0; FAMILIES];
            hedge.weights(|_| 1.0, |_| true, &mut weights);
            let losses = losses_of(Move::HurtTheLeader(1.0), &weights);
            hedge.learn(|_| 1.0, &weights, &losses);
            let now: f64 = losses.iter().zip(&weights).map(|(l, w)| l * w).sum();
            lost = DISCOUNT * lost + now;
            for (sum, loss) in sums.iter_mut().zip(&losses) {
                *sum = DISCOUNT * *sum + loss;
            }
            let best = sums.iter().copied().fold(f64::MAX, f64::min);
            assert!(hedge.gap <= a_priori.sqrt(), "a gap of {}", hedge.gap);
            assert!(
                lost <= best + 2.0 * a_priori.sqrt(),
                "{lost}, the best {best}"
            );
        }
    }
}
