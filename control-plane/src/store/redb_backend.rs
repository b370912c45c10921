//! The embedded store: one redb file.
//!
//! redb commits copy-on-write pages and one fsync makes a whole transaction valid, so a process that is killed, or a machine
//! that loses power, finds the last durable transaction. It also locks the file: a second server on the same data is refused.

use super::{Batch, Row, Store, StoreError, Table, Visitor};
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;

/// Name of the file within the data directory.
const FILE: &str = "forebay.redb";

/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 64 << 20;

/// A store in one file.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn read(error: impl std::fmt::Display) -> StoreError {
    StoreError::Read(error.to_string())
}

fn write(error: impl std::fmt::Display) -> StoreError {
    StoreError::Write(error.to_string())
}

impl RedbStore {
    /// Opens the store of a data directory; creates both where they are missing.
    ///
    /// # Errors
    /// When another process has it open, or the file cannot be used.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let failed = |reason: String| StoreError::Open {
            path: path.clone(),
            reason,
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.to_string()))?;
        let database = match Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&path)
        {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse { path }),
            Err(error) => return Err(failed(error.to_string())),
        };
        // Reading a table that was never written is an error in redb, so all of them are made now.
        let transaction = database.begin_write().map_err(write)?;
        for table in Table::ALL {
            transaction.open_table(definition(table)).map_err(write)?;
        }
        transaction.commit().map_err(write)?;
        Ok(Self { database })
    }
}

impl Store for RedbStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write().map_err(write)?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(write)?;
        for table in Table::ALL {
            let mut changes = batch
                .changes()
                .iter()
                .filter(|(of, _, _)| *of == table)
                .peekable();
            if changes.peek().is_none() {
                continue;
            }
            let mut open = transaction.open_table(definition(table)).map_err(write)?;
            for (_, key, value) in changes {
                match value {
                    Some(value) => open
                        .insert(key.as_slice(), value.as_slice())
                        .map_err(write)?,
                    None => open.remove(key.as_slice()).map_err(write)?,
                };
            }
        }
        transaction.commit().map_err(write)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database.begin_read().map_err(read)?;
        let open = transaction.open_table(definition(table)).map_err(read)?;
        let value = open.get(key).map_err(read)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let transaction = self.database.begin_read().map_err(read)?;
        let open = transaction.open_table(definition(table)).map_err(read)?;
        let rows = open.range(from..=to).map_err(read)?;
        rows.map(|row| {
            row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
                .map_err(read)
        })
        .collect()
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        let transaction = self.database.begin_read().map_err(read)?;
        let open = transaction.open_table(definition(table)).map_err(read)?;
        for row in open.iter().map_err(read)? {
            let (key, value) = row.map_err(read)?;
            visitor(key.value(), value.value())?;
        }
        Ok(())
    }
}
