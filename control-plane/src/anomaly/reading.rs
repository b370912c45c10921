//! What is read of a step, and what it says of a customer.

use crate::forecasts;
use crate::history::Series;
use forebay_anomaly::{Rule, Step};
use forebay_core::policy::ContractIndex;
use hashbrown::HashMap;
use std::sync::Arc;

/// What was used of a resource in a step, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    pub(crate) asked: f64,
    pub(crate) denied: f64,
    /// Gateways at which anything was asked for.
    pub(crate) gateways: Option<u32>,
}

/// Who is watched in a step, and by which contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) series: Series,
    pub(crate) contract: ContractIndex,
    /// What the contract allows at most, with what is borrowed, in tokens per second.
    pub(crate) ceiling_per_s: f64,
    pub(crate) is_stranger: bool,
    pub(crate) rule: Rule,
    /// A known event in the step.
    pub(crate) event_factor: Option<f64>,
}

/// A step.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) step: u64,
    pub(crate) readings: Vec<Reading>,
    /// Where it is not zero.
    pub(crate) used: HashMap<Series, Used>,
    /// Names of contracts, by row.
    pub(crate) contracts: Vec<String>,
    /// What is forecast from now on.
    pub(crate) forecasts: Arc<forecasts::Book>,
}

// === impl Reading ===

impl Reading {
    /// What a customer did. Gateways say how much they denied and not why: of what lies beyond the contract's ceiling in the step, the contract has; of the rest
    /// a pool has, or a gateway whose part of the contract was too small, which is asked for once more elsewhere. From the rate on would be wrong: between rate
    /// and ceiling it is the pool that denies, and whoever usually borrows would be flagged for what its neighbours ask for.
    ///
    /// While a customer is capped nothing counts as denied by its contract: what the cap denies is asked for once more, also beyond the ceiling, and would keep
    /// the flag that caps it.
    pub(super) fn step(
        &self,
        used: Used,
        (unix_ms, step_ms): (u64, u64),
        forecast_high: Option<f64>,
        is_capped: bool,
    ) -> Step {
        let allowed = self.ceiling_per_s * step_ms as f64 / 1e3;
        let denied_contract = match is_capped {
            true => 0.0,
            false => used.denied.min((used.asked - allowed).max(0.0)),
        };
        Step {
            unix_ms,
            asked: used.asked,
            denied_contract,
            denied_pool: used.denied - denied_contract,
            keys: used.gateways.map(f64::from),
            forecast_high,
            event_factor: self.event_factor,
        }
    }
}
