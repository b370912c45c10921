//! How many samples were taken, and why others were not.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a sample is dropped. But for the last one it is answered like one that is kept: to send it again would change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// No option asks for the series.
    NotChosen,
    /// Its series has no label that names a customer.
    NoCustomer,
    /// No policy lists the customer, and no gateway has reported it.
    UnknownCustomer,
    /// It says that its series has ended.
    Stale,
    /// It is no number from 0 on that can be learned from.
    NotAMeasurement,
    /// There was one of its series with the same time.
    Duplicate,
    /// There was a newer one of its series.
    OutOfOrder,
    /// Its step is no longer kept.
    TooOld,
    /// Its time is still to come.
    TooNew,
    /// There is no room for one more series.
    TooManySeries,
    /// Its series has a label twice. The request is answered with 400, as remote write wants it; to send it again would change nothing all the same.
    RepeatedLabel,
}

/// Counts by reason.
pub(crate) type DroppedCounts = [u64; Dropped::ALL.len()];

/// What has become of samples since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenCounts {
    /// Samples that are in the mean of their step.
    pub kept: u64,
    /// Samples that were dropped, in the order of [`Dropped::ALL`].
    pub dropped: [u64; Dropped::ALL.len()],
    /// Requests that were refused.
    pub refused: u64,
    /// Series that senders are remembered by.
    pub series: usize,
}

/// Counts while requests come.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kept: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    refused: AtomicU64,
}

// === impl Dropped ===

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NotChosen,
        Self::NoCustomer,
        Self::UnknownCustomer,
        Self::Stale,
        Self::NotAMeasurement,
        Self::Duplicate,
        Self::OutOfOrder,
        Self::TooOld,
        Self::TooNew,
        Self::TooManySeries,
        Self::RepeatedLabel,
    ];

    /// As in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotChosen => "not_chosen",
            Self::NoCustomer => "no_customer",
            Self::UnknownCustomer => "unknown_customer",
            Self::Stale => "stale",
            Self::NotAMeasurement => "not_a_measurement",
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out_of_order",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::TooManySeries => "too_many_series",
            Self::RepeatedLabel => "repeated_label",
        }
    }

    pub(crate) fn count(self, counts: &mut DroppedCounts, samples: usize) {
        if let Some(count) = counts.get_mut(self as usize) {
            *count = count.saturating_add(samples as u64);
        }
    }
}

// === impl Tally ===

impl Tally {
    pub(crate) fn add(&self, kept: u64, dropped: &DroppedCounts) {
        self.kept.fetch_add(kept, Ordering::Relaxed);
        for (sum, count) in self.dropped.iter().zip(dropped) {
            sum.fetch_add(*count, Ordering::Relaxed);
        }
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self, series: usize) -> TakenCounts {
        TakenCounts {
            kept: self.kept.load(Ordering::Relaxed),
            dropped: self
                .dropped
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            refused: self.refused.load(Ordering::Relaxed),
            series,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        let mut counts = DroppedCounts::default();
        for (position, reason) in Dropped::ALL.into_iter().enumerate() {
            reason.count(&mut counts, position + 1);
        }
        assert_eq!(counts, std::array::from_fn(|position| position as u64 + 1));
    }
}
