//! The pools: one bucket per resource, and how much of it is protected for whom.
//!
//! A draw must know what the *other* customers' protected stock adds up to, and cannot visit all pages for it. So the pool
//! keeps two sums as buckets of their own: they refill as the customers' claims do, shrink when a claim is paid, and
//! are set right by a scan of the pages (see [`crate::ledger::ProtectedScan`]). They may say a little too much
//! in between, never for longer than a lap of the scan.

use crate::amount::{Micro, Rate};
use crate::bucket::Bucket;
use crate::bytes::{Reader, Writer};
use crate::error::CoreError;
use crate::grant::{Grant, GrantTerms};
use crate::lease::Lease;
use crate::outstanding::Outstanding;
use crate::policy::{Policy, PoolRule};
use crate::resource::{PerResource, ResourceIndex};
use crate::time::TimeUs;

const MARK: [u8; 3] = *b"FBQ";
const VERSION: u8 = 2;
const WHAT: &str = "ledger pool";
const HEADER_BYTES: usize = 16;
const POOL_BYTES: usize = 136;

/// The pools of all resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// When they were last brought up to date.
    pub at: TimeUs,
    /// One per resource; empty where no capacity is configured.
    pub pools: PerResource<Pool>,
}

/// The pool of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Pool tokens.
    pub bucket: Bucket,
    /// Pool tokens in the workers' chunks.
    pub outstanding: Outstanding,
    /// Sum of all customers' protected stock.
    pub protected: ClaimSum,
    /// Sum of all customers' guarantee credit.
    pub credit: ClaimSum,
    /// Tokens spent so far. Wraps.
    pub spent_cum: u64,
    /// Tokens of the control plane's grants that have arrived, less those that were returned. Wraps.
    pub moved_cum: u64,
    /// Rate and depth granted, if any were.
    pub granted: Option<GrantTerms>,
    /// Tokens that exempt customers used and the pool did not pay, because it owed its depth. What exempt customers give back is
    /// of these first: they cannot come back to a pool that has never paid them.
    pub unpaid: Micro,
}

/// A sum of claims, kept as a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimSum {
    /// The sum.
    pub bucket: Bucket,
    /// What all the claims refill together.
    pub refill: Rate,
    /// What all the claims can be together.
    pub depth: Micro,
}

/// What an exchange changes in one pool. [`Pools::undo`] takes it back when the second half of the exchange fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolChange {
    /// Tokens taken; negative if tokens came back.
    pub taken: Micro,
    /// Protected stock that its owner has used.
    pub protected_paid: Micro,
    /// Guarantee credit that its owner has used.
    pub credit_paid: Micro,
    /// Tokens that went into a chunk.
    pub lent: Micro,
    /// Tokens of an earlier chunk that are back or spent.
    pub settled: Micro,
    /// When that chunk was drawn.
    pub settled_drawn_at: TimeUs,
    /// Tokens spent; negative if a settlement gave tokens back.
    pub spent: Micro,
    /// What of them the pool did not pay; negative if a settlement gave such tokens back.
    pub unpaid: Micro,
}

// === impl Pools ===

impl Pools {
    /// Full pools, as a gateway starts without a control plane.
    #[must_use]
    pub fn full(policy: &Policy, now: TimeUs) -> Pools {
        let mut pools = Pools {
            at: now,
            ..Pools::default()
        };
        for resource in policy.resource_indexes() {
            if let Some(rule) = policy.pool(resource) {
                pools.pools.at_mut(resource).bucket = Bucket::full(rule.depth);
            }
        }
        pools
    }

    /// Brings all pools up to `now`. Time never goes back.
    pub fn refill(&mut self, policy: &Policy, lease: &Lease, now: TimeUs) {
        let at = self.at;
        let now = now.max(at);
        for resource in policy.resource_indexes() {
            if let Some(rule) = policy.pool(resource) {
                self.pools.at_mut(resource).refill(rule, lease, at, now);
            }
        }
        self.at = now;
    }

