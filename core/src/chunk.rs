//! A chunk: tokens that a worker has drawn from the ledger and spends without any host call.
//!
//! Spending reads no clock, calls no host and allocates nothing; that is what makes a decision cost nanoseconds instead of the
//! two microseconds of a draw. What the chunk owes the ledger (tokens spent, demand denied) is counted here and
//! reported with the next draw or return, so no spend is counted twice and none that the worker survives is lost.

use crate::amount::Micro;
use crate::limits::{
    CHUNK_BUSY_IDLE_TICKS, CHUNK_BUSY_TICKS, CHUNK_IDLE_TICKS, CHUNK_LIFE_US, DENIAL_MEMORY_US,
};
use crate::policy::ContractIndex;
use crate::resource::{PerResource, ResourceIndex};
use crate::time::TimeUs;
use crate::verdict::{Denial, Reason, Verdict};

/// Tokens of each resource.
pub type Amounts = PerResource<Micro>;

/// What a worker holds for one customer.
///
/// The fields stand in the order of their use: what every spend touches comes first and shares a cache line (see
/// [`crate::cache::Slot`]), because with thousands of customers a decision costs what its cache misses cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Chunk {
    /// There was a draw, and it was no denial that is remembered.
    is_ready: bool,
    /// The customer is always admitted.
    pub exempt: bool,
    /// Resources of the policy.
    resources: u8,
    idle_ticks: u8,
    /// Ticks in a row before which it was used.
    busy_ticks: u8,
    /// The contention flag at the last draw.
    pub contended: bool,
    /// The customer's contract at the last draw.
    pub contract: ContractIndex,
    /// Tokens per resource.
    pub holdings: PerResource<ChunkHolding>,
    /// When the chunk was drawn; `None` before the first draw.
    pub drawn_at: Option<TimeUs>,
    /// Who paid for what was charged last.
    pub payers: PerResource<Payer>,
    denial: Option<RememberedDenial>,
}

// What a spend touches of a chunk's head takes eight bytes.
const _: () = assert!(core::mem::offset_of!(Chunk, holdings) == 8);

/// What a worker holds of one resource, in the order of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ChunkHolding {
    /// Tokens drawn on the customer's claim: spending them is a `shadow` verdict.
    pub claimed: Micro,
    /// Tokens drawn from the standard bucket alone.
    pub plain: Micro,
    /// Tokens spent since the last draw, settled.
    pub spent: Micro,
    /// Tokens spent since then that the shadow bucket did not foresee.
    pub deviation: Micro,
    /// Tokens that the ledger counts as being in this chunk.
    pub drawn: Micro,
    /// Tokens denied since the last draw.
    pub denied: Micro,
    /// Tokens given back by settlements that the chunk itself has no room for; not to be spent here.
    pub refund: Micro,
    /// The customer's standard bucket after the last draw.
    pub balance: Micro,
}

/// Which of a customer's buckets paid, and gets back what turns out to be too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payer {
    /// The standard bucket, by way of a chunk or not.
    #[default]
    Contract,
    /// The borrow allowance. It pays for requests and never fills a chunk.
    Allowance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RememberedDenial {
    denial: Denial,
    cost: Micro,
    until: TimeUs,
}

// === impl Chunk ===

impl Chunk {
    /// Spends `cost` if the chunk has it, all or nothing. `None` means that the ledger must be asked.
    #[inline]
    pub fn spend(&mut self, cost: &Amounts) -> Option<Verdict> {
        if !self.is_ready {
            return None;
        }
        if self.resources == 1 {
            // Most policies have one resource: no loop.
            let (first, exempt) = (ResourceIndex::FIRST, self.exempt);
            let (holding, cost) = (self.holdings.at_mut(first), *cost.at(first));
            if cost > holding.tokens() && cost > Micro::ZERO && !exempt {
                return None;
            }
            self.idle_ticks = 0;
            return Some(if cost > Micro::ZERO && holding.spend(cost, exempt) {
                Verdict::Shadow
            } else {
                Verdict::Standard
            });
        }
        let resources = usize::from(self.resources);
        let lacks = |(holding, cost): (&ChunkHolding, &Micro)| {
            *cost > Micro::ZERO && *cost > holding.tokens()
        };
        if self
            .holdings
            .iter()
            .zip(cost.iter())
            .take(resources)
            .any(lacks)
            && !self.exempt
        {
            return None;
        }
        self.idle_ticks = 0;
        let (mut is_charged, mut is_foreseen) = (false, true);
        for (holding, cost) in self.holdings.iter_mut().zip(cost.iter()).take(resources) {
            if *cost > Micro::ZERO {
                is_charged = true;
                is_foreseen &= holding.spend(*cost, self.exempt);
            }
        }
        Some(if is_charged && is_foreseen {
            Verdict::Shadow
        } else {
            Verdict::Standard
        })
    }

