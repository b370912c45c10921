//! Who this gateway is to the control plane, across restarts of this plugin's VM.
//!
//! The control plane takes a new incarnation for an Envoy that lost its ledger and refills from nothing. A trap of this VM loses our
//! memory but not the ledger: so incarnation and sequence live in shared data, beside the ledger, and die exactly when it dies.

use crate::host::Host;

const KEY: &str = "fb/1/gateway";
const BYTES: usize = 16;

/// Incarnation of the ledger and the number of the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    incarnation: u64,
    sequence: u64,
}

// === impl Identity ===

impl Identity {
    /// The identity beside the ledger; a new one when there is none. `random` tells apart two gateways born in one millisecond.
    pub fn load_or_create(host: &impl Host, random: u64) -> Self {
        let stored = host
            .shared_data(KEY)
            .and_then(|(bytes, _)| Self::decode(&bytes));
        stored.unwrap_or_else(|| {
            // Growing with time, so that the control plane can tell a successor from a straggler.
            let incarnation = host.wall_ms().wrapping_shl(20) | (random & 0xf_ffff);
            let identity = Self {
                incarnation,
                sequence: 0,
            };
            identity.store(host);
            identity
        })
    }

    /// The ledger was seeded anew while this VM lived: what had been granted is gone, and the control plane must know.
    pub fn renew(&mut self, host: &impl Host) {
        self.incarnation = host
            .wall_ms()
            .wrapping_shl(20)
            .max(self.incarnation.wrapping_add(1));
        self.sequence = 0;
        self.store(host);
    }

    /// The number of the next sync, noted before it is sent: a number is never used twice.
    pub fn next_sequence(&mut self, host: &impl Host) -> u64 {
        self.sequence = self.sequence.saturating_add(1);
        self.store(host);
        self.sequence
    }

    /// The number of the last sync of this incarnation.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// Changes when, and only when, the ledger was lost.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn store(&self, host: &impl Host) {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        // This plugin is the only writer of the key. A refused write costs a new incarnation after a trap: it loses, it creates nothing.
        let _refused = host.set_shared_data(KEY, &bytes, None);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        rest.is_empty().then(|| Self {
            incarnation: u64::from_le_bytes(*incarnation),
            sequence: u64::from_le_bytes(*sequence),
        })
    }
}
