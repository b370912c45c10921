//! Which step of the calendar it is.
//!
//! Steps must follow the calendar, because the model knows the hour and the weekday; but intervals must follow the monotonic clock,
//! because the wall clock jumps. So the calendar is anchored once to the monotonic clock and anchored anew only when the wall clock
//! has drifted by more than a quarter of a step. Reading the wall clock at every tick was worse: one NTP correction would make a step
//! of zero or double length and the forecast would take it for a burst.

use forebay_wire::forecaster_config::CalendarConfig;

/// The calendar of the series: possibly faster than time, never backwards between two anchors.
#[derive(Clone, Debug)]
pub struct Calendar {
    speed_up: u64,
    wall_start_ms: u64,
    calendar_start_ms: u64,
    anchor_us: u64,
    anchor_calendar_ms: u64,
}

// === impl Calendar ===

impl Calendar {
    /// Anchors the calendar at this moment.
    #[must_use]
    pub fn new(config: &CalendarConfig, monotonic_us: u64, wall_ms: u64) -> Self {
        let mut calendar = Self {
            speed_up: u64::from(config.speed_up.max(1)),
            wall_start_ms: config.wall_start_ms,
            calendar_start_ms: config.calendar_start_ms,
            anchor_us: monotonic_us,
            anchor_calendar_ms: 0,
        };
        calendar.anchor_calendar_ms = calendar.at_wall(wall_ms);
        calendar
    }

    /// Calendar time in milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self, monotonic_us: u64) -> u64 {
        let elapsed_us = monotonic_us.saturating_sub(self.anchor_us);
        let elapsed_ms = elapsed_us.saturating_mul(self.speed_up) / 1_000;
        self.anchor_calendar_ms.saturating_add(elapsed_ms)
    }

    /// Follows the wall clock when it has drifted by more than a quarter of a step. Returns true when it did: the running step is
    /// then of unknown length.
    pub fn follow(&mut self, monotonic_us: u64, wall_ms: u64, step_s: u32) -> bool {
        let wall_says_ms = self.at_wall(wall_ms);
        let drift_ms = self.now_ms(monotonic_us).abs_diff(wall_says_ms);
        if drift_ms <= u64::from(step_s).saturating_mul(250) {
            return false;
        }
        self.anchor_us = monotonic_us;
        self.anchor_calendar_ms = wall_says_ms;
        true
    }

    /// Real microseconds in one step of the calendar.
    #[must_use]
    pub fn step_us(&self, step_s: u32) -> u64 {
        let calendar_us = u64::from(step_s).saturating_mul(1_000_000);
        calendar_us
            .checked_div(self.speed_up)
            .unwrap_or(calendar_us)
            .max(1)
    }

    /// Number of the step that contains this moment, counted from 1970.
    #[must_use]
    pub fn step_at(&self, monotonic_us: u64, step_s: u32) -> u64 {
        let step_ms = u64::from(step_s).saturating_mul(1_000);
        self.now_ms(monotonic_us).checked_div(step_ms).unwrap_or(0)
    }

    fn at_wall(&self, wall_ms: u64) -> u64 {
        if self.wall_start_ms == 0 {
            return wall_ms;
        }
        let since_start_ms = wall_ms.saturating_sub(self.wall_start_ms);
        self.calendar_start_ms
            .saturating_add(since_start_ms.saturating_mul(self.speed_up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay() -> CalendarConfig {
        CalendarConfig {
            speed_up: 60,
            wall_start_ms: 1_000,
            calendar_start_ms: 600_000,
        }
    }

    #[test]
    fn a_replay_runs_faster_than_time() {
        let calendar = Calendar::new(&replay(), 5_000_000, 3_000);
        assert_eq!(calendar.now_ms(5_000_000), 600_000 + 120_000);
        assert_eq!(calendar.now_ms(6_000_000), 600_000 + 180_000);
        assert_eq!(calendar.step_us(60), 1_000_000);
        assert_eq!(calendar.step_at(6_000_000, 60), 13);
    }

    #[test]
    fn a_small_drift_of_the_wall_clock_changes_nothing() {
        let mut calendar = Calendar::new(&CalendarConfig::default(), 0, 1_000_000);
        assert!(!calendar.follow(10_000_000, 1_012_000, 60));
        assert_eq!(calendar.now_ms(10_000_000), 1_010_000);
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_followed_once() {
        let mut calendar = Calendar::new(&CalendarConfig::default(), 0, 1_000_000);
        assert!(calendar.follow(10_000_000, 9_000_000, 60));
        assert_eq!(calendar.now_ms(10_000_000), 9_000_000);
        assert!(!calendar.follow(10_100_000, 9_000_100, 60));
    }

    #[test]
    fn the_monotonic_clock_going_back_does_not_move_the_calendar_back() {
        let calendar = Calendar::new(&CalendarConfig::default(), 1_000_000, 1_000_000);
        assert_eq!(calendar.now_ms(0), 1_000_000);
    }
}
