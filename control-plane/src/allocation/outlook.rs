//! What a customer is expected to ask for in the next cycle: its forecast, or what was measured.
//!
//! A forecast is of a mean over minutes, so it is held against a mean over minutes. To hold it against what is asked for at the moment of the cycle was the
//! worse alternative: whoever asks in bursts is above its 0.99 quantile for some seconds of each minute, and lost its forecast by the luck of the moment.

use super::book::Book;
use super::cycle::Seen;
use super::gathered::{Candidate, Lately};
use super::trails::Trails;
use crate::history::{Series, step_at};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::Outlook;

/// What a customer is expected to ask for: by the forecast of the first horizon that is not shorter than a cycle, unless demand has left it, or there is
/// none; then by what was measured. Demand has left it when the mean of about a cycle is above its 0.99 quantile, or when gateways have said so for as long
/// as calls for a cycle and more than that is asked for at this moment.
pub(super) fn outlook_of(
    candidate: &Candidate,
    before: &Book,
    seen: &Seen<'_>,
    (resources, interval_ms): (&[String], u32),
) -> PerResource<Outlook> {
    let mut outlooks = PerResource::default();
    if candidate.is_denied {
        return outlooks;
    }
    for (resource, index) in ResourceIndex::first(resources.len()).zip(0_u8..) {
        let now_per_s = *candidate.now_per_s.at(resource);
        let forecast = seen.forecasts.mean_of(
            candidate.hash,
            index,
            u64::from(interval_ms),
            (seen.step_ms, seen.now_unix_ms),
        );
        let series = Series::new(candidate.hash, index);
        let asked = Asked {
            now_per_s,
            mean_per_s: mean_of(
                *candidate.lately.at(resource),
                (seen.trails, series),
                interval_ms,
                (seen.step_ms, seen.now_unix_ms),
            ),
            has_left: candidate.has_left,
        };
        *outlooks.at_mut(resource) = match forecast {
            Some(quantiles_per_s) if !asked.is_beyond(quantiles_per_s) => {
                Outlook { quantiles_per_s }
            }
            _ => seen.trails.outlook(series, now_per_s),
        };
        // A server that has just started knows no steps yet; the cycle before did.
        if seen.trails.is_new()
            && forecast.is_none()
            && let Some(entry) = before.entry(candidate.hash)
        {
            let expected = entry.customer.outlook.at(resource).quantiles_per_s;
            let outlook = outlooks.at_mut(resource);
            for (quantile, before) in outlook.quantiles_per_s.iter_mut().zip(expected) {
                *quantile = quantile.max(before);
            }
        }
    }
    outlooks
}

/// What a forecast is held against.
#[derive(Clone, Copy, Debug)]
struct Asked {
    now_per_s: f64,
    /// Of about a cycle.
    mean_per_s: f64,
    /// Gateways have said for long enough that demand has left the forecast.
    has_left: bool,
}

// === impl Asked ===

impl Asked {
    /// Whether demand has left a forecast.
    fn is_beyond(&self, [.., upper_per_s]: [f64; 3]) -> bool {
        self.mean_per_s > upper_per_s || (self.has_left && self.now_per_s > upper_per_s)
    }
}

/// What was asked for in the mean of the running step and as many before it as a cycle has, in tokens per second; 0 while no step before it is known: some
/// seconds say nothing of minutes.
fn mean_of(
    lately: Lately,
    (trails, series): (&Trails, Series),
    interval_ms: u32,
    (step_ms, now_unix_ms): (u32, u64),
) -> f64 {
    let step_ms = step_ms.max(1);
    let step_s = f64::from(step_ms) / 1e3;
    let step = step_at(now_unix_ms, step_ms);
    let wanted = u64::from(interval_ms.div_ceil(step_ms));
    let known = (1..=wanted).map_while(|back| {
        let past = step.checked_sub(back)?;
        match trails.per_s_in(series, past) {
            // It has ended, and is still being closed.
            None if back == 1 && lately.before > 0.0 => Some(lately.before / step_s),
            per_s => per_s,
        }
    });
    let (steps, sum_per_s) = known.fold((0_u32, 0.0), |(steps, sum), per_s| {
        (steps.saturating_add(1), sum + per_s)
    });
    if steps == 0 {
        return 0.0;
    }
    let elapsed_s = (now_unix_ms % u64::from(step_ms)) as f64 / 1e3;
    (sum_per_s * step_s + lately.running) / (f64::from(steps) * step_s + elapsed_s)
}

