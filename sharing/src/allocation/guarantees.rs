//! What is left of guarantees when the capacity is not what it was.
//!
//! A policy whose guarantees do not fit is refused, but capacity can be lost under a policy that was good. Then tier 3 gives first, then tier 2,
//! and within a tier all give the same part: to give the same part across tiers would make the first tier's promise worth as much as the last's.

use forebay_core::policy::Tier;

/// Scales `guarantees` (tier, tokens per second) so that they fit into `capacity_per_s`.
pub(crate) fn scale(capacity_per_s: f64, guarantees: &mut [(Tier, f64)]) {
    let mut left = capacity_per_s;
    for tier in [Tier::One, Tier::Two, Tier::Three] {
        let of_tier = |guarantee: &&mut (Tier, f64)| guarantee.0 == tier;
        let sum: f64 = guarantees
            .iter()
            .filter(|(of, _)| *of == tier)
            .map(|(_, g)| g)
            .sum();
        if sum > left {
            let part = left / sum;
            for (_, guarantee) in guarantees.iter_mut().filter(of_tier) {
                *guarantee *= part;
            }
        }
        left = (left - sum).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tier_gives_first_and_all_in_it_the_same_part() {
        let of = |capacity_per_s| {
            let mut guarantees = [
                (Tier::Three, 30.0),
                (Tier::One, 40.0),
                (Tier::Two, 20.0),
                (Tier::Three, 10.0),
            ];
            scale(capacity_per_s, &mut guarantees);
            guarantees.map(|(_, guarantee)| guarantee)
        };
        assert_eq!(of(100.0), [30.0, 40.0, 20.0, 10.0]);
        assert_eq!(of(80.0), [15.0, 40.0, 20.0, 5.0]);
        assert_eq!(of(50.0), [0.0, 40.0, 10.0, 0.0]);
        assert_eq!(of(20.0), [0.0, 20.0, 0.0, 0.0]);
    }
}
