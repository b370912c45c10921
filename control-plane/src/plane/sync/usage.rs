//! What the other gateways have used in the step that has just ended: a forecaster sees the traffic of its own gateway only, and its
//! windows are of the whole fleet.
//!
//! Told once per step. A reply that is lost takes it along: the step is then an estimate in one gateway's window, and teaches it nothing,
//! which is better than to remember for each gateway what it has heard. Whose others have used nothing is not named; that all who are not
//! named are such is said with the step, or a gateway could not tell silence from a reply that is still to come.

use super::super::state::State;
use super::Caller;
use super::reports::tokens;
use crate::buckets::SessionNumber;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{StepUsage, SyncReply};
use hashbrown::HashMap;
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
    /// By gateway that has a part of such a customer: places in `usage`, and its own demand there in micro-tokens. A list of gateways for each
    /// customer was worse: each gateway's reply went through all of them.
    by_session: HashMap<SessionNumber, Vec<(usize, u64)>>,
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
    /// What of that was denied, whatever for.
    pub denied: u64,
    /// At how many gateways there was any; none where a part of it is not known by gateway any more.
    pub gateways: Option<u32>,
}

// === impl Finished ===

impl Finished {
    /// A step of which no usage is known yet.
    #[must_use]
    pub fn of(step: u64) -> Self {
        Self {
            step,
            ..Self::default()
        }
    }

    /// Adds the usage of a customer, and the part of it that each gateway has.
    pub fn add(
        &mut self,
        usage: FinishedUsage,
        by_session: impl IntoIterator<Item = (SessionNumber, u64)>,
    ) {
        for (session, own) in by_session {
            let places = self.by_session.entry(session).or_default();
            places.push((self.usage.len(), own));
        }
        self.usage.push(usage);
    }

    /// Where others than this gateway have used something of what it has a part of, and how much, in micro-tokens.
    fn by_others(&self, session: SessionNumber) -> impl Iterator<Item = (&FinishedUsage, u64)> {
        let places = self.by_session.get(&session).into_iter().flatten();
        places.filter_map(|(place, own)| {
            let usage = self.usage.get(*place)?;
            let others = usage.demand.saturating_sub(*own);
            (others > 0).then_some((usage, others))
        })
    }
}

/// Adds what others have used in the finished step, once for each step.
pub(super) fn add_step_usage(state: &mut State, caller: &Caller<'_>, reply: &mut SyncReply) {
    let finished = Arc::clone(&state.finished);
    let step = finished.step;
    let Some(session) = state.fleet.numbered(caller.session) else {
        return;
    };
    let told_before = std::mem::replace(&mut session.usage_told, step);
    if told_before == step {
        return;
    }
    reply.step_usage = finished
        .by_others(caller.session)
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
    // Of a gateway that is new here the step may have ended before any of its parts were known.
    if told_before > 0 && reply.step_usage.len() < MAX_USAGES {
        reply.step_usage_whole = step;
    }
}