    /// Takes in what a grant brings that has not arrived yet, and its terms. What does not fit goes back as if it had never arrived.
    pub fn apply_grant(
        &mut self,
        resource: ResourceIndex,
        grant: &Grant,
        policy: &Policy,
        lease: &Lease,
        now: TimeUs,
    ) {
        self.refill(policy, lease, now);
        let Some(rule) = policy.pool(resource) else {
            return;
        };
        let pool = self.pools.at_mut(resource);
        if pool.granted.replace(grant.terms).is_none() {
            // What a pool of the gateway's own had was never moved here, so it must not go back either.
            pool.bucket.level = pool.bucket.level.min(Micro::ZERO);
        }
        let news = grant.news(pool.moved_cum);
        pool.moved_cum = grant.moved_cum();
        pool.put(news, rule, lease, self.at);
    }

    /// Sets what of `amount`, which an exempt customer uses or (negative) gives back, the pool pays. It may owe its depth at most, or a
    /// flood of exempt requests would starve everyone else long after it has ended.
    pub fn take_of_exempt(
        &self,
        resource: ResourceIndex,
        amount: Micro,
        policy: &Policy,
        change: &mut PoolChange,
    ) {
        change.taken = amount;
        if let Some(rule) = policy.pool(resource) {
            let pool = self.pools.at(resource);
            change.taken = if amount > Micro::ZERO {
                amount.min(pool.bucket.level.plus(rule.depth).at_least_zero())
            } else {
                amount.plus(pool.unpaid).min(Micro::ZERO)
            };
        }
        change.unpaid = amount.minus(change.taken);
    }

    /// Makes the changes of an exchange.
    pub fn apply(&mut self, changes: &PerResource<PoolChange>, policy: &Policy, lease: &Lease) {
        let now = self.at;
        for resource in policy.resource_indexes() {
            if let Some(rule) = policy.pool(resource) {
                self.pools
                    .at_mut(resource)
                    .apply(changes.at(resource), rule, lease, now);
            }
        }
    }

    /// Takes back the changes of an exchange whose second half failed, and which drew its chunk at `drawn_at`. Tokens that a full
    /// pool cannot take back go the way of any that do not fit: nothing is ever created.
    pub fn undo(
        &mut self,
        changes: &PerResource<PoolChange>,
        policy: &Policy,
        lease: &Lease,
        drawn_at: TimeUs,
    ) {
        let now = self.at;
        for resource in policy.resource_indexes() {
            if let Some(rule) = policy.pool(resource) {
                self.pools
                    .at_mut(resource)
                    .undo(changes.at(resource), rule, lease, drawn_at, now);
            }
        }
    }

    /// The binary form.
    #[must_use]
    pub fn encode(&self, resources: u8) -> Vec<u8> {
        let mut bytes =
            vec![0; HEADER_BYTES.saturating_add(POOL_BYTES.saturating_mul(usize::from(resources)))];
        self.write(&mut bytes, resources);
        bytes
    }

    /// Overwrites the binary form in place.
    pub fn write(&self, bytes: &mut [u8], resources: u8) {
        let mut writer = Writer::new(bytes);
        writer.bytes(&MARK);
        writer.u8(VERSION);
        writer.u32(u32::from(resources));
        writer.u64(self.at.0);
        for pool in self.pools.iter().take(usize::from(resources)) {
            pool.write(&mut writer);
        }
    }

    /// Reads the binary form.
    pub fn decode(bytes: &[u8], resources: u8) -> Result<Pools, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let found = reader.u32()?;
        if found != u32::from(resources) {
            return Err(CoreError::OutOfBounds {
                what: WHAT,
                field: "resources",
                found: u64::from(found),
                allowed: "the number of resources of the policy",
            });
        }
        let mut pools = Pools {
            at: TimeUs(reader.u64()?),
            pools: PerResource::default(),
        };
        for pool in pools.pools.iter_mut().take(usize::from(resources)) {
            *pool = Pool::read(&mut reader)?;
        }
        reader.end()?;
        Ok(pools)
    }
}

