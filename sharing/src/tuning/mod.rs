//! Whether other values of a few knobs would do better than the policy's, found out at a bounded price.
//!
//! A guarded contextual bandit. Each cycle a [`Tuner`] says by which values it is to be made: nearly always the policy's own, and now and
//! then, by chance from a seed, those of an arm that differs in one knob, within ranges that somebody has named ([`Arms`]). What came of
//! the cycle ([`Outcome`]) is what arms are told apart by, given what was known before it ([`Context`]).
//!
//! ```text
//!  Context ─▶ choose ─▶ Decision ─▶ (a cycle) ─▶ Outcome ─▶ observe ─▶ Logged ─▶ off-line: fit, inverse_propensity, doubly_robust
//!               ▲                                             │
//!     Guard, Learned, Chance ◀────────────────────────────────┴──▶ Evidence: which arm is better, with what certainty
//! ```
//!
//! - At most 5 in any 100 decisions in a row explore, and only while what exploring may cost is paid for (`guard`).
//! - A missed guarantee in a cycle that explored ends exploring at once, for a while.
//! - No arm takes the policy's place by itself. One that a sequential test finds to be better is named, and whoever owns the policy writes
//!   it there: a test speaks of the cycles that there were, and knobs that move by themselves make every other change harder to judge.
//!
//! Thompson sampling (Agrawal and Goyal, ICML 2013) would choose among arms as well as the upper bounds of Li et al. do here, and its
//! propensities are integrals; without them the log is worth little for judging anything else.

mod context;
mod error;
mod evidence;
mod guard;
mod kept;
mod knobs;
mod learned;
mod offline;
mod outcome;
mod ridge;
mod tuner;

pub use context::{Context, Features};
pub use error::TuningError;
pub use evidence::{Effect, Evidence};
pub use guard::{EXPLORED_MOST, Hold, WINDOW};
pub use kept::WORDS_MOST;
pub use knobs::{Arm, Arms, Knob, Range, Ranges};
pub use learned::Learned;
pub use offline::{Estimate, Logged, best_features, doubly_robust, inverse_propensity};
pub use outcome::Outcome;
pub use tuner::{Decision, Fallback, Observed, Rules, Tuner};
