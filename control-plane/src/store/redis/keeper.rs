//! The rows and the log in Redis, as the process that leads changes them.

use super::super::overlay::Overlay;
use super::super::start::LAYOUT;
use super::super::{Batch, Changes, StoreError, Table};
use super::link::{Call, Line, Link, Trouble};
use super::scripts::{FENCE, HEAD, STAGED, Script, hash_of, index_of};
use super::{Lease, RedisUrl, first_byte};
use redis::cmd;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A larger batch is no entry of the log: Redis would have it in memory twice.
pub(super) const ENTRY_BYTES_MOST: usize = 16 << 20;

/// What both the commits and the thread behind them need.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) fence: String,
    pub(super) nodes: Vec<RedisUrl>,
    inner: Mutex<Inner>,
    line: Mutex<Line>,
    /// What is in the log and not in the rows.
    overlay: RwLock<Overlay>,
    /// Redis has lost what it had acknowledged.
    is_behind: AtomicBool,
    /// The store is being dropped: a round that is under way need not be brought to its end.
    pub(super) is_over: AtomicBool,
    /// A large change waits for the round to end, and takes over what is left of it.
    pub(super) is_awaited: AtomicBool,
    /// Held while the rows take in the log; locked before `inner`.
    emptying: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// The newest change that is known to be made.
    pub(super) acknowledged: u64,
    /// The newest change that may have been made.
    pub(super) tried: u64,
    /// A large change counts as made, and some of its rows may be as they were.
    pub(super) is_unapplied: bool,
    /// Bytes of the log since it was last emptied.
    pub(super) logged_bytes: usize,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(nodes: Vec<RedisUrl>, lease: &Lease) -> Self {
        Self {
            fence: lease.fence().to_owned(),
            line: Mutex::new(Line::new(nodes.clone())),
            nodes,
            inner: Mutex::default(),
            overlay: RwLock::default(),
            is_behind: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            emptying: Mutex::default(),
        }
    }

    /// Goes on from where the store is: with a large change that is not applied to its end, or with the log.
    pub(super) fn begin(&self) -> Result<(), StoreError> {
        self.with(|inner, link| {
            let head: Option<u64> = link.ask(cmd("GET").arg(HEAD))?;
            inner.acknowledged = head.unwrap_or(0);
            inner.tried = inner.acknowledged;
            inner.is_unapplied = true;
            self.apply_large(inner, link)?;
            self.replay(link)?;
            if self.overlay().is_empty() {
                return Ok(());
            }
            self.empty_on(inner, link)
        })
    }

    /// One at a time takes in the log.
    pub(super) fn emptying(&self) -> MutexGuard<'_, ()> {
        self.emptying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Redis has lost changes that it had acknowledged: it takes no more under this leader.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Does something on a connection, and again on a new one if need be.
    pub(super) fn with<T>(
        &self,
        mut work: impl FnMut(&mut Inner, &mut Link) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut inner = self.inner();
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.with(|link| work(&mut inner, link))
            .map_err(|error| match error {
                StoreError::WentBack { found, .. } => {
                    self.is_behind.store(true, Ordering::Relaxed);
                    StoreError::WentBack {
                        found,
                        acknowledged: inner.acknowledged,
                    }
                }
                other => other,
            })
    }

    /// Changes rows at once; with `of_large` they are the first part of a large change, which is dropped with it.
    pub(super) fn change(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        changes: Changes<'_>,
        of_large: bool,
    ) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE, HEAD, STAGED]);
        let number = inner.attempt();
        call.with(self.fence.as_str())
            .number(inner.acknowledged)
            .number(number.saturating_sub(1))
            .number(number)
            .number(u64::from(of_large));
        add_rows(&mut call, changes.iter());
        let _done: u64 = link.change(Script::Change, call)?;
        inner.acknowledged = number;
        Ok(())
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locked after `inner`, if both are.
    pub(super) fn overlay(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn overlay_mut(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a batch durable: a small one in the log, a large one in the rows. So is the stamp of the layout: a build that knows no log must
    /// find it.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let is_stamp = batch
            .changes()
            .iter()
            .any(|(table, key, _)| table == Table::Meta && key == LAYOUT);
        if batch.size_bytes() <= ENTRY_BYTES_MOST && !is_stamp {
            return self.with(|inner, link| {
                self.apply_large(inner, link)?;
                self.append(inner, link, batch)
            });
        }
        // What is in the log is older, and must not be applied after it.
        self.is_awaited.store(true, Ordering::Relaxed);
        let _alone = self.emptying();
        self.is_awaited.store(false, Ordering::Relaxed);
        self.with(|inner, link| {
            self.apply_large(inner, link)?;
            self.empty_on(inner, link)?;
            if is_stamp && batch.len() <= super::MAX_ROWS_AT_ONCE {
                return self.change(inner, link, batch.changes(), false);
            }
            self.stage_large(inner, link, batch.changes())?;
            self.apply_large(inner, link)
        })
    }
}

// === impl Inner ===

impl Inner {
    /// The number of a new attempt to change something. None is used twice: the answer to an old one may be lost, and it may still be made.
    pub(super) fn attempt(&mut self) -> u64 {
        self.tried = self.tried.saturating_add(1);
        self.tried
    }
}

/// Adds rows to the call of a script that changes them.
pub(super) fn add_rows<'a>(
    call: &mut Call,
    rows: impl Iterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>,
) {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (table, key, value) in rows {
        let mut place = |call: &mut Call, name: String| match places.get(&name) {
            Some(place) => *place as u64,
            None => {
                let place = call.key(name.clone());
                places.insert(name, place);
                place as u64
            }
        };
        let hash = place(call, hash_of(table, first_byte(key)));
        let index = index_of(table).map_or(0, |name| place(call, name));
        call.number(hash)
            .number(index)
            .with(key)
            .number(u64::from(value.is_some()))
            .with(value.unwrap_or_default());
    }
}
