//! Which shared-data keys the ledger uses, and which page a customer is on.
//!
//! The number of pages is fixed when the ledger is seeded: compare-and-swap on a missing key always succeeds, so creating a
//! page on the draw path could give two workers the same tokens. Policy customers and others live in separate regions,
//! so that a flood of made-up keys evicts nobody who has a contract.

use super::entry::CustomerHash;
use crate::limits::{MAX_PAGES_LOG2, TARGET_ENTRIES_PER_PAGE};

/// The gateway's [`super::State`].
pub const STATE_KEY: &str = "fb/1/state";
/// The registered [`super::Workers`].
pub const WORKERS_KEY: &str = "fb/1/workers";
/// The [`super::Seat`] of the VM that leads.
pub const LEADER_KEY: &str = "fb/1/leader";
/// The compiled [`crate::policy::Policy`].
pub const POLICY_KEY: &str = "fb/1/policy";
/// All pools in one value: one compare-and-swap for all resources.
pub const POOL_KEY: &str = "fb/1/pool";

/// Longest page key: prefix, slash and seven digits.
const KEY_BYTES: usize = 16;

/// A part of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// Customers of the policy: never evicted.
    Policy,
    /// Everyone else: bounded, evicts.
    Other,
}

/// How many customers a ledger is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSize {
    /// Customers of the policy.
    pub max_policy_customers: u64,
    /// Other customers that are remembered at once.
    pub max_other_customers: u64,
}

/// The number of pages of both regions, as powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Log2 of the number of pages for policy customers.
    pub policy_pages_log2: u8,
    /// Log2 of the number of pages for others.
    pub other_pages_log2: u8,
}

/// A page's shared-data key, made without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; KEY_BYTES],
    len: u8,
}

// === impl LedgerSize ===

impl Default for LedgerSize {
    fn default() -> LedgerSize {
        LedgerSize {
            max_policy_customers: 10_000,
            max_other_customers: 10_000,
        }
    }
}

// === impl Layout ===

impl Layout {
    /// The layout for a ledger of this size: about four entries per page.
    #[must_use]
    pub fn for_size(size: LedgerSize) -> Layout {
        Layout {
            policy_pages_log2: pages_log2(size.max_policy_customers),
            other_pages_log2: pages_log2(size.max_other_customers),
        }
    }

    /// Number of pages in a region.
    #[must_use]
    pub const fn pages(&self, region: Region) -> u32 {
        let log2 = match region {
            Region::Policy => self.policy_pages_log2,
            Region::Other => self.other_pages_log2,
        };
        1_u32.wrapping_shl(if log2 > MAX_PAGES_LOG2 {
            MAX_PAGES_LOG2
        } else {
            log2
        } as u32)
    }

    /// The page of a customer. The hash is keyed, so nobody outside can aim at a page.
    #[must_use]
    pub const fn page_of(&self, region: Region, customer: &CustomerHash) -> u32 {
        customer.page_bits() & self.pages(region).wrapping_sub(1)
    }

    /// The key of a page.
    #[must_use]
    pub fn key(&self, region: Region, page: u32) -> Key {
        Key::new(region, page)
    }
}

// === impl Key ===

impl Key {
    fn new(region: Region, page: u32) -> Key {
        let prefix: &[u8; 7] = match region {
            Region::Policy => b"fb/1/p/",
            Region::Other => b"fb/1/o/",
        };
        let mut digits = [0_u8; KEY_BYTES];
        let mut len = 0_u8;
        let mut rest = page;
        // Digits come out last first; they are turned round while copying behind the prefix.
        for slot in &mut digits {
            *slot = b'0'.wrapping_add((rest % 10) as u8);
            len = len.saturating_add(1);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let mut bytes = [0_u8; KEY_BYTES];
        let written = digits.iter().take(usize::from(len)).rev();
        for (slot, byte) in bytes.iter_mut().zip(prefix.iter().chain(written)) {
            *slot = *byte;
        }
        Key {
            bytes,
            len: len.saturating_add(prefix.len() as u8),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

fn pages_log2(customers: u64) -> u8 {
    let pages = customers
        .div_ceil(TARGET_ENTRIES_PER_PAGE)
        .max(1)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX);
    (pages.trailing_zeros() as u8).min(MAX_PAGES_LOG2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_keys_are_plain_numbers_behind_the_prefix() {
        let layout = Layout {
            policy_pages_log2: 20,
            other_pages_log2: 3,
        };
        assert_eq!(layout.key(Region::Policy, 0).as_str(), "fb/1/p/0");
        assert_eq!(
            layout.key(Region::Policy, 1_048_575).as_str(),
            "fb/1/p/1048575"
        );
        assert_eq!(layout.key(Region::Other, 7).as_str(), "fb/1/o/7");
    }

    #[test]
    fn a_page_has_two_to_four_customers_when_the_ledger_is_as_full_as_it_was_made_for() {
        for (customers, pages) in [
            (0, 1),
            (4, 1),
            (5, 2),
            (10_000, 4_096),
            (1_000_000, 262_144),
        ] {
            let size = LedgerSize {
                max_policy_customers: customers,
                max_other_customers: 1,
            };
            assert_eq!(
                Layout::for_size(size).pages(Region::Policy),
                pages,
                "{customers} customers"
            );
        }
    }
}
