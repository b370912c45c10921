//! The image of the embedded store: one redb file, which takes in what the log has made durable.
//!
//! redb commits copy-on-write pages and one fsync makes a whole transaction valid, so a process that is killed, or a machine
//! that loses power, finds the last durable transaction. It also locks the file: a second server on the same data is refused.
//!
//! A new store is made under another name and renamed when it is whole. So a file of the right name without content is no creation
//! that was interrupted but a loss, and taking it for a new store would give every customer a full bucket again.
//!
//! Two habits of redb need care. After one I/O error, such as a full disk, it refuses everything until the file is opened anew,
//! so that happens here. And where the pages of a damaged file do not fit together it panics: all pages are checked when the
//! file is opened, and what still panics becomes an error.

use super::log::segments;
use super::overlay::{Changed, Newest};
use super::{Row, StoreError, Table, Visitor};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};
use std::fs::File;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// Name of the file within the data directory.
const FILE: &str = "forebay.redb";

/// Its name until it is whole.
const UNFINISHED: &str = "forebay.redb.new";

/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 64 << 20;

/// A leisurely transaction pauses after so many rows, about a millisecond's work, so that syncs need not wait for all of it.
const ROWS_TO_PAUSE: usize = 256;
/// And holds no more than this: the log waits for the disk to have written them all. With all rows in one, syncs stood still for a quarter of a
/// second.
const ROWS_AT_ONCE: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(2);

/// Whether anybody waits for a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Haste<'a> {
    /// The server starts or stops.
    Urgent,
    /// It works on, until this is set.
    Leisurely(&'a AtomicBool),
}

/// Rows in one file.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    /// `None` while the file cannot be opened anew after an error.
    database: RwLock<Option<Database>>,
}

/// One row: the segment that the log begins with.
const LOG: TableDefinition<'static, &'static [u8], u64> = TableDefinition::new("log");
const FIRST_SEGMENT: &[u8] = b"first";

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

fn read(error: impl std::fmt::Display) -> StoreError {
    StoreError::Read(error.to_string())
}

fn write(error: impl std::fmt::Display) -> StoreError {
    StoreError::Write(error.to_string())
}

impl Image {
    /// Opens the image of a data directory; creates both where they are missing.
    ///
    /// # Errors
    /// When another process has it open, or the file cannot be used.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let failed = |reason: String| StoreError::Open {
            path: path.clone(),
            reason,
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(error.to_string()))?;
        create_if_missing(directory, &path).map_err(|error| match error {
            CreateError::Io(error) => failed(error.to_string()),
            CreateError::Store(error) => error,
        })?;
        let database = open_file(&path)?;
        Ok(Self {
            path,
            database: RwLock::new(Some(database)),
        })
    }

    /// The segment that the log begins with; 0 where there has never been a log.
    pub(super) fn log_begins_with(&self) -> Result<u64, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let log = transaction.open_table(LOG).map_err(read)?;
            let first = log.get(FIRST_SEGMENT).map_err(read)?;
            Ok(first.map_or(0, |first| first.value()))
        })
    }

    /// Takes in changes and notes that it holds all of the log before a segment.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when it was left because the server does not work on any more. Else when that is not noted, or nobody knows; then
    /// it must be [opened again](Image::open_again). Some of the changes may be there: what is in the log may be written again.
    pub(super) fn take_in(
        &self,
        changes: &Newest,
        first_segment: u64,
        haste: Haste<'_>,
    ) -> Result<(), StoreError> {
        self.with(|database| write_all(database, changes, first_segment, haste))
    }

    /// Opens it again after an error. Readers wait meanwhile, so this is not done at leisure.
    pub(super) fn open_again(&self) {
        // If that fails as well, the next checkpoint tries again.
        if let Err(error) = self.reopen() {
            tracing::error!(%error, "the store cannot be opened again yet");
        }
    }

    /// The same, if that has failed before.
    pub(super) fn open_again_if_closed(&self) -> Result<(), StoreError> {
        if self.is_closed() {
            self.reopen()?;
        }
        Ok(())
    }

    /// The value of a key.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read().map_err(read)?;
            let open = transaction.open_table(definition(table)).map_err(read)?;
            let value = open.get(key).map_err(read)?;
            Ok(value.map(|value| value.value().to_vec()))
        })
    }

    /// The rows from one key to another (inclusive), by key; `from` is not behind `to`.
    pub(super) fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<Vec<Row>, StoreError> {
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

    /// Visits each row of a table, by key.
    pub(super) fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
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

    /// As after an error and a file that could not be opened again.
    #[cfg(test)]
    pub(super) fn close(&self) {
        *self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether it could not be opened again after an error.
    pub(super) fn is_closed(&self) -> bool {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }
}

#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the file, whole or not at all. The directory is locked meanwhile, so that two servers that start at once do not replace
/// each other's.
fn create_if_missing(directory: &Path, path: &Path) -> Result<(), CreateError> {
    let directory_file = File::open(directory)?;
    directory_file.lock()?;
    if path.try_exists()? {
        return Ok(());
    }
    if !segments(directory)?.is_empty() {
        return Err(StoreError::Open {
            path: path.to_owned(),
            reason: "it is missing, but the log beside it is there: restore the --data directory from a backup".to_owned(),
        }
        .into());
    }
    let unfinished = directory.join(UNFINISHED);
    // What an interrupted creation left was never opened by that name, so nothing was granted from it.
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    drop(open_with(&unfinished, |builder| {
        builder.create(&unfinished)
    })?);
    std::fs::rename(&unfinished, path)?;
    directory_file.sync_all()?;
    Ok(())
}

fn open_file(path: &Path) -> Result<Database, StoreError> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Err(StoreError::Empty {
            path: path.to_owned(),
        });
    }
    open_with(path, |builder| builder.open(path))
}

