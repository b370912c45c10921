//! What can stop a simulation.

use crate::policies::PolicyName;
use forebay_core::CoreError;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The control plane does not start, or does not take the policy.
    #[error("the control plane of the simulation failed: {0}")]
    Coordinator(Box<dyn std::error::Error + Send + Sync>),
    /// A gateway was sent a policy that is none.
    #[error("a gateway of the simulation cannot read its policy: {0}")]
    Policy(#[from] CoreError),
    /// A run failed.
    #[error(
        "{policy} with seed {seed}: {source}; the same run again: --seed {seed} --policy {policy}"
    )]
    Run {
        /// The policy.
        policy: PolicyName,
        /// The seed.
        seed: u64,
        /// Why.
        source: Box<SimulationError>,
    },
    /// No such policy.
    #[error("there is no policy `{given}`: choose of {known}")]
    UnknownPolicy {
        /// What was asked for.
        given: String,
        /// What there is.
        known: String,
    },
    /// More than a comparison can bear.
    #[error("{found} {what} are more than the {most} that a comparison bears: {instead}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// Upper bound.
        most: u64,
        /// What to do.
        instead: &'static str,
    },
    /// Steps that say nothing of what is asked for in a second.
    #[error(
        "a step of {step_s} s says too little of seconds: record usage in steps of 1 to 3600 s"
    )]
    Step {
        /// Its length.
        step_s: u32,
    },
    /// Usage that is none.
    #[error(
        "customer {customer} of the recorded usage, counted from 1, has {found} requests in step {step}: a step has from 0 to 1e12"
    )]
    NotAnAmount {
        /// Its position, from 1.
        customer: usize,
        /// The step, from 1.
        step: usize,
        /// What is recorded.
        found: f64,
    },
}
