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
use std::borrow::Cow;
use std::cmp::Reverse;

/// What a customer stands on in a cycle, in tokens per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    own: f32,
    guarantee: f32,
    pub(crate) rate: f32,
    ceiling: f32,
    pub(crate) weight: f32,
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

/// Where the capacity ends in each lane, if it does. `wants` are the sums of a level by lane, `rows` all wants of a level by customer, each with its
/// weight; a row that is shorter than the lanes is repeated. `guesses` has one level of water for each level and learns.
pub(crate) fn ends<'a>(
    room: Vec<f32>,
    wants: impl Iterator<Item = Vec<f32>>,
    rows: impl Fn(usize) -> Vec<(Cow<'a, [f32]>, f32)>,
    guesses: &mut [f32],
) -> Vec<Option<End>> {
    let mut left = room;
    let mut ends = vec![None; left.len()];
    for ((level, wants), guess) in wants.enumerate().zip(guesses) {
        let mut is_here = vec![false; left.len()];
        for (((left, want), end), is_here) in
            left.iter_mut().zip(&wants).zip(&ends).zip(&mut is_here)
        {
            *left = left.max(0.0);
            // Less than this is rounding.
            *is_here = end.is_none() && want - *left > 1e-4 * want;
        }
        if is_here.contains(&true) {
            let waters = waters(&left, &is_here, &rows(level), *guess);
            for ((end, is_here), water) in ends.iter_mut().zip(&is_here).zip(waters) {
                if *is_here {
                    *end = Some(End { level, water });
                    *guess = water;
                }
            }
        }
        for (left, want) in left.iter_mut().zip(&wants) {
            *left -= want;
        }
    }
    ends
}

/// The levels of water at which wants use up what is left, in the lanes where they do. By Newton's steps: what is used is concave in the level, so
/// that a step from above ends below, and from there they never pass it. Lanes go side by side, because customers are many and a row of lanes is
/// one cache line or two.
fn waters(left: &[f32], is_here: &[bool], rows: &[(Cow<'_, [f32]>, f32)], guess: f32) -> Vec<f32> {
    const MOST_STEPS: usize = 100;
    let mut waters = vec![guess; left.len()];
    let (mut used, mut rising) = (vec![0.0_f32; left.len()], vec![0.0_f32; left.len()]);
    for _ in 0..MOST_STEPS {
        used.fill(0.0);
        rising.fill(0.0);
        for (row, weight) in rows {
            let sums = used.chunks_mut(row.len()).zip(rising.chunks_mut(row.len()));
            for ((used, rising), waters) in sums.zip(waters.chunks(row.len())) {
                let sums = used.iter_mut().zip(rising);
                for (((used, rising), water), want) in sums.zip(waters).zip(row.iter()) {
                    let part = water * weight;
                    *used += want.min(part);
                    *rising += if *want > part { *weight } else { 0.0 };
                }
            }
        }
        let mut is_over = true;
        for (lane, water) in waters
            .iter_mut()
            .enumerate()
            .filter(|(lane, _)| is_here[*lane])
        {
            let next = if rising[lane] > 0.0 {
                (*water + (left[lane] - used[lane]) / rising[lane]).max(0.0)
            } else if used[lane] > left[lane] * 1.0001 {
                0.0
            } else {
                *water
            };
            is_over &= (next - *water).abs() <= 1e-4 * next;
            *water = next;
        }
        if is_over {
            break;
        }
    }
    waters
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
        let asks = all.iter().map(|(stand, demand)| stand.asks(*demand).of_own);
        let room = capacity - asks.sum::<f32>();
        let rows = |level: usize| -> Vec<(Cow<[f32]>, f32)> {
            let wants = all.iter().map(|(stand, demand)| stand.want(*demand, level));
            wants
                .map(|(want, weight)| (vec![want].into(), weight))
                .collect()
        };
        let sums = (0..4).map(|level| vec![rows(level).iter().map(|(row, _)| row[0]).sum()]);
        let mut shorts = Vec::new();
        // From wherever the water is guessed to be.
        for guess in [0.0, 30.0, 1000.0] {
            let ends = ends(vec![room], sums.clone(), rows, &mut [guess; 4]);
            let short = all
                .iter()
                .map(|(stand, demand)| stand.short(*demand, ends[0]));
            shorts.push(short.map(|short| (short * 100.0).round() / 100.0).collect());
        }
        assert!(
            shorts[0] == shorts[1] && shorts[1] == shorts[2],
            "{shorts:?}"
        );
        shorts.remove(0)
    }

    #[test]
    fn own_allocations_come_first_and_then_guarantees_and_then_classes() {
        let all = [
            (stand(1, 10.0, 30.0, 1.0), 50.0),
            (stand(2, 20.0, 20.0, 1.0), 60.0),
            (stand(3, 30.0, 0.0, 1.0), 10.0),
        ];
        // 40 of their own, 20 to the first one's guarantee, 20 to its rate, and 30 are left for the second: what the third does not use is no less
        // theirs.
        assert_eq!(shorts(110.0, &all), [0.0, 10.0, 0.0]);
        assert_eq!(shorts(70.0, &all), [10.0, 40.0, 0.0]);
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
