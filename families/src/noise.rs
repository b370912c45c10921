//! Noise for tests: the same on each run, and otherwise as noise is.
//!
//! SplitMix64's finaliser on seed and place. A single multiplication was the worse alternative: multiples of one number lie at even distances in any
//! stretch of places, so that means of them are far nearer to their expectation than those of noise, and what a test says of chance is not true.

/// Evenly from 0 to 1, another number for each seed and place.
pub(crate) fn noise(seed: u64, place: usize) -> f64 {
    let mixed = |number: u64| {
        let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    };
    (mixed(mixed(seed) ^ place as u64) >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn sums_of_noise_are_spread_as_those_of_chance() {
    // Of 1 000 sums of 100, whose variance is 100 / 12.
    let sums = (0..1_000).map(|seed| (0..100).map(|place| noise(seed, place)).sum::<f64>());
    let squares: f64 = sums.map(|sum| (sum - 50.0) * (sum - 50.0)).sum();
    let variance = squares / 1_000.0 * 12.0 / 100.0;
    assert!(
        (0.87..1.13).contains(&variance),
        "{variance} times what chance makes"
    );
}
