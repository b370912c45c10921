//! One policy through one scenario: the loop over faults, events and requests, and what is noted on the way.

use crate::error::SimulationError;
use crate::fault::Fault;
use crate::network::{Member, Network};
use crate::scenario::{Arrival, Scenario};
use forebay_core::TimeUs;

/// So long after the last request answers may still come.
const DRAIN_US: u64 = 1_000_000;

/// How requests are decided.
pub(crate) trait Policy {
    /// A message or a timer.
    type Event: Clone;

    /// The fleet starts.
    fn start(&mut self, context: &mut Context<'_, Self::Event>) -> Result<(), SimulationError>;

    /// A request has come. It is decided now, or later by an event.
    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, Self::Event>,
    ) -> Result<(), SimulationError>;

    /// A message has arrived, or a timer is due.
    fn event(
        &mut self,
        event: Self::Event,
        context: &mut Context<'_, Self::Event>,
    ) -> Result<(), SimulationError>;

    /// Something has gone wrong, or has been put right.
    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, Self::Event>,
    ) -> Result<(), SimulationError>;
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// When its tokens were taken, or missed.
    pub(crate) decided_at: TimeUs,
    /// When the gateway knew.
    pub(crate) answered_at: TimeUs,
    pub(crate) is_admitted: bool,
}

/// All that a run is measured by.
#[derive(Clone, Debug)]
pub struct Record {
    /// By request. One without a decision went down with its gateway, or waits in vain: it is not admitted.
    pub(crate) decisions: Vec<Option<Decision>>,
    /// Messages while there was demand.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// By gateway: the sum over time of the age of what it goes by, in square microseconds, if it goes by anything.
    pub(crate) ages: Vec<Option<Age>>,
}

/// How old the information at a gateway is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Age {
    since: TimeUs,
    /// Integral of the age over time.
    sum_us2: f64,
}

/// The present, for a policy.
#[derive(Debug)]
pub(crate) struct Context<'a, E> {
    pub(crate) now: TimeUs,
    pub(crate) scenario: &'a Scenario,
    network: Network<E>,
    record: Record,
}

/// Runs a policy through a scenario.
pub(crate) fn run<P: Policy>(
    mut policy: P,
    scenario: &Scenario,
) -> Result<Record, SimulationError> {
    let mut context = Context::new(scenario);
    policy.start(&mut context)?;
    let end = scenario.demand_ends.plus_us(DRAIN_US);
    let mut arrivals = scenario.arrivals.iter().enumerate().peekable();
    let mut faults = scenario.faults.iter().peekable();
    loop {
        let fault_at = faults.peek().map_or(TimeUs::NEVER, |(at, _)| *at);
        let arrival_at = arrivals
            .peek()
            .map_or(TimeUs::NEVER, |(_, arrival)| arrival.at);
        let now = fault_at.min(arrival_at).min(context.network.next_at());
        if now > end {
            break;
        }
        context.now = now;
        if let Some((_, fault)) = faults.next_if(|(at, _)| *at <= now) {
            context.network.fault(*fault);
            policy.fault(*fault, &mut context)?;
        } else if context.network.next_at() <= now {
            if let Some(event) = context.network.next() {
                policy.event(event, &mut context)?;
            }
        } else if let Some((index, arrival)) = arrivals.next() {
            policy.request(index, *arrival, &mut context)?;
        }
    }
    Ok(context.finish())
}

// === impl Record ===

impl Record {
    /// Whether the request of this number was admitted.
    #[must_use]
    pub fn is_admitted(&self, index: usize) -> bool {
        let decision = self.decisions.get(index).copied().flatten();
        decision.is_some_and(|decision| decision.is_admitted)
    }
}

// === impl Context ===

impl<'a, E: Clone> Context<'a, E> {
    fn new(scenario: &'a Scenario) -> Self {
        Self {
            now: scenario.fleet_starts,
            scenario,
            network: Network::new(scenario),
            record: Record {
                decisions: vec![None; scenario.arrivals.len()],
                messages: 0,
                bytes: 0,
                ages: vec![None; scenario.settings.gateways],
            },
        }
    }

    /// The gateway as it lives now.
    pub(crate) fn member(&self, gateway: usize) -> Member {
        self.network.member(gateway)
    }

    pub(crate) fn send_to_centre(&mut self, from: usize, bytes: usize, event: E) {
        self.count(bytes);
        self.network.send_to_centre(from, self.now, event);
    }

    pub(crate) fn send_to_gateway(&mut self, to: Member, bytes: usize, event: E) {
        self.count(bytes);
        self.network.send_to_gateway(to, self.now, event);
    }

    /// What is due at a gateway at `at`, unless it dies before.
    pub(crate) fn timer(&mut self, at: TimeUs, member: Member, event: E) {
        self.network.timer(at, member, event);
    }

    /// A request is decided here and now. Only the first decision counts.
    pub(crate) fn decide(&mut self, index: usize, is_admitted: bool) {
        self.answer(index, self.now, is_admitted);
    }

    /// The gateway learns now what was decided at `decided_at`.
    pub(crate) fn answer(&mut self, index: usize, decided_at: TimeUs, is_admitted: bool) {
        if let Some(decision) = self.record.decisions.get_mut(index) {
            decision.get_or_insert(Decision {
                decided_at,
                answered_at: self.now,
                is_admitted,
            });
        }
    }

    /// A gateway goes by new information from now on.
    pub(crate) fn informed(&mut self, gateway: usize) {
        let starts = self.scenario.demand_starts;
        if let Some(age) = self.record.ages.get_mut(gateway) {
            let since = starts.max(self.now);
            match age {
                Some(age) => age.renew(since),
                None => {
                    *age = Some(Age {
                        since,
                        sum_us2: 0.0,
                    })
                }
            }
        }
    }

    fn count(&mut self, bytes: usize) {
        if self.now >= self.scenario.demand_starts && self.now <= self.scenario.demand_ends {
            self.record.messages += 1;
            self.record.bytes += bytes as u64;
        }
    }

    fn finish(mut self) -> Record {
        for age in self.record.ages.iter_mut().flatten() {
            age.renew(self.scenario.demand_ends.max(age.since));
        }
        self.record
    }
}

// === impl Age ===

impl Age {
    fn renew(&mut self, now: TimeUs) {
        let age_us = now.since(self.since) as f64;
        self.sum_us2 += age_us * age_us / 2.0;
        self.since = now;
    }

    /// The mean over `length_us`, in milliseconds.
    pub(crate) fn mean_ms(&self, length_us: u64) -> f64 {
        self.sum_us2 / length_us.max(1) as f64 / 1e3
    }
}
