//! What this gateway reports: cumulative counters of the pages that changed, never more than a batch.
//!
//! Changes are tracked by page and not by customer: a page's compare-and-swap number says for free whether anything on it changed, and
//! a report that repeats an unchanged counter is harmless, because all counters are cumulative. A table of the last reported value per
//! customer was worse: a million customers would cost this VM a hundred megabytes.

use std::ops::Range;

use forebay_core::ledger::{CustomerHash, Entry};
use forebay_core::policy::Policy;
use forebay_core::resource::ResourceIndex;
use forebay_wire::key;
use forebay_wire::sync::{
    CustomerReport, DeviationSignal, FLAG_CONTENDED, FLAG_EXEMPT, FLAG_FROZEN, FLAG_NOT_GRANTED,
};
use hashbrown::HashMap;

use crate::limits::DEVIATIONS_MOST;

/// Reports for the next sync, and the pages that they came from.
#[derive(Debug)]
pub struct Outbox {
    reports: Vec<CustomerReport>,
    reports_most: usize,
    /// Pages whose reports are in `reports`, and where.
    pages: HashMap<u32, Range<usize>>,
    /// Pages whose reports are in the sync that is under way.
    sent_pages: Vec<u32>,
    /// Per page: something changed that is neither in `reports` nor sent.
    is_due: Vec<bool>,
    deviations: Vec<DeviationSignal>,
}

// === impl Outbox ===

impl Outbox {
    /// Nothing to report, for a ledger of `pages` pages.
    #[must_use]
    pub fn new(pages: u32, reports_most: u32) -> Self {
        Self {
            reports: Vec::new(),
            reports_most: usize::try_from(reports_most).unwrap_or(usize::MAX),
            pages: HashMap::new(),
            sent_pages: Vec::new(),
            // Everything is news to a control plane that may have been restarted with us.
            is_due: vec![true; usize::try_from(pages).unwrap_or(0)],
            deviations: Vec::new(),
        }
    }

    /// The page has changed.
    pub fn mark(&mut self, place: u32) {
        if let Some(due) = usize::try_from(place)
            .ok()
            .and_then(|place| self.is_due.get_mut(place))
        {
            *due = true;
        }
    }

    /// All pages are news, changed or not: the control plane has forgotten what it was told.
    pub fn mark_everything(&mut self) {
        self.is_due.fill(true);
    }

    /// Whether the page has changed since it was last read for reports.
    #[must_use]
    pub fn is_due(&self, place: u32) -> bool {
        usize::try_from(place)
            .ok()
            .and_then(|place| self.is_due.get(place))
            .copied()
            .unwrap_or(false)
    }

    /// Whether the page should be read for reports now: it has changed, and there is room or it has its place in the batch already.
    #[must_use]
    pub fn wants(&self, place: u32) -> bool {
        self.is_due(place) && (!self.is_full() || self.pages.contains_key(&place))
    }

