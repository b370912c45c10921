//! When a denied request could succeed: the true refill time of what it lacks, for `Retry-After`.
//!
//! It is the earliest time at which one of the tests of a draw passes if nobody takes anything meanwhile. What is protected for others, and not
//! used, fills beside the pool, and a tier waits for its floor as well. A constant "try again in a second" would make clients
//! either poll or idle.

use crate::amount::{Micro, Rate};
use crate::bucket::Bucket;
use crate::draw::Conditions;
use crate::grant::GrantTerms;
use crate::lease::Lease;
use crate::ledger::{Entry, Holding};
use crate::policy::{Contract, Limits, PoolRule};
use crate::pool::{ClaimSum, Pools};
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
    let holding = entry.holdings.at(resource);
    let terms = entry.terms(resource, limits, &conditions.lease);
    let part = limits.part(&terms);
    let own = Own::of(conditions, holding, &terms, &part);
    let is_live = conditions.lease.is_live(conditions.now);
    // What was granted here never suffices, but the whole contract would: the control plane moves it to where it is asked for.
    let whole_us = || holding.contract.us_until(charge, limits.rate, limits.burst);
    let contract_us = own.contract.us_until(charge);
    let plain_us = contract_us.or_else(|| is_live.then(whole_us).flatten());
    let borrow_us = own.borrow.us_until(charge).filter(|_| is_live);
    let from_us = plain_us.into_iter().chain(borrow_us).min();
    let guaranteed_us = both(own.credit.us_until(charge), contract_us);
    let claimed_us = both(
        own.shadow.us_until(charge),
        own.contract.us_until(charge.minus(part.debt_limit)),
    );
    let of_pool = OfPool::of(conditions, pools, resource, standing, &own);
    let tests = [
        from_us.and_then(|us| of_pool.plain_us(conditions, charge, us)),
        guaranteed_us.and_then(|us| of_pool.us_until(&Flow::NOTHING, charge, us)),
        claimed_us.and_then(|us| of_pool.us_until(&of_pool.others_credit, charge, us)),
    ];
    let earliest_us = tests.into_iter().flatten().min();
    earliest_us.map_or(TimeUs::NEVER, |us| conditions.now.plus_us(us))
}

/// When both are true, if ever.
fn both(one_us: Option<u64>, other_us: Option<u64>) -> Option<u64> {
    one_us.zip(other_us).map(|(one, other)| one.max(other))
}

/// A level that rises up to a depth if nobody takes anything.
#[derive(Clone, Copy, Debug)]
struct Flow {
    level: Micro,
    rate: Rate,
    depth: Micro,
}

/// What fills on the customer's side. Chunks that are out now will be back or spent by then, so whole depths count.
struct Own {
    contract: Flow,
    borrow: Flow,
    credit: Flow,
    shadow: Flow,
}

/// What fills on the pool's side: the pool, and what others may keep of it.
struct OfPool<'a> {
    rule: Option<&'a PoolRule>,
    pool: Flow,
    others_credit: Flow,
    others_protected: Flow,
    floor: Micro,
}

// === impl Own ===

impl Own {
    fn of(
        conditions: &Conditions<'_>,
        holding: &Holding,
        terms: &GrantTerms,
        part: &Limits,
    ) -> Own {
        let policy = conditions.policy;
        let guarantee = GrantTerms {
            rate: part.guarantee,
            fallback_rate: part.guarantee.min(terms.fallback_rate),
            ..*terms
        };
        let shadow_depth = if policy.shadow.enabled {
            holding.shadow_depth()
        } else {
            Micro::ZERO
        };
        let flow = |bucket: &Bucket, rate, depth| Flow {
            level: bucket.level,
            rate,
            depth,
        };
        Own {
            contract: flow(&holding.contract, rate_now(conditions, terms), terms.cap),
            borrow: flow(
                &holding.borrow,
                part.ceiling.minus(part.rate),
                part.borrow_limit,
            ),
            credit: flow(
                &holding.credit,
                rate_now(conditions, &guarantee),
                policy.credit_depth(part.guarantee),
            ),
            shadow: flow(&holding.shadow, holding.shadow_rate, shadow_depth),
        }
    }
}

// === impl OfPool ===

