//! When each request is sent: the same moments in every run of a seed.
//!
//! The schedule is made before the run and never waits for an answer (open loop). A client that sends the next request
//! when the last one came back slows down together with the system it measures, and the overload disappears from the
//! result.

use forebay_traces::generator::SeededRandom;

use crate::scenario::Scenario;

/// One request to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Microseconds after the start of the replay.
    pub at_us: u64,
    /// Index of the customer in the scenario.
    pub customer: usize,
}

/// All arrivals of a scenario in order of time: per customer a Poisson process whose rate is the demand of the step.
pub(crate) fn schedule(scenario: &Scenario, seed: u64) -> Vec<Arrival> {
    let root = SeededRandom::new(seed).fork(2);
    let mut arrivals = Vec::new();
    for (customer, c) in scenario.customers.iter().enumerate() {
        let mut random = root.fork(customer as u64);
        // Time is walked in units of demand, in which the process has rate 1 whatever the step's height.
        let mut next = random.exponential();
        let mut passed = 0.0;
        for (step, demand) in c.demand.iter().enumerate() {
            while next < passed + demand {
                let steps = step as f64 + (next - passed) / demand;
                arrivals.push(Arrival {
                    at_us: (steps * scenario.step_ms as f64 * 1_000.0) as u64,
                    customer,
                });
                next += random.exponential();
            }
            passed += demand;
        }
    }
    arrivals.sort_by_key(|a| (a.at_us, a.customer));
    arrivals
}

#[cfg(test)]
mod tests {
    use super::schedule;
    use crate::scenario::{Scenario, Size};

    const SIZE: Size = Size {
        capacity_per_s: 500.0,
        steps: 30,
        step_ms: 1_000,
        seed: 1,
    };

    #[test]
    fn arrivals_follow_the_demand_of_each_customer() {
        let scenario = Scenario::new(None, SIZE).unwrap();
        let arrivals = schedule(&scenario, 1);
        for (index, customer) in scenario.customers.iter().enumerate() {
            let wanted: f64 = customer.demand.iter().sum();
            let made = arrivals.iter().filter(|a| a.customer == index).count() as f64;
            // Five standard deviations of a Poisson count.
            assert!(
                (made - wanted).abs() < 5.0 * wanted.sqrt(),
                "{}: {made} of {wanted}",
                customer.name
            );
        }
        assert!(arrivals.is_sorted_by_key(|a| a.at_us));
        assert!(arrivals.last().unwrap().at_us < 35_000_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let scenario = Scenario::new(None, SIZE).unwrap();
        assert_eq!(schedule(&scenario, 1), schedule(&scenario, 1));
        assert_ne!(schedule(&scenario, 1), schedule(&scenario, 2));
    }
}
