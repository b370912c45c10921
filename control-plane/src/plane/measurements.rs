//! Measurements: what of a sender's request is kept, and how it comes to the means of steps.
//!
//! A request is read before the lock is taken, as a whole or not at all, and kept under it piece by piece, because syncs wait meanwhile. The chunks of a
//! piece are read from the store before that: pieces are written one at a time, and nobody else writes chunks of covariates, so what was read stays true.
//! To read them under the lock was the worse alternative: samples that are late have a chunk each, and all syncs waited for a hundred thousand of them.

use super::covariates::{Covariates, busy};
use super::{Plane, State};
use crate::buckets::POOL_ACCOUNT;
use crate::covariates::{Dropped, DroppedCounts, Means, Series, StepSamples};
use crate::error::ApiError;
use crate::history::{CHUNK_BYTES, Chunk, ChunkId, Ring, step_at};
use crate::prometheus::{BadWrite, SAMPLES_MOST, TimeSeries, each_series};
use crate::store::{Batch, StoreError};
use axum::http::StatusCode;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

/// Samples that are kept under the lock at once: syncs wait for it, and each may be in a chunk of its own.
const SAMPLES_AT_ONCE: usize = 512;
/// Chunks of the past that are in memory because the store may not have them yet, some 400 bytes each.
const LATE_MOST: usize = 1 << 18;
/// How far the clocks of others may be ahead of ours.
const AHEAD_MS_MOST: i64 = 10_000;
/// Of a label that a refusal names.
const LABEL_CHARS_SHOWN: usize = 100;
/// The largest value that the trainer takes.
const VALUE_MOST: f64 = 1e30;
/// A series is idle after so many steps, or after as long as Prometheus believes the last sample of one.
const IDLE_STEPS: u64 = 4;
const IDLE_MS: u64 = 300_000;
/// Prometheus' word for the end of a series: a number that is none, of these bits.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Samples of one series of a sender.
#[derive(Debug)]
struct Measured {
    series: Series,
    /// Whose samples they are.
    source: u64,
    /// Time and value.
    samples: Vec<(i64, f64)>,
}

/// What is kept of a request.
#[derive(Debug, Default)]
struct ReadWrite {
    measured: Vec<Measured>,
    /// Those of all of them.
    samples: usize,
    dropped: DroppedCounts,
    /// Series that are none, and a label that the first of them has twice.
    repeated: usize,
    repeats: Option<String>,
}

/// Samples of one series that are kept at once.
#[derive(Clone, Copy)]
struct Part<'a> {
    series: Series,
    source: u64,
    samples: &'a [(i64, f64)],
}

/// A sample that has come in time.
#[derive(Clone, Copy)]
struct Timely {
    step: u64,
    at_unix_ms: i64,
    value: f64,
}

/// Chunks as the store has them; `None` where it has none, or one that cannot be read.
type StoredChunks = HashMap<ChunkId, Option<Chunk>>;

/// What has been written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// Pieces that the journal was given.
    pieces: u64,
    /// Chunks of the past that are in memory, each with the last piece that they were in: a chunk leaves when the store has that. So samples that are weeks
    /// late, of which each opens a chunk, fill the memory only until they are durable.
    late: HashMap<ChunkId, u64>,
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
    fn read(
        &self,
        plane: &Plane,
        series: &TimeSeries,
        read: &mut ReadWrite,
    ) -> Result<(), BadWrite> {
        if let Some(label) = series.repeats() {
            // Whose it is, and which series, depends on which of the two one takes.
            Dropped::RepeatedLabel.count(&mut read.dropped, series.samples.len());
            read.repeated = read.repeated.saturating_add(1);
            let shown = || label.chars().take(LABEL_CHARS_SHOWN).collect();
            read.repeats.get_or_insert_with(shown);
            return Ok(());
        }
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
            read.samples = read.samples.saturating_add(series.samples.len());
            if read.samples > SAMPLES_MOST {
                return Err(BadWrite::TooManyMeasurements);
            }
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
        Ok(())
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

    fn timely(self, samples: &[(i64, f64)], dropped: &mut DroppedCounts) -> Vec<Timely> {
        let mut timely = Vec::with_capacity(samples.len());
        for (at_unix_ms, value) in samples.iter().copied() {
            match self.step_of(at_unix_ms, value) {
                Ok(step) => timely.push(Timely {
                    step,
                    at_unix_ms,
                    value,
                }),
                Err(reason) => reason.count(dropped, 1),
            }
        }
        timely
    }
}

