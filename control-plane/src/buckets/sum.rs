//! What all parts of an account reserve, as a sum that is kept.
//!
//! A customer that is busy everywhere has a part at each of hundreds of gateways and is reported about thousands of times a second, so
//! nothing may be added up anew for a report. Core's own sums stop at the largest amount there is, and what stops cannot be taken from
//! again: these are wide enough for all parts together.

use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::Reserved;

/// An exact sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    rate: i128,
    cap: i128,
}

// === impl Sum ===

impl Sum {
    /// One of the parts has come to reserve something else.
    pub(super) fn replace(&mut self, before: Reserved, after: Reserved) {
        self.rate += i128::from(after.rate.get()) - i128::from(before.rate.get());
        self.cap += i128::from(after.cap.get()) - i128::from(before.cap.get());
    }

    /// All of it.
    pub(super) fn all(&self) -> Reserved {
        self.but(Reserved::default())
    }

    /// All but one part.
    pub(super) fn but(&self, own: Reserved) -> Reserved {
        let rate = self.rate - i128::from(own.rate.get());
        let cap = self.cap - i128::from(own.cap.get());
        Reserved {
            rate: Rate::new(u64::try_from(rate.max(0)).unwrap_or(u64::MAX)),
            cap: Micro::new(i64::try_from(cap.max(0)).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::limits::MAX_MICRO;

    #[test]
    fn the_largest_parts_can_be_added_and_taken_away_again() {
        let largest = Reserved {
            rate: Rate::new(MAX_MICRO.unsigned_abs()),
            cap: Micro::new(MAX_MICRO),
        };
        let small = Reserved {
            rate: Rate::new(7),
            cap: Micro::new(9),
        };
        let mut sum = Sum::default();
        sum.replace(Reserved::default(), small);
        for _ in 0..1_024 {
            sum.replace(Reserved::default(), largest);
        }
        assert!(sum.all().rate >= largest.rate && sum.all().cap >= largest.cap);
        for _ in 0..1_024 {
            sum.replace(largest, Reserved::default());
        }
        assert_eq!(sum.all(), small);
        assert_eq!(sum.but(small), Reserved::default());
    }
}