// === impl Pool ===

impl Pool {
    /// Rate, depth and fallback rate: where there is a control plane the grant's (never more than the capacity; nothing before
    /// the first one), otherwise the capacity.
    #[must_use]
    pub fn terms(&self, rule: &PoolRule, lease: &Lease) -> GrantTerms {
        if *lease == Lease::StandAlone {
            return GrantTerms {
                rate: rule.capacity,
                cap: rule.depth,
                fallback_rate: rule.capacity,
            };
        }
        let granted = self.granted.unwrap_or_default();
        GrantTerms {
            rate: granted.rate.min(rule.capacity),
            cap: granted.cap.min(rule.depth),
            fallback_rate: granted.fallback_rate.min(rule.capacity),
        }
    }

    /// How far the pool may fill while chunks are out.
    #[must_use]
    pub fn depth(&self, rule: &PoolRule, lease: &Lease) -> Micro {
        self.terms(rule, lease)
            .cap
            .minus(self.outstanding.total())
            .at_least_zero()
    }

    /// Puts tokens in; negative ones are taken. What of granted tokens there is no room for goes back to the control plane; without one it
    /// is lost.
    fn put(&mut self, amount: Micro, rule: &PoolRule, lease: &Lease, now: TimeUs) {
        let depth = self.depth(rule, lease);
        let excess = self.bucket.put(amount, depth);
        if self.granted.is_some() && *lease != Lease::StandAlone {
            self.moved_cum = self.moved_cum.wrapping_sub_signed(excess.get());
        }
        // A refill would do this too, but only if it came before the lease is made anew, which may be in this very microsecond.
        if lease.is_over(now) {
            self.void();
        }
    }

    fn refill(&mut self, rule: &PoolRule, lease: &Lease, at: TimeUs, now: TimeUs) {
        if lease.voids(at) {
            self.void();
        }
        let spans = lease.spans(at, now);
        let terms = self.terms(rule, lease);
        self.outstanding.advance(at, now);
        let depth = self.depth(rule, lease);
        self.bucket.refill(terms.rate, depth, spans.granted_us);
        self.bucket
            .refill(terms.fallback_rate, depth, spans.fallback_us);
        if lease.is_over(now) {
            self.void();
        }
        let dt_us = now.since(at);
        self.protected
            .bucket
            .refill(self.protected.refill, self.protected.depth, dt_us);
        self.credit
            .bucket
            .refill(self.credit.refill, self.credit.depth, dt_us);
    }

    /// What was held under a lease that is over can no longer be spent, and its rate refills under no other lease. Debts stay.
    fn void(&mut self) {
        self.bucket.level = self.bucket.level.min(Micro::ZERO);
        self.granted = None;
    }

    fn apply(&mut self, change: &PoolChange, rule: &PoolRule, lease: &Lease, now: TimeUs) {
        self.outstanding
            .settle(change.settled, change.settled_drawn_at, now);
        // Returned tokens are capped before the new chunk counts as outstanding: it comes out of this very level.
        self.put(Micro::ZERO.minus(change.taken), rule, lease, now);
        self.outstanding.lend(change.lent);
        self.protected.pay(change.protected_paid);
        self.credit.pay(change.credit_paid);
        self.spent_cum = self.spent_cum.wrapping_add_signed(change.spent.get());
        self.unpaid = self.unpaid.plus(change.unpaid);
    }

