//! Setting right the sums of protected stock on the pools.
//!
//! The pools keep running sums of all claims; they drift, since a full claim stops refilling and the sum does not know. One
//! worker walks all pages, a few per tick, and puts the true sums in place at the end of each lap.

use super::exchange::Ledger;
use super::layout::Region;
use super::shared_data::SharedData;
use crate::amount::{Micro, Rate};
use crate::bucket::Bucket;
use crate::draw::Conditions;
use crate::error::CoreError;
use crate::pool::ClaimSum;
use crate::resource::PerResource;

/// A walk over all pages that adds up what is protected.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtectedScan {
    next_page: u32,
    sums: PerResource<(ClaimSum, ClaimSum)>,
}

// === impl ProtectedScan ===

impl ProtectedScan {
    /// Reads up to `max_pages` pages. Returns whether a lap was completed and the pools set right.
    pub fn step(
        &mut self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        max_pages: u32,
    ) -> Result<bool, CoreError> {
        let layout = ledger.state().layout;
        let policy_pages = layout.pages(Region::Policy);
        let all_pages = policy_pages.saturating_add(layout.pages(Region::Other));
        for _ in 0..max_pages.min(all_pages) {
            let (region, page) = match self.next_page.checked_sub(policy_pages) {
                None => (Region::Policy, self.next_page),
                Some(page) => (Region::Other, page),
            };
            self.add_page(ledger, data, conditions, region, page)?;
            self.next_page = self.next_page.saturating_add(1);
            if self.next_page >= all_pages {
                self.finish(ledger, data, conditions)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn add_page(
        &mut self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        region: Region,
        page: u32,
    ) -> Result<(), CoreError> {
        let policy = conditions.policy;
        let view = match ledger.view_page(data, region, page) {
            // A page that vanished holds nobody; the next draw or installation puts an empty one there.
            Err(CoreError::NotSeeded { .. }) => return Ok(()),
            view => view?,
        };
        for entry in view.entries() {
            let mut entry = entry?;
            entry.refill(policy, &conditions.lease, conditions.now);
            let Some(contract) = policy.contract(entry.contract) else {
                continue;
            };
            for resource in policy.resource_indexes() {
                let holding = entry.holdings.at(resource);
                let guarantee = contract.limits.at(resource).guarantee;
                let credit_depth = policy.credit_depth(guarantee);
                let (shadow_rate, shadow_depth) = if policy.shadow.enabled {
                    (holding.shadow_rate, holding.shadow_depth())
                } else {
                    (Rate::ZERO, Micro::ZERO)
                };
                let (protected, credit) = self.sums.at_mut(resource);
                add(
                    protected,
                    holding.protected(),
                    guarantee.max(shadow_rate),
                    credit_depth.max(shadow_depth),
                );
                add(
                    credit,
                    holding.credit.level.at_least_zero(),
                    guarantee,
                    credit_depth,
                );
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
    ) -> Result<(), CoreError> {
        let sums = self.sums;
        *self = ProtectedScan::default();
        ledger.edit_pools(data, conditions, |pools| {
            for (pool, (protected, credit)) in pools.pools.iter_mut().zip(sums.iter()) {
                pool.protected = *protected;
                pool.credit = *credit;
            }
        })
    }
}

fn add(sum: &mut ClaimSum, level: Micro, refill: Rate, depth: Micro) {
    // A full claim does not refill, but it will once its owner spends, so its rate counts. Until the next lap the sum may
    // say too much for that, at most what all claims can be together.
    sum.bucket = Bucket {
        level: sum.bucket.level.plus(level),
        carry: 0,
    };
    sum.refill = sum.refill.plus(refill);
    sum.depth = sum.depth.plus(depth);
}
