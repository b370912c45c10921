//! Who shares the backend, by which contracts, and what each of them asks for.
//!
//! The policy is the example of the guide's page on sharing, at a size that two cores carry together with the load: customers of three
//! tiers
//! whose contracts are together more than the capacity, and a neighbour of the third tier that may use all that is idle.

use forebay_traces::generator::SeededRandom;
use serde_json::{Map, Value, json};

/// What the backend serves, and what the policy says that it does.
pub(super) const CAPACITY_PER_S: u32 = 400;
pub(super) const GATEWAYS: usize = 2;
pub(super) const NEIGHBOUR_RATE_PER_S: u32 = 50;
/// The flood, in contracts of the neighbour.
pub(super) const FLOOD_TIMES: f64 = 12.0;
/// What everybody asks for who keeps to a contract, as a part of it.
const USUAL_SHARE: f64 = 0.5;
const GROUPS: [Group; 3] = [
    Group::new(1, 5, 32, 16),
    Group::new(2, 7, 20, 5),
    Group::new(3, 8, 12, 0),
];

/// Customers of one contract.
struct Group {
    tier: u8,
    customers: usize,
    rate_per_s: u32,
    guarantee_per_s: u32,
}

/// What is different in one arrangement of policy and backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrangement {
    pub(super) name: &'static str,
    /// The policy divides the capacity.
    pub(super) has_sharing: bool,
    /// What the neighbour may take of what is idle.
    pub(super) ceiling_per_s: u32,
    /// Depth of the pool in milliseconds of capacity.
    pub(super) depth_ms: u32,
    /// What the backend really serves.
    pub(super) backend_per_s: u32,
}

/// What the neighbour does, and where its requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// It asks for half of its contract.
    Quiet,
    /// The same once more: the run against itself.
    QuietAgain,
    /// It floods both gateways.
    Flood,
    /// It asks for half of its contract, and the rest of the flood is answered by Envoy itself with 429 and without our plugin: what the
    /// flood costs
    /// the machine.
    Machine,
    /// It floods, and nothing stands before the backend.
    Unprotected,
}

/// One request to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Microseconds after the start of its window.
    pub(super) at_us: u64,
    /// By place in [`customers`].
    pub(super) customer: usize,
    pub(super) gateway: usize,
    pub(super) route: Route,
}

/// A listener of each gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Admission stands before the backend.
    Admitted,
    /// Nothing does.
    Open,
    /// Envoy answers with 429.
    Refused,
}

/// A customer as the bench sees it.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) key: String,
    pub(super) tier: u8,
    pub(super) is_neighbour: bool,
    usual_per_s: f64,
}

// === impl Group ===

impl Group {
    const fn new(tier: u8, customers: usize, rate_per_s: u32, guarantee_per_s: u32) -> Self {
        Self {
            tier,
            customers,
            rate_per_s,
            guarantee_per_s,
        }
    }

    fn contract(&self) -> String {
        format!("tier-{}", self.tier)
    }
}

// === impl Arrangement ===

impl Arrangement {
    /// The policy document.
    pub(super) fn policy(&self) -> Value {
        let mut contracts = Map::new();
        for group in &GROUPS {
            let limits = json!({
                "rate_per_s": group.rate_per_s, "burst": 2 * group.rate_per_s, "guarantee_per_s": group.guarantee_per_s,
            });
            contracts.insert(
                group.contract(),
                json!({"tier": group.tier, "limits": {"requests": limits}}),
            );
        }
        let limits = json!({
            "rate_per_s": NEIGHBOUR_RATE_PER_S, "burst": NEIGHBOUR_RATE_PER_S, "ceiling_per_s": self.ceiling_per_s,
        });
        contracts.insert(
            "neighbour".to_owned(),
            json!({"tier": 3, "limits": {"requests": limits}}),
        );
        let customers: Vec<Value> = customers()
            .iter()
            .map(|customer| {
                let contract = match customer.is_neighbour {
                    true => "neighbour".to_owned(),
                    false => format!("tier-{}", customer.tier),
                };
                json!({"key": customer.key, "contract": contract})
            })
            .collect();
        let mut policy = json!({
            "version": 1,
            "unknown": {"action": "deny"},
            "resources": {"requests": {"capacity_per_s": CAPACITY_PER_S, "depth_ms": self.depth_ms}},
            "contracts": contracts,
            "customers": customers,
        });
        if self.has_sharing {
            policy["sharing"] = json!({"interval_ms": 10_000, "reserve_share": 0.2});
        }
        policy
    }
}

// === impl Condition ===

