//! What a run of a network costs on this machine, and whether one may start.
//!
//! A run is the one unit of work that may need more than a tick has left, and nobody knows how long it takes before it was tried.

/// What a run costs before one was measured.
const FIRST_GUESS_US: u64 = 900;

/// Ticks for which a run may be put off. A run above the budget then still costs less than a tenth of the time.
const PUT_OFF_MOST: u32 = 4;

/// A guess that follows the runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunCost {
    run_us: u64,
    put_off: u32,
}

// === impl RunCost ===

impl Default for RunCost {
    fn default() -> Self {
        Self {
            run_us: FIRST_GUESS_US,
            put_off: 0,
        }
    }
}

impl RunCost {
    /// Whether a run may start. `fits` says whether what it will cost about is left of the budget.
    ///
    /// A run that took longer than a whole budget, once, on a busy machine, must not be the last: the guess only follows runs. So a run
    /// that was put off for some ticks is tried all the same.
    pub(crate) fn may_run(&mut self, fits: impl Fn(u64) -> bool) -> bool {
        if !fits(self.run_us) && self.put_off < PUT_OFF_MOST {
            self.put_off = self.put_off.saturating_add(1);
            return false;
        }
        self.put_off = 0;
        true
    }

    /// A run has taken so long. Follows a slower machine at once and a faster one slowly: the guess guards the tick's budget.
    pub(crate) fn took(&mut self, took_us: u64) {
        self.run_us = took_us.max(self.run_us.saturating_mul(7) / 8).max(1);
    }
}
