//! The answer to a request: admitted in one of three ways, or denied with a reason and the time to come back.
//!
//! A denial is a value, not a `false`: the plugin needs its reason for the response, the resource for the headers and the
//! time for `Retry-After`, and all three are known only where the test failed.

use crate::resource::ResourceIndex;
use crate::time::TimeUs;

/// What was decided on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Admitted on the customer's claim: its demand was foreseen.
    Shadow,
    /// Admitted from the standard bucket.
    Standard,
    /// Admitted above the contract's rate, from the borrow allowance.
    Borrowed,
    /// Not admitted.
    Denied(Denial),
}

/// Why a request was not admitted, and when it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What stood in the way.
    pub reason: Reason,
    /// Of which resource there was too little; the first one for a ban or an unknown customer.
    pub resource: ResourceIndex,
    /// The earliest time at which the same request could be admitted; [`TimeUs::NEVER`] if waiting does not help.
    pub retry_at: TimeUs,
}

/// What stood in the way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The customer has used up its contract.
    Contract,
    /// The pool is short, or what is in it is protected for others.
    Pool,
    /// The customer is banned or frozen.
    Banned,
    /// The customer is in no policy, and the policy denies such customers.
    Unknown,
}

// === impl Verdict ===

impl Verdict {
    /// Whether the request may go on.
    #[must_use]
    pub const fn is_admitted(&self) -> bool {
        !matches!(self, Verdict::Denied(_))
    }

    /// The word for it in headers, logs and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Verdict::Shadow => "shadow",
            Verdict::Standard => "standard",
            Verdict::Borrowed => "borrowed",
            Verdict::Denied(denial) => denial.reason.word(),
        }
    }

    /// The verdict on a request that several resources had to admit: the one of the resource furthest from its forecast.
    #[must_use]
    pub(crate) const fn and(self, other: Verdict) -> Verdict {
        if self.rank() >= other.rank() {
            self
        } else {
            other
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Verdict::Shadow => 0,
            Verdict::Standard => 1,
            Verdict::Borrowed => 2,
            Verdict::Denied(_) => 3,
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The word for it in headers, logs and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Reason::Contract => "contract",
            Reason::Pool => "pool",
            Reason::Banned => "banned",
            Reason::Unknown => "unknown",
        }
    }
}
