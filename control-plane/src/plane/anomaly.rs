//! Customers that behave as they never did: what is read of the state in each closed step, and what follows.
//!
//! The lock is held for a thousand series at a time while a step is read, and for the exchange of a pointer when it was judged. Steps are judged when they are
//! closed, and not with the sync that closes them: that one would wait for tens of thousands of verdicts.

use super::Plane;
use super::audit::Deed;
use super::state::State;
use super::sync::usage::Finished;
use crate::anomaly::{
    AnomaliesQuery, AnomaliesView, Book, Flag, Reading, Round, Rule, Used, Wanted, Watcher,
};
use crate::buckets::POOL_ACCOUNT;
use crate::error::ApiError;
use crate::history::Series;
use crate::store::{Batch, Receipt, Store, StoreError, giving_way};
use forebay_core::policy::Policy;
use forebay_core::resource::ResourceIndex;
use forebay_sharing::to_per_s;
use hashbrown::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Series that are read without giving the lock back.
const AT_ONCE: usize = 1_024;
/// Rows that are written at once. With no more series than that all of them are written with each step.
const ROWS_MOST: usize = 1_024;
/// About what so many take.
const ROWS_BYTES: usize = ROWS_MOST * 600;

/// Customers whose cap begins or ends in a step, and who have a record of their own in the audit log. Of more there is one record together: strangers are as many
/// as somebody cares to make up, and would push out of the log what people did.
const NAMED_MOST: usize = 8;

/// Who is watched, and what was found.
#[derive(Debug)]
pub(super) struct Anomalies {
    turn: tokio::sync::Mutex<()>,
    /// Nobody waits for the state's lock who has this one, nor the other way round.
    watcher: Arc<Mutex<Watcher>>,
    book: Mutex<Arc<Book>>,
}

/// A step, as it was read.
struct Gathered {
    round: Round,
    resources: Vec<String>,
}

// === impl Anomalies ===

impl Anomalies {
    /// Goes on with what the store knows. Whoever was flagged is so until the first step says otherwise.
    pub(super) fn load(store: &dyn Store, step_ms: u32) -> Result<Self, StoreError> {
        let watcher = Watcher::load(store, step_ms)?;
        let book = Book {
            flags: watcher.flags(),
            ..Book::default()
        };
        Ok(Self {
            turn: tokio::sync::Mutex::default(),
            watcher: Arc::new(Mutex::new(watcher)),
            book: Mutex::new(Arc::new(book)),
        })
    }

