//! Each gateway has its even part of each contract, for good: what a fleet does that has nothing in the middle. With a reserve, a part of
//! each contract is in the middle after all, and what the gateway would deny is asked for there.

use super::central::{Central, Claim, scaled};
use crate::bucket::TimedBucket;
use crate::error::SimulationError;
use crate::fault::Fault;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};
use forebay_core::TimeUs;

/// The buckets of all gateways.
pub(crate) struct EvenSplit {
    /// By gateway, then by customer.
    buckets: Vec<Vec<TimedBucket>>,
    /// What one gateway has of a contract.
    part: f64,
    reserve: Option<Central>,
}

// === impl EvenSplit ===

impl EvenSplit {
    /// Each gateway has one of so many parts of what is not in the reserve.
    pub(crate) fn new(scenario: &Scenario, parts: u64) -> Self {
        let reserve = scenario.settings.reserve;
        let part = (1.0 - reserve) / parts.max(1) as f64;
        let full = full(scenario, part, scenario.fleet_starts);
        Self {
            buckets: vec![full; scenario.settings.gateways],
            part,
            reserve: (reserve > 0.0).then(|| Central::new(scenario, reserve, false)),
        }
    }
}

impl Policy for EvenSplit {
    type Event = Claim;

    fn start(&mut self, _: &mut Context<'_, Claim>) -> Result<(), SimulationError> {
        Ok(())
    }

    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, Claim>,
    ) -> Result<(), SimulationError> {
        let bucket = self
            .buckets
            .get_mut(arrival.gateway)
            .and_then(|buckets| buckets.get_mut(arrival.tenant));
        let contract = context.scenario.contracts.get(arrival.tenant);
        let is_admitted = bucket.zip(contract).is_some_and(|(bucket, contract)| {
            let (rate, depth) = scaled(*contract, self.part);
            bucket.take(rate, depth, context.now)
        });
        match &self.reserve {
            Some(reserve) if !is_admitted => reserve.ask(index, arrival.gateway, context),
            _ => context.decide(index, is_admitted),
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: Claim,
        context: &mut Context<'_, Claim>,
    ) -> Result<(), SimulationError> {
        if let Some(reserve) = &mut self.reserve {
            reserve.event(event, context);
        }
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, Claim>,
    ) -> Result<(), SimulationError> {
        match (fault, &mut self.reserve) {
            // A process that starts has full buckets: it knows nothing of the one before it.
            (Fault::Born(gateway), _) => {
                if let Some(buckets) = self.buckets.get_mut(gateway) {
                    *buckets = full(context.scenario, self.part, context.now);
                }
            }
            (Fault::Start { is_clean: false }, Some(reserve)) => {
                reserve.forget(context.scenario, context.now);
            }
            _ => {}
        }
        Ok(())
    }
}

fn full(scenario: &Scenario, part: f64, now: TimeUs) -> Vec<TimedBucket> {
    let contracts = scenario.contracts.iter();
    contracts
        .map(|contract| TimedBucket::full(scaled(*contract, part).1, now))
        .collect()
}
