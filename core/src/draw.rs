//! A draw: judge a request on all its resources, let the buckets pay, and fill the worker's chunk.
//!
//! Everything here is a function of (policy, state, now, request). Judging looks at every resource before any of them pays,
//! so a request is admitted by all of them or by none, and a denial changes nothing but its count.

use crate::amount::Micro;
use crate::chunk::{Amounts, Chunk, ChunkHolding, Payer};
use crate::lease::Lease;
use crate::ledger::{Entry, Holding};
use crate::limits::{CHUNK_HORIZON_US, DENIAL_MEMORY_US, POOLED_CHUNK_HORIZON_US};
use crate::policy::{Contract, Policy};
use crate::pool::{PoolChange, Pools};
use crate::resource::{PerResource, ResourceIndex};
use crate::retry;
use crate::settle::fold;
use crate::standing::{PoolStanding, Standing, Test};
use crate::time::TimeUs;
use crate::verdict::{Denial, Reason, Verdict};

/// The conditions under which a draw is decided.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// What refills.
    pub lease: Lease,
    /// The time of the draw.
    pub now: TimeUs,
    /// Workers of the gateway: a chunk leaves the others their share.
    pub workers: u32,
}

/// What a draw decided, and what it moved.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// The verdict on the request.
    pub verdict: Verdict,
    /// Contents of the worker's chunk from now on.
    pub holdings: PerResource<ChunkHolding>,
    /// Who paid for what the customer was charged last.
    pub payers: PerResource<Payer>,
    /// What changed in the pools; already applied to them.
    pub changes: PerResource<PoolChange>,
}

/// Decides a request of `cost` and fills the worker's chunk. Entry and pools are brought up to date first, and what is
/// left in `chunk` is folded into them.
pub fn draw(
    conditions: &Conditions<'_>,
    pools: &mut Pools,
    entry: &mut Entry,
    chunk: &Chunk,
    cost: &Amounts,
) -> Drawn {
    pools.refill(conditions.policy, &conditions.lease, conditions.now);
    entry.refill(conditions.policy, &conditions.lease, conditions.now);
    let mut drawn = Drawn {
        verdict: Verdict::Standard,
        holdings: PerResource::default(),
        payers: chunk.payers,
        changes: fold(conditions, pools, Some(&mut *entry), chunk),
    };
    let Some(contract) = conditions.policy.contract(entry.contract) else {
        // The page is newer than this worker's policy, which it reads again on its next tick.
        drawn.verdict = Verdict::Denied(Denial {
            reason: Reason::Unknown,
            resource: ResourceIndex::FIRST,
            retry_at: conditions.now.plus_us(DENIAL_MEMORY_US),
        });
        return drawn;
    };
    match judge(conditions, pools, entry, contract, cost) {
        Ok(tests) => admit(
            conditions, pools, entry, contract, chunk, cost, &tests, &mut drawn,
        ),
        Err(denial) => {
            for resource in conditions.policy.resource_indexes() {
                entry
                    .holdings
                    .at_mut(resource)
                    .count_denied(cost.at(resource).at_least_zero());
            }
            drawn.verdict = Verdict::Denied(denial);
        }
    }
    for resource in conditions.policy.resource_indexes() {
        drawn.holdings.at_mut(resource).balance = entry.holdings.at(resource).contract.level;
    }
    drawn
}