// === impl Plane ===

impl Plane {
    /// Takes the body of a sender's request, and returns when its samples are durable in the means of their steps. Takes a tenth of a second and longer:
    /// call it on a thread that may block.
    ///
    /// # Errors
    /// When something is wrong with it; then nothing of it counts, but where a series has a label twice: then all others count. When the store has no room, or cannot
    /// be read or written.
    pub(crate) fn take_measurements(&self, body: &[u8]) -> Result<(), ApiError> {
        let covariates = self.covariates()?;
        let read = self.read_measurements(covariates, body)?;
        self.make_room(read.samples.saturating_mul(CHUNK_BYTES))?;
        covariates.tally.add(0, &read.dropped);
        let mut pieces = pieces_of(&read.measured).into_iter();
        let kept = pieces.try_for_each(|piece| self.keep_piece(covariates, &piece));
        let newest_piece = covariates.writing().pieces;
        // Also if there is no news in it: one that is sent again may stand, and not be durable yet.
        let saved = self.journal.all_so_far().wait();
        if saved.is_ok() {
            self.forget_late(covariates, newest_piece);
        }
        kept?;
        saved?;
        read.repeats.map_or(Ok(()), |label| {
            let message = format!(
                "{} series have a label twice (the first one `{label}`), and are dropped; all others of the request are kept",
                read.repeated
            );
            let hint = "look for a relabelling that makes two labels of one name, or a client library that does; to send the request again changes nothing";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "repeated_label", message, hint))
        })
    }

    fn read_measurements(
        &self,
        covariates: &Covariates,
        body: &[u8],
    ) -> Result<ReadWrite, ApiError> {
        let mut read = ReadWrite::default();
        let mut visit = |series| covariates.read(self, &series, &mut read);
        each_series(body, &mut visit)
            .map_err(|error| ApiError::malformed(error.to_string(), error.hint()))?;
        Ok(read)
    }

    fn keep_piece(&self, covariates: &Covariates, parts: &[Part<'_>]) -> Result<(), ApiError> {
        let mut writing = covariates.writing();
        let mut stored = StoredChunks::new();
        loop {
            // Seldom more than once: those that have left the memory since.
            let missing = self.keep_stored(covariates, &mut writing, parts, &stored)?;
            if missing.is_empty() {
                return Ok(());
            }
            for id in missing {
                let chunk = match Ring::stored(&*self.store, id) {
                    // The sender would send the same for ever.
                    Err(error @ StoreError::Damaged { .. }) => {
                        tracing::error!(%error, customer = %id.0.customer, "64 steps of a covariate of the customer are lost");
                        None
                    }
                    chunk => chunk?,
                };
                stored.insert(id, chunk);
            }
        }
    }

    /// Adds samples to the means of their steps; or, without having done anything, says which chunks must be read from the store before.
    fn keep_stored(
        &self,
        covariates: &Covariates,
        writing: &mut Writing,
        parts: &[Part<'_>],
        stored: &StoredChunks,
    ) -> Result<HashSet<ChunkId>, ApiError> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.is_stopped {
            return Err(StoreError::Stopped.into());
        }
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
        if state.means.enters(step_now) {
            // Also while no gateway syncs.
            state.ring.close_idle(step_now);
        }
        let (mut kept, mut dropped) = (0, DroppedCounts::default());
        let mut timely = Vec::with_capacity(parts.len());
        let mut missing = HashSet::new();
        let mut is_late = false;
        for part in parts {
            if !is_known(state, part.series) {
                Dropped::UnknownCustomer.count(&mut dropped, part.samples.len());
                continue;
            }
            let samples = window.timely(part.samples, &mut dropped);
            for sample in &samples {
                let id = (part.series, Chunk::number_of(sample.step));
                is_late |= state.ring.is_past(id.1);
                if state.ring.in_memory(id).is_none() && !stored.contains_key(&id) {
                    missing.insert(id);
                }
            }
            timely.push((part, samples));
        }
        if is_late && writing.late.len() >= LATE_MOST {
            let message = "samples of the past come faster than the store takes them";
            return Err(busy(message.to_owned()));
        }
        if !missing.is_empty() {
            return Ok(missing);
        }
        // Nothing fails from here on: what is noted of samples, and what the ring and the journal have of them, is the same.
        writing.pieces = writing.pieces.saturating_add(1);
        let mut batch = Batch::default();
        for (part, samples) in timely {
            if !state.means.has_room(part.source, part.series, idle) {
                Dropped::TooManySeries.count(&mut dropped, samples.len());
                continue;
            }
            let of_store = |number| stored.get(&(part.series, number)).cloned().flatten();
            let news = news_of(part.source, &samples, &mut state.means, &mut dropped);
            let mut means: SmallVec<[(u64, f32); 2]> = SmallVec::new();
            for news in news {
                kept = u64::from(news.count).saturating_add(kept);
                let number = Chunk::number_of(news.step);
                let before = || match state.ring.in_memory((part.series, number)) {
                    Some(chunk) => chunk.get(news.step),
                    None => of_store(number)?.get(news.step),
                };
                let mean = state.means.add(part.series, news, before);
                means.push((news.step, mean));
                if state.ring.is_past(number) {
                    writing.late.insert((part.series, number), writing.pieces);
                }
            }
            let ring = &mut state.ring;
            ring.set_read(&of_store, &mut batch, part.series, means);
        }
        state.ring.seal_some(&mut batch, self.journal.progress());
        covariates.tally.add(kept, &dropped);
        // Whoever waits, waits for all of them.
        drop(self.journal.submit(batch));
        Ok(missing)
    }

    /// The store has all pieces up to this one.
    fn forget_late(&self, covariates: &Covariates, newest_piece: u64) {
        let mut writing = covariates.writing();
        let is_saved = |_: &ChunkId, piece: &mut u64| *piece <= newest_piece;
        let saved = writing.late.extract_if(is_saved).map(|(id, _)| id);
        let saved = Vec::from_iter(saved);
        for some in saved.chunks(SAMPLES_AT_ONCE) {
            self.lock().ring.forget(some);
        }
    }
}

