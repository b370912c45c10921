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
}
