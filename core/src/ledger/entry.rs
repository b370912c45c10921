//! A ledger entry: one customer with all its resources.
//!
//! All resources in one entry means one compare-and-swap per draw, all or nothing. The entry is decoded into this struct,
//! changed, and written back over its own bytes; the rest of the page is never decoded.

use crate::amount::{Micro, Rate};
use crate::bucket::Bucket;
use crate::bytes::{Reader, Writer};
use crate::deviation::Deviations;
use crate::error::CoreError;
use crate::grant::{Grant, GrantTerms};
use crate::lease::Lease;
use crate::outstanding::Outstanding;
use crate::policy::{ContractIndex, Limits, Policy};
use crate::resource::{PerResource, ResourceIndex};
use crate::time::TimeUs;

/// A customer's key, hashed with a secret key to 128 bits. The core never sees raw keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerHash(pub [u8; 16]);

/// What is special about a customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags {
    /// In the policy: never evicted.
    pub in_policy: bool,
    /// Always admitted; still counted.
    pub exempt: bool,
    /// Never admitted, until the operator says otherwise.
    pub frozen: bool,
    /// The forecaster has written a shadow rate (which may be zero).
    pub predicted: bool,
    /// Resources of which a grant has reached this entry, one bit each. Neither sums nor terms can tell: a grant of nothing leaves both
    /// at zero, and so does one of which everything was given back.
    pub granted: u8,
}

/// One customer with all its resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub customer: CustomerHash,
    /// When the entry was last brought up to date.
    pub at: TimeUs,
    /// When the entry was made and its counters began at zero, in whole units of 256 us. An entry that was dropped and is made anew has a later one, which is how
    /// a reader tells a new life from counters that fell.
    pub counted_since: TimeUs,
    /// Row of the contract table.
    pub contract: ContractIndex,
    /// What is special.
    pub flags: EntryFlags,
    /// Which of the last windows deviated.
    pub deviations: Deviations,
    /// End of a ban, in whole seconds of the monotonic clock; 0 is no ban, `u32::MAX` one without end.
    pub ban_until_s: u32,
    /// What the customer holds of each resource.
    pub holdings: PerResource<Holding>,
}

/// What a customer holds of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The standard bucket.
    pub contract: Bucket,
    /// The guarantee credit.
    pub credit: Bucket,
    /// The shadow bucket.
    pub shadow: Bucket,
    /// The borrow allowance.
    pub borrow: Bucket,
    /// Refill of the shadow bucket, written by the forecaster.
    pub shadow_rate: Rate,
    /// Depth of the shadow bucket in microseconds of its refill.
    pub shadow_span_us: u32,
    /// Tokens admitted so far, settled. Wraps, as do the next two: only differences have a meaning.
    pub admitted_cum: u64,
    /// Tokens denied so far.
    pub denied_cum: u64,
    /// Tokens admitted that the shadow bucket did not foresee.
    pub deviation_cum: u64,
    /// Tokens of the control plane's grants that have arrived, less those that were returned. Wraps.
    pub moved_cum: u64,
    /// Rate and depth granted.
    pub terms: GrantTerms,
    /// Tokens in the workers' chunks.
    pub outstanding: Outstanding,
}

const HEADER_BYTES: usize = 36;
const HOLDING_BYTES: usize = 126;

/// Log2 of the unit, in microseconds, in which an entry remembers when its counters began: five bytes hold nine years of it.
const LIFE_US_LOG2: u32 = 8;

/// The remainder of a refill is below a million: so many bits hold it.
const CARRY_BITS: u32 = 20;

// === impl CustomerHash ===

