//! Which of many findings to believe.

/// Of what is found, the part that may be chance, in expectation.
pub(crate) const FALSE_SHARE: f64 = 0.05;

/// Which p-values are found at a rate of false discoveries, among `tests` tests (Benjamini and Hochberg 1995). Those that are not in the
/// list were tested too, and found nothing.
pub(crate) fn found(p_values: &[f64], tests: f64, false_share: f64) -> Vec<bool> {
    let mut sorted = p_values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let most = sorted
        .iter()
        .enumerate()
        .rev()
        .find(|(at, p)| **p <= (*at as f64 + 1.0) / tests * false_share)
        .map_or(-1.0, |(_, p)| *p);
    p_values.iter().map(|p| *p <= most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_p_value_below_its_line_takes_all_smaller_ones_with_it() {
        // The example of the paper: 15 tests, of which four are found at 5 %.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let count = |tests: f64| found(&p, tests, 0.05).iter().filter(|is| **is).count();
        assert_eq!(count(15.0), 4);
        assert_eq!(count(1500.0), 0);
        assert_eq!(found(&[0.9], 1.0, 0.05), [false]);
    }
}
