//! Adaptive conformal calibration: quantiles that keep their promise when demand changes its nature.
//!
//! A quantile fitted on last month's errors drifts (research on the same data: the 0.9 quantile of a static model
//! covers 70 to 87 %). After each matured forecast the offset moves up by `rate x q` when demand was above the quantile
//! and down by `rate x (1 - q)` when it was below, so the long-run share of misses is right under any distribution,
//! without a window of old scores to store. The step is in units of the customer's own recent error, because a fixed
//! one would be a shrug for a bursty customer and a jolt for a smooth one.

/// Offsets of one customer, `[checkpoint][quantile]`, in tokens per token of the window's mean usage.
#[derive(Clone, Debug)]
pub struct Calibration {
    quantiles: usize,
    offsets: Vec<f32>,
    /// Discounted mean absolute error of the median, relative to the scale, per checkpoint.
    spreads: Vec<f32>,
}

/// Share of the recent error that one miss moves an offset.
const RATE: f32 = 0.05;
/// Share of the error average that is kept per step.
const SPREAD_KEPT: f32 = 0.95;
/// Offsets stay within this many recent errors: a long outage must not wind them up.
const OFFSET_ERRORS_MAX: f32 = 5.0;

// === impl Calibration ===

impl Calibration {
    /// Starts without any offset.
    #[must_use]
    pub fn new(checkpoints: usize, quantiles: usize) -> Self {
        Self {
            quantiles,
            offsets: vec![0.0; checkpoints.saturating_mul(quantiles)],
            spreads: vec![0.0; checkpoints],
        }
    }

    /// The offsets at `checkpoint`, one per quantile, relative to the scale; empty outside.
    #[must_use]
    pub fn offsets(&self, checkpoint: usize) -> &[f32] {
        let start = checkpoint.saturating_mul(self.quantiles);
        self.offsets
            .get(start..start.saturating_add(self.quantiles))
            .unwrap_or(&[])
    }

    /// Learns from a matured forecast: `forecast` holds the calibrated quantiles that were given for a step whose usage
    /// turned out to be `actual`; `levels` are the quantiles' levels; `scale` was the window's mean usage.
    pub fn observe(
        &mut self,
        checkpoint: usize,
        levels: &[f32],
        forecast: &[f32],
        actual: f32,
        scale: f32,
    ) {
        let scale = scale.max(f32::MIN_POSITIVE);
        let Some(median) = nearest_to_median(levels, forecast) else {
            return;
        };
        let error = ((actual - median) / scale).abs();
        if !error.is_finite() {
            return;
        }
        let Some(spread) = self.spreads.get_mut(checkpoint) else {
            return;
        };
        *spread = if *spread == 0.0 {
            error
        } else {
            SPREAD_KEPT * *spread + (1.0 - SPREAD_KEPT) * error
        };
        let (step, bound) = (RATE * *spread, OFFSET_ERRORS_MAX * *spread);
        let start = checkpoint.saturating_mul(self.quantiles);
        let Some(offsets) = self
            .offsets
            .get_mut(start..start.saturating_add(self.quantiles))
        else {
            return;
        };
        for ((offset, level), value) in offsets.iter_mut().zip(levels).zip(forecast) {
            let toward = if actual > *value {
                *level
            } else {
                *level - 1.0
            };
            *offset = (*offset + step * toward).clamp(-bound, bound);
        }
    }
}

/// The forecast whose level is closest to one half.
fn nearest_to_median(levels: &[f32], forecast: &[f32]) -> Option<f32> {
    let distance = |level: f32| (level - 0.5).abs();
    levels
        .iter()
        .zip(forecast)
        .min_by(|(a, _), (b, _)| distance(**a).total_cmp(&distance(**b)))
        .map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [f32; 3] = [0.1, 0.5, 0.9];

    /// A cheap deterministic sequence, spread evenly over 0..1.
    fn uniform(i: u32) -> f32 {
        (i.wrapping_mul(2_654_435_769) >> 8) as f32 / 16_777_216.0
    }

    #[test]
    fn coverage_reaches_its_level_although_the_forecast_is_far_too_low() {
        let mut calibration = Calibration::new(1, 3);
        let mut covered = 0;
        for i in 0..4_000 {
            let actual = 50.0 + 100.0 * uniform(i);
            let base = [60.0, 70.0, 80.0];
            let given: Vec<f32> = base
                .iter()
                .zip(calibration.offsets(0))
                .map(|(b, o)| b + o * 100.0)
                .collect();
            calibration.observe(0, &LEVELS, &given, actual, 100.0);
            if i >= 2_000 && actual <= given[2] {
                covered += 1;
            }
        }
        assert!(
            (1_700..=1_900).contains(&covered),
            "covered {covered} of 2000"
        );
    }

    #[test]
    fn offsets_are_bounded_whatever_happens() {
        let mut calibration = Calibration::new(1, 3);
        for _ in 0..10_000 {
            calibration.observe(0, &LEVELS, &[0.0; 3], 100.0, 100.0);
        }
        assert!(
            calibration
                .offsets(0)
                .iter()
                .all(|o| o.abs() <= OFFSET_ERRORS_MAX)
        );
    }

    #[test]
    fn nonsense_teaches_nothing() {
        let mut calibration = Calibration::new(1, 3);
        calibration.observe(0, &LEVELS, &[f32::NAN; 3], 1.0, 1.0);
        calibration.observe(0, &LEVELS, &[0.0; 3], f32::INFINITY, 1.0);
        calibration.observe(7, &LEVELS, &[0.0; 3], 1.0, 1.0);
        assert_eq!(calibration.offsets(0), &[0.0; 3]);
    }
}
