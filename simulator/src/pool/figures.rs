//! What came of a run.

use super::demand::StandardBucket;
use super::guard::{PoolBucket, Served};
use super::market::Market;
use super::{CYCLE_MINUTES, ROUNDING};
use forebay_core::policy::Tier;
use forebay_sharing::tuning::Outcome;

/// How many figures there are.
const COUNT: usize = 14;

/// The figures of a run. What is not a number does not apply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolFigures {
    /// Of what was asked for within contracts, the part that was admitted and that the pool could serve.
    pub goodput: f64,
    /// Of the same, the part that was denied while the capacity of the sub-step was not used up.
    pub false_rejected: f64,
    /// Of customers' minutes in which something was asked for and no more than the guarantee, the part in which anything was denied. A part of a request
    /// that is denied counts as that chance.
    pub guarantee_missed: f64,
    /// The same of minutes in which no sub-step asked for more than the guarantee, or for more than one request where the guarantee is less.
    pub guarantee_missed_steady: f64,
    /// Of all that was asked for, the part that was admitted above what the pool had.
    pub over_admitted: f64,
    /// The same in the worst sub-step, as a part of its capacity.
    pub over_admitted_worst: f64,
    /// Jain's index over which part of its requests each customer was admitted, in the whole run.
    pub jain: f64,
    /// The same in each cycle, in the mean.
    pub jain_of_cycles: f64,
    /// The part of its requests that the customer was admitted which was admitted least of them.
    pub least_admitted: f64,
    /// The part of the sub-steps in which tier 1 was denied something and tier 3 was not denied all.
    pub inverted: f64,
    /// The part of their requests that customers of tier 1 were admitted.
    pub tier1_admitted: f64,
    /// Of tier 2.
    pub tier2_admitted: f64,
    /// Of tier 3.
    pub tier3_admitted: f64,
    /// Allocations that were sent and claims beyond them, over requests.
    pub messages_per_request: f64,
}

/// Watches a run.
pub(crate) struct Score {
    sub_step_s: f64,
    of_minute: usize,
    pool: PoolBucket,
    /// Of each customer.
    customers: Vec<Sums>,
    sub_steps: usize,
    asked: f64,
    denied: f64,
    false_rejected: f64,
    over: f64,
    over_worst: f64,
    inverted: usize,
    within_guarantee: Minutes,
    steady: Minutes,
    jains: f64,
    beyond: usize,
}

/// Minutes of customers that had a promise, and how many of them it was broken in.
#[derive(Default)]
struct Minutes {
    all: usize,
    missed: f64,
}

/// Sums of one customer, in requests.
struct Sums {
    tier: Tier,
    guarantee_per_s: f64,
    guarantee: StandardBucket,
    is_steady: bool,
    asked: f64,
    denied: f64,
    asked_in_minute: f64,
    denied_in_minute: f64,
    asked_in_cycle: f64,
    denied_in_cycle: f64,
}

// === impl PoolFigures ===

impl PoolFigures {
    /// Names, in the order of [`Self::values`].
    pub const NAMES: [&'static str; COUNT] = [
        "goodput",
        "false_rejected",
        "guarantee_missed",
        "guarantee_missed_steady",
        "over_admitted",
        "over_admitted_worst",
        "jain",
        "jain_of_cycles",
        "least_admitted",
        "inverted",
        "tier1_admitted",
        "tier2_admitted",
        "tier3_admitted",
        "messages_per_request",
    ];

    /// The figures in the order of their names.
    #[must_use]
    pub const fn values(&self) -> [f64; COUNT] {
        [
            self.goodput,
            self.false_rejected,
            self.guarantee_missed,
            self.guarantee_missed_steady,
            self.over_admitted,
            self.over_admitted_worst,
            self.jain,
            self.jain_of_cycles,
            self.least_admitted,
            self.inverted,
            self.tier1_admitted,
            self.tier2_admitted,
            self.tier3_admitted,
            self.messages_per_request,
        ]
    }
}

// === impl Score ===

impl Score {
    pub(crate) fn new(market: &Market, capacity_per_s: f64, sub_step_s: usize) -> Self {
        let guarantees = market.guarantees_per_s(capacity_per_s);
        let customers = market.buyers.iter().zip(guarantees);
        Self {
            sub_step_s: sub_step_s as f64,
            of_minute: 60 / sub_step_s,
            pool: PoolBucket::full(capacity_per_s),
            customers: customers
                .map(|(buyer, guarantee_per_s)| Sums {
                    tier: buyer.tier,
                    guarantee_per_s,
                    guarantee: StandardBucket::full(guarantee_per_s, 1.0),
                    is_steady: true,
                    asked: 0.0,
                    denied: 0.0,
                    asked_in_minute: 0.0,
                    denied_in_minute: 0.0,
                    asked_in_cycle: 0.0,
                    denied_in_cycle: 0.0,
                })
                .collect(),
            sub_steps: 0,
            asked: 0.0,
            denied: 0.0,
            false_rejected: 0.0,
            over: 0.0,
            over_worst: 0.0,
            inverted: 0,
            within_guarantee: Minutes::default(),
            steady: Minutes::default(),
            jains: 0.0,
            beyond: 0,
        }
    }

