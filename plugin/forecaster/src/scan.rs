//! The walk over the ledger's pages: who has used what since the last look.
//!
//! One walk serves reports, series and deviations, because reading pages is what costs. A page whose compare-and-swap number is the
//! same as last time has not changed and is not decoded; an idle ledger of a million customers costs a copy per page and nothing more.
//! A walk is spread over as many ticks as its budget needs; the next one starts a period after it, or at once when a step of the
//! calendar begins.
//!
//! Pages that were granted something are visited ahead of the walk, turn by turn with it. Until the control plane hears that a grant has
//! arrived it counts the share before it as well, and waiting for the walk was worse: with a million customers that takes seconds.

use std::collections::VecDeque;

use forebay_core::amount::Rate;
use forebay_core::ledger::{Entry, Region};
use forebay_core::policy::Policy;
use forebay_core::resource::ResourceIndex;

use crate::accuracy::{Accuracy, Score};
use crate::challenger::Duel;
use crate::host::{Cas, Host, Metric};
use crate::inference::Inference;
use crate::ledger::{Ledger, PageNumber};
use crate::series::{Counters, Series, SeriesKey, SeriesTable, SlotId};
use crate::shadow::ShadowWriter;
use crate::sync::{Outbox, Windows};

/// Time from the start of one walk to the next, unless a step begins.
const PERIOD_US: u64 = 200_000;

/// Growth of a deviation in one look, below which it is noise: one token.
const DEVIATION_MICRO_LEAST: u64 = 1_000_000;

/// The walk.
#[derive(Debug)]
pub struct Scan {
    pages: u32,
    /// The page that the walk visits next, round and round.
    next: u32,
    /// Pages that the walk under way has still to visit; 0 when none is under way.
    left: u32,
    /// The first page of this walk that there was no room for in the batch.
    turned_away: Option<u32>,
    /// Pages to be visited ahead of the walk, as soon as there is room for their reports.
    soon: VecDeque<u32>,
    /// The last page visited was one of those.
    was_ahead: bool,
    is_hurried: bool,
    started_us: u64,
    started_step: i64,
    /// Per page: its number at the last look; 0 before the first.
    seen: Vec<Cas>,
    entries: Vec<Entry>,
}

/// What a walk writes into.
pub struct Finds<'a> {
    /// Usage series.
    pub table: &'a mut SeriesTable,
    /// Due forecasts.
    pub inference: &'a mut Inference,
    /// Reports.
    pub outbox: &'a mut Outbox,
    /// Customers whose history is wanted.
    pub windows: &'a mut Windows,
    /// Pages whose claims must be written.
    pub writer: &'a mut ShadowWriter,
    /// How good forecasts were lately.
    pub accuracy: &'a mut Accuracy,
    /// How good the running model's were.
    pub score: &'a mut Score,
    /// How good another model's would have been.
    pub duel: Option<&'a mut Duel>,
}

/// The present, as a walk sees it.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// The running step of the calendar.
    pub step: i64,
    /// Real length of a step.
    pub step_us: u64,
    /// Monotonic time.
    pub now_us: u64,
    /// How claims are raised.
    pub shadow: &'a forebay_wire::forecaster_config::ShadowConfig,
    /// The newest reply of the control plane that is applied in full.
    pub reply_applied: u64,
}

// === impl Scan ===

impl Scan {
    /// A walk over a ledger of `pages` pages.
    #[must_use]
    pub fn new(pages: u32) -> Self {
        Self {
            pages,
            next: 0,
            left: 0,
            turned_away: None,
            soon: VecDeque::new(),
            was_ahead: false,
            is_hurried: false,
            started_us: 0,
            started_step: i64::MIN,
            seen: vec![0; usize::try_from(pages).unwrap_or(0)],
            entries: Vec::new(),
        }
    }

    /// Visits these pages ahead of the walk, as far as there is room to remember them: the walk comes by all of them.
    pub fn visit_soon(&mut self, places: Vec<u32>) {
        let room = self.seen.len().saturating_sub(self.soon.len());
        self.soon.extend(places.into_iter().take(room));
    }

