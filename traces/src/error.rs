//! What can be wrong with a trace file; each message names the file, the place and the way out.

use std::path::PathBuf;

/// A trace file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason the system gives.
        source: std::io::Error,
    },
    /// What is no regular file: opening a pipe is waiting for whoever writes to it.
    #[error(
        "{path}: it is no file but a folder, a pipe, a socket or a device: write what it holds into a file first"
    )]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// A CSV file in which nothing is written.
    #[error(
        "{path}: the file is empty, without even a heading: its first line must name the columns, such as tenant,timestamp_utc,requests"
    )]
    NoHeading {
        /// The file.
        path: PathBuf,
    },
    /// Nobody knows which of two columns is meant.
    #[error("{path}: two columns `{column}`: leave one of them out, or name it otherwise")]
    DuplicateColumn {
        /// The file.
        path: PathBuf,
        /// Their name.
        column: String,
    },
    /// The name ends neither in .parquet nor in .csv.
    #[error("{path}: unknown kind of trace; the name must end in .parquet or .csv")]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or is not what its name says.
    #[error("{path}: not a readable {kind} file: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// "Parquet" or "CSV".
        kind: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A column is missing.
    #[error("{path}: no column `{column}`; the file has {present}")]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column that was looked for.
        column: String,
        /// The columns that are there.
        present: String,
    },
    /// A column has a type that cannot hold what it should.
    #[error("{path}: column `{column}` is {found}, expected {expected}")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type in the file.
        found: String,
        /// The types that are understood.
        expected: &'static str,
    },
    /// One cell cannot be used.
    #[error("{path}: row {row}{}, column `{column}`: {reason}", line.map_or(String::new(), |line| format!(" (line {line})")))]
    BadCell {
        /// The file.
        path: PathBuf,
        /// Row number; the first row of data is 1, the heading of a CSV file is not counted.
        row: u64,
        /// Where the row begins in a text file; the first line is 1.
        line: Option<u64>,
        /// The column.
        column: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The options ask for something impossible.
    #[error("{path}: {reason}")]
    Options {
        /// The file that was to be read.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No row at all.
    #[error("{path}: the file has no rows")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The step could not be found from the stamps.
    #[error(
        "{path}: no tenant has two different stamps, so the step is unknown; say it with --step-s"
    )]
    NoStep {
        /// The file.
        path: PathBuf,
    },
    /// Stamps are closer than a second: events, not buckets.
    #[error(
        "{path}: the usual distance of two stamps is {step_ns} ns, which is no whole number of seconds; for a file of events give --step-s, --join sum and --fill-zero"
    )]
    OddStep {
        /// The file.
        path: PathBuf,
        /// The distance found.
        step_ns: i64,
    },
    /// A series would be absurdly long.
    #[error(
        "{path}: tenant `{tenant}` spans {steps} steps of {step_s} s, more than the limit of {limit}; is a stamp wrong, or the step too short?"
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The tenant.
        tenant: String,
        /// Steps from its first to its last stamp.
        steps: u64,
        /// Length of a step, in seconds.
        step_s: u32,
        /// The limit.
        limit: u64,
    },
    /// More rows or tenants than the reader takes.
    #[error("{path}: more than {limit} {what}; split the file")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// "rows" or "tenants".
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}
