//! When a denied request could succeed: the true refill time of what it lacks, for `Retry-After`.
//!
//! It is the earliest time if nobody else takes anything meanwhile; a constant "try again in a second" would make clients
//! either poll or idle.

use crate::amount::{Micro, Rate};
use crate::draw::Conditions;
use crate::grant::GrantTerms;
use crate::lease::Lease;
use crate::ledger::{Entry, Holding};
use crate::policy::{Contract, Limits};
use crate::pool::Pools;
use crate::resource::ResourceIndex;
use crate::standing::Standing;
use crate::time::TimeUs;

/// The earliest time at which `charge` could be admitted by this resource; [`TimeUs::NEVER`] if waiting does not help.
pub(crate) fn retry_at(
    conditions: &Conditions<'_>,
    pools: &Pools,
    entry: &Entry,
    contract: &Contract,
    resource: ResourceIndex,
    standing: &Standing,
    charge: Micro,
) -> TimeUs {
    let limits = contract.limits.at(resource);
    let part = entry.part(resource, limits, &conditions.lease);
    let holding = entry.holdings.at(resource);
    let contract_us = contract_us(conditions, entry, holding, limits, resource, charge);
    let borrow_us = if conditions.lease.is_live(conditions.now) {
        holding
            .borrow
            .us_until(charge, part.ceiling.minus(part.rate), part.borrow_limit)
    } else {
        None
    };
    let own_us = match (contract_us, borrow_us) {
        (Some(contract_us), Some(borrow_us)) => Some(contract_us.min(borrow_us)),
        (either, None) | (None, either) => either,
    };
    match (
        own_us,
        pool_us(conditions, pools, resource, standing, charge),
    ) {
        (Some(own_us), Some(pool_us)) => conditions.now.plus_us(own_us.max(pool_us)),
        _ => TimeUs::NEVER,
    }
}

fn contract_us(
    conditions: &Conditions<'_>,
    entry: &Entry,
    holding: &Holding,
    limits: &Limits,
    resource: ResourceIndex,
    charge: Micro,
) -> Option<u64> {
    let terms = entry.terms(resource, limits, &conditions.lease);
    let rate = rate_now(conditions, &terms);
    // Chunks that are out now will be back or spent by then, so the whole depth counts.
    let plain_us = holding.contract.us_until(charge, rate, terms.cap);
    let own_us = if plain_us.is_some() || holding.shadow_depth() < charge {
        plain_us
    } else {
        holding.contract.us_until(
            charge.minus(limits.part(&terms).debt_limit),
            rate,
            terms.cap,
        )
    };
    // What was granted here never suffices, but the whole contract would: the control plane moves it to where it is asked for.
    own_us.or_else(|| {
        let can_come = conditions.lease.is_live(conditions.now);
        let whole_us = || holding.contract.us_until(charge, limits.rate, limits.burst);
        can_come.then(whole_us).flatten()
    })
}

fn pool_us(
    conditions: &Conditions<'_>,
    pools: &Pools,
    resource: ResourceIndex,
    standing: &Standing,
    charge: Micro,
) -> Option<u64> {
    let Some(rule) = conditions.policy.pool(resource) else {
        return Some(0);
    };
    let pool = pools.pools.at(resource);
    let terms = pool.terms(rule, &conditions.lease);
    let least = charge.plus(standing.pool.floor);
    let us_until = |rate: Rate, depth: Micro| {
        if least > depth {
            return None;
        }
        // What is protected for others may be used by then; a target above the depth would say "never" for something that is not.
        let target = least.plus(standing.pool.others_protected).min(depth);
        pool.bucket.us_until(target, rate, depth)
    };
    us_until(rate_now(conditions, &terms), terms.cap).or_else(|| {
        let can_come = conditions.lease.is_live(conditions.now);
        can_come
            .then(|| us_until(rule.capacity, rule.depth))
            .flatten()
    })
}

fn rate_now(conditions: &Conditions<'_>, terms: &GrantTerms) -> Rate {
    let now = conditions.now;
    match conditions.lease {
        Lease::StandAlone => terms.rate,
        Lease::Waiting => Rate::ZERO,
        Lease::Granted { until, .. } if now < until => terms.rate,
        Lease::Granted { fallback_until, .. } if now < fallback_until => terms.fallback_rate,
        Lease::Granted { .. } => Rate::ZERO,
    }
}
