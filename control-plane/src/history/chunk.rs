//! 64 steps of one series.
//!
//! A chunk that is being written is stored as it is, because it is written again with each step. One that is over is *sealed*: its values are
//! compressed without loss, which makes counts take a third of the room. Longer chunks would take a quarter, and each step of each customer
//! would write as much more.

use crate::store::StoreError;
use pco::ChunkConfig;
use pco::standalone::{simple_compress, simple_decompress_into};

/// Steps in a chunk: one bit each in a machine word.
pub const CHUNK_STEPS: u64 = 64;
const MASK_BYTES: usize = 8;

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
        for value in self.stored_values() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// The form of a chunk that is over: the mask, then the stored values compressed, if that makes them shorter. By its length a
    /// reader knows which form it is.
    #[must_use]
    pub fn seal(&self) -> Vec<u8> {
        let plain = self.encode();
        let values: Vec<f32> = self.stored_values().collect();
        match simple_compress(&values, &ChunkConfig::default()) {
            Ok(compressed) if MASK_BYTES.saturating_add(compressed.len()) < plain.len() => {
                [&self.stored.to_le_bytes()[..], &compressed].concat()
            }
            _ => plain,
        }
    }

    fn stored_values(&self) -> impl Iterator<Item = f32> {
        let values = self.values.iter().copied().enumerate();
        values
            .filter(|(position, _)| self.stored & (1 << position) != 0)
            .map(|(_, value)| value)
    }

    /// Reads the form of the store.
    ///
    /// # Errors
    /// When it is neither what [`Self::encode`] nor what [`Self::seal`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged {
            what: "chunk of usage history",
            reason: format!("{} bytes do not fit its mask", bytes.len()),
        };
        let (stored, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let stored = u64::from_le_bytes(*stored);
        let mut room = [0.0; CHUNK_STEPS as usize];
        let values = room
            .get_mut(..stored.count_ones() as usize)
            .ok_or_else(damaged)?;
        let (plain, tail) = rest.as_chunks::<4>();
        if tail.is_empty() && plain.len() == values.len() {
            for (value, bytes) in values.iter_mut().zip(plain) {
                *value = f32::from_le_bytes(*bytes);
            }
        } else {
            let read = simple_decompress_into(rest, values).map_err(|_| damaged())?;
            if !read.finished || read.n_processed != values.len() {
                return Err(damaged());
            }
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
            *place = *value;
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk() -> impl Strategy<Value = Chunk> {
        let value = prop_oneof![
            4 => (0_u16..500).prop_map(f32::from),
            1 => any::<u32>().prop_map(f32::from_bits),
        ];
        prop::collection::vec(prop::option::weighted(0.9, value), 64).prop_map(|values| {
            let mut chunk = Chunk::default();
            for (step, value) in (0..).zip(values) {
                if let Some(value) = value {
                    chunk.set(step, value);
                }
            }
            chunk
        })
    }

    /// Bit by bit: not even a NaN is changed.
    fn bits(chunk: &Chunk) -> Vec<Option<u32>> {
        (0..CHUNK_STEPS)
            .map(|step| chunk.get(step).map(f32::to_bits))
            .collect()
    }

    proptest! {
        #[test]
        fn both_forms_read_back_as_they_were(chunk in chunk()) {
            prop_assert_eq!(bits(&Chunk::decode(&chunk.encode()).unwrap()), bits(&chunk));
            prop_assert_eq!(bits(&Chunk::decode(&chunk.seal()).unwrap()), bits(&chunk));
        }

        /// It is an error or some other chunk, and never a panic.
        #[test]
        fn bytes_that_nobody_wrote_do_no_harm(
            chunk in chunk(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = chunk.seal();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = Chunk::decode(&bytes) {
                prop_assert_eq!(read.stored.count_ones() as usize, bits(&read).iter().flatten().count());
            }
            bytes.truncate(cut.index(bytes.len()));
            let _whatever = Chunk::decode(&bytes);
        }
    }

    #[test]
    fn counts_take_less_than_half_of_the_room_when_a_chunk_is_over() {
        let mut chunk = Chunk::default();
        for step in 0..CHUNK_STEPS {
            chunk.set(step, f32::from(u16::try_from(step * 37 % 101).unwrap()));
        }
        let (open, sealed) = (chunk.encode().len(), chunk.seal().len());
        assert!(sealed * 2 < open, "{sealed} of {open} bytes");
    }
}
