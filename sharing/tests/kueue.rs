//! The matrices of Kueue's KEP-1224 (lending limits), as a list of cases: queues with a nominal quota, a borrowing limit and a lending limit in
//! one cohort. A nominal quota is a guarantee that is all of the rate here, a borrowing limit is how far the ceiling lies above it.
//!
//! Not taken: preemption of single workloads and the order of a queue, since tokens have neither.

use forebay_core::policy::Tier;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::{Customer, Group, Held, Lend, Outlook, Settings, Terms, allocate};

/// One queue: nominal, borrowing limit (none: no bound), lending limit (none: all), and what is asked for.
type Queue = (f64, Option<f64>, Option<f64>, f64);

fn admitted(queues: &[Queue]) -> Vec<f64> {
    let customers: Vec<Customer> = queues
        .iter()
        .map(|(nominal, borrowing, lending, asked)| Customer {
            tier: Tier::Two,
            priority: 0,
            weight: 1.0,
            group: None,
            terms: PerResource::only_first(Terms {
                guarantee_per_s: *nominal,
                rate_per_s: *nominal,
                ceiling_per_s: nominal + borrowing.unwrap_or(1e6),
                lend: lending.map_or(Lend::Auto, Lend::UpTo),
            }),
            outlook: PerResource::only_first(Outlook::of_demand(*asked)),
            headroom_per_s: PerResource::default(),
            held: PerResource::all(Held::default()),
            credits: 0.0,
        })
        .collect();
    let capacity: f64 = queues.iter().map(|(nominal, ..)| nominal).sum();
    let settings = Settings {
        reserve_share: 0.0,
        ..Settings::default()
    };
    let groups: [Group; 0] = [];
    let allocation = allocate(
        &PerResource::only_first(capacity),
        &customers,
        &groups,
        &settings,
    );
    allocation
        .parts
        .iter()
        .zip(queues)
        .map(|(parts, (.., asked))| {
            let part = parts.at(ResourceIndex::FIRST);
            // What a queue keeps and does not ask for is admitted to nobody.
            let has = part.allocated_per_s().min(*asked);
            (has * 1e6).round() / 1e6
        })
        .collect()
}

#[test]
fn two_queues_borrow_the_smaller_of_what_is_lent_and_what_may_be_borrowed() {
    // (borrowing limit of a, lending limit of b) -> what a gets when it asks for all and b for nothing.
    let cases = [
        (None, None, 20.0),
        (None, Some(0.0), 10.0),
        (None, Some(4.0), 14.0),
        (None, Some(10.0), 20.0),
        (Some(0.0), None, 10.0),
        (Some(3.0), None, 13.0),
        (Some(3.0), Some(4.0), 13.0),
        (Some(5.0), Some(4.0), 14.0),
        (Some(30.0), Some(30.0), 20.0),
    ];
    for (borrowing, lending, expected) in cases {
        let found = admitted(&[(10.0, borrowing, None, 100.0), (10.0, None, lending, 0.0)]);
        assert_eq!(found, [expected, 0.0], "{borrowing:?}, {lending:?}");
    }
}

#[test]
fn a_third_queue_adds_what_it_lends() {
    // (borrowing limit of a, lending limits of b and c) -> a.
    let cases = [
        (None, None, None, 30.0),
        (None, Some(2.0), Some(3.0), 15.0),
        (Some(4.0), Some(2.0), Some(3.0), 14.0),
        (Some(4.0), Some(0.0), Some(3.0), 13.0),
        (Some(0.0), None, None, 10.0),
        (None, Some(0.0), Some(0.0), 10.0),
    ];
    for (borrowing, of_b, of_c, expected) in cases {
        let queues = [
            (10.0, borrowing, None, 100.0),
            (10.0, None, of_b, 0.0),
            (10.0, None, of_c, 0.0),
        ];
        assert_eq!(
            admitted(&queues),
            [expected, 0.0, 0.0],
            "{borrowing:?}, {of_b:?}, {of_c:?}"
        );
    }
}

#[test]
fn two_that_borrow_from_one_have_the_same_each() {
    let queues = [
        (10.0, None, None, 100.0),
        (10.0, None, None, 100.0),
        (10.0, None, Some(6.0), 0.0),
    ];
    assert_eq!(admitted(&queues), [13.0, 13.0, 0.0]);
    // What one may not borrow is the other's.
    let queues = [
        (10.0, Some(1.0), None, 100.0),
        (10.0, None, None, 100.0),
        (10.0, None, Some(6.0), 0.0),
    ];
    assert_eq!(admitted(&queues), [11.0, 15.0, 0.0]);
}

#[test]
fn who_asks_for_its_nominal_quota_has_it_whoever_borrows() {
    for asked in [0.0, 3.0, 10.0] {
        let found = admitted(&[(10.0, None, None, 100.0), (10.0, None, None, asked)]);
        assert_eq!(found, [20.0 - asked, asked]);
    }
    let found = admitted(&[(10.0, None, None, 100.0), (10.0, None, None, 50.0)]);
    assert_eq!(found, [10.0, 10.0]);
}
