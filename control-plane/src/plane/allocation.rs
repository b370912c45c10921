//! Cycles of the allocation as the state has them: when one is due, what it reads under the lock, and how it comes into force.
//!
//! The lock is held for a thousand customers at a time while a cycle reads, and for the exchange of a pointer when it is put in force. What lies between
//! is computed on another thread, and may take as long as it takes: whatever has changed meanwhile calls for another cycle.

mod reading;

use super::audit::{Deed, Done};
use super::clock::Now;
use super::state::State;
use super::sync::usage::Finished;
use super::{Plane, Settings};
use crate::allocation::{
    AllocationsQuery, AllocationsView, Asked, Book, Cause, CycleView, Gathered, LoansQuery,
    LoansView, MONTHS_KEPT, Made, Month, NEVER, Priorities, RECENT_KEPT, Rule, Seen, StatementView,
    Told, Trails, TuningView, Wanted, drop_old_statements, load, make, month_of, statement_of,
    write, write_closed,
};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::history::{Series, step_at};
use crate::risk::Headroom;
use crate::store::{Batch, Receipt, Store, StoreError};
use forebay_core::resource::ResourceIndex;
use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use hashbrown::{HashMap, HashSet};
use reading::{capacities, live};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// From one cycle to the next at least, whatever happens.
const LEAST_US: u64 = 1_000_000;
/// One that took longer than that leaves so many times as long.
const PAUSES: u64 = 10;
/// After a start gateways have this time to say what is asked for.
const STARTED_US: u64 = 5_000_000;
/// Demand that has left its forecast for so long calls for a cycle.
const CONTENDED_US: u64 = 3_000_000;
/// And so long after the last report of it, it is over.
const CONTENDED_GAP_US: u64 = 2_000_000;
/// Customers who are watched for that.
const CONTENDED_MOST: usize = 4_096;
/// Doublings of the pause between cycles for gateways and capacities.
const HURRIED_MOST: u32 = 16;
/// Cycles ahead of their time leave this part of the interval between them.
const CONTENTION_PARTS: u64 = 10;
/// Cycles that an answer lists.
const RECENT_LISTED: usize = 20;

/// The allocation in force, and what may call for another.
#[derive(Debug, Default)]
pub struct Allocations {
    pub(super) book: Arc<Book>,
    /// Lines of the last cycles, oldest first.
    recent: VecDeque<CycleView>,
    /// None is made before.
    not_before: TimeUs,
    /// Before that gateways are presumed to ask for what they were granted, which is no measurement.
    measured_from: TimeUs,
    /// The next one is due then.
    next_at: TimeUs,
    /// Gateways that had a live lease when the last one was made.
    live: Vec<u64>,
    /// Customers whose demand has left its forecast: since when, and when that was heard last.
    contended: HashMap<CustomerHash, (TimeUs, TimeUs)>,
    contention_from: TimeUs,
    /// When the last cycle was made.
    made_at: TimeUs,
    /// Customers that the cycle in force caps, and those that one which is being made does.
    capped: Arc<HashSet<CustomerHash>>,
    capped_next: Arc<HashSet<CustomerHash>>,
    /// A cycle by other values than the policy's that must not go on.
    falls_back: Option<u64>,
    /// Cycles ahead of their time since the last one that was not.
    hurried: u32,
    /// Since the start, by position in `Cause::ALL`.
    counts: [u64; Cause::ALL.len()],
    took_us: u64,
}

/// What takes part in making cycles, one at a time.
#[derive(Debug, Default)]
pub(super) struct Cycles {
    turn: tokio::sync::Mutex<()>,
    trails: Arc<Mutex<Trails>>,
    priorities: Arc<Mutex<Priorities>>,
    told: Arc<Mutex<Told>>,
}

