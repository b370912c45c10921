//! Measurements: what of a sender's request is kept, and how it comes to the means of steps.
//!
//! A request is read before the lock is taken, as a whole or not at all, and kept under it piece by piece, because syncs wait meanwhile.

use super::Plane;
use super::covariates::Covariates;
use crate::buckets::POOL_ACCOUNT;
use crate::covariates::{Dropped, DroppedCounts, Means, Series};
use crate::error::ApiError;
use crate::history::{Chunk, Ring, step_at};
use crate::prometheus::{TimeSeries, each_series};
use crate::store::{Batch, Receipt, Store, StoreError};
use smallvec::SmallVec;

/// Most that a chunk takes in the store, with its key.
const CHUNK_BYTES: usize = 320;
/// Series that are kept under the lock at once: syncs wait for it.
const SERIES_AT_ONCE: usize = 256;
/// How far the clocks of others may be ahead of ours.
const AHEAD_MS_MOST: i64 = 10_000;
/// The largest value that the trainer takes.
const VALUE_MOST: f64 = 1e30;
/// A series is idle after so many steps, or after as long as Prometheus believes the last sample of one.
const IDLE_STEPS: u64 = 4;
const IDLE_MS: u64 = 300_000;
/// Prometheus' word for the end of a series: a number that is none, of these bits.
const STALE: u64 = 0x7ff0_0000_0000_0002;

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
    let is_one_chunk =
        |one: &(u64, f32), next: &(u64, f32)| Chunk::number_of(one.0) == Chunk::number_of(next.0);
    for of_chunk in steps.chunk_by(is_one_chunk) {
        match ring.set_all(store, batch, series, of_chunk.iter().copied()) {
            // The sender would send the same for ever.
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, customer = %series.customer, "64 steps of a covariate of the customer are lost");
                if let Some(((step, mean), more)) = of_chunk.split_first() {
                    ring.set_anew(batch, series, *step, *mean);
                    ring.set_all(store, batch, series, more.iter().copied())?;
                }
            }
            result => result?,
        }
    }
    Ok(())
}
