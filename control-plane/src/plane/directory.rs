//! Who is a policy customer, and what a gateway still has to be told about it.
//!
//! A gateway gets the whole directory in parts, and afterwards only what changed. Where it stands is in a cursor that it sends
//! back and that it cannot read: a position in the list while it loads, later a revision of the change log. So the server keeps
//! nothing per gateway, and a lost reply is simply asked for again.

use crate::keys::{Dialect, Keys};
use forebay_core::policy::ContractIndex;
use forebay_policy::CompiledCustomer;
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::{FLAG_EXEMPT, FLAG_FROZEN, FLAG_REMOVED, PolicyCustomer, PolicyDelta};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// Customers in one part: about 150 kB on the wire.
const PART_CUSTOMERS: usize = 4_096;
/// Changes that are remembered. A gateway that is further behind loads the whole list again.
const LOG_LENGTH: usize = 65_536;
/// Bit of the cursor: the whole list is being loaded.
const LOADING: u64 = 1 << 63;
/// Bits of the cursor for the revision; above them, 22 bits for the position in the list.
const REVISION_BITS: u32 = 41;
const REVISION_MASK: u64 = (1 << REVISION_BITS) - 1;

/// What the operator has said about a customer beside the policy; `None` leaves it to the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Denied until this wall-clock time in ms; 0: not banned; `u64::MAX`: without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban_until_unix_ms: Option<u64>,
    /// Never admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Always admitted, and counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<bool>,
}

/// How a customer is to be treated, whatever its buckets hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Denied until this wall-clock time in ms; 0: not banned; `u64::MAX`: without an end.
    pub ban_until_unix_ms: u64,
    /// Never admitted.
    pub frozen: bool,
    /// Always admitted, unless it is banned or frozen.
    pub exempt: bool,
}

/// How many customers the operator treats by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByHand {
    /// Frozen.
    pub frozen: usize,
    /// Banned, and the ban is not over.
    pub banned: usize,
    /// Exempt.
    pub exempt: usize,
}

/// A policy customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Row of the contract table.
    pub contract: ContractIndex,
    /// By the policy: denied until.
    pub ban_until_unix_ms: u64,
    /// By the policy: admit always.
    pub exempt: bool,
    /// By the policy: never admit.
    pub frozen: bool,
    /// False for one that is here only because the operator said something about it.
    pub in_policy: bool,
    /// Its hash under the secret before the rotation.
    pub previous: Option<CustomerHash>,
}

/// All policy customers.
#[derive(Debug, Default)]
pub struct Directory {
    members: HashMap<CustomerHash, Member>,
    overrides: HashMap<CustomerHash, Override>,
    order: Vec<CustomerHash>,
    aliases: HashMap<CustomerHash, CustomerHash>,
    log: VecDeque<CustomerHash>,
    /// Revision of the newest entry of the log; the oldest is `revision - log.len() + 1`.
    revision: u64,
}

// === impl Directory ===

impl Directory {
    /// An empty directory. Revisions start at the wall clock, so that a cursor from another run never fits by chance.
    #[must_use]
    pub fn new(unix_ms: u64) -> Self {
        Self {
            revision: (unix_ms & REVISION_MASK).max(1),
            ..Self::default()
        }
    }

