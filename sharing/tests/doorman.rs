//! The cases of doorman's own test of its algorithms, under the names that they have there (youtube/doorman, Apache-2.0,
//! go/server/doorman/algorithm_test.go), and the worked examples of its doc/algorithms.md.
//!
//! Doorman answers one client after the other and never lets leases exceed the capacity, so a client gets the smaller of
//! its share and what the others have not got yet. Some cases know all clients from the start, in others each is new when it asks. Left
//! out: `TestNoAlgorithm` and `TestStatic`, which divide nothing, and `TestLeaseLengthAndRefreshInterval`, which is about leases.

use forebay_sharing::{Claim, FairShare, Law, ProportionalShare};

struct Case {
    name: &'static str,
    law: &'static dyn Law,
    capacity_per_s: f64,
    /// Whether all clients are known before the first one asks.
    is_preloaded: bool,
    /// Wants, should get, subclients.
    clients: &'static [(f64, f64, f64)],
}

const CASES: &[Case] = &[
    Case {
        name: "TestFairShare",
        law: &FairShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[(1000.0, 55.0, 1.0), (60.0, 55.0, 1.0), (10.0, 10.0, 1.0)],
    },
    Case {
        name: "TestFairShareLowerExtra, and the example of FAIR_SHARE",
        law: &FairShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[(1000.0, 60.0, 1.0), (50.0, 50.0, 1.0), (10.0, 10.0, 1.0)],
    },
    Case {
        name: "TestFairShareWithMultipleSubclients, 1",
        law: &FairShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[(1000.0, 60.0, 6.0), (500.0, 40.0, 4.0), (200.0, 20.0, 2.0)],
    },
    Case {
        name: "TestFairShareWithMultipleSubclients, 2",
        law: &FairShare,
        capacity_per_s: 1000.0,
        is_preloaded: true,
        clients: &[
            (2000.0, 200.0, 10.0),
            (500.0, 200.0, 10.0),
            (700.0, 600.0, 30.0),
        ],
    },
    Case {
        name: "TestProportionalShare, 1",
        law: &ProportionalShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[(60.0, 55.0, 1.0), (60.0, 55.0, 1.0), (10.0, 10.0, 1.0)],
    },
    Case {
        name: "TestProportionalShare, 2",
        law: &ProportionalShare,
        capacity_per_s: 120.0,
        is_preloaded: false,
        clients: &[(60.0, 60.0, 1.0), (75.0, 60.0, 1.0), (10.0, 0.0, 1.0)],
    },
    Case {
        name: "TestProportionalShareWithMultipleSubclients, 1",
        law: &ProportionalShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[(65.0, 60.0, 3.0), (45.0, 40.0, 2.0), (20.0, 20.0, 1.0)],
    },
    Case {
        name: "TestProportionalShareWithMultipleSubclients, 2",
        law: &ProportionalShare,
        capacity_per_s: 120.0,
        is_preloaded: false,
        clients: &[(65.0, 65.0, 3.0), (45.0, 45.0, 2.0), (20.0, 10.0, 1.0)],
    },
    Case {
        name: "the example of PROPORTIONAL_SHARE",
        law: &ProportionalShare,
        capacity_per_s: 120.0,
        is_preloaded: true,
        clients: &[
            (1000.0, 69.690_721_65, 1.0),
            (50.0, 40.309_278_35, 1.0),
            (10.0, 10.0, 1.0),
        ],
    },
];

#[test]
fn doormans_cases_give_what_doorman_gives() {
    for case in CASES {
        let claims: Vec<Claim> = case
            .clients
            .iter()
            .map(|(wants, _, subclients)| Claim {
                demand_per_s: *wants,
                weight: *subclients,
                ..Claim::default()
            })
            .collect();
        let mut given: Vec<f64> = Vec::new();
        let mut shares = Vec::new();
        for (at, (_, should_get, _)) in case.clients.iter().enumerate() {
            let known = if case.is_preloaded {
                &claims[..]
            } else {
                &claims[..=at]
            };
            case.law.divide(case.capacity_per_s, known, &mut shares);
            let free = case.capacity_per_s - given.iter().sum::<f64>();
            let got = shares[at].min(free);
            assert!(
                (got - should_get).abs() < 1e-8,
                "{}: c{at} gets {got}, not {should_get}",
                case.name
            );
            given.push(got);
        }
    }
}
