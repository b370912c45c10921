//! What came of a cycle, and what it is worth.

/// A guarantee that was missed in all minutes costs ten times what it costs to admit nobody. The bars of `make bench-sharing` weigh the
/// same: 0.05 % of missed minutes, and half a point of goodput.
const OF_MISSED: f64 = 10.0;
/// What was denied while there was capacity is missing in the goodput, and costs that once more: somebody could have had it.
const OF_FALSE_REJECTED: f64 = 1.0;

/// Sums of a cycle. Amounts are tokens, of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Asked for within contracts.
    pub asked: f64,
    /// Of it admitted.
    pub admitted: f64,
    /// Of that above what the pool had.
    pub over_admitted: f64,
    /// Denied while the capacity was not used up.
    pub false_rejected: f64,
    /// Minutes of customers that kept to their guarantee and asked for something.
    pub promised: f64,
    /// Of them those in which something was denied.
    pub missed: f64,
}

// === impl Outcome ===

impl Outcome {
    /// From 0 to 1: goodput, less what was missed and denied without need. `None` where nothing was asked for, and for sums that cannot be.
    #[must_use]
    pub fn reward(&self) -> Option<f64> {
        let over = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let goodput = (self.admitted - self.over_admitted) / self.asked;
        let missed = over(self.missed, self.promised);
        let false_rejected = self.false_rejected / self.asked;
        let reward = goodput - OF_MISSED * missed - OF_FALSE_REJECTED * false_rejected;
        (self.asked > 0.0 && reward.is_finite()).then(|| reward.clamp(0.0, 1.0))
    }

    /// Whether something happened that must not: a guarantee was missed, or more was admitted than there was.
    #[must_use]
    pub fn breaks_promise(&self) -> bool {
        self.missed > 0.0 || self.over_admitted > 0.0
    }
}