fn is_known(state: &State, series: Series) -> bool {
    let customer = series.customer;
    customer != POOL_ACCOUNT
        && (state.directory.get(customer).is_some() || state.accounts.contains_key(&customer))
}

/// Cuts samples into pieces that are kept at once.
fn pieces_of(measured: &[Measured]) -> Vec<Vec<Part<'_>>> {
    let mut pieces = vec![Vec::new()];
    let mut left = SAMPLES_AT_ONCE;
    for of_series in measured {
        let mut samples = of_series.samples.as_slice();
        while !samples.is_empty() {
            if left == 0 {
                pieces.push(Vec::new());
                left = SAMPLES_AT_ONCE;
            }
            let (some, rest) = samples.split_at(left.min(samples.len()));
            let part = Part {
                series: of_series.series,
                source: of_series.source,
                samples: some,
            };
            pieces
                .last_mut()
                .into_iter()
                .for_each(|piece| piece.push(part));
            left = left.saturating_sub(some.len());
            samples = rest;
        }
    }
    pieces
}

/// Those samples of a series that are newer than all before them, by step.
fn news_of(
    source: u64,
    samples: &[Timely],
    means: &mut Means,
    dropped: &mut DroppedCounts,
) -> SmallVec<[StepSamples; 2]> {
    let mut news: SmallVec<[StepSamples; 2]> = SmallVec::new();
    for sample in samples {
        if let Err(reason) = means.admit(source, sample.at_unix_ms) {
            reason.count(dropped, 1);
            continue;
        }
        match news.last_mut() {
            Some(last) if last.step == sample.step => last.add(sample.value, 1),
            _ => news.push(StepSamples {
                step: sample.step,
                sum: sample.value,
                count: 1,
            }),
        }
    }
    news
}

#[cfg(test)]
#[path = "measurements_tests.rs"]
mod tests;
