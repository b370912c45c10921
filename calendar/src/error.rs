//! What can be wrong with a calendar.

use std::path::PathBuf;

/// So much of what was written is said again.
const SHOWN_CHARS: usize = 60;

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
    /// A folder, a pipe or a device.
    #[error("{} is no regular file: write what it holds to one", path.display())]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// More than is read of any calendar.
    #[error("{} has more than {} bytes: leave out what is over, or divide it", path.display(), crate::MAX_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Too much of the time is an event's.
    #[error("{}: the events of {whom} are felt for {} days altogether, more than {} times the time that is asked for: leave some out, shorten them, or give them smaller `lead_s` and `decay_s`", path.display(), felt_s / 86_400, crate::FELT_MOST)]
    Crowded {
        /// The file.
        path: PathBuf,
        /// The customer, or all.
        whom: String,
        /// How long they are felt.
        felt_s: i64,
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

/// As much of a text as can be shown.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
