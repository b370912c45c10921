//! Installing a policy's customers on their pages.
//!
//! Idempotent, because it runs again after a restart, on each policy change and in every worker that is configured: it adds
//! who is missing, updates contract and flags, and keeps every bucket. It works page by page so that a million
//! customers can be spread over many ticks. What newcomers protect counts on the pools at once: a guarantee that waits for
//! the next lap of the scan is none.

use super::claims::Claims;
use super::entry::{CustomerHash, Entry};
use super::exchange::Ledger;
use super::layout::{Layout, Region};
use super::page::Page;
use super::shared_data::SharedData;
use crate::draw::Conditions;
use crate::error::CoreError;
use crate::limits::US_PER_S;
use crate::policy::ContractIndex;
use crate::time::TimeUs;

/// A customer of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyCustomer {
    /// Who.
    pub customer: CustomerHash,
    /// Row of the contract table.
    pub contract: ContractIndex,
    /// Always admitted.
    pub exempt: bool,
    /// Never admitted, until the operator says otherwise.
    pub frozen: bool,
    /// Not admitted before this time; [`TimeUs::NEVER`] for a ban without end.
    pub ban_until: Option<TimeUs>,
}

/// Customers on their way to their pages.
#[derive(Clone, Debug)]
pub struct Install {
    layout: Layout,
    customers: Vec<PolicyCustomer>,
    next_customer: usize,
    next_page: u32,
    whole: bool,
    done: Installed,
}

/// What an installation has changed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Customers that were not there.
    pub added: u64,
    /// Customers whose contract or flags changed.
    pub updated: u64,
    /// Customers that the policy no longer has.
    pub removed: u64,
}

// === impl Install ===

impl Install {
    /// Starts an installation. If these are `whole` list, customers that are not among them are removed.
    #[must_use]
    pub fn new(ledger: &Ledger, mut customers: Vec<PolicyCustomer>, whole: bool) -> Install {
        let layout = ledger.state().layout;
        customers.sort_unstable_by_key(|customer| {
            (
                layout.page_of(Region::Policy, &customer.customer),
                customer.customer,
            )
        });
        customers.dedup_by_key(|customer| customer.customer);
        Install {
            layout,
            customers,
            next_customer: 0,
            next_page: 0,
            whole,
            done: Installed::default(),
        }
    }

    /// Works on up to `max_pages` pages. Returns whether everything is installed.
    pub fn step(
        &mut self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        max_pages: u32,
    ) -> Result<bool, CoreError> {
        let mut claims = Claims::default();
        let mut is_done = false;
        for _ in 0..max_pages {
            if !self.whole {
                match self.customers.get(self.next_customer) {
                    Some(next) => {
                        self.next_page = self.layout.page_of(Region::Policy, &next.customer);
                    }
                    None => is_done = true,
                }
            }
            is_done |= self.next_page >= self.layout.pages(Region::Policy);
            if is_done {
                break;
            }
            self.install_page(ledger, data, conditions, &mut claims)?;
        }
        claims.add_to(ledger, data, conditions)?;
        Ok(is_done)
    }

    /// What has changed so far.
    #[must_use]
    pub const fn done(&self) -> Installed {
        self.done
    }

    fn install_page(
        &mut self,
        ledger: &mut Ledger,
        data: &mut impl SharedData,
        conditions: &Conditions<'_>,
        claims: &mut Claims,
    ) -> Result<(), CoreError> {
        let page = self.next_page;
        let rest = self.customers.get(self.next_customer..).unwrap_or_default();
        let here = rest
            .iter()
            .take_while(|next| self.layout.page_of(Region::Policy, &next.customer) == page)
            .count();
        let customers = rest.get(..here).unwrap_or_default();
        let mut changed = Installed::default();
        let mut newcomers = Claims::default();
        ledger.edit_page(data, Region::Policy, page, conditions.now, |page| {
            changed = Installed::default();
            newcomers = Claims::default();
            for customer in customers {
                install(page, customer, conditions, &mut changed, &mut newcomers)?;
            }
            if self.whole {
                changed.removed = remove_others(page, customers, conditions.now);
            }
            Ok(changed != Installed::default())
        })?;
        claims.add(&newcomers);
        self.done.added = self.done.added.saturating_add(changed.added);
        self.done.updated = self.done.updated.saturating_add(changed.updated);
        self.done.removed = self.done.removed.saturating_add(changed.removed);
        self.next_customer = self.next_customer.saturating_add(here);
        self.next_page = page.saturating_add(1);
        Ok(())
    }
}

// === impl PolicyCustomer ===

impl PolicyCustomer {
    /// A customer with a contract and nothing special.
    #[must_use]
    pub const fn plain(customer: CustomerHash, contract: ContractIndex) -> PolicyCustomer {
        PolicyCustomer {
            customer,
            contract,
            exempt: false,
            frozen: false,
            ban_until: None,
        }
    }

    fn ban_until_s(&self) -> u32 {
        match self.ban_until {
            None => 0,
            Some(TimeUs::NEVER) => u32::MAX,
            // Rounded up: a ban may not end early. A ban to the second 0 has ended.
            Some(until) => u32::try_from(until.0.div_ceil(US_PER_S)).unwrap_or(u32::MAX),
        }
    }
}

fn install(
    page: &mut Page<'_>,
    wanted: &PolicyCustomer,
    conditions: &Conditions<'_>,
    changed: &mut Installed,
    newcomers: &mut Claims,
) -> Result<(), CoreError> {
    let position = page.view().find(&wanted.customer);
    let mut entry = match position {
        Some(position) => page.get(position)?,
        None if page.is_full(Region::Policy) => {
            return Err(CoreError::PageFull {
                key: "of the policy's customers".to_owned(),
            });
        }
        None => page.newcomer(
            &wanted.customer,
            wanted.contract,
            conditions.policy,
            conditions.now,
        ),
    };
    let before = entry;
    update(&mut entry, wanted, conditions);
    match position {
        Some(position) if entry != before => {
            page.put(position, &entry);
            changed.updated = changed.updated.saturating_add(1);
        }
        Some(_) => {}
        None => {
            page.push(&entry);
            changed.added = changed.added.saturating_add(1);
            entry.refill(conditions.policy, &conditions.lease, conditions.now);
            newcomers.add(&Claims::of(&entry, conditions));
        }
    }
    Ok(())
}

fn update(entry: &mut Entry, wanted: &PolicyCustomer, conditions: &Conditions<'_>) {
    let changes_contract = entry.contract != wanted.contract;
    if changes_contract {
        // What has flowed so far flowed under the old contract.
        entry.refill(conditions.policy, &conditions.lease, conditions.now);
    }
    entry.contract = wanted.contract;
    entry.flags.in_policy = true;
    entry.flags.exempt = wanted.exempt;
    entry.flags.frozen = wanted.frozen;
    entry.ban_until_s = wanted.ban_until_s();
}

/// Removes entries that are not in `customers`, which is sorted by hash.
fn remove_others(page: &mut Page<'_>, customers: &[PolicyCustomer], now: TimeUs) -> u64 {
    let mut removed = 0_u64;
    let mut position = 0;
    while let Ok(entry) = page.get(position) {
        if customers
            .binary_search_by_key(&entry.customer, |customer| customer.customer)
            .is_ok()
        {
            position = position.saturating_add(1);
        } else {
            page.remove(position);
            page.note_eviction(now);
            removed = removed.saturating_add(1);
        }
    }
    removed
}
