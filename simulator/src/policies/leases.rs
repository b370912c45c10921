//! Leases by what was asked for: what a quota server does, as in Envoy's rate limit quota service (RLQS).
//!
//! A gateway reports what was asked for, and is assigned its share by [`Reactive`]. Nobody waits until another gateway has given up what
//! is assigned anew: for a period two of them may hold it, which is where such a fleet exceeds its contracts. A gateway that has just
//! started, or whose assignment has run out, goes by its floor: its even part of the guarantee.

use super::central::{Central, Claim, scaled};
use crate::bucket::TimedBucket;
use crate::contract::Contract;
use crate::error::SimulationError;
use crate::fault::Fault;
use crate::network::Member;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};
use forebay_core::{Micro, Rate, TimeUs};
use forebay_sharing::{Claim as Asked, Law, Reactive, to_per_s};

/// A report and an assignment, and what each customer adds to it: an id of some 20 bytes, and counters or a bucket.
const MESSAGE_BYTES: usize = 24;
const REPORTED_BYTES: usize = 36;
const ASSIGNED_BYTES: usize = 44;

/// A gateway that has not reported for so many periods is taken to be gone.
const PERIODS_PRESENT: u64 = 3;

/// The fleet and its quota server.
pub(crate) struct Leases {
    period_us: u64,
    /// Of an assignment.
    lease_us: u64,
    gateways: Vec<Holder>,
    /// What the server knows, by gateway.
    known: Vec<Known>,
    reserve: Option<Central>,
}

/// A gateway.
struct Holder {
    reported_at: TimeUs,
    leases: Vec<Lease>,
}

/// What a gateway holds of one customer.
#[derive(Clone, Copy, Debug)]
struct Lease {
    bucket: TimedBucket,
    rate: Rate,
    depth: Micro,
    until: TimeUs,
    asked: u64,
}

/// What the last report of a gateway said.
#[derive(Clone, Debug)]
struct Known {
    reported_at: TimeUs,
    /// By customer.
    asked_per_s: Vec<f64>,
}

/// What was asked for in a period.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    from: Member,
    period_us: u64,
    asked: Vec<(usize, u64)>,
}

/// What may be spent at a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    gateway: usize,
    sent_at: TimeUs,
    rates: Vec<(usize, Rate)>,
}

#[derive(Clone, Debug)]
pub(crate) enum LeaseEvent {
    Due(usize),
    Reported(Report),
    Assigned(Assignment),
    Claim(Claim),
}

// === impl Leases ===

impl Leases {
    /// Reports in periods, and assignments that outlive one report that is lost.
    pub(crate) fn new(scenario: &Scenario, period_us: u64) -> Self {
        let reserve = scenario.settings.reserve;
        let gateways = scenario.settings.gateways;
        let known = Known {
            reported_at: TimeUs(0),
            asked_per_s: vec![0.0; scenario.contracts.len()],
        };
        Self {
            period_us,
            lease_us: 2 * period_us + period_us / 2,
            gateways: Vec::new(),
            known: vec![known; gateways],
            reserve: (reserve > 0.0).then(|| Central::new(scenario, reserve, false)),
        }
    }

    /// A gateway begins.
    fn holder(context: &Context<'_, LeaseEvent>) -> Holder {
        let scenario = context.scenario;
        let lease = |contract: &Contract| {
            let rate = floor(*contract, scenario);
            let depth = depth(*contract, rate, scenario);
            Lease {
                bucket: TimedBucket::full(depth, context.now),
                rate,
                depth,
                until: TimeUs::NEVER,
                asked: 0,
            }
        };
        Holder {
            reported_at: context.now,
            leases: scenario.contracts.iter().map(lease).collect(),
        }
    }

    /// Reports about customers that have asked, and about those of which more than the floor is held, so that it can go elsewhere.
    fn report(&mut self, index: usize, context: &mut Context<'_, LeaseEvent>) {
        let from = context.member(index);
        let Some(holder) = self.gateways.get_mut(index) else {
            return;
        };
        let period_us = context.now.since(holder.reported_at).max(1);
        holder.reported_at = context.now;
        let contracts = context.scenario.contracts.iter();
        let mut asked = Vec::new();
        for ((customer, lease), contract) in holder.leases.iter_mut().enumerate().zip(contracts) {
            let count = std::mem::take(&mut lease.asked);
            if count > 0 || lease.rate > floor(*contract, context.scenario) {
                asked.push((customer, count));
            }
        }
        let bytes = MESSAGE_BYTES + REPORTED_BYTES * asked.len();
        let report = Report {
            from,
            period_us,
            asked,
        };
        context.send_to_centre(index, bytes, LeaseEvent::Reported(report));
        let at = context.now.plus_us(self.period_us);
        context.timer(at, from, LeaseEvent::Due(index));
    }

