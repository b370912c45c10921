//! What becomes of demand within a cycle: who is served, and who is short.
//!
//! The allocation is made once, from the forecasts, as in reality: the demand of a scenario is not known to it. Then a gateway serves
//! everybody from its own allocation, because that is a claim which others cannot take. What is left of the capacity, the reserve and
//! what owners do not use, goes first to guarantees that were lent (the reserve is there for them), and then class by class up to the
//! rate, each class's last part by weighted max-min, as [`crate::allocate`] itself divides. To allocate anew in every scenario would let
//! each account have what it needs at the moment when it needs it, which no cycle of minutes can.
//!
//! What is beyond the rate is nobody's due and comes last, so it makes nobody short and is not reckoned. Neither are the caps of groups, beyond
//! what the allocation has made of them.

use crate::allocation::{Customer, Terms};
use std::cmp::Reverse;

/// What a customer stands on in a cycle, in tokens per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    own: f32,
    guarantee: f32,
    pub(crate) rate: f32,
    ceiling: f32,
    weight: f32,
    /// Its class; the first level is that of guarantees.
    level: usize,
}

/// What an account asks for beyond its own allocation, by level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    pub(crate) of_own: f32,
    pub(crate) for_guarantee: f32,
    pub(crate) for_rate: f32,
}

/// Where the capacity ends: levels above are served in full, this one up to the water, and those below not at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct End {
    level: usize,
    /// What a customer of weight 1 has of it.
    water: f32,
}

/// How many levels there are, and what each customer stands on.
pub(crate) fn stands(customers: &[Customer], terms: &[Terms], own: &[f64]) -> (usize, Vec<Stand>) {
    let rank = |customer: &Customer| (customer.tier, Reverse(customer.priority));
    let mut classes: Vec<_> = customers.iter().map(rank).collect();
    classes.sort_unstable();
    classes.dedup();
    let stands = customers
        .iter()
        .zip(terms)
        .zip(own)
        .map(|((customer, terms), own)| Stand {
            own: *own as f32,
            guarantee: terms.guarantee_per_s as f32,
            rate: terms.rate_per_s as f32,
            ceiling: terms.ceiling_per_s as f32,
            weight: crate::numbers::clean_weight(customer.weight) as f32,
            level: 1 + classes.partition_point(|class| *class < rank(customer)),
        })
        .collect();
    (classes.len() + 1, stands)
}

/// Where the capacity ends, if it does: `wants` are the sums by level, `of_level` all wants of one.
pub(crate) fn end(
    room: f32,
    wants: impl Iterator<Item = f32>,
    of_level: impl FnOnce(usize) -> Vec<(f32, f32)>,
) -> Option<End> {
    let mut left = room.max(0.0);
    for (level, want) in wants.enumerate() {
        // Less than this is rounding.
        if want > left + 1e-4 * want {
            let water = water(left, &of_level(level));
            return Some(End { level, water });
        }
        left = (left - want).max(0.0);
    }
    None
}

/// The level of water at which wants, each with its weight, use up what is left: by Newton's steps from below, which never pass it.
fn water(left: f32, wants: &[(f32, f32)]) -> f32 {
    let mut water = 0.0;
    for _ in 0..wants.len() {
        let (mut used, mut rising) = (0.0_f32, 0.0_f32);
        for (want, weight) in wants {
            if *want > water * weight {
                used += water * weight;
                rising += weight;
            } else {
                used += want;
            }
        }
        let step = (left - used) / rising;
        if rising <= 0.0 || step <= water * 1e-5 {
            break;
        }
        water += step;
    }
    water
}

// === impl Stand ===

impl Stand {
    pub(crate) fn asks(&self, demand: f32) -> Asks {
        let admissible = demand.min(self.ceiling);
        let due = admissible.min(self.rate);
        let guaranteed = admissible.min(self.guarantee);
        Asks {
            of_own: admissible.min(self.own),
            for_guarantee: (guaranteed - self.own).max(0.0),
            for_rate: (due - self.own.max(guaranteed)).max(0.0),
        }
    }

    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// What the account wants of a level, and its weight.
    pub(crate) fn want(&self, demand: f32, level: usize) -> (f32, f32) {
        let asks = self.asks(demand);
        let want = if level == 0 {
            asks.for_guarantee
        } else if level == self.level {
            asks.for_rate
        } else {
            0.0
        };
        (want, self.weight)
    }

    /// What it does not get of what it is due.
    pub(crate) fn short(&self, demand: f32, end: Option<End>) -> f32 {
        let Some(end) = end else {
            return 0.0;
        };
        let lacks = |level: usize| {
            let (want, weight) = self.want(demand, level);
            match level.cmp(&end.level) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => (want - end.water * weight).max(0.0),
                std::cmp::Ordering::Greater => want,
            }
        };
        lacks(0) + lacks(self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(level: usize, own: f32, guarantee: f32, weight: f32) -> Stand {
        Stand {
            own,
            guarantee,
            rate: 100.0,
            ceiling: 120.0,
            weight,
            level,
        }
    }

    fn shorts(capacity: f32, all: &[(Stand, f32)]) -> Vec<f32> {
        let used: f32 = all
            .iter()
            .map(|(stand, demand)| stand.asks(*demand).of_own)
            .sum();
        let of_level = |level: usize| -> Vec<(f32, f32)> {
            all.iter()
                .map(|(stand, demand)| stand.want(*demand, level))
                .collect()
        };
        let sums = (0..4).map(|level| of_level(level).iter().map(|(want, _)| want).sum());
        let end = end(capacity - used, sums, of_level);
        all.iter()
            .map(|(stand, demand)| stand.short(*demand, end))
            .collect()
    }

    #[test]
    fn own_allocations_come_first_and_then_guarantees_and_then_classes() {
        let all = [
            (stand(1, 10.0, 30.0, 1.0), 50.0),
            (stand(2, 20.0, 20.0, 1.0), 60.0),
            (stand(3, 30.0, 0.0, 1.0), 30.0),
        ];
        // 60 of their own, 20 to the first one's guarantee, 20 to its rate, and 10 are left for the second.
        assert_eq!(shorts(110.0, &all), [0.0, 30.0, 0.0]);
        assert_eq!(shorts(90.0, &all), [10.0, 40.0, 0.0]);
        assert_eq!(shorts(200.0, &all), [0.0; 3]);
    }

    #[test]
    fn within_a_class_the_rest_is_weighted_max_min() {
        let all = [
            (stand(1, 0.0, 0.0, 1.0), 90.0),
            (stand(1, 0.0, 0.0, 2.0), 90.0),
            (stand(1, 0.0, 0.0, 1.0), 10.0),
        ];
        assert_eq!(shorts(70.0, &all), [70.0, 50.0, 0.0]);
    }

    #[test]
    fn what_is_beyond_the_rate_is_nobodys_due() {
        assert_eq!(shorts(0.0, &[(stand(1, 0.0, 0.0, 1.0), 500.0)]), [100.0]);
    }
}
