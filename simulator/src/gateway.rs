//! A gateway as the control plane knows it: entries, a lease, and a side of the sync protocol.
//!
//! It applies replies in the order in which the forecaster plugin does: the lease first where there is none, then grants, then the
//! lease. Entries are made when something is granted or asked for, not for each customer of the policy: a fleet of these must
//! fit into one process. A customer is charged at its standard bucket alone; pools are not modelled.

use crate::random::Random;
use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::Entry;
use forebay_core::policy::ContractIndex;
use forebay_core::{CoreError, CustomerHash, Micro, Policy, Rate, ResourceIndex, TimeUs};
use forebay_wire::key;
use forebay_wire::sync::{
    CustomerReport, FLAG_NOT_GRANTED, FLAG_REMOVED, Grant as WireGrant, PROTOCOL, PolicyDelta,
    SyncReply, SyncRequest,
};
use hashbrown::HashMap;
use std::collections::BTreeSet;

/// A gateway looks for denials at this pace.
const LOOKS_EVERY_US: u64 = 200_000;

const FIRST: ResourceIndex = ResourceIndex::FIRST;

/// One gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    id: String,
    incarnation: u64,
    key_fingerprint: u64,
    /// Where in each period it looks for denials.
    looks_after_us: u64,
    sequence: u64,
    reply_applied: u64,
    lease: Lease,
    policy: Option<Policy>,
    /// Epoch and cursor of the last part of a policy.
    policy_seen: (u64, u64),
    epoch_applied: u64,
    /// Customers of the policy.
    listed: HashMap<CustomerHash, ContractIndex>,
    entries: HashMap<CustomerHash, Entry>,
    /// Whose counters or grants have changed since the last sync. In order, so that a run can be repeated to the byte.
    changed: BTreeSet<CustomerHash>,
    /// Whom the last sync reported about, until it is answered.
    unanswered: Vec<CustomerHash>,
}