impl Condition {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::QuietAgain => "quiet_again",
            Self::Flood => "flood",
            Self::Machine => "machine",
            Self::Unprotected => "unprotected",
        }
    }

    /// What the neighbour sends, and by which way.
    fn neighbour(self) -> Vec<(Route, f64)> {
        let contract = f64::from(NEIGHBOUR_RATE_PER_S);
        let (usual, flood) = (USUAL_SHARE * contract, FLOOD_TIMES * contract);
        match self {
            Self::Quiet | Self::QuietAgain => vec![(Route::Admitted, usual)],
            Self::Flood => vec![(Route::Admitted, flood)],
            Self::Machine => vec![(Route::Admitted, usual), (Route::Refused, flood - usual)],
            Self::Unprotected => vec![(Route::Open, flood)],
        }
    }
}

/// All of them, the neighbour last.
pub(super) fn customers() -> Vec<Customer> {
    let mut customers = Vec::new();
    for group in &GROUPS {
        for number in 0..group.customers {
            customers.push(Customer {
                key: format!("tier-{}-customer-{number}", group.tier),
                tier: group.tier,
                is_neighbour: false,
                usual_per_s: USUAL_SHARE * f64::from(group.rate_per_s),
            });
        }
    }
    customers.push(Customer {
        key: "neighbour".to_owned(),
        tier: 3,
        is_neighbour: true,
        usual_per_s: 0.0,
    });
    customers
}

/// All requests of a window, in order of time. What the others ask for depends on the seed alone.
pub(super) fn arrivals(condition: Condition, seed: u64, length_us: u64) -> Vec<Arrival> {
    let root = SeededRandom::new(seed);
    let customers = customers();
    let mut arrivals = Vec::new();
    let others = match condition {
        Condition::Unprotected => Route::Open,
        _ => Route::Admitted,
    };
    for (place, customer) in customers.iter().enumerate() {
        let streams = match customer.is_neighbour {
            true => condition.neighbour(),
            false => vec![(others, customer.usual_per_s)],
        };
        for (number, (route, rate_per_s)) in streams.into_iter().enumerate() {
            let mut random = root.fork(place as u64).fork(number as u64);
            let mut at_us = 1e6 * random.exponential() / rate_per_s;
            while at_us < length_us as f64 {
                let gateway = (random.uniform() * GATEWAYS as f64) as usize;
                arrivals.push(Arrival {
                    at_us: at_us as u64,
                    customer: place,
                    gateway,
                    route,
                });
                at_us += 1e6 * random.exponential() / rate_per_s;
            }
        }
    }
    arrivals.sort_by_key(|arrival| (arrival.at_us, arrival.customer));
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH_US: u64 = 60_000_000;

    fn of_others(condition: Condition) -> Vec<(u64, usize, usize)> {
        let neighbour = customers().len() - 1;
        arrivals(condition, 7, LENGTH_US)
            .into_iter()
            .filter(|arrival| arrival.customer != neighbour)
            .map(|arrival| (arrival.at_us, arrival.customer, arrival.gateway))
            .collect()
    }

    #[test]
    fn others_ask_for_the_same_whatever_the_neighbour_does() {
        let quiet = of_others(Condition::Quiet);
        for condition in [
            Condition::QuietAgain,
            Condition::Flood,
            Condition::Machine,
            Condition::Unprotected,
        ] {
            assert_eq!(of_others(condition), quiet, "{condition:?}");
        }
        assert_ne!(
            arrivals(Condition::Quiet, 8, LENGTH_US),
            arrivals(Condition::Quiet, 7, LENGTH_US)
        );
    }

    #[test]
    fn the_flood_is_twelve_contracts_and_comes_to_both_gateways() {
        let neighbour = customers().len() - 1;
        for (condition, times) in [
            (Condition::Quiet, 0.5),
            (Condition::Flood, 12.0),
            (Condition::Machine, 12.0),
        ] {
            let mut sent = [0_usize; GATEWAYS];
            for arrival in arrivals(condition, 7, LENGTH_US) {
                if arrival.customer == neighbour {
                    sent[arrival.gateway] += 1;
                }
            }
            let wanted = times * f64::from(NEIGHBOUR_RATE_PER_S) * 60.0;
            for sent in sent {
                // Five standard deviations of a Poisson count.
                let away = (2.0 * sent as f64 - wanted).abs();
                assert!(away < 5.0 * (2.0 * wanted).sqrt(), "{condition:?}: {sent}");
            }
        }
    }

    #[test]
    fn contracts_promise_more_than_the_capacity_and_demand_is_within_it() {
        let promised: f64 = GROUPS
            .iter()
            .map(|group| group.customers as f64 * f64::from(group.rate_per_s))
            .sum();
        let capacity = f64::from(CAPACITY_PER_S);
        assert!(promised + f64::from(NEIGHBOUR_RATE_PER_S) > capacity);
        assert!(USUAL_SHARE * promised + f64::from(NEIGHBOUR_RATE_PER_S) < capacity);
    }
}
