//! Group commit: many small changes, few fsyncs, and nobody is told before the fsync.
//!
//! A change is computed in memory under the state's lock and queued here before the lock is released, so the order of batches
//! is the order of the changes. One thread takes everything queued, makes it durable in one transaction, and then wakes all who
//! wait. An fsync per request was the worse alternative: a few hundred changes per second at most. Fsyncs as fast as the disk makes them
//! were worse, too: each took two or three changes, and cost a busy server more than those did.
//!
//! A batch that could not be written is kept and written again before the next one, or after a while if none comes: on a server that nobody
//! changes, what was refused would otherwise wait for ever. Memory is then ahead of the disk for a while, which is safe: nobody was told of the change, and grants are cumulative, so one that was counted and never sent only
//! waits for the next reply.

use super::{Batch, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How many changes may be lumped into one transaction before the waiting ones are served first.
const MAX_GROUP: usize = 256;

/// A commit begins so many times as long after the one before as that took, and no longer than this after it, unless more waits already
/// than fits into one: on a busy server syncs share an fsync and all that goes with it, a tenth of its time; on an idle one, and on a store
/// that takes no time, a change waits for nothing.
pub(super) const GAP: Duration = Duration::from_millis(4);
const GAP_COMMITS: u32 = 8;

/// What could not be written is tried again after so long without another change, and then after twice as long each time, up to the most.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(8);

type Waiter = oneshot::Sender<Result<(), StoreError>>;

struct Entry {
    batch: Batch,
    waiter: Waiter,
}

/// The queue to the thread that writes.
#[derive(Debug)]
pub struct Journal {
    queue: Option<mpsc::Sender<Entry>>,
    queued: AtomicU64,
    durable: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

/// How many entries there were since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Those that were queued.
    pub queued: u64,
    /// Those of them, from the first on, that are durable.
    pub durable: u64,
}

/// A promise that a batch is durable.
#[derive(Debug)]
#[must_use = "a change counts only when it is durable"]
pub struct Receipt(Option<oneshot::Receiver<Result<(), StoreError>>>);

// === impl Journal ===

impl Journal {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let (queue, entries) = mpsc::channel();
        let durable = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&durable);
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || write_all(&*store, &entries, &count))?;
        Ok(Self {
            queue: Some(queue),
            queued: AtomicU64::new(0),
            durable,
            writer: Some(writer),
        })
    }

    /// Queues a batch. Call it while holding the lock under which the batch was computed.
    pub fn submit(&self, batch: Batch) -> Receipt {
        if batch.is_empty() {
            return Receipt(None);
        }
        self.queue(batch)
    }

    /// How far it is. What was queued under a lock counts as soon as the lock is free.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            queued: self.queued.load(Ordering::Acquire),
            durable: self.durable.load(Ordering::Acquire),
        }
    }

    /// Promises that all batches so far are durable. For whoever repeats a change that stands already, and so has none of its own to wait for: it may
    /// still be on its way, or wait for a store that did not take it.
    pub fn all_so_far(&self) -> Receipt {
        self.queue(Batch::default())
    }

    fn queue(&self, batch: Batch) -> Receipt {
        let (waiter, promise) = oneshot::channel();
        if let Some(queue) = &self.queue {
            self.queued.fetch_add(1, Ordering::AcqRel);
            // A closed queue drops the waiter, and the receipt then says that the server has stopped.
            drop(queue.send(Entry { batch, waiter }));
        }
        Receipt(Some(promise))
    }
}

impl Drop for Journal {
    /// Everything queued is written before the process goes on to its end.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

// === impl Receipt ===

impl Receipt {
    /// Waits until the batch is durable.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn durable(self) -> Result<(), StoreError> {
        match self.0 {
            None => Ok(()),
            Some(promise) => promise.await.unwrap_or(Err(StoreError::Stopped)),
        }
    }

    /// The same, on a thread that may block.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            None => Ok(()),
            Some(promise) => promise.blocking_recv().unwrap_or(Err(StoreError::Stopped)),
        }
    }
}

fn write_all(store: &dyn Store, entries: &mpsc::Receiver<Entry>, durable: &AtomicU64) {
    let mut unwritten = Batch::default();
    let mut waiting = 0_u64;
    let mut next_at = Instant::now();
    let mut retry_after = RETRY_AFTER;
    loop {
        let first = match unwritten.is_empty() {
            true => entries.recv().map_err(RecvTimeoutError::from),
            false => entries.recv_timeout(retry_after),
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            break;
        }
        std::thread::sleep(next_at.saturating_duration_since(Instant::now()));
        let began_at = Instant::now();
        let mut waiters = Vec::new();
        match first {
            Ok(first) => {
                waiters.push(first.waiter);
                unwritten.append(first.batch);
            }
            Err(_) => retry_after = retry_after.saturating_mul(2).min(RETRY_AFTER_MOST),
        }
        while waiters.len() < MAX_GROUP
            && let Ok(next) = entries.try_recv()
        {
            waiters.push(next.waiter);
            unwritten.append(next.batch);
        }
        waiting = waiting.saturating_add(waiters.len() as u64);
        let result = match unwritten.is_empty() {
            true => Ok(()),
            false => store.commit(&unwritten),
        };
        next_at = if waiters.len() < MAX_GROUP {
            began_at + GAP.min(began_at.elapsed().saturating_mul(GAP_COMMITS))
        } else {
            began_at
        };
        match &result {
            Ok(()) => {
                unwritten = Batch::default();
                retry_after = RETRY_AFTER;
                durable.fetch_add(std::mem::take(&mut waiting), Ordering::AcqRel);
            }
            Err(error) => {
                tracing::error!(%error, waiting, "changes are not durable; they will be tried again");
                // The disk may stay full for days, and every sync changes the same rows.
                unwritten.compact();
            }
        }
        for waiter in waiters {
            // Whoever waited may have gone: the change stands all the same.
            drop(waiter.send(result.clone()));
        }
    }
    if !unwritten.is_empty()
        && let Err(error) = store.commit(&unwritten)
    {
        tracing::error!(%error, "changes that nobody was told of are lost at the end of the server");
    }
}
