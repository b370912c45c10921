//! From how many requests a minute has to how many each of its seconds has.
//!
//! Traces have counts of minutes, and pools are short for seconds. What lies between is made up, so it is made up twice: by a process without any bursts,
//! and by one whose rate is drawn anew in each spell of ten seconds, from a Gamma distribution. The truth of most customers is between the two.

use crate::random::Random;

/// How requests are spread within a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Each at a time of its own.
    Poisson,
    /// The same, at a rate that is drawn anew in each spell: its standard deviation is half of its mean.
    Bursty,
}

/// Length of a spell, in seconds.
const SPELL_S: usize = 10;
/// Shape of the Gamma distribution of a spell's rate.
const SHAPE: f64 = 4.0;
/// From this mean on, counts are drawn from the normal distribution.
const MANY: f64 = 30.0;

// === impl Arrivals ===

impl Arrivals {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Poisson, Self::Bursty];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursty => "bursty",
        }
    }

    /// Requests in each sub-step of minutes with these means.
    pub(crate) fn of_sub_steps(
        self,
        minutes: &[f64],
        sub_step_s: usize,
        random: &mut Random,
    ) -> Vec<f32> {
        let of_minute = 60 / sub_step_s;
        let of_spell = (SPELL_S / sub_step_s).max(1);
        let mut counts = Vec::with_capacity(minutes.len() * of_minute);
        let mut factor = 1.0;
        for minute in minutes {
            let mean = minute / of_minute as f64;
            for _ in 0..of_minute {
                if self == Self::Bursty && counts.len().is_multiple_of(of_spell) {
                    factor = gamma(random, SHAPE) / SHAPE;
                }
                counts.push(poisson(random, mean * factor) as f32);
            }
        }
        counts
    }

    /// Requests in a cycle with this mean, drawn at once.
    pub(crate) fn of_cycle(self, mean: f64, random: &mut Random) -> f64 {
        let factor = match self {
            Self::Poisson => 1.0,
            Self::Bursty => {
                let spells = (super::CYCLE_S / SPELL_S) as f64;
                gamma(random, SHAPE * spells) / (SHAPE * spells)
            }
        };
        poisson(random, mean * factor)
    }
}

/// By Box and Muller, one of the two.
pub(crate) fn normal(random: &mut Random) -> f64 {
    let radius = (-2.0 * (1.0 - random.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.uniform()).cos()
}

/// Marsaglia and Tsang (2000), for shapes from 1 on.
fn gamma(random: &mut Random, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - random.uniform()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

fn poisson(random: &mut Random, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    if mean >= MANY {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0);
    }
    // By inversion: the first count whose cumulated probability is above a uniform number.
    let uniform = random.uniform();
    let mut count = 0.0;
    let mut probability = (-mean).exp();
    let mut cumulated = probability;
    while uniform > cumulated && count < 20.0 * MANY {
        count += 1.0;
        probability *= mean / count;
        cumulated += probability;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(arrivals: Arrivals, per_minute: f64, sub_step_s: usize) -> (f64, f64) {
        let counts =
            arrivals.of_sub_steps(&vec![per_minute; 2_000], sub_step_s, &mut Random::new(7));
        let count = counts.len() as f64;
        let mean = counts.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let squares = counts
            .iter()
            .map(|value| (f64::from(*value) - mean).powi(2));
        (mean, squares.sum::<f64>() / count)
    }

    #[test]
    fn counts_have_the_mean_and_the_spread_of_their_process() {
        for (per_minute, sub_step_s) in [(6.0, 1), (600.0, 1), (6_000.0, 10)] {
            let expected = per_minute * sub_step_s as f64 / 60.0;
            let (mean, variance) = moments(Arrivals::Poisson, per_minute, sub_step_s);
            assert!((mean / expected - 1.0).abs() < 0.03, "{mean} of {expected}");
            assert!((variance / expected - 1.0).abs() < 0.06, "{variance}");
            let (mean, variance) = moments(Arrivals::Bursty, per_minute, sub_step_s);
            let more = expected + expected * expected / SHAPE;
            assert!((mean / expected - 1.0).abs() < 0.05, "{mean} of {expected}");
            assert!((variance / more - 1.0).abs() < 0.1, "{variance} of {more}");
        }
    }
}
