//! Shadow buckets: how deep each may be, so that soft reservations stay soft.
//!
//! A claim reserves nothing by itself; it protects stock of the pool. If all claims together could protect the whole pool, idle
//! claims would cost everyone else a third of the capacity (simulated). So the sum over customers of
//! max(credit depth, shadow depth) is kept within half the pool's depth. Guarantees come first and are never scaled;
//! then tiers, then priorities, each served whole before the next; within one, by weight.

use crate::amount::{Micro, Rate};
use crate::limits::US_PER_S;
use crate::policy::{ContractIndex, Policy};
use crate::resource::ResourceIndex;

/// One customer's wish for a shadow bucket, and the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The customer's contract.
    pub contract: ContractIndex,
    /// Refill of its shadow bucket: the forecast rate.
    pub rate: Rate,
    /// The answer: depth of the shadow bucket in microseconds of that refill.
    pub span_us: u32,
}

/// Sets the span of each claim on a pool so that all protected stock stays within the policy's part of its depth.
/// Without a pool there is nothing to protect, and each claim has its full depth.
pub fn scale_claims(policy: &Policy, resource: ResourceIndex, claims: &mut [Claim]) {
    let full_span_us = policy.shadow_span_us();
    for claim in claims.iter_mut() {
        claim.span_us = full_span_us;
    }
    let Some(pool) = policy.pool(resource) else {
        return;
    };
    let mut budget = pool
        .depth
        .share(u64::from(policy.shadow.protected_permille), 1_000);
    for claim in claims.iter() {
        budget = budget.minus(credit_depth(policy, resource, claim.contract));
    }
    budget = budget.at_least_zero();
    let mut order: Vec<usize> = (0..claims.len()).collect();
    let rank = |position: &usize| {
        claims
            .get(*position)
            .and_then(|claim| rank_of(policy, claim.contract))
    };
    order.sort_by_key(rank);
    let ranks: Vec<_> = order.iter().map(rank).collect();
    let mut start = 0;
    while let Some(first) = ranks.get(start) {
        let length = ranks
            .iter()
            .skip(start)
            .take_while(|rank| *rank == first)
            .count();
        let class = order
            .iter()
            .skip(start)
            .take(length)
            .copied()
            .collect::<Vec<_>>();
        budget = budget
            .minus(scale_class(policy, resource, claims, &class, budget))
            .at_least_zero();
        start = start.saturating_add(length);
    }
}

/// Gives a class of equals what it wishes, or the budget in proportion to weight if that is less: nobody gets more than
/// its wish, and what one leaves goes to the others. Returns what was given.
fn scale_class(
    policy: &Policy,
    resource: ResourceIndex,
    claims: &mut [Claim],
    class: &[usize],
    budget: Micro,
) -> Micro {
    let wish = |claims: &[Claim], position: usize| -> (Micro, u64) {
        let Some(claim) = claims.get(position) else {
            return (Micro::ZERO, 0);
        };
        let full = claim.rate.amount_in(u64::from(policy.shadow_span_us()));
        let excess = full
            .minus(credit_depth(policy, resource, claim.contract))
            .at_least_zero();
        let weight = policy
            .contract(claim.contract)
            .map_or(1, |contract| u64::from(contract.weight.max(1)));
        (excess, weight)
    };
    let wanted = class.iter().fold(Micro::ZERO, |sum, position| {
        sum.plus(wish(claims, *position).0)
    });
    if wanted <= budget {
        return wanted;
    }
    // Water-filling: the smallest wish per weight is settled first, so each share is final when it is computed.
    let mut open: Vec<(usize, Micro, u64)> = class
        .iter()
        .map(|position| (*position, wish(claims, *position)))
        .map(|(p, (w, g))| (p, w, g))
        .collect();
    open.sort_by(|(_, wish_a, weight_a), (_, wish_b, weight_b)| {
        let per_weight =
            |wish: &Micro, other: &u64| i128::from(wish.get()).saturating_mul(i128::from(*other));
        per_weight(wish_a, weight_b).cmp(&per_weight(wish_b, weight_a))
    });
    let mut weights = open
        .iter()
        .fold(0_u64, |sum, (_, _, weight)| sum.saturating_add(*weight));
    let mut rest = budget;
    for (position, wish, weight) in open {
        let given = rest.share(weight, weights).min(wish);
        rest = rest.minus(given);
        weights = weights.saturating_sub(weight);
        if let Some(claim) = claims.get_mut(position) {
            let credit = credit_depth(policy, resource, claim.contract);
            let depth = if wish == Micro::ZERO {
                None
            } else {
                Some(credit.plus(given))
            };
            if let Some(depth) = depth {
                claim.span_us = span_us(depth, claim.rate).min(policy.shadow_span_us());
            }
        }
    }
    budget.minus(rest)
}

fn credit_depth(policy: &Policy, resource: ResourceIndex, contract: ContractIndex) -> Micro {
    let guarantee = policy.contract(contract).map_or(Rate::ZERO, |contract| {
        contract.limits.at(resource).guarantee
    });
    policy.credit_depth(guarantee)
}

/// Lower tiers and higher priorities first.
fn rank_of(policy: &Policy, contract: ContractIndex) -> Option<(u8, u8)> {
    policy.contract(contract).map(|contract| {
        (
            contract.tier.number(),
            u8::MAX.saturating_sub(contract.priority),
        )
    })
}

/// The longest whole number of microseconds in which `rate` fills no more than `depth`.
fn span_us(depth: Micro, rate: Rate) -> u32 {
    let product = i128::from(depth.get()).saturating_mul(i128::from(US_PER_S));
    let span_us = product.checked_div(i128::from(rate.get())).unwrap_or(0);
    u32::try_from(span_us.max(0)).unwrap_or(u32::MAX)
}
