//! Covariates: from what senders write to the history, and from there to whoever learns from them.
//!
//! They lie in the history's table and ring, where a series is a customer and a number: resources have the first ones, covariates the last. So they are kept
//! as long as usage is, and sealed as it is. Which covariate has which number is in the store: one that is given up and taken up again finds what it has.

use super::{Plane, SeriesView, StartError};
use crate::buckets::POOL_ACCOUNT;
use crate::covariates::{Chosen, Dropped, DroppedCounts, Means, Series, TakenCounts, Tally};
use crate::error::ApiError;
use crate::history::{Ring, step_at};
use crate::prometheus::{TimeSeries, each_series};
use crate::store::{Batch, Receipt, Store, StoreError, Table};
use axum::http::StatusCode;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Numbers of covariates, by name.
const META_COVARIATES: &[u8] = b"covariates";
/// The first number of a covariate. A policy has four resources at most.
const FIRST_NUMBER: u8 = 192;
/// Most that a chunk takes in the store, with its key.
const CHUNK_BYTES: usize = 320;
/// Series that are kept under the lock at once: syncs wait for it.
const SERIES_AT_ONCE: usize = 256;
/// Requests that are read at once, each some tens of MB at most, and how long others wait for their turn.
const REQUESTS_AT_ONCE: usize = 4;
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// How far the clocks of others may be ahead of ours.
const AHEAD_MS_MOST: i64 = 10_000;
/// The largest value that the trainer takes.
const VALUE_MOST: f64 = 1e30;
/// A series is idle after so many steps, or after as long as Prometheus believes the last sample of one.
const IDLE_STEPS: u64 = 4;
const IDLE_MS: u64 = 300_000;
/// Prometheus' word for the end of a series: a number that is none, of these bits.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What is kept, and what has become of samples.
#[derive(Debug)]
pub(crate) struct Covariates {
    chosen: Chosen,
    /// In the order of the options.
    numbers: Vec<u8>,
    hashes: RandomState,
    tally: Tally,
    turns: Semaphore,
}

/// Samples of one series of a sender.
#[derive(Debug)]
pub(crate) struct Measured {
    series: Series,
    /// Whose samples they are.
    source: u64,
    /// Time and value.
    samples: Vec<(i64, f64)>,
}

/// What is kept of a request.
#[derive(Debug, Default)]
pub(crate) struct ReadWrite {
    measured: Vec<Measured>,
    dropped: DroppedCounts,
}

/// The times that samples may have.
#[derive(Clone, Copy)]
struct Window {
    step_ms: u32,
    first_step: u64,
    newest_ms: i64,
}

// === impl Covariates ===

impl Covariates {
    fn new(store: &dyn Store, chosen: Chosen) -> Result<(Self, Batch), StartError> {
        let mut book: BTreeMap<String, u8> = match store.get(Table::Meta, META_COVARIATES)? {
            Some(row) => serde_json::from_slice(&row).map_err(|error| damaged(&error))?,
            None => BTreeMap::new(),
        };
        let mut numbers = Vec::new();
        for name in chosen.names() {
            let free = || {
                let mut all = FIRST_NUMBER..=u8::MAX;
                all.find(|number| book.values().all(|taken| taken != number))
            };
            let number = book.get(name).copied().or_else(free);
            let number = number.ok_or(StartError::CovariateNames(book.len()))?;
            book.insert(name.to_owned(), number);
            numbers.push(number);
        }
        let row = serde_json::to_vec(&book).map_err(|error| damaged(&error))?;
        let mut batch = Batch::default();
        batch.put(Table::Meta, META_COVARIATES, row);
        let covariates = Self {
            chosen,
            numbers,
            hashes: RandomState::new(),
            tally: Tally::default(),
            turns: Semaphore::new(REQUESTS_AT_ONCE),
        };
        Ok((covariates, batch))
    }

    /// Sorts a series in.
    fn read(&self, plane: &Plane, series: &TimeSeries, read: &mut ReadWrite) {
        let mut is_chosen = false;
        for position in self.chosen.of(series) {
            is_chosen = true;
            let Some(number) = self.numbers.get(position) else {
                continue;
            };
            let Some(key) = self.chosen.customer(series) else {
                Dropped::NoCustomer.count(&mut read.dropped, series.samples.len());
                continue;
            };
            // What cannot be a key is nobody's.
            let Ok(customer) = plane.hash_of(key) else {
                Dropped::UnknownCustomer.count(&mut read.dropped, series.samples.len());
                continue;
            };
            let samples = series.samples.iter();
            read.measured.push(Measured {
                series: Series::new(customer, *number),
                source: self.chosen.source(series, position, &self.hashes),
                samples: samples
                    .map(|sample| (sample.timestamp, sample.value))
                    .collect(),
            });
        }
        if !is_chosen {
            Dropped::NotChosen.count(&mut read.dropped, series.samples.len());
        }
    }
}