    fn undo(
        &mut self,
        change: &PoolChange,
        rule: &PoolRule,
        lease: &Lease,
        drawn_at: TimeUs,
        now: TimeUs,
    ) {
        self.outstanding.settle(change.lent, drawn_at, now);
        // The chunk that the exchange brought back is still out.
        self.outstanding
            .unsettle(change.settled, change.settled_drawn_at, now);
        self.put(change.taken, rule, lease, now);
        self.protected.pay(Micro::ZERO.minus(change.protected_paid));
        self.credit.pay(Micro::ZERO.minus(change.credit_paid));
        self.spent_cum = self
            .spent_cum
            .wrapping_sub(change.spent.get().cast_unsigned());
        self.unpaid = self.unpaid.minus(change.unpaid);
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let granted = self.granted.unwrap_or_default();
        writer.i64(self.bucket.level.get());
        writer.u32(self.bucket.carry);
        writer.u32(u32::from(self.granted.is_some()));
        writer.i64(self.outstanding.current.get());
        writer.i64(self.outstanding.previous.get());
        for sum in [&self.protected, &self.credit] {
            writer.i64(sum.bucket.level.get());
            writer.u32(sum.bucket.carry);
            writer.u64(sum.refill.get());
            writer.i64(sum.depth.get());
        }
        writer.u64(self.spent_cum);
        writer.u64(self.moved_cum);
        writer.u64(granted.rate.get());
        writer.i64(granted.cap.get());
        writer.u64(granted.fallback_rate.get());
        writer.i64(self.unpaid.get());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Pool, CoreError> {
        let bucket = Bucket {
            level: Micro::new(reader.i64()?),
            carry: reader.u32()?,
        };
        let is_granted = reader.u32()? != 0;
        let outstanding = Outstanding {
            current: Micro::new(reader.i64()?),
            previous: Micro::new(reader.i64()?),
        };
        let mut sum = || -> Result<ClaimSum, CoreError> {
            Ok(ClaimSum {
                bucket: Bucket {
                    level: Micro::new(reader.i64()?),
                    carry: reader.u32()?,
                },
                refill: Rate::new(reader.u64()?),
                depth: Micro::new(reader.i64()?),
            })
        };
        let (protected, credit) = (sum()?, sum()?);
        let (spent_cum, moved_cum) = (reader.u64()?, reader.u64()?);
        let terms = GrantTerms {
            rate: Rate::new(reader.u64()?),
            cap: Micro::new(reader.i64()?),
            fallback_rate: Rate::new(reader.u64()?),
        };
        let granted = is_granted.then_some(terms);
        let unpaid = Micro::new(reader.i64()?);
        Ok(Pool {
            bucket,
            outstanding,
            protected,
            credit,
            spent_cum,
            moved_cum,
            granted,
            unpaid,
        })
    }
}

// === impl ClaimSum ===

impl ClaimSum {
    /// The claims of one customer.
    #[must_use]
    pub const fn new(level: Micro, refill: Rate, depth: Micro) -> ClaimSum {
        let bucket = Bucket { level, carry: 0 };
        ClaimSum {
            bucket,
            refill,
            depth,
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(&self, other: &ClaimSum) -> ClaimSum {
        ClaimSum {
            bucket: Bucket {
                level: self.bucket.level.plus(other.bucket.level),
                carry: self.bucket.carry,
            },
            refill: self.refill.plus(other.refill),
            depth: self.depth.plus(other.depth),
        }
    }

    /// The sum without one customer's part of it.
    #[must_use]
    pub const fn of_others(&self, own: Micro) -> Micro {
        self.bucket.level.minus(own).at_least_zero()
    }

    fn pay(&mut self, amount: Micro) {
        self.bucket.level = self
            .bucket
            .level
            .minus(amount)
            .at_least_zero()
            .min(self.depth);
    }
}

// === impl PoolChange ===

impl PoolChange {
    /// Both changes of one exchange. Only the first can settle a chunk and only the second can lend one.
    #[must_use]
    pub const fn and_then(&self, next: &PoolChange) -> PoolChange {
        PoolChange {
            taken: self.taken.plus(next.taken),
            protected_paid: self.protected_paid.plus(next.protected_paid),
            credit_paid: self.credit_paid.plus(next.credit_paid),
            lent: next.lent,
            settled: self.settled,
            settled_drawn_at: self.settled_drawn_at,
            spent: self.spent.plus(next.spent),
            unpaid: self.unpaid.plus(next.unpaid),
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == PoolChange::default()
    }
}
