//! Usage of consecutive steps in memory, and the windows of a horizon's length in it.
//!
//! A tape ends with the newest closed step, as all others do, and begins when something was known first; NaN is a gap.

use super::horizon::Plan;

/// Mean rates and rates of the peak step of successive windows, in tokens per second, oldest first; NaN where less than half of a window is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Windows {
    pub(super) means: Vec<f64>,
    pub(super) peaks: Vec<f64>,
}

/// Steps that belong together.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    sum: f64,
    known: usize,
    most: f64,
}

// === impl Block ===

impl Block {
    fn of(values: &[f64]) -> Self {
        let known = values.iter().filter(|value| !value.is_nan());
        known.fold(Self::default(), |block, value| {
            block.and(Self {
                sum: *value,
                known: 1,
                most: *value,
            })
        })
    }

    fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            known: self.known.saturating_add(other.known),
            most: self.most.max(other.most),
        }
    }

    /// Mean and peak, if half of so many steps are known.
    fn rates(self, steps: usize, step_s: f64) -> Option<(f64, f64)> {
        let is_known = self.known > 0 && self.known.saturating_mul(2) >= steps;
        is_known.then(|| (self.sum / self.known as f64 / step_s, self.most / step_s))
    }
}

// === impl Windows ===

impl Windows {
    /// The last window ends with the tape.
    pub(super) fn of(tape: &[f64], plan: &Plan) -> Self {
        let blocks: Vec<Block> = tape
            .rchunks_exact(plan.stride.max(1))
            .rev()
            .map(Block::of)
            .collect();
        let windows = blocks.windows(plan.parts.max(1)).map(|window| {
            let all = window
                .iter()
                .fold(Block::default(), |all, block| all.and(*block));
            all.rates(plan.steps, plan.step_s())
                .unwrap_or((f64::NAN, f64::NAN))
        });
        let (means, peaks) = windows.unzip();
        Self { means, peaks }
    }

    /// How many are known.
    pub(super) fn known(&self) -> usize {
        self.means.iter().filter(|mean| !mean.is_nan()).count()
    }
}

/// Mean rate and rate of the peak step of some steps, if half of them are known.
pub(super) fn rates(steps: &[f64], step_s: f64) -> Option<(f64, f64)> {
    Block::of(steps).rates(steps.len(), step_s)
}

/// What the store has of a step: a gap where it is no amount.
pub(super) fn amount(value: f32) -> f32 {
    if value.is_finite() && value >= 0.0 {
        value
    } else {
        f32::NAN
    }
}

/// Adds the newest steps of a tape, or of another sum, to those of a sum that ends with the same step. A gap adds nothing.
pub(super) fn add<T: Copy + Into<f64>>(sum: &mut Vec<f64>, tape: &[T]) {
    if let Some(lacking) = tape.len().checked_sub(sum.len()).filter(|lack| *lack > 0) {
        sum.splice(0..0, std::iter::repeat_n(f64::NAN, lacking));
    }
    for (sum, value) in sum.iter_mut().rev().zip(tape.iter().rev()) {
        let value: f64 = (*value).into();
        if !value.is_nan() {
            *sum = value + if sum.is_nan() { 0.0 } else { *sum };
        }
    }
}

/// Makes gaps of the steps in which a part of a sum is not known. Both end with the same step.
pub(super) fn blank(sum: &mut [f64], are_unseen: &[bool]) {
    for (sum, is_unseen) in sum.iter_mut().rev().zip(are_unseen.iter().rev()) {
        if *is_unseen {
            *sum = f64::NAN;
        }
    }
}

/// A sum of some as long as that of all, with zeros wherever anything of all is known: nobody has heard that they used anything.
pub(super) fn filled_by(sum: &[f64], all: &[f64]) -> Vec<f64> {
    let before = all.len().saturating_sub(sum.len());
    let values = std::iter::repeat_n(f64::NAN, before).chain(sum.iter().copied());
    let of_step = |(value, all): (f64, &f64)| match (value.is_nan(), all.is_nan()) {
        (true, false) => 0.0,
        _ => value,
    };
    values.zip(all).map(of_step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::horizon::HORIZONS;
    use super::*;

    #[test]
    fn the_last_window_ends_with_the_newest_step_and_half_of_it_may_be_unknown() {
        // Five minutes of 100 s steps: windows of three that begin with each step.
        let plan = HORIZONS[0].plan(100_000, u64::MAX).unwrap();
        let gap = f64::NAN;
        let windows = Windows::of(&[100.0, 200.0, 600.0, gap, gap, gap, 900.0], &plan);
        let of = |values: &[f64]| -> Vec<Option<f64>> {
            let known = values.iter().map(|value| Some(*value));
            known
                .map(|value| value.filter(|value| !value.is_nan()))
                .collect()
        };
        assert_eq!(of(&windows.means), [Some(3.0), Some(4.0), None, None, None]);
        assert_eq!(of(&windows.peaks), [Some(6.0), Some(6.0), None, None, None]);
        assert_eq!(windows.known(), 2);
    }

    #[test]
    fn sums_end_with_the_same_step_and_gaps_add_nothing() {
        let mut sum = Vec::new();
        add(&mut sum, &[1.0_f32, 2.0]);
        add(&mut sum, &[f32::NAN, 10.0, f32::NAN, 30.0]);
        assert!(sum[0].is_nan());
        assert_eq!(sum[1..], [10.0, 1.0, 32.0]);
        let filled = filled_by(&[5.0], &sum);
        assert!(filled[0].is_nan());
        assert_eq!(filled[1..], [0.0, 0.0, 5.0]);
        blank(&mut sum, &[true, false]);
        assert!(sum[2].is_nan());
        assert_eq!((sum[1], sum[3]), (10.0, 32.0));
    }

    #[test]
    fn what_is_no_amount_is_a_gap() {
        for value in [f32::NAN, f32::INFINITY, -1.0] {
            assert!(amount(value).is_nan(), "{value}");
        }
        assert_eq!(amount(f32::MAX), f32::MAX);
    }
}
