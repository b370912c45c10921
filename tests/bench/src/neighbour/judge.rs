//! Whether a flood did something to the others that a second run without it would not have done.
//!
//! Rounds are the unit: in each of them every condition saw the same arrivals, and what a machine does to one round it does to all of its
//! windows.
//! Rounds are drawn anew with replacement (Efron 1979), and the run against itself is drawn with the two quiet windows of a round changed
//! about, for neither of them is the first. The interval is of the difference of two runs, as the flood's is.

use forebay_traces::generator::SeededRandom;

use super::window::Window;

const DRAWS: usize = 2_000;
const SEED: u64 = 1;

/// A figure and the interval that holds it in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What the others were denied in the flood, less what they were denied without.
pub(super) fn denied_added(quiet: &[[Window; 2]], flood: &[Window]) -> (f64, Interval) {
    let share = |windows: &mut dyn Iterator<Item = &Window>| {
        let (sent, admitted) = windows.fold((0, 0), |(sent, admitted), window| {
            (sent + window.others.sent, admitted + window.others.admitted)
        });
        (sent - admitted) as f64 / sent.max(1) as f64
    };
    let difference = |rounds: &[usize]| {
        let in_flood = share(&mut rounds.iter().map(|round| &flood[*round]));
        in_flood - share(&mut rounds.iter().flat_map(|round| &quiet[*round]))
    };
    let all: Vec<usize> = (0..flood.len()).collect();
    let draws = draws(flood.len(), |rounds, _| difference(rounds));
    (difference(&all), interval(draws))
}

/// In milliseconds: where a percentile of a run without the flood lies, seen from another one whose percentile is `from_ms`.
pub(super) fn against_itself(quiet: &[[Window; 2]], part: f64, from_ms: f64) -> Interval {
    let differences = draws(quiet.len(), |rounds, random| {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for round in rounds {
            let [first, second] = &quiet[*round];
            let (first, second) = match random.next_u64() % 2 {
                0 => (first, second),
                _ => (second, first),
            };
            one.extend(&first.took_us);
            other.extend(&second.took_us);
        }
        percentile_ms(&mut one, part) - percentile_ms(&mut other, part)
    });
    let of_difference = interval(differences);
    Interval {
        low: from_ms + of_difference.low,
        high: from_ms + of_difference.high,
    }
}

/// The time that so large a part of them does not exceed, in milliseconds; no number of none.
pub(super) fn percentile_ms(took_us: &mut [u32], part: f64) -> f64 {
    let place = (took_us.len() as f64 * part).ceil() as usize;
    if took_us.is_empty() {
        return f64::NAN;
    }
    let (_, at, _) = took_us.select_nth_unstable(place.saturating_sub(1));
    f64::from(*at) / 1e3
}

/// The figure of each draw of rounds.
fn draws(rounds: usize, mut figure: impl FnMut(&[usize], &mut SeededRandom) -> f64) -> Vec<f64> {
    let mut random = SeededRandom::new(SEED);
    (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds)
                .map(|_| (random.uniform() * rounds as f64) as usize)
                .collect();
            figure(&drawn, &mut random)
        })
        .collect()
}

fn interval(mut figures: Vec<f64>) -> Interval {
    figures.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = (figures.len() as f64 * part) as usize;
        figures.get(place).copied().unwrap_or(f64::NAN)
    };
    Interval {
        low: at(0.025),
        high: at(0.975),
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::Count;
    use super::*;

    /// 600 answers of 20 ms and an exponential wait on top.
    fn window(random: &mut SeededRandom, wait_ms: f64, denied: u64) -> Window {
        let took = |_| (1e3 * (20.0 + wait_ms * random.exponential())) as u32;
        Window {
            seconds: 3.0,
            took_us: (0..600).map(took).collect(),
            others: Count {
                sent: 600 + denied,
                admitted: 600,
            },
            ..Window::default()
        }
    }

    fn quiet(random: &mut SeededRandom) -> Vec<[Window; 2]> {
        (0..8)
            .map(|_| [window(random, 2.0, 0), window(random, 2.0, 0)])
            .collect()
    }

    fn p99(windows: &[Window]) -> f64 {
        percentile_ms(&mut Window::sum(windows).took_us, 0.99)
    }

    #[test]
    fn a_run_like_the_others_is_inside_in_about_95_of_100_cases_and_a_slower_one_is_not() {
        let mut random = SeededRandom::new(7);
        let (mut inside, mut slower_inside) = (0, 0);
        for _ in 0..40 {
            let quiet = quiet(&mut random);
            let first: Vec<Window> = quiet.iter().map(|[first, _]| first.clone()).collect();
            let interval = against_itself(&quiet, 0.99, p99(&first));
            let mut is_inside = |wait_ms| {
                let again: Vec<Window> = (0..8).map(|_| window(&mut random, wait_ms, 0)).collect();
                (interval.low..=interval.high).contains(&p99(&again))
            };
            inside += u32::from(is_inside(2.0));
            slower_inside += u32::from(is_inside(3.0));
        }
        assert!(inside >= 34, "{inside} of 40");
        assert!(slower_inside <= 2, "{slower_inside} of 40");
    }

    #[test]
    fn what_the_flood_denies_is_added_and_what_was_denied_before_is_not() {
        let mut random = SeededRandom::new(7);
        let quiet: Vec<[Window; 2]> = (0..8)
            .map(|_| [window(&mut random, 2.0, 6), window(&mut random, 2.0, 6)])
            .collect();
        let same: Vec<Window> = (0..8).map(|_| window(&mut random, 2.0, 6)).collect();
        let (added, interval) = denied_added(&quiet, &same);
        assert!(added.abs() < 1e-9 && interval.high < 1e-9, "{interval:?}");
        let worse: Vec<Window> = (0..8).map(|_| window(&mut random, 2.0, 30)).collect();
        let (added, interval) = denied_added(&quiet, &worse);
        assert!((added - (30.0 / 630.0 - 6.0 / 606.0)).abs() < 1e-9);
        assert!(interval.low > 0.02, "{interval:?}");
    }

    #[test]
    fn a_percentile_is_exceeded_by_the_rest() {
        let mut took: Vec<u32> = (1..=200).map(|number| number * 1_000).collect();
        assert!((percentile_ms(&mut took, 0.99) - 198.0).abs() < 1e-9);
        assert!((percentile_ms(&mut took, 0.5) - 100.0).abs() < 1e-9);
        assert!(percentile_ms(&mut [], 0.5).is_nan());
    }
}
