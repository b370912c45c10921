//! Whose history is asked for, a few with each sync.
//!
//! The control plane has weeks of usage where a new gateway has none. Windows are asked for in small numbers, because they are the
//! largest part of a reply and a reply is decoded in one piece.

use std::collections::VecDeque;

use forebay_core::ledger::CustomerHash;
use forebay_wire::key;
use forebay_wire::sync::WindowWish;

use crate::limits::{WINDOWS_MOST, WINDOWS_WAITING_MOST};

/// Customers whose history is wanted, and those asked for in the sync that is under way.
#[derive(Debug, Default)]
pub struct Windows {
    wanted: VecDeque<CustomerHash>,
    asked: Vec<CustomerHash>,
}

// === impl Windows ===

impl Windows {
    /// Wants the history of a customer.
    pub fn want(&mut self, customer: CustomerHash) {
        if self.wanted.len() < WINDOWS_WAITING_MOST {
            self.wanted.push_back(customer);
        }
    }

    /// Whether any history is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Takes the next few for a sync that is sent now.
    pub fn ask(&mut self) -> Vec<WindowWish> {
        let count = self.wanted.len().min(WINDOWS_MOST);
        self.asked.extend(self.wanted.drain(..count));
        self.asked
            .iter()
            .map(|customer| {
                let (hash_high, hash_low) = key::CustomerHash(customer.0).parts();
                WindowWish {
                    hash_high,
                    hash_low,
                }
            })
            .collect()
    }

    /// The sync was answered for all customers but those that `is_missing` names, which are asked for again.
    pub fn answered(&mut self, is_missing: impl Fn(&CustomerHash) -> bool) {
        for customer in std::mem::take(&mut self.asked) {
            if is_missing(&customer) {
                self.want(customer);
            }
        }
    }

    /// The sync failed.
    pub fn lost(&mut self) {
        self.answered(|_| true);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.wanted.clear();
        self.asked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(number: u8) -> CustomerHash {
        CustomerHash([number; 16])
    }

    #[test]
    fn what_was_lost_or_left_out_is_asked_for_again() {
        let mut windows = Windows::default();
        for number in 0..100 {
            windows.want(customer(number));
        }
        assert_eq!(windows.ask().len(), WINDOWS_MOST);
        windows.lost();
        let mut seen = std::collections::BTreeSet::new();
        while !windows.is_empty() {
            let asked = windows.ask();
            seen.extend(asked.iter().map(|wish| wish.hash_low));
            // One of each batch does not fit into the reply, the first time.
            let left_out = asked
                .first()
                .map(|wish| wish.hash_low)
                .filter(|_| asked.len() > 1);
            windows.answered(|customer| left_out == Some(key::CustomerHash(customer.0).parts().1));
        }
        assert_eq!(seen.len(), 100);
    }
}
