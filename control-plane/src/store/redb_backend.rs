//! The embedded store: one redb file.
//!
//! redb commits copy-on-write pages and one fsync makes a whole transaction valid, so a process that is killed, or a machine
//! that loses power, finds the last durable transaction. It also locks the file: a second server on the same data is refused.
//!
//! Two habits of redb need care. After one I/O error, such as a full disk, it refuses everything until the file is opened anew,
//! so that happens here. And where the pages of a damaged file do not fit together it panics: all pages are checked when the
//! file is opened, and what still panics becomes an error.

use super::{Batch, Row, Store, StoreError, Table, Visitor};
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Name of the file within the data directory.
const FILE: &str = "forebay.redb";

/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 64 << 20;

/// A store in one file.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    /// `None` while the file cannot be opened anew after an error.
    database: RwLock<Option<Database>>,
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
        let database = open_file(&path)?;
        Ok(Self {
            path,
            database: RwLock::new(Some(database)),
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*database {
            Some(database) => guarded(|| work(database)),
            None => Err(read("it could not be opened again after an error")),
        }
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // redb locks the file, so the old one goes first.
        *database = None;
        *database = Some(open_file(&self.path)?);
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    let failed = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.to_owned(),
        },
        error => StoreError::Open {
            path: path.to_owned(),
            reason: error.to_string(),
        },
    };
    guarded(|| {
        let mut database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(failed)?;
        if !database.check_integrity().map_err(failed)? {
            tracing::warn!(path = %path.display(), "the store was damaged and is repaired: what was changed last may be missing");
        }
        // Reading a table that was never written is an error in redb, so all of them are made now.
        let transaction = database.begin_write().map_err(write)?;
        for table in Table::ALL {
            transaction.open_table(definition(table)).map_err(write)?;
        }
        transaction.commit().map_err(write)?;
        Ok(database)
    })
}

fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::Damaged {
            what: "file",
            reason: "its pages do not fit together".to_owned(),
        })
    })
}

fn write_all(database: &Database, batch: &Batch) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(write)?;
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

impl Store for RedbStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if self.is_closed() {
            self.reopen()?;
        }
        let result = self.with(|database| write_all(database, batch));
        // If that fails as well, the next commit tries again.
        if result.is_err()
            && let Err(error) = self.reopen()
        {
            tracing::error!(%error, "the store cannot be opened again yet");
        }
        result
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let open = transaction.open_table(definition(table)).map_err(read)?;
            let value = open.get(key).map_err(read)?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let open = transaction.open_table(definition(table)).map_err(read)?;
            let rows = open.range(from..=to).map_err(read)?;
            rows.map(|row| {
                row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
                    .map_err(read)
            })
            .collect()
        })
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let open = transaction.open_table(definition(table)).map_err(read)?;
            for row in open.iter().map_err(read)? {
                let (key, value) = row.map_err(read)?;
                visitor(key.value(), value.value())?;
            }
            Ok(())
        })
    }
}
