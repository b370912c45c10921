//! The log in front of the image: batches one behind the other in a file, each durable with one write and one fdatasync.
//!
//! A copy-on-write tree rewrites a page on each level for each row of a batch, and syncs whole files: 5 ms for the 20 rows of a sync,
//! where an append takes a tenth of one. So batches are durable here first, and reach the tree later, many together.
//!
//! A segment is a file: a head (magic, number), then records. A record is a mark, its length, a CRC-32 of the segment's number, length and
//! payload (32 bits each, little-endian), and the payload, as in [`super::encoding`]. An append that was interrupted leaves a record that does not fit its sum with no
//! good one behind it; it was never acknowledged and is cut off. A bad record *before* a good one is damage, and refused.
//!
//! The last record of a segment that others follow says so, before anything is written to the next one: so the loss of that one is found out.
//!
//! A segment that is not needed any more becomes the *spare*, and the next one is written over it: a file that grows has a new length
//! with each append, which its file system must bring to the disk with all else that it has to write by then. What is left of the old records
//! does not fit its sums, which are under another number.

use super::encoding::{Record, decode_record, encode_changes, encode_follower};
use super::{Batch, StoreError};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"fblog\0\0\x03";
/// The same of a build that did not say in a segment that others follow.
const MAGIC_BEFORE: [u8; 8] = *b"fblog\0\0\x02";
/// Magic and number.
const HEAD_BYTES: usize = 16;
/// What each record begins with, so that the next good one behind a bad one can be looked for.
const MARK: [u8; 4] = *b"\xf0bR\x01";
/// Mark, length and sum.
const FRAME_BYTES: usize = 12;
/// Memory that is kept for the next record.
const RECORD_BYTES_KEPT: usize = 1 << 20;
/// Before the number in the name of a segment.
const PREFIX: &str = "forebay.log.";
/// The name of a segment that the next one is written over.
const SPARE: &str = "forebay.log.spare";
/// A file that has grown to more than this, because nothing reached the image for long, is not kept.
const SPARE_BYTES_MOST: u64 = 512 << 20;

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    /// Where the next record begins.
    end: u64,
    /// The last record. Kept for the memory that it has.
    record: Vec<u8>,
}

// === impl Segment ===

