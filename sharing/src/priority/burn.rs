//! How fast an error budget is used up, over a long and a short window.
//!
//! After "Alerting on SLOs", chapter 5 of the Site Reliability Workbook (Google, 2018): a burn rate of 1 uses the budget up in exactly its period, and what
//! burns in the long window counts only if the short one, a twelfth of it, burns as well, so that what is over does not count on. The windows fade by a time
//! constant in place of an edge: an edge would need the steps of an hour for each customer, and two numbers are enough for this.

/// The long window, in seconds: an hour, the one that the workbook pages for.
const LONG_S: f64 = 3_600.0;
/// The short one: a twelfth of it.
const SHORT_S: f64 = LONG_S / 12.0;
/// Less than this is none.
const LEAST: f64 = 1e-9;

/// What part of a guarantee was not kept lately, in two windows, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Burn {
    /// In the last five minutes.
    pub short: f64,
    /// In the last hour.
    pub long: f64,
}

/// How a guarantee was kept in some time: the last `span_ms` before it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kept {
    /// How long that time was, in milliseconds.
    pub span_ms: u64,
    /// What was asked for of the guarantee, in tokens: demand, but no more than was guaranteed.
    pub asked: f64,
    /// What of that was not admitted, in tokens.
    pub denied: f64,
}

// === impl Kept ===

impl Kept {
    /// Of one resource, from all that was asked for in the time and all that was denied, in tokens. What goes beyond the guarantee may be denied, so only
    /// what was admitted less than guaranteed counts. Within the time a burst beyond the guarantee counts as denied within it if little is asked for else:
    /// the shorter the time, the less.
    #[must_use]
    pub fn of(span_ms: u64, guarantee_per_s: f64, demand: f64, denied: f64) -> Self {
        let positive = |value: f64| {
            if value.is_finite() {
                value.max(0.0)
            } else {
                0.0
            }
        };
        let demand = positive(demand);
        let asked = demand.min(positive(guarantee_per_s) * span_ms as f64 / 1e3);
        let admitted = (demand - positive(denied)).max(0.0);
        Self {
            span_ms,
            asked,
            denied: (asked - admitted).max(0.0),
        }
    }

    /// What part of what was asked for was denied, 0 to 1; 0 where nothing was asked for.
    #[must_use]
    pub fn denied_share(&self) -> f64 {
        let share = self.denied / self.asked;
        if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

// === impl Burn ===

impl Burn {
    /// After some more time, the last part of which is `kept`; of the rest nothing is known, and nothing was denied.
    pub(super) fn after(self, elapsed_ms: u64, kept: Option<&Kept>) -> Self {
        let span_ms = kept.map_or(0, |kept| kept.span_ms.min(elapsed_ms));
        let silent_s = seconds(elapsed_ms.saturating_sub(span_ms));
        let share = kept.map_or(0.0, Kept::denied_share);
        let window = |burnt: f64, window_s: f64| {
            let left = clean(burnt) * (-silent_s / window_s).exp();
            let new = 1.0 - (-seconds(span_ms) / window_s).exp();
            clean(left + (share - left) * new)
        };
        Self {
            short: window(self.short, SHORT_S),
            long: window(self.long, LONG_S),
        }
    }

    /// How many times as fast as it lasts the budget is used up. `budget` is the part of what is guaranteed that may be denied.
    #[must_use]
    pub fn rate(&self, budget: f64) -> f64 {
        self.short.min(self.long) / budget
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn clean(share: f64) -> f64 {
    if share.is_finite() && share > LEAST {
        share.min(1.0)
    } else {
        0.0
    }
}