    fn assign(&mut self, report: &Report, context: &mut Context<'_, LeaseEvent>) {
        let now = context.now;
        let scenario = context.scenario;
        let gateway = report.from.gateway;
        if let Some(known) = self.known.get_mut(gateway) {
            known.reported_at = now;
            known.asked_per_s.fill(0.0);
            for (customer, count) in &report.asked {
                if let Some(asked_per_s) = known.asked_per_s.get_mut(*customer) {
                    *asked_per_s = *count as f64 * 1e6 / report.period_us as f64;
                }
            }
        }
        let mut shares = Vec::new();
        let mut rates = Vec::new();
        for (customer, _) in &report.asked {
            let Some(contract) = scenario.contracts.get(*customer) else {
                continue;
            };
            let floor_per_s = to_per_s(floor(*contract, scenario));
            let claims: Vec<Asked> = self
                .known
                .iter()
                .map(|known| {
                    let is_present =
                        now.since(known.reported_at) <= PERIODS_PRESENT * self.period_us;
                    let asked_per_s = known.asked_per_s.get(*customer).copied();
                    Asked {
                        demand_per_s: asked_per_s.filter(|_| is_present).unwrap_or(0.0),
                        floor_per_s,
                        ..Asked::default()
                    }
                })
                .collect();
            let whole = scaled(*contract, 1.0 - scenario.settings.reserve).0;
            Reactive.divide(to_per_s(whole), &claims, &mut shares);
            let share_per_s = shares.get(gateway).copied().unwrap_or(0.0);
            rates.push((*customer, Rate::new((share_per_s * 1e6) as u64)));
        }
        let bytes = MESSAGE_BYTES + ASSIGNED_BYTES * rates.len();
        let assignment = Assignment {
            gateway,
            sent_at: now,
            rates,
        };
        context.send_to_gateway(report.from, bytes, LeaseEvent::Assigned(assignment));
    }

    fn assigned(&mut self, assignment: &Assignment, context: &mut Context<'_, LeaseEvent>) {
        let now = context.now;
        let until = assignment.sent_at.plus_us(self.lease_us);
        if let Some(holder) = self.gateways.get_mut(assignment.gateway) {
            for (customer, rate) in &assignment.rates {
                let contract = context.scenario.contracts.get(*customer);
                if let Some((lease, contract)) = holder.leases.get_mut(*customer).zip(contract) {
                    let depth = depth(*contract, *rate, context.scenario);
                    lease.change(*rate, depth, until, now);
                }
            }
        }
        context.informed(assignment.gateway);
    }
}

impl Policy for Leases {
    type Event = LeaseEvent;

    fn start(&mut self, context: &mut Context<'_, LeaseEvent>) -> Result<(), SimulationError> {
        let gateways = context.scenario.settings.gateways;
        for index in 0..gateways {
            self.gateways.push(Self::holder(context));
            // Fleets that were started at one time do not report at one time.
            let offset_us = self.period_us * (index as u64 + 1) / gateways as u64;
            let at = context.now.plus_us(offset_us);
            context.timer(at, context.member(index), LeaseEvent::Due(index));
        }
        Ok(())
    }

    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, LeaseEvent>,
    ) -> Result<(), SimulationError> {
        let now = context.now;
        let holder = self.gateways.get_mut(arrival.gateway);
        let contract = context.scenario.contracts.get(arrival.tenant);
        let Some((holder, contract)) = holder.zip(contract) else {
            return Ok(());
        };
        let Some(lease) = holder.leases.get_mut(arrival.tenant) else {
            return Ok(());
        };
        lease.asked += 1;
        if lease.until <= now {
            let rate = floor(*contract, context.scenario);
            let depth = depth(*contract, rate, context.scenario);
            lease.change(rate, depth, TimeUs::NEVER, now);
        }
        let is_admitted = lease.bucket.take(lease.rate, lease.depth, now);
        match &self.reserve {
            Some(reserve) if !is_admitted => reserve.ask(index, arrival.gateway, context),
            _ => context.decide(index, is_admitted),
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: LeaseEvent,
        context: &mut Context<'_, LeaseEvent>,
    ) -> Result<(), SimulationError> {
        match event {
            LeaseEvent::Due(index) => self.report(index, context),
            LeaseEvent::Reported(report) => self.assign(&report, context),
            LeaseEvent::Assigned(assignment) => self.assigned(&assignment, context),
            LeaseEvent::Claim(claim) => {
                if let Some(reserve) = &mut self.reserve {
                    reserve.event(claim, context);
                }
            }
        }
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, LeaseEvent>,
    ) -> Result<(), SimulationError> {
        match fault {
            Fault::Born(index) => {
                if let Some(place) = self.gateways.get_mut(index) {
                    *place = Self::holder(context);
                }
                let at = context.now.plus_us(self.period_us);
                context.timer(at, context.member(index), LeaseEvent::Due(index));
            }
            Fault::Start { is_clean: false } => {
                for known in &mut self.known {
                    known.asked_per_s.fill(0.0);
                }
                if let Some(reserve) = &mut self.reserve {
                    reserve.forget(context.scenario, context.now);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

// === impl Lease ===

impl Lease {
    /// The level stays, as far as the new depth has room for it.
    fn change(&mut self, rate: Rate, depth: Micro, until: TimeUs, now: TimeUs) {
        self.bucket.level(self.rate, self.depth, now);
        self.bucket.level(rate, depth, now);
        (self.rate, self.depth, self.until) = (rate, depth, until);
    }
}

// === impl LeaseEvent ===

impl From<Claim> for LeaseEvent {
    fn from(claim: Claim) -> Self {
        Self::Claim(claim)
    }
}

fn floor(contract: Contract, scenario: &Scenario) -> Rate {
    let gateways = scenario.settings.gateways as u64;
    let kept = scaled(contract, 1.0 - scenario.settings.reserve).0;
    contract.guarantee().min(kept).share(1, gateways.max(1))
}

/// The burst is divided like the rate; below one token nothing would ever be admitted.
fn depth(contract: Contract, rate: Rate, scenario: &Scenario) -> Micro {
    let (_, burst) = scaled(contract, 1.0 - scenario.settings.reserve);
    let depth = burst.share(rate.get(), contract.rate().get());
    depth
        .max(Micro::from_tokens(1))
        .min(burst.max(Micro::from_tokens(1)))
}
