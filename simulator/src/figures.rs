//! What a run came to. Everything is measured from outside, by the decisions alone, so that no policy can flatter itself.

use crate::bucket::{COST, TimedBucket};
use crate::contract::Contract;
use crate::run::{Age, Decision, Record};
use crate::scenario::Scenario;
use forebay_core::{Micro, TimeUs};
use std::collections::VecDeque;

/// Each ledger may be ahead by the fractions of a micro-token that its buckets carry.
const ROUNDING: Micro = Micro::new(64);
const SECOND_US: u64 = 1_000_000;

/// The figures of a run. What is not a number does not apply to the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Part of the requests that was admitted.
    pub goodput: f64,
    /// Part of the requests that was denied although the customer's ideal bucket, fed with what was admitted, had the tokens.
    pub false_rejected: f64,
    /// Requests that the ideal bucket would not have admitted.
    pub over_admitted: f64,
    /// What was admitted of a customer in the worst second, above rate and burst.
    pub over_admitted_1s: f64,
    /// The same in the worst 10 s.
    pub over_admitted_10s: f64,
    /// Of the seconds of customers that asked for no more than their guarantee, the part in which something was denied.
    pub guarantee_missed: f64,
    /// Messages between gateways and the middle, both ways.
    pub messages_per_request: f64,
    /// Their bytes.
    pub bytes_per_request: f64,
    /// Mean age of what gateways go by.
    pub staleness_ms: f64,
    /// Jain's index over what part of its requests each customer was admitted: 1 when it is the same for all.
    pub jain: f64,
    /// Part of the requests that waited for an answer.
    pub waited: f64,
    /// How long those waited on average.
    pub wait_ms: f64,
}

/// How many figures there are.
pub(crate) const COUNT: usize = 12;

/// A request of one customer.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    asked_at: TimeUs,
    decided_at: TimeUs,
    is_admitted: bool,
}

/// Of one customer.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    asked: u64,
    admitted: u64,
    false_rejected: u64,
    over_admitted: u64,
    seconds: u64,
    seconds_missed: u64,
    over_1s: f64,
    over_10s: f64,
}

// === impl Figures ===

impl Figures {
    /// Names, in the order of [`Self::values`].
    pub const NAMES: [&'static str; COUNT] = [
        "goodput",
        "false_rejected",
        "over_admitted",
        "over_admitted_1s",
        "over_admitted_10s",
        "guarantee_missed",
        "messages_per_request",
        "bytes_per_request",
        "staleness_ms",
        "jain",
        "waited",
        "wait_ms",
    ];

    /// The figures in the order of their names.
    #[must_use]
    pub const fn values(&self) -> [f64; COUNT] {
        [
            self.goodput,
            self.false_rejected,
            self.over_admitted,
            self.over_admitted_1s,
            self.over_admitted_10s,
            self.guarantee_missed,
            self.messages_per_request,
            self.bytes_per_request,
            self.staleness_ms,
            self.jain,
            self.waited,
            self.wait_ms,
        ]
    }

    /// Measures a run.
    #[must_use]
    pub fn of(scenario: &Scenario, record: &Record) -> Self {
        let outcomes = by_customer(scenario, &record.decisions);
        let sums: Vec<Sums> = scenario
            .contracts
            .iter()
            .zip(outcomes)
            .map(|(contract, outcomes)| Sums::of(*contract, outcomes, scenario))
            .collect();
        let total = |value: fn(&Sums) -> u64| sums.iter().map(value).sum::<u64>() as f64;
        let most = |value: fn(&Sums) -> f64| sums.iter().map(value).fold(0.0, f64::max);
        let asked = total(|one| one.asked);
        let (waited, wait_us) = waits(scenario, &record.decisions);
        Self {
            goodput: total(|one| one.admitted) / asked,
            false_rejected: total(|one| one.false_rejected) / asked,
            over_admitted: total(|one| one.over_admitted),
            over_admitted_1s: most(|one| one.over_1s),
            over_admitted_10s: most(|one| one.over_10s),
            guarantee_missed: total(|one| one.seconds_missed) / total(|one| one.seconds),
            messages_per_request: record.messages as f64 / asked,
            bytes_per_request: record.bytes as f64 / asked,
            staleness_ms: staleness_ms(scenario, &record.ages),
            jain: jain(&sums),
            waited: waited as f64 / asked,
            wait_ms: wait_us as f64 / 1e3 / waited as f64,
        }
    }
}

