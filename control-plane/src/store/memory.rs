//! The store that forgets: for tests of everything above it, and with a switch that makes the disk full.

use super::{Batch, Row, Store, StoreError, Table, Visitor};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
    full: AtomicBool,
}

impl MemoryStore {
    /// From now on (or no longer) every commit fails.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Rows) -> T) -> T {
        work(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Write("no space left".to_owned()));
        }
        self.with(|rows| {
            for (table, key, value) in batch.changes().iter() {
                match value {
                    Some(value) => rows.insert((table, key.to_vec()), value.to_vec()),
                    None => rows.remove(&(table, key.to_vec())),
                };
            }
        });
        Ok(())
    }

    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            let reason = "no space left".to_owned();
            return Err(StoreError::NoRoom { bytes, reason });
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|rows| rows.get(&(table, key.to_vec())).cloned()))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        let (from, to) = ((table, from.to_vec()), (table, to.to_vec()));
        if from > to {
            return Ok(Vec::new());
        }
        Ok(self.with(|rows| {
            rows.range(from..=to)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect()
        }))
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        let rows: Vec<Row> = self.with(|rows| {
            let of_table = rows
                .range((table, Vec::new())..)
                .take_while(|((other, _), _)| *other == table);
            of_table
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect()
        });
        rows.iter().try_for_each(|(key, value)| visitor(key, value))
    }
}
