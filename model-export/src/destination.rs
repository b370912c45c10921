//! Where a command writes a file: found to be writable before minutes of work, and to be nothing that it reads.
//!
//! A file is written beside its place and renamed, so that what was there stays until all of the new one is. To hold it open for writing from the
//! beginning was the worse alternative: a run that fails would leave an empty file, and have emptied the one before.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

use crate::error::TrainError;
use crate::unfinished::{Unfinished, sweep};

/// A file that will be written.
#[derive(Debug)]
pub(crate) struct Destination {
    /// As it was named.
    path: PathBuf,
    /// Without links.
    place: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    New,
    /// Of a file that is there.
    Old(Option<Identity>),
    /// A pipe or a device, such as `/dev/stdout`.
    Stream(File),
}

/// By which a file is known under all its names: the device and the number of its node.
type Identity = (u64, u64);

// === impl Destination ===

impl Destination {
    /// Finds out whether a file can be written, and leaves no trace of it.
    ///
    /// # Errors
    /// Names the path and the reason.
    pub(crate) fn open(path: &Path) -> Result<Self, TrainError> {
        let refused = |reason: String| TrainError::Destination {
            path: path.to_owned(),
            reason,
        };
        let failed = |error: io::Error| refused(error.to_string());
        let (place, kind) = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(refused("it is a folder: name a file in it".into()));
            }
            Ok(found) if found.is_file() => {
                let place = path.canonicalize().map_err(failed)?;
                // One that is not to be changed must not be replaced either.
                OpenOptions::new()
                    .write(true)
                    .open(&place)
                    .map_err(failed)?;
                (place, Kind::Old(identity(&found)))
            }
            Ok(found) => {
                let stream = open_stream(path, &found).map_err(failed)?;
                (path.to_owned(), Kind::Stream(stream))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let place = place_of_new(path).map_err(refused)?;
                try_to_create(&place).map_err(failed)?;
                (place, Kind::New)
            }
            Err(error) => return Err(failed(error)),
        };
        sweep(&place);
        Ok(Self {
            path: path.to_owned(),
            place,
            kind,
        })
    }

    /// Writes the file as a whole, and the folders that it needs.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<(), TrainError> {
        let failed = |error: io::Error| TrainError::Destination {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        match self.kind {
            Kind::Stream(mut stream) => stream.write_all(bytes).map_err(failed),
            Kind::New => {
                if let Some(folder) = self.place.parent() {
                    fs::create_dir_all(folder).map_err(failed)?;
                }
                replace(&self.place, bytes).map_err(failed)
            }
            // In a folder where nothing may be made, or where it is a file system of its own, as in a container, it is written where it is.
            Kind::Old(_) => replace(&self.place, bytes)
                .or_else(|_| fs::write(&self.place, bytes))
                .map_err(failed),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Stream(_), _) | (_, Kind::Stream(_)) => false,
            (Kind::Old(Some(one)), Kind::Old(Some(other))) if one == other => true,
            _ => self.place == other.place,
        }
    }

    /// Whether it would write over a file, whatever that is called here.
    fn is_file(&self, file: &Path) -> bool {
        let (Ok(found), Ok(place)) = (fs::metadata(file), file.canonicalize()) else {
            return false;
        };
        match &self.kind {
            Kind::Stream(_) => false,
            Kind::Old(Some(own)) if identity(&found) == Some(*own) => true,
            _ => self.place == place,
        }
    }
}

/// Fails if two of what is written are one file, or if one of them is read.
pub(crate) fn keep_apart(written: &[&Destination], read: &[PathBuf]) -> Result<(), TrainError> {
    for (nth, one) in written.iter().enumerate() {
        let refused = |reason: String| TrainError::Destination {
            path: one.path.clone(),
            reason,
        };
        if let Some(other) = written.iter().skip(nth + 1).find(|other| one.is(other)) {
            return Err(refused(format!(
                "it is the same file as {}, which is written too: name another one",
                other.path.display()
            )));
        }
        if let Some(input) = read.iter().find(|input| one.is_file(input)) {
            return Err(refused(format!(
                "it is the same file as {}, which is read: name another one",
                input.display()
            )));
        }
    }
    Ok(())
}

/// Whether something can be made in the nearest folder above that is there.
pub(crate) fn try_to_create(place: &Path) -> io::Result<()> {
    let mut place = place;
    while let Some(above) = place.parent().filter(|above| !above.as_os_str().is_empty()) {
        if above.try_exists()? {
            break;
        }
        place = above;
    }
    match Unfinished::file(place) {
        Ok(_) => Ok(()),
        Err(TrainError::Io { source, .. }) => Err(source),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Without links, of what is not there.
fn place_of_new(path: &Path) -> Result<PathBuf, String> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(
            "it is a link to a file that is not there: name that one, or remove the link".into(),
        );
    }
    let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if path.file_name().is_none() || is_folder {
        return Err("it is no name of a file".into());
    }
    let mut missing: Vec<OsString> = Vec::new();
    let mut above = path;
    loop {
        let there = match above.as_os_str().is_empty() {
            true => Path::new(".").canonicalize(),
            false => above.canonicalize(),
        };
        match there {
            Ok(there) => {
                return Ok(missing
                    .into_iter()
                    .rev()
                    .fold(there, |place, name| place.join(name)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.to_string()),
        }
        let Some(Component::Normal(name)) = above.components().next_back() else {
            return Err("it leads through a folder that is not there: make that first".into());
        };
        missing.push(name.to_owned());
        above = above.parent().unwrap_or(Path::new(""));
    }
}

fn replace(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = match Unfinished::file(place) {
        Ok(unfinished) => unfinished,
        Err(TrainError::Io { source, .. }) => return Err(source),
        Err(error) => return Err(io::Error::other(error)),
    };
    let file = unfinished.as_file();
    file.write_all(bytes)?;
    if let Ok(before) = fs::metadata(place) {
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()?;
    unfinished.finish(place)
}

/// Opens a pipe or a device without waiting for whoever reads it.
#[cfg(unix)]
fn open_stream(path: &Path, found: &Metadata) -> io::Result<File> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
    if found.file_type().is_block_device() {
        return Err(io::Error::other("it is a disk: name a file"));
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let mut stream = options.open(path)?;
    fcntl_setfl(&stream, fcntl_getfl(&stream)? - OFlags::NONBLOCK)?;
    // A full device says so when something is written to it, and an empty line harms neither JSON nor a page.
    if found.file_type().is_char_device() {
        stream.write_all(b"\n")?;
    }
    Ok(stream)
}

#[cfg(not(unix))]
fn open_stream(path: &Path, _found: &Metadata) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

#[cfg(unix)]
fn identity(found: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    Some((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(_found: &Metadata) -> Option<Identity> {
    None
}
