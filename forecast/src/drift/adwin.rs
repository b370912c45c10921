//! ADWIN, a window as long as its mean stays the same (Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, SIAM Data Mining 2007).
//!
//! Whenever two parts of the window, older and newer, have means that differ by more than chance explains, the older part is dropped. It promises that
//! at each step a window without change is cut with a probability of no more than `confidence`, for any distribution within the bounds, and needs no allowance. The price
//! is delay: a bound that holds for all distributions is wide.
//!
//! The window is kept as an exponential histogram (ADWIN2 in the paper): sums of 1, 2, 4, ... values, five of each at most, so thousands of values take some dozens of
//! sums, and only cuts between sums are tried.

use super::{Detector, Direction, Drift};
use std::collections::VecDeque;

/// Sums of the same number of values; more find changes a little sooner and cost as much more.
const SUMS_OF_SIZE: usize = 5;
/// Sizes of sums: the window is no longer than five times two to this power, some five million values.
const SIZES_MAX: usize = 20;
/// Shifts that take longer to find are as good as never found.
const DELAY_MAX: u32 = 100_000;
/// Parts with fewer values are not compared.
const PART_MIN: f64 = 5.0;

/// A detector of changes of the mean of bounded values.
#[derive(Clone, Debug)]
pub struct Adwin {
    confidence: f64,
    low: f64,
    width: f64,
    /// By size, the smallest first; newest at the back.
    sizes: Vec<VecDeque<Part>>,
    window: Part,
}

/// Some successive values, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    count: f64,
    sum: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

// === impl Adwin ===

impl Adwin {
    /// The probability of a false alarm at each step is at most `confidence`. Values are from `low` to `high`; those beyond count as these.
    #[must_use]
    pub fn new(confidence: f64, low: f64, high: f64) -> Self {
        Self {
            confidence,
            low,
            width: (high - low).max(f64::MIN_POSITIVE),
            sizes: Vec::new(),
            window: Part::default(),
        }
    }

    /// Values in the window, which have had the same mean as far as can be told.
    #[must_use]
    pub fn window_steps(&self) -> u32 {
        self.window.count as u32
    }

    /// Values after which a shift of the mean is found for certain, up to chance, in a window of `before` values of this standard deviation: the first number at which the
    /// shift is above what chance may explain.
    #[must_use]
    pub fn delay_bound(&self, before: u32, deviation: f64, shift: f64) -> Option<u32> {
        let (before, shift) = (f64::from(before), shift / self.width);
        let spread = (deviation / self.width).powi(2);
        (1..DELAY_MAX).find(|after| {
            let after = f64::from(*after);
            let both = before + after;
            let variance = spread + shift * shift * before * after / (both * both);
            after >= PART_MIN && shift > self.bound(before, after, variance)
        })
    }

    /// Joins the two oldest sums of a size to one of the next where there are too many.
    fn compress(&mut self) {
        let mut size = 0;
        while let Some(sums) = self.sizes.get_mut(size) {
            if sums.len() <= SUMS_OF_SIZE {
                return;
            }
            let (Some(older), Some(newer)) = (sums.pop_front(), sums.pop_front()) else {
                return;
            };
            size = size.saturating_add(1);
            if size == SIZES_MAX {
                self.window = self.window.without(older).without(newer);
                return;
            }
            if size == self.sizes.len() {
                self.sizes.push(VecDeque::new());
            }
            if let Some(larger) = self.sizes.get_mut(size) {
                larger.push_back(older.with(newer));
            }
        }
    }

    /// Drops the oldest sum.
    fn drop_oldest(&mut self) {
        while let Some(mut sums) = self.sizes.pop() {
            if let Some(oldest) = sums.pop_front() {
                self.window = self.window.without(oldest);
                self.sizes.push(sums);
                return;
            }
        }
    }

    /// Where the mean went at the first place, from old to new, whose two sides differ by more than chance explains.
    fn change(&self) -> Option<Direction> {
        let variance = self.window.squares / self.window.count;
        let mut older = Part::default();
        for part in self.sizes.iter().rev().flatten() {
            older = older.with(*part);
            let newer = self.window.without(older);
            if older.count < PART_MIN {
                continue;
            }
            if newer.count < PART_MIN {
                return None;
            }
            let moved = newer.mean() - older.mean();
            if moved.abs() > self.bound(older.count, newer.count, variance) {
                return Some(if moved > 0.0 {
                    Direction::Up
                } else {
                    Direction::Down
                });
            }
        }
        None
    }

    /// By how much the means of two parts may differ (the paper's inequality for the variance of the window).
    fn bound(&self, older: f64, newer: f64, variance: f64) -> f64 {
        let evidence = (2.0 * (older + newer) / self.confidence).ln();
        let harmonic = 1.0 / (1.0 / older + 1.0 / newer);
        (2.0 / harmonic * variance * evidence).sqrt() + 2.0 / (3.0 * harmonic) * evidence
    }
}

impl Detector for Adwin {
    fn observe(&mut self, value: f64) -> Option<Drift> {
        if !value.is_finite() {
            return None;
        }
        let one = Part::of(((value - self.low) / self.width).clamp(0.0, 1.0));
        self.window = self.window.with(one);
        match self.sizes.first_mut() {
            Some(ones) => ones.push_back(one),
            None => self.sizes.push(VecDeque::from([one])),
        }
        self.compress();
        let mut found = None;
        // Each turn drops a sum, so there is an end.
        while let Some(direction) = self.change() {
            self.drop_oldest();
            found = Some(direction);
        }
        found.map(|direction| Drift {
            direction,
            steps: self.window_steps(),
        })
    }
}

// === impl Part ===

impl Part {
    fn of(value: f64) -> Self {
        Self {
            count: 1.0,
            sum: value,
            squares: 0.0,
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    /// Squared distance that the means of two parts add to that of their values (Chan, Golub and LeVeque, 1979).
    fn between(&self, other: &Self) -> f64 {
        let apart = self.mean() - other.mean();
        let both = (self.count + other.count).max(1.0);
        apart * apart * self.count * other.count / both
    }

    fn with(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares + self.between(&other),
        }
    }

    fn without(self, gone: Self) -> Self {
        let mut left = Self {
            count: self.count - gone.count,
            sum: self.sum - gone.sum,
            squares: 0.0,
        };
        left.squares = (self.squares - gone.squares - left.between(&gone)).max(0.0);
        left
    }
}
