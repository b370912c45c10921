//! Who leads: the one whose fence is in Redis, for as long as it says so.
//!
//! The fence makes a second leader harmless: whatever the first one still sends is refused. The lease only says when another one may
//! try, and until when the leader may answer what needs no change; so clocks must run at about the same speed, and need not agree.

use super::super::encoding::encode_changes;
use super::super::start::CLEAN;
use super::super::{Batch, StoreError, Table};
use super::link::{Call, Line};
use super::scripts::{FENCE, HEAD, LEASE, LOG, Script, TERM, hash_of};
use super::{RedisUrl, first_byte};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who says nothing for so long has left the lead to others.
const LEASE_TTL: Duration = Duration::from_secs(5);
/// The leader takes it to be shorter than Redis does.
const MARGIN: Duration = Duration::from_millis(250);

/// A process that wants to lead.
#[derive(Debug)]
pub struct Candidate {
    address: String,
    /// The newest change that it has seen the store have.
    head: AtomicU64,
    line: Mutex<Line>,
}

/// What became of an attempt to lead.
#[derive(Debug)]
pub enum Standing {
    /// This process leads.
    Leads(Lease),
    /// Another one does.
    Follows {
        /// Where it is.
        leader: String,
    },
}

/// The lead, while it lasts.
#[derive(Debug)]
pub struct Lease {
    fence: String,
    until: Mutex<Instant>,
}

// === impl Candidate ===

impl Candidate {
    /// A process that others reach at `address`.
    #[must_use]
    pub fn new(nodes: Vec<RedisUrl>, address: String) -> Self {
        Self {
            address,
            head: AtomicU64::new(0),
            line: Mutex::new(Line::new(nodes)),
        }
    }

    /// Takes the lead, if nobody has it.
    ///
    /// # Errors
    /// When Redis cannot be reached, cannot be used as a store, or has lost everything that it had.
    pub fn stand(&self) -> Result<Standing, StoreError> {
        let nonce = getrandom::u64().map_err(|error| {
            StoreError::Unsuitable(format!("the system gives no random numbers: {error}"))
        })?;
        let asked_at = Instant::now();
        let (fence, leader, head): (String, String, u64) = self.call(|| {
            let mut unmark = Batch::default();
            unmark.delete(Table::Meta, CLEAN);
            let mut entry = Vec::new();
            encode_changes(unmark.changes(), &mut entry);
            let mut call = Call::on(&[FENCE, TERM, LEASE, HEAD, LOG]);
            call.key(hash_of(Table::Meta, first_byte(CLEAN)));
            call.with(format!("{nonce:016x}"))
                .with(self.address.as_str())
                .number(millis(LEASE_TTL))
                .number(self.head.load(Ordering::Relaxed))
                .with(entry)
                .with(CLEAN);
            (Script::Lead, call)
        })?;
        let seen = self.head.fetch_max(head, Ordering::Relaxed);
        if head < seen && !fence.is_empty() {
            tracing::error!(
                head,
                seen,
                "the store has lost changes that it had: this replica begins with what is left, as after a crash"
            );
            self.head.store(head, Ordering::Relaxed);
        }
        if fence.is_empty() {
            return Ok(Standing::Follows { leader });
        }
        Ok(Standing::Leads(Lease {
            fence,
            until: Mutex::new(until(asked_at)),
        }))
    }

    /// Notes how far the store is known to have been.
    pub fn has_seen(&self, head: u64) {
        self.head.fetch_max(head, Ordering::Relaxed);
    }

    /// Says that this process still leads.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another one does; else when Redis cannot be reached.
    pub fn renew(&self, lease: &Lease) -> Result<(), StoreError> {
        let asked_at = Instant::now();
        let head = self.call(|| {
            let mut call = Call::on(&[FENCE, LEASE, HEAD]);
            call.with(lease.fence.as_str())
                .with(self.address.as_str())
                .number(millis(LEASE_TTL));
            (Script::Renew, call)
        })?;
        self.has_seen(head);
        *lease.until.lock().unwrap_or_else(PoisonError::into_inner) = until(asked_at);
        Ok(())
    }

    /// Leaves the lead to others at once. Everything that should be kept must be durable by now.
    ///
    /// # Errors
    /// When Redis cannot be reached; others wait for the end of the lease then.
    pub fn resign(&self, lease: &Lease) -> Result<(), StoreError> {
        let _done: u64 = self.call(|| {
            let mut call = Call::on(&[FENCE, LEASE]);
            call.with(lease.fence.as_str());
            (Script::Resign, call)
        })?;
        Ok(())
    }

    fn call<T: redis::FromRedisValue>(
        &self,
        make: impl Fn() -> (Script, Call),
    ) -> Result<T, StoreError> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.with(|link| {
            let (script, call) = make();
            link.change(script, call)
        })
    }
}

// === impl Lease ===

impl Lease {
    /// What changes are made under.
    pub(super) fn fence(&self) -> &str {
        &self.fence
    }

    /// Whether nobody else can lead yet.
    #[must_use]
    pub fn is_held(&self) -> bool {
        Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a word that was sent at a time holds.
fn until(asked_at: Instant) -> Instant {
    asked_at + LEASE_TTL.saturating_sub(MARGIN)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
