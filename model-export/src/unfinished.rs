//! What is written beside its place until it is whole.
//!
//! It is gone when the program ends before that: by an error, by SIGINT or SIGTERM, or, where the program was killed, at the next run in the same
//! place. Who is alive holds a lock on what it writes, so that nobody sweeps it; numbers of processes were the worse alternative, since containers
//! that share a folder have the same ones. A handler of signals that sets a flag was another: hours of arithmetic would have to look at it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::{process, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::error::TrainError;

/// What was left and cannot be removed is passed by, so many times.
const LEFT_MOST: u32 = 1_000;
/// So much of a name is in that of what is unfinished, which is longer than the name.
const NAME_CHARS: usize = 40;
const MARK: &str = ".unfinished-";
/// While something is removed its writer may add to it, which fails as soon as it is gone.
const REMOVALS_MOST: usize = 100;

/// What this program has begun. Whoever holds the lock keeps everybody from beginning and from finishing.
static BEGUN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file or a folder that is removed unless it takes its place.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    /// Of a folder, only held for its lock.
    file: File,
}

// === impl Unfinished ===

impl Unfinished {
    /// A new folder in the same folder as `place`, since a rename does not leave a file system.
    pub(crate) fn folder(place: &Path) -> Result<Self, TrainError> {
        Self::begin(place, |path| {
            fs::create_dir(path)?;
            File::open(path)
        })
    }

    /// A new file in the same folder as `place`.
    pub(crate) fn file(place: &Path) -> Result<Self, TrainError> {
        Self::begin(place, |path| File::create_new(path))
    }

    fn begin(place: &Path, create: impl Fn(&Path) -> io::Result<File>) -> Result<Self, TrainError> {
        watch_signals();
        let mut begun = begun();
        for left in 0..LEFT_MOST {
            let name = format!("{}{}-{left}", prefix_of(place), process::id());
            let path = place.with_file_name(name);
            let file = match create(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(TrainError::Io { path, source }),
            };
            // Somebody who sweeps may have been faster than the lock.
            if is_locked(&file) && is_there(&path, &file) {
                begun.insert(path.clone());
                return Ok(Self { path, file });
            }
        }
        Err(TrainError::Options(format!(
            "{}: too much is left of runs that were killed: remove what is named {}...",
            place.display(),
            prefix_of(place)
        )))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn as_file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Takes its place.
    pub(crate) fn finish(self, place: &Path) -> io::Result<()> {
        let mut begun = begun();
        fs::rename(&self.path, place)?;
        begun.remove(&self.path);
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if begun().remove(&self.path) {
            remove(&self.path);
        }
    }
}

/// Removes what killed runs have left of a place, and says what that was.
pub(crate) fn sweep(place: &Path) -> Vec<PathBuf> {
    let prefix = prefix_of(place);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_left = |name: &str| {
        let numbers = name.strip_prefix(&prefix)?.split_once('-')?;
        (is_number(numbers.0) && is_number(numbers.1)).then_some(())
    };
    let Ok(entries) = fs::read_dir(folder_of(place)) else {
        // Whoever wants to write there hears of it.
        return Vec::new();
    };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let is_ours = name.to_str().and_then(is_left).is_some();
        let is_plain = entry
            .file_type()
            .is_ok_and(|kind| kind.is_dir() || kind.is_file());
        // What is locked is written to; where nothing can be locked, nobody knows, and it stays.
        let is_dead = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if is_ours && is_plain && is_dead() && remove(&path) {
            swept.push(path);
        }
    }
    swept.sort();
    swept
}

/// Ends the program when what it has begun is gone.
pub(crate) fn exit(code: i32) -> ! {
    let _begun = clear();
    process::exit(code)
}

/// Once for all that is begun. Without it the next run sweeps.
fn watch_signals() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let (ready, is_ready) = mpsc::channel();
        // The thread first: signals that are caught and that nobody looks at would end nothing.
        let watcher = thread::Builder::new().spawn(move || {
            let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
                return;
            };
            let _ = ready.send(());
            for signal in signals.forever() {
                let _begun = clear();
                // Whoever waits for the program hears that the signal has ended it.
                let _ = emulate_default_handler(signal);
            }
        });
        if watcher.is_ok() {
            let _ = is_ready.recv();
        }
    });
}

fn clear() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    let mut begun = begun();
    for path in std::mem::take(&mut *begun) {
        remove(&path);
    }
    begun
}

fn begun() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(path: &Path) -> bool {
    (0..REMOVALS_MOST).any(|_| {
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        match removed {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    })
}

/// `.NAME.unfinished-`, which says what it is to whoever finds it.
fn prefix_of(place: &Path) -> String {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().take(NAME_CHARS).collect();
    format!(".{name}{MARK}")
}

fn folder_of(place: &Path) -> &Path {
    match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Where a file system knows no locks, nobody sweeps.
fn is_locked(file: &File) -> bool {
    !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

#[cfg(unix)]
fn is_there(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |found: fs::Metadata| (found.dev(), found.ino());
    match (fs::symlink_metadata(path), file.metadata()) {
        (Ok(by_name), Ok(open)) => identity(by_name) == identity(open),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_there(path: &Path, _file: &File) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_does_not_take_its_place_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("set");
        let begun = Unfinished::folder(&place).unwrap();
        fs::write(begun.path().join("part"), "x").unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        drop(begun);
        assert!(names(folder.path()).is_empty());
        Unfinished::folder(&place).unwrap().finish(&place).unwrap();
        assert_eq!(names(folder.path()), ["set"]);
    }

    #[test]
    fn what_is_left_is_swept_and_what_is_written_to_or_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("set");
        let live = Unfinished::folder(&place).unwrap();
        for other in [
            ".set.unfinished-7-0",
            ".set.unfinished-of-mine",
            ".sets.unfinished-7-0",
        ] {
            fs::create_dir(folder.path().join(other)).unwrap();
            fs::write(folder.path().join(other).join("part"), "x").unwrap();
        }
        assert_eq!(sweep(&place), [folder.path().join(".set.unfinished-7-0")]);
        let own = live.path().file_name().unwrap().to_str().unwrap();
        let mut left = [own, ".set.unfinished-of-mine", ".sets.unfinished-7-0"];
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn a_name_as_long_as_names_may_be_has_room_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("é".repeat(127));
        drop(Unfinished::file(&place).unwrap());
    }
}