// === impl Window ===

impl Window {
    fn step_of(self, at_unix_ms: i64, value: f64) -> Result<u64, Dropped> {
        if value.to_bits() == STALE {
            return Err(Dropped::Stale);
        }
        if !(0.0..=VALUE_MOST).contains(&value) {
            return Err(Dropped::NotAMeasurement);
        }
        if at_unix_ms > self.newest_ms {
            return Err(Dropped::TooNew);
        }
        let at_unix_ms = u64::try_from(at_unix_ms).map_err(|_| Dropped::TooOld)?;
        let step = step_at(at_unix_ms, self.step_ms);
        match step < self.first_step {
            true => Err(Dropped::TooOld),
            false => Ok(step),
        }
    }
}

// === impl Plane ===

impl Plane {
    /// Keeps covariates from now on.
    ///
    /// # Errors
    /// When the store cannot be read, or has had too many of other names.
    pub fn measuring(mut self, chosen: Chosen) -> Result<Self, StartError> {
        let (covariates, batch) = Covariates::new(&*self.store, chosen)?;
        // Nothing is written under a number before this is.
        drop(self.journal.submit(batch));
        self.covariates = Some(covariates);
        Ok(self)
    }

    /// Names of the covariates that are kept.
    pub(crate) fn covariate_names(&self) -> impl Iterator<Item = &str> {
        let covariates = self.covariates.iter();
        covariates.flat_map(|covariates| covariates.chosen.names())
    }

    /// What has become of samples, if any are taken.
    #[must_use]
    pub fn measured(&self) -> Option<TakenCounts> {
        let covariates = self.covariates.as_ref()?;
        let series = self.lock().means.sources();
        Some(covariates.tally.counts(series))
    }

    fn covariates(&self) -> Result<&Covariates, ApiError> {
        self.covariates.as_ref().ok_or_else(|| {
            let message = "this server keeps no covariates";
            let hint = "start it with --covariate NAME=METRIC";
            ApiError::not_found("no_covariates", message, hint)
        })
    }

