//! How often a customer may be flagged, whatever it does.
//!
//! A flag raises what it takes to be flagged once more by [`RISE`]; time lowers it by [`FALL_A_WEEK`]. The score that is held against it is bounded,
//! so the sum of all rises is: in any w weeks a customer is flagged at most
//!
//! ```text
//! 1 + (MOST - LEAST) / RISE + w * FALL_A_WEEK / RISE  =  10.2 + 0.67 w  times
//! ```
//! for any sequence of steps at all, whoever has made it up. That is the bound of adaptive conformal inference (Gibbs and Candes 2021) with the flag
//! in the place of the miss. A martingale of p-values was the worse alternative: its bound is smaller by far and does not hold, because
//! the steps of a burst are not independent of one another.
//!
//! A true alarm costs as much as a false one. Whoever knows better says so (`Customer::confirm`).

use crate::pace::{DAY_MS, WEEK_MS};
use serde::{Deserialize, Serialize};

/// What a flag adds to the margin: a third more z.
pub(crate) const RISE: f64 = 0.3;
/// What a week takes away.
pub(crate) const FALL_A_WEEK: f64 = 0.2;
/// The least margin above a customer's own past.
pub(crate) const LEAST: f64 = 0.1;
/// No time between two steps counts as more: a clock that jumps ahead makes nobody easier to flag than a day does.
const PAUSE_MOST_MS: f64 = DAY_MS;
/// No past excuses a z below it.
pub(crate) const Z_LEAST: f64 = 2.5;

/// The margin by which a sign must be above its past.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Budget(f64);

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Budget {
    pub(crate) fn margin(self) -> f64 {
        self.0
    }

    /// What a score must be above, given the bar that its past sets.
    pub(crate) fn over(self, bar: f64) -> f64 {
        bar.max(Z_LEAST.ln_1p()) + self.margin()
    }

    pub(crate) fn flag(&mut self) {
        self.0 += RISE;
    }

    pub(crate) fn confirm(&mut self) {
        self.0 = (self.0 - RISE).max(LEAST);
    }

    /// So much time has passed since the last step. Time and not steps: those may come more often than they should.
    pub(crate) fn pass(&mut self, elapsed_ms: u64) {
        let weeks = (elapsed_ms as f64).min(PAUSE_MOST_MS) / WEEK_MS;
        self.0 = (self.0 - FALL_A_WEEK * weeks).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::Around;
    use crate::customer::{Customer, Watch};
    use crate::past::SCORE_MOST;
    use crate::step::Step;
    use crate::verdict::Kind;
    use proptest::prelude::*;

    const STEP_MS: u32 = 600_000;
    const STEPS_A_WEEK: u32 = 1_008;

    fn flags_most(weeks: f64) -> f64 {
        1.0 + (SCORE_MOST - Z_LEAST.ln_1p() - LEAST) / RISE + weeks * FALL_A_WEEK / RISE
    }

    /// How often whoever asks for what `asked` says is flagged.
    fn flags(weeks: u32, mut asked: impl FnMut(u32, bool) -> (f64, f64)) -> u32 {
        let (watch, mut customer) = (Watch::new(STEP_MS), Customer::default());
        let (mut flags, mut was_flagged) = (0, false);
        for number in 0..weeks * STEPS_A_WEEK {
            let (asked, denied_contract) = asked(number, was_flagged);
            let step = Step {
                unix_ms: u64::from(number) * u64::from(STEP_MS),
                asked,
                denied_contract,
                keys: Some(asked),
                ..Step::default()
            };
            let signs = watch.observe(&mut customer, &step).unwrap();
            let is_flagged =
                watch.judge(&mut customer, &signs, Around::default()).kind == Kind::Unusual;
            flags += u32::from(is_flagged && !was_flagged);
            was_flagged = is_flagged;
        }
        flags
    }

    /// As high as can be whenever it is not flagged, and silent while it is.
    fn provoke(number: u32, is_flagged: bool) -> (f64, f64) {
        match (number < STEPS_A_WEEK, is_flagged) {
            (true, _) | (_, true) => (100.0, 0.0),
            (false, false) => (1e15, 1e15),
        }
    }

    #[test]
    fn whoever_provokes_flags_gets_no_more_than_the_bound() {
        let weeks = 30;
        let flags = flags(weeks, provoke);
        println!("{flags} flags, at most {}", flags_most(f64::from(weeks)));
        assert!(flags >= 5, "the bound is not put to the test: {flags}");
        assert!(f64::from(flags) <= flags_most(f64::from(weeks)), "{flags}");
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nobody_easier_to_flag_than_a_day_does() {
        let mut jumped = Budget(2.0);
        let mut waited = jumped;
        jumped.pass(u64::MAX);
        waited.pass(86_400_000);
        assert_eq!(jumped, waited);
        assert!((waited.margin() - (2.0 - FALL_A_WEEK / 7.0)).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn no_demand_is_flagged_more_often_than_the_bound(
            seed in any::<u64>(),
            wild in 1.0..60.0_f64,
            stays in 1_u32..40,
        ) {
            let (mut state, mut level) = (seed, 0.0);
            let flags = flags(12, |number, _| {
                if number % stays == 0 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    level = wild * ((state >> 33) as f64 / f64::from(u32::MAX));
                }
                (level.exp(), if state & (1 << 40) == 0 { 0.0 } else { level.exp() })
            });
            prop_assert!(f64::from(flags) <= flags_most(12.0), "{}", flags);
        }
    }
}
