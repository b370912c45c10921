//! What customers protect on the pools, as sums.
//!
//! Two walks over the pages need it: the scan that sets the sums right, and the installation of a policy, which must
//! not leave a guarantee unprotected until the scan has come round (a lap takes seconds with ten thousand customers).

use super::entry::Entry;
use super::exchange::Ledger;
use super::shared_data::SharedData;
use crate::amount::{Micro, Rate};
use crate::draw::Conditions;
use crate::error::CoreError;
use crate::pool::{ClaimSum, Pools};
use crate::resource::PerResource;

/// What some customers protect, by resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims(PerResource<Sums>);

/// What some customers protect on one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    protected: ClaimSum,
    credit: ClaimSum,
}

// === impl Claims ===

impl Claims {
    /// Those of one customer. The entry must have been brought up to date.
    pub(super) fn of(entry: &Entry, conditions: &Conditions<'_>) -> Claims {
        let policy = conditions.policy;
        let mut claims = Claims::default();
        let Some(contract) = policy.contract(entry.contract) else {
            return claims;
        };
        for resource in policy.resource_indexes() {
            let holding = entry.holdings.at(resource);
            let limits = contract.limits.at(resource);
            let guarantee = entry.part(resource, limits, &conditions.lease).guarantee;
            let credit_depth = policy.credit_depth(guarantee);
            let (shadow_rate, shadow_depth) = if policy.shadow.enabled {
                (holding.shadow_rate, holding.shadow_depth())
            } else {
                (Rate::ZERO, Micro::ZERO)
            };
            // A full claim does not refill, but it will once its owner spends, so its rate counts. Until the next lap of
            // the scan the sum may say too much for that, at most what all claims can be together.
            *claims.0.at_mut(resource) = Sums {
                protected: ClaimSum::new(
                    holding.protected(),
                    guarantee.max(shadow_rate),
                    credit_depth.max(shadow_depth),
                ),
                credit: ClaimSum::new(
                    holding.credit.level.at_least_zero(),
                    guarantee,
                    credit_depth,
                ),
            };
        }
        claims
    }

    pub(super) fn add(&mut self, other: &Claims) {
        for (sums, other) in self.0.iter_mut().zip(other.0.iter()) {
            sums.protected = sums.protected.plus(&other.protected);
            sums.credit = sums.credit.plus(&other.credit);
        }
    }

    /// What the sums on the pools could be at most. Draws change the sums; only newcomers and a scan change this.
    pub(super) fn bounds(pools: &Pools) -> Claims {
        let mut bounds = Claims::default();
        let bound = |sum: &ClaimSum| ClaimSum::new(Micro::ZERO, sum.refill, sum.depth);
        for (sums, pool) in bounds.0.iter_mut().zip(pools.pools.iter()) {
            sums.protected = bound(&pool.protected);
            sums.credit = bound(&pool.credit);
        }
        bounds
    }

    /// Puts these in the place of the sums on the pools, unless those are no longer within the same `bounds`. Returns whether it did.
    pub(super) fn replace(
        &self,
        bounds: &Claims,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
    ) -> Result<bool, CoreError> {
        let mut replaces = false;
        ledger.edit_pools(data, conditions, |pools| {
            replaces = Claims::bounds(pools) == *bounds;
            if replaces {
                for (pool, sums) in pools.pools.iter_mut().zip(self.0.iter()) {
                    pool.protected = sums.protected;
                    pool.credit = sums.credit;
                }
            }
        })?;
        Ok(replaces)
    }

    /// Adds these to the sums on the pools.
    pub(super) fn add_to(
        &self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
    ) -> Result<(), CoreError> {
        if *self == Claims::default() {
            return Ok(());
        }
        ledger.edit_pools(data, conditions, |pools| {
            for (pool, sums) in pools.pools.iter_mut().zip(self.0.iter()) {
                pool.protected = pool.protected.plus(&sums.protected);
                pool.credit = pool.credit.plus(&sums.credit);
            }
        })
    }
}
