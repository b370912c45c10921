//! The log in front of the image: batches one behind the other in a file, each durable with one write and one fdatasync.
//!
//! A copy-on-write tree rewrites a page on each level for each row of a batch, and syncs whole files: 5 ms for the 20 rows of a sync,
//! where an append takes a tenth of one. So batches are durable here first, and reach the tree later, many together.
//!
//! A segment is a file: a head (magic, number), then records. A record is a mark, its length, a CRC-32 of the segment's number, length and
//! payload (32 bits each, little-endian), and the payload, as in [`super::encoding`]. An append that was interrupted leaves a record that does not fit its sum with no
//! good one behind it; it was never acknowledged and is cut off. A bad record *before* a good one is damage, and refused.

use super::encoding::{decode_changes, encode_changes};
use super::{Batch, StoreError};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"fblog\0\0\x02";
/// Magic and number.
const HEAD_BYTES: usize = 16;
/// What each record begins with, so that the next good one behind a bad one can be looked for.
const MARK: [u8; 4] = *b"\xf0bR\x01";
/// Mark, length and sum.
const FRAME_BYTES: usize = 12;
/// Before the number in the name of a segment.
const PREFIX: &str = "forebay.log.";

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    /// Where the next record begins.
    end: u64,
}

// === impl Segment ===

impl Segment {
    /// Makes an empty segment, which is in the directory for good when this returns.
    pub(super) fn create(directory: &Path, number: u64) -> Result<Self, StoreError> {
        let path = path_of(directory, number);
        let make = || {
            // What an interrupted start left here was never written to.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all_at(&head(number), 0)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(|error: std::io::Error| write_error(&path, &error))?;
        Ok(Self {
            number,
            path,
            file,
            end: HEAD_BYTES as u64,
        })
    }

    /// Its number.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of all records in it.
    pub(super) const fn len_bytes(&self) -> u64 {
        self.end.saturating_sub(HEAD_BYTES as u64)
    }

    /// Makes a batch durable behind all others.
    ///
    /// # Errors
    /// When it is not known to be durable. The next append then writes over it.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let record = encode(self.number, batch)?;
        let written = self
            .file
            .write_all_at(&record, self.end)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.end = self.end.saturating_add(record.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Half a record at the end is found out in any case. This only gives the space back to a disk that is full.
                drop(self.file.set_len(self.end));
                Err(write_error(&self.path, &error))
            }
        }
    }
}

/// The numbers of all segments in a directory, ascending.
pub(super) fn segments(directory: &Path) -> Result<Vec<u64>, StoreError> {
    let failed = |error: std::io::Error| StoreError::Open {
        path: directory.to_owned(),
        reason: error.to_string(),
    };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes a segment whose batches are durable elsewhere.
pub(super) fn remove(directory: &Path, number: u64) {
    let path = path_of(directory, number);
    // The next start finds it, sees that it is not needed, and tries again.
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "an old segment of the log cannot be removed");
    }
}

/// All that a segment holds, as one batch. `was_made`: it is known to have had its head.
///
/// # Errors
/// When it is missing, damaged, or cannot be read.
pub(super) fn replay(directory: &Path, number: u64, was_made: bool) -> Result<Batch, StoreError> {
    let path = path_of(directory, number);
    let bytes = std::fs::read(&path).map_err(|error| StoreError::Open {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let mut all = Batch::default();
    let Some(mut rest) = bytes.strip_prefix(&head(number)) else {
        // The machine may have stopped while the segment was made, before anything was appended.
        if !was_made && bytes.len() <= HEAD_BYTES {
            return Ok(all);
        }
        return Err(damaged(&path, "it does not begin like a segment"));
    };
    while !rest.is_empty() {
        let Some((payload, behind)) = record(number, rest) else {
            if has_record(number, rest.get(1..).unwrap_or_default()) {
                let at = bytes.len().saturating_sub(rest.len());
                let reason = format!("the record at byte {at} does not fit its checksum");
                return Err(damaged(&path, &reason));
            }
            tracing::warn!(path = %path.display(), bytes = rest.len(), "the last change was not written to its end when the server was stopped; nobody was told of it");
            break;
        };
        all.append(decode_changes(payload).map_err(|reason| damaged(&path, &reason))?);
        rest = behind;
    }
    all.compact();
    Ok(all)
}

/// The first record's payload and what is behind it, if it is whole.
fn record(number: u64, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&MARK)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let (payload, behind) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let is_whole = checksum(number, *length, payload) == u32::from_le_bytes(*sum);
    is_whole.then_some((payload, behind))
}

/// Whether a whole record begins anywhere.
fn has_record(number: u64, bytes: &[u8]) -> bool {
    bytes
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| **window == MARK)
        .any(|(at, _)| {
            bytes
                .get(at..)
                .and_then(|rest| record(number, rest))
                .is_some()
        })
}

fn checksum(number: u64, length: [u8; 4], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(&length);
    sum.update(payload);
    sum.finalize()
}

fn encode(number: u64, batch: &Batch) -> Result<Vec<u8>, StoreError> {
    let payload = encode_changes(batch.changes());
    let length = u32::try_from(payload.len())
        .map_err(|_| {
            let bytes = payload.len();
            StoreError::Write(format!("{bytes} bytes are too many for one change"))
        })?
        .to_le_bytes();
    let sum = checksum(number, length, &payload).to_le_bytes();
    let mut record = Vec::with_capacity(FRAME_BYTES.saturating_add(payload.len()));
    record.extend_from_slice(&MARK);
    record.extend_from_slice(&length);
    record.extend_from_slice(&sum);
    record.extend_from_slice(&payload);
    Ok(record)
}

fn head(number: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    rest.copy_from_slice(&number.to_le_bytes());
    head
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

fn write_error(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Write(format!("{}: {error}", path.display()))
}

fn damaged(path: &Path, reason: &str) -> StoreError {
    StoreError::Damaged {
        what: "log",
        reason: format!("{}: {reason}", path.display()),
    }
}
