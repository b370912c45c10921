//! What a contract lets through: a standard bucket, and behind it the borrow allowance.

use super::side::Member;

/// The two buckets of a customer, looked at once a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    standard: Filled,
    borrowing: Filled,
}

/// A bucket, with what it has before it is cut to its depth.
#[derive(Clone, Copy, Debug)]
struct Filled {
    rate_per_s: f64,
    depth: f64,
    available: f64,
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn full(member: &Member) -> Self {
        let terms = member.terms;
        Self {
            standard: Filled::full(terms.rate_per_s, member.burst),
            borrowing: Filled::full(
                (terms.ceiling_per_s - terms.rate_per_s).max(0.0),
                member.borrow_depth,
            ),
        }
    }

    /// Goes on by a second, and says how much of what is asked for it would let through.
    pub(super) fn offer(&mut self, asked: f64) -> f64 {
        self.standard.refill();
        self.borrowing.refill();
        asked.min(self.standard.available + self.borrowing.available)
    }

    /// Pays for what was admitted.
    pub(super) fn pay(&mut self, admitted: f64) {
        let standard = admitted.min(self.standard.available);
        self.standard.take(standard);
        self.borrowing.take(admitted - standard);
    }
}

// === impl Filled ===

impl Filled {
    const fn full(rate_per_s: f64, depth: f64) -> Self {
        Self {
            rate_per_s,
            depth,
            available: depth,
        }
    }

    /// A second's rate comes on top of a full bucket: it flows while the requests of the second come.
    fn refill(&mut self) {
        self.available = self.available.min(self.depth) + self.rate_per_s;
    }

    fn take(&mut self, amount: f64) {
        self.available = (self.available - amount).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::what_if::tests::member;

    #[test]
    fn a_contract_pays_for_what_is_admitted_and_borrows_when_it_is_used_up() {
        let mut of = member(10.0, 0.0);
        of.terms.ceiling_per_s = 12.0;
        of.borrow_depth = 2.0;
        let mut allowance = Allowance::full(&of);
        let mut second = |asked, denied_by_pool| {
            let within = allowance.offer(asked);
            allowance.pay(within - denied_by_pool);
            within
        };
        // 20 in store, 10 of the second, and 2 and 2 to be borrowed.
        assert_eq!(second(99.0, 0.0), 34.0);
        assert_eq!(second(99.0, 12.0), 12.0);
        assert_eq!(second(99.0, 0.0), 24.0, "what was denied is still there");
        assert_eq!(second(5.0, 0.0), 5.0);
        assert_eq!(second(99.0, 0.0), 19.0);
    }
}
