//! A message to the middle for each request, as with Envoy's `ratelimit` filter: exact while it answers, and open when it does not.

use super::central::{Central, Claim};
use crate::error::SimulationError;
use crate::fault::Fault;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};

/// The service in the middle.
pub(crate) struct Rpc(Central);

// === impl Rpc ===

impl Rpc {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self(Central::new(scenario, 1.0, true))
    }
}

impl Policy for Rpc {
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
        self.0.ask(index, arrival.gateway, context);
        Ok(())
    }

    fn event(
        &mut self,
        event: Claim,
        context: &mut Context<'_, Claim>,
    ) -> Result<(), SimulationError> {
        self.0.event(event, context);
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, Claim>,
    ) -> Result<(), SimulationError> {
        if fault == (Fault::Start { is_clean: false }) {
            self.0.forget(context.scenario, context.now);
        }
        Ok(())
    }
}
