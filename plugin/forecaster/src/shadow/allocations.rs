//! What the control plane has allocated of the pools: to whom, how much at all gateways together, and until when.
//!
//! Where an allocation holds, it stands in the place of the fleet's forecast. Gateways that each claim what their own forecast says do not
//! know what the pool has for all of them; whoever divides it does.
//!
//! They are kept by customer and not in the series: one may come before its customer does, and a series can lose its place. But only a
//! customer with a series has a claim, so no more are kept than there may be series, and those of customers without one yield.
//!
//! When their time is over they are kept and do not count, because the next reply may say that they hold on and name none of them. A reply
//! that says that none hold, and a new incarnation, forget them.

use forebay_core::ledger::CustomerHash;
use forebay_core::policy::Policy;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_wire::key;
use forebay_wire::sync::{Allocation, SyncReply};
use hashbrown::HashMap;

use crate::limits::ALLOCATION_MS_MOST;
use crate::series::SeriesKey;

/// The allocations that this gateway knows.
#[derive(Debug)]
pub struct Allocations {
    /// Micro-tokens per second, at all gateways together.
    rates: HashMap<SeriesKey, u64>,
    most: usize,
    /// They hold until then.
    until_us: u64,
    /// Claims are made from them.
    is_in_force: bool,
    cycle: u64,
    /// What was granted to this gateway of each pool, in micro-tokens per second; `None` before the first grant.
    of_pools: PerResource<Option<u64>>,
    /// Those of customers without a series may still make room for others on behalf of the reply under way.
    may_make_room: bool,
}

/// One customer's allocation of one pool, and what this gateway has of that pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allocated {
    /// Tokens per second at all gateways together, never more than the pool's capacity.
    pub per_s: f64,
    /// This gateway's part of the pool, 0 to 1: as good a guess as any at its part of a customer whose traffic nobody knows.
    pub part_of_pool: f64,
    /// What this gateway was granted of the pool, in tokens per second.
    pub pool_here_per_s: f64,
}

// === impl Allocations ===

impl Allocations {
    /// None, and never more than `most`.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            rates: HashMap::new(),
            most: usize::try_from(most).unwrap_or(1),
            until_us: 0,
            is_in_force: false,
            cycle: 0,
            of_pools: PerResource::default(),
            may_make_room: false,
        }
    }

    /// A reply to the sync that was sent at `sent_at_us` says how long they hold from then on, and what of the pools lies here. Returns whether some
    /// were forgotten that were in force.
    pub fn heard(&mut self, reply: &SyncReply, sent_at_us: u64) -> bool {
        let hold_us =
            u64::from(reply.allocation_ttl_ms.min(ALLOCATION_MS_MOST)).saturating_mul(1_000);
        if hold_us == 0 {
            self.forget();
        } else {
            self.until_us = sent_at_us.saturating_add(hold_us);
        }
        let is_anew = reply.allocations_anew && self.in_force() > 0;
        if reply.allocations_anew {
            // The cycle stays: until all of this one are here, the server must not take those before it for known.
            self.rates.clear();
        }
        for grant in &reply.pools {
            if let Some(resource) = resource_of(grant.resource) {
                *self.of_pools.at_mut(resource) = Some(grant.rate_micro_per_s);
            }
        }
        self.may_make_room = true;
        is_anew
    }

    /// Keeps an allocation. Returns whether it is another than before. Whether a customer has a series is what `has_series` says.
    pub fn put(
        &mut self,
        key: SeriesKey,
        rate_micro_per_s: u64,
        has_series: impl Fn(&SeriesKey) -> bool,
    ) -> bool {
        if let Some(rate) = self.rates.get_mut(&key) {
            return std::mem::replace(rate, rate_micro_per_s) != rate_micro_per_s;
        }
        if self.rates.len() >= self.most && has_series(&key) {
            // Once in a reply: it is a walk over all of them. Who has no series waits for the next cycle from there on.
            if std::mem::take(&mut self.may_make_room) {
                self.rates.retain(|key, _| has_series(key));
            }
        }
        let fits = self.rates.len() < self.most && (self.may_make_room || has_series(&key));
        if fits {
            self.rates.insert(key, rate_micro_per_s);
        }
        fits
    }

    /// All allocations of a cycle are here. 0: some are still to come.
    pub fn complete(&mut self, cycle: u64) {
        if cycle > 0 {
            self.cycle = cycle;
        }
    }

    /// The newest cycle of which all are here; 0 before the first.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// Nothing is allocated any more.
    pub fn forget(&mut self) {
        self.rates = HashMap::new();
        self.until_us = 0;
        self.cycle = 0;
    }

    /// Looks at the clock. Returns whether allocations have come into force, or ceased to be, since the last look: then no claim is what
    /// it should be.
    pub fn turn(&mut self, now_us: u64) -> bool {
        let holds = now_us < self.until_us && !self.rates.is_empty();
        std::mem::replace(&mut self.is_in_force, holds) != holds
    }

    /// How many are in force.
    #[must_use]
    pub fn in_force(&self) -> usize {
        if self.is_in_force {
            self.rates.len()
        } else {
            0
        }
    }

    /// What is allocated to a customer, if an allocation of it is in force and the policy has that pool.
    #[must_use]
    pub fn of(&self, key: &SeriesKey, policy: &Policy) -> Option<Allocated> {
        let capacity = policy
            .pool(key.resource)
            .filter(|_| self.is_in_force)?
            .capacity
            .get();
        let rate = *self.rates.get(key)?;
        let pool_here = self
            .of_pools
            .at(key.resource)
            .unwrap_or(capacity)
            .min(capacity);
        let tokens = |micro: u64| micro as f64 / 1e6;
        Some(Allocated {
            per_s: tokens(rate.min(capacity)),
            part_of_pool: tokens(pool_here) / tokens(capacity.max(1)),
            pool_here_per_s: tokens(pool_here),
        })
    }
}