/// The requests of each customer, in the order in which they were decided.
fn by_customer(scenario: &Scenario, decisions: &[Option<Decision>]) -> Vec<Vec<Outcome>> {
    let mut outcomes = vec![Vec::new(); scenario.contracts.len()];
    for (arrival, decision) in scenario.arrivals.iter().zip(decisions) {
        if let Some(outcomes) = outcomes.get_mut(arrival.tenant) {
            outcomes.push(Outcome {
                asked_at: arrival.at,
                decided_at: decision.map_or(arrival.at, |decision| decision.decided_at),
                is_admitted: decision.is_some_and(|decision| decision.is_admitted),
            });
        }
    }
    for outcomes in &mut outcomes {
        outcomes.sort_by_key(|outcome| outcome.decided_at);
    }
    outcomes
}

/// Requests that waited, and for how long together.
fn waits(scenario: &Scenario, decisions: &[Option<Decision>]) -> (u64, u64) {
    let waits = scenario.arrivals.iter().zip(decisions);
    waits
        .filter_map(|(arrival, decision)| Some(decision.as_ref()?.answered_at.since(arrival.at)))
        .filter(|wait_us| *wait_us > 0)
        .fold((0, 0), |(count, sum), wait_us| (count + 1, sum + wait_us))
}

fn staleness_ms(scenario: &Scenario, ages: &[Option<Age>]) -> f64 {
    let length_us = scenario.demand_ends.since(scenario.demand_starts);
    let means = ages.iter().flatten().map(|age| age.mean_ms(length_us));
    let sum: f64 = means.clone().sum();
    sum / means.count() as f64
}

fn jain(sums: &[Sums]) -> f64 {
    let parts = sums
        .iter()
        .filter(|one| one.asked > 0)
        .map(|one| one.admitted as f64 / one.asked as f64);
    let (count, sum, squares) = parts.fold((0.0, 0.0, 0.0), |(count, sum, squares), part| {
        (count + 1.0, sum + part, squares + part * part)
    });
    sum * sum / (count * squares)
}

// === impl Sums ===

impl Sums {
    fn of(contract: Contract, outcomes: Vec<Outcome>, scenario: &Scenario) -> Self {
        let mut sums = Self {
            asked: outcomes.len() as u64,
            over_1s: over(contract, &outcomes, SECOND_US),
            over_10s: over(contract, &outcomes, 10 * SECOND_US),
            ..Self::default()
        };
        sums.judge(contract, &outcomes, scenario.fleet_starts);
        sums.count_seconds(contract, outcomes, scenario.demand_starts);
        sums
    }

    /// Compares with the ideal bucket, which takes what was admitted as long as it has it.
    fn judge(&mut self, contract: Contract, outcomes: &[Outcome], starts: TimeUs) {
        let (rate, depth) = (contract.rate(), contract.burst().plus(ROUNDING));
        let mut ideal = TimedBucket::full(depth, starts);
        for outcome in outcomes {
            if outcome.is_admitted {
                self.admitted += 1;
                if !ideal.take(rate, depth, outcome.decided_at) {
                    self.over_admitted += 1;
                }
            } else if ideal.level(rate, depth, outcome.decided_at) >= COST.plus(ROUNDING) {
                self.false_rejected += 1;
            }
        }
    }

    /// Looks at each second in which no more was asked for than is guaranteed.
    fn count_seconds(&mut self, contract: Contract, mut outcomes: Vec<Outcome>, starts: TimeUs) {
        outcomes.sort_by_key(|outcome| outcome.asked_at);
        let second = |outcome: &Outcome| outcome.asked_at.since(starts) / SECOND_US;
        for outcomes in outcomes.chunk_by(|one, other| second(one) == second(other)) {
            let asked = outcomes.len() as u64 * COST.get().unsigned_abs();
            if asked <= contract.guarantee().get() {
                self.seconds += 1;
                self.seconds_missed +=
                    u64::from(outcomes.iter().any(|outcome| !outcome.is_admitted));
            }
        }
    }
}