    /// Waits until few enough requests are read.
    pub(crate) async fn turn_to_measure(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let turn = timeout(TURN_WITHIN, self.covariates()?.turns.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            let message = format!("{REQUESTS_AT_ONCE} requests of senders are read at once");
            let hint = "send it again; fewer and larger requests at once are read sooner";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, hint)
        })
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse_measurements(&self) {
        if let Some(covariates) = &self.covariates {
            covariates.tally.refuse();
        }
    }

    /// Reads the body of a sender's request. Takes a tenth of a second at most: call it on a thread that may block.
    ///
    /// # Errors
    /// When something is wrong with it; then nothing of it counts.
    pub(crate) fn read_measurements(&self, body: &[u8]) -> Result<ReadWrite, ApiError> {
        let covariates = self.covariates()?;
        let mut read = ReadWrite::default();
        let visited = each_series(body, &mut |series| {
            covariates.read(self, &series, &mut read)
        });
        visited.map_err(|error| {
            let hint = "nothing of the request is kept: let the sender send fewer samples at once, by remote write 1.0";
            ApiError::malformed(error.to_string(), hint)
        })?;
        Ok(read)
    }

    /// Adds samples to the means of their steps.
    ///
    /// # Errors
    /// When the store has no room, or cannot be read or written.
    pub(crate) async fn keep_measurements(&self, read: &ReadWrite) -> Result<(), ApiError> {
        let covariates = self.covariates()?;
        let samples = read.measured.iter().map(|measured| measured.samples.len());
        let chunks: usize = samples.sum();
        self.make_room(chunks.saturating_mul(CHUNK_BYTES))?;
        covariates.tally.add(0, &read.dropped);
        let mut receipts = Vec::new();
        for some in read.measured.chunks(SERIES_AT_ONCE) {
            receipts.push(self.keep_some(covariates, some)?);
        }
        for receipt in receipts {
            receipt.durable().await?;
        }
        Ok(())
    }

    fn keep_some(&self, covariates: &Covariates, some: &[Measured]) -> Result<Receipt, StoreError> {
        let mut state = self.lock();
        if state.is_stopped {
            return Err(StoreError::Stopped);
        }
        let (mut kept, mut dropped) = (0, DroppedCounts::default());
        let mut batch = Batch::default();
        let step_ms = self.settings.step_ms;
        let now_ms = self.clock.now().unix_ms;
        let step_now = step_at(now_ms, step_ms);
        let window = Window {
            step_ms,
            // As far back as usage is imported.
            first_step: step_now.saturating_sub(self.settings.history_steps),
            newest_ms: i64::try_from(now_ms)
                .unwrap_or(i64::MAX)
                .saturating_add(AHEAD_MS_MOST),
        };
        let idle_ms = IDLE_MS.max(IDLE_STEPS.saturating_mul(u64::from(step_ms)));
        let idle_since_ms = now_ms.saturating_sub(idle_ms);
        let idle = (
            i64::try_from(idle_since_ms).unwrap_or(i64::MAX),
            step_at(idle_since_ms, step_ms),
        );
        let state = &mut *state;
        if state.means.enters(step_now) {
            // Also while no gateway syncs.
            state.ring.close_idle(step_now);
        }
        let mut result = Ok(());
        for measured in some {
            let customer = measured.series.customer;
            let is_known = customer != POOL_ACCOUNT
                && (state.directory.get(customer).is_some()
                    || state.accounts.contains_key(&customer));
            if !is_known {
                Dropped::UnknownCustomer.count(&mut dropped, measured.samples.len());
                continue;
            }
            if !state.means.has_room(measured.source, measured.series, idle) {
                Dropped::TooManySeries.count(&mut dropped, measured.samples.len());
                continue;
            }
            let steps = means_of(
                measured,
                window,
                &mut state.means,
                &|step| stored(&state.ring, &*self.store, measured.series, step),
                &mut dropped,
                &mut kept,
            );
            result = put(
                &mut state.ring,
                &*self.store,
                &mut batch,
                measured.series,
                &steps,
            );
            if result.is_err() {
                break;
            }
        }
        state.ring.seal_some(&mut batch);
        covariates.tally.add(kept, &dropped);
        // What is in the ring must reach the store, whatever came of the rest.
        let receipt = self.journal.submit(batch);
        result.map(|()| receipt)
    }

    /// Exports what was measured of a customer. What was not is a gap, and never a zero.
    ///
    /// # Errors
    /// When there is no such covariate, or the store cannot be read.
    pub fn export_covariate(
        &self,
        key: &str,
        covariate: &str,
        steps: Option<u64>,
    ) -> Result<SeriesView, ApiError> {
        let customer = self.hash_of(key)?;
        let covariates = self.covariates()?;
        let mut known = covariates.chosen.names().zip(&covariates.numbers);
        let Some((_, number)) = known.find(|(name, _)| *name == covariate) else {
            let names = Vec::from_iter(covariates.chosen.names());
            let hint = format!("name one of: {}", names.join(", "));
            let message = format!("there is no covariate `{covariate}`");
            return Err(ApiError::not_found("no_such_covariate", message, hint).at("covariate"));
        };
        let newest = step_at(self.clock.now().unix_ms, self.settings.step_ms).saturating_sub(1);
        let most = self.settings.history_steps;
        let first = newest.saturating_sub(steps.unwrap_or(most).clamp(1, most).saturating_sub(1));
        let series = Series::new(customer, *number);
        let usage = Ring::read(&*self.store, series, first, newest)?;
        Ok(SeriesView {
            key: format!("hash:{customer}"),
            resource: covariate.to_owned(),
            step_ms: self.settings.step_ms,
            newest_step: newest,
            usage: usage.values,
        })
    }
}

/// The means of the steps that a series has samples in, each with the newest of them.
fn means_of(
    measured: &Measured,
    window: Window,
    means: &mut Means,
    stored: &dyn Fn(u64) -> Option<f32>,
    dropped: &mut DroppedCounts,
    kept: &mut u64,
) -> SmallVec<[(u64, f32); 2]> {
    let mut steps: SmallVec<[(u64, f32); 2]> = SmallVec::new();
    for (at_unix_ms, value) in &measured.samples {
        let step = window.step_of(*at_unix_ms, *value);
        let step = step.and_then(|step| {
            means.admit(measured.source, *at_unix_ms)?;
            Ok(step)
        });
        let step = match step {
            Ok(step) => step,
            Err(reason) => {
                reason.count(dropped, 1);
                continue;
            }
        };
        let mean = means.add(measured.series, step, *value, || stored(step));
        *kept = kept.saturating_add(1);
        match steps.last_mut() {
            Some((last, before)) if *last == step => *before = mean,
            _ => steps.push((step, mean)),
        }
    }
    steps
}

/// What cannot be read is said when it is written.
fn stored(ring: &Ring, store: &dyn Store, series: Series, step: u64) -> Option<f32> {
    ring.value(store, series, step).ok().flatten()
}

fn put(
    ring: &mut Ring,
    store: &dyn Store,
    batch: &mut Batch,
    series: Series,
    steps: &[(u64, f32)],
) -> Result<(), StoreError> {
    match ring.set_all(store, batch, series, steps.iter().copied()) {
        // The sender would send the same for ever.
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, customer = %series.customer, "64 steps of a covariate of the customer are lost");
            for (step, mean) in steps {
                ring.set_anew(batch, series, *step, *mean);
            }
            Ok(())
        }
        result => result,
    }
}

fn damaged(error: &serde_json::Error) -> StoreError {
    StoreError::Damaged {
        what: "covariates",
        reason: error.to_string(),
    }
}
