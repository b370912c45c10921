//! The series that are being written, and windows read back from the store.

use super::chunk::Chunk;
use super::{CHUNK_STEPS, chunk_key};
use crate::store::{Batch, Progress, Store, StoreError, Table};
use forebay_wire::key::CustomerHash;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;

/// Which series: a customer and a resource (by its index in the policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// The customer.
    pub customer: CustomerHash,
    /// Index of the resource.
    pub resource: u8,
}

/// Which chunk: of which series, and its number.
pub type ChunkId = (Series, u64);

/// Usage of consecutive steps; `None` where nothing is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Number of the first step.
    pub first_step: u64,
    /// Tokens per step.
    pub values: Vec<Option<f32>>,
    /// Numbers of chunks that cannot be read.
    pub damaged: Vec<u64>,
}

/// The chunks that were written lately, by series and number. Older chunks are in the store only.
///
/// A chunk that was written may still be on its way to the store, and reading it from there would bring back an older one. So it
/// stays here for a step, and for as long as it is the newest. One chunk per series was the worse alternative: an import that
/// went back and forth between two of them lost what it had written before.
#[derive(Debug)]
pub struct Ring {
    retention_steps: u64,
    open: HashMap<ChunkId, OpenChunk>,
    /// Chunks that are over.
    over: VecDeque<ChunkId>,
    /// The running step, as far as the ring was told.
    step_now: u64,
    /// A step, and what was written before anything was sealed in it.
    mark: (u64, u64),
}

#[derive(Debug)]
struct OpenChunk {
    chunk: Chunk,
    /// The step that was running when it was written last.
    written_in: u64,
    /// Whether it is among those that are over.
    is_over: bool,
}

/// Chunks that are sealed with one sync, 20 us each: a customer has one in 64 steps.
const SEALED_AT_ONCE: usize = 4;
/// Or this part of those that wait for it.
const PARTS_OF_OVER: usize = 1_024;
/// So many wait for it; others stay as they were written.
const OVER_MOST: usize = 1 << 17;

// === impl OpenChunk ===

impl OpenChunk {
    fn is_idle(&self, number: u64, step_now: u64) -> bool {
        let current = Chunk::number_of(step_now);
        !(current.saturating_sub(1)..=current).contains(&number)
            && self.written_in.saturating_add(1) < step_now
    }
}

// === impl Ring ===

impl Ring {
    /// An empty ring.
    #[must_use]
    pub fn new(retention_steps: u64) -> Self {
        Self {
            retention_steps,
            open: HashMap::new(),
            over: VecDeque::new(),
            step_now: 0,
            mark: (0, 0),
        }
    }

    /// Steps that are kept.
    #[must_use]
    pub fn retention_steps(&self) -> u64 {
        self.retention_steps
    }

    /// Stores the usage of a finished step.
    ///
    /// # Errors
    /// When the chunk that it belongs to cannot be read.
    pub fn set(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        series: Series,
        step: u64,
        usage: f32,
    ) -> Result<(), StoreError> {
        self.set_all(store, batch, series, [(step, usage)])
    }

    /// Stores the usage of finished steps. Neighbours that share a chunk are one write: of an import that is a sixty-fourth of what one
    /// write for each step was.
    ///
    /// # Errors
    /// When a chunk that they belong to cannot be read.
    pub fn set_all(
        &mut self,
        store: &dyn Store,
        batch: &mut Batch,
        series: Series,
        usage: impl IntoIterator<Item = (u64, f32)>,
    ) -> Result<(), StoreError> {
        let read = |number| Self::stored(store, (series, number));
        self.set_in(&read, batch, series, usage)
    }

    /// Stores values of steps whose chunks have been read before where they are not in memory. That cannot fail.
    pub fn set_read(
        &mut self,
        read: &dyn Fn(u64) -> Option<Chunk>,
        batch: &mut Batch,
        series: Series,
        values: impl IntoIterator<Item = (u64, f32)>,
    ) {
        let read = |number| Ok::<_, Infallible>(read(number));
        let Ok(()) = self.set_in(&read, batch, series, values);
    }

