//! The bound: one bucket per customer that every gateway sees without any delay. With requests of one size, nothing that keeps to
//! the contracts admits more.

use crate::bucket::TimedBucket;
use crate::error::SimulationError;
use crate::fault::Fault;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};

/// The buckets, by customer.
pub(crate) struct Oracle(Vec<TimedBucket>);

// === impl Oracle ===

impl Oracle {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let contracts = scenario.contracts.iter();
        let full = contracts.map(|one| TimedBucket::full(one.burst(), scenario.fleet_starts));
        Self(full.collect())
    }
}

impl Policy for Oracle {
    type Event = ();

    fn start(&mut self, _: &mut Context<'_, ()>) -> Result<(), SimulationError> {
        Ok(())
    }

    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, ()>,
    ) -> Result<(), SimulationError> {
        let contract = context.scenario.contracts.get(arrival.tenant);
        if let Some((bucket, contract)) = self.0.get_mut(arrival.tenant).zip(contract) {
            let is_admitted = bucket.take(contract.rate(), contract.burst(), context.now);
            context.decide(index, is_admitted);
        }
        Ok(())
    }

    fn event(&mut self, (): (), _: &mut Context<'_, ()>) -> Result<(), SimulationError> {
        Ok(())
    }

    fn fault(&mut self, _: Fault, _: &mut Context<'_, ()>) -> Result<(), SimulationError> {
        Ok(())
    }
}
