//! Who this gateway is to the control plane, across restarts of this plugin's VM and whichever of several VMs leads.
//!
//! The control plane takes a new incarnation for an Envoy that lost its ledger and refills from nothing. A trap of this VM loses our
//! memory but not the ledger: so incarnation and sequence live in shared data, beside the ledger, and die exactly when it dies.
//!
//! A forecaster writes its own number with them when it starts. One that stood still while it was replaced, in the middle of a tick where
//! its lease says nothing more, then finds another number than its own, and its sync is not sent: it would take a sequence of its
//! successor's, and report what was true before.

use forebay_core::limits::MAX_CAS_ATTEMPTS;

use crate::host::{Cas, Host, StoreError};

const KEY: &str = "fb/1/gateway";
const BYTES: usize = 24;

/// A compare-and-swap number that no value has: it creates what is missing and overwrites nothing.
const OF_NO_VALUE: Cas = Cas::MAX;

/// Incarnation of the ledger and the number of the last sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    incarnation: u64,
    sequence: u64,
    owner: u64,
    is_superseded: bool,
}

// === impl Identity ===

impl Identity {
    /// The identity beside the ledger, now of `owner` alone; a new one when there is none. `random` tells apart two gateways born in one
    /// millisecond.
    pub fn take(host: &impl Host, random: u64, owner: u64) -> Self {
        // Growing with time, so that the control plane can tell a successor from a straggler.
        let incarnation = host.wall_ms().wrapping_shl(20) | (random & 0xf_ffff);
        let mut identity = Self {
            incarnation,
            sequence: 0,
            owner,
            is_superseded: false,
        };
        for _ in 0..MAX_CAS_ATTEMPTS {
            let (stored, cas) = stored(host);
            if let Some(stored) = stored {
                identity.incarnation = stored.incarnation;
                identity.sequence = stored.sequence;
            }
            // A refused write costs a new incarnation after a trap: it loses, it creates nothing.
            if identity.store(host, cas) != Err(StoreError::Conflict) {
                break;
            }
        }
        identity
    }

    /// The ledger was seeded anew while this VM lived: what had been granted is gone, and the control plane must know.
    pub fn renew(&mut self, host: &impl Host) {
        self.incarnation = host
            .wall_ms()
            .wrapping_shl(20)
            .max(self.incarnation.wrapping_add(1));
        self.sequence = 0;
        self.store_as_owner(host);
    }

    /// The number of the next sync, noted before it is sent: a number is never used twice. `None` when another forecaster sends them.
    pub fn next_sequence(&mut self, host: &impl Host) -> Option<u64> {
        self.sequence = self.sequence.saturating_add(1);
        self.store_as_owner(host);
        (!self.is_superseded).then_some(self.sequence)
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

    /// Whether another forecaster has taken it.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    fn store_as_owner(&mut self, host: &impl Host) {
        for _ in 0..MAX_CAS_ATTEMPTS {
            let (stored, cas) = stored(host);
            if stored.is_some_and(|stored| stored.owner != self.owner) {
                break;
            }
            if self.store(host, cas) != Err(StoreError::Conflict) {
                return;
            }
        }
        self.is_superseded = true;
    }

    fn store(&self, host: &impl Host, cas: Cas) -> Result<(), StoreError> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&self.incarnation.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.owner.to_le_bytes());
        host.set_shared_data(KEY, &bytes, Some(cas))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (incarnation, rest) = bytes.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (owner, rest) = rest.split_first_chunk::<8>()?;
        rest.is_empty().then(|| Self {
            incarnation: u64::from_le_bytes(*incarnation),
            sequence: u64::from_le_bytes(*sequence),
            owner: u64::from_le_bytes(*owner),
            is_superseded: false,
        })
    }
}

/// What is stored, if it can be read, and the number to write in its place with.
fn stored(host: &impl Host) -> (Option<Identity>, Cas) {
    match host.shared_data(KEY) {
        Some((bytes, cas)) => (Identity::decode(&bytes), cas),
        None => (None, OF_NO_VALUE),
    }
}
