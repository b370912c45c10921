//! How many steps are so many minutes.

/// Milliseconds of a week.
pub(crate) const WEEK_MS: f64 = 7.0 * DAY_MS;
/// Milliseconds of a day.
pub(crate) const DAY_MS: f64 = 86_400_000.0;
const MINUTE_MS: f64 = 60_000.0;

/// Minutes over which demand is averaged: a burst, a rise, a level.
pub(crate) const WINDOWS_MINUTES: [f64; 3] = [5.0, 20.0, 180.0];
/// Minutes without a sign until a customer is no longer flagged.
const QUIET_MINUTES: f64 = 60.0;
/// Fewer steps than that are no quiet.
const QUIET_STEPS_LEAST: f64 = 6.0;
/// Days that are learned from before anybody is flagged.
const LEARNED_DAYS: f64 = 7.0;
/// The steps of usage history follow a clock that went back by more than three steps; the newest one that is over is then that far ahead.
const SET_BACK_STEPS: f64 = 3.0;
/// By so many spreads the middle of a sign may move in a day.
const SPREADS_A_DAY: f64 = 0.7;

/// What depends on the length of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// The weight of the newest step in each window.
    pub windows: [f64; 3],
    pub quiet_steps: u16,
    pub learned_steps: u32,
    pub robust_rate: f64,
    /// A step that is older than the last by as much says that the clock was set back.
    pub set_back_ms: u64,
}

// === impl Pace ===

impl Pace {
    pub(crate) fn new(step_ms: u32) -> Self {
        let step_ms = f64::from(step_ms.clamp(1_000, 86_400_000));
        let steps = |ms: f64| ms / step_ms;
        Self {
            windows: WINDOWS_MINUTES.map(|minutes| 1.0 / steps(minutes * MINUTE_MS).max(1.0)),
            quiet_steps: steps(QUIET_MINUTES * MINUTE_MS).max(QUIET_STEPS_LEAST) as u16,
            learned_steps: steps(LEARNED_DAYS * DAY_MS) as u32,
            robust_rate: (SPREADS_A_DAY / steps(DAY_MS)).min(0.05),
            set_back_ms: (SET_BACK_STEPS * step_ms) as u64,
        }
    }
}
