//! The store in Redis, for more than one `forebay serve`: on one node, or in a cluster with replicas.
//!
//! ```text
//!   {forebay}:TABLE:BYTE   hash   the rows whose keys begin with that byte
//!   {forebay}:TABLE:keys   zset   all keys, of tables of which parts are asked for
//!   {forebay}:log          list   changes that the rows have not taken in yet, in their order
//!   {forebay}:head         number of the newest change
//!   {forebay}:fence        who may change anything      {forebay}:lease   who leads, while it says so
//! ```
//! One process leads and has everything in memory; Redis is what its successor begins with. So rows are never read to be changed, each
//! change is one script, and it counts when it is in the log and a replica has it too. Locks per row and a read before each write, as several
//! writers would need, were the worse alternative: a sync would take as many round trips as it has customers.
//!
//! After a failover of Redis the head tells whether the new master has all that was acknowledged. When it has not, nothing is changed any
//! more under this leader: the next one begins as after a crash.

mod doubts;
mod keeper;
mod large;
mod lease;
mod link;
mod log;
mod scripts;
mod url;

pub use doubts::doubts;
pub use lease::{Candidate, Lease, Standing};
pub use url::RedisUrl;

use super::overlay::Merge;
use super::{Batch, Row, Store, StoreError, Table, Visitor};
use keeper::Keeper;
use link::{Link, Trouble, fields};
use redis::cmd;
use scripts::{hash_of, index_of};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Rows that one script changes: Redis serves nobody else meanwhile, and takes some milliseconds for so many.
const MAX_ROWS_AT_ONCE: usize = 4_096;
/// And their bytes, unless one alone has more: Redis takes no argument of more than 512 MiB.
const MAX_BYTES_AT_ONCE: usize = 16 << 20;

/// Rows take the log in after this time.
const EMPTIED_EVERY: Duration = Duration::from_secs(15);
/// Or when it has grown to this: Redis has it in memory.
const LOG_BYTES: usize = 32 << 20;

/// The store of the one who leads.
#[derive(Debug)]
pub struct RedisStore {
    keeper: Arc<Keeper>,
    /// Tells the thread that empties the log to do so now; closed to stop it.
    wake: Option<Sender<()>>,
    emptying: Option<JoinHandle<()>>,
}

// === impl RedisStore ===

impl RedisStore {
    /// Opens the store for the process that leads under `lease`.
    ///
    /// # Errors
    /// When Redis cannot be reached, or another process leads by now.
    pub fn open(nodes: Vec<RedisUrl>, lease: &Lease) -> Result<Self, StoreError> {
        let keeper = Arc::new(Keeper::new(nodes, lease));
        keeper.begin()?;
        let (wake, woken) = std::sync::mpsc::channel();
        let worker = Arc::clone(&keeper);
        let emptying = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || empty_again_and_again(&worker, &woken))
            .map_err(|error| {
                StoreError::Unsuitable(format!("no thread to empty its log: {error}"))
            })?;
        Ok(Self {
            keeper,
            wake: Some(wake),
            emptying: Some(emptying),
        })
    }

    /// Whether Redis has lost changes that it had acknowledged: it takes no more under this leader.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.keeper.is_behind()
    }

    /// Number of the newest change that is known to be made.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.keeper.inner().acknowledged
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.wake = None;
        self.keeper.is_over.store(true, Ordering::Relaxed);
        if let Some(emptying) = self.emptying.take() {
            drop(emptying.join());
        }
    }
}

/// Until the store is dropped. What is in the log then is taken in by whoever leads next.
fn empty_again_and_again(keeper: &Keeper, woken: &Receiver<()>) {
    while !matches!(
        woken.recv_timeout(EMPTIED_EVERY),
        Err(RecvTimeoutError::Disconnected)
    ) {
        while woken.try_recv().is_ok() {}
        match keeper.empty() {
            Ok(()) => {}
            // The next commit says so to everybody.
            Err(StoreError::Fenced | StoreError::WentBack { .. } | StoreError::Stopped) => return,
            Err(error) => {
                tracing::error!(%error, "the log cannot be brought into the rows of the store; nothing is lost, it is tried again");
            }
        }
    }
}

impl Store for RedisStore {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.keeper.commit(batch)?;
        if self.keeper.inner().logged_bytes >= LOG_BYTES
            && let Some(wake) = &self.wake
        {
            // The thread ends before the store only when another process leads.
            wake.send(()).unwrap_or_default();
        }
        Ok(())
    }

    /// Others may take it before the change does: Redis keeps none for anybody.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        let info: String = self
            .keeper
            .with(|_, link| link.ask(cmd("INFO").arg("memory")))?;
        let fields = fields(&info);
        let field = |name| fields.get(name).and_then(|value| value.parse().ok());
        let left = field("maxmemory")
            .filter(|most| *most > 0)
            .zip(field("used_memory"))
            .map(|(most, used): (u64, u64)| {
                // Buffers of replicas and of the log on disk are beside the limit.
                let beside = field("mem_not_counted_for_evict").unwrap_or(0);
                most.saturating_sub(used.saturating_sub(beside))
            });
        match left {
            Some(left) if left < bytes => Err(StoreError::NoRoom {
                bytes,
                reason: format!("of Redis' maxmemory {left} bytes are left"),
            }),
            _ => Ok(()),
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.keeper.with(|_, link| {
            let overlay = self.keeper.overlay();
            match overlay.get(table, key) {
                Some(change) => Ok(change.map(<[u8]>::to_vec)),
                None => link.ask(cmd("HGET").arg(hash_of(table, first_byte(key))).arg(key)),
            }
        })
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Row>, StoreError> {
        if from > to {
            return Ok(Vec::new());
        }
        self.keeper.with(|_, link| {
            let overlay = self.keeper.overlay();
            let Some(index) = index_of(table) else {
                let mut rows = Vec::new();
                for first in first_byte(from)..=first_byte(to) {
                    let mut keys = keys_of(link, table, first)?;
                    keys.retain(|key| (from..=to).contains(&key.as_slice()));
                    rows.extend(rows_of(link, table, &keys)?);
                }
                return Ok(overlay.over(rows, table, from, to));
            };
            let keys: Vec<Vec<u8>> = link.ask(
                cmd("ZRANGEBYLEX")
                    .arg(index)
                    .arg([b"[", from].concat())
                    .arg([b"[", to].concat()),
            )?;
            let rows = rows_of(link, table, &keys)?;
            Ok(overlay.over(rows, table, from, to))
        })
    }

    fn visit(&self, table: Table, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
        // Rows as they are by now, whatever reaches them meanwhile.
        let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> = {
            let overlay = self.keeper.overlay();
            let changes = overlay.of(table).into_iter();
            changes
                .map(|(key, change)| (key.to_vec(), change.map(<[u8]>::to_vec)))
                .collect()
        };
        let mut merge = Merge::of(changes);
        for first in 0..=u8::MAX {
            let keys = self.keeper.with(|_, link| keys_of(link, table, first))?;
            for keys in keys.chunks(rows_at_once(table)) {
                let rows = self.keeper.with(|_, link| rows_of(link, table, keys))?;
                rows.iter()
                    .try_for_each(|(key, value)| merge.row(key, value, visitor))?;
            }
        }
        merge.rest(visitor)
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