    /// The next walk starts as soon as the one under way ends.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// Starts a walk if one is due. Returns whether there is a page to visit.
    pub fn start_if_due(
        &mut self,
        ledger: &Ledger,
        outbox: &Outbox,
        present: &Present<'_>,
    ) -> bool {
        if self.left == 0 {
            let elapsed_us = present.now_us.saturating_sub(self.started_us);
            let is_due = elapsed_us >= PERIOD_US || present.step != self.started_step;
            if std::mem::take(&mut self.is_hurried) || is_due {
                self.left = self.pages_in_use(ledger);
                // Otherwise the first pages would fill every batch, and the last ones were never reported.
                self.next = self.turned_away.take().unwrap_or(self.next);
                self.started_us = present.now_us;
                self.started_step = present.step;
            }
        }
        // What the walk has reported meanwhile needs no visit.
        while self
            .soon
            .front()
            .is_some_and(|place| !outbox.is_due(*place))
        {
            self.soon.pop_front();
        }
        self.left > 0 || !self.soon.is_empty() && !outbox.is_full()
    }

    /// The page to visit next. A batch that fills with granted pages alone would keep all others waiting: so every other one is the walk's.
    fn take_next(&mut self, ledger: &Ledger, outbox: &Outbox) -> Option<u32> {
        let is_walks_turn = self.was_ahead && self.left > 0;
        self.was_ahead = !is_walks_turn && !outbox.is_full();
        if self.was_ahead
            && let Some(place) = self.soon.pop_front()
        {
            return Some(place);
        }
        self.left = self.left.checked_sub(1)?;
        let pages = self.pages_in_use(ledger);
        let place = if self.next < pages { self.next } else { 0 };
        self.next = place.saturating_add(1);
        Some(place)
    }

    fn pages_in_use(&self, ledger: &Ledger) -> u32 {
        // Where strangers are denied, their pages stay empty.
        match (
            ledger.policy().map(Policy::unknown_contract),
            ledger.state(),
        ) {
            (Some(None), Some(state)) => state.layout.pages(Region::Policy),
            _ => self.pages,
        }
    }

    /// Looks at the next page. Returns true when a customer deviated enough to synchronise early, or was denied what may lie elsewhere.
    pub fn visit_next(
        &mut self,
        host: &impl Host,
        ledger: &Ledger,
        finds: &mut Finds<'_>,
        present: &Present<'_>,
    ) -> bool {
        let Some(policy) = ledger.policy() else {
            return false;
        };
        let Some(place) = self.take_next(ledger, finds.outbox) else {
            return false;
        };
        self.entries.clear();
        let index = usize::try_from(place).unwrap_or(usize::MAX);
        let seen = self.seen.get(index).copied().filter(|cas| *cas != 0);
        let must_decode = finds.outbox.wants(place);
        let Some(look) = ledger.look(
            host,
            place,
            seen.filter(|_| !must_decode),
            &mut self.entries,
        ) else {
            return false;
        };
        let is_of_others = ledger
            .state()
            .is_some_and(|state| PageNumber::at(&state.layout, place).region == Region::Other);
        if is_of_others {
            self.entries
                .retain(|entry| !ledger.is_listed(host, &entry.customer));
        }
        if seen != Some(look.cas) {
            finds.outbox.mark(place);
            if let Some(number) = self.seen.get_mut(index) {
                *number = look.cas;
            }
        }
        let mut deviated = false;
        for entry in &self.entries {
            deviated |= observe(entry, place, policy, finds, present, host);
        }
        if look.changed && finds.outbox.wants(place) {
            finds
                .outbox
                .add_page(place, self.entries.iter(), policy, present.reply_applied);
        } else if finds.outbox.is_due(place) && self.turned_away.is_none() {
            self.turned_away = Some(place);
        }
        roll(place, finds, present);
        deviated
    }
}

