//! Writing claims to the ledger, a page at a time.
//!
//! Claims change for five reasons: a new forecast, an allocation, a deviation, a raise that decays, depths that must be scaled anew. All mark
//! the page, and a marked page is written once with whatever holds by then. Writing at each reason was worse: a page has eight
//! customers, and each write can collide with a draw. The pools' sums of protected stock are not ours to correct: the leading worker
//! walks the pages for that.

use std::collections::VecDeque;

use forebay_core::amount::{Micro, Rate};
use forebay_core::error::CoreError;
use forebay_core::policy::{ContractIndex, Limits, Policy};
use forebay_core::resource::ResourceIndex;
use forebay_forecast::Source;
use forebay_wire::forecaster_config::ShadowConfig;
use hashbrown::HashMap;

use super::allocations::Allocations;
use super::allot::{Class, allot};
use super::claim::Claim;
use crate::host::Host;
use crate::ledger::{Ledger, PageNumber, Shared};
use crate::series::{SeriesKey, SeriesTable, SlotId};

/// Scales are computed anew at most this often.
const SCALE_GAP_US: u64 = 250_000;

/// A refill or depth that changed by less than one part in this is not worth a write.
const WORTH_A_WRITE: u64 = 64;

/// Pages to be written, and the sums that depths are scaled by.
#[derive(Debug)]
pub struct ShadowWriter {
    queue: VecDeque<u32>,
    is_queued: Vec<bool>,
    protection: Protection,
}

/// Depths wanted per contract and resource, and the part that each may have.
#[derive(Debug, Default)]
struct Protection {
    sums: HashMap<(u16, ResourceIndex), Sum>,
    stale: bool,
    computed_at_us: u64,
}

/// What one page came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// Refills above zero that came from the network.
    pub by_network: u64,
    /// Refills above zero that came from the simple methods alone.
    pub by_fallback: u64,
    /// Refills above zero that came from an allocation.
    pub by_allocation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    depth: f64,
    scale: f64,
}

/// What a customer is to get.
struct Wanted {
    slot: SlotId,
    key: SeriesKey,
    rate: Rate,
    span_us: u32,
}

/// What holds for every claim.
pub struct Terms<'a> {
    /// How forecasts become claims.
    pub config: &'a ShadowConfig,
    /// Real length of a step.
    pub step_us: u64,
    /// Monotonic time.
    pub now_us: u64,
    /// What is allocated to whom; `None` without a control plane.
    pub allocations: Option<&'a Allocations>,
}

// === impl Terms ===

impl Terms<'_> {
    /// The running step, counted from whenever the clock began.
    fn step(&self) -> i64 {
        let step = self.now_us.checked_div(self.step_us).unwrap_or(0);
        i64::try_from(step).unwrap_or(i64::MAX)
    }
}

// === impl ShadowWriter ===

impl ShadowWriter {
    /// Nothing to write, for a ledger of `pages` pages.
    #[must_use]
    pub fn new(pages: u32) -> Self {
        Self {
            queue: VecDeque::new(),
            is_queued: vec![false; usize::try_from(pages).unwrap_or(0)],
            protection: Protection::default(),
        }
    }

    /// Marks a page.
    pub fn mark(&mut self, place: u32) {
        if let Some(queued) = usize::try_from(place)
            .ok()
            .and_then(|place| self.is_queued.get_mut(place))
            && !std::mem::replace(queued, true)
        {
            self.queue.push_back(place);
        }
    }

    /// Whether no page is marked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets the claim of a series that lost its place.
    pub fn forget(&mut self, resource: ResourceIndex, claim: &Claim) {
        self.protection.replace(
            resource,
            (claim.contract, claim.depth),
            (claim.contract, 0.0),
        );
    }

