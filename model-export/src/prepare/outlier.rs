//! Which amounts nobody can have meant: a meter that was reset, a unit that was wrong for an hour.
//!
//! Judged by the steps before alone. Quartiles of the whole series would see a change of level days before it happens, and a model that learns
//! from amounts which were clipped by them has seen its test. Amounts enter the window as they were recorded: after a change of level that stays,
//! a quarter of a window is clipped, and then the new level is the usual one.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

const DAY_S: u32 = 86_400;
const WINDOW_STEPS_MIN: u32 = 96;
/// Quartiles of a window are kept in order: its length is what a step costs.
const WINDOW_STEPS_MAX: u32 = 1_440;
/// Demand has long tails: spikes of several times the usual are what a forecast is for, and no mistakes.
const SPREAD: f64 = 10.0;

/// An amount is an outlier above `q3 + spread * max(q3 - q1, median)` of the amounts in the steps before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutlierRule {
    /// Steps before that are looked at.
    window_steps: u32,
    /// Nothing is an outlier before so many amounts of them are known.
    known_min: u32,
    spread: f64,
}

/// Amounts of the window, in order of time and of size.
#[derive(Default)]
struct Window {
    by_time: VecDeque<f64>,
    by_size: Vec<f64>,
}

/// Value at a share of ordered values, between neighbours in proportion; NaN of none.
pub(super) fn quantile(ordered: &[f64], share: f64) -> f64 {
    let Some(last) = ordered.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (ordered[below], ordered[(below + 1).min(last)]);
    low + (high - low) * (place - below as f64)
}

// === impl OutlierRule ===

impl OutlierRule {
    /// A day of steps, within bounds.
    pub(super) fn of_step(step_s: u32) -> Self {
        let day = DAY_S / step_s.max(1);
        let window_steps = day.clamp(WINDOW_STEPS_MIN, WINDOW_STEPS_MAX);
        Self {
            window_steps,
            known_min: window_steps / 2,
            spread: SPREAD,
        }
    }

    /// The largest amount of each step that is no outlier.
    pub(super) fn fences(&self, amounts: &[f64]) -> Vec<f64> {
        let mut window = Window::default();
        let fence = |amount: &f64| {
            let fence = self.fence(&window.by_size);
            window.push(*amount, self.window_steps as usize);
            fence
        };
        amounts.iter().map(fence).collect()
    }

    fn fence(&self, ordered: &[f64]) -> f64 {
        if ordered.len() < self.known_min as usize {
            return f64::INFINITY;
        }
        let [q1, median, q3] = [0.25, 0.5, 0.75].map(|share| quantile(ordered, share));
        match (q3 - q1).max(median) {
            // Someone who hardly ever asks has no usual amount.
            0.0 => f64::INFINITY,
            scale => q3 + self.spread * scale,
        }
    }
}

// === impl Window ===

impl Window {
    fn push(&mut self, amount: f64, steps: usize) {
        self.by_time.push_back(amount);
        if !amount.is_nan() {
            let place = self.by_size.partition_point(|other| *other < amount);
            self.by_size.insert(place, amount);
        }
        if self.by_time.len() > steps
            && let Some(oldest) = self.by_time.pop_front()
            && !oldest.is_nan()
        {
            let place = self.by_size.partition_point(|other| *other < oldest);
            self.by_size.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by sorting each window anew.
    fn fences_by_sorting(rule: &OutlierRule, amounts: &[f64]) -> Vec<f64> {
        let of_window = |step: usize| {
            let from = step.saturating_sub(rule.window_steps as usize);
            let known = amounts[from..step].iter().filter(|amount| !amount.is_nan());
            let mut known: Vec<f64> = known.copied().collect();
            known.sort_by(f64::total_cmp);
            rule.fence(&known)
        };
        (0..amounts.len()).map(of_window).collect()
    }

    #[test]
    fn a_window_that_moves_has_the_quartiles_of_one_that_is_sorted_anew() {
        let rule = OutlierRule::of_step(3_600);
        let amount = |step: usize| match step % 7 {
            3 => f64::NAN,
            _ => ((step * 7_919) % 101) as f64,
        };
        let amounts: Vec<f64> = (0..500).map(amount).collect();
        assert_eq!(rule.fences(&amounts), fences_by_sorting(&rule, &amounts));
    }

    #[test]
    fn a_level_that_stays_becomes_the_usual_one() {
        let rule = OutlierRule::of_step(3_600);
        let amounts: Vec<f64> = (0..400)
            .map(|step| if step < 200 { 10.0 } else { 5_000.0 })
            .collect();
        let fences = rule.fences(&amounts);
        let clipped = |step: &usize| amounts[*step] > fences[*step];
        assert!(clipped(&200));
        let last = (0..400).rfind(clipped).unwrap();
        assert!(last < 200 + rule.window_steps as usize / 4 + 2, "{last}");
    }

    #[test]
    fn who_hardly_ever_asks_has_no_outliers_and_nobody_has_at_first() {
        let rule = OutlierRule::of_step(3_600);
        let rarely: Vec<f64> = (0..300)
            .map(|step| if step % 50 == 49 { 1e6 } else { 0.0 })
            .collect();
        assert!(rule.fences(&rarely).iter().all(|fence| fence.is_infinite()));
        let fences = rule.fences(&[1.0; 100]);
        assert_eq!(
            fences.iter().filter(|fence| fence.is_infinite()).count(),
            48
        );
        assert_eq!(fences[48], 11.0);
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
