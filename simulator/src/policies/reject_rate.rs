//! Every gateway admits by itself and reports what it did every 100 ms; the middle answers with the part of the requests to reject.
//!
//! The middle keeps one bucket per customer, fed with what was reported, and has what is asked for above its rate and its level
//! rejected by chance, wherever it comes from. What happens within a report's way is not seen until it has happened.

use crate::bucket::{COST, TimedBucket};
use crate::contract::Contract;
use crate::error::SimulationError;
use crate::fault::Fault;
use crate::network::Member;
use crate::random::Random;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};
use forebay_core::{Micro, TimeUs};

const PERIOD_US: u64 = 100_000;
/// What to reject holds for so long.
const HOLDS_US: u64 = 1_000_000;
/// What is asked for is averaged over so long, and what is in the bucket is given out within it.
const AVERAGE_US: f64 = 1_000_000.0;
const MESSAGE_BYTES: usize = 24;
const REPORTED_BYTES: usize = 36;
const REJECTED_BYTES: usize = 28;

/// The fleet and the middle.
pub(crate) struct RejectRate {
    gateways: Vec<Vec<Local>>,
    customers: Vec<Seen>,
    random: Random,
}

/// A customer at a gateway.
#[derive(Clone, Copy, Debug, Default)]
struct Local {
    asked: u64,
    admitted: u64,
    rejected_part: f64,
    until: TimeUs,
}

/// A customer in the middle.
#[derive(Clone, Copy, Debug)]
struct Seen {
    bucket: TimedBucket,
    asked_per_s: f64,
    at: TimeUs,
}

/// Of one customer: what was asked for, and what was admitted.
type Counted = (usize, u64, u64);

#[derive(Clone, Debug)]
pub(crate) enum ReportEvent {
    Due(usize),
    Reported(Member, Vec<Counted>),
    /// The part to reject, by customer.
    Told(usize, Vec<(usize, f64)>),
}

// === impl RejectRate ===

impl RejectRate {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let locals = vec![Local::default(); scenario.contracts.len()];
        Self {
            gateways: vec![locals; scenario.settings.gateways],
            customers: seen(scenario, scenario.fleet_starts),
            random: Random::new(scenario.seed).fork(5),
        }
    }

    fn report(&mut self, index: usize, context: &mut Context<'_, ReportEvent>) {
        let member = context.member(index);
        let Some(locals) = self.gateways.get_mut(index) else {
            return;
        };
        let mut counted = Vec::new();
        for (customer, local) in locals.iter_mut().enumerate() {
            if local.asked > 0 {
                counted.push((customer, local.asked, local.admitted));
                (local.asked, local.admitted) = (0, 0);
            }
        }
        if !counted.is_empty() {
            let bytes = MESSAGE_BYTES + REPORTED_BYTES * counted.len();
            context.send_to_centre(index, bytes, ReportEvent::Reported(member, counted));
        }
        let at = context.now.plus_us(PERIOD_US);
        context.timer(at, member, ReportEvent::Due(index));
    }

    fn answer(
        &mut self,
        from: Member,
        counted: &[Counted],
        context: &mut Context<'_, ReportEvent>,
    ) {
        let mut told = Vec::with_capacity(counted.len());
        for (customer, asked, admitted) in counted {
            let contract = context.scenario.contracts.get(*customer);
            if let Some((seen, contract)) = self.customers.get_mut(*customer).zip(contract) {
                let part = seen.reported(*asked, *admitted, *contract, context.now);
                told.push((*customer, part));
            }
        }
        let bytes = MESSAGE_BYTES + REJECTED_BYTES * told.len();
        context.send_to_gateway(from, bytes, ReportEvent::Told(from.gateway, told));
    }
}

impl Policy for RejectRate {
    type Event = ReportEvent;

    fn start(&mut self, context: &mut Context<'_, ReportEvent>) -> Result<(), SimulationError> {
        let gateways = self.gateways.len();
        for index in 0..gateways {
            let offset_us = PERIOD_US * index as u64 / gateways as u64;
            let at = context.now.plus_us(offset_us);
            context.timer(at, context.member(index), ReportEvent::Due(index));
        }
        Ok(())
    }

    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, ReportEvent>,
    ) -> Result<(), SimulationError> {
        let locals = self.gateways.get_mut(arrival.gateway);
        if let Some(local) = locals.and_then(|locals| locals.get_mut(arrival.tenant)) {
            let holds = local.until > context.now;
            let is_rejected = holds && self.random.chance(local.rejected_part);
            local.asked += 1;
            local.admitted += u64::from(!is_rejected);
            context.decide(index, !is_rejected);
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: ReportEvent,
        context: &mut Context<'_, ReportEvent>,
    ) -> Result<(), SimulationError> {
        match event {
            ReportEvent::Due(index) => self.report(index, context),
            ReportEvent::Reported(from, counted) => self.answer(from, &counted, context),
            ReportEvent::Told(index, told) => {
                for (customer, rejected_part) in told {
                    let locals = self.gateways.get_mut(index);
                    if let Some(local) = locals.and_then(|locals| locals.get_mut(customer)) {
                        local.rejected_part = rejected_part;
                        local.until = context.now.plus_us(HOLDS_US);
                    }
                }
                context.informed(index);
            }
        }
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, ReportEvent>,
    ) -> Result<(), SimulationError> {
        match fault {
            Fault::Born(index) => {
                if let Some(locals) = self.gateways.get_mut(index) {
                    locals.fill(Local::default());
                }
                context.timer(context.now, context.member(index), ReportEvent::Due(index));
            }
            Fault::Start { is_clean: false } => {
                self.customers = seen(context.scenario, context.now);
            }
            _ => {}
        }
        Ok(())
    }
}

// === impl Seen ===

impl Seen {
    /// Takes in a report, and returns the part of the requests to reject.
    fn reported(&mut self, asked: u64, admitted: u64, contract: Contract, now: TimeUs) -> f64 {
        let kept = (-(now.since(self.at) as f64) / AVERAGE_US).exp();
        self.asked_per_s = self.asked_per_s * kept + asked as f64 * 1e6 / AVERAGE_US;
        self.at = now;
        let level = self.bucket.level(contract.rate(), contract.burst(), now);
        let spent = COST.get() * admitted.cast_signed();
        self.bucket.charge(Micro::new(spent));
        let left = level.minus(Micro::new(spent)).get() as f64;
        let allowed_per_s = (contract.rate().get() as f64 + left * 1e6 / AVERAGE_US) / 1e6;
        (1.0 - allowed_per_s / self.asked_per_s).clamp(0.0, 1.0)
    }
}

fn seen(scenario: &Scenario, now: TimeUs) -> Vec<Seen> {
    let contracts = scenario.contracts.iter();
    let seen = contracts.map(|contract| Seen {
        bucket: TimedBucket::full(contract.burst(), now),
        asked_per_s: 0.0,
        at: now,
    });
    seen.collect()
}