    pub(super) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, book: Arc<Book>) {
        *self.book.lock().unwrap_or_else(PoisonError::into_inner) = book;
    }

    fn watcher(&self) -> MutexGuard<'_, Watcher> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plane {
    /// Judges the step that was closed last, if that was not done yet.
    ///
    /// # Errors
    /// When the store does not take what is known of customers; what was found holds all the same.
    pub async fn watch_customers(&self) -> Result<(), ApiError> {
        let _turn = self.anomalies.turn.lock().await;
        let Some(gathered) = self.gather_step()? else {
            return Ok(());
        };
        let began = Instant::now();
        let watcher = Arc::clone(&self.anomalies.watcher);
        let Gathered { round, resources } = gathered;
        let unix_ms = round
            .step
            .saturating_mul(u64::from(self.settings.step_ms.max(1)));
        let judged = tokio::task::spawn_blocking(move || {
            giving_way("anomalies", || {
                let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
                (watcher.judge(&round), round.step)
            })
        });
        let ((flags, mut counts), step) = judged.await.map_err(|_| StoreError::Stopped)??;
        counts.took_s = began.elapsed().as_secs_f64();
        let book = Book {
            step: Some((step, unix_ms)),
            resources,
            flags,
            counts,
        };
        self.put_flags_in_force(book)
            .durable()
            .await
            .map_err(ApiError::from)?;
        self.save_ways()?.durable().await.map_err(ApiError::from)
    }

    /// Publishes what was found. Who is capped from now on, or no more, is in the audit log.
    fn put_flags_in_force(&self, book: Book) -> Receipt {
        let (book, before) = (Arc::new(book), self.anomalies.book());
        self.anomalies.publish(Arc::clone(&book));
        let (capped, were_capped) = (book.capped(), before.capped());
        let mut batch = Batch::default();
        // Where there is no room for them the flags hold all the same, and [`Self::save_ways`] says so.
        if self.make_room(ROWS_BYTES).is_ok() {
            self.anomalies.watcher().save_changed(&mut batch, ROWS_MOST);
        }
        let mut state = self.lock();
        let (now, keep) = (self.clock.now(), self.settings.audit_keep);
        let mut note = |action, flags: &[&Flag], says: fn(&Flag) -> String| {
            for flag in flags.iter().take(NAMED_MOST) {
                let deed = Deed::of_the_server(action, format!("hash:{}", flag.series.customer));
                state.audit.append(&mut batch, deed, says(flag), now, keep);
            }
            let more = flags.len().saturating_sub(NAMED_MOST);
            if more > 0 {
                let deed = Deed::of_the_server(action, "customers").with("more", Some(more));
                let says = format!("{more} more in the same step");
                state.audit.append(&mut batch, deed, says, now, keep);
            }
        };
        note("anomaly.cap", &book.capped_beside(&were_capped), Flag::says);
        note("anomaly.uncap", &before.capped_beside(&capped), |_| {
            "as its contract says".to_owned()
        });
        state.capped = Arc::new(capped);
        self.journal.submit(batch)
    }

    /// Writes some of what is known of customers down: as many pieces as it takes for flags and caps that the piece with the flags had no room for, and one.
    fn save_ways(&self) -> Result<Receipt, StoreError> {
        loop {
            self.make_room(ROWS_BYTES)?;
            let mut batch = Batch::default();
            let has_more = {
                let mut watcher = self.anomalies.watcher();
                watcher.save_some(&mut batch, ROWS_MOST);
                watcher.has_changed()
            };
            let receipt = self.journal.submit(batch);
            if !has_more {
                return Ok(receipt);
            }
        }
    }

    /// The same with all of it, in pieces: the server stops. Whatever follows in the journal is durable only after them.
    pub(super) fn save_all_ways(&self) {
        loop {
            if let Err(error) = self.make_room(ROWS_BYTES) {
                tracing::warn!(%error, "what the last steps say of some customers is not written down");
                return;
            }
            let mut batch = Batch::default();
            if self.anomalies.watcher().save_some(&mut batch, ROWS_MOST) == 0 {
                return;
            }
            drop(self.journal.submit(batch));
        }
    }

    /// The step that was closed last and by whom it is watched; none if there is nothing to judge.
    fn gather_step(&self) -> Result<Option<Gathered>, StoreError> {
        let (rule, finished, epoch) = {
            let state = self.lock();
            if state.is_stopped {
                return Err(StoreError::Stopped);
            }
            let rule = state.policies.anomaly().map(Arc::clone);
            let epoch = state.policies.active_epoch();
            (rule, Arc::clone(&state.finished), epoch)
        };
        let Some(rule) = rule else {
            if self.anomalies.book().step.is_some() || !self.anomalies.book().flags.is_empty() {
                // Nobody is watched any more, so nobody is flagged.
                drop(self.put_flags_in_force(Book::default()));
            }
            return Ok(None);
        };
        if finished.step == 0 || self.anomalies.watcher().newest() == Some(finished.step) {
            return Ok(None);
        }
        let used = used_in(&finished);
        let mut all: HashSet<Series> = self.anomalies.watcher().series().collect();
        all.extend(used.keys().copied());
        let all: Vec<Series> = all.into_iter().collect();
        let step_ms = u64::from(self.settings.step_ms.max(1));
        let from_unix_ms = finished.step.saturating_mul(step_ms);
        let step = (from_unix_ms, from_unix_ms.saturating_add(step_ms));
        let mut gathered = Gathered {
            round: Round {
                step: finished.step,
                readings: Vec::with_capacity(all.len()),
                used,
                contracts: Vec::new(),
                forecasts: self.forecast_book(),
            },
            resources: Vec::new(),
        };
        for series in all.chunks(AT_ONCE) {
            let state = self.lock();
            // Rows of contracts mean something else under another policy, which is read with the next look.
            let policy = state.policies.compiled();
            let Some(policy) = policy.filter(|policy| policy.epoch == epoch) else {
                return Ok(None);
            };
            if gathered.resources.is_empty() {
                let names = policy.resources.iter();
                gathered.resources = names.map(|resource| resource.name.clone()).collect();
                let names = policy.contracts.iter();
                gathered.round.contracts = names.map(|contract| contract.name.clone()).collect();
            }
            let readings = series
                .iter()
                .filter_map(|series| reading(&state, policy, &rule, *series, step));
            gathered.round.readings.extend(readings);
        }
        // The same order in each run: who is new takes the room that there is.
        let readings = &mut gathered.round.readings;
        readings.sort_unstable_by_key(|reading| (reading.series.customer, reading.series.resource));
        Ok(Some(gathered))
    }

    /// Who behaves as it never did.
    ///
    /// # Errors
    /// When the query cannot be understood.
    pub fn anomalies(&self, query: &AnomaliesQuery) -> Result<AnomaliesView, ApiError> {
        let hash_of = |text: &Option<String>, place| {
            let hash = text.as_deref().map(|text| self.hash_of(text)).transpose();
            hash.map_err(|error| error.at(place))
        };
        let wanted = Wanted {
            only: hash_of(&query.customer, "customer")?,
            kind: query.kind,
            after: hash_of(&query.after, "after")?,
            limit: query.limit,
        };
        Ok(self.anomalies.book().view(&wanted))
    }

    /// The same, for metrics and alerts.
    pub(crate) fn anomaly_book(&self) -> Arc<Book> {
        self.anomalies.book()
    }
}