/// Cycles since the start, for metrics.
#[derive(Clone, Debug)]
pub(crate) struct CycleCounts {
    pub(crate) by_cause: Vec<(&'static str, u64)>,
    pub(crate) took_s: f64,
    pub(crate) book: Arc<Book>,
}

// === impl Cycles ===

impl Cycles {
    /// What was measured of each customer lately.
    pub(super) fn trails(&self) -> Arc<Mutex<Trails>> {
        Arc::clone(&self.trails)
    }
}

// === impl Allocations ===

impl Allocations {
    /// What the store has, and when it goes on.
    pub(super) fn load(store: &dyn Store, now: Now) -> Result<Self, StoreError> {
        let (book, recent) = load(store)?;
        if book.number == NEVER {
            return Ok(Self::default());
        }
        if book.replay() != book.allocation() {
            tracing::warn!(
                cycle = book.number,
                "what the newest cycle was made from gives another allocation by this version"
            );
        }
        let interval_us = u64::from(book.interval_ms).saturating_mul(1_000);
        let passed_us = now
            .unix_ms
            .saturating_sub(book.at_unix_ms)
            .saturating_mul(1_000);
        let left_us = interval_us.saturating_sub(passed_us).max(STARTED_US);
        Ok(Self {
            book: Arc::new(book),
            recent: recent.into(),
            not_before: now.mono.plus_us(STARTED_US),
            measured_from: now.mono.plus_us(STARTED_US),
            next_at: now.mono.plus_us(left_us),
            ..Self::default()
        })
    }

    /// The gateways that are there at the start are no reason for a cycle.
    pub(super) fn take_up(state: &mut State, settings: &Settings, now: TimeUs) {
        state.allocations.live = live(state, settings, now);
    }

    /// Whether what is asked for at this moment was measured.
    pub(super) fn are_measured(&self, now: TimeUs) -> bool {
        now >= self.measured_from
    }

    /// A gateway says that a customer's demand is not what its forecast says.
    pub(super) fn note_contended(&mut self, customer: CustomerHash, now: TimeUs) {
        if self.contended.len() >= CONTENDED_MOST && !self.contended.contains_key(&customer) {
            return;
        }
        let (since, heard) = self.contended.entry(customer).or_insert((now, now));
        if now.since(*heard) > CONTENDED_GAP_US {
            *since = now;
        }
        *heard = now;
    }

    /// Whether a customer's demand has been beside its forecast for long enough.
    fn has_left(&self, customer: CustomerHash, now: TimeUs) -> bool {
        let contended = self.contended.get(&customer);
        contended.is_some_and(|(since, heard)| {
            now.since(*heard) <= CONTENDED_GAP_US && heard.since(*since) >= CONTENDED_US
        })
    }

    /// Whether somebody's demand has been.
    fn is_contended(&mut self, now: TimeUs) -> bool {
        self.contended
            .retain(|_, (_, heard)| now.since(*heard) <= CONTENDED_GAP_US);
        let mut all = self.contended.values();
        // The last cycle knew of what came before it.
        let lasts = |(since, heard): &(TimeUs, TimeUs)| {
            heard.since((*since).max(self.made_at)) >= CONTENDED_US
        };
        now >= self.contention_from && all.any(lasts)
    }

    /// Why a cycle is due, if one is.
    fn due(state: &mut State, settings: &Settings, now: Now) -> Option<Cause> {
        state.policies.sharing()?;
        if now.mono < state.allocations.not_before {
            return None;
        }
        let book = Arc::clone(&state.allocations.book);
        if book.number == NEVER || book.policy != state.policies.active_epoch() {
            return Some(Cause::Policy);
        }
        if state.allocations.falls_back == Some(book.number) {
            return Some(Cause::Fallback);
        }
        if live(state, settings, now.mono) != state.allocations.live {
            return Some(Cause::Gateways);
        }
        let (_, capacity_per_s) = capacities(state, settings, now.mono);
        if capacity_per_s != book.capacity_per_s {
            return Some(Cause::Capacity);
        }
        if state.allocations.is_contended(now.mono) {
            return Some(Cause::Contention);
        }
        let allocations = &state.allocations;
        if now.mono >= allocations.contention_from && state.capped != allocations.capped {
            return Some(Cause::Anomaly);
        }
        (now.mono >= allocations.next_at).then_some(Cause::Interval)
    }