    /// Computes scales anew when sums have changed and enough time has passed.
    pub fn rescale(&mut self, ledger: &mut Ledger, host: &impl Host, now_us: u64) {
        if !self.protection.stale
            || now_us.saturating_sub(self.protection.computed_at_us) < SCALE_GAP_US
        {
            return;
        }
        self.protection.stale = false;
        self.protection.computed_at_us = now_us;
        let Some((core, conditions)) = ledger.at(now_us) else {
            return;
        };
        let Ok(pools) = core.pools(&mut Shared(host), &conditions) else {
            return;
        };
        let policy = conditions.policy;
        for resource in policy.resource_indexes() {
            let Some(pool) = policy.pool(resource) else {
                continue;
            };
            let part = u64::from(policy.shadow.protected_permille);
            let allowed = pool
                .depth
                .share(part, 1_000)
                .minus(pools.pools.at(resource).credit.depth)
                .at_least_zero();
            self.protection
                .allot(resource, policy, allowed.get() as f64);
        }
    }

    /// Writes the next marked page. `None`: nothing is marked.
    ///
    /// # Errors
    /// The page could not be written; it stays marked if trying again can help.
    pub fn write_next(
        &mut self,
        host: &impl Host,
        ledger: &mut Ledger,
        table: &mut SeriesTable,
        terms: &Terms<'_>,
    ) -> Option<Result<WriteReport, CoreError>> {
        let place = self.queue.pop_front()?;
        if let Some(queued) = usize::try_from(place)
            .ok()
            .and_then(|place| self.is_queued.get_mut(place))
        {
            *queued = false;
        }
        let result = self.write(host, ledger, table, terms, place);
        if matches!(result, Err(CoreError::Contended { .. })) {
            self.mark(place);
        }
        Some(result)
    }

    fn write(
        &mut self,
        host: &impl Host,
        ledger: &mut Ledger,
        table: &mut SeriesTable,
        terms: &Terms<'_>,
        place: u32,
    ) -> Result<WriteReport, CoreError> {
        let Some((core, conditions)) = ledger.at(terms.now_us) else {
            return Ok(WriteReport::default());
        };
        let (policy, lease, now) = (conditions.policy, conditions.lease, conditions.now);
        let number = PageNumber::at(&core.state().layout, place);
        let (report, wanted) = self.prepare(policy, table, terms, place);
        if wanted.is_empty() {
            return Ok(report);
        }
        core.edit_page(&mut Shared(host), number.region, number.page, now, |page| {
            let mut changed = false;
            for want in &wanted {
                let Some(position) = page.view().find(&want.key.customer) else {
                    continue;
                };
                let mut entry = page.get(position)?;
                entry.refill(policy, &lease, now);
                entry.set_shadow(want.key.resource, want.rate, want.span_us);
                page.put(position, &entry);
                changed = true;
            }
            Ok(changed)
        })?;
        for want in &wanted {
            if let Some(series) = table.get_mut(want.slot) {
                series.claim.rate = want.rate;
                series.claim.span_us = want.span_us;
                series.claim.written = true;
            }
        }
        Ok(report)
    }

    /// What the customers of a page are to get, without those for whom hardly anything changes.
    fn prepare(
        &mut self,
        policy: &Policy,
        table: &mut SeriesTable,
        terms: &Terms<'_>,
        place: u32,
    ) -> (WriteReport, Vec<Wanted>) {
        let mut report = WriteReport::default();
        let mut wanted = Vec::new();
        for slot in table.on_page(place).to_vec() {
            let Some(key) = table.get(slot).map(|(key, _)| *key) else {
                continue;
            };
            let Some(series) = table.get_mut(slot) else {
                continue;
            };
            let contract = series.contract;
            let limits = limits_of(policy, contract, key.resource);
            let allocated = terms
                .allocations
                .and_then(|allocations| allocations.of(&key, policy));
            let rate = if policy.shadow.enabled {
                series.claim.wanted_rate(series, &limits, allocated, terms)
            } else {
                Rate::ZERO
            };
            let credit = policy.credit_depth(limits.guarantee);
            let excess = rate
                .amount_in(u64::from(policy.shadow_span_us()))
                .minus(credit)
                .at_least_zero();
            let depth = excess.get() as f64;
            self.protection.replace(
                key.resource,
                (series.claim.contract, series.claim.depth),
                (contract.0, depth),
            );
            series.claim.contract = contract.0;
            series.claim.depth = depth;
            let scale = self.protection.scale(contract.0, key.resource);
            let span_us = span_us(policy, rate, credit, depth * scale, excess);
            let forecast = series.forecast();
            let forecast = forecast.map(|forecast| (forecast.step, forecast.source));
            report.count(
                forecast.or_else(|| allocated.map(|_| (terms.step(), Source::Nothing))),
                allocated.is_some(),
                rate,
                &mut series.claim,
            );
            let hardly = differs_hardly(rate.get(), series.claim.rate.get())
                && differs_hardly(u64::from(span_us), u64::from(series.claim.span_us));
            // A zero that was never written is what the entry has anyway.
            let unwritten = !series.claim.written && rate == Rate::ZERO;
            if !(unwritten || series.claim.written && hardly) {
                wanted.push(Wanted {
                    slot,
                    key,
                    rate,
                    span_us,
                });
            }
        }
        (report, wanted)
    }
}