    fn set_in<E>(
        &mut self,
        read: &dyn Fn(u64) -> Result<Option<Chunk>, E>,
        batch: &mut Batch,
        series: Series,
        usage: impl IntoIterator<Item = (u64, f32)>,
    ) -> Result<(), E> {
        let mut steps = usage.into_iter().peekable();
        while let Some((first, _)) = steps.peek() {
            let number = Chunk::number_of(*first);
            let key = chunk_key(series, number);
            let before = match self.open.remove(&(series, number)) {
                Some(open) => Some(open.chunk),
                None => read(number)?,
            };
            let mut chunk = before.unwrap_or_else(|| self.begin(batch, series, number));
            let is_in_chunk = |step: &(u64, f32)| Chunk::number_of(step.0) == number;
            while let Some((step, usage)) = steps.next_if(is_in_chunk) {
                chunk.set(step, usage);
            }
            batch.put(Table::History, key, chunk.encode());
            let written_in = self.step_now;
            let open = OpenChunk {
                chunk,
                written_in,
                is_over: false,
            };
            self.open.insert((series, number), open);
        }
        Ok(())
    }

    /// Stores the usage of a finished step in a chunk that begins anew, because the one in the store cannot be read.
    pub fn set_anew(&mut self, batch: &mut Batch, series: Series, step: u64, usage: f32) {
        let mut chunk = Chunk::default();
        chunk.set(step, usage);
        let number = Chunk::number_of(step);
        batch.put(Table::History, chunk_key(series, number), chunk.encode());
        let open = OpenChunk {
            chunk,
            written_in: self.step_now,
            is_over: false,
        };
        self.open.insert((series, number), open);
    }

    /// A chunk that is in memory: what the store has of it may be older.
    #[must_use]
    pub fn in_memory(&self, id: ChunkId) -> Option<&Chunk> {
        self.open.get(&id).map(|open| &open.chunk)
    }

