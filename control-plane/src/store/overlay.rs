//! What is durable in the log and not yet in the image, by key: readers look into it first.
//!
//! Most changes are of accounts and parts, a hundred with each sync, and nobody asks for a range of those: they are hashed. In one tree
//! for all tables every second microsecond of the journal went into comparing keys. The same rows change again and again, so a
//! value is written over the one before it. Hashed tables are many small ones: one that grows moves all its rows, which with hundreds of
//! thousands of them, and the fresh memory that they need, made a commit wait for a quarter of a second.

use super::{Batch, Change, Row, StoreError, Table, Visitor};
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound::Included;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys of accounts and parts lie in place.
type Key = SmallVec<[u8; 24]>;

/// The last change of each row.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest(BTreeMap<Table, Rows>);

/// A row that has changed: its key, and its value if it is not deleted.
pub(super) type Changed<'a> = (&'a [u8], Option<&'a [u8]>);

/// Those of one table.
#[derive(Clone, Debug)]
enum Rows {
    /// Of which ranges are asked for.
    Sorted(BTreeMap<Key, Option<Vec<u8>>>),
    /// By a byte of the key.
    Hashed(Vec<Shard>),
}

type Shard = HashMap<Key, Option<Vec<u8>>>;

/// Small tables that a large one is made of.
const SHARDS: usize = 64;

/// A table that less than this part of is used is not kept for the next rows.
const USED_LEAST: usize = 8;

/// What is durable and not in the image.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Of the current segment.
    recent: Newest,
    /// Of the segments before, on the way into the image, which may take seconds and needs no lock.
    leaving: Arc<Newest>,
    /// None, in tables that have their room: the next ones that are recent go there.
    spare: Newest,
}

// === impl Newest ===

impl Newest {
    fn insert(&mut self, (table, key, value): Change<'_>) {
        let rows = self.0.entry(table).or_insert_with(|| Rows::of(table));
        match rows.get_mut(key) {
            Some(before) => overwrite(before, value),
            None => rows.insert(key, value),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        let change = match self.0.get(&table)? {
            Rows::Sorted(rows) => rows.get(key),
            Rows::Hashed(shards) => shards.get(shard_of(key))?.get(key),
        };
        change.map(Option::as_deref)
    }

    /// Later changes take the place of earlier ones.
    fn append(&mut self, later: Self) {
        for (table, rows) in later.0 {
            match (self.0.get_mut(&table), rows) {
                (Some(Rows::Sorted(earlier)), Rows::Sorted(mut rows)) => earlier.append(&mut rows),
                (Some(Rows::Hashed(earlier)), Rows::Hashed(shards)) => {
                    for (earlier, rows) in earlier.iter_mut().zip(shards) {
                        earlier.extend(rows);
                    }
                }
                (_, rows) => {
                    self.0.insert(table, rows);
                }
            }
        }
    }

    /// Leaves none, in the same tables: fresh memory costs more than what is written into it. Tables that were far too large go. May take long,
    /// and needs no lock. False if it was left because nobody needs them any more.
    #[must_use]
    pub(super) fn empty(&mut self, is_over: &AtomicBool) -> bool {
        self.0.retain(|_, rows| matches!(rows, Rows::Hashed(_)));
        for rows in self.0.values_mut() {
            if let Rows::Hashed(shards) = rows {
                for shard in shards {
                    if is_over.load(Ordering::Relaxed) {
                        return false;
                    }
                    empty(shard);
                }
            }
        }
        true
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(|rows| match rows {
            Rows::Sorted(rows) => rows.is_empty(),
            Rows::Hashed(shards) => shards.iter().all(Shard::is_empty),
        })
    }

    /// Those of a table, by key.
    pub(super) fn of(&self, table: Table) -> Vec<Changed<'_>> {
        match self.0.get(&table) {
            None => Vec::new(),
            Some(Rows::Sorted(rows)) => rows.iter().map(borrowed).collect(),
            Some(Rows::Hashed(shards)) => {
                let mut all: Vec<_> = shards.iter().flatten().map(borrowed).collect();
                all.sort_unstable_by_key(|(key, _)| *key);
                all
            }
        }
    }

    /// Those from one key to another (inclusive), in no order.
    fn within(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<Changed<'_>> {
        match self.0.get(&table) {
            None => Vec::new(),
            Some(Rows::Sorted(rows)) => rows
                .range::<[u8], _>((Included(from), Included(to)))
                .map(borrowed)
                .collect(),
            Some(Rows::Hashed(shards)) => shards
                .iter()
                .flatten()
                .filter(|(key, _)| (from..=to).contains(&key.as_slice()))
                .map(borrowed)
                .collect(),
        }
    }
}

fn empty(shard: &mut Shard) {
    if shard.len() < shard.capacity() / USED_LEAST {
        *shard = Shard::new();
    } else {
        shard.clear();
    }
}

fn borrowed<'a>((key, change): (&'a Key, &'a Option<Vec<u8>>)) -> Changed<'a> {
    (key.as_slice(), change.as_deref())
}

/// Leaves the memory of a value for the next one.
fn overwrite(before: &mut Option<Vec<u8>>, value: Option<&[u8]>) {
    match (before, value) {
        (Some(before), Some(value)) if value.len() <= before.capacity() => {
            before.clear();
            before.extend_from_slice(value);
        }
        (before, value) => *before = value.map(<[u8]>::to_vec),
    }
}

// === impl Rows ===

