//! Who shares the pool: tenants of a trace in groups, with what they have bought.

use super::arrivals::normal;
use crate::random::Random;
use forebay_core::policy::Tier;

/// The part of the capacity that is guaranteed to somebody.
const GUARANTEED: f64 = 0.7;
/// Which of the steps' rates of the first half is bought.
const CONTRACT_QUANTILE: f64 = 0.9;
/// The parts of the customers that are of tiers 1 and 2.
const TIER_PARTS: [f64; 2] = [0.2, 0.5];

/// One customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Buyer {
    /// Who gives way when the pool is short.
    pub tier: Tier,
    /// The rate of its contract, in requests per second.
    pub contract_per_s: f64,
    /// What its guarantee is reckoned from: its contract before any spike.
    bought_per_s: f64,
    /// Mean requests of each minute.
    minutes: Vec<f64>,
}

/// Customers and their demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Market {
    /// The customers.
    pub buyers: Vec<Buyer>,
    /// What all ask for together in the first half, in requests per second.
    pub mean_per_s: f64,
}

/// Demand that is many times what it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spike {
    /// Whose.
    pub tier: Tier,
    /// How many times. Contracts grow as much, so that nothing but the pool stands in its way.
    pub factor: f64,
    /// The first minute.
    pub from_minute: usize,
    /// How long.
    pub minutes: usize,
}

// === impl Market ===

impl Market {
    /// Puts tenants, each with its requests in steps of `step_s` (a multiple of a minute), into so many groups of sizes whose logarithms are normal. Where there are
    /// fewer tenants than that, each is a customer. What is bought is known from the first half.
    #[must_use]
    pub fn new(tenants: &[Vec<f64>], step_s: usize, customers: usize, seed: u64) -> Self {
        let mut random = Random::new(seed).fork(1);
        let steps = tenants.iter().map(Vec::len).max().unwrap_or(0);
        let customers = customers.min(tenants.len());
        let sizes: Vec<f64> = (0..customers).map(|_| normal(&mut random).exp()).collect();
        let mut groups = vec![vec![0.0; steps]; customers];
        for (place, tenant) in shuffled(tenants.len(), &mut random).into_iter().enumerate() {
            // The first ones so that no group is empty.
            let group = if place < customers {
                place
            } else {
                chosen(&sizes, &mut random)
            };
            if let (Some(group), Some(tenant)) = (groups.get_mut(group), tenants.get(tenant)) {
                for (sum, value) in group.iter_mut().zip(tenant) {
                    *sum += value;
                }
            }
        }
        let mut places = vec![0; customers];
        for (place, customer) in shuffled(customers, &mut random).into_iter().enumerate() {
            if let Some(of) = places.get_mut(customer) {
                *of = place;
            }
        }
        let half = steps / 2;
        let of_step = (step_s / 60).max(1);
        let buyers: Vec<Buyer> = groups
            .into_iter()
            .zip(places)
            .map(|(steps, place)| {
                let contract_per_s =
                    quantile(steps.get(..half).unwrap_or_default()) / step_s as f64;
                let minutes = steps
                    .iter()
                    .flat_map(|value| std::iter::repeat_n(value / of_step as f64, of_step));
                Buyer {
                    tier: tier(place, customers),
                    contract_per_s,
                    bought_per_s: contract_per_s,
                    minutes: minutes.collect(),
                }
            })
            .collect();
        let half_minutes = half * of_step;
        let first_half = buyers
            .iter()
            .flat_map(|buyer| buyer.minutes.get(..half_minutes));
        let sum: f64 = first_half.flatten().sum();
        Self {
            buyers,
            mean_per_s: sum / (half_minutes.max(1) * 60) as f64,
        }
    }

    /// The same with a spike.
    #[must_use]
    pub fn with_spike(mut self, spike: &Spike) -> Self {
        for buyer in self
            .buyers
            .iter_mut()
            .filter(|buyer| buyer.tier == spike.tier)
        {
            buyer.contract_per_s *= spike.factor;
            let minutes = buyer.minutes.iter_mut().skip(spike.from_minute);
            for minute in minutes.take(spike.minutes) {
                *minute *= spike.factor;
            }
        }
        self
    }