    /// A chunk as the store has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn stored(
        store: &dyn Store,
        (series, number): ChunkId,
    ) -> Result<Option<Chunk>, StoreError> {
        let bytes = store.get(Table::History, &chunk_key(series, number))?;
        bytes.map(|bytes| Chunk::decode(&bytes)).transpose()
    }

    /// Whether a chunk is older than the current one and the one before that.
    #[must_use]
    pub fn is_past(&self, number: u64) -> bool {
        number.saturating_add(1) < Chunk::number_of(self.step_now)
    }

    /// Forgets chunks of the past that the store has by now.
    pub fn forget(&mut self, chunks: &[ChunkId]) {
        for id in chunks {
            if self.is_past(id.1) {
                self.open.remove(id);
            }
        }
    }

    /// A new chunk pushes the one out that has left the retention.
    fn begin(&self, batch: &mut Batch, series: Series, number: u64) -> Chunk {
        if let Some(outdated) = number.checked_sub(self.kept()) {
            batch.delete(Table::History, chunk_key(series, outdated));
        }
        Chunk::default()
    }

    /// Whether a chunk has left the retention when a step is the newest.
    #[must_use]
    pub fn has_left(&self, number: u64, newest_step: u64) -> bool {
        number.saturating_add(self.kept()) <= Chunk::number_of(newest_step)
    }

    /// Chunks of a series that are kept.
    fn kept(&self) -> u64 {
        self.retention_steps.div_ceil(CHUNK_STEPS).saturating_add(1)
    }

    /// Finds chunks in memory that are over: those that are not the newest and were not written for a whole step.
    pub fn close_idle(&mut self, step_now: u64) {
        self.step_now = step_now;
        for (key, open) in &mut self.open {
            // Where the clock was set back, what was written in its future was written just now.
            open.written_in = open.written_in.min(step_now);
            if !open.is_over && open.is_idle(key.1, step_now) {
                open.is_over = true;
                self.over.push_back(*key);
            }
        }
    }

    /// Seals some chunks that are over, and forgets them: they stay in the store. A few at a time, because whoever syncs waits for it.
    ///
    /// While the store takes nothing they stay here: whoever goes back to one would go on with what the store has of it, which is older. Of more than 131 072 of them
    /// the oldest are forgotten all the same, so that they do not fill the memory; what is on its way to the store of them is written all the same, and lost only
    /// where an import or a late sample goes back to such a chunk before that.
    pub fn seal_some(&mut self, batch: &mut Batch, progress: Progress) {
        // After an import there may be a million of them. In the store they are as they are meanwhile, only larger.
        while self.over.len() > OVER_MOST
            && let Some(key) = self.over.pop_front()
        {
            self.open.remove(&key);
        }
        if self.mark.0 != self.step_now {
            self.mark = (self.step_now, progress.queued);
        }
        // What is over was written in an earlier step.
        if progress.durable < self.mark.1 {
            return;
        }
        for _ in 0..SEALED_AT_ONCE.max(self.over.len() / PARTS_OF_OVER) {
            let Some((series, number)) = self.over.pop_front() else {
                return;
            };
            let Some(open) = self.open.get_mut(&(series, number)) else {
                continue;
            };
            if !open.is_idle(number, self.step_now) {
                // It has been written again meanwhile.
                open.is_over = false;
                continue;
            }
            let sealed = open.chunk.seal();
            self.open.remove(&(series, number));
            // One that has left the retention meanwhile has been deleted.
            if number.saturating_add(self.kept()) > Chunk::number_of(self.step_now) {
                batch.put(Table::History, chunk_key(series, number), sealed);
            }
        }
    }

    /// Reads the steps of a series from `first_step` to `last_step`, as far as they are kept. A chunk that is damaged is a gap: one of a million must not
    /// end what reads all of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(
        store: &dyn Store,
        series: Series,
        first_step: u64,
        last_step: u64,
    ) -> Result<Usage, StoreError> {
        let (from, to) = (Chunk::number_of(first_step), Chunk::number_of(last_step));
        let rows = store.range(
            Table::History,
            &chunk_key(series, from),
            &chunk_key(series, to),
        )?;
        let mut values = vec![
            None;
            usize::try_from(last_step.saturating_sub(first_step))
                .unwrap_or(0)
                .saturating_add(1)
        ];
        let mut damaged = Vec::new();
        for (key, bytes) in rows {
            let number = key
                .last_chunk::<8>()
                .map_or(0, |number| u64::from_be_bytes(*number));
            let chunk = match Chunk::decode(&bytes) {
                Ok(chunk) => chunk,
                Err(error) => {
                    let (customer, resource) = (series.customer, series.resource);
                    tracing::warn!(%error, %customer, resource, number, "64 steps of a series cannot be read, and are a gap");
                    damaged.push(number);
                    continue;
                }
            };
            let start = number.saturating_mul(CHUNK_STEPS);
            for step in start.max(first_step)..=start.saturating_add(CHUNK_STEPS - 1).min(last_step)
            {
                let position =
                    usize::try_from(step.saturating_sub(first_step)).unwrap_or(usize::MAX);
                if let Some(value) = values.get_mut(position) {
                    *value = chunk.get(step);
                }
            }
        }
        Ok(Usage {
            first_step,
            values,
            damaged,
        })
    }
}

// === impl Usage ===

impl Usage {
    /// Values and mask as the forecaster wants them: what is not stored is a zero if the step was observed and the series had
    /// begun by then, else a gap. What cannot be read is a gap too.
    #[must_use]
    pub fn with_gaps(&self, observed: impl Fn(u64) -> bool) -> (Vec<f32>, Vec<u8>) {
        let begun = self
            .values
            .iter()
            .position(Option::is_some)
            .unwrap_or(self.values.len());
        let mut mask = vec![0_u8; self.values.len().div_ceil(8)];
        for ((position, value), step) in self.values.iter().enumerate().zip(self.first_step..) {
            let is_damaged = || self.damaged.contains(&Chunk::number_of(step));
            if (value.is_some() || position >= begun && observed(step) && !is_damaged())
                && let Some(bits) = mask.get_mut(position / 8)
            {
                *bits |= 1 << (position % 8);
            }
        }
        (
            self.values
                .iter()
                .map(|value| value.unwrap_or(0.0))
                .collect(),
            mask,
        )
    }
}