/// What a customer has asked for at a gateway, in micro-tokens since its entry was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Admitted.
    pub admitted: u64,
    /// Denied.
    pub denied: u64,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway that has never synced.
    #[must_use]
    pub fn new(id: String, incarnation: u64, key_fingerprint: u64) -> Self {
        let of_id = id.bytes().fold(incarnation, |seed, byte| {
            Random::new(seed ^ u64::from(byte)).next_u64()
        });
        Self {
            id,
            incarnation,
            key_fingerprint,
            looks_after_us: of_id % LOOKS_EVERY_US,
            sequence: 0,
            reply_applied: 0,
            lease: Lease::Waiting,
            policy: None,
            policy_seen: (0, 0),
            epoch_applied: 0,
            listed: HashMap::new(),
            entries: HashMap::new(),
            changed: BTreeSet::new(),
            unanswered: Vec::new(),
        }
    }

    /// Whether a policy is in force.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.epoch_applied > 0
    }

    /// A request of `cost` tokens of the first resource. Returns whether it is admitted.
    pub fn request(&mut self, customer: CustomerHash, cost: Micro, now: TimeUs) -> bool {
        let (Some(policy), Some(contract)) = (&self.policy, self.listed.get(&customer)) else {
            return false;
        };
        let entry = entry(&mut self.entries, customer, *contract, now);
        entry.refill(policy, &self.lease, now);
        let holding = entry.holdings.at_mut(FIRST);
        let is_admitted = holding.contract.level >= cost;
        let micro = cost.get().unsigned_abs();
        if is_admitted {
            holding.contract.take(cost);
            holding.admitted_cum = holding.admitted_cum.wrapping_add(micro);
        } else {
            holding.denied_cum = holding.denied_cum.wrapping_add(micro);
        }
        self.changed.insert(customer);
        is_admitted
    }

    /// Whether a part of the customer's rate is not here: a sync may bring more of it.
    #[must_use]
    pub fn lies_elsewhere(&self, customer: CustomerHash) -> bool {
        let limits = self.entries.get(&customer).and_then(|entry| {
            let contract = self.policy.as_ref()?.contract(entry.contract)?;
            Some((entry, contract.limits.at(FIRST)))
        });
        limits.is_some_and(|(entry, limits)| entry.holdings.at(FIRST).terms.rate < limits.rate)
    }

    /// When it finds out about a denial. Gateways do not look at one time: their syncs would come at one time from then on.
    #[must_use]
    pub const fn looks_at(&self, denied_at: TimeUs) -> TimeUs {
        let since_us = denied_at.0.saturating_sub(self.looks_after_us);
        TimeUs(since_us.next_multiple_of(LOOKS_EVERY_US) + self.looks_after_us)
    }

    /// What a customer has asked for here.
    #[must_use]
    pub fn counters(&self, customer: CustomerHash) -> Counters {
        self.entries
            .get(&customer)
            .map_or_else(Counters::default, |entry| {
                let holding = entry.holdings.at(FIRST);
                Counters {
                    admitted: holding.admitted_cum,
                    denied: holding.denied_cum,
                }
            })
    }

    /// The refill that was granted for a customer.
    #[must_use]
    pub fn granted_rate(&self, customer: CustomerHash) -> Rate {
        self.entries
            .get(&customer)
            .map_or(Rate::ZERO, |entry| entry.holdings.at(FIRST).terms.rate)
    }

    /// The next sync, with what is true now.
    #[must_use]
    pub fn next_request(&mut self, now: TimeUs) -> SyncRequest {
        self.sequence = self.sequence.saturating_add(1);
        // A sync that was lost has reported nothing.
        self.changed.extend(self.unanswered.drain(..));
        let mut customers = Vec::with_capacity(self.changed.len());
        if let Some(policy) = &self.policy {
            for customer in std::mem::take(&mut self.changed) {
                if let Some(entry) = self.entries.get_mut(&customer) {
                    entry.refill(policy, &self.lease, now);
                    customers.push(report(entry, self.reply_applied));
                    self.unanswered.push(customer);
                }
            }
        }
        SyncRequest {
            protocol: PROTOCOL,
            gateway_id: self.id.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            sent_at_us: now.0,
            key_fingerprint: self.key_fingerprint,
            policy_epoch_applied: self.epoch_applied,
            policy_epoch_seen: self.policy_seen.0,
            policy_cursor: self.policy_seen.1,
            customers,
            reply_applied: self.reply_applied,
            ..SyncRequest::default()
        }
    }

    /// Applies a reply to the last sync. One to an earlier sync, or a refusal, changes nothing. Returns whether the next sync should come
    /// at once, because this was one part of several.
    ///
    /// # Errors
    /// If the reply carries a policy that is none.
    pub fn apply(&mut self, reply: &SyncReply, now: TimeUs) -> Result<bool, CoreError> {
        if reply.sequence != self.sequence || reply.error.is_some() {
            return Ok(false);
        }
        self.unanswered.clear();
        let is_partial = match &reply.policy {
            Some(delta) => self.install(delta)?,
            None => false,
        };
        if self.policy.is_none() || is_partial {
            return Ok(is_partial);
        }
        let until = TimeUs(reply.sent_at_us).plus_us(u64::from(reply.lease_ttl_ms) * 1_000);
        let fallback_until = until.plus_us(u64::from(reply.fallback_ttl_ms) * 1_000);
        let renewed = self.lease.renewed(now, until, fallback_until);
        let has_lease = reply.lease_ttl_ms > 0;
        if has_lease && (self.lease == Lease::Waiting || self.lease.is_over(now)) {
            self.lease = renewed;
        }
        for grant in &reply.grants {
            self.grant(grant, now);
        }
        if has_lease {
            self.lease = self.lease.renewed(now, until, fallback_until);
        }
        self.reply_applied = reply.sequence;
        if reply.report_all {
            self.changed.extend(self.entries.keys().copied());
        }
        Ok(reply.grants_left)
    }

    /// Takes in a part of a policy. Returns whether more of it is to come.
    fn install(&mut self, delta: &PolicyDelta) -> Result<bool, CoreError> {
        if delta.full {
            self.policy = Some(Policy::decode(&delta.compiled)?);
            self.listed.clear();
        }
        for customer in &delta.customers {
            let hash = of(customer.hash_high, customer.hash_low);
            if customer.flags & FLAG_REMOVED != 0 {
                self.listed.remove(&hash);
                self.entries.remove(&hash);
            } else {
                let contract = u16::try_from(customer.contract).unwrap_or(u16::MAX);
                self.listed.insert(hash, ContractIndex(contract));
            }
        }
        self.policy_seen = (delta.epoch, delta.cursor);
        if delta.complete {
            self.epoch_applied = delta.epoch;
            self.entries
                .retain(|customer, _| self.listed.contains_key(customer));
        }
        Ok(!delta.complete)
    }

    fn grant(&mut self, grant: &WireGrant, now: TimeUs) {
        let customer = of(grant.hash_high, grant.hash_low);
        let (Some(policy), Some(contract)) = (&self.policy, self.listed.get(&customer)) else {
            return;
        };
        if grant.resource != 0 {
            return;
        }
        let terms = GrantTerms {
            rate: Rate::new(grant.rate_micro_per_s),
            cap: Micro::new(i64::try_from(grant.local_cap_micro).unwrap_or(i64::MAX)),
            fallback_rate: Rate::new(grant.fallback_rate_micro_per_s),
        };
        let grant = Grant {
            terms,
            granted_cum: grant.granted_cum_micro,
            adjust_cum: grant.adjust_cum_micro,
            base_cum: grant.base_cum_micro,
        };
        let entry = entry(&mut self.entries, customer, *contract, now);
        entry.apply_grant(FIRST, &grant, policy, &self.lease, now);
        self.changed.insert(customer);
    }
}

fn entry(
    entries: &mut HashMap<CustomerHash, Entry>,
    customer: CustomerHash,
    contract: ContractIndex,
    now: TimeUs,
) -> &mut Entry {
    entries.entry(customer).or_insert_with(|| {
        let mut entry = Entry::absent_since(customer, contract, now);
        entry.flags.in_policy = true;
        entry.counted_since = now;
        entry
    })
}

fn report(entry: &Entry, reply_applied: u64) -> CustomerReport {
    let holding = entry.holdings.at(FIRST);
    let (hash_high, hash_low) = key::CustomerHash(entry.customer.0).parts();
    CustomerReport {
        hash_high,
        hash_low,
        demand_micro: holding.demand_cum(),
        admitted_micro: holding.admitted_cum,
        denied_micro: holding.denied_cum,
        balance_micro: holding.outstanding.balance(holding.contract.level).get(),
        granted_seen_micro: holding.moved_cum,
        counted_since_us: entry.counted_since.0.max(1),
        reply_applied,
        contract: u32::from(entry.contract.0),
        flags: if entry.is_granted(FIRST) {
            0
        } else {
            FLAG_NOT_GRANTED
        },
        ..CustomerReport::default()
    }
}

fn of(hash_high: u64, hash_low: u64) -> CustomerHash {
    CustomerHash(key::CustomerHash::from_parts(hash_high, hash_low).0)
}
