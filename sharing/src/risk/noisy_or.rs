//! Why an account was short, in probabilities that a person can read: a Bayesian network of noisy ORs (Pearl 1988).
//!
//! An account is short unless each cause that is there fails to make it so, independently: `P(short | causes) = 1 - (1 - l_0) prod (1 - l_i)`
//! over the causes that are on. Causes are other accounts' spikes and known events side by side, so an event that explains a shortage leaves
//! nothing of it to an account that spiked in the same event. A recurrent network would predict a little better and could not say why. The score does
//! not need this model: it says what has been, and scores say what will be under the next allocation.

use std::collections::BTreeMap;

/// More causes are not looked at: a history cannot tell them apart.
const MOST_CAUSES: usize = 63;

/// Each cause was there on this many further steps, without effect: a cause that was there once proves nothing.
const DOUBTS: f64 = 2.0;

/// Sweeps at most, and the change of a likelihood at which they end.
const SWEEPS: usize = 2000;
const SETTLED: f64 = 1e-9;

/// Something that can leave an account short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Whatever else.
    Other,
    /// A cause by its position.
    Known(usize),
}

/// A part of an explanation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of what.
    pub cause: Cause,
    /// From 0 to 1.
    pub share: f64,
}

/// What makes one account short.
#[derive(Clone, Debug, PartialEq)]
pub struct NoisyOr {
    /// The probability that it is short without any known cause.
    pub usual: f64,
    /// For each known cause, the probability that it alone makes the account short.
    pub links: Vec<f64>,
}

// === impl NoisyOr ===

impl NoisyOr {
    /// Learns from steps: whether the account was short within the horizon, and for each cause whether it was there; none where that is not
    /// known. Causes beyond the sixty-third are left out. By expectation maximisation, whose likelihood grows with each sweep.
    #[must_use]
    pub fn learn(is_short: &[Option<bool>], causes: &[&[bool]]) -> Self {
        let causes = &causes[..causes.len().min(MOST_CAUSES)];
        // Bit 0 is what else there is, and always on.
        let mut steps: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
        for (step, is_short) in is_short.iter().enumerate() {
            let Some(is_short) = is_short else {
                continue;
            };
            let on = causes.iter().enumerate().fold(1, |on, (at, cause)| {
                on | u64::from(cause.get(step).copied().unwrap_or(false)) << (at + 1)
            });
            steps.entry(on).or_default()[usize::from(*is_short)] += 1.0;
        }
        let mut links = vec![0.2; causes.len() + 1];
        let present: Vec<f64> = (0..links.len())
            .map(|at| {
                let on = steps.iter().filter(|(on, _)| is_on(**on, at));
                on.map(|(_, [not, short])| not + short).sum::<f64>() + DOUBTS
            })
            .collect();
        for _ in 0..SWEEPS {
            let mut effects = vec![0.0; links.len()];
            for (on, [_, short]) in &steps {
                let probability = short_by(&links, *on);
                if *short > 0.0 && probability > 0.0 {
                    for (at, effect) in effects.iter_mut().enumerate() {
                        if is_on(*on, at) {
                            *effect += short * links[at] / probability;
                        }
                    }
                }
            }
            let mut change = 0.0_f64;
            for ((link, effect), present) in links.iter_mut().zip(effects).zip(&present) {
                let next = effect / present;
                change = change.max((next - *link).abs());
                *link = next;
            }
            if change < SETTLED {
                break;
            }
        }
        let usual = links.remove(0);
        Self { usual, links }
    }

    /// The probability that the account is short when these causes are there.
    #[must_use]
    pub fn probability(&self, is_there: &[bool]) -> f64 {
        let fails = self
            .links
            .iter()
            .zip(is_there)
            .filter(|(_, is_there)| **is_there)
            .map(|(link, _)| 1.0 - link);
        1.0 - (1.0 - self.usual) * fails.product::<f64>()
    }

    /// Which part each cause that is there has in the probability, the largest first: in the logarithms in which they add up.
    #[must_use]
    pub fn explain(&self, is_there: &[bool]) -> Vec<Share> {
        let weight = |link: f64| -(1.0 - link.min(1.0 - 1e-12)).ln();
        let known = self.links.iter().zip(is_there).enumerate();
        let mut shares: Vec<Share> = known
            .filter(|(_, (_, is_there))| **is_there)
            .map(|(at, (link, _))| Share {
                cause: Cause::Known(at),
                share: weight(*link),
            })
            .collect();
        shares.push(Share {
            cause: Cause::Other,
            share: weight(self.usual),
        });
        let sum: f64 = shares.iter().map(|share| share.share).sum();
        for share in &mut shares {
            share.share = if sum > 0.0 { share.share / sum } else { 0.0 };
        }
        shares.sort_by(|left, right| right.share.total_cmp(&left.share));
        shares
    }
}

fn is_on(on: u64, at: usize) -> bool {
    on >> at & 1 == 1
}

fn short_by(links: &[f64], on: u64) -> f64 {
    let causes = links.iter().enumerate();
    let fails = causes
        .filter(|(at, _)| is_on(on, *at))
        .map(|(_, link)| 1.0 - link);
    1.0 - fails.product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::chance::Chance;

    /// An event brings on the first account's spike in 80 % of its steps and makes the other one short in 60 %; a second account, which spikes by
    /// itself, in 40 %.
    fn steps() -> (Vec<Option<bool>>, [Vec<bool>; 3]) {
        let mut chance = Chance::of_part(11, 0);
        let mut happens =
            move |probability: f64| chance.below(1_000_000) as f64 / 1e6 < probability;
        let mut short = Vec::new();
        let mut causes = [const { Vec::new() }; 3];
        for _ in 0..8000 {
            let event = happens(0.05);
            let first = happens(if event { 0.8 } else { 0.01 });
            let second = happens(0.05);
            let is_short = event && happens(0.6) || second && happens(0.4) || happens(0.02);
            short.push(Some(is_short));
            for (cause, is_there) in causes.iter_mut().zip([first, second, event]) {
                cause.push(is_there);
            }
        }
        (short, causes)
    }

    #[test]
    fn a_known_event_explains_a_spurious_link_away() {
        let (short, [first, second, event]) = steps();
        let blind = NoisyOr::learn(&short, &[&first, &second]);
        let seeing = NoisyOr::learn(&short, &[&first, &second, &event]);
        assert!(blind.links[0] > 0.4, "{blind:?}");
        assert!(seeing.links[0] < 0.1, "{seeing:?}");
        assert!((seeing.links[1] - 0.4).abs() < 0.08, "{seeing:?}");
        assert!((seeing.links[2] - 0.6).abs() < 0.08, "{seeing:?}");
        assert!((seeing.usual - 0.02).abs() < 0.01, "{seeing:?}");
        let expected = 1.0 - 0.98 * 0.6 * 0.4;
        assert!((seeing.probability(&[false, true, true]) - expected).abs() < 0.06);
        let shares = seeing.explain(&[true, false, true]);
        assert_eq!(shares[0].cause, Cause::Known(2));
        assert!((shares.iter().map(|share| share.share).sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn steps_that_are_not_known_teach_nothing() {
        let cause = vec![true; 10];
        let mut short = vec![Some(true); 5];
        short.extend([None; 5]);
        let known = NoisyOr::learn(&short, &[&cause]);
        assert_eq!(known, NoisyOr::learn(&short[..5], &[&cause[..5]]));
        let nothing = NoisyOr::learn(&[None; 5], &[]);
        assert_eq!(nothing.probability(&[]), 0.0);
    }
}