    fn put_in_force(&mut self, made: &Made, took_us: u64, now: TimeUs) {
        let book = &made.book;
        let interval_us = u64::from(book.interval_ms).saturating_mul(1_000);
        self.recent.push_back(made.line.clone());
        while self.recent.len() as u64 > RECENT_KEPT {
            self.recent.pop_front();
        }
        let is_hurried = matches!(book.cause, Cause::Gateways | Cause::Capacity);
        self.hurried = if is_hurried {
            self.hurried.saturating_add(1)
        } else {
            0
        };
        let pause_us = match took_us > LEAST_US {
            true => took_us.saturating_mul(PAUSES),
            false => LEAST_US,
        };
        // The first is made at once. A gateway that comes and goes would make all others' allocations move each second.
        let doubled = LEAST_US << self.hurried.saturating_sub(1).min(HURRIED_MOST);
        let pause_us = pause_us.max(doubled.min(interval_us / CONTENTION_PARTS));
        self.not_before = now.plus_us(pause_us);
        self.next_at = now.plus_us(interval_us);
        self.made_at = now;
        self.live.clone_from(&made.live);
        self.capped = std::mem::take(&mut self.capped_next);
        if matches!(book.cause, Cause::Contention | Cause::Anomaly) {
            self.contention_from = now.plus_us(interval_us / CONTENTION_PARTS);
        }
        let place = Cause::ALL.iter().position(|cause| *cause == book.cause);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            *count = count.saturating_add(1);
        }
        self.took_us = took_us;
        self.book = Arc::clone(book);
    }

    /// How long allocations still hold, in milliseconds: 0 where none do.
    pub(super) fn ttl_ms(&self, rule: &Rule, unix_ms: u64) -> u32 {
        if self.book.number == NEVER {
            return 0;
        }
        let age_ms = unix_ms.saturating_sub(self.book.at_unix_ms);
        let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        rule.ttl_ms().saturating_sub(age_ms)
    }
}

impl Plane {
    /// Makes a cycle if one is due. Returns it when it is in the store.
    ///
    /// # Errors
    /// When the store cannot be read or written; what is computed is in force all the same.
    pub async fn allocate_when_due(&self) -> Result<Option<CycleView>, ApiError> {
        let _turn = self.cycles.turn.lock().await;
        self.hear_step();
        let due = {
            let mut state = self.lock();
            if state.is_stopped {
                return Err(StoreError::Stopped.into());
            }
            Allocations::due(&mut state, &self.settings, self.clock.now())
        };
        let Some(cause) = due else {
            return Ok(None);
        };
        let began = Instant::now();
        let Some((made, batch)) = self.compute(cause).await? else {
            return Ok(None);
        };
        let receipt: Receipt = {
            let mut state = self.lock();
            if state.is_stopped {
                return Err(StoreError::Stopped.into());
            }
            let now = self.clock.now().mono;
            state.allocations.put_in_force(&made, micros(began), now);
            self.journal.submit(batch)
        };
        receipt.durable().await?;
        tracing::debug!(
            cycle = made.book.number,
            cause = cause.name(),
            "an allocation is in force"
        );
        Ok(Some(made.line))
    }

    /// Makes a cycle because somebody asks for it.
    ///
    /// # Errors
    /// When the policy divides nothing, or the store cannot be read or written.
    pub async fn allocate_now(&self, by: &Caller) -> Result<CycleView, ApiError> {
        let _turn = self.cycles.turn.lock().await;
        self.hear_step();
        let began = Instant::now();
        let (made, batch) = self.compute(Cause::Asked).await?.ok_or_else(no_sharing)?;
        let deed = Deed::new(by, "allocation.run", "the allocation");
        self.change(deed, |state, all, now| {
            state
                .allocations
                .put_in_force(&made, micros(began), now.mono);
            all.append(batch);
            Ok(Done::new((), format!("cycle {}", made.book.number)))
        })
        .await?;
        Ok(made.line)
    }