/// The test that each charged resource passes; or the denial by the resource that takes longest to recover.
fn judge(
    conditions: &Conditions<'_>,
    pools: &Pools,
    entry: &Entry,
    contract: &Contract,
    cost: &Amounts,
) -> Result<PerResource<Option<Test>>, Denial> {
    if let Some(retry_at) = entry.barred_until(conditions.now) {
        return Err(Denial {
            reason: Reason::Banned,
            resource: ResourceIndex::FIRST,
            retry_at,
        });
    }
    let mut tests = PerResource::default();
    if entry.flags.exempt {
        return Ok(tests);
    }
    let mut worst: Option<Denial> = None;
    for resource in conditions.policy.resource_indexes() {
        let charge = *cost.at(resource);
        if charge <= Micro::ZERO {
            continue;
        }
        let standing = standing_of(conditions, pools, entry, contract, resource);
        match standing.test(charge) {
            Ok(test) => *tests.at_mut(resource) = Some(test),
            Err(reason) => {
                let retry_at = retry::retry_at(
                    conditions, pools, entry, contract, resource, &standing, charge,
                );
                if worst.is_none_or(|worst| retry_at > worst.retry_at) {
                    worst = Some(Denial {
                        reason,
                        resource,
                        retry_at,
                    });
                }
            }
        }
    }
    worst.map_or(Ok(tests), Err)
}

#[allow(
    clippy::too_many_arguments,
    reason = "the state of one draw; a struct for it would be built and taken apart once"
)]
fn admit(
    conditions: &Conditions<'_>,
    pools: &mut Pools,
    entry: &mut Entry,
    contract: &Contract,
    chunk: &Chunk,
    cost: &Amounts,
    tests: &PerResource<Option<Test>>,
    drawn: &mut Drawn,
) {
    let mut paid = PerResource::<PoolChange>::default();
    let mut verdict: Option<Verdict> = None;
    for resource in conditions.policy.resource_indexes() {
        let charge = *cost.at(resource);
        if charge <= Micro::ZERO {
            continue;
        }
        let mut standing = standing_of(conditions, pools, entry, contract, resource);
        let budget = chunk_budget(conditions, &standing);
        let holding = entry.holdings.at_mut(resource);
        let before = *holding;
        let word = match *tests.at(resource) {
            // The customer is exempt: nobody pays but the pool, which is used up all the same.
            None => Verdict::Standard,
            Some(test) => pay(holding, test, charge),
        };
        standing.pool.level = standing.pool.level.minus(charge);
        let filled = drawn.holdings.at_mut(resource);
        let payer = drawn.payers.at_mut(resource);
        *payer = if *tests.at(resource) == Some(Test::Borrowed) {
            Payer::Allowance
        } else {
            Payer::Contract
        };
        if *payer == Payer::Contract && tests.at(resource).is_some() {
            let wish = chunk
                .wish(
                    resource,
                    charge,
                    conditions.now,
                    horizon_us(conditions.policy, resource),
                )
                .max(least_wish(conditions.policy, resource, budget, charge))
                .min(budget);
            *filled = fill(holding, &standing, wish.minus(charge));
        }
        holding.count_admitted(
            charge,
            if word == Verdict::Shadow {
                Micro::ZERO
            } else {
                charge
            },
        );
        if word != Verdict::Shadow && entry.flags.predicted {
            entry.deviations.mark();
        }
        let change = paid.at_mut(resource);
        *change = PoolChange {
            taken: charge.plus(filled.drawn),
            protected_paid: before.protected().minus(holding.protected()),
            credit_paid: before.credit.level.minus(holding.credit.level),
            lent: filled.drawn,
            spent: charge,
            ..PoolChange::default()
        };
        if tests.at(resource).is_none() {
            pools.take_of_exempt(resource, charge, conditions.policy, change);
        }
        verdict = Some(verdict.map_or(word, |verdict| verdict.and(word)));
    }
    pools.apply(&paid, conditions.policy, &conditions.lease);
    for (change, paid) in drawn.changes.iter_mut().zip(paid.iter()) {
        *change = change.and_then(paid);
    }
    drawn.verdict = verdict.unwrap_or(Verdict::Standard);
}

