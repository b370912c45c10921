//! What is read: regular files, and no more of them than can be meant.
//!
//! To open a pipe is to wait for whoever writes to it, a device may have no end, and of what has been read from either there is no sum afterwards.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::TrainError;

/// Opens a file to read it.
///
/// # Errors
/// When it is no regular file, or cannot be opened.
pub(crate) fn open(path: &Path) -> Result<File, TrainError> {
    let failed = |source| TrainError::Io {
        path: path.to_owned(),
        source,
    };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        let reason = match found.is_dir() {
            true => "it is a folder, and a file is needed: name one in it",
            false => {
                "it is no file but a pipe, a socket or a device: write what comes from there into a file first"
            }
        };
        return Err(TrainError::Data {
            path: path.to_owned(),
            reason: reason.to_owned(),
        });
    }
    File::open(path).map_err(failed)
}

/// All of a file of `most` bytes at most.
///
/// # Errors
/// As [`open`], and when it has more.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, TrainError> {
    let mut bytes = Vec::new();
    let mut start = open(path)?.take(most.saturating_add(1));
    start
        .read_to_end(&mut bytes)
        .map_err(|source| TrainError::Io {
            path: path.to_owned(),
            source,
        })?;
    if start.limit() == 0 {
        return Err(TrainError::Data {
            path: path.to_owned(),
            reason: format!("it has more than {most} bytes: is it the right file?"),
        });
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, TrainError> {
    let text = String::from_utf8(read(path, most)?);
    text.map_err(|error| TrainError::Io {
        path: path.to_owned(),
        source: std::io::Error::new(ErrorKind::InvalidData, error.utf8_error()),
    })
}
