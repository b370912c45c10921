//! Weighted max-min fairness: nobody can have more except at the cost of somebody who has no more for its weight.

/// What each has of `capacity`: at most its want, in equal parts by weight.
pub(crate) fn max_min(capacity: f64, wants: &[f64], weights: &[f64]) -> Vec<f64> {
    let total: f64 = wants.iter().sum();
    if total <= capacity {
        return wants.to_vec();
    }
    // Who wants least for its weight is full first.
    let mut order: Vec<(f64, f64, f64)> = wants
        .iter()
        .zip(weights)
        .map(|(want, weight)| (want / weight.max(f64::MIN_POSITIVE), *want, *weight))
        .collect();
    order.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let mut left = capacity.max(0.0);
    let mut weight_left: f64 = weights.iter().sum();
    let mut level = 0.0;
    for (full_at, want, weight) in order {
        level = left / weight_left.max(f64::MIN_POSITIVE);
        if full_at > level {
            break;
        }
        left -= want;
        weight_left -= weight;
    }
    wants
        .iter()
        .zip(weights)
        .map(|(want, weight)| want.min(level * weight))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_little_has_it_and_the_others_have_the_rest_by_weight() {
        assert_eq!(max_min(10.0, &[1.0, 8.0, 8.0], &[1.0; 3]), [1.0, 4.5, 4.5]);
        assert_eq!(
            max_min(9.0, &[1.0, 8.0, 8.0], &[1.0, 1.0, 3.0]),
            [1.0, 2.0, 6.0]
        );
        assert_eq!(max_min(99.0, &[1.0, 8.0], &[1.0; 2]), [1.0, 8.0]);
        assert_eq!(max_min(0.0, &[1.0, 8.0], &[1.0; 2]), [0.0, 0.0]);
    }
}
