//! What a cycle reads of the state, copied under its lock: nothing here is computed yet.

use super::book::Book;
use super::rule::Rule;
use forebay_core::policy::Tier;
use forebay_core::resource::PerResource;
use forebay_sharing::Terms;
use forebay_wire::key::CustomerHash;
use std::sync::Arc;

/// A customer that may be allocated something.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) hash: CustomerHash,
    /// Listed by the policy, or known by the operator's word.
    pub(crate) is_listed: bool,
    /// Frozen or banned.
    pub(crate) is_denied: bool,
    pub(crate) tier: Tier,
    pub(crate) priority: u8,
    pub(crate) weight: f64,
    pub(crate) group: Option<usize>,
    pub(crate) terms: PerResource<Terms>,
    /// What is asked for at this moment, at all gateways.
    pub(crate) now_per_s: PerResource<f64>,
    /// What was asked for in the running step and the one before, at all gateways.
    pub(crate) lately: PerResource<Lately>,
    /// Gateways have said for long enough that it asks for something else than its forecast.
    pub(crate) has_left: bool,
}

/// What was asked for in the running step and the one before, in tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lately {
    pub(crate) running: f64,
    pub(crate) before: f64,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Gathered {
    /// The policy in force.
    pub(crate) policy: u64,
    pub(crate) rule: Arc<Rule>,
    /// Names of resources.
    pub(crate) resources: Vec<String>,
    /// Capacities by the policy, 0 where there is none.
    pub(crate) policy_capacity_per_s: PerResource<f64>,
    /// What of that is there.
    pub(crate) capacity_per_s: PerResource<f64>,
    pub(crate) candidates: Vec<Candidate>,
    /// The cycle in force.
    pub(crate) before: Arc<Book>,
    /// Which gateways had a live lease.
    pub(crate) live: Vec<u64>,
}
