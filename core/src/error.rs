//! What can go wrong in the core: bytes that are not what they should be, and an exchange that found no quiet moment.

use thiserror::Error;

/// Why the core could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoreError {
    /// A blob ends before its last field.
    #[error(
        "{what}: the blob ends after {had} bytes, but {needed} are needed: it was cut off or written by another version"
    )]
    Truncated {
        /// Which blob.
        what: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes there.
        had: usize,
    },
    /// A blob goes on after its last field.
    #[error(
        "{what}: {extra} bytes follow the last field: it was damaged or written by another version"
    )]
    TrailingBytes {
        /// Which blob.
        what: &'static str,
        /// Bytes too many.
        extra: usize,
    },
    /// A blob starts with the wrong mark.
    #[error(
        "{what}: does not start with its mark: another program may use the same shared-data key"
    )]
    WrongMark {
        /// Which blob.
        what: &'static str,
    },
    /// A blob was written by another layout version.
    #[error(
        "{what}: layout version {found}, but this build knows version {known}: let the ledger be seeded again"
    )]
    WrongVersion {
        /// Which blob.
        what: &'static str,
        /// Version in the blob.
        found: u8,
        /// Version of this build.
        known: u8,
    },
    /// A field holds a value outside its bounds.
    #[error("{what}: {field} is {found}, allowed is {allowed}")]
    OutOfBounds {
        /// Which blob or table.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// The value.
        found: u64,
        /// The bounds, in words.
        allowed: &'static str,
    },
    /// A name is empty, too long or not UTF-8.
    #[error("{what}: the name at row {row} must be 1 to 64 bytes of UTF-8")]
    BadName {
        /// Which table.
        what: &'static str,
        /// Row in the table.
        row: usize,
    },
    /// Two rows of a table have the same name.
    #[error("{what}: the name `{name}` occurs twice")]
    DuplicateName {
        /// Which table.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A blob that was seeded at configure time is not there.
    #[error(
        "shared data has no value for {key}: the ledger was not seeded, or its last user has gone"
    )]
    NotSeeded {
        /// The shared-data key.
        key: String,
    },
    /// Other workers changed the value at each attempt.
    #[error(
        "gave up on {key} after {attempts} compare-and-swap attempts: too many workers change it at once"
    )]
    Contended {
        /// The shared-data key.
        key: String,
        /// Attempts made.
        attempts: u32,
    },
    /// The host refused a shared-data call.
    #[error("the host refused access to shared data {key} (status {status})")]
    Host {
        /// The shared-data key.
        key: String,
        /// The host's status code.
        status: u32,
    },
    /// A page has no room for another customer and none that may be evicted.
    #[error(
        "page {key} is full and holds only customers that may not be evicted: configure a larger ledger"
    )]
    PageFull {
        /// The shared-data key.
        key: String,
    },
}
