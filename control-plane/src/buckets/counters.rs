//! What a gateway has counted: sums since its incarnation began, so that a report may be repeated, merged or skipped.

use forebay_wire::sync::CustomerReport;

/// What a counter may grow by in one report: a million million tokens.
const GROWTH_MOST_MICRO: u64 = 1_000_000_000_000_000_000;

/// Cumulative counters in micro-tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens asked for.
    pub demand: u64,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens denied.
    pub denied: u64,
    /// Demand that the shadow bucket did not foresee.
    pub deviation: u64,
}

// === impl Counters ===

impl Counters {
    /// The counters of a report.
    #[must_use]
    pub const fn of(report: &CustomerReport) -> Self {
        Self {
            demand: report.demand_micro,
            admitted: report.admitted_micro,
            denied: report.denied_micro,
            deviation: report.deviation_micro,
        }
    }

    /// Field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            demand: self.demand.saturating_add(other.demand),
            admitted: self.admitted.saturating_add(other.admitted),
            denied: self.denied.saturating_add(other.denied),
            deviation: self.deviation.saturating_add(other.deviation),
        }
    }

    /// Field by field, not below zero.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self {
            demand: self.demand.saturating_sub(other.demand),
            admitted: self.admitted.saturating_sub(other.admitted),
            denied: self.denied.saturating_sub(other.denied),
            deviation: self.deviation.saturating_sub(other.deviation),
        }
    }

    /// Whether a field has grown by more than traffic can. Taken as they are, such counters would stand still for ever.
    pub(super) fn grow_absurdly(self, before: Self) -> bool {
        [
            (self.demand, before.demand),
            (self.admitted, before.admitted),
            (self.denied, before.denied),
            (self.deviation, before.deviation),
        ]
        .iter()
        .any(|(now, before)| now.saturating_sub(*before) > GROWTH_MOST_MICRO)
    }

    /// Field by field the larger one: counters are cumulative, so the larger one is the later one.
    pub(super) fn latest(self, other: Self) -> Self {
        Self {
            demand: self.demand.max(other.demand),
            admitted: self.admitted.max(other.admitted),
            denied: self.denied.max(other.denied),
            deviation: self.deviation.max(other.deviation),
        }
    }
}
