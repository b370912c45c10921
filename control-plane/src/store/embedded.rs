//! The embedded store: a log that makes batches durable at once, and behind it an image that takes them in later, many together.
//!
//! ```text
//!   commit ──▶ segment N of the log ──(fdatasync)──▶ acknowledged
//!                   │ and into `recent`, which readers look into first
//!                   ▼ after 60 s or 256 MiB (the first time 32)
//!              segment N+1 begins; `recent` becomes `leaving` and is written to the image, whose last transaction says
//!              "the log begins with N+1"; then segment N is spare: N+2 is written over it
//! ```
//! A start replays the segments from the one that the image names. Rows are whole values, so it does no harm to write some twice.
//! The image names a segment that must be there: a log that was lost is found out.

use super::image::{Haste, Image};
use super::leisure::giving_way;
use super::log::{Segment, remove, remove_spare, replay, retire, segments};
use super::overlay::{Merge, Overlay};
use super::start::{LAYOUT, check_layout, stamp};
use super::{Batch, Row, Store, StoreError, Table, Visitor};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changes reach the image within this time.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// Or when the log has grown to this, so that a start is quick and the changes in memory are few. The same rows change again and again: the
/// longer it takes, the less there is to write in all.
const CHECKPOINT_BYTES: u64 = 256 << 20;

/// The first one comes when the log has grown to this part of that. From the segment after the next on, changes go into the memory that it
/// leaves behind; fresh memory costs a server that has just started less than one that is busy.
const FIRST_CHECKPOINT_PART: u64 = 8;

/// After a checkpoint that left the image closed the next one is tried after this time: nothing of it can be read until then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const FIRST_SEGMENT: u64 = 1;

/// Whoever has this file locked has the store. The image's own lock is not enough: the image is opened anew after an error.
const LOCK: &str = "forebay.lock";

/// A lock outlives its process for as long as a program that it was starting has not begun: that is waited for.
const LOCKED_FOR: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A store in one directory.
#[derive(Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    checkpoint_bytes: u64,
    /// The segment that the log began with.
    began_with: u64,
    /// Tells the checkpointing thread to look at the log; closed to stop it.
    wake: Option<Sender<()>>,
    checkpoints: Option<JoinHandle<()>>,
    /// Held for as long as the store is open.
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    image: Image,
    segment: Mutex<Segment>,
    overlay: RwLock<Overlay>,
    /// The segment that the image says the log begins with. Locked for a checkpoint: there is one at a time.
    first: Mutex<u64>,
    /// The store is about to go: what is done at leisure must be left, to be done in haste. A thread that has given way cannot take that back.
    is_over: AtomicBool,
}

// === impl EmbeddedStore ===

impl EmbeddedStore {
    /// Opens the store of a data directory; creates both where they are missing.
    ///
    /// # Errors
    /// When another process has it open, it is damaged, or its files cannot be used.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::with_log_of(CHECKPOINT_BYTES, directory)
    }

    /// Opens one whose log reaches the image when it has grown to so many bytes.
    fn with_log_of(checkpoint_bytes: u64, directory: &Path) -> Result<Self, StoreError> {
        let lock = lock(directory)?;
        let image = Image::open(directory)?;
        let first = image.log_begins_with()?;
        let (done, needed): (Vec<u64>, Vec<u64>) = segments(directory)?
            .into_iter()
            .partition(|number| *number < first);
        let mut left = Overlay::default();
        let mut next = first.max(FIRST_SEGMENT);
        // The image names a segment, and one that others follow says so.
        let mut is_last = first == 0;
        // A segment that says nothing of the next one, which must be empty then.
        let mut cut = None;
        for number in needed.iter().copied() {
            if number != next {
                return Err(missing(directory, next));
            }
            let record = replay(directory, number, !is_last)?;
            if let Some(cut) = cut
                && !record.batch.is_empty()
            {
                return Err(cut_off(directory, cut));
            }
            left.add(&record.batch);
            next = number.saturating_add(1);
            is_last = record.followed_by.is_none();
            cut = (is_last && record.must_be_followed).then_some(number);
        }
        if !is_last {
            return Err(missing(directory, next));
        }
        if first == 0 {
            // From here on a build that takes no notice of a log must not open it. One of before the log may be refused, and stays as it is then.
            if let Some(layout) = image.get(Table::Meta, LAYOUT)? {
                check_layout(&layout)?;
                left.add(&stamp());
            }
        }
        // A copy of the directory of before may have been put over it, and numbers begin again: the spare's records could be of one of them.
        remove_spare(directory);
        let segment = Segment::create(directory, next)?;
        left.leave();
        image.take_in(&left.leaving(), segment.number(), Haste::Urgent)?;
        for number in done.into_iter().chain(needed) {
            remove(directory, number);
        }
        let began_with = segment.number();
        let inner = Arc::new(Inner {
            directory: directory.to_owned(),
            image,
            first: Mutex::new(segment.number()),
            segment: Mutex::new(segment),
            overlay: RwLock::default(),
            is_over: AtomicBool::new(false),
        });
        let (wake, woken) = std::sync::mpsc::channel();
        let worker = Arc::clone(&inner);
        let checkpoints = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || worker.checkpoints(&woken))
            .map_err(|error| StoreError::Open {
                path: directory.to_owned(),
                reason: format!("no thread for checkpoints: {error}"),
            })?;
        Ok(Self {
            inner,
            checkpoint_bytes,
            began_with,
            wake: Some(wake),
            checkpoints: Some(checkpoints),
            _lock: lock,
        })
    }
}

impl Drop for EmbeddedStore {
    /// Leaves an empty log, so that the next start has nothing to replay.
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(checkpoints) = self.checkpoints.take() {
            drop(checkpoints.join());
        }
    }
}