    /// Whether the batch is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reports.len() >= self.reports_most
    }

    /// Adds the entries of a page that is wanted, as read when `reply_applied` was the newest reply applied in full. A page goes into a
    /// batch as a whole, and takes the place of what an earlier look found there: reports are of sums, so the last one says it all.
    pub fn add_page<'a>(
        &mut self,
        place: u32,
        entries: impl Iterator<Item = &'a Entry>,
        policy: &Policy,
        reply_applied: u64,
    ) {
        let newer: Vec<CustomerReport> = entries
            .flat_map(|entry| {
                policy
                    .resource_indexes()
                    .filter_map(move |resource| report(entry, resource, policy, reply_applied))
            })
            .collect();
        let earlier = self.pages.get(&place).cloned().unwrap_or_default();
        match self.reports.get_mut(earlier) {
            Some(reports) if are_of_the_same(reports, &newer) => reports.clone_from_slice(&newer),
            _ => {
                let start = self.reports.len();
                self.reports.extend(newer);
                self.pages.insert(place, start..self.reports.len());
            }
        }
        if let Some(due) = usize::try_from(place)
            .ok()
            .and_then(|place| self.is_due.get_mut(place))
        {
            *due = false;
        }
    }

    /// Notes a deviation for the next sync.
    pub fn deviate(
        &mut self,
        customer: &CustomerHash,
        resource: ResourceIndex,
        rate_micro_per_s: u64,
    ) {
        if self.deviations.len() >= DEVIATIONS_MOST {
            return;
        }
        let (hash_high, hash_low) = key::CustomerHash(customer.0).parts();
        let resource = u32::try_from(resource.position()).unwrap_or(0);
        self.deviations.push(DeviationSignal {
            hash_high,
            hash_low,
            resource,
            rate_micro_per_s,
        });
    }

    /// The ledger was seeded anew: what was read of the one before says nothing about it.
    pub fn forget(&mut self) {
        self.reports.clear();
        self.pages.clear();
        self.deviations.clear();
    }

    /// Takes the batch for a sync that is sent now.
    pub fn take(&mut self) -> (Vec<CustomerReport>, Vec<DeviationSignal>) {
        self.sent_pages
            .extend(self.pages.drain().map(|(page, _)| page));
        (
            std::mem::take(&mut self.reports),
            std::mem::take(&mut self.deviations),
        )
    }

    /// The sync was answered: the control plane has the batch.
    pub fn delivered(&mut self) {
        self.sent_pages.clear();
    }

    /// The sync failed: its pages are due again.
    pub fn lost(&mut self) {
        for place in std::mem::take(&mut self.sent_pages) {
            self.mark(place);
        }
    }
}

/// Whether both speak of the same lives of the same customers, in the same order. What an entry that has made room for another had
/// counted must still be told.
fn are_of_the_same(some: &[CustomerReport], others: &[CustomerReport]) -> bool {
    let who = |report: &CustomerReport| {
        let customer = (report.hash_high, report.hash_low);
        (customer, report.resource, report.counted_since_us)
    };
    some.iter().map(who).eq(others.iter().map(who))
}

/// The report on one resource of a customer; `None` while nothing has ever happened to it. A grant has happened to it even if everything
/// was given back since.
fn report(
    entry: &Entry,
    resource: ResourceIndex,
    policy: &Policy,
    reply_applied: u64,
) -> Option<CustomerReport> {
    let holding = entry.holdings.at(resource);
    let demand_micro = holding.demand_cum();
    let is_granted = entry.is_granted(resource);
    if demand_micro == 0 && !is_granted {
        return None;
    }
    let (hash_high, hash_low) = key::CustomerHash(entry.customer.0).parts();
    let mut flags = 0;
    for (flag, is_set) in [
        (FLAG_EXEMPT, entry.flags.exempt),
        (FLAG_FROZEN, entry.flags.frozen),
        (FLAG_CONTENDED, entry.is_contended(policy)),
        (FLAG_NOT_GRANTED, !is_granted),
    ] {
        if is_set {
            flags |= flag;
        }
    }
    Some(CustomerReport {
        hash_high,
        hash_low,
        resource: u32::try_from(resource.position()).unwrap_or(0),
        demand_micro,
        admitted_micro: holding.admitted_cum,
        denied_micro: holding.denied_cum,
        deviation_micro: holding.deviation_cum,
        balance_micro: holding.outstanding.balance(holding.contract.level).get(),
        wish_rate_micro_per_s: 0,
        flags,
        // The ledger keeps one sum of grants and adjustments: what arrived of either has arrived.
        granted_seen_micro: holding.moved_cum,
        adjust_seen_micro: 0,
        shadow_rate_micro_per_s: holding.shadow_rate.get(),
        contract: u32::from(entry.contract.0),
        shadow_balance_micro: holding.shadow.level.get(),
        shadow_depth_micro: holding.shadow_depth().get().unsigned_abs(),
        reply_applied,
        counted_since_us: entry.counted_since.0,
    })
}
