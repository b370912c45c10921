//! The named columns of the inputs `calendar` and `past`.
//!
//! Names, not positions, tie a model to its inputs: a model that wants a column we do not know is refused when it is
//! loaded instead of being fed the wrong numbers.

use serde::{Deserialize, Serialize};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
const WEEK_S: i64 = 604_800;
/// 1970-01-01 was a Thursday; this shift makes weeks start on Monday.
const MONDAY_SHIFT_S: i64 = 3 * DAY_S;

/// A function of the calendar (UTC) that is known for the future too. Waves are in -1..1, flags are 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalendarFeature {
    /// Sine of the position in the hour.
    HourSin,
    /// Cosine of the position in the hour.
    HourCos,
    /// Sine of the position in the day.
    DaySin,
    /// Cosine of the position in the day.
    DayCos,
    /// Sine of the position in the week, Monday first.
    WeekSin,
    /// Cosine of the position in the week, Monday first.
    WeekCos,
    /// 1 on Saturday and Sunday.
    Weekend,
}

/// A column of `past`: usage that is known at the origin although it is aligned with the future.
///
/// Position `i` of the window (`W - 1` is the origin) carries the step `i + H - season`, with `H` the last horizon:
/// the last `H` positions are exactly the forecast steps, one season earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastFeature {
    /// Usage one season before, carried forward over gaps.
    SeasonAhead,
    /// 1 where that usage was observed, 0 where it is a gap or older than the history.
    SeasonAheadMask,
}

// === impl CalendarFeature ===

impl CalendarFeature {
    /// The value for the step that starts at `unix_s` (seconds since 1970-01-01 UTC).
    #[must_use]
    pub fn value(self, unix_s: i64) -> f32 {
        match self {
            Self::HourSin => angle(unix_s, HOUR_S).sin(),
            Self::HourCos => angle(unix_s, HOUR_S).cos(),
            Self::DaySin => angle(unix_s, DAY_S).sin(),
            Self::DayCos => angle(unix_s, DAY_S).cos(),
            Self::WeekSin => angle(unix_s.saturating_add(MONDAY_SHIFT_S), WEEK_S).sin(),
            Self::WeekCos => angle(unix_s.saturating_add(MONDAY_SHIFT_S), WEEK_S).cos(),
            Self::Weekend => {
                let in_week = unix_s.saturating_add(MONDAY_SHIFT_S).rem_euclid(WEEK_S);
                if in_week >= WEEK_S - 2 * DAY_S {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }
}

/// Position of `unix_s` in a period, in radians.
fn angle(unix_s: i64, period_s: i64) -> f32 {
    // At most 604 800: exact in an f32.
    let position = unix_s.checked_rem_euclid(period_s).unwrap_or(0) as f32;
    std::f32::consts::TAU * position / period_s as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-04-05 00:00 UTC, a Saturday.
    const SATURDAY_S: i64 = 1_743_811_200;

    #[test]
    fn the_weekend_is_saturday_and_sunday() {
        assert_eq!(CalendarFeature::Weekend.value(SATURDAY_S - 1), 0.0);
        assert_eq!(CalendarFeature::Weekend.value(SATURDAY_S), 1.0);
        assert_eq!(
            CalendarFeature::Weekend.value(SATURDAY_S + 2 * DAY_S - 1),
            1.0
        );
        assert_eq!(CalendarFeature::Weekend.value(SATURDAY_S + 2 * DAY_S), 0.0);
    }

    #[test]
    fn waves_repeat_after_their_period_also_before_1970() {
        for (feature, period) in [
            (CalendarFeature::DaySin, DAY_S),
            (CalendarFeature::WeekCos, WEEK_S),
            (CalendarFeature::HourSin, HOUR_S),
        ] {
            for t in [-5_000_000_i64, -1, 0, 12_345, SATURDAY_S] {
                assert!((feature.value(t) - feature.value(t + period)).abs() < 1e-6);
                assert!(feature.value(t).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn noon_is_half_a_day() {
        assert!((CalendarFeature::DayCos.value(SATURDAY_S + DAY_S / 2) + 1.0).abs() < 1e-6);
    }
}