    /// Replaces the customers by those of a policy. `moved` says which row each contract went to. Returns whom the directory
    /// did not list before.
    pub fn replace(
        &mut self,
        customers: &[CompiledCustomer],
        moved: &[ContractIndex],
        unknown: Option<ContractIndex>,
        keys: &Keys,
    ) -> Vec<CustomerHash> {
        let before = std::mem::take(&mut self.members);
        self.aliases.clear();
        self.log.clear();
        self.revision = self.revision.saturating_add(1);
        for customer in customers {
            let hash = keys.hash(&customer.key);
            let previous = keys.previous_hash(&customer.key);
            let contract = moved
                .get(usize::from(customer.contract.0))
                .copied()
                .unwrap_or(customer.contract);
            let member = Member {
                contract,
                ban_until_unix_ms: customer.ban_until_unix_ms,
                exempt: customer.exempt,
                frozen: customer.frozen,
                in_policy: true,
                previous,
            };
            self.members.insert(hash, member);
            if let Some(previous) = previous {
                self.aliases.insert(previous, hash);
            }
        }
        if let Some(contract) = unknown {
            let strangers: Vec<CustomerHash> = self
                .overrides
                .keys()
                .filter(|hash| !self.members.contains_key(*hash))
                .copied()
                .collect();
            for hash in strangers {
                self.members.insert(hash, Member::stranger(contract));
            }
        }
        self.order = self.members.keys().copied().collect();
        self.order.sort_unstable();
        let listed = self.order.iter().copied();
        listed.filter(|hash| !before.contains_key(hash)).collect()
    }

    /// The customer of that hash.
    #[must_use]
    pub fn get(&self, hash: CustomerHash) -> Option<&Member> {
        self.members.get(&hash)
    }