/// Lets the buckets pay for a request that passed `test`.
fn pay(holding: &mut Holding, test: Test, charge: Micro) -> Verdict {
    match test {
        Test::Guaranteed => {
            let foreseen = holding.shadow.level >= charge;
            holding.credit.take(charge);
            holding
                .shadow
                .take(charge.min(holding.shadow.level.at_least_zero()));
            holding.contract.take(charge);
            if foreseen {
                Verdict::Shadow
            } else {
                Verdict::Standard
            }
        }
        Test::Claimed => {
            holding.shadow.take(charge);
            holding.contract.take(charge);
            Verdict::Shadow
        }
        Test::Plain => {
            holding.contract.take(charge);
            Verdict::Standard
        }
        Test::Borrowed => {
            holding.borrow.take(charge);
            Verdict::Borrowed
        }
    }
}

/// Moves up to `wanted` tokens into a chunk: on the claim as far as it goes, then plain. A chunk is never filled on debt.
fn fill(holding: &mut Holding, standing: &Standing, wanted: Micro) -> ChunkHolding {
    let wanted = wanted.min(holding.contract.level).at_least_zero();
    let claimed = wanted
        .min(holding.shadow.level)
        .min(standing.pool.for_claims())
        .at_least_zero();
    // What the customer claims is no longer protected for it, so `for_plain` falls by what is taken, not by less.
    let plain = wanted
        .minus(claimed)
        .min(standing.pool.for_plain().minus(claimed))
        .at_least_zero();
    holding.shadow.take(claimed);
    holding
        .credit
        .take(claimed.min(holding.credit.level.at_least_zero()));
    let drawn = claimed.plus(plain);
    holding.contract.take(drawn);
    holding.outstanding.lend(drawn);
    ChunkHolding {
        claimed,
        plain,
        drawn,
        ..ChunkHolding::default()
    }
}

/// How much a chunk may hold so that the other workers find as much again, each.
fn chunk_budget(conditions: &Conditions<'_>, standing: &Standing) -> Micro {
    let available = standing.contract.min(
        standing
            .pool
            .for_plain()
            .max(standing.shadow.min(standing.pool.for_claims())),
    );
    available
        .at_least_zero()
        .share(1, u64::from(conditions.workers.max(1)).saturating_mul(2))
}

/// Where only the contract limits, a small part of a large balance is worth drawing whatever the demand is: at most a 64th of it lies
/// in chunks then, and a customer far below its limits needs no draw for a long time. Pool tokens are everyone's, so they
/// follow demand alone. Whole requests only: a part of one is stranded for nothing.
fn least_wish(policy: &Policy, resource: ResourceIndex, budget: Micro, charge: Micro) -> Micro {
    if policy.pool(resource).is_some() {
        return Micro::ZERO;
    }
    let part = budget.share(1, 32).get();
    let requests = part.checked_div(charge.get()).unwrap_or(0);
    Micro::new(requests.saturating_add(1).saturating_mul(charge.get()))
}

fn horizon_us(policy: &Policy, resource: ResourceIndex) -> u64 {
    if policy.pool(resource).is_some() {
        POOLED_CHUNK_HORIZON_US
    } else {
        CHUNK_HORIZON_US
    }
}

fn standing_of(
    conditions: &Conditions<'_>,
    pools: &Pools,
    entry: &Entry,
    contract: &Contract,
    resource: ResourceIndex,
) -> Standing {
    let holding = entry.holdings.at(resource);
    let part = entry.part(resource, contract.limits.at(resource), &conditions.lease);
    let pool = match conditions.policy.pool(resource) {
        None => PoolStanding::UNBOUNDED,
        Some(rule) => {
            let pool = pools.pools.at(resource);
            PoolStanding {
                level: pool.bucket.level,
                others_credit: pool.credit.of_others(holding.credit.level.at_least_zero()),
                others_protected: pool.protected.of_others(holding.protected()),
                floor: contract.tier.floor(pool.terms(rule, &conditions.lease).cap),
            }
        }
    };
    Standing {
        contract: holding.contract.level,
        debt_limit: part.debt_limit,
        credit: holding.credit.level,
        shadow: holding.shadow.level,
        borrow: holding.borrow.level,
        pool,
    }
}