/// What was admitted in the worst window, in requests above what a bucket that was full before it could have given.
fn over(contract: Contract, outcomes: &[Outcome], window_us: u64) -> f64 {
    let rate = contract.rate().amount_in(window_us);
    let allowed = contract.burst().plus(rate).plus(ROUNDING);
    let mut window = VecDeque::new();
    let mut most = 0;
    for outcome in outcomes.iter().filter(|outcome| outcome.is_admitted) {
        window.push_back(outcome.decided_at);
        while window
            .front()
            .is_some_and(|first| outcome.decided_at.since(*first) > window_us)
        {
            window.pop_front();
        }
        most = most.max(window.len());
    }
    (most as f64 - allowed.get() as f64 / 1e6).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Arrival, Settings};

    const STARTS: TimeUs = TimeUs(5_000_000);

    /// One customer with 10 tokens per second, a burst of 20 and a guarantee of 2.5, and one request at each of these milliseconds.
    fn scenario(at_ms: &[u64]) -> Scenario {
        let arrivals = at_ms.iter().map(|ms| Arrival {
            at: STARTS.plus_us(ms * 1_000),
            tenant: 0,
            gateway: 0,
        });
        Scenario {
            seed: 1,
            settings: Settings {
                gateways: 1,
                capacity: 1.0,
                reserve: 0.0,
                faults_until_us: 0,
            },
            tenants: vec!["acme".into()],
            contracts: vec![Contract {
                rate_milli_per_s: 10_000,
            }],
            arrivals: arrivals.collect(),
            faults: Vec::new(),
            fleet_starts: TimeUs(1_000_000),
            demand_starts: STARTS,
            demand_ends: STARTS.plus_us(30_000_000),
        }
    }

    fn figures(at_ms: &[u64], is_admitted: impl Fn(usize) -> bool) -> Figures {
        let scenario = scenario(at_ms);
        let decisions = scenario.arrivals.iter().enumerate();
        let decisions = decisions.map(|(index, arrival)| {
            Some(Decision {
                decided_at: arrival.at,
                answered_at: arrival.at,
                is_admitted: is_admitted(index),
            })
        });
        let record = Record {
            decisions: decisions.collect(),
            messages: 0,
            bytes: 0,
            ages: vec![None],
        };
        Figures::of(&scenario, &record)
    }

    #[test]
    fn what_the_bucket_would_have_given_is_falsely_rejected_and_what_it_had_not_is_over_admitted() {
        let burst: Vec<u64> = vec![0; 25];
        let exact = figures(&burst, |index| index < 20);
        assert_eq!((exact.goodput, exact.false_rejected), (0.8, 0.0));
        assert_eq!((exact.over_admitted, exact.over_admitted_1s), (0.0, 0.0));
        let mean = figures(&burst, |index| index < 15);
        assert_eq!((mean.goodput, mean.false_rejected), (0.6, 0.4));
        let generous = figures(&burst, |_| true);
        assert_eq!(
            (generous.over_admitted, generous.false_rejected),
            (5.0, 0.0)
        );
        assert!(generous.staleness_ms.is_nan() && generous.wait_ms.is_nan());
    }

    #[test]
    fn the_worst_window_is_above_what_burst_and_rate_allow_in_it() {
        // 45 requests within a second, of which the bucket has 20 and 10 flow in.
        let second: Vec<u64> = (0..45).map(|index| index * 20).collect();
        let all = figures(&second, |_| true);
        assert!((14.9..=15.0).contains(&all.over_admitted_1s), "{all:?}");
        assert_eq!(all.over_admitted_10s, 0.0);
        // 15 a second for 10 s: 150 of 120.
        let steady: Vec<u64> = (0..150).map(|index| index * 1_000 / 15).collect();
        let all = figures(&steady, |_| true);
        assert_eq!(all.over_admitted_1s, 0.0);
        assert!((29.9..=30.0).contains(&all.over_admitted_10s), "{all:?}");
    }

    #[test]
    fn a_guarantee_is_missed_in_a_second_that_keeps_to_it_and_is_denied_something() {
        // Two in the first second, three in the second one, which is more than 2.5, one in the third.
        let at_ms = [0, 500, 1_000, 1_300, 1_600, 2_000];
        let missed = |denied: usize| figures(&at_ms, |index| index != denied).guarantee_missed;
        assert_eq!(missed(6), 0.0);
        assert_eq!(missed(1), 0.5);
        assert_eq!(missed(3), 0.0);
        assert_eq!(missed(5), 0.5);
    }

    #[test]
    fn fairness_is_that_of_the_parts_that_customers_were_admitted() {
        let sums = |admitted: &[u64]| -> Vec<Sums> {
            let sums = admitted.iter().map(|admitted| Sums {
                asked: 10,
                admitted: *admitted,
                ..Sums::default()
            });
            sums.chain([Sums::default()]).collect()
        };
        assert_eq!(jain(&sums(&[5, 5, 5])), 1.0);
        assert_eq!(jain(&sums(&[10, 0])), 0.5);
    }
}
