//! How deep shadow buckets may be when all of them together would protect too much of the pool.
//!
//! Without this rule idle claims cost others a third of the capacity in simulation. Depths are scaled and never refills: a predicted
//! customer keeps its priority up to its predicted rate and only loses reserve for a burst within the second. A tier is served in
//! full before the next one gets anything; within a tier the higher priority; within a priority weights share.
//!
//! It works on sums per contract: to sort the claims of ten thousand customers is more than a tick may cost, and this does not depend on
//! their number.

/// All customers of one contract, for one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Class {
    /// Tier of the contract, 1 first.
    pub(super) tier: u8,
    /// Higher first within a tier.
    pub(super) priority: u8,
    /// Shares within a priority.
    pub(super) weight: u32,
    /// Sum of the depths that the customers would have unscaled.
    pub(super) depth: f64,
    /// Result: the part of its depth that each of them may have, 0 to 1.
    pub(super) scale: f64,
}

/// Sets the scale of each class so that the scaled depths add up to at most `allowed`. Reorders the classes.
pub(super) fn allot(allowed: f64, classes: &mut [Class]) {
    classes.sort_unstable_by(|a, b| a.tier.cmp(&b.tier).then(b.priority.cmp(&a.priority)));
    let mut left = allowed.max(0.0);
    for group in classes.chunk_by_mut(|a, b| a.tier == b.tier && a.priority == b.priority) {
        share_by_weight(left, group);
        let used: f64 = group.iter().map(|class| class.depth * class.scale).sum();
        left = (left - used).max(0.0);
    }
}

/// Water-filling: the scale of a class is proportional to its weight until it is whole; what whole ones leave goes to the others.
fn share_by_weight(allowed: f64, group: &mut [Class]) {
    let demand: f64 = group.iter().map(|class| class.depth).sum();
    if demand <= allowed {
        for class in group {
            class.scale = 1.0;
        }
        return;
    }
    // Heavier classes become whole first, so that one pass in that order settles everyone.
    group.sort_unstable_by_key(|class| std::cmp::Reverse(class.weight));
    let mut left = allowed;
    let mut weighted: f64 = group
        .iter()
        .map(|class| class.depth * f64::from(class.weight.max(1)))
        .sum();
    for class in group {
        let weight = f64::from(class.weight.max(1));
        let level = if weighted > 0.0 { left / weighted } else { 0.0 };
        class.scale = (level * weight).clamp(0.0, 1.0);
        left = (left - class.depth * class.scale).max(0.0);
        weighted -= class.depth * weight;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(tier: u8, priority: u8, weight: u32, depth: f64) -> Class {
        Class {
            tier,
            priority,
            weight,
            depth,
            scale: 0.0,
        }
    }

    #[test]
    fn enough_for_all_leaves_all_whole() {
        let mut classes = [class(1, 0, 1, 30.0), class(3, 0, 1, 20.0)];
        allot(50.0, &mut classes);
        assert!(classes.iter().all(|class| class.scale == 1.0));
    }

    #[test]
    fn a_tier_is_served_before_the_next_and_a_priority_before_a_lower_one() {
        let mut classes = [
            class(2, 0, 1, 40.0),
            class(1, 0, 1, 30.0),
            class(1, 9, 1, 30.0),
        ];
        allot(45.0, &mut classes);
        let scales: Vec<_> = classes
            .iter()
            .map(|class| (class.tier, class.priority, class.scale))
            .collect();
        assert_eq!(scales, [(1, 9, 1.0), (1, 0, 0.5), (2, 0, 0.0)]);
    }

    #[test]
    fn weights_share_and_what_a_whole_one_leaves_goes_to_the_others() {
        let mut classes = [class(1, 0, 1, 100.0), class(1, 0, 3, 100.0)];
        for (allowed, expected) in [(80.0, [0.6, 0.2]), (150.0, [1.0, 0.5])] {
            allot(allowed, &mut classes);
            for (class, scale) in classes.iter().zip(expected) {
                assert!((class.scale - scale).abs() < 1e-9, "{class:?}: {scale}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_sum_never_exceeds_what_is_allowed_and_nothing_is_left_while_someone_wants(
            allowed in 0.0..1e9_f64,
            parts in prop::collection::vec((1_u8..4, 0_u8..4, 0_u32..10, 0.0..1e8_f64), 1..20),
        ) {
            let mut classes: Vec<_> = parts.iter().map(|(t, p, w, d)| class(*t, *p, *w, *d)).collect();
            allot(allowed, &mut classes);
            let used: f64 = classes.iter().map(|class| class.depth * class.scale).sum();
            let demand: f64 = classes.iter().map(|class| class.depth).sum();
            prop_assert!(used <= allowed * (1.0 + 1e-9) + 1e-6, "{used} of {allowed}");
            prop_assert!(used >= allowed.min(demand) * (1.0 - 1e-9) - 1e-3, "{used} of {allowed}, {demand} wanted");
        }
    }
}
