//! A gateway whose buckets are the production entries of `forebay-core`, and an ideal bucket that looks on.
//!
//! Messages are the real ones; the ledger is a map of entries, and chunks are lent and spent as workers do. Each admission must find
//! its tokens in the ideal bucket of the customer's whole contract, which is the bound `burst + rate x t` over every window of time.

use super::{TestServer, hash};
use axum::http::StatusCode;
use forebay_core::bucket::Bucket;
use forebay_core::grant::{Grant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::Entry;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::{Contract, ContractIndex, Limits, Resource, ShadowRule, Tier, Unknown};
use forebay_core::{CustomerHash, Micro, PerResource, Policy, Rate, ResourceIndex, TimeUs};
use forebay_wire::key::{self, KeySecret};
use forebay_wire::sync::{CustomerReport, FLAG_NOT_GRANTED, PROTOCOL, SyncReply, SyncRequest};
use std::collections::BTreeMap;

const FIRST: ResourceIndex = ResourceIndex::FIRST;

/// Each bucket may be ahead by the fraction of a micro-token that it carries.
const ROUNDING: Micro = Micro::new(64);

/// One gateway.
#[derive(Debug)]
pub(crate) struct LedgerGateway {
    id: String,
    incarnation: u64,
    sequence: u64,
    applied: u64,
    epoch: u64,
    cursor: u64,
    lease: Lease,
    policy: Policy,
    entries: BTreeMap<String, Held>,
    pub(crate) interval_ms: u32,
}

/// One customer at the gateway.
#[derive(Debug)]
struct Held {
    entry: Entry,
    demand: u64,
    admitted: u64,
    chunks: Vec<(Micro, TimeUs)>,
}

/// The whole contract of each customer as one bucket.
#[derive(Debug)]
pub(crate) struct Ideal {
    limits: Limits,
    buckets: BTreeMap<String, (Bucket, TimeUs)>,
}

// === impl Ideal ===

impl Ideal {
    pub(crate) fn new(limits: Limits, customers: &[&str], now: TimeUs) -> Self {
        let full = Bucket::full(limits.burst.plus(ROUNDING));
        Self {
            limits,
            buckets: customers
                .iter()
                .map(|customer| ((*customer).to_owned(), (full, now)))
                .collect(),
        }
    }

    fn admit(&mut self, customer: &str, amount: Micro, now: TimeUs) {
        let (bucket, at) = self.buckets.get_mut(customer).unwrap();
        let depth = self.limits.burst.plus(ROUNDING);
        bucket.refill(self.limits.rate, depth, now.since(*at));
        *at = now;
        bucket.take(amount);
        assert!(
            bucket.level >= Micro::ZERO,
            "the fleet has admitted {} micro-tokens of {customer} more than one bucket would",
            -bucket.level.get()
        );
    }
}

// === impl LedgerGateway ===

impl LedgerGateway {
    pub(crate) fn new(
        id: &str,
        incarnation: u64,
        limits: Limits,
        customers: &[&str],
        now: TimeUs,
    ) -> Self {
        let policy = Policy {
            epoch: 1,
            dry_run: false,
            resources: vec![Resource {
                name: "requests".into(),
                pool: None,
            }],
            contracts: vec![Contract {
                name: "gold".into(),
                tier: Tier::One,
                priority: 0,
                weight: 1,
                limits: PerResource::only_first(limits),
            }],
            unknown: Unknown::Deny,
            shadow: ShadowRule::default(),
        };
        let entries = customers.iter().map(|customer| {
            let mut entry =
                Entry::absent_since(CustomerHash(hash(customer).0), ContractIndex(0), now);
            entry.flags.in_policy = true;
            let held = Held {
                entry,
                demand: 0,
                admitted: 0,
                chunks: Vec::new(),
            };
            ((*customer).to_owned(), held)
        });
        Self {
            id: id.to_owned(),
            incarnation,
            sequence: 0,
            applied: 0,
            epoch: 0,
            cursor: 0,
            lease: Lease::Waiting,
            entries: entries.collect(),
            policy,
            interval_ms: 0,
        }
    }

    fn refill(&mut self, customer: &str, now: TimeUs) -> &mut Held {
        let held = self.entries.get_mut(customer).unwrap();
        held.entry.refill(&self.policy, &self.lease, now);
        held
    }

    /// Asks for `tokens`; returns whether they were admitted.
    pub(crate) fn request(
        &mut self,
        customer: &str,
        tokens: Micro,
        ideal: &mut Ideal,
        now: TimeUs,
    ) -> bool {
        let held = self.refill(customer, now);
        held.demand += tokens.get().unsigned_abs();
        let holding = held.entry.holdings.at_mut(FIRST);
        let is_admitted = holding.contract.level >= tokens;
        if is_admitted {
            holding.contract.take(tokens);
            held.admitted += tokens.get().unsigned_abs();
            ideal.admit(customer, tokens, now);
        }
        is_admitted
    }

    /// Everything that the bucket holds is admitted. Returns how much that was.
    pub(crate) fn drain(&mut self, customer: &str, ideal: &mut Ideal, now: TimeUs) -> Micro {
        let held = self.refill(customer, now);
        let holding = held.entry.holdings.at_mut(FIRST);
        let level = holding.contract.level.at_least_zero();
        holding.contract.take(level);
        held.demand += level.get().unsigned_abs();
        held.admitted += level.get().unsigned_abs();
        ideal.admit(customer, level, now);
        level
    }

    /// A worker draws a chunk.
    pub(crate) fn lend(&mut self, customer: &str, tokens: Micro, now: TimeUs) {
        let held = self.refill(customer, now);
        let holding = held.entry.holdings.at_mut(FIRST);
        let amount = holding.contract.level.min(tokens);
        if amount > Micro::ZERO {
            holding.contract.take(amount);
            holding.outstanding.lend(amount);
            held.chunks.push((amount, now));
        }
    }

    /// A worker spends a part of a chunk, and gives the rest back.
    pub(crate) fn spend_chunk(
        &mut self,
        customer: &str,
        tokens: Micro,
        ideal: &mut Ideal,
        now: TimeUs,
    ) {
        let (lease, policy) = (self.lease, self.policy.clone());
        let held = self.refill(customer, now);
        let Some((amount, drawn_at)) = held.chunks.pop() else {
            return;
        };
        if now.since(drawn_at) >= CHUNK_LIFE_US {
            return;
        }
        let spent = tokens.min(amount);
        let holding = held.entry.holdings.at_mut(FIRST);
        holding.outstanding.settle(amount, drawn_at, now);
        held.entry.put(FIRST, amount.minus(spent), &policy, &lease);
        held.demand += spent.get().unsigned_abs();
        held.admitted += spent.get().unsigned_abs();
        ideal.admit(customer, spent, now);
    }

    /// The next request, with what is true now.
    pub(crate) fn next_request(&mut self, now: TimeUs) -> SyncRequest {
        self.sequence += 1;
        let names: Vec<String> = self.entries.keys().cloned().collect();
        let reports = names.iter().map(|customer| {
            let (applied, epoch) = (self.applied, self.epoch);
            let held = self.refill(customer, now);
            let holding = held.entry.holdings.at(FIRST);
            let (hash_high, hash_low) = key::CustomerHash(held.entry.customer.0).parts();
            let flags = if held.entry.is_granted(FIRST) {
                0
            } else {
                FLAG_NOT_GRANTED
            };
            (epoch > 0).then_some(CustomerReport {
                hash_high,
                hash_low,
                demand_micro: held.demand,
                admitted_micro: held.admitted,
                balance_micro: holding.outstanding.balance(holding.contract.level).get(),
                granted_seen_micro: holding.moved_cum,
                counted_since_us: 1,
                reply_applied: applied,
                flags,
                ..CustomerReport::default()
            })
        });
        let customers = reports.flatten().collect();
        SyncRequest {
            protocol: PROTOCOL,
            gateway_id: self.id.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            sent_at_us: now.0,
            key_fingerprint: KeySecret::development().fingerprint(),
            policy_epoch_applied: self.epoch,
            policy_epoch_seen: self.epoch,
            policy_cursor: self.cursor,
            customers,
            reply_applied: self.applied,
            ..SyncRequest::default()
        }
    }

    /// Applies a reply in the order in which the forecaster does; `in_full` is false if the gateway is cut short before the end.
    pub(crate) fn apply(&mut self, reply: &SyncReply, in_full: bool, now: TimeUs) {
        if reply.sequence != self.sequence || reply.error.is_some() {
            return;
        }
        if let Some(policy) = &reply.policy {
            assert!(policy.complete, "the tests' policies fit into one part");
            (self.epoch, self.cursor) = (policy.epoch, policy.cursor);
        }
        self.interval_ms = match reply.early_sync_ms {
            0 => reply.sync_interval_ms,
            early_ms => early_ms,
        };
        let until = TimeUs(reply.sent_at_us).plus_us(u64::from(reply.lease_ttl_ms) * 1_000);
        let fallback_until = until.plus_us(u64::from(reply.fallback_ttl_ms) * 1_000);
        let renewed = self.lease.renewed(now, until, fallback_until);
        let has_lease = reply.lease_ttl_ms > 0;
        if has_lease && (self.lease == Lease::Waiting || self.lease.is_over(now)) {
            self.lease = renewed;
        }
        for grant in &reply.grants {
            let customer =
                CustomerHash(key::CustomerHash::from_parts(grant.hash_high, grant.hash_low).0);
            let held = self
                .entries
                .values_mut()
                .find(|held| held.entry.customer == customer)
                .unwrap();
            let grant = Grant {
                terms: GrantTerms {
                    rate: Rate::new(grant.rate_micro_per_s),
                    cap: Micro::new(i64::try_from(grant.local_cap_micro).unwrap()),
                    fallback_rate: Rate::new(grant.fallback_rate_micro_per_s),
                },
                granted_cum: grant.granted_cum_micro,
                adjust_cum: grant.adjust_cum_micro,
                base_cum: grant.base_cum_micro,
            };
            held.entry
                .apply_grant(FIRST, &grant, &self.policy, &self.lease, now);
            if !in_full {
                return;
            }
        }
        if in_full {
            if has_lease {
                self.lease = self.lease.renewed(now, until, fallback_until);
            }
            self.applied = reply.sequence;
        }
    }

    /// Syncs, and applies the reply.
    pub(crate) async fn sync(&mut self, server: &TestServer, now: TimeUs) -> SyncReply {
        let request = self.next_request(now);
        let (status, reply) = server.sync(&request).await;
        assert_eq!(status, StatusCode::OK, "{reply:?}");
        self.apply(&reply, true, now);
        reply
    }

    /// Tokens per second that it was granted last.
    pub(crate) fn rate_per_s(&self, customer: &str) -> f64 {
        let held = &self.entries[customer];
        held.entry.holdings.at(FIRST).terms.rate.get() as f64 / 1e6
    }

    /// Tokens in its bucket.
    pub(crate) fn level(&mut self, customer: &str, now: TimeUs) -> f64 {
        let held = self.refill(customer, now);
        held.entry.holdings.at(FIRST).contract.level.get() as f64 / 1e6
    }
}
