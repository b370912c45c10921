use super::*;
use proptest::prelude::*;

const FALSE_ALARM_STEPS: f64 = 2_000.0;
/// Steps before a shift, enough to have learned what is usual.
const STEADY_STEPS: usize = 400;
const RUNS: u64 = 60;

/// Normal values by Box and Muller from SplitMix64.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Mean steps from a shift to the alarm that tells it, over runs without an alarm before it.
fn mean_delay<D: Detector>(make: impl Fn() -> D, shift: f64) -> f64 {
    let (mut delays, mut runs) = (0.0, 0.0);
    for seed in 0..RUNS {
        let (mut detector, mut normal) = (make(), Normal(seed << 32));
        if (0..STEADY_STEPS).any(|_| detector.observe(normal.next()).is_some()) {
            continue;
        }
        let delay = (1..10_000).find_map(|delay| {
            let found = detector.observe(normal.next() + shift)?;
            assert_eq!(found.direction == Direction::Up, shift > 0.0, "seed {seed}");
            Some(delay)
        });
        delays += f64::from(delay.expect("a shift is found"));
        runs += 1.0;
    }
    assert!(
        runs > 0.25 * RUNS as f64,
        "{runs} runs without a false alarm"
    );
    delays / runs
}

fn false_alarms(mut detector: impl Detector, steps: usize) -> usize {
    let mut normal = Normal(1);
    (0..steps)
        .filter(|_| detector.observe(normal.next()).is_some())
        .count()
}

fn adwin() -> Adwin {
    Adwin::new(0.002, -5.0, 5.0)
}

#[test]
fn a_cusum_finds_shifts_as_soon_as_theory_says() {
    let limit = Cusum::new(FALSE_ALARM_STEPS).threshold();
    for shift in [1.0, 2.0, 3.0, -1.0, -2.0, -3.0] {
        let delay = mean_delay(|| Cusum::new(FALSE_ALARM_STEPS), shift);
        let theory = run_length(shift.abs(), 0.5, limit);
        // Within the error of the mean of these runs; where evidence does not begin at zero, a little is saved.
        assert!(
            (0.8 * theory..=1.15 * theory + 0.2).contains(&delay),
            "{delay} steps at shift {shift} instead of {theory}"
        );
    }
}

#[test]
fn page_hinkley_finds_rises_as_soon_as_theory_says() {
    let limit = PageHinkley::new(FALSE_ALARM_STEPS).threshold();
    for shift in [1.0, 2.0, 3.0] {
        let delay = mean_delay(|| PageHinkley::new(FALSE_ALARM_STEPS), shift);
        let theory = run_length(shift, 0.5, limit);
        assert!(
            (0.8 * theory..=1.15 * theory + 0.2).contains(&delay),
            "{delay} steps at shift {shift} instead of {theory}"
        );
    }
}

#[test]
fn adwin_finds_shifts_as_soon_as_its_bound_allows() {
    for shift in [1.0, 2.0, 3.0, -2.0] {
        let delay = mean_delay(adwin, shift);
        let theory = adwin().delay_bound(STEADY_STEPS as u32, 1.0, f64::abs(shift));
        assert!(
            // Cuts are tried between sums only, of a sixteenth of what is behind them or so.
            delay <= 1.1 * f64::from(theory.unwrap()),
            "{delay} steps at shift {shift}, more than {theory:?}"
        );
    }
}

#[test]
fn false_alarms_are_as_rare_as_was_asked_for() {
    let steps = 100_000;
    let wanted = steps as f64 / FALSE_ALARM_STEPS;
    let cusum = false_alarms(Cusum::new(FALSE_ALARM_STEPS), steps) as f64;
    let page_hinkley = false_alarms(PageHinkley::new(FALSE_ALARM_STEPS), steps) as f64;
    // Three standard deviations of a count.
    assert!((cusum - wanted).abs() < 3.0 * wanted.sqrt(), "{cusum}");
    assert!(
        (page_hinkley - wanted).abs() < 3.0 * wanted.sqrt(),
        "{page_hinkley}"
    );
    let steps = 10_000;
    let adwin = false_alarms(adwin(), steps) as f64;
    assert!(adwin <= 0.002 * steps as f64, "{adwin}");
}

#[test]
fn what_did_not_fall_yet_is_no_rise() {
    let mut detector = PageHinkley::new(FALSE_ALARM_STEPS);
    assert!((0..500).all(|step| detector.observe(f64::from(step % 3)).is_none()));
    assert!((0..500).all(|step| detector.observe(f64::from(step % 3) - 9.0).is_none()));
}

#[test]
fn the_window_of_adwin_begins_at_the_change() {
    let (mut detector, mut normal) = (adwin(), Normal(3));
    for _ in 0..2_000 {
        detector.observe(normal.next());
    }
    for _ in 0..200 {
        detector.observe(normal.next() + 3.0);
    }
    let window = detector.window_steps();
    // But for the sums that reach across it, and what chance may explain.
    assert!((200..=264).contains(&window), "{window}");
}

/// A detector whose spread is learned cannot be blinded for ever by a value, but for as long as that value is learned from.
#[test]
fn page_hinkley_begins_anew_after_an_outage_of_any_size() {
    for wild in [1e3, f64::MAX, f64::INFINITY] {
        let (mut detector, mut normal) = (PageHinkley::new(1e4), Normal(5));
        for _ in 0..200 {
            detector.observe(normal.next());
        }
        detector.observe(wild);
        for _ in 0..200 {
            detector.observe(normal.next());
        }
        let is_found = (0..30).any(|_| detector.observe(normal.next() + 4.0).is_some());
        assert!(is_found, "after {wild}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever was observed, however wild, a shift after it is found.
    #[test]
    fn nothing_blinds_detectors_that_are_told_what_is_usual(
        wild in prop::collection::vec(any::<f64>(), 0..100),
        seed in any::<u64>(),
    ) {
        let detectors: [Box<dyn Detector>; 2] = [Box::new(Cusum::new(1e4)), Box::new(adwin())];
        for mut detector in detectors {
            for value in &wild {
                detector.observe(*value);
            }
            let mut normal = Normal(seed);
            // An alarm at what is normal now is right; it has to end.
            for _ in 0..400 {
                detector.observe(normal.next());
            }
            prop_assert!((0..300).any(|_| detector.observe(normal.next() + 4.0).is_some()));
        }
    }
}
