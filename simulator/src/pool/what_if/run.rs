//! A policy, second by second, and both of them over a whole record.

use super::allowance::Allowance;
use super::loans::{Loans, lent_and_borrowed};
use super::outcome::{Outcome, Tally};
use super::side::{Division, Member, Pool, Side};
use super::usage::Usage;
use crate::pool::ROUNDING;
use crate::pool::claims::Claims;
use crate::pool::guard::{Guard, PoolBucket};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Held, Outlook, Part, Terms, allocate, credits_after};

/// A policy, and what it is told of the cycles that come.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The policy.
    pub side: &'a Side,
    /// `[cycle][customer]`: what was forecast of the cycle when it began.
    pub outlooks: &'a [Vec<Outlook>],
}

/// A policy in force. The policy itself is handed to each of its seconds: who has both would have to borrow from itself.
#[derive(Clone, Debug)]
pub(super) struct Run {
    allowances: Vec<Allowance>,
    claims: Option<Claims>,
    held: Vec<Held>,
    credits: Vec<f64>,
    /// Of the second that is served: what contracts let through, and what the pool denies of it.
    within: Vec<f32>,
    denied: Vec<f64>,
    tallies: Vec<Tally>,
    loans: Loans,
}

/// Runs the usage against both policies. The same arguments give the same outcomes, to the last bit.
#[must_use]
pub fn compare(usage: &Usage, both: [Told<'_>; 2], seed: u64) -> [Outcome; 2] {
    let mut runs = both.map(|told| Run::new(told.side));
    let mut drawn = usage.drawn(seed);
    let mut at_s = 0;
    for step in 0..usage.steps() {
        for asked in drawn.of_step(step) {
            for (run, told) in runs.iter_mut().zip(&both) {
                if told.side.begins_cycle(at_s) {
                    let cycle = usize::try_from(at_s / told.side.cycle_s()).ok();
                    let outlooks = cycle.and_then(|cycle| told.outlooks.get(cycle));
                    let outlooks = outlooks.map_or(&[][..], Vec::as_slice);
                    let left_s = usage.seconds().saturating_sub(at_s);
                    let lasts_s = told.side.cycle_s().min(left_s);
                    run.begin_cycle(told.side, at_s, lasts_s, outlooks);
                }
                run.second(told.side, at_s, asked);
            }
            at_s += 1;
        }
    }
    runs.map(Run::into_outcome)
}

// === impl Run ===

impl Run {
    pub(super) fn new(side: &Side) -> Self {
        let members = &side.members;
        let count = members.len();
        let claims = side.pool.map(|pool| {
            let bucket = PoolBucket::with_depth(pool.capacity_per_s, pool.depth);
            let tiers = members.iter().map(|member| member.tier);
            Claims::on(bucket, pool.protected_share, tiers, 1.0)
        });
        Self {
            allowances: members.iter().map(Allowance::full).collect(),
            claims,
            held: vec![Held::default(); count],
            credits: vec![0.0; count],
            within: vec![0.0; count],
            denied: vec![0.0; count],
            tallies: vec![Tally::default(); count],
            loans: Loans::default(),
        }
    }

    /// Has room for another customer, with full buckets.
    pub(super) fn add(&mut self, member: &Member) {
        self.allowances.push(Allowance::full(member));
        if let Some(claims) = &mut self.claims {
            claims.add(member.tier);
        }
        self.held.push(Held::default());
        self.credits.push(0.0);
        self.within.push(0.0);
        self.denied.push(0.0);
        self.tallies.push(Tally::default());
    }

    /// Serves what each customer asks for in a second.
    pub(super) fn second(&mut self, side: &Side, at_s: u64, asked: &[f32]) {
        let members = &side.members;
        let customers = members.iter().zip(&mut self.allowances).zip(asked);
        for (((member, allowance), asked), within) in customers.zip(&mut self.within) {
            let offered = allowance.offer(f64::from(*asked)) as f32;
            *within = if member.is_refused(at_s) {
                0.0
            } else if member.is_exempt {
                *asked
            } else {
                offered
            };
        }
        let served = self
            .claims
            .as_mut()
            .map(|claims| claims.serve(&self.within, &mut self.denied));
        if !served.is_some_and(|served| served.is_short) {
            self.denied.fill(0.0);
        }
        let customers = members.iter().zip(&mut self.allowances).zip(asked);
        let decided = self.within.iter().zip(&self.denied);
        for ((((member, allowance), asked), (within, denied)), tally) in
            customers.zip(decided).zip(&mut self.tallies)
        {
            let asked = f64::from(*asked);
            let within = f64::from(*within);
            tally.asked += asked;
            if member.is_refused(at_s) {
                tally.refused += asked;
                continue;
            }
            if member.is_exempt {
                tally.admitted += asked;
                continue;
            }
            let denied = denied.clamp(0.0, within);
            tally.denied_by_contract += asked - within;
            tally.denied_by_pool += denied;
            tally.admitted += within - denied;
            allowance.pay(within - denied);
            let is_promised = asked > 0.0 && asked <= member.terms.guarantee_per_s;
            tally.guarantee_missed_s += u64::from(is_promised && denied > ROUNDING);
        }
    }

    /// Divides the pool for the time that comes. Of who has no outlook nothing is expected.
    pub(super) fn begin_cycle(
        &mut self,
        side: &Side,
        at_s: u64,
        lasts_s: u64,
        outlooks: &[Outlook],
    ) {
        let Some(pool) = side.pool else {
            return;
        };
        let outlook = |customer: usize| outlooks.get(customer).copied().unwrap_or_default();
        let allocated: Vec<f64> = match &side.division {
            Some(division) => self.divide(side, division, &pool, (at_s, lasts_s as f64), outlook),
            None => {
                let all = side.members.iter().enumerate();
                all.map(|(place, member)| match pool.claimed_quantile {
                    Some(quantile) => outlook(place).at(quantile).min(member.terms.rate_per_s),
                    None => 0.0,
                })
                .collect()
            }
        };
        // Gateways keep a credit of each guarantee, whatever is allocated.
        let claims: Vec<f64> = side
            .members
            .iter()
            .zip(allocated)
            .map(|(member, allocated)| match member.is_refused(at_s) {
                true => 0.0,
                false => allocated.max(member.terms.guarantee_per_s),
            })
            .collect();
        if let Some(guard) = &mut self.claims {
            guard.allocate(&claims);
        }
    }

    /// One cycle, as the control plane makes it.
    fn divide(
        &mut self,
        side: &Side,
        division: &Division,
        pool: &Pool,
        (at_s, lasts_s): (u64, f64),
        outlook: impl Fn(usize) -> Outlook,
    ) -> Vec<f64> {
        let members = side.members.iter().enumerate();
        let carried = self.held.iter().zip(&self.credits);
        let customers: Vec<Customer> = members
            .zip(carried)
            .map(|((place, member), (held, credits))| {
                customer(
                    member,
                    member.is_refused(at_s),
                    outlook(place),
                    *held,
                    *credits,
                )
            })
            .collect();
        let capacity_per_s = PerResource::only_first(pool.capacity_per_s);
        let settings = &division.settings;
        let allocation = allocate(&capacity_per_s, &customers, &division.groups, settings);
        self.credits = credits_after(&capacity_per_s, &customers, &allocation, lasts_s);
        let parts: Vec<Part> = allocation
            .parts
            .iter()
            .map(|parts| *parts.at(ResourceIndex::FIRST))
            .collect();
        self.held = parts
            .iter()
            .map(|part| Held {
                per_s: part.allocated_per_s(),
                is_releasing: part.is_releasing,
            })
            .collect();
        let each = lent_and_borrowed(&parts);
        for (tally, (lent, borrowed)) in self.tallies.iter_mut().zip(&each) {
            tally.lent += lent * lasts_s;
            tally.borrowed += borrowed * lasts_s;
        }
        self.loans.add(&each, lasts_s);
        parts.iter().map(Part::allocated_per_s).collect()
    }

    /// What has become of everybody up to now.
    pub(super) fn outcome(&self) -> Outcome {
        self.clone().into_outcome()
    }

    fn into_outcome(self) -> Outcome {
        let (loans, is_cut) = self.loans.into_list();
        Outcome {
            tallies: self.tallies,
            loans,
            is_cut,
        }
    }
}

/// Who is refused has no terms and keeps nothing for a while.
fn customer(
    member: &Member,
    is_refused: bool,
    outlook: Outlook,
    held: Held,
    credits: f64,
) -> Customer {
    let (terms, outlook, held) = match is_refused {
        true => (Terms::default(), Outlook::default(), Held::default()),
        false => (member.terms, outlook, held),
    };
    Customer {
        tier: member.tier,
        priority: member.priority,
        weight: member.weight,
        group: member.group,
        terms: PerResource::only_first(terms),
        outlook: PerResource::only_first(outlook),
        headroom_per_s: PerResource::default(),
        held: PerResource::only_first(held),
        credits,
    }
}
