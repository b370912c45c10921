//! The shape of a season, and of a longer one on top of it: what is taken from a series before anything else is fitted to it.
//!
//! Means of phases over the last seasons, as multiple seasonal decomposition ends up with (MSTL: Bandara, Hyndman and Bergmeir, 2021), but
//! without its loess: a decomposition at each refit must cost no more than a pass. What noise alone would make of the shape is taken off.

/// Most seasons that are averaged.
const SEASONS_MAX: usize = 14;
const LONG_SEASONS_MAX: usize = 4;
/// Phases on either side that a phase is averaged with, as a part of the season: a minute of the day has little to itself.
const SMOOTHED_PART: usize = 96;

/// What the phase of a step adds to the usual, in whatever unit the series has.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    season: Vec<f64>,
    long_season: Vec<f64>,
}

// === impl Profile ===

impl Profile {
    /// Of the values of steps `first..first + values.len()`; phases are those of steps.
    pub(crate) fn of(
        values: &[f64],
        first: usize,
        season: usize,
        long_season: Option<usize>,
    ) -> Self {
        let season = shape(values, first, season, SEASONS_MAX);
        let long_season = match long_season {
            None => Vec::new(),
            Some(long_season) => {
                let at = |i: usize| season[(first + i) % season.len()];
                let rest: Vec<f64> = (0..values.len()).map(|i| values[i] - at(i)).collect();
                shape(&rest, first, long_season, LONG_SEASONS_MAX)
            }
        };
        Self {
            season,
            long_season,
        }
    }

    pub(crate) fn at(&self, step: usize) -> f64 {
        let long = match self.long_season.len() {
            0 => 0.0,
            len => self.long_season[step % len],
        };
        self.season[step % self.season.len()] + long
    }
}

/// The mean of each phase over the last whole seasons, of how far its values were from their season's mean; zeros with fewer than two seasons.
fn shape(values: &[f64], first: usize, season: usize, seasons_most: usize) -> Vec<f64> {
    let seasons = (values.len() / season).min(seasons_most);
    let mut sums = vec![0.0; season];
    if seasons < 2 {
        return sums;
    }
    let mut squares = 0.0;
    let begin = values.len() - seasons * season;
    for (block, number) in values[begin..].chunks(season).zip(0..) {
        let mean = block.iter().sum::<f64>() / season as f64;
        for (i, value) in block.iter().enumerate() {
            sums[(first + begin + number * season + i) % season] += value - mean;
            squares += (value - mean) * (value - mean);
        }
    }
    let count = seasons as f64;
    let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
    let between = means.iter().map(|mean| mean * mean).sum::<f64>() / season as f64;
    let within = (squares / (season as f64 * count) - between).max(0.0) * count / (count - 1.0);
    let beside = season / SMOOTHED_PART;
    let width = 2 * beside + 1;
    let smooth = |phase: usize| {
        let around = (0..width).map(|i| means[(phase + season + i - beside) % season]);
        around.sum::<f64>() / width as f64
    };
    let smoothed: Vec<f64> = (0..season).map(smooth).collect();
    let spread = smoothed.iter().map(|mean| mean * mean).sum::<f64>() / season as f64;
    let noise = within / (count * width as f64);
    let kept = match spread > 0.0 {
        true => (1.0 - noise / spread).max(0.0),
        false => 0.0,
    };
    smoothed.iter().map(|mean| kept * mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::noise;

    #[test]
    fn a_day_and_a_week_on_top_of_it_are_told_apart_from_a_drift_and_from_noise() {
        let day = |step: usize| if step % 12 < 6 { 1.0 } else { -1.0 };
        let week = |step: usize| if step % 84 < 12 { -1.2 } else { 0.2 };
        let first = 5;
        let values: Vec<f64> = (first..first + 10 * 84)
            .map(|step| day(step) + week(step) + 0.001 * step as f64 + 0.2 * (noise(1, step) - 0.5))
            .collect();
        let profile = Profile::of(&values, first, 12, Some(84));
        for step in 1_000..1_084 {
            let (found, truth) = (profile.at(step), day(step) + week(step));
            assert!(
                (found - truth).abs() < 0.2,
                "{found} instead of {truth} at {step}"
            );
        }
    }

    #[test]
    fn noise_has_nearly_no_profile() {
        let seeds = 100;
        let squares: f64 = (0..seeds)
            .map(|seed| {
                let values: Vec<f64> = (0..240).map(|step| noise(seed, step) - 0.5).collect();
                let profile = Profile::of(&values, 0, 12, None);
                (0..12).map(|step| profile.at(step).powi(2)).sum::<f64>() / 12.0
            })
            .sum();
        // What the means of fourteen values are far from 0 by.
        let raw = 1.0 / 12.0 / 14.0;
        let kept = squares / seeds as f64 / raw;
        assert!(kept < 0.2, "{kept} of the squares");
    }
}