    /// Minutes of demand.
    #[must_use]
    pub fn minutes(&self) -> usize {
        self.buyers.first().map_or(0, |buyer| buyer.minutes.len())
    }

    /// Guarantees in a pool of that capacity: by contract, together seven tenths of it, and no more than the contract.
    #[must_use]
    pub fn guarantees_per_s(&self, capacity_per_s: f64) -> Vec<f64> {
        let bought: f64 = self.buyers.iter().map(|buyer| buyer.bought_per_s).sum();
        let part = (GUARANTEED * capacity_per_s / bought.max(f64::MIN_POSITIVE)).min(1.0);
        self.buyers
            .iter()
            .map(|buyer| buyer.bought_per_s * part)
            .collect()
    }

    /// Contracts before any spike: what customers weigh.
    #[must_use]
    pub fn weights(&self) -> Vec<f64> {
        self.buyers.iter().map(|buyer| buyer.bought_per_s).collect()
    }
}

// === impl Buyer ===

impl Buyer {
    pub(crate) fn minutes(&self) -> &[f64] {
        &self.minutes
    }
}

fn tier(place: usize, customers: usize) -> Tier {
    let [one, two] = TIER_PARTS;
    let part = (place as f64 + 0.5) / customers as f64;
    if part < one {
        Tier::One
    } else if part < one + two {
        Tier::Two
    } else {
        Tier::Three
    }
}

fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

/// A group, by size.
fn chosen(sizes: &[f64], random: &mut Random) -> usize {
    let mut place = random.uniform() * sizes.iter().sum::<f64>();
    for (group, size) in sizes.iter().enumerate() {
        place -= size;
        if place < 0.0 {
            return group;
        }
    }
    sizes.len().saturating_sub(1)
}

/// The nearest rank.
fn quantile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (CONTRACT_QUANTILE * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Customers of these tiers who have bought one request per second each.
    pub(crate) fn market_of(tiers: &[Tier]) -> Market {
        let buyers = tiers.iter().map(|tier| Buyer {
            tier: *tier,
            contract_per_s: 1.0,
            bought_per_s: 1.0,
            minutes: Vec::new(),
        });
        Market {
            buyers: buyers.collect(),
            mean_per_s: 1.0,
        }
    }

    #[test]
    fn customers_are_groups_that_have_all_tenants_once_and_nobody_is_empty() {
        let tenants: Vec<Vec<f64>> = (0..50).map(|i| vec![f64::from(i); 20]).collect();
        let market = Market::new(&tenants, 60, 20, 3);
        assert_eq!(market.buyers.len(), 20);
        let sums = market.buyers.iter().map(|buyer| buyer.minutes[7]);
        assert_eq!(sums.sum::<f64>(), f64::from((0..50).sum::<i32>()));
        for (tier, count) in [(Tier::One, 4), (Tier::Two, 10), (Tier::Three, 6)] {
            let of_tier = market.buyers.iter().filter(|buyer| buyer.tier == tier);
            assert_eq!(of_tier.count(), count);
        }
        assert_ne!(market, Market::new(&tenants, 60, 20, 4));
    }

    #[test]
    fn a_contract_is_what_nine_in_ten_steps_of_the_first_half_stay_within() {
        let steps = (1..=20).map(|step| {
            if step <= 10 {
                f64::from(step) * 60.0
            } else {
                9e9
            }
        });
        let market = Market::new(&[steps.collect()], 120, 60, 1);
        assert_eq!(market.buyers[0].contract_per_s, 4.5);
        assert_eq!(market.minutes(), 40);
        assert_eq!(market.mean_per_s, 2.75);
        assert_eq!(market.guarantees_per_s(5.0), [3.5]);
        assert_eq!(market.guarantees_per_s(50.0), [4.5]);
    }
}
