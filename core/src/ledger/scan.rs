//! Setting right the sums of protected stock on the pools.
//!
//! The pools keep running sums of all claims; they drift, since a full claim stops refilling and the sum does not know. One
//! worker walks all pages, a few per tick, and puts the true sums in place at the end of each lap. A lap during which customers were
//! installed is dropped: it may have passed their pages before, and would take away what they protect.

use super::claims::Claims;
use super::exchange::Ledger;
use super::layout::Region;
use super::shared_data::SharedData;
use crate::draw::Conditions;
use crate::error::CoreError;

/// A walk over all pages that adds up what is protected.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtectedScan {
    next_page: u32,
    claims: Claims,
    /// Of the sums on the pools when the lap began.
    bounds: Claims,
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
        if self.next_page == 0 {
            self.bounds = Claims::bounds(&ledger.pools(data, conditions)?);
        }
        for _ in 0..max_pages.min(all_pages) {
            let (region, page) = match self.next_page.checked_sub(policy_pages) {
                None => (Region::Policy, self.next_page),
                Some(page) => (Region::Other, page),
            };
            self.add_page(ledger, data, conditions, region, page)?;
            self.next_page = self.next_page.saturating_add(1);
            if self.next_page >= all_pages {
                let lap = std::mem::take(self);
                return lap.claims.replace(&lap.bounds, ledger, data, conditions);
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
        let view = match ledger.view_page(data, region, page) {
            // A page that vanished holds nobody; the next draw or installation puts an empty one there.
            Err(CoreError::NotSeeded { .. }) => return Ok(()),
            view => view?,
        };
        for entry in view.entries() {
            let mut entry = entry?;
            entry.refill(conditions.policy, &conditions.lease, conditions.now);
            self.claims.add(&Claims::of(&entry, conditions));
        }
        Ok(())
    }
}