impl CustomerHash {
    /// The bits that choose the page.
    #[must_use]
    pub const fn page_bits(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

// === impl EntryFlags ===

impl EntryFlags {
    const fn to_byte(self) -> u8 {
        (self.in_policy as u8)
            | (self.exempt as u8) << 1
            | (self.frozen as u8) << 2
            | (self.predicted as u8) << 3
            | self.granted << 4
    }

    const fn from_byte(byte: u8) -> EntryFlags {
        EntryFlags {
            in_policy: byte & 1 != 0,
            exempt: byte & 1 << 1 != 0,
            frozen: byte & 1 << 2 != 0,
            predicted: byte & 1 << 3 != 0,
            granted: byte >> 4,
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Bytes of an entry with so many resources.
    #[must_use]
    pub const fn bytes_for(resources: u8) -> usize {
        HEADER_BYTES.saturating_add(HOLDING_BYTES.saturating_mul(resources as usize))
    }

    /// A customer that the ledger has never seen or forgotten: all buckets full.
    #[must_use]
    pub fn full(
        customer: CustomerHash,
        contract: ContractIndex,
        policy: &Policy,
        now: TimeUs,
    ) -> Entry {
        let mut entry = Entry {
            customer,
            at: now,
            contract,
            ..Entry::default()
        };
        if let Some(row) = policy.contract(contract) {
            for resource in policy.resource_indexes() {
                let limits = row.limits.at(resource);
                let holding = entry.holdings.at_mut(resource);
                holding.contract = Bucket::full(limits.burst);
                holding.credit = Bucket::full(policy.credit_depth(limits.guarantee));
                holding.borrow = Bucket::full(limits.borrow_limit);
            }
        }
        entry
    }

    /// A customer that was absent since `since`, with nothing in its buckets then: the next refill gives it
    /// min(burst, rate x time since), so being forgotten is never worth a refill.
    #[must_use]
    pub fn absent_since(customer: CustomerHash, contract: ContractIndex, since: TimeUs) -> Entry {
        Entry {
            customer,
            at: since,
            contract,
            ..Entry::default()
        }
    }

    /// Rate, depth and fallback rate of the standard bucket: the grant's where there is a control plane (never more than
    /// the contract's), otherwise the contract's own.
    #[must_use]
    pub fn terms(&self, resource: ResourceIndex, limits: &Limits, lease: &Lease) -> GrantTerms {
        if *lease == Lease::StandAlone {
            return GrantTerms {
                rate: limits.rate,
                cap: limits.burst,
                fallback_rate: limits.rate,
            };
        }
        if self.is_granted(resource) {
            let granted = self.holdings.at(resource).terms;
            return GrantTerms {
                rate: granted.rate.min(limits.rate),
                cap: granted.cap.min(limits.burst),
                fallback_rate: granted.fallback_rate.min(limits.rate),
            };
        }
        if self.flags.in_policy {
            return GrantTerms::default();
        }
        GrantTerms {
            rate: limits.rate,
            cap: limits.burst,
            fallback_rate: limits.guarantee,
        }
    }

    /// Whether a grant of this resource has reached the entry. If not, what is in the standard bucket was never granted.
    #[must_use]
    pub const fn is_granted(&self, resource: ResourceIndex) -> bool {
        self.flags.granted & resource.bit() != 0
    }

    /// The part of the limits that this gateway holds.
    #[must_use]
    pub fn part(&self, resource: ResourceIndex, limits: &Limits, lease: &Lease) -> Limits {
        limits.part(&self.terms(resource, limits, lease))
    }

    /// Its counters begin at zero now.
    pub(crate) const fn begin_counting(&mut self, now: TimeUs) {
        self.counted_since = TimeUs((now.0 >> LIFE_US_LOG2) << LIFE_US_LOG2);
    }

    /// Brings all buckets up to `now`. Time never goes back.
    pub fn refill(&mut self, policy: &Policy, lease: &Lease, now: TimeUs) {
        let at = self.at;
        let now = now.max(at);
        let Some(contract) = policy.contract(self.contract) else {
            return;
        };
        let spans = lease.spans(at, now);
        let (voids, is_over) = (lease.voids(at), lease.is_over(now));
        let dt_us = now.since(at);
        for resource in policy.resource_indexes() {
            let limits = contract.limits.at(resource);
            if voids {
                self.holdings.at_mut(resource).void();
            }
            let terms = self.terms(resource, limits, lease);
            let part = limits.part(&terms);
            let holding = self.holdings.at_mut(resource);
            holding.outstanding.advance(at, now);
            let depth = holding.contract_depth(&terms);
            holding.contract.refill(terms.rate, depth, spans.granted_us);
            holding
                .contract
                .refill(terms.fallback_rate, depth, spans.fallback_us);
            let credit_depth = policy.credit_depth(part.guarantee);
            holding
                .credit
                .refill(part.guarantee, credit_depth, spans.granted_us);
            holding.credit.refill(
                part.guarantee.min(terms.fallback_rate),
                credit_depth,
                spans.fallback_us,
            );
            holding.borrow.refill(
                part.ceiling.minus(part.rate),
                part.borrow_limit,
                spans.granted_us,
            );
            if is_over {
                holding.void();
            }
            let shadow_depth = if policy.shadow.enabled {
                holding.shadow_depth()
            } else {
                Micro::ZERO
            };
            holding
                .shadow
                .refill(holding.shadow_rate, shadow_depth, dt_us);
        }
        self.deviations.advance(policy.shadow.contention, at, now);
        self.at = now;
    }

    /// Takes in what a grant brings that has not arrived yet, and its terms. Repeating it changes nothing. What does not fit goes back as
    /// if it had never arrived: the sum of what was moved tells the control plane ([`crate::fleet::report`]).
    pub fn apply_grant(
        &mut self,
        resource: ResourceIndex,
        grant: &Grant,
        policy: &Policy,
        lease: &Lease,
        now: TimeUs,
    ) {
        self.refill(policy, lease, now);
        let is_first = !self.is_granted(resource);
        self.flags.granted |= resource.bit();
        let holding = self.holdings.at_mut(resource);
        if is_first {
            holding.moved_cum = grant.base_cum;
        }
        holding.terms = grant.terms;
        let news = grant.news(holding.moved_cum);
        holding.moved_cum = grant.moved_cum();
        self.put(resource, news, policy, lease);
    }

    /// Puts tokens into the standard bucket; negative ones are charged. What of granted tokens a bucket has no room for goes back to the
    /// control plane, which lends them to other gateways; without one it is lost.
    pub fn put(&mut self, resource: ResourceIndex, amount: Micro, policy: &Policy, lease: &Lease) {
        let Some(contract) = policy.contract(self.contract) else {
            return;
        };
        let terms = self.terms(resource, contract.limits.at(resource), lease);
        let is_granted = self.is_granted(resource) && *lease != Lease::StandAlone;
        let holding = self.holdings.at_mut(resource);
        let depth = holding.contract_depth(&terms);
        let excess = holding.contract.put(amount, depth);
        if is_granted {
            holding.moved_cum = holding.moved_cum.wrapping_sub_signed(excess.get());
        }
        // A refill would do this too, but only if it came before the lease is made anew, which may be in this very microsecond.
        if lease.is_over(self.at) {
            holding.void();
        }
    }

    /// Writes a forecast: the shadow bucket's refill, and its depth in microseconds of it.
    pub fn set_shadow(&mut self, resource: ResourceIndex, rate: Rate, span_us: u32) {
        self.flags.predicted = true;
        let holding = self.holdings.at_mut(resource);
        // A first forecast starts full: its owner has not used any of it yet.
        let fresh = holding.shadow_rate == Rate::ZERO;
        holding.shadow_rate = rate;
        holding.shadow_span_us = span_us;
        let depth = holding.shadow_depth();
        if fresh || holding.shadow.level > depth {
            holding.shadow = Bucket::full(depth);
        }
    }

    /// When the ban ends; `None` if the customer is neither banned nor frozen at `now`.
    #[must_use]
    pub fn barred_until(&self, now: TimeUs) -> Option<TimeUs> {
        if self.flags.frozen || self.ban_until_s == u32::MAX {
            return Some(TimeUs::NEVER);
        }
        let until = TimeUs(u64::from(self.ban_until_s).saturating_mul(crate::limits::US_PER_S));
        (now < until).then_some(until)
    }

    /// Whether demand went beyond the forecast for long enough to raise the contention flag. Call after a refill.
    #[must_use]
    pub fn is_contended(&self, policy: &Policy) -> bool {
        self.deviations.contended(policy.shadow.contention)
    }

    /// Whether the entry may be forgotten. Debts, bans and tokens in chunks may not. Call after a refill.
    #[must_use]
    pub fn is_evictable(&self, policy: &Policy, now: TimeUs) -> bool {
        let special = self.flags.in_policy || self.flags.exempt || self.barred_until(now).is_some();
        let owes = |resource| {
            let holding = self.holdings.at(resource);
            holding.contract.level < Micro::ZERO || holding.outstanding.total() > Micro::ZERO
        };
        !special && !policy.resource_indexes().any(owes)
    }

    /// Reads an entry with so many resources.
    pub fn read(bytes: &[u8], resources: u8) -> Result<Entry, CoreError> {
        let mut reader = Reader::new("ledger entry", bytes);
        let mut entry = Entry {
            customer: CustomerHash(reader.array()?),
            at: TimeUs(reader.u56()?),
            counted_since: TimeUs(reader.u40()? << LIFE_US_LOG2),
            contract: ContractIndex(reader.u16()?),
            flags: EntryFlags::from_byte(reader.u8()?),
            deviations: Deviations(reader.u8()?),
            ban_until_s: reader.u32()?,
            holdings: PerResource::default(),
        };
        for holding in entry.holdings.iter_mut().take(usize::from(resources)) {
            *holding = Holding::read(&mut reader)?;
        }
        reader.end()?;
        Ok(entry)
    }

    /// Writes the entry over its bytes.
    pub fn write(&self, bytes: &mut [u8], resources: u8) {
        let mut writer = Writer::new(bytes);
        writer.bytes(&self.customer.0);
        writer.u56(self.at.0);
        writer.u40(self.counted_since.0 >> LIFE_US_LOG2);
        writer.u16(self.contract.0);
        writer.u8(self.flags.to_byte());
        writer.u8(self.deviations.0);
        writer.u32(self.ban_until_s);
        for holding in self.holdings.iter().take(usize::from(resources)) {
            holding.write(&mut writer);
        }
    }
}

// === impl Holding ===

impl Holding {
    /// Tokens asked for so far: admitted or denied. Wraps.
    #[must_use]
    pub const fn demand_cum(&self) -> u64 {
        self.admitted_cum.wrapping_add(self.denied_cum)
    }

    /// What was held under a lease that is over can no longer be spent, and its rates refill under no other lease. Debts stay.
    fn void(&mut self) {
        self.terms = GrantTerms::default();
        for bucket in [&mut self.contract, &mut self.credit, &mut self.borrow] {
            bucket.level = bucket.level.min(Micro::ZERO);
        }
    }

    /// How far the standard bucket may fill while chunks are out.
    #[must_use]
    pub const fn contract_depth(&self, terms: &GrantTerms) -> Micro {
        terms.cap.minus(self.outstanding.total()).at_least_zero()
    }

    /// Depth of the shadow bucket.
    #[must_use]
    pub const fn shadow_depth(&self) -> Micro {
        self.shadow_rate.amount_in(self.shadow_span_us as u64)
    }

    /// What of the pool is protected for the customer: the larger of credit and claims, not their sum.
    #[must_use]
    pub fn protected(&self) -> Micro {
        self.credit.level.max(self.shadow.level).at_least_zero()
    }

    /// Counts tokens admitted, and how many of them the shadow bucket did not foresee. A settlement may give back.
    pub(crate) const fn count_admitted(&mut self, admitted: Micro, unforeseen: Micro) {
        self.admitted_cum = self.admitted_cum.wrapping_add_signed(admitted.get());
        self.deviation_cum = self.deviation_cum.wrapping_add_signed(unforeseen.get());
    }

    /// Counts tokens denied.
    pub(crate) const fn count_denied(&mut self, denied: Micro) {
        self.denied_cum = self.denied_cum.wrapping_add_signed(denied.get());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Holding, CoreError> {
        let mut level = || reader.i64().map(Micro::new);
        let levels = [level()?, level()?, level()?, level()?];
        let carries = carries_from(reader.u64()?, reader.u16()?);
        let [contract, credit, shadow, borrow] = core::array::from_fn(|bucket| Bucket {
            level: levels.get(bucket).copied().unwrap_or_default(),
            carry: carries.get(bucket).copied().unwrap_or_default(),
        });
        Ok(Holding {
            contract,
            credit,
            shadow,
            borrow,
            shadow_rate: Rate::new(reader.u64()?),
            shadow_span_us: reader.u32()?,
            admitted_cum: reader.u64()?,
            denied_cum: reader.u64()?,
            deviation_cum: reader.u64()?,
            moved_cum: reader.u64()?,
            terms: GrantTerms {
                rate: Rate::new(reader.u64()?),
                cap: Micro::new(reader.i64()?),
                fallback_rate: Rate::new(reader.u64()?),
            },
            outstanding: Outstanding {
                current: Micro::new(reader.i64()?),
                previous: Micro::new(reader.i64()?),
            },
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let buckets = [&self.contract, &self.credit, &self.shadow, &self.borrow];
        for bucket in buckets {
            writer.i64(bucket.level.get());
        }
        let (low, high) = carries_to(buckets.map(|bucket| bucket.carry));
        writer.u64(low);
        writer.u16(high);
        writer.u64(self.shadow_rate.get());
        writer.u32(self.shadow_span_us);
        for counter in [
            self.admitted_cum,
            self.denied_cum,
            self.deviation_cum,
            self.moved_cum,
        ] {
            writer.u64(counter);
        }
        writer.u64(self.terms.rate.get());
        writer.i64(self.terms.cap.get());
        writer.u64(self.terms.fallback_rate.get());
        writer.i64(self.outstanding.current.get());
        writer.i64(self.outstanding.previous.get());
    }
}

/// The four remainders side by side.
const fn carries_to([a, b, c, d]: [u32; 4]) -> (u64, u16) {
    let low = (a as u64) | (b as u64) << CARRY_BITS | (c as u64) << (2 * CARRY_BITS);
    (
        low | (d as u64) << (3 * CARRY_BITS),
        (d >> (64 - 3 * CARRY_BITS)) as u16,
    )
}

const fn carries_from(low: u64, high: u16) -> [u32; 4] {
    const MASK: u64 = (1 << CARRY_BITS) - 1;
    [
        (low & MASK) as u32,
        (low >> CARRY_BITS & MASK) as u32,
        (low >> (2 * CARRY_BITS) & MASK) as u32,
        (low >> (3 * CARRY_BITS)) as u32 | (high as u32) << (64 - 3 * CARRY_BITS),
    ]
}