impl<'a> OfPool<'a> {
    fn of(
        conditions: &Conditions<'a>,
        pools: &Pools,
        resource: ResourceIndex,
        standing: &Standing,
        own: &Own,
    ) -> OfPool<'a> {
        let rule = conditions.policy.pool(resource);
        let pool = pools.pools.at(resource);
        let terms = rule.map_or_else(GrantTerms::default, |rule| {
            pool.terms(rule, &conditions.lease)
        });
        let others = |level: Micro, sum: &ClaimSum, rate, depth| Flow {
            level,
            rate: sum.refill.minus(rate),
            depth: sum.depth.minus(depth).max(level),
        };
        OfPool {
            rule,
            pool: Flow {
                level: standing.pool.level,
                rate: rate_now(conditions, &terms),
                depth: terms.cap,
            },
            others_credit: others(
                standing.pool.others_credit,
                &pool.credit,
                own.credit.rate,
                own.credit.depth,
            ),
            others_protected: others(
                standing.pool.others_protected,
                &pool.protected,
                own.credit.rate.max(own.shadow.rate),
                own.credit.depth.max(own.shadow.depth),
            ),
            floor: standing.pool.floor,
        }
    }

    /// When the pool has `target` beside what `others` keep, from `from_us` on.
    fn us_until(&self, others: &Flow, target: Micro, from_us: u64) -> Option<u64> {
        match self.rule {
            None => Some(from_us),
            Some(_) => self.pool.us_until_over(others, target, from_us),
        }
    }

    /// When anyone of the tier may take `charge`, from `from_us` on.
    fn plain_us(&self, conditions: &Conditions<'_>, charge: Micro, from_us: u64) -> Option<u64> {
        let Some(rule) = self.rule else {
            return Some(from_us);
        };
        let least = charge.plus(self.floor);
        let us_until = |pool: Flow| {
            if least > pool.depth {
                return None;
            }
            let exact_us = pool.us_until_over(&self.others_protected, least, from_us);
            exact_us.or_else(|| {
                // What is protected for others may be used by then; a target above the depth would say "never" for something that is not.
                let target = least.plus(self.others_protected.level).min(pool.depth);
                pool.us_until(target).map(|us| us.max(from_us))
            })
        };
        us_until(self.pool).or_else(|| {
            let can_come = conditions.lease.is_live(conditions.now);
            let whole = Flow {
                level: self.pool.level,
                rate: rule.capacity,
                depth: rule.depth,
            };
            can_come.then(|| us_until(whole)).flatten()
        })
    }
}

// === impl Flow ===

impl Flow {
    /// What keeps nothing.
    const NOTHING: Flow = Flow {
        level: Micro::ZERO,
        rate: Rate::ZERO,
        depth: Micro::ZERO,
    };

    fn at(&self, us: u64) -> Micro {
        self.level.plus(self.rate.amount_in(us)).min(self.depth)
    }

    fn us_until(&self, amount: Micro) -> Option<u64> {
        let bucket = Bucket {
            level: self.level,
            carry: 0,
        };
        bucket.us_until(amount, self.rate, self.depth)
    }

    /// When this is `target` above what others keep, from `from_us` on. Both rise until they are full, so what lies between them is made of
    /// three straight lines, and may fall as well as rise.
    fn us_until_over(&self, others: &Flow, target: Micro, from_us: u64) -> Option<u64> {
        let full_us = |flow: &Flow| flow.us_until(flow.depth).unwrap_or(u64::MAX);
        let (own_full_us, others_full_us) = (full_us(self), full_us(others));
        let turns = (
            own_full_us.min(others_full_us).max(from_us),
            own_full_us.max(others_full_us).max(from_us),
        );
        let lines = [(from_us, turns.0), (turns.0, turns.1), (turns.1, u64::MAX)];
        lines.into_iter().find_map(|(start_us, end_us)| {
            if start_us == u64::MAX {
                return None;
            }
            let missing = target.plus(others.at(start_us)).minus(self.at(start_us));
            if missing <= Micro::ZERO {
                return Some(start_us);
            }
            let rate_until = |flow: &Flow, full_us| {
                if start_us < full_us {
                    flow.rate
                } else {
                    Rate::ZERO
                }
            };
            let loss = rate_until(others, others_full_us);
            // Both sides are rounded.
            let rounding = Micro::new(i64::from(loss > Rate::ZERO));
            let gain = rate_until(self, own_full_us).minus(loss);
            let reached_us = start_us.saturating_add(gain.us_until(missing.plus(rounding))?);
            (reached_us <= end_us).then_some(reached_us)
        })
    }
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
