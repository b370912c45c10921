//! The store in Redis, for more than one `forebay serve`: on one node, or in a cluster with replicas.
//!
//! ```text
//!   {forebay}:TABLE:BYTE   hash   the rows whose keys begin with that byte
//!   {forebay}:TABLE:keys   zset   all keys, of tables of which parts are asked for
//!   {forebay}:head         number of the newest change
//!   {forebay}:fence        who may change anything      {forebay}:lease   who leads, while it says so
//! ```
//! One process leads and has everything in memory; Redis is what its successor begins with. So rows are never read to be changed, each
//! change is one script, and it counts when a replica has it too. Locks per row and a read before each write, as several
//! writers would need, were the worse alternative: a sync would take as many round trips as it has customers.
//!
//! After a failover of Redis the head tells whether the new master has all that was acknowledged. When it has not, nothing is changed any
//! more under this leader: the next one begins as after a crash.

mod doubts;
mod large;
mod lease;
mod link;
mod scripts;
mod url;

pub use doubts::doubts;
pub use lease::{Candidate, Lease, Standing};
pub use url::RedisUrl;

use super::{Batch, Change, Row, Store, StoreError, Table, Visitor};
use link::{Call, Line, Link, Trouble};
use redis::cmd;
use scripts::{FENCE, HEAD, STAGED, Script, hash_of, index_of};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows that one script changes: Redis serves nobody else meanwhile, and takes some milliseconds for so many.
const MAX_ROWS_AT_ONCE: usize = 4_096;

/// The store of the one who leads.
#[derive(Debug)]
pub struct RedisStore {
    fence: String,
    inner: Mutex<Inner>,
    line: Mutex<Line>,
    /// Redis has lost what it had acknowledged.
    is_behind: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    /// The newest change that is known to be made.
    acknowledged: u64,
    /// The newest change that may have been made.
    tried: u64,
    /// A large change counts as made, and some of its rows may be as they were.
    is_unapplied: bool,
}

// === impl RedisStore ===

impl RedisStore {
    /// Opens the store for the process that leads under `lease`.
    ///
    /// # Errors
    /// When Redis cannot be reached, or another process leads by now.
    pub fn open(nodes: Vec<RedisUrl>, lease: &Lease) -> Result<Self, StoreError> {
        let store = Self {
            fence: lease.fence().to_owned(),
            inner: Mutex::default(),
            line: Mutex::new(Line::new(nodes)),
            is_behind: AtomicBool::new(false),
        };
        store.with(|inner, link| {
            let head: Option<u64> = link.ask(cmd("GET").arg(HEAD))?;
            inner.acknowledged = head.unwrap_or(0);
            inner.tried = inner.acknowledged;
            inner.is_unapplied = true;
            store.apply_large(inner, link)
        })?;
        Ok(store)
    }

    /// Whether Redis has lost changes that it had acknowledged: it takes no more under this leader.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Number of the newest change that is known to be made.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.inner().acknowledged
    }

    /// Does something on a connection, and again on a new one if need be.
    fn with<T>(
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
    fn change(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        changes: &[Change],
        of_large: bool,
    ) -> Result<(), Trouble> {
        let mut call = Call::on(&[FENCE, HEAD, STAGED]);
        let mut keys: BTreeMap<String, usize> = BTreeMap::new();
        let number = inner.attempt();
        call.with(self.fence.as_str())
            .number(inner.acknowledged)
            .number(number.saturating_sub(1))
            .number(number)
            .number(u64::from(of_large));
        for (table, key, value) in changes {
            let hash = hash_of(*table, first_byte(key));
            let mut place = |key: String| match keys.get(&key) {
                Some(place) => *place as u64,
                None => {
                    let place = call.key(key.clone());
                    keys.insert(key, place);
                    place as u64
                }
            };
            let hash = place(hash);
            let index = index_of(*table).map_or(0, &mut place);
            call.number(hash)
                .number(index)
                .with(key.as_ref())
                .number(u64::from(value.is_some()))
                .with(value.as_deref().unwrap_or_default());
        }
        let _done: u64 = link.change(Script::Change, call)?;
        inner.acknowledged = number;
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for RedisStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.with(|inner, link| {
            self.apply_large(inner, link)?;
            if batch.len() > MAX_ROWS_AT_ONCE {
                self.stage_large(inner, link, batch.changes())?;
                return self.apply_large(inner, link);
            }
            self.change(inner, link, batch.changes(), false)
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|_, link| link.ask(cmd("HGET").arg(hash_of(table, first_byte(key))).arg(key)))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        self.with(|_, link| {
            let Some(index) = index_of(table) else {
                let mut rows = Vec::new();
                for first in first_byte(from)..=first_byte(to) {
                    let mut keys = keys_of(link, table, first)?;
                    keys.retain(|key| (from..=to).contains(&key.as_slice()));
                    rows.extend(rows_of(link, table, &keys)?);
                }
                return Ok(rows);
            };
            let keys: Vec<Vec<u8>> = link.ask(
                cmd("ZRANGEBYLEX")
                    .arg(index)
                    .arg([b"[", from].concat())
                    .arg([b"[", to].concat()),
            )?;
            rows_of(link, table, &keys)
        })
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        for first in 0..=u8::MAX {
            let keys = self.with(|_, link| keys_of(link, table, first))?;
            for keys in keys.chunks(rows_at_once(table)) {
                let rows = self.with(|_, link| rows_of(link, table, keys))?;
                rows.iter()
                    .try_for_each(|(key, value)| visitor(key, value))?;
            }
        }
        Ok(())
    }
}

// === impl Inner ===

impl Inner {
    /// The number of a new attempt to change something. None is used twice: the answer to an old one may be lost, and it may still be made.
    fn attempt(&mut self) -> u64 {
        self.tried = self.tried.saturating_add(1);
        self.tried
    }
}

/// The keys that begin with a byte, in their order.
fn keys_of(link: &mut Link, table: Table, first: u8) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut keys: Vec<Vec<u8>> = link.ask(cmd("HKEYS").arg(hash_of(table, first)))?;
    keys.sort_unstable();
    Ok(keys)
}

/// The rows of keys in their order, as far as they are there.
fn rows_of(link: &mut Link, table: Table, keys: &[Vec<u8>]) -> Result<Vec<Row>, Trouble> {
    let mut rows = Vec::with_capacity(keys.len());
    for of_byte in keys.chunk_by(|one, other| first_byte(one) == first_byte(other)) {
        let first = of_byte.first().map_or(0, |key| first_byte(key));
        for keys in of_byte.chunks(rows_at_once(table)) {
            let values: Vec<Option<Vec<u8>>> =
                link.ask(cmd("HMGET").arg(hash_of(table, first)).arg(keys))?;
            let there = keys.iter().cloned().zip(values);
            rows.extend(there.filter_map(|(key, value)| Some((key, value?))));
        }
    }
    Ok(rows)
}

/// Rows that are read with one answer. Documents of policies may be as large as a hundred megabytes.
const fn rows_at_once(table: Table) -> usize {
    match table {
        Table::Policies | Table::ModelFiles => 1,
        _ => 1_024,
    }
}

fn first_byte(key: &[u8]) -> u8 {
    key.first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::leading;