    /// Takes note of the step that was closed last.
    pub(super) fn hear_step(&self) {
        let mut trails = self
            .cycles
            .trails
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let finished = Arc::clone(&self.lock().finished);
        if finished.step != trails.newest() {
            let step_s = f64::from(self.settings.step_ms.max(1)) / 1e3;
            let usage = finished.usage.iter().filter_map(|usage| {
                let resource = u8::try_from(usage.resource).ok()?;
                let per_s = usage.demand as f64 / 1e6 / step_s;
                Some((Series::new(usage.customer, resource), per_s))
            });
            trails.hear(finished.step, usage);
        }
        self.hear_denied(&finished);
        trails.expire(step_at(self.clock.now().unix_ms, self.settings.step_ms));
    }

    /// Takes note of guarantees that were not kept in it, and of what came of the cycle in force.
    fn hear_denied(&self, finished: &Finished) {
        let (rule, book) = {
            let state = self.lock();
            let rule = state.policies.sharing().cloned();
            (rule, Arc::clone(&state.allocations.book))
        };
        let Some(rule) = rule else {
            return;
        };
        let step = (finished.step, self.settings.step_ms);
        let usage = || {
            finished.usage.iter().filter_map(|usage| {
                Some(Asked {
                    customer: usage.customer,
                    resource: ResourceIndex::new(usage.resource)?,
                    demand: usage.demand as f64 / 1e6,
                    denied: usage.denied as f64 / 1e6,
                })
            })
        };
        if rule.tuning.is_some() {
            let told = self.cycles.told.lock();
            let mut told = told.unwrap_or_else(PoisonError::into_inner);
            told.hear(&book, step, usage());
            if told.ends(&book) {
                self.lock().allocations.falls_back = Some(book.number);
            }
        }
        let Some(settings) = rule.prioritize else {
            return;
        };
        let mut priorities = self
            .cycles
            .priorities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        priorities.hear(&settings, &book, step, usage());
    }

    /// The next cycle, and the rows that keep it; none where the policy divides nothing.
    async fn compute(&self, cause: Cause) -> Result<Option<(Made, Batch)>, ApiError> {
        let Some(gathered) = self.gather() else {
            return Ok(None);
        };
        let work = Work {
            gathered,
            cause,
            forecasts: self.forecast_book(),
            trails: Arc::clone(&self.cycles.trails),
            priorities: Arc::clone(&self.cycles.priorities),
            told: Arc::clone(&self.cycles.told),
            headroom: self.headroom(),
            store: Arc::clone(&self.store),
            step_ms: self.settings.step_ms,
            now_unix_ms: self.clock.now().unix_ms,
        };
        let done = tokio::task::spawn_blocking(move || work.done()).await;
        let (made, batch) = done.map_err(|_| StoreError::Stopped)??;
        self.make_room(batch.size_bytes())?;
        Ok(Some((made, batch)))
    }

    /// The allocation in force.
    ///
    /// # Errors
    /// When the query cannot be understood, or names who is not there.
    pub fn allocations(&self, query: &AllocationsQuery) -> Result<AllocationsView, ApiError> {
        let wanted = Wanted {
            group: query.group.clone(),
            ..self.wanted(
                query.customer.as_deref(),
                query.after.as_deref(),
                query.limit,
            )?
        };
        let book = self.book_in_force();
        let (interval_ms, recent) = {
            let state = self.lock();
            let rule = state.policies.sharing();
            let recent = state.allocations.recent.iter().rev().take(RECENT_LISTED);
            (rule.map(|rule| rule.interval_ms), recent.cloned().collect())
        };
        Ok(AllocationsView {
            cycle: book.line(),
            interval_ms,
            customers: book.customers(&wanted)?,
            recent,
        })
    }

    /// Tuning as it stands.
    pub fn tuning(&self) -> TuningView {
        let book = self.book_in_force();
        let rule = self.lock().policies.sharing().cloned();
        TuningView::of(rule.as_deref(), &book, self.clock.now().unix_ms)
    }

    /// The loans of the allocation in force.
    ///
    /// # Errors
    /// When the query cannot be understood.
    pub fn loans(&self, query: &LoansQuery) -> Result<LoansView, ApiError> {
        let wanted = self.wanted(
            query.customer.as_deref(),
            query.after.as_deref(),
            query.limit,
        )?;
        let book = self.book_in_force();
        Ok(LoansView {
            cycle: book.number,
            at_unix_ms: book.at_unix_ms,
            resources: book.loan_sums(),
            loans: book.loans(&wanted),
        })
    }