/// Brings the series of one customer up to date.
fn observe(
    entry: &Entry,
    place: u32,
    policy: &Policy,
    finds: &mut Finds<'_>,
    present: &Present<'_>,
    host: &impl Host,
) -> bool {
    let mut deviated = false;
    for resource in policy.resource_indexes() {
        let holding = entry.holdings.at(resource);
        let demand_cum = holding.demand_cum();
        let key = SeriesKey {
            customer: entry.customer,
            resource,
        };
        let slot = finds.table.find(&key).or_else(|| {
            let room_for_idle = entry.flags.in_policy && !finds.table.is_full();
            if demand_cum > 0 || room_for_idle {
                admit(key, place, finds, host)
            } else {
                None
            }
        });
        let Some(slot) = slot else { continue };
        let is_moved = finds.table.refile(slot, place);
        let Some(series) = finds.table.get_mut(slot) else {
            continue;
        };
        series.contract = entry.contract;
        let observed = series.observe(&Counters {
            since_us: entry.counted_since.0,
            demand_cum,
            deviation_cum: holding.deviation_cum,
            denied_cum: holding.denied_cum,
        });
        deviated |= observed.is_denied && lies_elsewhere(entry, resource, policy);
        if is_moved || observed.is_other_entry {
            // The claim that was written is in an entry that nobody draws from any more.
            series.claim.written = false;
            finds.writer.mark(place);
        }
        let grown_micro = observed.deviation_grown;
        // Only a forecast or a claim can be deviated from; without one every request is unforeseen.
        if grown_micro >= DEVIATION_MICRO_LEAST
            && (series.forecast().is_some() || series.claim.rate > Rate::ZERO)
            && series.claim.raise.deviated(present.now_us, present.shadow)
        {
            let rate_micro_per_s = grown_micro
                .saturating_mul(1_000_000)
                .checked_div(PERIOD_US)
                .unwrap_or(0);
            finds
                .outbox
                .deviate(&entry.customer, resource, rate_micro_per_s);
            finds.writer.mark(place);
            host.increment(Metric::ShadowRefillsRaised, 1);
            deviated = true;
        }
    }
    deviated
}

/// Whether a part of the customer's rate is not here: with the control plane, or at other gateways. A sync may bring more of it. The depth
/// says nothing, since there are always starters of it elsewhere. A stranger's bucket is all here.
fn lies_elsewhere(entry: &Entry, resource: ResourceIndex, policy: &Policy) -> bool {
    let Some(contract) = policy.contract(entry.contract) else {
        return false;
    };
    let granted = entry.holdings.at(resource).terms.rate;
    let is_shared = entry.flags.in_policy || entry.is_granted(resource);
    is_shared && granted < contract.limits.at(resource).rate
}

/// A place in the table for a series seen for the first time.
fn admit(key: SeriesKey, place: u32, finds: &mut Finds<'_>, host: &impl Host) -> Option<SlotId> {
    let inference = &*finds.inference;
    let series = Series::new(
        inference.history_steps(),
        inference.settings(),
        inference.generation(),
    );
    let slot = if finds.table.is_full() {
        let (slot, evicted) = finds.table.insert_evicting(key, place, series)?;
        finds.writer.forget(evicted.key.resource, &evicted.claim);
        host.increment(Metric::SeriesEvicted, 1);
        slot
    } else {
        finds.table.insert(key, place, series)?
    };
    if key.resource == ResourceIndex::FIRST
        || finds
            .table
            .find(&SeriesKey {
                resource: ResourceIndex::FIRST,
                ..key
            })
            .is_none()
    {
        finds.windows.want(key.customer);
    }
    Some(slot)
}

/// Finishes the step before for the series of a page, where that has not been done.
fn roll(place: u32, finds: &mut Finds<'_>, present: &Present<'_>) {
    for index in 0..finds.table.on_page(place).len() {
        let Some(slot) = finds.table.on_page(place).get(index).copied() else {
            continue;
        };
        let Some((key, series)) = finds.table.get_mut_keyed(slot) else {
            continue;
        };
        if !series
            .claim
            .raise
            .is_settled(present.now_us, present.shadow.deviation_half_life_ms)
        {
            finds.writer.mark(place);
        }
        if series.running_step() == Some(present.step) {
            continue;
        }
        let judged = series.take_judged();
        let due = series.due(present.step);
        let usage = series.roll(
            present.step,
            present.now_us,
            present.step_us,
            finds.inference.blender_mut(),
        );
        if usage.is_some() {
            series.put_by(present.step.saturating_sub(1));
        }
        if let Some(duel) = &mut finds.duel {
            duel.turn(&key, judged.as_ref(), due);
        }
        if let Some((forecast, usage)) = judged {
            finds.accuracy.matured(&forecast, usage);
            finds.score.matured(key.resource, forecast.high, usage);
        }
        finds.inference.push(slot);
    }
}
