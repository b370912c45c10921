//! How long one cycle of the allocation takes with ten thousand customers in two thousand groups with caps.

use std::hint::black_box;
use std::time::Instant;

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Group, Held, Lend, Outlook, Settings, Terms, allocate};

const CUSTOMERS: usize = 10_000;
const RESOURCES: usize = 2;
/// Customers that are linked, and their cap over what they have bought together.
const OF_GROUP: usize = 5;
const CAP: f64 = 0.8;
const RUNS: usize = 5;

/// The fastest of five, in milliseconds: what else the machine does only makes a run slower.
pub(crate) fn cycle_ms() -> f64 {
    let customers: Vec<Customer> = (0..CUSTOMERS).map(customer).collect();
    let groups: Vec<Group> = customers.chunks(OF_GROUP).map(group).collect();
    let mut capacity_per_s = PerResource::default();
    for resource in ResourceIndex::first(RESOURCES) {
        let rates = customers
            .iter()
            .map(|customer| customer.terms.at(resource).rate_per_s);
        *capacity_per_s.at_mut(resource) = 0.7 * rates.sum::<f64>();
    }
    let run = |_| {
        let start = Instant::now();
        black_box(allocate(
            &capacity_per_s,
            &customers,
            &groups,
            &Settings::default(),
        ));
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

/// Linked accounts whose cap is below what they may borrow.
fn group(members: &[Customer]) -> Group {
    let mut cap_per_s = PerResource::default();
    for resource in ResourceIndex::first(RESOURCES) {
        let rates = members
            .iter()
            .map(|customer| customer.terms.at(resource).rate_per_s);
        *cap_per_s.at_mut(resource) = Some(CAP * rates.sum::<f64>());
    }
    Group {
        parent: None,
        cap_per_s,
    }
}

/// Sizes over three decades, a third of the pool's demand above its share.
fn customer(index: usize) -> Customer {
    let spread = |salt: usize| ((index * 7_919 + salt * 104_729) % 10_007) as f64 / 10_007.0;
    let mut terms = PerResource::default();
    let mut outlook = PerResource::default();
    let mut held = PerResource::default();
    for resource in ResourceIndex::first(RESOURCES) {
        let salt = resource.position();
        let rate_per_s = 10_f64.powf(3.0 * spread(salt));
        *terms.at_mut(resource) = Terms {
            guarantee_per_s: 0.5 * rate_per_s,
            rate_per_s,
            ceiling_per_s: 1.5 * rate_per_s,
            lend: Lend::Auto,
        };
        let median = rate_per_s * (0.2 + spread(salt + 3));
        *outlook.at_mut(resource) = Outlook {
            quantiles_per_s: [median, 1.4 * median, 2.0 * median],
        };
        *held.at_mut(resource) = Held {
            per_s: rate_per_s * spread(salt + 5),
            is_releasing: false,
        };
    }
    Customer {
        tier: [Tier::One, Tier::Two, Tier::Three][index % 3],
        priority: (index % 4) as u8,
        weight: 1.0 + spread(9),
        group: Some(index / OF_GROUP),
        terms,
        outlook,
        headroom_per_s: PerResource::default(),
        held,
        credits: 0.0,
    }
}
