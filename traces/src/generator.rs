//! Demand that looks like that of API customers, made from a seed.
//!
//! Real traces are large, licensed and not always at hand; tests and the demo must run without them and must be
//! repeatable. Replaying a fixed synthetic file was the alternative: it would fix the number of customers and the
//! length of the series, and nobody could see how it came about. What the generator imitates is what a forecast has
//! to cope with: levels that differ by orders of magnitude, a day and a week of different strength and phase per
//! customer, drifting levels, bursts of one customer, and spikes that hit several customers at the same time.

mod random;

use crate::Series;
pub use random::SeededRandom;

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;
/// Monday 2025-03-31 00:00 UTC: generated traces start on a Monday, so weekday features mean something.
pub const START_UNIX_S: i64 = 1_743_379_200;
/// How much of a level's deviation survives one hour. 0.9 lets a level wander for about ten hours.
const DRIFT_KEPT_PER_HOUR: f64 = 0.9;
/// A burst decays to 1/e in this time.
const BURST_DECAY_S: f64 = 1_800.0;
/// Share of the customers that a correlated spike reaches.
const SPIKE_REACH: f64 = 0.4;

/// What to generate. Every field is part of the identity of the trace: change one and the numbers change.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSpec {
    /// Seed of everything random.
    pub seed: u64,
    /// Number of series.
    pub customers: usize,
    /// Length of each series in steps.
    pub steps: usize,
    /// Seconds per step.
    pub step_s: u32,
    /// Mean level of the middle customer, requests per step; others are spread around it over about two decades.
    pub median_per_step: f64,
    /// Bursts of one customer per day, on average.
    pub bursts_per_day: f64,
    /// Spikes per day that hit several customers in the same step, on average.
    pub spikes_per_day: f64,
}

/// The character of one customer, drawn once.
#[derive(Debug, Clone)]
struct Customer {
    level: f64,
    daily_strength: f64,
    daily_phase: f64,
    lunch_strength: f64,
    weekend_factor: f64,
    noise: f64,
}

impl Default for GeneratorSpec {
    /// Fourteen days of 10-minute steps of forty customers.
    fn default() -> Self {
        Self {
            seed: 1,
            customers: 40,
            steps: 14 * 144,
            step_s: 600,
            median_per_step: 3_000.0,
            bursts_per_day: 1.0,
            spikes_per_day: 0.5,
        }
    }
}

impl GeneratorSpec {
    /// One series per customer: whole requests per step, without gaps, from [`START_UNIX_S`] on. Levels are drawn per
    /// customer, so the order says nothing about the size.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        self.demand()
            .into_iter()
            .enumerate()
            .map(|(index, values)| Series {
                tenant: format!("customer-{index:03}"),
                start_s: START_UNIX_S,
                step_s: self.step_s,
                values,
            })
            .collect()
    }

    fn demand(&self) -> Vec<Vec<f64>> {
        let root = SeededRandom::new(self.seed);
        let spikes = self.correlated_spikes(&mut root.fork(u64::MAX));
        (0..self.customers)
            .map(|index| self.customer(&mut root.fork(index as u64), &spikes))
            .collect()
    }

    /// Height of the common spike in each step, 0 where there is none.
    fn correlated_spikes(&self, random: &mut SeededRandom) -> Vec<f64> {
        let per_step = self.spikes_per_day * f64::from(self.step_s) / DAY_S;
        let decay = self.decay_per_step();
        let mut height = 0.0;
        (0..self.steps)
            .map(|_| {
                height *= decay;
                if random.uniform() < per_step {
                    height += 1.0 + random.exponential();
                }
                height
            })
            .collect()
    }

    fn customer(&self, random: &mut SeededRandom, spikes: &[f64]) -> Vec<f64> {
        let customer = Customer::draw(self.median_per_step, random);
        let reached = random.uniform() < SPIKE_REACH;
        let step_h = f64::from(self.step_s) / 3_600.0;
        let kept = DRIFT_KEPT_PER_HOUR.powf(step_h);
        let shock = customer.noise * (1.0 - kept * kept).sqrt();
        let burst_per_step = self.bursts_per_day * f64::from(self.step_s) / DAY_S;
        let decay = self.decay_per_step();

        let mut drift = customer.noise * random.normal();
        let mut burst = 0.0;
        spikes
            .iter()
            .enumerate()
            .map(|(step, spike)| {
                drift = kept * drift + shock * random.normal();
                burst *= decay;
                if random.uniform() < burst_per_step {
                    burst += 0.5 + random.exponential();
                }
                let event = 1.0 + burst + if reached { *spike } else { 0.0 };
                let mean =
                    customer.shape(step as f64 * f64::from(self.step_s)) * drift.exp() * event;
                // Counting noise of independent requests, on top of the wandering level.
                (mean + mean.sqrt() * random.normal()).max(0.0).round()
            })
            .collect()
    }

    fn decay_per_step(&self) -> f64 {
        (-f64::from(self.step_s) / BURST_DECAY_S).exp()
    }
}

