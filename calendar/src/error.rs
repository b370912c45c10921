//! What can be wrong with a calendar.

use std::path::PathBuf;

/// A calendar that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// The file itself.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ending says nothing known.
    #[error("{} is no calendar that can be read: its name must end in .csv, .ics, .json, .jsonl or .ndjson", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// An entry.
    #[error("{}, {place}: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Which entry of it.
        place: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}
