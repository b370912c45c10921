//! Accounts that are saved later: nothing of them must be durable at once.
//!
//! What is only reported changes with each sync, and is saved once in a while. When a fleet joins, all accounts begin to wait at one time, and
//! would be saved at one time from then on, every while: in a large fleet as much as all syncs write in a second. So no two wait equally
//! long. A queue of which a part leaves with each sync was worse: there are so many syncs that it was empty after a tenth of a second.

use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use std::collections::BTreeSet;

/// An account waits for this time, and then for the next sync.
const WITHIN_US: u64 = 20_000_000;

/// Or for up to so much less.
const SPREAD_US: u64 = 5_000_000;

/// Customers whose accounts wait, by when they leave. Each is in it once: the caller sees to that.
#[derive(Debug, Default)]
pub struct Later(BTreeSet<(TimeUs, CustomerHash)>);

impl Later {
    /// An account begins to wait.
    pub fn note(&mut self, customer: CustomerHash, now: TimeUs) {
        let (_, low) = customer.parts();
        let less_us = low.checked_rem(SPREAD_US).unwrap_or(0);
        self.0
            .insert((now.plus_us(WITHIN_US.saturating_sub(less_us)), customer));
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The next one that leaves now, if any does.
    pub fn pop_due(&mut self, now: TimeUs) -> Option<CustomerHash> {
        let (at, _) = self.0.first()?;
        if *at > now {
            return None;
        }
        self.0.pop_first().map(|(_, customer)| customer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::key::KeySecret;

    const ACCOUNTS: usize = 20_000;

    fn waiting_since(now: TimeUs) -> Later {
        let secret = KeySecret::development();
        let mut later = Later::default();
        for number in 0..ACCOUNTS {
            let key = format!("customer-{number}");
            later.note(CustomerHash(secret.hash(key.as_bytes()).0), now);
        }
        later
    }

    #[test]
    fn accounts_that_begin_to_wait_at_one_time_leave_at_an_even_pace() {
        let began_at = TimeUs(1_000_000_000);
        let mut later = waiting_since(began_at);
        for sync in 0..=80 {
            let now = began_at.plus_us(sync * 250_000);
            let leaving = std::iter::from_fn(|| later.pop_due(now)).count();
            let expected = if sync < 60 { 0 } else { ACCOUNTS / 20 };
            assert!(leaving <= expected * 5 / 4, "{sync}: {leaving}");
        }
        assert_eq!(later.len(), 0);
    }
}
