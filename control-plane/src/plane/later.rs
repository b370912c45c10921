//! Accounts that are saved later: nothing of them must be durable at once.
//!
//! What is only reported changes with each sync, and is saved once in a while. When a fleet joins, all accounts begin to wait at one time, and
//! would be saved at one time from then on, every while: in a large fleet as much as all syncs write in a second. So no two wait equally
//! long. A queue of which a part leaves with each sync was worse: there are so many syncs that it was empty after a tenth of a second.

use forebay_core::time::TimeUs;
use forebay_wire::key::CustomerHash;
use std::collections::BTreeSet;

/// An account waits for this time at most, if there are syncs.
const WITHIN_US: u64 = 20_000_000;

/// And for up to so much less.
const SPREAD_US: u64 = 5_000_000;

/// After a time without syncs, so many leave at once, or this part of all that wait.
const FEW: usize = 1_024;
const PART: usize = 16;

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

    /// Those that leave now.
    pub fn take(&mut self, now: TimeUs) -> Vec<CustomerHash> {
        let most = FEW.max(self.0.len() / PART);
        let mut leaving = Vec::new();
        while leaving.len() < most
            && self.0.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, customer)) = self.0.pop_first()
        {
            leaving.push(customer);
        }
        leaving
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
        let mut left = BTreeSet::new();
        for sync in 0..80 {
            let leaving = later.take(began_at.plus_us(sync * 250_000));
            let expected = ACCOUNTS as u64 * 250_000 / SPREAD_US;
            assert!(
                (leaving.len() as u64) < expected * 5 / 4,
                "{sync}: {}",
                leaving.len()
            );
            left.extend(leaving);
        }
        assert!(left.len() > ACCOUNTS * 9 / 10, "{}", left.len());
        left.extend(later.take(began_at.plus_us(WITHIN_US)));
        assert_eq!(left.len(), ACCOUNTS);
    }

    #[test]
    fn after_a_time_without_syncs_they_do_not_leave_all_at_once() {
        let mut later = waiting_since(TimeUs(0));
        let at = TimeUs(3_600_000_000);
        assert_eq!(later.take(at).len(), ACCOUNTS / PART);
        let mut takes = 1;
        while !later.take(at).is_empty() {
            takes += 1;
        }
        assert!(takes < 100, "{takes}");
    }
}
