//! Several experts, weighed online by how well each has recently forecast this very customer.
//!
//! A customer that fires every five minutes on the dot is best served by seasonal naive, a smooth one by its last
//! value, a bursty one by the network; no offline choice is right for all of them or for long. Weights follow the
//! discounted pinball loss *relative to the best expert*, so they do not depend on the customer's size.

/// How quickly the ensemble forgets and how sharply it prefers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnsembleSettings {
    /// Share of the accumulated loss that is kept per step, inside (0, 1).
    pub discount: f32,
    /// A loss of 10 % above the best divides the weight by `exp(sharpness / 10)`. Too sharp, and the weights chase the
    /// luck of the last few steps instead of averaging errors that differ.
    pub sharpness: f32,
}

/// Discounted losses of each expert at each checkpoint (a horizon whose forecasts are remembered until they mature).
#[derive(Clone, Debug)]
pub struct Ensemble {
    experts: usize,
    /// `[checkpoint][expert]`: discounted loss; NaN while the expert was never scored.
    losses: Vec<f32>,
}

// === impl EnsembleSettings ===

impl Default for EnsembleSettings {
    /// The values with the least loss on the committed models' two data sets, over the last part of the time before the
    /// test span, forecast by networks that were trained on what came before that part.
    fn default() -> Self {
        Self {
            discount: 0.98,
            sharpness: 4.0,
        }
    }
}

// === impl Ensemble ===

impl Ensemble {
    /// No expert has been scored yet: all weigh the same.
    #[must_use]
    pub fn new(checkpoints: usize, experts: usize) -> Self {
        Self {
            experts,
            losses: vec![f32::NAN; checkpoints.saturating_mul(experts)],
        }
    }

    /// Records the mean pinball loss of `expert`'s matured forecast at `checkpoint`.
    pub fn score(
        &mut self,
        settings: &EnsembleSettings,
        checkpoint: usize,
        expert: usize,
        loss: f32,
    ) {
        let index = checkpoint
            .saturating_mul(self.experts)
            .saturating_add(expert);
        if expert >= self.experts || !loss.is_finite() {
            return;
        }
        if let Some(kept) = self.losses.get_mut(index) {
            *kept = if kept.is_nan() {
                loss
            } else {
                settings.discount * *kept + (1.0 - settings.discount) * loss
            };
        }
    }

    /// Writes the weights at `checkpoint` into `out`, one per expert, summing to one. `priors` says how much each expert
    /// weighs when all are equally good; 0 is an expert that has nothing to say.
    ///
    /// An expert that was never scored counts as good as the best: a new network was validated before it was signed,
    /// and one season of proving itself again would be a season of worse forecasts.
    pub fn weights(
        &self,
        settings: &EnsembleSettings,
        checkpoint: usize,
        priors: &[f32],
        out: &mut [f32],
    ) {
        let start = checkpoint.saturating_mul(self.experts);
        let losses = self
            .losses
            .get(start..start.saturating_add(self.experts))
            .unwrap_or(&[]);
        let best = losses
            .iter()
            .zip(priors)
            .filter(|(_, prior)| **prior > 0.0)
            .map(|(loss, _)| *loss)
            .fold(f32::NAN, f32::min);
        let mut sum = 0.0;
        for ((place, loss), prior) in out.iter_mut().zip(losses).zip(priors) {
            let excess = if loss.is_nan() || best.is_nan() {
                0.0
            } else {
                (loss - best) / best.max(f32::MIN_POSITIVE)
            };
            *place = if *prior > 0.0 {
                prior * (-settings.sharpness * excess).exp()
            } else {
                0.0
            };
            sum += *place;
        }
        if sum > 0.0 {
            for place in out {
                *place /= sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(ensemble: &Ensemble, priors: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; priors.len()];
        ensemble.weights(&EnsembleSettings::default(), 0, priors, &mut out);
        out
    }

    #[test]
    fn unscored_experts_weigh_as_their_priors_say_and_absent_ones_nothing() {
        let ensemble = Ensemble::new(1, 3);
        assert_eq!(weights(&ensemble, &[1.0, 0.0, 1.0]), [0.5, 0.0, 0.5]);
        assert_eq!(weights(&ensemble, &[3.0, 0.0, 1.0]), [0.75, 0.0, 0.25]);
        assert_eq!(weights(&ensemble, &[0.0; 3]), [0.0; 3]);
    }

    #[test]
    fn the_better_expert_wins_whatever_the_size_of_the_customer() {
        for scale in [1e-3, 1.0, 1e6] {
            let mut ensemble = Ensemble::new(1, 2);
            for _ in 0..20 {
                ensemble.score(&EnsembleSettings::default(), 0, 0, 1.0 * scale);
                ensemble.score(&EnsembleSettings::default(), 0, 1, 1.5 * scale);
            }
            let weights = weights(&ensemble, &[1.0, 1.0]);
            assert!((0.86..0.9).contains(&weights[0]), "{weights:?}");
        }
    }

    #[test]
    fn a_perfect_expert_takes_all_and_loses_it_when_it_fails() {
        let settings = EnsembleSettings::default();
        let mut ensemble = Ensemble::new(1, 2);
        for _ in 0..50 {
            ensemble.score(&settings, 0, 0, 0.0);
            ensemble.score(&settings, 0, 1, 1.0);
        }
        assert_eq!(weights(&ensemble, &[1.0, 1.0]), [1.0, 0.0]);
        for _ in 0..200 {
            ensemble.score(&settings, 0, 0, 5.0);
            ensemble.score(&settings, 0, 1, 1.0);
        }
        assert!(weights(&ensemble, &[1.0, 1.0])[1] > 0.99);
    }

    #[test]
    fn scores_that_are_no_numbers_are_ignored() {
        let mut ensemble = Ensemble::new(1, 2);
        ensemble.score(&EnsembleSettings::default(), 0, 0, f32::NAN);
        ensemble.score(&EnsembleSettings::default(), 0, 7, 1.0);
        ensemble.score(&EnsembleSettings::default(), 9, 0, 1.0);
        assert_eq!(weights(&ensemble, &[1.0, 1.0]), [0.5, 0.5]);
    }
}
