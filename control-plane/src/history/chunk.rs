//! 64 steps of one series.

use crate::store::StoreError;

/// Steps in a chunk: one bit each in a machine word.
pub const CHUNK_STEPS: u64 = 64;

/// Usage of 64 steps and which of them were stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    stored: u64,
    values: [f32; CHUNK_STEPS as usize],
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            stored: 0,
            values: [0.0; CHUNK_STEPS as usize],
        }
    }
}

impl Chunk {
    /// The number of the chunk that a step is in.
    #[must_use]
    pub fn number_of(step: u64) -> u64 {
        step / CHUNK_STEPS
    }

    /// Stores the usage of a step.
    pub fn set(&mut self, step: u64, usage: f32) {
        let position = step % CHUNK_STEPS;
        self.stored |= 1 << position;
        if let Some(value) = self.values.get_mut(usize::try_from(position).unwrap_or(0)) {
            *value = usage;
        }
    }

    /// The usage of a step, if it was stored.
    #[must_use]
    pub fn get(&self, step: u64) -> Option<f32> {
        let position = step % CHUNK_STEPS;
        let stored = self.stored & (1 << position) != 0;
        let value = self.values.get(usize::try_from(position).ok()?).copied();
        value.filter(|_| stored)
    }

    /// The form for the store: the mask, then the stored values only.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.stored.to_le_bytes().to_vec();
        for (position, value) in self.values.iter().enumerate() {
            if self.stored & (1 << position) != 0 {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads the form of the store.
    ///
    /// # Errors
    /// When it is not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged {
            what: "chunk of usage history",
            reason: format!("{} bytes do not fit its mask", bytes.len()),
        };
        let (stored, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let stored = u64::from_le_bytes(*stored);
        let (values, tail) = rest.as_chunks::<4>();
        if !tail.is_empty() || values.len() != stored.count_ones() as usize {
            return Err(damaged());
        }
        let mut chunk = Self {
            stored,
            ..Self::default()
        };
        let places = chunk
            .values
            .iter_mut()
            .enumerate()
            .filter(|(position, _)| stored & (1 << position) != 0);
        for ((_, place), value) in places.zip(values) {
            *place = f32::from_le_bytes(*value);
        }
        Ok(chunk)
    }
}
