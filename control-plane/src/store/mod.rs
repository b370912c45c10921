//! What survives: tables of small values, changed in batches that are durable before anyone is told.
//!
//! The whole working state is in memory; the store is its journal and its image at once. One trait with four verbs keeps the
//! rest of the program ignorant of the backend. A richer one (a method per entity) was the worse alternative: each backend
//! would repeat all of the domain's encodings.

mod batch;
mod embedded;
mod encoding;
mod image;
mod journal;
mod leisure;
mod log;
mod memory;
mod overlay;
mod redis;
mod start;

pub use batch::{Batch, Change, Changes};
pub use embedded::EmbeddedStore;
pub use journal::{Journal, Progress, Receipt};
pub(crate) use leisure::giving_way;
pub use memory::MemoryStore;
pub use redis::{Candidate, Lease, RedisStore, RedisUrl, Standing, doubts};
pub use start::{Start, mark_clean, open_epoch};

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Version of the files, the tables' layout and the encodings, which a start stamps the store with. Version 4 has a log in front of a file,
/// version 5 one in Redis: an older build would take no notice of it. Versions 6 and 7 have the tables of allocations and of customers' ways, which an older build
/// does not know in a log.
pub const LAYOUT_VERSION: u32 = 7;
/// The versions that this build reads.
const READABLE_LAYOUTS: RangeInclusive<u32> = 3..=LAYOUT_VERSION;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single values: layout version, clean mark, counters.
    Meta,
    /// Policy version -> document.
    Policies,
    /// Customer hash -> what the operator has said about the customer.
    Overrides,
    /// Customer hash -> account: central buckets and cumulative counters.
    Accounts,
    /// Customer hash and number of a session -> what of the account lies at its gateway.
    Parts,
    /// Customer hash, resource, chunk number -> usage per step.
    History,
    /// Model digest -> file.
    ModelFiles,
    /// Model digest -> what is known of the model.
    Models,
    /// Model epoch -> signed release.
    Releases,
    /// Gateway's name -> its session, and the incarnations that may not come back.
    Gateways,
    /// Number of an audit record -> its line.
    Audit,
    /// Allocations: the newest cycle, lines of those before it, statements of months.
    Sharing,
    /// Customer hash, resource -> what is usual for it.
    Ways,
}

/// What is done with each row.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Tables with atomic, durable batches.
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// Makes a batch durable.
    ///
    /// # Errors
    /// When nothing of the batch was made durable, or nobody knows.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Sees to it that there is room for changes of so many bytes, as far as that can be known. Asked before a large change is made in
    /// memory: from then on it must become durable, and as long as it does not fit no later one does.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`]; or when the store cannot be asked.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows from one key to another (inclusive), by key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError>;

    /// Visits each row of a table, by key, without holding them all.
    ///
    /// # Errors
    /// When the store cannot be read, or the visitor refuses a row.
    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError>;
}

/// Why the store did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the store {path} is open in another process: stop the other `forebay serve`, or give this one its own --data directory"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open the store {path}: {reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the backend says.
        reason: String,
    },
    /// The file is there and holds nothing, which we never leave behind.
    #[error(
        "the store {path} is empty: something has truncated it; restore the --data directory from a backup, or empty the directory to begin anew, without the policies, balances, models and history that it held"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error(
        "the store has layout version {found}, but this build reads versions 3 to {LAYOUT_VERSION}: run the `forebay` that wrote it, or start with an empty --data directory"
    )]
    Layout {
        /// The version found.
        found: u32,
    },
    /// It cannot be read.
    #[error("cannot read the store: {0}")]
    Read(String),
    /// It cannot be written: disk full, for example.
    #[error("cannot write to the store: {0}; changes are refused until it can be written again")]
    Write(String),
    /// A large change would not fit.
    #[error("there is no room in the store for a change that needs {bytes} bytes: {reason}")]
    NoRoom {
        /// Bytes that it needs, with what should be left for small changes.
        bytes: u64,
        /// What the backend says.
        reason: String,
    },
    /// A value is not what this program writes.
    #[error(
        "the store holds a damaged {what}: {reason}; restore the --data directory from a backup"
    )]
    Damaged {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No node that could be the store answers.
    #[error(
        "cannot reach the store: {0}; does Redis run at the nodes of --store, and are user and password right?"
    )]
    Unreachable(String),
    /// It could lose what it has taken, or does not do what is needed.
    #[error("the store cannot be used: {0}")]
    Unsuitable(String),
    /// Another process leads by now.
    #[error("another `forebay serve` leads by now, and this one may change nothing any more")]
    Fenced,
    /// It has lost what it had acknowledged.
    #[error(
        "the store has lost changes that it had acknowledged: the newest was {acknowledged}, and it knows of none after {found}"
    )]
    WentBack {
        /// The newest change that it had acknowledged.
        acknowledged: u64,
        /// The newest one that it knows of.
        found: u64,
    },
    /// It had rows, and has none any more.
    #[error(
        "the store is empty, and was not: restore it from a backup; to begin anew, without the policies, balances, models and history that it held, restart all replicas"
    )]
    Emptied,
    /// The server is stopping.
    #[error("the server is stopping: send the request again to its successor")]
    Stopped,
}

// === impl Table ===

impl Table {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Policies,
        Self::Overrides,
        Self::Accounts,
        Self::History,
        Self::ModelFiles,
        Self::Models,
        Self::Releases,
        Self::Gateways,
        Self::Parts,
        Self::Audit,
        Self::Sharing,
        Self::Ways,
    ];

    /// Whether ranges of its keys are asked for. Of the others all rows are visited, or one is read.
    #[must_use]
    pub const fn has_ranges(self) -> bool {
        matches!(self, Self::History | Self::Audit | Self::Sharing)
    }

    /// The number in a log, which means the same table for ever.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Policies => 2,
            Self::Overrides => 3,
            Self::Accounts => 4,
            Self::Parts => 5,
            Self::History => 6,
            Self::ModelFiles => 7,
            Self::Models => 8,
            Self::Releases => 9,
            Self::Gateways => 10,
            Self::Audit => 11,
            Self::Sharing => 12,
            Self::Ways => 13,
        }
    }

    /// The name in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Policies => "policies",
            Self::Overrides => "overrides",
            Self::Accounts => "accounts",
            Self::History => "history",
            Self::ModelFiles => "model_files",
            Self::Models => "models",
            Self::Releases => "releases",
            Self::Gateways => "gateways",
            Self::Parts => "parts",
            Self::Audit => "audit",
            Self::Sharing => "sharing",
            Self::Ways => "ways",
        }
    }
}

#[cfg(test)]
mod tests;