/// What was used in a step, by series.
fn used_in(finished: &Finished) -> HashMap<Series, Used> {
    let usage = finished.usage.iter();
    let usage = usage.filter(|usage| usage.customer != POOL_ACCOUNT);
    let usage = usage.filter_map(|usage| {
        let resource = u8::try_from(usage.resource).ok()?;
        let used = Used {
            asked: usage.demand as f64 / 1e6,
            denied: usage.denied as f64 / 1e6,
            gateways: usage.gateways,
        };
        Some((Series::new(usage.customer, resource), used))
    });
    usage.collect()
}

/// By what a series is watched; none where it is not. Who is frozen or banned is denied everything and asks for what it likes.
fn reading(
    state: &State,
    policy: &Policy,
    rule: &Rule,
    series: Series,
    step: (u64, u64),
) -> Option<Reading> {
    let customer = series.customer;
    let member = state.directory.get(customer);
    let row = member.map(|member| member.contract);
    let row = row.or(policy.unknown_contract())?;
    let action = rule.action(row)?;
    let in_force = member.map(|member| state.directory.in_force(customer, member));
    let (_, until_unix_ms) = step;
    let is_denied = in_force
        .is_some_and(|in_force| in_force.frozen || in_force.ban_until_unix_ms >= until_unix_ms);
    if is_denied {
        return None;
    }
    let index = ResourceIndex::new(usize::from(series.resource))?;
    let limits = policy.contract(row)?.limits.at(index);
    Some(Reading {
        series,
        contract: row,
        ceiling_per_s: to_per_s(limits.ceiling.max(limits.rate)),
        is_stranger: member.is_none_or(|member| !member.in_policy),
        rule: action,
        event_factor: rule.event_factor(row, step),
    })
}
