//! Why ranges or rules of tuning are refused.

use crate::tuning::Knob;
use thiserror::Error;

/// What is wrong with how tuning was asked for.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum TuningError {
    /// A range is empty, no number, or beyond what the knob may be.
    #[error(
        "range of {}: {low} to {high} is not within {} to {}; name a range within that",
        knob.name(), knob.bounds().0, knob.bounds().1
    )]
    Range {
        /// Which knob.
        knob: Knob,
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
    },
    /// The policy's own value is not in the range.
    #[error(
        "range of {}: {low} to {high} does not hold the policy's own value {own}; name one that does, or change the policy",
        knob.name()
    )]
    Own {
        /// Which knob.
        knob: Knob,
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
        /// The policy's value.
        own: f64,
    },
    /// More is to be explored than may be.
    #[error(
        "explored share: {share} is not within 0 and 0.05; name a share within that, 0 to switch tuning off"
    )]
    Share {
        /// What was asked for.
        share: f64,
    },
    /// The part of the reward that may be lost is no part.
    #[error("loss: {loss_most} is not within 0.001 and 0.5; name a part within that")]
    Loss {
        /// What was asked for.
        loss_most: f64,
    },
    /// What a tuner is to go on from is damaged, or another version's.
    #[error("what was kept of tuning is not as this version writes it; let it begin anew")]
    Kept,
}