/// By a forecast, unless more is asked for at this moment than its 0.99 quantile, or there is none; then by what was measured.
pub(crate) fn expected(
    forecast: Option<[f64; 3]>,
    trails: &Trails,
    series: Series,
    now_per_s: f64,
) -> Outlook {
    match forecast {
        Some(quantiles_per_s) if quantiles_per_s.last() >= Some(&now_per_s) => {
            Outlook { quantiles_per_s }
        }
        _ => trails.outlook(series, now_per_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::key::CustomerHash;
    use std::f64::consts::TAU;

    const SERIES: Series = Series {
        customer: CustomerHash([1; 16]),
        resource: 0,
    };
    const STEP_MS: u32 = 60_000;
    /// An average of two seconds, as the pace of a moment is.
    const MOMENT_S: f64 = 2.0;
    const MOMENTS: u64 = 30;
    const FORECAST: [f64; 3] = [100.0, 140.0, 190.0];
    /// So far above their mean minutes of bursts are once in some thousands.
    const WIDE: [f64; 3] = [100.0, 140.0, 230.0];

    /// Numbers of a seed that look like chance, above 0 and up to 1.
    struct Chance(u64);

    impl Chance {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
        }

        /// Gamma with a shape of a half and a mean of 1: the square of a normal number.
        fn gamma(&mut self) -> f64 {
            let normal = (-2.0 * self.next().ln()).sqrt() * (TAU * self.next()).cos();
            normal * normal
        }
    }

    /// A customer that asks in bursts, moment by moment, and the cycles at which its forecast would have been left: by the rule, and by the pace of the
    /// moment. Its rate is `factor` times 100 from the step `from` on.
    fn cycles(
        chance: &mut Chance,
        interval_ms: u32,
        forecast: [f64; 3],
        (from, factor): (u64, f64),
    ) -> (Vec<u64>, u64) {
        let mut trails = Trails::default();
        let (mut left, mut by_moment, mut before) = (Vec::new(), 0, 0.0);
        for step in 1..=30 {
            let mean_per_s = if step >= from { 100.0 * factor } else { 100.0 };
            let mut running = 0.0;
            for moment in 0..MOMENTS {
                let now_per_s = mean_per_s * chance.gamma();
                running += now_per_s * MOMENT_S;
                let now_unix_ms = step * u64::from(STEP_MS) + (moment + 1) * 2_000 - 1;
                let lately = Lately { running, before };
                let clock = (STEP_MS, now_unix_ms);
                let asked = Asked {
                    now_per_s,
                    mean_per_s: mean_of(lately, (&trails, SERIES), interval_ms, clock),
                    has_left: false,
                };
                by_moment += u64::from(now_per_s > forecast[2]);
                if asked.is_beyond(forecast) {
                    left.push(now_unix_ms);
                }
            }
            before = running;
            trails.hear(step, std::iter::once((SERIES, running / 60.0)));
        }
        (left, by_moment)
    }

    #[test]
    fn whoever_asks_in_bursts_keeps_its_forecast_while_its_minutes_are_within_it() {
        for seed in 1..=20_u64 {
            let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (left, by_moment) = cycles(&mut chance, 60_000, WIDE, (u64::MAX, 1.0));
            assert_eq!(left, [0; 0], "seed {seed}");
            // An eighth of its moments are above it.
            assert!(by_moment > 80, "seed {seed}: {by_moment}");
        }
    }

    #[test]
    fn whoever_really_asks_for_more_has_left_its_forecast_within_a_cycle() {
        for (interval_ms, seed) in [(60_000, 1_u64), (120_000, 2), (300_000, 3), (300_000, 4)] {
            let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (left, _) = cycles(&mut chance, interval_ms, FORECAST, (10, 3.0));
            let rises_ms = 10 * u64::from(STEP_MS);
            let first = left.first().copied().unwrap_or(u64::MAX);
            let within_ms = rises_ms + u64::from(interval_ms);
            assert!(
                first > rises_ms && first <= within_ms,
                "seed {seed}: {first}"
            );
            // And it stays there.
            assert!(
                left.len() as u64 >= 15 * MOMENTS,
                "seed {seed}: {}",
                left.len()
            );
        }
    }

    #[test]
    fn what_gateways_have_said_for_long_enough_counts_at_once_if_more_is_asked_for() {
        let asked = |now_per_s, has_left| Asked {
            now_per_s,
            mean_per_s: 100.0,
            has_left,
        };
        assert!(asked(200.0, true).is_beyond(FORECAST));
        assert!(!asked(200.0, false).is_beyond(FORECAST));
        assert!(
            !asked(150.0, true).is_beyond(FORECAST),
            "nothing is asked for"
        );
    }

    #[test]
    fn seconds_of_a_customer_that_was_never_seen_before_are_no_mean() {
        let lately = Lately {
            running: 9_000.0,
            before: 0.0,
        };
        let trails = Trails::default();
        let clock = (STEP_MS, 61_000);
        assert_eq!(mean_of(lately, (&trails, SERIES), 60_000, clock), 0.0);
        // The step before has ended and is not closed yet.
        let lately = Lately {
            running: 0.0,
            before: 600.0,
        };
        let mean_per_s = mean_of(lately, (&trails, SERIES), 60_000, (STEP_MS, 120_000));
        assert!((mean_per_s - 10.0).abs() < 1e-9, "{mean_per_s}");
    }
}
