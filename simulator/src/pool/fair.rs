//! Weighted max-min fairness: nobody can have more except at the cost of somebody who has no more for its weight.

use forebay_sharing::{Vessel, fill};

/// What each has of `capacity`: at most its want, in equal parts by weight.
pub(crate) fn max_min(capacity: f64, wants: &[f64], weights: &[f64]) -> Vec<f64> {
    let vessels: Vec<Vessel> = wants
        .iter()
        .zip(weights)
        .map(|(want, weight)| Vessel {
            lower_per_s: 0.0,
            upper_per_s: *want,
            weight: weight.max(f64::MIN_POSITIVE),
        })
        .collect();
    fill(capacity, &vessels)
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
