//! A policy as the comparison reads it: one resource of it, in plain numbers.

use forebay_core::policy::Tier;
use forebay_sharing::{Group, Settings, Terms};

/// A policy.
#[derive(Clone, Debug)]
pub struct Side {
    /// The pool, where the policy names a capacity.
    pub pool: Option<Pool>,
    /// How the pool is divided, where the policy says so.
    pub division: Option<Division>,
    /// Seconds from one cycle to the next.
    pub cycle_s: u32,
    /// One for each customer of the usage.
    pub members: Vec<Member>,
}

/// A pool, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Its rate.
    pub capacity_per_s: f64,
    /// Its depth.
    pub depth: f64,
    /// The part of the depth that claims may protect.
    pub protected_share: f64,
    /// Without a division: the quantile of its forecast that a customer claims, where it claims any.
    pub claimed_quantile: Option<f64>,
}

/// How a pool is divided.
#[derive(Clone, Debug)]
pub struct Division {
    /// The knobs.
    pub settings: Settings,
    /// Linked accounts.
    pub groups: Vec<Group>,
}

/// What the policy has for a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Who gives way first.
    pub tier: Tier,
    /// Within a tier.
    pub priority: u8,
    /// Within a priority.
    pub weight: f64,
    /// Its innermost group of linked accounts.
    pub group: Option<usize>,
    /// What it has bought.
    pub terms: Terms,
    /// Depth of its standard bucket, in tokens.
    pub burst: f64,
    /// Depth of its borrow allowance, in tokens.
    pub borrow_depth: f64,
    /// Until this second it is denied whatever it asks for, as one that is banned, frozen or unknown.
    pub refused_until_s: u64,
    /// Whether it is admitted whatever it asks for.
    pub is_exempt: bool,
}

// === impl Side ===

impl Side {
    /// Seconds from one cycle to the next.
    pub(super) fn cycle_s(&self) -> u64 {
        u64::from(self.cycle_s.max(1))
    }

    pub(super) fn begins_cycle(&self, at_s: u64) -> bool {
        at_s.is_multiple_of(self.cycle_s())
    }
}

// === impl Member ===

impl Member {
    /// A customer that the policy does not let in.
    #[must_use]
    pub fn refused() -> Self {
        Self {
            tier: Tier::Three,
            priority: 0,
            weight: 1.0,
            group: None,
            terms: Terms::default(),
            burst: 0.0,
            borrow_depth: 0.0,
            refused_until_s: u64::MAX,
            is_exempt: false,
        }
    }

    pub(super) const fn is_refused(&self, at_s: u64) -> bool {
        at_s < self.refused_until_s
    }
}
