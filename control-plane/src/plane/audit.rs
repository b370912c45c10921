//! The audit log as the control plane writes and reads it.
//!
//! A record is made in [`Plane::change`], the only way to change anything on a person's behalf, and goes into the batch of the
//! change. The hashes of the records that are kept are in memory, because the chain goes on before the last record is durable.

use super::Plane;
use super::clock::Now;
use crate::audit::{AuditRecord, Link, hash_of};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::models::hex;
use crate::store::{Batch, Store, StoreError, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Key of the chain's ends in the store: anchor and head, each as number and hash.
const META_AUDIT: &[u8] = b"audit";

/// What somebody is about to do.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    role: &'static str,
    token: String,
    action: &'static str,
    object: String,
    parameters: BTreeMap<String, String>,
}

/// What has come of it.
#[derive(Clone, Debug)]
pub(super) struct Done<T> {
    /// For whoever asked.
    pub value: T,
    /// For the record, in a few words.
    pub outcome: String,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// The newest record that retention has dropped.
    pub anchor: Link,
    /// The newest record.
    pub head: Link,
    /// Records behind the one that was asked for, oldest first.
    pub records: Vec<AuditRecord>,
}

/// The chain, as far as the next record needs it.
#[derive(Debug, Default)]
pub struct AuditLog {
    ends: Ends,
    /// Of the records behind the anchor, oldest first.
    hashes: VecDeque<[u8; 32]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    anchor: (u64, [u8; 32]),
    head: (u64, [u8; 32]),
}

// === impl Deed ===

impl Deed {
    /// Something that somebody does to something.
    #[must_use]
    pub(super) fn new(by: &Caller, action: &'static str, object: impl Into<String>) -> Self {
        Self {
            role: by.role.name(),
            token: by.fingerprint.clone(),
            action,
            object: object.into(),
            parameters: BTreeMap::new(),
        }
    }

    /// Something that the server does by itself, because somebody has told it to when the time comes.
    #[must_use]
    pub(super) fn of_the_server(action: &'static str, object: impl Into<String>) -> Self {
        Self {
            role: "server",
            token: String::new(),
            action,
            object: object.into(),
            parameters: BTreeMap::new(),
        }
    }

    /// With a parameter, if it is given.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.parameters.insert(name.to_owned(), value.to_string());
        }
        self
    }
}

// === impl Done ===

impl<T> Done<T> {
    /// Says what has come of it.
    pub(super) fn new(value: T, outcome: impl Into<String>) -> Self {
        Self {
            value,
            outcome: outcome.into(),
        }
    }
}

// === impl AuditLog ===

impl AuditLog {
    pub(super) fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let ends = Ends::load(store)?;
        let mut hashes = VecDeque::new();
        store.visit(Table::Audit, &mut |_, line| {
            hashes.push_back(hash_of(line));
            Ok(())
        })?;
        Ok(Self { ends, hashes })
    }

    /// Adds the record of a deed to the batch that holds the deed itself.
    pub(super) fn append(
        &mut self,
        batch: &mut Batch,
        deed: Deed,
        outcome: String,
        now: Now,
        keep: usize,
    ) {
        let (last, previous) = self.ends.head;
        let record = AuditRecord {
            sequence: last.saturating_add(1),
            at_unix_ms: now.unix_ms,
            role: deed.role.to_owned(),
            token: deed.token,
            action: deed.action.to_owned(),
            object: deed.object,
            parameters: deed.parameters,
            outcome,
            previous: hex(&previous),
        };
        let line = record.line();
        let hash = hash_of(line.as_bytes());
        batch.put(Table::Audit, record.sequence.to_be_bytes(), line);
        self.hashes.push_back(hash);
        self.ends.head = (record.sequence, hash);
        while self.hashes.len() > keep
            && let Some(dropped) = self.hashes.pop_front()
        {
            let sequence = self.ends.anchor.0.saturating_add(1);
            batch.delete(Table::Audit, sequence.to_be_bytes());
            self.ends.anchor = (sequence, dropped);
        }
        batch.put(Table::Meta, META_AUDIT, self.ends.encode());
    }
}

// === impl Ends ===

impl Ends {
    fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let Some(bytes) = store.get(Table::Meta, META_AUDIT)? else {
            return Ok(Self::default());
        };
        let damaged = || StoreError::Damaged {
            what: "audit log",
            reason: format!("its ends are {} bytes long", bytes.len()),
        };
        let mut rest = bytes.as_slice();
        let mut link = || {
            let (sequence, behind) = rest.split_first_chunk().ok_or_else(damaged)?;
            let (hash, behind) = behind.split_first_chunk().ok_or_else(damaged)?;
            rest = behind;
            Ok((u64::from_be_bytes(*sequence), *hash))
        };
        Ok(Self {
            anchor: link()?,
            head: link()?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        [self.anchor, self.head]
            .iter()
            .flat_map(|(sequence, hash)| [&sequence.to_be_bytes()[..], hash].concat())
            .collect()
    }
}

impl Plane {
    /// The records behind one, oldest first: only what is durable.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn audit(&self, after: u64, limit: u64) -> Result<AuditPage, ApiError> {
        let link = |(sequence, hash): (u64, [u8; 32])| Link {
            sequence,
            hash: hex(&hash),
        };
        let before = Ends::load(&*self.store)?;
        let first = after.max(before.anchor.0).saturating_add(1);
        let last = first.saturating_add(limit.saturating_sub(1));
        let rows = match limit {
            0 => Vec::new(),
            _ => self
                .store
                .range(Table::Audit, &first.to_be_bytes(), &last.to_be_bytes())?,
        };
        let records = rows.iter().map(|(_, line)| serde_json::from_slice(line));
        let records = records.collect::<Result<_, _>>().map_err(|error| {
            ApiError::from(StoreError::Damaged {
                what: "audit record",
                reason: error.to_string(),
            })
        })?;
        // Records may come and go while they are read: none is newer than this head and missing here, none is missing that is
        // newer than this anchor.
        let after = Ends::load(&*self.store)?;
        Ok(AuditPage {
            anchor: link(after.anchor),
            head: link(before.head),
            records,
        })
    }
}
