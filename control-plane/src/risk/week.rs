//! When the week of those who use a pool begins.
//!
//! Their weekend is not that of UTC: elsewhere it begins hours sooner or later, or on a Friday. A season that is taken out in the wrong place leaves a part of
//! each weekend in all series, and links everybody with everybody: 129 of 132 pairs of twelve customers of whom four were coupled. So the
//! beginning is found in the usage itself. An option that names a time zone was the worse alternative: whoever leaves it out would have those links.

use super::past::Grid;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;
const WEEK_S: u64 = 7 * DAY_S;
const HOURS: u64 = 168;
/// From the first midnight of 1970, a Thursday, back to a Monday's.
const THURSDAY_S: u64 = 3 * DAY_S;
/// Of a week, before the two days of its end.
const WORKDAYS_S: u64 = 5 * DAY_S;
/// Another beginning than UTC's must leave this part less unexplained: the best of 168 is a little better by chance.
const BETTER: f64 = 0.9;

/// Hours of workdays and of weekends: how many values, their sum and their squares.
type Cells = [[(f64, f64, f64); 24]; 2];

// === impl Grid ===

impl Grid {
    /// When it begins, in seconds after the beginning of a week.
    pub(super) fn second_of_week(&self, usage: &[Vec<f32>]) -> i64 {
        let levels = self.levels(usage);
        let utc = self.unexplained(&levels, 0);
        let all = (1..HOURS).map(|hours| (hours, self.unexplained(&levels, hours)));
        let best = all.min_by(|one, other| one.1.total_cmp(&other.1));
        let hours = best.filter(|(_, left)| *left < BETTER * utc);
        let second = self.second(0, hours.map_or(0, |(hours, _)| hours));
        i64::try_from(second).unwrap_or(0)
    }

    /// A step's place in a week that begins so many hours before UTC's.
    fn second(&self, step: u64, hours: u64) -> u64 {
        let unix_s = self
            .from_ms
            .saturating_add(step.saturating_mul(self.step_ms))
            / 1_000;
        let since = unix_s.saturating_add(THURSDAY_S);
        since.saturating_add(hours.saturating_mul(HOUR_S)) % WEEK_S
    }

    /// The mean of all customers at each step, each as a logarithm over its own usual usage; none where nothing is known.
    fn levels(&self, usage: &[Vec<f32>]) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0_f64, 0.0_f64); self.steps];
        for usage in usage {
            let mut known: Vec<f32> = usage.iter().copied().filter(|value| *value > 0.0).collect();
            let middle = known.len() / 2;
            if known.is_empty() {
                continue;
            }
            let usual = f64::from(*known.select_nth_unstable_by(middle, f32::total_cmp).1);
            for ((sum, count), value) in sums
                .iter_mut()
                .zip(usage)
                .filter(|(_, value)| !value.is_nan())
            {
                *sum += (f64::from(*value) / usual).ln_1p();
                *count += 1.0;
            }
        }
        let sums = sums.into_iter();
        sums.map(|(sum, count)| (count > 0.0).then(|| sum / count))
            .collect()
    }

    /// What hours of workdays and weekends leave of the levels, as a sum of squares.
    fn unexplained(&self, levels: &[Option<f64>], hours: u64) -> f64 {
        let mut cells: Cells = [[(0.0, 0.0, 0.0); 24]; 2];
        for (step, level) in (0..).zip(levels) {
            let second = self.second(step, hours);
            let hour = usize::try_from(second % DAY_S / HOUR_S).unwrap_or(0);
            let of_day = cells.get_mut(usize::from(second >= WORKDAYS_S));
            if let (Some(level), Some(cell)) = (level, of_day.and_then(|day| day.get_mut(hour))) {
                *cell = (cell.0 + 1.0, cell.1 + level, cell.2 + level * level);
            }
        }
        let cells = cells.iter().flatten();
        cells
            .filter(|(count, _, _)| *count > 0.0)
            .map(|(count, sum, squares)| squares - sum * sum / count)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 2026-11-30, 00:00 UTC.
    const MONDAY_MS: u64 = 1_795_996_800_000;
    const STEPS: usize = 336;

    fn at(from_ms: u64) -> Grid {
        Grid {
            fold: 1,
            step_ms: 3_600_000,
            from_ms,
            steps: STEPS,
        }
    }

    fn noise(step: usize) -> f32 {
        1.0 + 0.2 * ((step * 7919) % 97) as f32 / 97.0
    }

    /// Two weeks of hours, with a weekend at half that begins so many hours after a Monday's midnight in UTC.
    fn usage(weekend_from: usize) -> Vec<Vec<f32>> {
        let of = |step: usize| {
            let is_weekend = (step + 168 - weekend_from) % 168 < 48;
            let wave = 1.0 + 0.3 * (step as f32 / 24.0 * std::f32::consts::TAU).sin();
            wave * noise(step) * if is_weekend { 0.5 } else { 1.0 }
        };
        vec![(0..STEPS).map(of).collect()]
    }

    #[test]
    fn weeks_begin_on_a_monday_in_utc_where_nothing_else_shows() {
        let flat = vec![(0..STEPS).map(noise).collect()];
        for usage in [
            flat,
            Vec::new(),
            vec![vec![f32::NAN; STEPS], vec![0.0; STEPS]],
            usage(120),
        ] {
            assert_eq!(at(MONDAY_MS).second_of_week(&usage), 0);
            assert_eq!(at(MONDAY_MS - 1_000).second_of_week(&[]), 7 * 86_400 - 1);
        }
    }

    #[test]
    fn a_weekend_elsewhere_is_found_to_the_hour() {
        // West of Greenwich, east of it, and from Friday to Saturday.
        for weekend_from in [128, 111, 96, 20] {
            let begins = (weekend_from + 48) % 168;
            let second = (168 - begins) % 168 * 3_600;
            let found = at(MONDAY_MS).second_of_week(&usage(weekend_from));
            assert_eq!(found, second as i64, "{weekend_from}");
        }
    }
}