fn open_with(
    path: &Path,
    open: impl FnOnce(&Builder) -> Result<Database, DatabaseError>,
) -> Result<Database, StoreError> {
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
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let mut database = open(&builder).map_err(failed)?;
        if !database.check_integrity().map_err(failed)? {
            tracing::warn!(path = %path.display(), "the store was damaged and is repaired: what was changed last may be missing");
        }
        // Reading a table that was never written is an error in redb, so all of them are made now.
        let transaction = database.begin_write().map_err(write)?;
        for table in Table::ALL {
            transaction.open_table(definition(table)).map_err(write)?;
        }
        transaction.open_table(LOG).map_err(write)?;
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

/// In one transaction, or, where nobody waits for it, in many small ones: what they have written is in the log as well until the last one says
/// that it need not be.
fn write_all(
    database: &Database,
    changes: &Newest,
    first_segment: u64,
    haste: Haste<'_>,
) -> Result<(), StoreError> {
    if let Haste::Leisurely(is_over) = haste {
        for table in Table::ALL {
            for rows in changes.of(table).chunks(ROWS_AT_ONCE) {
                let transaction = begin(database)?;
                for rows in rows.chunks(ROWS_TO_PAUSE) {
                    if is_over.load(Ordering::Relaxed) {
                        return Err(StoreError::Stopped);
                    }
                    write_rows(&transaction, table, rows)?;
                    std::thread::sleep(PAUSE);
                }
                transaction.commit().map_err(write)?;
                std::thread::sleep(PAUSE);
            }
        }
    }
    let transaction = begin(database)?;
    if matches!(haste, Haste::Urgent) {
        for table in Table::ALL {
            write_rows(&transaction, table, &changes.of(table))?;
        }
    }
    transaction
        .open_table(LOG)
        .map_err(write)?
        .insert(FIRST_SEGMENT, first_segment)
        .map_err(write)?;
    transaction.commit().map_err(write)
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(write)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(write)?;
    Ok(transaction)
}

fn write_rows(
    transaction: &WriteTransaction,
    table: Table,
    rows: &[Changed<'_>],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut open = transaction.open_table(definition(table)).map_err(write)?;
    for (key, value) in rows {
        match value {
            Some(value) => open.insert(*key, *value).map_err(write)?,
            None => open.remove(*key).map_err(write)?,
        };
    }
    Ok(())
}
