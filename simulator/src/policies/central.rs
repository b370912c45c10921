//! A bucket per customer in the middle that is asked for each request, by a message and its answer.
//!
//! It is the whole of the policy `rpc`, and the reserve of those that divide a contract by themselves.

use crate::bucket::TimedBucket;
use crate::contract::Contract;
use crate::network::Member;
use crate::run::Context;
use crate::scenario::Scenario;
use forebay_core::{Micro, Rate, TimeUs};

/// A gateway waits no longer: the default of Envoy's `ratelimit` filter.
const TIMEOUT_US: u64 = 20_000;
/// Body and framing of a question, and of an answer: a descriptor with one entry, and a code with a limit.
const QUESTION_BYTES: usize = 64;
const ANSWER_BYTES: usize = 32;

/// The buckets.
pub(crate) struct Central {
    buckets: Vec<TimedBucket>,
    /// The part of each contract that is in its bucket.
    part: f64,
    /// What becomes of a request whose answer does not come.
    admits_on_timeout: bool,
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    /// It reaches the centre.
    Asked { index: usize, from: Member },
    /// Its answer reaches the gateway.
    Answered {
        index: usize,
        decided_at: TimeUs,
        is_admitted: bool,
    },
    /// The gateway waits no longer.
    TimedOut { index: usize },
}

// === impl Central ===

impl Central {
    pub(crate) fn new(scenario: &Scenario, part: f64, admits_on_timeout: bool) -> Self {
        let mut central = Self {
            buckets: Vec::new(),
            part,
            admits_on_timeout,
        };
        central.forget(scenario, scenario.fleet_starts);
        central
    }

    /// What was counted is lost: all buckets are full again.
    pub(crate) fn forget(&mut self, scenario: &Scenario, now: TimeUs) {
        let full = |contract: &Contract| TimedBucket::full(self.limits(*contract).1, now);
        self.buckets = scenario.contracts.iter().map(full).collect();
    }

    /// Asks for a request that has come to `gateway`.
    pub(crate) fn ask<E: Clone + From<Claim>>(
        &self,
        index: usize,
        gateway: usize,
        context: &mut Context<'_, E>,
    ) {
        let from = context.member(gateway);
        context.send_to_centre(gateway, QUESTION_BYTES, Claim::Asked { index, from }.into());
        let at = context.now.plus_us(TIMEOUT_US);
        context.timer(at, from, Claim::TimedOut { index }.into());
    }

    pub(crate) fn event<E: Clone + From<Claim>>(
        &mut self,
        claim: Claim,
        context: &mut Context<'_, E>,
    ) {
        match claim {
            Claim::Asked { index, from } => {
                let answer = Claim::Answered {
                    index,
                    decided_at: context.now,
                    is_admitted: self.take(index, context.scenario, context.now),
                };
                context.send_to_gateway(from, ANSWER_BYTES, answer.into());
            }
            Claim::Answered {
                index,
                decided_at,
                is_admitted,
            } => context.answer(index, decided_at, is_admitted),
            Claim::TimedOut { index } => context.decide(index, self.admits_on_timeout),
        }
    }

    fn take(&mut self, index: usize, scenario: &Scenario, now: TimeUs) -> bool {
        let Some(arrival) = scenario.arrivals.get(index) else {
            return false;
        };
        let Some(contract) = scenario.contracts.get(arrival.tenant) else {
            return false;
        };
        let (rate, depth) = self.limits(*contract);
        let bucket = self.buckets.get_mut(arrival.tenant);
        bucket.is_some_and(|bucket| bucket.take(rate, depth, now))
    }

    fn limits(&self, contract: Contract) -> (Rate, Micro) {
        scaled(contract, self.part)
    }
}

/// A part of a contract: rate and burst, rounded down.
pub(crate) fn scaled(contract: Contract, part: f64) -> (Rate, Micro) {
    let rate = contract.rate().get() as f64 * part;
    let burst = contract.burst().get() as f64 * part;
    (Rate::new(rate as u64), Micro::new(burst as i64))
}
