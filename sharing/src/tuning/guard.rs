//! When a decision may explore, whatever has been learned.
//!
//! Three bounds, each with its own reason to say no:
//! - of any [`WINDOW`] decisions in a row at most [`EXPLORED_MOST`] explore;
//! - **the allowance**. Conservative bandits (Wu et al., ICML 2016) explore while what was earned, with the worst that the next decision
//!   may bring, is at least a part (1 - a) of what the policy's own values would have earned. What those would have earned in a decision
//!   that explored is not known; here it counts as the most that there is, and the next reward as none. So the bound holds for every
//!   sequence of rewards, also of an adversary. The linear confidence bounds of Kazerouni et al. (NIPS 2017) begin sooner, and hold if the
//!   linear model does;
//! - **the pause** after a promise was broken: an hour, twice as long each time, a week at most.
//!
//! The allowance is bounded: a good year does not pay for a bad week.

use crate::tuning::kept::Words;

/// Decisions in a row that are looked at.
pub const WINDOW: u32 = 100;
/// How many of them may explore at most.
pub const EXPLORED_MOST: u32 = 5;
/// Decisions of a full loss that can be saved up.
const ALLOWANCE_MOST: f64 = 2.0;
const PAUSE_FIRST_MS: u64 = 3_600_000;
const PAUSE_MOST_MS: u64 = 7 * 24 * 3_600_000;
/// Decisions that explored and broke nothing after which the next pause is a short one again.
const QUIET: u32 = 50;
/// What rounding may do to an allowance.
const ROUNDING: f64 = 1e-9;

/// Why a decision does not explore.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hold {
    /// Nothing is to be tuned.
    Off,
    /// A promise was broken.
    Paused {
        /// When exploring goes on, in the caller's time.
        until_ms: u64,
    },
    /// Enough has been explored lately.
    Window {
        /// Decisions until one may explore.
        decisions: u32,
    },
    /// What exploring may cost is not earned yet.
    Allowance {
        /// What is missing, in rewards: a decision of the policy's own earns the part of its reward that may be lost.
        missing: f64,
    },
}

/// What has been explored and earned so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guard {
    /// The part of the reward that may be lost.
    loss_most: f64,
    /// How many of a window may explore.
    explored_most: u32,
    /// Earned, less the part that must be: what may still be lost.
    allowance: f64,
    /// Which of the last decisions have explored, the newest in the lowest bit.
    recent: u128,
    paused_until_ms: u64,
    /// Pauses in a row.
    pauses: u32,
    quiet: u32,
}

// === impl Guard ===

impl Guard {
    pub(crate) const fn new(explored_most: u32, loss_most: f64) -> Self {
        Self {
            loss_most,
            explored_most,
            allowance: 0.0,
            recent: 0,
            paused_until_ms: 0,
            pauses: 0,
            quiet: 0,
        }
    }

    /// Why the next decision must not explore, if it must not.
    pub(crate) fn holds(&self, now_ms: u64) -> Option<Hold> {
        if self.explored_most == 0 {
            return Some(Hold::Off);
        }
        if now_ms < self.paused_until_ms {
            let until_ms = self.paused_until_ms;
            return Some(Hold::Paused { until_ms });
        }
        let before = self.recent & mask(WINDOW - 1);
        if before.count_ones() >= self.explored_most {
            let leaves = |decisions: &u32| {
                (before & mask(WINDOW - 1 - decisions)).count_ones() < self.explored_most
            };
            let decisions = (1..WINDOW).find(leaves).unwrap_or(WINDOW);
            return Some(Hold::Window { decisions });
        }
        let missing = self.worst() - self.allowance;
        (missing > ROUNDING).then_some(Hold::Allowance { missing })
    }

    /// A decision was made.
    pub(crate) const fn note(&mut self, explores: bool) {
        self.recent = self.recent << 1 | explores as u128;
    }

    /// The policy's own values have earned this.
    pub(crate) fn earn(&mut self, reward: f64) {
        self.save(self.loss_most * reward);
    }

    /// An arm has earned this.
    pub(crate) fn spend(&mut self, reward: f64) {
        self.save(reward - self.worst());
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet >= QUIET {
            self.pauses = 0;
        }
    }

    /// A promise was broken in a decision that explored. Until when nothing is explored.
    pub(crate) fn pause(&mut self, now_ms: u64) -> u64 {
        let doubled = PAUSE_FIRST_MS << self.pauses.min(16);
        self.pauses = self.pauses.saturating_add(1);
        self.quiet = 0;
        self.paused_until_ms = now_ms.saturating_add(doubled.min(PAUSE_MOST_MS));
        self.paused_until_ms
    }

    /// As if as much as may be had just been explored.
    pub(crate) const fn presume(&mut self) {
        self.recent = mask(self.explored_most);
    }

    pub(crate) fn put(&self, words: &mut Vec<u64>) {
        words.extend([
            self.allowance.to_bits(),
            (self.recent >> 64) as u64,
            self.recent as u64,
            self.paused_until_ms,
            u64::from(self.pauses),
            u64::from(self.quiet),
        ]);
    }

    /// Takes up what was explored and lost before, under the bounds that it has now.
    pub(crate) fn take(&mut self, words: &mut Words<'_>) -> Option<()> {
        self.allowance = words.number()?.min(ALLOWANCE_MOST);
        self.recent = u128::from(words.word()?) << 64 | u128::from(words.word()?);
        self.paused_until_ms = words.word()?;
        self.pauses = words.small()?;
        self.quiet = words.small()?;
        Some(())
    }

    /// What one decision may cost: all that must be kept of the largest reward.
    fn worst(&self) -> f64 {
        1.0 - self.loss_most
    }

    fn save(&mut self, amount: f64) {
        self.allowance = (self.allowance + amount).min(ALLOWANCE_MOST);
    }
}

/// The lowest bits.
const fn mask(bits: u32) -> u128 {
    (1 << bits) - 1
}
