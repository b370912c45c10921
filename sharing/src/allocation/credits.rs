//! What lending earns and borrowing costs: credits, after Karma (Vuppalapati et al., OSDI 2023).
//!
//! A credit is a second of the whole capacity of a resource. Who has something of the pool pays for it; who has lent earns what others
//! have of its guarantee; what was paid for capacity that nobody was guaranteed goes back to all by weight. So the sum never changes, and
//! it needs no source of free credits whose size somebody would have to choose. The richest go first among equals
//! ([`crate::Settings::with_credits`]); a balance may be negative, so that capacity is never left lying because nobody can pay.
//!
//! As a rebate on a bill a credit is worth a price times the capacity that it stands for; that is a matter of the invoice.

use crate::allocation::part::Allocation;
use crate::allocation::terms::Customer;
use crate::numbers::{clean, clean_weight};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::resource::{PerResource, ResourceIndex};

/// Balances after a cycle: one for each customer, in their order.
#[must_use]
pub fn credits_after(
    capacity_per_s: &PerResource<f64>,
    customers: &[Customer],
    allocation: &Allocation,
    interval_s: f64,
) -> Vec<f64> {
    let mut credits: Vec<f64> = customers
        .iter()
        .map(|customer| finite(customer.credits))
        .collect();
    let weights: f64 = customers
        .iter()
        .map(|customer| clean_weight(customer.weight))
        .sum();
    for resource in ResourceIndex::first(MAX_RESOURCES) {
        let capacity = clean(*capacity_per_s.at(resource));
        if capacity <= 0.0 {
            continue;
        }
        let of = |amount_per_s: f64| amount_per_s / capacity * interval_s;
        let mut common = 0.0;
        for (balance, parts) in credits.iter_mut().zip(&allocation.parts) {
            let part = parts.at(resource);
            let change = of(part.lent_per_s) - of(part.of_pool_per_s() + part.shared_per_s);
            *balance += change;
            common -= change;
        }
        for (balance, customer) in credits.iter_mut().zip(customers) {
            *balance += common * (clean_weight(customer.weight) / weights);
        }
    }
    credits
}

/// What somebody new begins with: what the others have in the mean, so that neither leaving nor coming back pays.
#[must_use]
pub fn credits_of_newcomer(credits: &[f64]) -> f64 {
    if credits.is_empty() {
        0.0
    } else {
        credits.iter().map(|balance| finite(*balance)).sum::<f64>() / credits.len() as f64
    }
}

/// Largest balance, either way, in seconds of a capacity: thirty years.
const MAX: f64 = 1e9;

pub(crate) fn finite(balance: f64) -> f64 {
    if balance.is_finite() {
        balance.clamp(-MAX, MAX)
    } else {
        0.0
    }
}
