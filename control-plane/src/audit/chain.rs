//! Whether a chain is whole: each record names the hash of the one before, the first one that of the anchor, and the last one is
//! the head that the server knows.

use super::{AuditRecord, Link};

/// Where a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Numbers do not follow each other.
    #[error(
        "record {expected} is missing: record {found} follows where it should be; something has been taken out of the log or put into it"
    )]
    Missing {
        /// The number that should be there.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// A record is not the one that its successor names.
    #[error(
        "record {0} is not the one that was written: the record after it, or the anchor or head of the log, names another hash"
    )]
    Changed(u64),
    /// The newest records are not there.
    #[error(
        "the log ends with record {found}, but record {expected} was written: its end has been cut off"
    )]
    CutOff {
        /// The newest record that was written.
        expected: u64,
        /// The newest record that is there.
        found: u64,
    },
}

/// Checks the records between anchor and head, oldest first. The anchor is the last record that retention has dropped; it may have
/// moved on past the first of the records since they were read.
///
/// # Errors
/// The first place where the chain is broken.
pub fn verify(anchor: &Link, head: &Link, records: &[AuditRecord]) -> Result<(), ChainError> {
    let begins_behind_anchor = records
        .first()
        .is_none_or(|record| record.sequence > anchor.sequence);
    let mut last = begins_behind_anchor.then(|| anchor.clone());
    for record in records {
        if let Some(before) = &last {
            let expected = before.sequence.saturating_add(1);
            if record.sequence != expected {
                let found = record.sequence;
                return Err(ChainError::Missing { expected, found });
            }
            if record.previous != before.hash {
                return Err(ChainError::Changed(before.sequence));
            }
        }
        let link = record.link();
        if link.sequence == anchor.sequence && link != *anchor {
            return Err(ChainError::Changed(link.sequence));
        }
        last = Some(link);
    }
    match last {
        Some(last) if last.sequence < head.sequence => Err(ChainError::CutOff {
            expected: head.sequence,
            found: last.sequence,
        }),
        Some(last) if last != *head => Err(ChainError::Changed(last.sequence)),
        _ => Ok(()),
    }
}