    /// Denies a request that is at least as large as one that was denied a moment ago, and counts it: a flood costs the
    /// ledger nothing. For a larger request the time to come back is the smaller one's, a lower bound.
    #[inline]
    pub fn deny_again(&mut self, cost: &Amounts, now: TimeUs) -> Option<Denial> {
        let remembered = self.denial?;
        if now >= remembered.until {
            // The chunk stays unready: the ledger decides, and fills it.
            self.denial = None;
            return None;
        }
        if *cost.at(remembered.denial.resource) < remembered.cost {
            return None;
        }
        self.count_denied(cost);
        self.idle_ticks = 0;
        Some(remembered.denial)
    }

    /// Settles a request that `payer` was charged an estimate for: `difference` is actual cost less estimate. Returns what the chunk
    /// cannot pay or take, which must be charged to the ledger at once: a debt, so that it binds all workers; and what was borrowed,
    /// because what lies in a chunk goes back to the standard bucket.
    pub fn settle(&mut self, resource: ResourceIndex, difference: Micro, payer: Payer) -> Micro {
        if difference < Micro::ZERO && payer == Payer::Allowance {
            return difference;
        }
        let exempt = self.exempt;
        let holding = self.holdings.at_mut(resource);
        if difference > Micro::ZERO {
            // What the chunk holds goes first: tokens left in it would still be spent while the ledger is in debt.
            let paid = if exempt {
                difference
            } else {
                difference.min(holding.tokens().at_least_zero())
            };
            holding.spend(paid, exempt);
            return difference.minus(paid);
        }
        let back = Micro::ZERO.minus(difference);
        holding.spent = holding.spent.minus(back);
        if exempt {
            holding.plain = holding.plain.plus(back);
            return Micro::ZERO;
        }
        // The chunk may hold what the ledger counts as lying in it, no more.
        let room = holding
            .drawn
            .minus(holding.tokens())
            .at_least_zero()
            .min(back);
        holding.plain = holding.plain.plus(room);
        holding.refund = holding.refund.plus(back.minus(room));
        Micro::ZERO
    }

    /// Called on each tick: whether the chunk should go back to the ledger now, because it has something to report and
    /// lay idle, has a refund, or has reached the end of its life.
    pub fn is_due(&mut self, now: TimeUs, tick_us: u64) -> bool {
        let Some(drawn_at) = self.drawn_at else {
            return false;
        };
        self.idle_ticks = self.idle_ticks.saturating_add(1);
        let is_busy = self.busy_ticks >= CHUNK_BUSY_TICKS;
        self.busy_ticks = match self.idle_ticks {
            1 => self.busy_ticks.saturating_add(1),
            ticks if is_busy && ticks <= CHUNK_BUSY_IDLE_TICKS => self.busy_ticks,
            _ => 0,
        };
        if self.is_settled() {
            return false;
        }
        let refund = self
            .holdings
            .iter()
            .any(|holding| holding.refund > Micro::ZERO);
        let old = now.since(drawn_at) >= CHUNK_LIFE_US.saturating_sub(tick_us.saturating_mul(2));
        let patience = if is_busy {
            CHUNK_BUSY_IDLE_TICKS
        } else {
            CHUNK_IDLE_TICKS
        };
        refund || old || self.idle_ticks > patience
    }

