//! In which steps a gateway reported: what makes the difference between a zero and a gap.

use crate::store::StoreError;

/// One bit per step of the retention, in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    newest: u64,
    bits: Vec<u8>,
}

impl Coverage {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(retention_steps: u64) -> Self {
        let bytes = usize::try_from(retention_steps.div_ceil(8))
            .unwrap_or(0)
            .max(1);
        Self {
            newest: 0,
            bits: vec![0; bytes],
        }
    }

    fn steps(&self) -> u64 {
        (self.bits.len() as u64).saturating_mul(8)
    }

    fn place(&self, step: u64) -> (usize, u8) {
        let position = step % self.steps();
        (
            usize::try_from(position / 8).unwrap_or(0),
            1 << (position % 8),
        )
    }

    /// A gateway has reported in this step. Returns true if that is news.
    pub fn observe(&mut self, step: u64) -> bool {
        if step.saturating_add(self.steps()) <= self.newest {
            return false;
        }
        // Steps that were skipped take the places of old ones: they must read as gaps.
        let skipped_from = self
            .newest
            .saturating_add(1)
            .max(step.saturating_sub(self.steps()).saturating_add(1));
        for skipped in skipped_from..=step {
            let (byte, bit) = self.place(skipped);
            self.bits
                .get_mut(byte)
                .into_iter()
                .for_each(|bits| *bits &= !bit);
        }
        self.newest = self.newest.max(step);
        let (byte, bit) = self.place(step);
        let Some(bits) = self.bits.get_mut(byte) else {
            return false;
        };
        let news = *bits & bit == 0;
        *bits |= bit;
        news
    }

    /// The clock was set back to this step: it and all after it are still to come.
    pub fn rewind(&mut self, step: u64) {
        let first = self.newest.saturating_sub(self.steps()).saturating_add(1);
        for undone in step.max(first)..=self.newest {
            let (byte, bit) = self.place(undone);
            self.bits
                .get_mut(byte)
                .into_iter()
                .for_each(|bits| *bits &= !bit);
        }
        self.newest = self.newest.min(step.saturating_sub(1));
    }

    /// The last step in which a gateway reported; 0 when there was none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether a gateway reported in this step.
    #[must_use]
    pub fn observed(&self, step: u64) -> bool {
        if step > self.newest || step.saturating_add(self.steps()) <= self.newest {
            return false;
        }
        let (byte, bit) = self.place(step);
        self.bits.get(byte).is_some_and(|bits| bits & bit != 0)
    }

    /// The form for the store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.newest.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.bits);
        bytes
    }

    /// Reads the form of the store. With another retention than before, the past counts as not observed.
    ///
    /// # Errors
    /// When it is not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8], retention_steps: u64) -> Result<Self, StoreError> {
        let (newest, bits) = bytes
            .split_first_chunk::<8>()
            .ok_or_else(|| StoreError::Damaged {
                what: "coverage of usage history",
                reason: format!("{} bytes are too few", bytes.len()),
            })?;
        let fresh = Self::new(retention_steps);
        if bits.len() != fresh.bits.len() {
            return Ok(fresh);
        }
        Ok(Self {
            newest: u64::from_le_bytes(*newest),
            bits: bits.to_vec(),
        })
    }
}