    /// Takes in a sub-step.
    pub(crate) fn see(&mut self, demand: &[f32], denied: &[f64], served: Served) {
        let mut asked = 0.0;
        for (sums, demand) in self.customers.iter_mut().zip(demand) {
            let demand = f64::from(*demand);
            sums.asked_in_minute += demand;
            let passed = sums.guarantee.pass(demand, self.sub_step_s);
            sums.is_steady &= passed >= demand;
            asked += demand;
        }
        self.asked += asked;
        self.beyond += served.beyond;
        if served.is_short {
            self.see_denials(demand, denied, served.admitted);
        }
        let capacity = self.pool.capacity_per_s * self.sub_step_s;
        let over = served.admitted - self.pool.available(self.sub_step_s);
        if over > ROUNDING * capacity {
            self.over += over;
            self.over_worst = self.over_worst.max(over / capacity);
        }
        self.pool.spend(served.admitted, self.sub_step_s);
        self.sub_steps += 1;
        if self.sub_steps.is_multiple_of(self.of_minute) {
            self.end_minute();
            if self
                .sub_steps
                .is_multiple_of(self.of_minute * CYCLE_MINUTES)
            {
                self.end_cycle();
            }
        }
    }

    fn see_denials(&mut self, demand: &[f32], denied: &[f64], admitted: f64) {
        let mut all = 0.0;
        let (mut tier1_denied, mut tier3_admitted) = (0.0, 0.0);
        for ((sums, demand), denied) in self.customers.iter_mut().zip(demand).zip(denied) {
            sums.denied_in_minute += denied;
            all += denied;
            match sums.tier {
                Tier::One => tier1_denied += denied,
                Tier::Two => {}
                Tier::Three => tier3_admitted += f64::from(*demand) - denied,
            }
        }
        let room = (self.pool.capacity_per_s * self.sub_step_s - admitted).max(0.0);
        self.denied += all;
        self.false_rejected += all.min(room);
        self.inverted += usize::from(tier1_denied > ROUNDING && tier3_admitted > ROUNDING);
    }

    fn end_minute(&mut self) {
        for sums in &mut self.customers {
            let asked = std::mem::take(&mut sums.asked_in_minute);
            let denied = std::mem::take(&mut sums.denied_in_minute);
            let is_steady = std::mem::replace(&mut sums.is_steady, true);
            if asked > 0.0 && asked <= sums.guarantee_per_s * 60.0 {
                self.within_guarantee.see(denied);
                if is_steady {
                    self.steady.see(denied);
                }
            }
            sums.asked_in_cycle += asked;
            sums.denied_in_cycle += denied;
        }
    }

    fn end_cycle(&mut self) {
        let parts = self.customers.iter();
        self.jains += jain(parts.map(|sums| (sums.asked_in_cycle, sums.denied_in_cycle)));
        for sums in &mut self.customers {
            sums.asked += std::mem::take(&mut sums.asked_in_cycle);
            sums.denied += std::mem::take(&mut sums.denied_in_cycle);
        }
    }

    /// Sums since the beginning, as tuning reads them.
    pub(crate) const fn outcome(&self) -> Outcome {
        Outcome {
            asked: self.asked,
            admitted: self.asked - self.denied,
            over_admitted: self.over,
            false_rejected: self.false_rejected,
            promised: self.steady.all as f64,
            missed: self.steady.missed,
        }
    }

    /// How often a customer was admitted something beyond its allocation.
    pub(crate) const fn beyond(&self) -> usize {
        self.beyond
    }

    /// The figures, with how many messages were sent and how many requests were made.
    pub(crate) fn figures(&self, messages: f64, offered: f64) -> PoolFigures {
        let cycles = self.sub_steps / (self.of_minute * CYCLE_MINUTES);
        let of_all = |sum: f64| sum / self.asked;
        let tier = |tier: Tier| {
            let of = || self.customers.iter().filter(move |sums| sums.tier == tier);
            let denied: f64 = of().map(|sums| sums.denied).sum();
            1.0 - denied / of().map(|sums| sums.asked).sum::<f64>()
        };
        let parts = self.customers.iter().filter(|sums| sums.asked > 0.0);
        PoolFigures {
            goodput: of_all(self.asked - self.denied - self.over),
            false_rejected: of_all(self.false_rejected),
            guarantee_missed: self.within_guarantee.part(),
            guarantee_missed_steady: self.steady.part(),
            over_admitted: of_all(self.over),
            over_admitted_worst: self.over_worst,
            jain: jain(self.customers.iter().map(|sums| (sums.asked, sums.denied))),
            jain_of_cycles: self.jains / cycles as f64,
            least_admitted: parts
                .map(|sums| 1.0 - sums.denied / sums.asked)
                .fold(1.0, f64::min),
            inverted: self.inverted as f64 / self.sub_steps as f64,
            tier1_admitted: tier(Tier::One),
            tier2_admitted: tier(Tier::Two),
            tier3_admitted: tier(Tier::Three),
            messages_per_request: messages / offered,
        }
    }
}

// === impl Minutes ===

impl Minutes {
    fn see(&mut self, denied: f64) {
        self.all += 1;
        if denied > ROUNDING {
            self.missed += denied.min(1.0);
        }
    }

    fn part(&self) -> f64 {
        self.missed / self.all.max(1) as f64
    }
}

/// Jain's index of what was asked for and denied; 1 where nobody asks.
fn jain(parts: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (count, sum, squares) = parts.filter(|(asked, _)| *asked > 0.0).fold(
        (0.0, 0.0, 0.0),
        |(count, sum, squares), (asked, denied)| {
            let part = 1.0 - denied / asked;
            (count + 1.0, sum + part, squares + part * part)
        },
    );
    if squares > 0.0 {
        sum * sum / (count * squares)
    } else {
        1.0
    }
}