impl Store for EmbeddedStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let is_full = {
            let mut segment = self.inner.segment();
            segment.append(batch)?;
            self.inner.overlay_mut().add(batch);
            let part = if segment.number() == self.began_with {
                FIRST_CHECKPOINT_PART
            } else {
                1
            };
            segment.len_bytes() >= self.checkpoint_bytes / part
        };
        if is_full && let Some(wake) = &self.wake {
            // The thread ends only with the store.
            wake.send(()).unwrap_or_default();
        }
        Ok(())
    }

    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.inner.segment().try_room(bytes)
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let overlay = self.inner.overlay();
        match overlay.get(table, key) {
            Some(change) => Ok(change.map(<[u8]>::to_vec)),
            None => self.inner.image.get(table, key),
        }
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        let overlay = self.inner.overlay();
        let rows = self.inner.image.range(table, from, to)?;
        Ok(overlay.over(rows, table, from, to))
    }

    /// Changes wait until all rows are visited.
    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        let overlay = self.inner.overlay();
        let mut merge = Merge::of(overlay.of(table));
        self.inner
            .image
            .visit(table, &mut |key, value| merge.row(key, value, visitor))?;
        merge.rest(visitor)
    }
}

// === impl Inner ===

impl Inner {
    /// Until the store is dropped, and then once more.
    fn checkpoints(&self, woken: &Receiver<()>) {
        let mut wait = CHECKPOINT_EVERY;
        loop {
            let is_over = matches!(
                woken.recv_timeout(wait),
                Err(RecvTimeoutError::Disconnected)
            );
            while woken.try_recv().is_ok() {}
            let haste = if is_over {
                Haste::Urgent
            } else {
                self.leisurely()
            };
            wait = CHECKPOINT_EVERY;
            match self.checkpoint(haste) {
                // What was left is done next, in haste.
                Ok(()) | Err(StoreError::Stopped) => {}
                Err(error) => {
                    if self.image.is_closed() {
                        wait = RETRY_AFTER;
                    }
                    tracing::error!(%error, "the log cannot be brought into the store's image; nothing is lost, it is tried again");
                }
            }
            // Commits say more than once that a segment is full, and the next of them says it again if this one is.
            while woken.try_recv().is_ok() {}
            if is_over {
                self.leave_little();
                return;
            }
        }
    }

    /// Gives back the room that a log takes whose segments are written over.
    fn leave_little(&self) {
        remove_spare(&self.directory);
        if let Err(error) = self.segment().trim() {
            tracing::warn!(%error, "the log keeps more room than it needs");
        }
    }

    /// Brings everything that is durable by now into the image, and removes the segments that held it.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when it was left because the store is about to go.
    fn checkpoint(&self, haste: Haste<'_>) -> Result<(), StoreError> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // On a full disk there may be room in the image when there is none for a new segment.
        let rotated = self.rotate();
        let next = match &rotated {
            Ok(next) => *next,
            Err(_) => self.segment().number(),
        };
        let leaving = self.overlay().leaving();
        if leaving.is_empty() {
            return rotated.map(|_| ());
        }
        self.image.open_again_if_closed()?;
        at_leisure(haste, || self.image.take_in(&leaving, next, haste))?.inspect_err(|error| {
            if *error != StoreError::Stopped {
                self.image.open_again();
            }
        })?;
        drop(leaving);
        let mut gone = self.overlay_mut().left();
        if at_leisure(haste, || gone.empty(&self.is_over)).unwrap_or_default() {
            self.overlay_mut().keep(gone);
        }
        for number in std::mem::replace(&mut *first, next)..next {
            retire(&self.directory, number);
        }
        rotated.map(|_| ())
    }

    /// Begins a new segment if the current one holds anything. Returns the number of the one that is current then. Called by one thread
    /// at a time.
    fn rotate(&self) -> Result<u64, StoreError> {
        let (number, is_empty) = {
            let segment = self.segment();
            (segment.number(), segment.len_bytes() == 0)
        };
        if is_empty {
            return Ok(number);
        }
        // Commits need not wait until it is in the directory for good: they go on in the old one meanwhile.
        let next = Segment::create(&self.directory, number.saturating_add(1))?;
        let mut segment = self.segment();
        let number = next.number();
        segment.end_with(number)?;
        let old = std::mem::replace(&mut *segment, next);
        self.overlay_mut().leave();
        drop((segment, old));
        Ok(number)
    }

    fn leisurely(&self) -> Haste<'_> {
        Haste::Leisurely(&self.is_over)
    }

    fn segment(&self) -> MutexGuard<'_, Segment> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlay(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn overlay_mut(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does work that nobody waits for: on one core it would take half of it from the syncs.
fn at_leisure<T: Send>(haste: Haste<'_>, work: impl FnOnce() -> T + Send) -> Result<T, StoreError> {
    match haste {
        Haste::Urgent => Ok(work()),
        Haste::Leisurely(_) => giving_way("image", work),
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let failed = |error: std::io::Error| StoreError::Open {
        path: path.clone(),
        reason: error.to_string(),
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCKED_FOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn cut_off(directory: &Path, number: u64) -> StoreError {
    StoreError::Damaged {
        what: "log",
        reason: format!(
            "the end of segment {number} is missing from {}, and with it changes that were acknowledged",
            directory.display()
        ),
    }
}

fn missing(directory: &Path, number: u64) -> StoreError {
    StoreError::Damaged {
        what: "log",
        reason: format!(
            "segment {number} is missing from {}, and with it changes that were acknowledged",
            directory.display()
        ),
    }
}

#[cfg(test)]
mod tests;
