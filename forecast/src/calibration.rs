//! Adaptive conformal calibration: quantiles that keep their promise when demand changes its nature.
//!
//! A quantile fitted on last month's errors drifts (research on the same data: the 0.9 quantile of a static model
//! covers 70 to 87 %). After each matured forecast the offset moves up by `rate x q` when demand was above the quantile
//! and down by `rate x (1 - q)` when it was below, so the long-run share of misses is right under any distribution,
//! without a window of old scores to store. The step is in units of the forecast's own width: a fixed amount would be a
//! shrug for a bursty customer and a jolt for a smooth one, and units of the customer's mean usage go wrong when a burst
//! follows silence (measured: the pooled loss of the ensemble rose by a sixth).

/// Offsets of one customer, `[checkpoint][quantile]`, in units of the forecast's width (outermost quantiles apart).
#[derive(Clone, Debug)]
pub struct Calibration {
    quantiles: usize,
    offsets: Vec<f32>,
}

/// Widths that one miss of a sure quantile moves its offset.
const RATE: f32 = 0.02;
/// Offsets stay within this many widths: a long outage must not wind them up.
const OFFSET_WIDTHS_MAX: f32 = 2.0;

// === impl Calibration ===

impl Calibration {
    /// Starts without any offset.
    #[must_use]
    pub fn new(checkpoints: usize, quantiles: usize) -> Self {
        Self {
            quantiles,
            offsets: vec![0.0; checkpoints.saturating_mul(quantiles)],
        }
    }

    /// The offsets at `checkpoint`, one per quantile, in widths; empty outside.
    #[must_use]
    pub fn offsets(&self, checkpoint: usize) -> &[f32] {
        let start = checkpoint.saturating_mul(self.quantiles);
        self.offsets
            .get(start..start.saturating_add(self.quantiles))
            .unwrap_or(&[])
    }

    /// Learns from a matured forecast: `forecast` holds the calibrated quantiles that were given for a step whose usage
    /// turned out to be `actual`; `levels` are the quantiles' levels.
    pub fn observe(&mut self, checkpoint: usize, levels: &[f32], forecast: &[f32], actual: f32) {
        let start = checkpoint.saturating_mul(self.quantiles);
        let Some(offsets) = self
            .offsets
            .get_mut(start..start.saturating_add(self.quantiles))
        else {
            return;
        };
        if !actual.is_finite() || forecast.iter().any(|value| !value.is_finite()) {
            return;
        }
        for ((offset, level), value) in offsets.iter_mut().zip(levels).zip(forecast) {
            let toward = if actual > *value {
                *level
            } else {
                *level - 1.0
            };
            *offset = (*offset + RATE * toward).clamp(-OFFSET_WIDTHS_MAX, OFFSET_WIDTHS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [f32; 3] = [0.1, 0.5, 0.9];
    const WIDTH: f32 = 40.0;

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
            let base = [50.0, 70.0, 90.0];
            let given: Vec<f32> = base
                .iter()
                .zip(calibration.offsets(0))
                .map(|(b, o)| b + o * WIDTH)
                .collect();
            calibration.observe(0, &LEVELS, &given, actual);
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
            calibration.observe(0, &LEVELS, &[0.0; 3], 100.0);
        }
        assert!(
            calibration
                .offsets(0)
                .iter()
                .all(|o| o.abs() <= OFFSET_WIDTHS_MAX)
        );
    }

    #[test]
    fn nonsense_teaches_nothing() {
        let mut calibration = Calibration::new(1, 3);
        calibration.observe(0, &LEVELS, &[f32::NAN; 3], 1.0);
        calibration.observe(0, &LEVELS, &[0.0; 3], f32::INFINITY);
        calibration.observe(7, &LEVELS, &[0.0; 3], 1.0);
        assert_eq!(calibration.offsets(0), &[0.0; 3]);
    }
}