    /// All of them, by hash.
    pub fn iter(&self) -> impl Iterator<Item = (CustomerHash, &Member)> {
        self.order
            .iter()
            .filter_map(|hash| self.members.get(hash).map(|member| (*hash, member)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What the operator has said about a customer.
    #[must_use]
    pub fn override_of(&self, hash: CustomerHash) -> Override {
        self.overrides.get(&hash).copied().unwrap_or_default()
    }

    /// Notes what the operator says. A stranger becomes a member under the contract of unknown customers; then this returns true.
    pub fn set_override(
        &mut self,
        hash: CustomerHash,
        said: Override,
        unknown: Option<ContractIndex>,
    ) -> bool {
        if said == Override::default() {
            self.overrides.remove(&hash);
        } else {
            self.overrides.insert(hash, said);
        }
        let contract = unknown.filter(|_| !self.members.contains_key(&hash));
        if let Some(contract) = contract {
            self.members.insert(hash, Member::stranger(contract));
            self.order.push(hash);
        }
        self.revision = self.revision.saturating_add(1);
        self.log.push_back(hash);
        if self.log.len() > LOG_LENGTH {
            self.log.pop_front();
        }
        contract.is_some()
    }

    /// What is in force, the operator's word before the policy's.
    #[must_use]
    pub fn in_force(&self, hash: CustomerHash, member: &Member) -> InForce {
        let said = self.override_of(hash);
        InForce {
            ban_until_unix_ms: said.ban_until_unix_ms.unwrap_or(member.ban_until_unix_ms),
            frozen: said.frozen.unwrap_or(member.frozen),
            exempt: said.exempt.unwrap_or(member.exempt),
        }
    }

    /// Whether the customer is always admitted.
    #[must_use]
    pub fn is_exempt(&self, customer: CustomerHash) -> bool {
        self.get(customer)
            .is_some_and(|member| self.in_force(customer, member).exempt)
    }

    /// How many customers the operator has frozen, banned beyond a moment, and exempted. Those of the policy are not counted: nobody
    /// forgets what is written down.
    #[must_use]
    pub fn by_hand(&self, unix_ms: u64) -> ByHand {
        let count = |says: fn(&Override, u64) -> bool| {
            let said = self.overrides.values();
            said.filter(|said| says(said, unix_ms)).count()
        };
        ByHand {
            frozen: count(|said, _| said.frozen == Some(true)),
            banned: count(|said, now| said.ban_until_unix_ms.is_some_and(|until| until > now)),
            exempt: count(|said, _| said.exempt == Some(true)),
        }
    }

    /// The hash under which a customer is filed, from the hash that a gateway knows.
    #[must_use]
    pub fn filed(&self, hash: CustomerHash, dialect: Dialect) -> CustomerHash {
        match dialect {
            Dialect::Current => hash,
            Dialect::Previous => self.aliases.get(&hash).copied().unwrap_or(hash),
        }
    }

    /// The hash that a gateway knows a customer by.
    #[must_use]
    pub fn spoken(&self, hash: CustomerHash, dialect: Dialect) -> CustomerHash {
        match dialect {
            Dialect::Current => hash,
            Dialect::Previous => self
                .get(hash)
                .and_then(|member| member.previous)
                .unwrap_or(hash),
        }
    }

    /// What a gateway has to be told that stands at `cursor` of the policy `epoch_seen`; nothing if it knows everything.
    #[must_use]
    pub fn delta(
        &self,
        epoch: u64,
        compiled: &[u8],
        epoch_seen: u64,
        cursor: u64,
        dialect: Dialect,
    ) -> Option<PolicyDelta> {
        let is_known = epoch_seen == epoch && cursor != 0;
        if is_known && cursor & LOADING == 0 {
            let revision = cursor & REVISION_MASK;
            if revision == self.revision {
                return None;
            }
            if let Some(delta) = self.changes_since(epoch, revision, dialect) {
                return Some(delta);
            }
        }
        let (position, revision) = if is_known && cursor & LOADING != 0 {
            let position = (cursor & !LOADING) >> REVISION_BITS;
            (
                usize::try_from(position).unwrap_or(usize::MAX),
                cursor & REVISION_MASK,
            )
        } else {
            (0, self.revision)
        };
        Some(self.part(epoch, compiled, position, revision, dialect))
    }

    fn part(
        &self,
        epoch: u64,
        compiled: &[u8],
        position: usize,
        revision: u64,
        dialect: Dialect,
    ) -> PolicyDelta {
        let end = position
            .saturating_add(PART_CUSTOMERS)
            .min(self.order.len());
        let hashes = self.order.get(position..end).unwrap_or_default();
        let complete = end >= self.order.len();
        let loading = LOADING | (end as u64) << REVISION_BITS | revision;
        PolicyDelta {
            epoch,
            full: position == 0,
            compiled: if position == 0 {
                compiled.to_vec()
            } else {
                Vec::new()
            },
            customers: hashes
                .iter()
                .map(|hash| self.tell(*hash, dialect))
                .collect(),
            cursor: if complete { revision } else { loading },
            complete,
            customers_total: self.order.len() as u64,
        }
    }

    fn changes_since(&self, epoch: u64, revision: u64, dialect: Dialect) -> Option<PolicyDelta> {
        let behind = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let skipped = self.log.len().checked_sub(behind)?;
        let changed: BTreeSet<CustomerHash> = self.log.iter().skip(skipped).copied().collect();
        Some(PolicyDelta {
            epoch,
            full: false,
            compiled: Vec::new(),
            customers: changed
                .into_iter()
                .map(|hash| self.tell(hash, dialect))
                .collect(),
            cursor: self.revision,
            complete: true,
            customers_total: self.order.len() as u64,
        })
    }

    fn tell(&self, hash: CustomerHash, dialect: Dialect) -> PolicyCustomer {
        let (hash_high, hash_low) = self.spoken(hash, dialect).parts();
        let Some(member) = self.get(hash) else {
            return PolicyCustomer {
                hash_high,
                hash_low,
                flags: FLAG_REMOVED,
                ..PolicyCustomer::default()
            };
        };
        let in_force = self.in_force(hash, member);
        let exempt = if in_force.exempt { FLAG_EXEMPT } else { 0 };
        let frozen = if in_force.frozen { FLAG_FROZEN } else { 0 };
        PolicyCustomer {
            hash_high,
            hash_low,
            contract: u32::from(member.contract.0),
            flags: exempt | frozen,
            ban_until_unix_ms: in_force.ban_until_unix_ms,
        }
    }

    /// Puts back what the store knows of the operator's words, before any policy is loaded.
    pub fn restore_override(&mut self, hash: CustomerHash, said: Override) {
        self.overrides.insert(hash, said);
    }
}

// === impl Member ===

impl Member {
    fn stranger(contract: ContractIndex) -> Self {
        Self {
            contract,
            ban_until_unix_ms: 0,
            exempt: false,
            frozen: false,
            in_policy: false,
            previous: None,
        }
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