impl Rows {
    fn of(table: Table) -> Self {
        if table.has_ranges() {
            Self::Sorted(BTreeMap::new())
        } else {
            Self::Hashed(vec![Shard::new(); SHARDS])
        }
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        match self {
            Self::Sorted(rows) => rows.get_mut(key),
            Self::Hashed(shards) => shards.get_mut(shard_of(key))?.get_mut(key),
        }
    }

    fn insert(&mut self, key: &[u8], value: Option<&[u8]>) {
        let (key, value) = (Key::from_slice(key), value.map(<[u8]>::to_vec));
        match self {
            Self::Sorted(rows) => rows.insert(key, value),
            Self::Hashed(shards) => shards
                .get_mut(shard_of(&key))
                .and_then(|rows| rows.insert(key, value)),
        };
    }
}

/// Keys of customers begin with a hash, and others are few.
fn shard_of(key: &[u8]) -> usize {
    usize::from(key.first().copied().unwrap_or(0)) % SHARDS
}

// === impl Overlay ===

impl Overlay {
    /// Takes in what was committed.
    pub(super) fn add(&mut self, batch: &Batch) {
        for change in batch.changes().iter() {
            self.recent.insert(change);
        }
    }

    /// What was recent is on its way, with what an earlier attempt left.
    pub(super) fn leave(&mut self) {
        let spare = std::mem::take(&mut self.spare);
        let recent = std::mem::replace(&mut self.recent, spare);
        Arc::make_mut(&mut self.leaving).append(recent);
    }

    /// Whether all changes are in the image.
    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.leaving.is_empty()
    }

    /// What is on its way.
    pub(super) fn leaving(&self) -> Arc<Newest> {
        Arc::clone(&self.leaving)
    }

    /// What was on its way has arrived. Returns it, to be [emptied](Newest::empty) and [kept](Overlay::keep).
    pub(super) fn left(&mut self) -> Newest {
        Arc::unwrap_or_clone(std::mem::take(&mut self.leaving))
    }

    /// Keeps emptied tables for the changes of the next time.
    pub(super) fn keep(&mut self, emptied: Newest) {
        self.spare = emptied;
    }

    /// The change of a row, if there is one.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.recent
            .get(table, key)
            .or_else(|| self.leaving.get(table, key))
    }

    /// The changes of a table, by key.
    pub(super) fn of(&self, table: Table) -> BTreeMap<&[u8], Option<&[u8]>> {
        let mut all: BTreeMap<_, _> = self.leaving.of(table).into_iter().collect();
        all.extend(self.recent.of(table));
        all
    }

    /// Rows of a table from one key to another (inclusive), as the changes leave them, by key.
    pub(super) fn over(&self, rows: Vec<Row>, table: Table, from: &[u8], to: &[u8]) -> Vec<Row> {
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
        let leaving = self.leaving.within(table, from, to);
        for (key, change) in leaving
            .into_iter()
            .chain(self.recent.within(table, from, to))
        {
            match change {
                Some(value) => rows.insert(key.to_vec(), value.to_vec()),
                None => rows.remove(key),
            };
        }
        rows.into_iter().collect()
    }
}

/// Rows as they are visited by key, and changes of them in the same order.
pub(super) struct Merge<I: Iterator>(Peekable<I>);

// === impl Merge ===

impl<I, K, V> Merge<I>
where
    I: Iterator<Item = (K, Option<V>)>,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    pub(super) fn of(changes: impl IntoIterator<IntoIter = I>) -> Self {
        Self(changes.into_iter().peekable())
    }

    /// Visits what changes put before a row, and the row as they leave it.
    pub(super) fn row(
        &mut self,
        key: &[u8],
        value: &[u8],
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        while let Some((new, change)) = self.0.next_if(|(new, _)| new.as_ref() < key) {
            if let Some(value) = change {
                visitor(new.as_ref(), value.as_ref())?;
            }
        }
        match self.0.next_if(|(changed, _)| changed.as_ref() == key) {
            Some((_, Some(value))) => visitor(key, value.as_ref()),
            Some((_, None)) => Ok(()),
            None => visitor(key, value),
        }
    }

    /// Visits what they put behind the last row.
    pub(super) fn rest(self, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        for (new, change) in self.0 {
            if let Some(value) = change {
                visitor(new.as_ref(), value.as_ref())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_accounts(overlay: &mut Overlay, rows: u16) {
        let mut batch = Batch::default();
        for row in 0..rows {
            batch.put(Table::Accounts, row.to_be_bytes(), [1]);
        }
        batch.put(Table::Policies, [1], [1]);
        overlay.add(&batch);
    }

    fn room(newest: &Newest) -> usize {
        match newest.0.get(&Table::Accounts) {
            Some(Rows::Hashed(shards)) => shards.iter().map(Shard::capacity).sum(),
            _ => 0,
        }
    }

    #[test]
    fn the_next_changes_go_into_the_memory_of_those_that_have_reached_the_image() {
        let mut overlay = Overlay::default();
        let mut rooms = Vec::new();
        for rows in [20_000, 20_000, 100, 100] {
            with_accounts(&mut overlay, rows);
            overlay.leave();
            let mut emptied = overlay.left();
            assert!(emptied.empty(&AtomicBool::new(false)));
            assert!(emptied.is_empty());
            rooms.push(room(&emptied));
            overlay.keep(emptied);
            assert!(overlay.is_empty());
            assert_eq!(overlay.get(Table::Accounts, &[0, 1]), None);
        }
        // The third time there were far fewer.
        assert!(
            rooms[0] >= 20_000 && rooms[1] == rooms[0] && rooms[2] == 0,
            "{rooms:?}"
        );
        overlay.leave();
        assert!(room(&overlay.recent) < 20_000, "{rooms:?}");
    }
}
