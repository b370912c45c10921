//! Tokens and rates that the control plane has moved to this gateway.
//!
//! Messages are lost and repeated, so a grant never says "here are 50 more": it carries the sum of all tokens granted so
//! far, and the entry remembers how much of it has arrived. Applying the same grant twice, or an old one late, moves
//! nothing. Credits and resets by an operator (`adjust`) travel in the same way.
//!
//! An entry can be dropped and made again while the sums go on: the policy stops listing its customer and lists it again. The
//! new entry has seen nothing, and would take the whole sum a second time. So a grant also carries the `base`: what had been
//! moved when the customer was listed. An entry that was never granted anything starts there; one that lives on, because both
//! changes of the policy arrived as one, has its own sum and goes on from that. Taking the larger of both was worse: the sums
//! shrink when an operator takes tokens back, so the larger one is not the later one.

use crate::amount::{Micro, Rate};

/// A grant for one customer (or one pool) and one resource, as it came with a sync reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Rates and depth from now on.
    pub terms: GrantTerms,
    /// All tokens granted so far, in micro-tokens. Wraps.
    pub granted_cum: u64,
    /// Sum of all operator adjustments so far, in micro-tokens. Wraps.
    pub adjust_cum: i64,
    /// What of all that went to earlier lives of the entry, in micro-tokens. Wraps.
    pub base_cum: u64,
}

/// The standing part of a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantTerms {
    /// Refill while the lease is live.
    pub rate: Rate,
    /// Depth of the local bucket.
    pub cap: Micro,
    /// Refill from the end of the lease to the end of the fallback.
    pub fallback_rate: Rate,
}

// === impl Grant ===

impl Grant {
    /// Everything that was ever moved to the gateway under this grant.
    #[must_use]
    pub const fn moved_cum(&self) -> u64 {
        self.granted_cum.wrapping_add_signed(self.adjust_cum)
    }

    /// What of it has not arrived yet, if `seen_cum` has. Negative if the operator took tokens back.
    #[must_use]
    pub const fn news(&self, seen_cum: u64) -> Micro {
        Micro::new(self.moved_cum().wrapping_sub(seen_cum).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_grant_brings_nothing_new() {
        let grant = Grant {
            granted_cum: 500,
            adjust_cum: -100,
            ..Grant::default()
        };
        assert_eq!(grant.news(0), Micro::new(400));
        assert_eq!(grant.news(grant.moved_cum()), Micro::ZERO);
    }

    #[test]
    fn sums_that_wrap_round_still_give_the_difference() {
        let grant = Grant {
            granted_cum: 5,
            ..Grant::default()
        };
        assert_eq!(grant.news(u64::MAX - 4), Micro::new(10));
    }
}
