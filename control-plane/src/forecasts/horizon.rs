//! How far ahead is forecast, and what of that the history allows.
//!
//! A horizon is learned from windows of its own length. They overlap, each begins a part of the horizon after the one before: a day ahead, windows that follow one another
//! would leave two weeks with fourteen numbers, too few for a quantile.

use forebay_families::Frame;

pub(super) const DAY_MS: u64 = 86_400_000;
const WEEK_MS: u64 = 7 * DAY_MS;

/// Windows begin at most so often within the length of one.
const PARTS_MOST: usize = 4;
/// A simple method's quantiles are those of its errors, and of ten or fewer it makes none.
const ERRORS_LEAST: usize = 12;
/// Windows from whose ends a mixture learns, and whose errors make quantiles.
pub(super) const LEARNED: usize = 240;
/// A forecast is made anew when this part of its horizon is over, and once an hour in any case.
const MADE_PER_HORIZON: u64 = 6;
const MADE_EVERY_MOST_MS: u64 = 3_600_000;

/// How far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Horizon {
    /// As in the API and in metrics.
    pub(super) name: &'static str,
    pub(super) length_ms: u64,
}

/// All of them.
pub(super) const HORIZONS: [Horizon; 6] = [
    Horizon::new("5m", 300_000),
    Horizon::new("15m", 900_000),
    Horizon::new("30m", 1_800_000),
    Horizon::new("1h", 3_600_000),
    Horizon::new("1d", DAY_MS),
    Horizon::new("1w", WEEK_MS),
];

/// How a horizon is forecast with steps of some length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Steps in it, and so in each window.
    pub(super) steps: usize,
    /// Steps from the beginning of one window to that of the next.
    pub(super) stride: usize,
    /// Windows on the grid of their beginnings: how many of those fit into one.
    pub(super) parts: usize,
    /// Steps until it is made anew.
    pub(super) every_steps: u64,
    pub(super) step_ms: u32,
    pub(super) frame: Frame,
}

/// Why a horizon is not forecast.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    #[error(
        "steps of {step_ms} ms do not divide it: choose --step-ms so that a whole number of steps fit"
    )]
    NoWholeSteps { step_ms: u32 },
    #[error(
        "{needed} steps of history are needed, and {kept} are kept: raise --history-steps, or --step-ms"
    )]
    TooFewKept { needed: usize, kept: u64 },
    #[error("{needed} steps of history are needed, and there are {known} yet")]
    TooFewYet { needed: usize, known: usize },
}

// === impl Horizon ===

impl Horizon {
    const fn new(name: &'static str, length_ms: u64) -> Self {
        Self { name, length_ms }
    }

    /// How it is forecast from a history of so many steps, if it is.
    pub(super) fn plan(self, step_ms: u32, kept: u64) -> Result<Plan, Lack> {
        let step = u64::from(step_ms.max(1));
        if self.length_ms < step || !self.length_ms.is_multiple_of(step) {
            return Err(Lack::NoWholeSteps { step_ms });
        }
        let steps = usize::try_from(self.length_ms / step).unwrap_or(usize::MAX);
        let parts = (1..=PARTS_MOST)
            .rev()
            .find(|parts| steps.is_multiple_of(*parts));
        let parts = parts.unwrap_or(1);
        let stride = steps / parts;
        let windows_in = |length_ms: u64| {
            let stride_ms = (stride as u64).saturating_mul(step);
            let windows = usize::try_from(length_ms / stride_ms).ok()?;
            (length_ms.is_multiple_of(stride_ms) && windows > 1).then_some(windows)
        };
        let (day, week) = (windows_in(DAY_MS), windows_in(WEEK_MS));
        let every_ms = (self.length_ms / MADE_PER_HORIZON).min(MADE_EVERY_MOST_MS);
        let plan = Plan {
            steps,
            stride,
            parts,
            every_steps: (every_ms / step).max(1),
            step_ms,
            frame: Frame {
                // Where neither is on the grid, the value a season ago is the last one.
                season: day.or(week).unwrap_or(parts),
                long_season: day.and(week),
                horizons: parts,
                error_rows: LEARNED,
            },
        };
        let needed = plan.steps_least();
        if u64::try_from(needed).is_ok_and(|needed| needed <= kept) {
            Ok(plan)
        } else {
            Err(Lack::TooFewKept { needed, kept })
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Windows that must be known.
    pub(super) fn windows_least(&self) -> usize {
        self.parts.saturating_add(ERRORS_LEAST)
    }

    /// Steps that those lie in.
    pub(super) fn steps_least(&self) -> usize {
        let after_first = self.windows_least().saturating_sub(1);
        self.steps
            .saturating_add(after_first.saturating_mul(self.stride))
    }

    pub(super) fn step_s(&self) -> f64 {
        f64::from(self.step_ms.max(1)) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(step_ms: u32, kept: u64) -> Vec<&'static str> {
        let possible = HORIZONS
            .iter()
            .filter(|horizon| horizon.plan(step_ms, kept).is_ok());
        possible.map(|horizon| horizon.name).collect()
    }

    #[test]
    fn a_horizon_is_forecast_as_far_as_step_and_history_allow() {
        assert_eq!(planned(60_000, 4_032), ["5m", "15m", "30m", "1h"]);
        assert_eq!(
            planned(60_000, 20_160),
            ["5m", "15m", "30m", "1h", "1d"],
            "two weeks hold no twelve errors a week ahead"
        );
        assert_eq!(planned(300_000, 4_032), ["5m", "15m", "30m", "1h", "1d"]);
        assert_eq!(planned(600_000, 20_160), ["30m", "1h", "1d", "1w"]);
        assert_eq!(planned(7_000, 20_160), [""; 0]);
        assert_eq!(planned(86_400_000, 1), [""; 0]);
    }

    #[test]
    fn seasons_are_a_day_and_a_week_where_windows_fit_into_them() {
        let seasons = |place: usize, step_ms| {
            let plan = HORIZONS[place].plan(step_ms, u64::MAX).unwrap();
            (plan.parts, plan.frame.season, plan.frame.long_season)
        };
        assert_eq!(seasons(0, 60_000), (1, 288, Some(2_016)));
        assert_eq!(seasons(3, 60_000), (4, 96, Some(672)));
        assert_eq!(seasons(4, 60_000), (4, 4, Some(28)));
        assert_eq!(seasons(5, 600_000), (4, 4, None), "the week is the season");
    }
}
