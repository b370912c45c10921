//! Sustained deviation: in how many of the last windows a customer used more than its shadow bucket foresaw.
//!
//! One bit per window is enough for "m of the last n" and fits a byte of the ledger entry. A decaying average would need a
//! threshold in tokens, which no operator can choose for customers of 1 and of 1e6 requests at once.

use crate::time::TimeUs;

/// Which of the last windows deviated. The lowest bit is the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deviations(pub u8);

/// When the contention flag is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentionRule {
    /// Length of a window in microseconds.
    pub window_us: u32,
    /// Windows that must have deviated (m).
    pub windows_needed: u8,
    /// Windows looked at (n), at most [`crate::limits::MAX_DEVIATION_WINDOWS`].
    pub windows: u8,
}

// === impl Deviations ===

impl Deviations {
    /// Moves on from `at`, when this was last brought up to date, to `now`.
    pub fn advance(&mut self, rule: ContentionRule, at: TimeUs, now: TimeUs) {
        let windows = rule.window_at(now).saturating_sub(rule.window_at(at));
        self.0 = u32::try_from(windows)
            .ok()
            .and_then(|windows| self.0.checked_shl(windows))
            .unwrap_or(0);
    }

    /// The current window deviates.
    pub const fn mark(&mut self) {
        self.0 |= 1;
    }

    /// Whether the contention flag is up.
    #[must_use]
    pub const fn contended(&self, rule: ContentionRule) -> bool {
        let seen = match 1_u8.checked_shl(rule.windows as u32) {
            Some(bit) => self.0 & bit.wrapping_sub(1),
            None => self.0,
        };
        rule.windows_needed > 0 && seen.count_ones() >= rule.windows_needed as u32
    }
}

// === impl ContentionRule ===

impl ContentionRule {
    fn window_at(self, at: TimeUs) -> u64 {
        at.0.checked_div(u64::from(self.window_us)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ContentionRule = ContentionRule {
        window_us: 1_000_000,
        windows_needed: 3,
        windows: 5,
    };

    fn after(deviating_s: &[u64], now_s: u64) -> bool {
        let (mut ring, mut at) = (Deviations::default(), TimeUs(0));
        for second in deviating_s {
            let now = TimeUs(second * 1_000_000);
            ring.advance(RULE, at, now);
            ring.mark();
            at = now;
        }
        ring.advance(RULE, at, TimeUs(now_s * 1_000_000));
        ring.contended(RULE)
    }

    #[test]
    fn the_flag_is_up_while_m_of_the_last_n_windows_deviated() {
        assert!(!after(&[1, 2], 2));
        assert!(after(&[1, 2, 3], 3));
        assert!(after(&[1, 3, 5], 5));
        assert!(!after(&[1, 3, 5], 6));
        assert!(!after(&[1, 2, 3], 1_000));
    }

    #[test]
    fn deviating_twice_in_a_window_counts_once() {
        assert!(!after(&[1, 1, 1, 1], 1));
    }

    #[test]
    fn eight_windows_use_the_whole_byte() {
        let rule = ContentionRule {
            windows: 8,
            windows_needed: 8,
            ..RULE
        };
        assert!(Deviations(0xff).contended(rule));
        assert!(!Deviations(0x7f).contended(rule));
    }
}
