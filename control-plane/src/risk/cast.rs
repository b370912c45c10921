//! Who takes part when pairs are scored: the customers of a study as the cycle knows them, and all others as one for each tier.
//!
//! Others are neither spikers nor hit, but they use the pool. Each of a hundred thousand in scenarios would take minutes; to take off the capacity what they
//! are allocated was the other alternative, and would have all of them need their upper quantile at once.

use crate::allocation::Book;
use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Lend, Outlook, Terms};
use forebay_wire::key::CustomerHash;
use std::collections::BTreeMap;

/// Customers who are added up.
#[derive(Clone, Debug, Default)]
struct Rest {
    terms: Terms,
    /// Of their guarantees, may be lent.
    lends_per_s: f64,
    weight: f64,
    median_per_s: f64,
    /// Of independent customers squares of distances from the median add up.
    squares: [f64; 2],
}

/// Customers of a study by hash, in its order, and behind them the rest of each tier.
pub(super) fn cast(
    book: &Book,
    studied: &[CustomerHash],
    resource: ResourceIndex,
) -> Vec<Customer> {
    let known = studied.iter().map(|hash| {
        let entry = book.entry(*hash);
        entry.map_or_else(absent, |entry| entry.customer.clone())
    });
    let mut customers: Vec<Customer> = known.collect();
    let mut rests: BTreeMap<u8, (Tier, Rest)> = BTreeMap::new();
    for entry in &book.entries {
        if studied.binary_search(&entry.hash).is_err() {
            let tier = entry.customer.tier;
            let (_, rest) = rests
                .entry(tier.number())
                .or_insert_with(|| (tier, Rest::default()));
            rest.add(&entry.customer, resource);
        }
    }
    let rests = rests.into_values();
    customers.extend(rests.map(|(tier, rest)| rest.customer(tier, resource)));
    customers
}

/// Who is in no cycle any more asks for nothing.
fn absent() -> Customer {
    Customer {
        tier: Tier::Three,
        priority: 0,
        weight: 1.0,
        group: None,
        terms: PerResource::default(),
        outlook: PerResource::default(),
        headroom_per_s: PerResource::default(),
        held: PerResource::default(),
        credits: 0.0,
    }
}

// === impl Rest ===

impl Rest {
    fn add(&mut self, customer: &Customer, resource: ResourceIndex) {
        let terms = customer.terms.at(resource);
        self.terms.guarantee_per_s += terms.guarantee_per_s;
        self.terms.rate_per_s += terms.rate_per_s;
        self.terms.ceiling_per_s += terms.ceiling_per_s;
        self.lends_per_s += match terms.lend {
            Lend::Never => 0.0,
            Lend::Auto => terms.guarantee_per_s,
            Lend::UpTo(most) => most.min(terms.guarantee_per_s),
        };
        self.weight += customer.weight;
        let [median, upper, most] = customer.outlook.at(resource).quantiles_per_s;
        self.median_per_s += median;
        for (sum, quantile) in self.squares.iter_mut().zip([upper, most]) {
            *sum += (quantile - median).max(0.0).powi(2);
        }
    }

    fn customer(self, tier: Tier, resource: ResourceIndex) -> Customer {
        let mut customer = Customer {
            tier,
            weight: self.weight,
            ..absent()
        };
        *customer.terms.at_mut(resource) = Terms {
            lend: Lend::UpTo(self.lends_per_s),
            ..self.terms
        };
        let [upper, most] = self.squares.map(|sum| self.median_per_s + sum.sqrt());
        *customer.outlook.at_mut(resource) = Outlook {
            quantiles_per_s: [self.median_per_s, upper, most],
        };
        customer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(quantiles_per_s: [f64; 3], guarantee_per_s: f64, lend: Lend) -> Customer {
        Customer {
            terms: PerResource::only_first(Terms {
                guarantee_per_s,
                rate_per_s: 10.0,
                ceiling_per_s: 20.0,
                lend,
            }),
            outlook: PerResource::only_first(Outlook { quantiles_per_s }),
            ..absent()
        }
    }

    #[test]
    fn medians_of_the_rest_add_up_and_what_is_above_them_does_not() {
        let mut rest = Rest::default();
        rest.add(
            &customer([10.0, 13.0, 16.0], 5.0, Lend::Auto),
            ResourceIndex::FIRST,
        );
        rest.add(
            &customer([20.0, 24.0, 28.0], 7.0, Lend::UpTo(2.0)),
            ResourceIndex::FIRST,
        );
        rest.add(&customer([0.0; 3], 3.0, Lend::Never), ResourceIndex::FIRST);
        let all = rest.customer(Tier::Two, ResourceIndex::FIRST);
        let outlook = all.outlook.at(ResourceIndex::FIRST).quantiles_per_s;
        assert_eq!(outlook, [30.0, 35.0, 40.0]);
        let terms = all.terms.at(ResourceIndex::FIRST);
        assert_eq!(
            (terms.guarantee_per_s, terms.rate_per_s, terms.lend),
            (15.0, 30.0, Lend::UpTo(7.0))
        );
        assert_eq!((all.tier, all.weight), (Tier::Two, 3.0));
    }
}