// === impl Protection ===

impl Protection {
    fn replace(&mut self, resource: ResourceIndex, before: (u16, f64), after: (u16, f64)) {
        if before == after {
            return;
        }
        let zero = Sum {
            depth: 0.0,
            scale: 1.0,
        };
        let old = self.sums.entry((before.0, resource)).or_insert(zero);
        old.depth = (old.depth - before.1).max(0.0);
        self.sums.entry((after.0, resource)).or_insert(zero).depth += after.1;
        self.stale = true;
    }

    fn scale(&self, contract: u16, resource: ResourceIndex) -> f64 {
        self.sums
            .get(&(contract, resource))
            .map_or(1.0, |sum| sum.scale)
    }

    fn allot(&mut self, resource: ResourceIndex, policy: &Policy, allowed: f64) {
        let mut classes = Vec::new();
        let mut contracts = Vec::new();
        for ((contract, of), sum) in &self.sums {
            let Some(row) = policy
                .contract(ContractIndex(*contract))
                .filter(|_| *of == resource)
            else {
                continue;
            };
            let (tier, priority, weight) = (row.tier.number(), row.priority, row.weight);
            contracts.push((*contract, (tier, priority, weight)));
            classes.push(Class {
                tier,
                priority,
                weight,
                depth: sum.depth,
                scale: 0.0,
            });
        }
        allot(allowed, &mut classes);
        for (contract, kind) in contracts {
            // Contracts of one kind have one scale, whichever row it stands in.
            let scale = classes
                .iter()
                .filter(|class| (class.tier, class.priority, class.weight) == kind)
                .map(|class| class.scale)
                .fold(1.0, f64::min);
            if let Some(sum) = self.sums.get_mut(&(contract, resource)) {
                sum.scale = scale;
            }
        }
    }
}

// === impl WriteReport ===

impl WriteReport {
    /// Counts a refill once per forecast; one that is allocated to a customer without a forecast once per step.
    fn count(
        &mut self,
        forecast: Option<(i64, Source)>,
        is_allocated: bool,
        rate: Rate,
        claim: &mut Claim,
    ) {
        let Some((step, source)) = forecast.filter(|_| rate > Rate::ZERO) else {
            return;
        };
        if claim.counted_step == Some(step) {
            return;
        }
        claim.counted_step = Some(step);
        match source {
            _ if is_allocated => self.by_allocation = self.by_allocation.saturating_add(1),
            Source::Network => self.by_network = self.by_network.saturating_add(1),
            Source::Fallback => self.by_fallback = self.by_fallback.saturating_add(1),
            Source::Nothing => {}
        }
    }
}

fn limits_of(policy: &Policy, contract: ContractIndex, resource: ResourceIndex) -> Limits {
    policy
        .contract(contract)
        .map_or_else(Limits::default, |row| *row.limits.at(resource))
}

/// The depth in microseconds of the refill: the guarantee credit is never scaled, what goes beyond it is.
fn span_us(policy: &Policy, rate: Rate, credit: Micro, scaled_excess: f64, excess: Micro) -> u32 {
    let full_us = policy.shadow_span_us();
    if rate == Rate::ZERO || excess == Micro::ZERO {
        return full_us;
    }
    let depth = credit.get() as f64 + scaled_excess;
    // A cast from float saturates and takes NaN to 0.
    full_us.min((depth * 1e6 / rate.get() as f64) as u32)
}

fn differs_hardly(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / WORTH_A_WRITE
}
