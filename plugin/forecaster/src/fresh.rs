//! Series whose newest forecast the control plane has not seen, in the order in which they have waited.
//!
//! A sync has room for some of them only. Taking the newest ones first was worse: where more are made than fit, the same series came last
//! in each step and were never shown.

use std::collections::VecDeque;

use crate::series::SlotId;

/// Series that wait, each of them once.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    queue: VecDeque<SlotId>,
    is_queued: Vec<bool>,
}

// === impl Fresh ===

impl Fresh {
    /// The series has a new forecast. One that waits already keeps its place.
    pub(crate) fn push(&mut self, slot: SlotId) {
        let Ok(index) = usize::try_from(slot) else {
            return;
        };
        if index >= self.is_queued.len() {
            self.is_queued.resize(index.saturating_add(1), false);
        }
        if let Some(queued) = self.is_queued.get_mut(index)
            && !std::mem::replace(queued, true)
        {
            self.queue.push_back(slot);
        }
    }

    /// Takes those that have waited longest, `most` at most.
    pub(crate) fn take(&mut self, most: usize) -> Vec<SlotId> {
        let taken: Vec<SlotId> = self.queue.drain(..most.min(self.queue.len())).collect();
        for slot in &taken {
            if let Some(queued) = usize::try_from(*slot)
                .ok()
                .and_then(|index| self.is_queued.get_mut(index))
            {
                *queued = false;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_that_are_forecast_again_before_their_turn_keep_nobody_waiting() {
        let mut fresh = Fresh::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            // The same order in each step, and more of them than a sync has room for.
            (0..2_000).for_each(|slot| fresh.push(slot));
            seen.extend(fresh.take(512));
        }
        assert_eq!(seen.len(), 2_000);
    }

    #[test]
    fn a_series_waits_once() {
        let mut fresh = Fresh::default();
        (0..3).for_each(|_| fresh.push(7));
        assert_eq!(fresh.take(9), [7]);
        fresh.push(7);
        assert_eq!(fresh.take(9), [7]);
    }
}
