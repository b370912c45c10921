//! What a customer usually asks for at this hour of the day and in this part of the week.
//!
//! A level, a factor for each of 24 hours and one for each third of each day of the week, as logarithms: 168 hours of a week would take most
//! of what a customer may weigh, and be learned in months; of whole days, weekends in other time zones than UTC would begin and end wrongly. Hours
//! and days are those of UTC: which of them are nights and weekends comes out.
//!
//! Learned from means of hours, and from no hour more than [`AWAY_MOST`]: an attack of some hours is not usual the day after.

use serde::{Deserialize, Serialize};

const HOUR_MS: u64 = 3_600_000;
/// Hours are told apart when so many have been seen.
const HOURS_LEAST: u16 = 48;
/// And parts of the week.
const PARTS_LEAST: u16 = 7 * 24;
/// No hour counts as further away than this: a logarithm.
const AWAY_MOST: f64 = 0.7;
/// The share of what an hour is away that goes into the level, when many are known.
const LEVEL_RATE: f64 = 0.004;
/// And into the hour of the day.
const HOUR_RATE: f64 = 0.1;
/// And into the part of the week.
const PART_RATE: f64 = 0.1;
/// Parts of a week, and hours of each.
const PARTS: usize = 21;
const PART_HOURS: u64 = 8;
/// A factor is at most so far from the level.
const FACTOR_MOST: f64 = 3.0;
/// So many units of a factor are 1.
const UNITS: f64 = 8_192.0;
/// At no hour is less than this share of the level usual.
const USUAL_LEAST: f64 = 0.1;
/// Tokens: below it, everything is nothing.
const TOKENS_LEAST: f64 = 0.01;

/// The usual demand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Season {
    level: f32,
    hours: [Factor; 24],
    parts: [Factor; PARTS],
    /// Of the hour that is not over.
    sum: f32,
    steps: u16,
    /// Since 1970.
    hour: u32,
    /// That were learned.
    seen: u16,
}

/// A logarithm, in half of the room of a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Factor(i16);

// === impl Factor ===

impl Factor {
    fn log(self) -> f64 {
        f64::from(self.0) / UNITS
    }

    fn add(&mut self, log: f64) {
        let moved = (self.log() + log).clamp(-FACTOR_MOST, FACTOR_MOST);
        self.0 = (moved * UNITS).round() as i16;
    }
}

// === impl Season ===

impl Default for Season {
    fn default() -> Self {
        Self {
            level: TOKENS_LEAST.ln() as f32,
            hours: Default::default(),
            parts: Default::default(),
            sum: 0.0,
            steps: 0,
            hour: 0,
            seen: 0,
        }
    }
}

impl Season {
    /// Tokens of a step at this time.
    pub(crate) fn usual(&self, unix_ms: u64) -> f64 {
        let hour = unix_ms / HOUR_MS;
        // Between the middles of two hours: steps from one to the next would be a sign at each full hour.
        let past = (unix_ms % HOUR_MS) as f64 / HOUR_MS as f64 - 0.5;
        let other = if past < 0.0 {
            hour.saturating_sub(1)
        } else {
            hour + 1
        };
        let here = self.log_usual(hour);
        let log = here + past.abs() * (self.log_usual(other) - here);
        log.exp().max(USUAL_LEAST * f64::from(self.level).exp())
    }

    /// The logarithm of what a demand is above the mean level.
    pub(crate) fn log_above(&self, demand: f64) -> f64 {
        let above = (demand + 1.0).ln() - (f64::from(self.level).exp() + 1.0).ln();
        above.clamp(-5.0, 5.0)
    }

    fn log_usual(&self, hour: u64) -> f64 {
        let factor = |factors: &[Factor], place: u64, seen_least: u16| {
            let factor = factors.get(place as usize);
            factor
                .filter(|_| self.seen >= seen_least)
                .map_or(0.0, |factor| factor.log())
        };
        f64::from(self.level)
            + factor(&self.hours, hour % 24, HOURS_LEAST)
            + factor(&self.parts, part(hour), PARTS_LEAST)
    }

    /// The hour that is not over is one of a clock that was wrong.
    pub(crate) fn forget_hour(&mut self) {
        (self.sum, self.steps) = (0.0, 0);
    }

    /// Takes a step. `share`: how much of what is new is believed.
    pub(crate) fn learn(&mut self, demand: f64, unix_ms: u64, share: f64) {
        let hour = (unix_ms / HOUR_MS).min(u64::from(u32::MAX)) as u32;
        if hour != self.hour {
            self.end_hour(share);
            self.hour = hour;
        }
        self.sum = (f64::from(self.sum) + demand) as f32;
        self.steps = self.steps.saturating_add(1);
    }

    fn end_hour(&mut self, share: f64) {
        let steps = std::mem::take(&mut self.steps);
        let sum = f64::from(std::mem::take(&mut self.sum));
        if steps == 0 {
            return;
        }
        let value = (sum / f64::from(steps)).max(TOKENS_LEAST).ln();
        if self.seen == 0 {
            self.level = value as f32;
        }
        let hour = u64::from(self.hour);
        let away = value - self.log_usual(hour);
        let is_early = self.seen < HOURS_LEAST;
        let seen = f64::from(self.seen);
        // The first days say where the level is; later on nothing may be far away.
        let (most, level_rate) = match is_early {
            true => (3.0, 1.0 / (seen + 2.0)),
            false => (AWAY_MOST, LEVEL_RATE),
        };
        let away = share * away.clamp(-most, most);
        self.level += (level_rate * away) as f32;
        if let Some(factor) = self.hours.get_mut((hour % 24) as usize) {
            let days = seen / 24.0;
            factor.add(away * HOUR_RATE.max(1.0 / (days + 2.0)));
        }
        if !is_early && let Some(factor) = self.parts.get_mut(part(hour) as usize) {
            factor.add(away * PART_RATE);
        }
        self.seen = self.seen.saturating_add(1);
    }
}

/// The part of the week that an hour since 1970 is in.
fn part(hour: u64) -> u64 {
    hour / PART_HOURS % PARTS as u64
}