impl Customer {
    fn draw(median_per_step: f64, random: &mut SeededRandom) -> Self {
        Self {
            level: median_per_step * f64::exp(1.1 * random.normal()),
            daily_strength: 0.2 + 0.6 * random.uniform(),
            daily_phase: DAY_S * (0.1 * random.normal()),
            lunch_strength: 0.2 * random.uniform(),
            weekend_factor: 0.4 + 0.7 * random.uniform(),
            noise: 0.05 + 0.15 * random.uniform(),
        }
    }

    /// Expected demand per step at `at_s` seconds after the Monday midnight of the start.
    fn shape(&self, at_s: f64) -> f64 {
        let local_s = at_s + self.daily_phase;
        let day = std::f64::consts::TAU * local_s / DAY_S;
        // Low at 03:00, high at 15:00, with a dip of half a day's period around noon.
        let daily = 1.0 - self.daily_strength * (day - std::f64::consts::TAU / 8.0).cos();
        let lunch = 1.0 + self.lunch_strength * (2.0 * day).cos();
        let weekday = (local_s / DAY_S).rem_euclid(7.0);
        let weekly = if weekday >= 5.0 {
            self.weekend_factor
        } else {
            1.0
        };
        self.level * daily * lunch * weekly
    }
}

#[cfg(test)]
mod tests {
    use super::{GeneratorSpec, START_UNIX_S};

    fn autocorrelation(series: &[f64], lag: usize) -> f64 {
        let mean = series.iter().sum::<f64>() / series.len() as f64;
        let variance: f64 = series.iter().map(|v| (v - mean).powi(2)).sum();
        let shared: f64 = series
            .iter()
            .zip(&series[lag..])
            .map(|(a, b)| (a - mean) * (b - mean))
            .sum();
        shared / variance
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
        let (ma, mb) = (mean(a), mean(b));
        let shared: f64 = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum();
        let va: f64 = a.iter().map(|x| (x - ma).powi(2)).sum();
        let vb: f64 = b.iter().map(|y| (y - mb).powi(2)).sum();
        shared / (va * vb).sqrt()
    }

    #[test]
    fn the_same_seed_gives_the_same_demand() {
        let spec = GeneratorSpec::default();
        assert_eq!(spec.demand(), spec.demand());
        let other = GeneratorSpec {
            seed: 2,
            ..spec.clone()
        };
        assert_ne!(spec.demand(), other.demand());
    }

    #[test]
    fn a_further_customer_leaves_the_others_alone() {
        let spec = GeneratorSpec {
            customers: 3,
            ..GeneratorSpec::default()
        };
        let more = GeneratorSpec {
            customers: 4,
            ..GeneratorSpec::default()
        };
        assert_eq!(spec.demand(), more.demand()[..3]);
    }

    #[test]
    fn demand_is_finite_whole_and_not_negative() {
        for series in GeneratorSpec::default().demand() {
            assert_eq!(series.len(), 14 * 144);
            assert!(
                series
                    .iter()
                    .all(|v| v.is_finite() && *v >= 0.0 && v.fract() == 0.0)
            );
            assert!(series.iter().sum::<f64>() > 0.0);
        }
    }

    #[test]
    fn yesterday_resembles_today() {
        let demand = GeneratorSpec {
            bursts_per_day: 0.0,
            spikes_per_day: 0.0,
            ..GeneratorSpec::default()
        }
        .demand();
        let daily: Vec<f64> = demand
            .iter()
            .map(|series| autocorrelation(&series[..5 * 144], 144))
            .collect();
        let mean = daily.iter().sum::<f64>() / daily.len() as f64;
        assert!(mean > 0.5, "mean autocorrelation at one day: {mean}");
    }

    #[test]
    fn spikes_hit_several_customers_together() {
        let calm = GeneratorSpec {
            spikes_per_day: 0.0,
            ..GeneratorSpec::default()
        };
        let spiky = GeneratorSpec {
            spikes_per_day: 6.0,
            ..calm.clone()
        };
        // Dividing the two leaves only the spikes: the same seed draws the same customers and noise.
        let heights: Vec<Vec<f64>> = spiky
            .demand()
            .iter()
            .zip(calm.demand())
            .map(|(with, without)| {
                with.iter()
                    .zip(without)
                    .map(|(a, b)| a / b.max(1.0))
                    .collect()
            })
            .collect();
        let reached: Vec<&Vec<f64>> = heights
            .iter()
            .filter(|h| h.iter().any(|x| *x > 1.5))
            .collect();
        assert!(
            reached.len() > 5 && reached.len() < 35,
            "{} of 40 reached",
            reached.len()
        );
        assert!(correlation(reached[0], reached[1]) > 0.8);
    }

    #[test]
    fn the_trace_starts_on_a_monday() {
        // 1970-01-01 was a Thursday.
        assert_eq!((START_UNIX_S / 86_400 + 3) % 7, 0);
        assert_eq!(START_UNIX_S % 86_400, 0);
    }
}