    /// What a customer has lent and borrowed in a month, the running one if none is named.
    ///
    /// # Errors
    /// When the month is none that is kept, or the store cannot be read.
    pub fn statement(&self, key: &str, month: Option<&str>) -> Result<StatementView, ApiError> {
        let customer = self.hash_of(key)?;
        let now_unix_ms = self.clock.now().unix_ms;
        let month = month_of(month, now_unix_ms)?;
        let running = Month::at(now_unix_ms);
        if month > running || month < running.before(MONTHS_KEPT) {
            let message = format!("there is no statement of {month}");
            let hint =
                format!("statements of the running month and of {MONTHS_KEPT} before it are kept");
            return Err(ApiError::not_found("no_statement", message, hint).at("month"));
        }
        let book = Arc::clone(&self.lock().allocations.book);
        let sums = statement_of(&*self.store, &book, customer, month)?;
        Ok(book.statement(customer, &sums))
    }

    fn wanted(
        &self,
        customer: Option<&str>,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Wanted, ApiError> {
        let hash_of = |text: Option<&str>, place| {
            let hash = text.map(|text| self.hash_of(text)).transpose();
            hash.map_err(|error| error.at(place))
        };
        Ok(Wanted {
            only: hash_of(customer, "customer")?,
            group: None,
            after: hash_of(after, "after")?,
            limit,
        })
    }

    /// The newest cycle; an empty one where the policy divides nothing.
    fn book_in_force(&self) -> Arc<Book> {
        let state = self.lock();
        match state.policies.sharing() {
            Some(_) => Arc::clone(&state.allocations.book),
            None => Arc::default(),
        }
    }

    /// For metrics.
    pub(crate) fn cycle_counts(&self) -> CycleCounts {
        let book = self.book_in_force();
        let state = self.lock();
        let allocations = &state.allocations;
        let causes = Cause::ALL.iter().map(|cause| cause.name());
        CycleCounts {
            by_cause: causes.zip(allocations.counts).collect(),
            took_s: allocations.took_us as f64 / 1e6,
            book,
        }
    }
}

/// What is computed beside the lock.
struct Work {
    gathered: Gathered,
    cause: Cause,
    forecasts: Arc<crate::forecasts::Book>,
    trails: Arc<Mutex<Trails>>,
    priorities: Arc<Mutex<Priorities>>,
    told: Arc<Mutex<Told>>,
    headroom: Arc<Headroom>,
    store: Arc<dyn Store>,
    step_ms: u32,
    now_unix_ms: u64,
}

// === impl Work ===

impl Work {
    fn done(self) -> Result<(Made, Batch), StoreError> {
        let before = Arc::clone(&self.gathered.before);
        let mut made = {
            let trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
            let priorities = self.priorities.lock();
            let priorities = priorities.unwrap_or_else(PoisonError::into_inner);
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = Seen {
                priorities: &priorities,
                told: &told,
                forecasts: &self.forecasts,
                trails: &trails,
                headroom: &self.headroom,
                step_ms: self.step_ms,
                now_unix_ms: self.now_unix_ms,
                cause: self.cause,
            };
            make(self.gathered, &seen)
        };
        let mut batch = Batch::default();
        write(&mut batch, (&made.book, &made.line), &before);
        let running = Month::at(self.now_unix_ms);
        let oldest = running.before(MONTHS_KEPT);
        made.closed.retain(|(_, sums)| sums.month >= oldest);
        write_closed(&mut batch, &*self.store, &made.closed)?;
        if Month::at(before.at_unix_ms) != running {
            drop_old_statements(&mut batch, &*self.store, running)?;
        }
        Ok((made, batch))
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn no_sharing() -> ApiError {
    ApiError::conflict(
        "no_sharing",
        "the policy in force divides nothing",
        "give it a `sharing` section, and a resource with a capacity_per_s",
    )
}
