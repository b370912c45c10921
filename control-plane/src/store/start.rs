//! How the last run ended, which decides what balances are worth.
//!
//! After a clean stop the tables say everything. After any other end, what was granted since the last durable batch is known
//! only to the gateways. So the store carries a mark that is true only between a clean stop and the next start, and an epoch
//! that grows with each start that does not find it.

use super::{Batch, LAYOUT_VERSION, READABLE_LAYOUTS, Store, StoreError, Table};

pub(super) const LAYOUT: &[u8] = b"layout";
pub(super) const CLEAN: &[u8] = b"clean";
const EPOCH: &[u8] = b"store_epoch";

/// What the store was like when this run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There was no store: no token was ever granted from it.
    New,
    /// The last run stopped properly.
    Clean {
        /// Epoch of the store.
        epoch: u64,
    },
    /// The last run was killed.
    Unclean {
        /// Epoch of the store, higher than before.
        epoch: u64,
    },
}

// === impl Start ===

impl Start {
    /// Epoch of the store.
    #[must_use]
    pub fn epoch(self) -> u64 {
        match self {
            Self::New => 1,
            Self::Clean { epoch } | Self::Unclean { epoch } => epoch,
        }
    }
}

/// Reads how the last run ended, and marks this one as running.
///
/// # Errors
/// When the store was written by another version, is damaged, or cannot be read or written.
pub fn open_epoch(store: &dyn Store) -> Result<Start, StoreError> {
    let start = match store.get(Table::Meta, LAYOUT)? {
        None => Start::New,
        Some(layout) => {
            check_layout(&layout)?;
            let epoch = store.get(Table::Meta, EPOCH)?.unwrap_or_default();
            let epoch = u64::from_le_bytes(fixed("store epoch", &epoch)?);
            if store.get(Table::Meta, CLEAN)?.is_some() {
                Start::Clean { epoch }
            } else {
                Start::Unclean {
                    epoch: epoch.saturating_add(1),
                }
            }
        }
    };
    let mut batch = stamp();
    batch.put(Table::Meta, EPOCH, start.epoch().to_le_bytes());
    batch.delete(Table::Meta, CLEAN);
    store.commit(&batch)?;
    Ok(start)
}

/// Refuses a layout that this build does not read.
pub(super) fn check_layout(layout: &[u8]) -> Result<(), StoreError> {
    let found = u32::from_le_bytes(fixed("layout version", layout)?);
    if READABLE_LAYOUTS.contains(&found) {
        Ok(())
    } else {
        Err(StoreError::Layout { found })
    }
}

/// Writes the version of this build.
pub(super) fn stamp() -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Meta, LAYOUT, LAYOUT_VERSION.to_le_bytes());
    batch
}

/// Adds the mark of a clean stop to the last batch of a run.
pub fn mark_clean(batch: &mut Batch) {
    batch.put(Table::Meta, CLEAN, [1]);
}

fn fixed<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged {
        what,
        reason: format!("{} bytes instead of {N}", bytes.len()),
    })
}
