//! What is durable in the log and not yet in the image, by key: readers look into it first.

use super::{Batch, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The last change of each row.
pub(super) type Changes = BTreeMap<(Table, Bytes), Option<Bytes>>;

/// What is durable and not in the image.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Of the current segment.
    recent: Changes,
    /// Of the segments before, on the way into the image, which may take seconds and needs no lock.
    leaving: Arc<Changes>,
}

// === impl Overlay ===

impl Overlay {
    /// Takes in what was committed.
    pub(super) fn add(&mut self, batch: &Batch) {
        for (table, key, value) in batch.changes() {
            self.recent.insert((*table, key.clone()), value.clone());
        }
    }

    /// What was recent is on its way, with what an earlier attempt left.
    pub(super) fn leave(&mut self) {
        let mut recent = std::mem::take(&mut self.recent);
        Arc::make_mut(&mut self.leaving).append(&mut recent);
    }

    /// What is on its way.
    pub(super) fn leaving(&self) -> Arc<Changes> {
        Arc::clone(&self.leaving)
    }

    /// What was on its way has arrived. Returns it, to be dropped.
    pub(super) fn left(&mut self) -> Arc<Changes> {
        std::mem::take(&mut self.leaving)
    }

    /// The change of a row, if there is one.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        let key = (table, Bytes::copy_from_slice(key));
        self.recent.get(&key).or_else(|| self.leaving.get(&key))
    }

    /// The changes of a table, by key.
    pub(super) fn of(&self, table: Table) -> BTreeMap<&[u8], Option<&Bytes>> {
        let mut all: BTreeMap<_, _> = rows_of(&self.leaving, table).collect();
        all.extend(rows_of(&self.recent, table));
        all
    }

    /// The changes of a table from one key to another (inclusive): the later ones of a key last.
    pub(super) fn within(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        let key = |key: &[u8]| (table, Bytes::copy_from_slice(key));
        let bounds = key(from)..=key(to);
        [&*self.leaving, &self.recent]
            .into_iter()
            .flat_map(move |changes| changes.range(bounds.clone()))
            .map(|((_, key), change)| (key.as_ref(), change.as_ref()))
    }
}

/// The changes of a table among others, by key.
pub(super) fn rows_of(
    changes: &Changes,
    table: Table,
) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
    changes
        .range((table, Bytes::new())..)
        .take_while(move |((other, _), _)| *other == table)
        .map(|((_, key), change)| (key.as_ref(), change.as_ref()))
}