impl Segment {
    /// Makes an empty segment, which is in the directory for good when this returns.
    pub(super) fn create(directory: &Path, number: u64) -> Result<Self, StoreError> {
        let path = path_of(directory, number);
        let make = || {
            let spare = directory.join(SPARE);
            let old = OpenOptions::new().read(true).write(true).open(&spare);
            let (file, made_as) = match old {
                Ok(old) => (old, &spare),
                // What an interrupted start left here was never written to.
                Err(_) => {
                    let mut new = OpenOptions::new();
                    new.read(true).write(true).create(true).truncate(true);
                    (new.open(&path)?, &path)
                }
            };
            file.write_all_at(&head(MAGIC, number), 0)?;
            file.sync_all()?;
            if made_as == &spare {
                std::fs::rename(&spare, &path)?;
            }
            File::open(directory)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(|error: std::io::Error| write_error(&path, &error))?;
        Ok(Self {
            number,
            path,
            file,
            end: HEAD_BYTES as u64,
            record: Vec::new(),
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

    /// Sees whether the disk has room for so many bytes, by taking it behind the last record and giving it back. What is written between this and
    /// the change may take it still.
    ///
    /// # Errors
    /// When there is none. Where a file system cannot take any beforehand, nobody knows.
    pub(super) fn try_room(&self, bytes: u64) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::NoRoom {
            bytes,
            reason: format!("{}: {error}", self.path.display()),
        };
        // What is left of a spare stays.
        let before = self.file.metadata().map_err(failed)?.len();
        let take = || {
            fallocate(
                &self.file,
                FallocateFlags::empty(),
                before.max(self.end),
                bytes,
            )
        };
        let taken = retry_on_intr(take);
        self.file.set_len(before).map_err(failed)?;
        match taken {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Cuts off what is left of the spare.
    ///
    /// # Errors
    /// When the file cannot be changed.
    pub(super) fn trim(&self) -> Result<(), StoreError> {
        self.file
            .set_len(self.end)
            .map_err(|error| write_error(&self.path, &error))
    }

    /// Makes a batch durable behind all others.
    ///
    /// # Errors
    /// When it is not known to be durable. The next append then writes over it.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|payload| encode_changes(batch.changes(), payload))
    }

    /// Says that nothing comes after this and all else is in the segment with that number, which must have been made.
    ///
    /// # Errors
    /// As for a batch; then this segment goes on.
    pub(super) fn end_with(&mut self, follower: u64) -> Result<(), StoreError> {
        self.write(|payload| encode_follower(follower, payload))
    }

    fn write(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), StoreError> {
        encode(self.number, fill, &mut self.record)?;
        let written = self
            .file
            .write_all_at(&self.record, self.end)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.end = self.end.saturating_add(self.record.len() as u64);
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

/// Makes a segment whose batches are durable elsewhere the spare, or removes it if there is one.
pub(super) fn retire(directory: &Path, number: u64) {
    let (path, spare) = (path_of(directory, number), directory.join(SPARE));
    let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= SPARE_BYTES_MOST);
    if !is_small || spare.exists() || std::fs::rename(&path, &spare).is_err() {
        remove(directory, number);
    }
}

/// Removes the spare, if there is one.
pub(super) fn remove_spare(directory: &Path) {
    // It does no harm.
    std::fs::remove_file(directory.join(SPARE)).unwrap_or_default();
}

/// Removes a segment whose batches are durable elsewhere.
pub(super) fn remove(directory: &Path, number: u64) {
    let path = path_of(directory, number);
    // The next start finds it, sees that it is not needed, and tries again.
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "an old segment of the log cannot be removed");
    }
}

/// All that a segment holds, as one batch, and the number of the one that follows if it says so. `was_made`: it is known to have had its head.
///
/// # Errors
/// When it is missing, damaged, or cannot be read.
pub(super) fn replay(directory: &Path, number: u64, was_made: bool) -> Result<Record, StoreError> {
    let path = path_of(directory, number);
    let bytes = std::fs::read(&path).map_err(|error| StoreError::Open {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let mut all = Record::default();
    let after = |magic| bytes.strip_prefix(&head(magic, number));
    all.must_be_followed = after(MAGIC).is_some();
    let Some(mut rest) = after(MAGIC).or_else(|| after(MAGIC_BEFORE)) else {
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
            // Otherwise it is what was left of the spare.
            if rest.starts_with(&MARK) {
                tracing::warn!(path = %path.display(), "the last change was not written to its end when the server was stopped; nobody was told of it");
            }
            break;
        };
        let record = decode_record(payload).map_err(|reason| damaged(&path, &reason))?;
        all.batch.append(record.batch);
        all.followed_by = record.followed_by;
        rest = behind;
    }
    all.batch.compact();
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

/// Makes a record.
fn encode(
    number: u64,
    fill: impl FnOnce(&mut Vec<u8>),
    record: &mut Vec<u8>,
) -> Result<(), StoreError> {
    record.clear();
    record.extend_from_slice(&MARK);
    record.resize(FRAME_BYTES, 0);
    fill(record);
    let payload = record.get(FRAME_BYTES..).unwrap_or_default();
    let length = u32::try_from(payload.len())
        .map_err(|_| {
            let bytes = payload.len();
            StoreError::Write(format!("{bytes} bytes are too many for one change"))
        })?
        .to_le_bytes();
    let sum = checksum(number, length, payload).to_le_bytes();
    if let Some(frame) = record.get_mut(MARK.len()..FRAME_BYTES) {
        let (its_length, its_sum) = frame.split_at_mut(length.len());
        its_length.copy_from_slice(&length);
        its_sum.copy_from_slice(&sum);
    }
    // What a large change has taken is not kept for small ones.
    if record.len() <= RECORD_BYTES_KEPT {
        record.shrink_to(RECORD_BYTES_KEPT);
    }
    Ok(())
}

fn head(magic: [u8; 8], number: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let (begin, rest) = head.split_at_mut(magic.len());
    begin.copy_from_slice(&magic);
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