/// Whose allocation it is, and how much in micro-tokens per second; `None` for a resource that no policy can have.
pub(crate) fn read(allocation: &Allocation) -> Option<(SeriesKey, u64)> {
    let hash = key::CustomerHash::from_parts(allocation.hash_high, allocation.hash_low);
    let key = SeriesKey {
        customer: CustomerHash(hash.0),
        resource: resource_of(allocation.resource)?,
    };
    Some((key, allocation.rate_micro_per_s))
}

fn resource_of(index: u32) -> Option<ResourceIndex> {
    ResourceIndex::new(usize::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SeriesKey {
        SeriesKey {
            customer: CustomerHash([number; 16]),
            resource: ResourceIndex::FIRST,
        }
    }

    fn holding(most: u32) -> Allocations {
        let mut allocations = Allocations::new(most);
        let reply = SyncReply {
            allocation_ttl_ms: 1_000,
            ..SyncReply::default()
        };
        allocations.heard(&reply, 0);
        allocations
    }

    /// Customers below 100 have a series.
    fn known(key: &SeriesKey) -> bool {
        key.customer.0[0] < 100
    }

    #[test]
    fn customers_without_a_series_make_room_for_those_with_one_but_not_for_each_other() {
        let mut allocations = holding(4);
        for number in [1, 200, 201, 202] {
            assert!(allocations.put(key(number), 7, known));
        }
        assert!(!allocations.put(key(203), 7, known));
        for number in [2, 3, 4] {
            assert!(allocations.put(key(number), 7, known), "{number}");
        }
        assert!(!allocations.put(key(204), 7, known));
        assert_eq!(allocations.rates.len(), 4);
        assert!((1..=4).all(|number| allocations.rates.contains_key(&key(number))));
    }

    #[test]
    fn strangers_who_have_made_room_do_not_come_back_with_the_same_reply() {
        let mut allocations = holding(2);
        allocations.put(key(200), 7, known);
        allocations.put(key(201), 7, known);
        assert!(allocations.put(key(1), 7, known));
        assert!(!allocations.put(key(202), 7, known));
        assert!(allocations.put(key(2), 7, known));
    }

    #[test]
    fn only_what_is_another_rate_is_news() {
        let mut allocations = holding(4);
        assert!(allocations.put(key(1), 7, known));
        assert!(!allocations.put(key(1), 7, known));
        assert!(allocations.put(key(1), 8, known));
    }

    #[test]
    fn they_come_into_force_once_and_lapse_once() {
        let mut allocations = holding(4);
        assert!(!allocations.turn(1), "nothing is allocated yet");
        allocations.put(key(1), 7, known);
        assert!(allocations.turn(2));
        assert!(!allocations.turn(999_999));
        assert!(allocations.turn(1_000_000));
        assert!(!allocations.turn(1_000_001));
    }

    #[test]
    fn what_came_before_is_forgotten_only_when_the_server_says_so() {
        let mut allocations = holding(4);
        allocations.put(key(1), 7, known);
        allocations.complete(5);
        assert!(allocations.turn(1));
        let mut reply = SyncReply {
            allocation_ttl_ms: 1_000,
            ..SyncReply::default()
        };
        assert!(!allocations.heard(&reply, 2));
        assert_eq!(allocations.in_force(), 1);
        reply.allocations_anew = true;
        assert!(allocations.heard(&reply, 3), "its claims must be made anew");
        assert_eq!((allocations.in_force(), allocations.cycle()), (0, 5));
        assert!(!allocations.heard(&reply, 4), "there was nothing to forget");
    }

    #[test]
    fn an_absurd_time_to_live_is_cut() {
        let mut allocations = holding(4);
        allocations.put(key(1), 7, known);
        let reply = SyncReply {
            allocation_ttl_ms: u32::MAX,
            ..SyncReply::default()
        };
        allocations.heard(&reply, 5);
        assert_eq!(
            allocations.until_us,
            u64::from(ALLOCATION_MS_MOST) * 1_000 + 5
        );
    }
}
