//! What is durable in the log and not yet in the image, by key: readers look into it first.
//!
//! Most changes are of accounts and parts, a hundred with each sync, and nobody asks for a range of those: they are hashed. In one tree
//! for all tables every second microsecond of the journal went into comparing keys.

use super::{Batch, Table};
use bytes::Bytes;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::ops::Bound::Included;
use std::sync::Arc;

/// The last change of each row.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(BTreeMap<Table, Rows>);

/// Those of one table.
#[derive(Clone, Debug)]
enum Rows {
    /// Of which ranges are asked for.
    Sorted(BTreeMap<Bytes, Option<Bytes>>),
    Hashed(HashMap<Bytes, Option<Bytes>>),
}

/// What is durable and not in the image.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Of the current segment.
    recent: Changes,
    /// Of the segments before, on the way into the image, which may take seconds and needs no lock.
    leaving: Arc<Changes>,
}

// === impl Changes ===

impl Changes {
    fn insert(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        match self.0.entry(table).or_insert_with(|| Rows::of(table)) {
            Rows::Sorted(rows) => rows.insert(key, value),
            Rows::Hashed(rows) => rows.insert(key, value),
        };
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        match self.0.get(&table)? {
            Rows::Sorted(rows) => rows.get(key),
            Rows::Hashed(rows) => rows.get(key),
        }
    }

    /// Later changes take the place of earlier ones.
    fn append(&mut self, later: Self) {
        for (table, rows) in later.0 {
            match (self.0.get_mut(&table), rows) {
                (Some(Rows::Sorted(earlier)), Rows::Sorted(mut rows)) => earlier.append(&mut rows),
                (Some(Rows::Hashed(earlier)), Rows::Hashed(rows)) => earlier.extend(rows),
                (_, rows) => {
                    self.0.insert(table, rows);
                }
            }
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a table, by key.
    pub(super) fn of(&self, table: Table) -> Vec<(&[u8], Option<&Bytes>)> {
        match self.0.get(&table) {
            None => Vec::new(),
            Some(Rows::Sorted(rows)) => rows.iter().map(borrowed).collect(),
            Some(Rows::Hashed(rows)) => {
                let mut all: Vec<_> = rows.iter().map(borrowed).collect();
                all.sort_unstable_by_key(|(key, _)| *key);
                all
            }
        }
    }

    /// Those from one key to another (inclusive), in no order.
    fn within(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<(&[u8], Option<&Bytes>)> {
        match self.0.get(&table) {
            None => Vec::new(),
            Some(Rows::Sorted(rows)) => rows
                .range::<[u8], _>((Included(from), Included(to)))
                .map(borrowed)
                .collect(),
            Some(Rows::Hashed(rows)) => rows
                .iter()
                .filter(|(key, _)| (from..=to).contains(&key.as_ref()))
                .map(borrowed)
                .collect(),
        }
    }
}

fn borrowed<'a>((key, change): (&'a Bytes, &'a Option<Bytes>)) -> (&'a [u8], Option<&'a Bytes>) {
    (key.as_ref(), change.as_ref())
}

// === impl Rows ===

impl Rows {
    fn of(table: Table) -> Self {
        if table.has_ranges() {
            Self::Sorted(BTreeMap::new())
        } else {
            Self::Hashed(HashMap::new())
        }
    }
}

// === impl Overlay ===

impl Overlay {
    /// Takes in what was committed.
    pub(super) fn add(&mut self, batch: &Batch) {
        for (table, key, value) in batch.changes() {
            self.recent.insert(*table, key.clone(), value.clone());
        }
    }

    /// What was recent is on its way, with what an earlier attempt left.
    pub(super) fn leave(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        Arc::make_mut(&mut self.leaving).append(recent);
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
        self.recent
            .get(table, key)
            .or_else(|| self.leaving.get(table, key))
    }

    /// The changes of a table, by key.
    pub(super) fn of(&self, table: Table) -> BTreeMap<&[u8], Option<&Bytes>> {
        let mut all: BTreeMap<_, _> = self.leaving.of(table).into_iter().collect();
        all.extend(self.recent.of(table));
        all
    }

    /// The changes of a table from one key to another (inclusive): the later ones of a key last.
    pub(super) fn within(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&[u8], Option<&Bytes>)> {
        let leaving = self.leaving.within(table, from, to);
        leaving
            .into_iter()
            .chain(self.recent.within(table, from, to))
    }
}
