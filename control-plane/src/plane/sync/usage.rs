//! What the other gateways have used in the step that has just ended: a forecaster sees the traffic of its own gateway only, and its
//! windows are of the whole fleet.
//!
//! Told once per step. A reply that is lost takes it along: the step is then too small in one gateway's window, which is better than
//! to remember for each gateway what it has heard.

use super::super::state::State;
use super::Caller;
use super::reports::tokens;
use crate::buckets::SessionNumber;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{StepUsage, SyncReply};
use std::sync::Arc;

/// Usages in one reply: about 1 MB on the wire. Those beyond it are not told.
const MAX_USAGES: usize = 32_768;

/// Usage of a finished step, by gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// The step.
    pub step: u64,
    /// Where it is not zero.
    pub usage: Vec<FinishedUsage>,
}

/// Usage of one customer and resource.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedUsage {
    /// The customer.
    pub customer: CustomerHash,
    /// Index of the resource.
    pub resource: usize,
    /// Demand of all gateways in micro-tokens.
    pub demand: u64,
    /// Demand in micro-tokens, where it is not zero.
    pub by_session: Vec<(SessionNumber, u64)>,
}

/// Adds what others have used in the finished step, once for each step.
pub(super) fn add_step_usage(state: &mut State, caller: &Caller<'_>, reply: &mut SyncReply) {
    let finished = Arc::clone(&state.finished);
    let step = finished.step;
    match state.fleet.numbered(caller.session) {
        Some(session) if session.usage_told != step => session.usage_told = step,
        _ => return,
    }
    let by_others = finished.usage.iter().filter_map(|usage| {
        let others = usage.by_session.iter();
        let demand = others
            .filter(|(session, _)| *session != caller.session)
            .fold(0_u64, |sum, (_, demand)| sum.saturating_add(*demand));
        (demand > 0).then_some((usage, demand))
    });
    reply.step_usage = by_others
        .take(MAX_USAGES)
        .map(|(usage, demand)| {
            let spoken = state.directory.spoken(usage.customer, caller.dialect);
            let (hash_high, hash_low) = spoken.parts();
            StepUsage {
                hash_high,
                hash_low,
                resource: u32::try_from(usage.resource).unwrap_or(u32::MAX),
                step,
                usage: tokens(demand),
            }
        })
        .collect();
}