    /// Whether the chunk can be dropped without losing tokens or counts.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.holdings
            .iter()
            .take(usize::from(self.resources))
            .all(ChunkHolding::is_settled)
    }

    /// The customer's balance as this worker knows it: a lower bound, unless other workers spent meanwhile.
    #[must_use]
    pub fn remaining(&self, resource: ResourceIndex) -> Micro {
        let holding = self.holdings.at(resource);
        holding.balance.plus(holding.tokens()).at_least_zero()
    }

    /// How many tokens the next chunk should hold together with the request: what the worker used lately over `horizon_us`,
    /// growing at most twofold per draw so that two requests close together are not mistaken for a high rate.
    #[must_use]
    pub(crate) fn wish(
        &self,
        resource: ResourceIndex,
        cost: Micro,
        now: TimeUs,
        horizon_us: u64,
    ) -> Micro {
        let Some(drawn_at) = self.drawn_at else {
            return Micro::ZERO;
        };
        let holding = self.holdings.at(resource);
        let used = holding.spent.at_least_zero().plus(cost);
        let recent = used.share(horizon_us, now.since(drawn_at).max(SHORTEST_SPAN_US));
        recent.min(holding.drawn.plus(cost).share(2, 1))
    }

    /// Replaces the contents after an exchange with the ledger: everything old has been reported.
    pub(crate) fn refilled(
        &mut self,
        holdings: PerResource<ChunkHolding>,
        resources: u8,
        now: TimeUs,
    ) {
        self.holdings = holdings;
        self.resources = resources;
        self.is_ready = true;
        self.drawn_at = Some(now);
        self.denial = None;
        self.idle_ticks = 0;
    }

    /// Empties the chunk after it went back to the ledger; the next request asks the ledger.
    pub(crate) fn emptied(&mut self, now: TimeUs) {
        for holding in self.holdings.iter_mut() {
            *holding = ChunkHolding {
                balance: holding.balance,
                ..ChunkHolding::default()
            };
        }
        self.drawn_at = Some(now);
    }

    /// Remembers a denial, until it could turn out otherwise but never for longer than a tick or so.
    pub(crate) fn remember(&mut self, denial: Denial, cost: Micro, now: TimeUs) {
        let barred = matches!(denial.reason, Reason::Banned | Reason::Unknown);
        let cost = if barred { Micro::ZERO } else { cost };
        let until = denial.retry_at.min(now.plus_us(DENIAL_MEMORY_US));
        self.denial = Some(RememberedDenial {
            denial,
            cost,
            until,
        });
        self.is_ready = false;
    }

    fn count_denied(&mut self, cost: &Amounts) {
        for (holding, cost) in self.holdings.iter_mut().zip(cost.iter()) {
            holding.denied = holding.denied.plus(cost.at_least_zero());
        }
    }
}

/// Two draws closer together than this, in microseconds, say nothing about a rate.
const SHORTEST_SPAN_US: u64 = 1_000;

// === impl ChunkHolding ===

impl ChunkHolding {
    /// Tokens that can be spent; negative if the worker owes the ledger.
    #[must_use]
    pub const fn tokens(&self) -> Micro {
        self.claimed.plus(self.plain)
    }

    fn is_settled(&self) -> bool {
        let ChunkHolding {
            claimed,
            plain,
            drawn,
            spent,
            deviation,
            denied,
            refund,
            ..
        } = *self;
        [claimed, plain, drawn, spent, deviation, denied, refund]
            .iter()
            .all(|amount| *amount == Micro::ZERO)
    }

    /// Spends a cost that is covered; whether the shadow bucket had foreseen all of it.
    #[inline]
    const fn spend(&mut self, cost: Micro, exempt: bool) -> bool {
        self.spent = self.spent.plus(cost);
        if self.claimed.get() >= cost.get() && !exempt {
            self.claimed = self.claimed.minus(cost);
            return true;
        }
        if exempt {
            self.plain = self.plain.minus(cost);
            return false;
        }
        // Plain tokens go first, so that the claim is still there for a request that it covers whole.
        let held = self.plain.at_least_zero();
        let plain = if held.get() < cost.get() { held } else { cost };
        self.plain = self.plain.minus(plain);
        self.claimed = self.claimed.minus(cost.minus(plain));
        self.deviation = self.deviation.plus(plain);
        false
    }
}
