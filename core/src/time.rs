//! Time as an argument: microseconds of the host's monotonic clock.
//!
//! The core never reads a clock. The caller passes what its host says, and one number serves all workers of a
//! gateway, whose clock is common. Wall-clock time is never used: it jumps.

/// A point in time: microseconds of a monotonic clock with an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeUs(pub u64);

impl TimeUs {
    /// Later than any time: what never happens is due then.
    pub const NEVER: TimeUs = TimeUs(u64::MAX);

    /// Microseconds from `earlier` to `self`; zero if the clock went back.
    #[must_use]
    pub const fn since(self, earlier: TimeUs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `us` microseconds later.
    #[must_use]
    pub const fn plus_us(self, us: u64) -> TimeUs {
        TimeUs(self.0.saturating_add(us))
    }
}
