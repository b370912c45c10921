//! A customer over the steps: signs, the test of them, and the verdict.
//!
//! Signs are taken first of all customers, because a verdict needs those of the others. A customer is flagged when in four of eight steps a
//! sign is above its past by the margin (`past.rs`, `budget.rs`), and until no sign is above its past for an hour. A martingale of p-values
//! would have been quicker by a step or two; what it takes to trust it is not so here (docs/internals/anomaly.md).

use crate::budget::{Budget, Z_LEAST};
use crate::crowd::{Around, is_risen};
use crate::denied::Denied;
use crate::pace::{DAY_MS, Pace};
use crate::past::{Past, Score};
use crate::robust::Robust;
use crate::season::Season;
use crate::signs::{Seen, Sign, Signs};
use crate::step::Step;
use crate::verdict::{Evidence, Kind, Verdict};
use serde::{Deserialize, Serialize};

/// What is believed of steps that are not usual: a new level is usual after some days, an attack of hours is not.
const SHARE_UNUSUAL: f64 = 0.3;
/// Added to multiples before their logarithm: less than that is nothing.
const TIMES_OFFSET: f64 = 0.2;
/// A token, so that the first after a quiet night is no multiple of anything.
const TOKENS_OFFSET: f64 = 1.0;
/// From this factor on it is an event.
const EVENT_LEAST: f64 = 1.05;
/// What is left of an event's factor in each step after it: not all come home at the same time.
const EVENT_FADES: f64 = 0.93;

/// What all customers are watched by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watch {
    pub(crate) pace: Pace,
}

/// What is remembered of a customer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    season: Season,
    /// Multiples of the usual demand over the windows, and the same with known events taken out.
    plain: [f32; 3],
    net: [f32; 3],
    forecast: f32,
    keys: f32,
    /// Of burst, rise, level, forecast and keys.
    usual: [Robust; 5],
    denied: Denied,
    past: [Past; Sign::COUNT],
    budget: Budget,
    factor: f32,
    steps: u32,
    last_unix_ms: u64,
    since_unix_ms: u64,
    /// How much of the logarithm of demand is in that of the keys.
    keys_slope: f32,
    /// Since 1970.
    day: u32,
    quiet: u16,
    flagged: Flagged,
    /// Whether somebody has said that the flag is right.
    is_confirmed: bool,
}

/// Whether it is flagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Flagged {
    #[default]
    No,
    Unusual,
    /// Those that are in a crowd are not; this only says since when.
    Crowd,
}

/// What holds of a step.
struct Held {
    /// The highest score that is not explained, over what it takes.
    score: f64,
    is_beyond: bool,
    is_crowd: bool,
    /// No sign is above its past.
    is_quiet: bool,
    /// What counts of each sign.
    scores: [Score; Sign::COUNT],
    /// Whether it is above its past, by however little.
    above: [bool; Sign::COUNT],
    evidence: [Option<Evidence>; Sign::COUNT],
}

// === impl Watch ===

impl Watch {
    /// A watch of steps of this length.
    #[must_use]
    pub fn new(step_ms: u32) -> Self {
        Self {
            pace: Pace::new(step_ms),
        }
    }

    /// Takes what a customer did in a step. Steps come in order; one that is not newer than the last changes nothing. If it is older by three steps or
    /// more, the clock was set back, and time goes on from this one: otherwise nobody would be judged, and nobody's flag end, until that time comes again.
    pub fn observe(&self, customer: &mut Customer, step: &Step) -> Option<Signs> {
        if customer.steps > 0 && step.unix_ms <= customer.last_unix_ms {
            if customer.last_unix_ms - step.unix_ms < self.pace.set_back_ms {
                return None;
            }
            customer.turn_back(step.unix_ms);
        }
        Some(customer.observe(&self.pace, step))
    }

    /// Judges it, given what the others do.
    pub fn judge(&self, customer: &mut Customer, signs: &Signs, around: Around) -> Verdict {
        customer.judge(&self.pace, signs, around)
    }
}

// === impl Customer ===

impl Customer {
    /// Whether too little is known of it for a verdict.
    #[must_use]
    pub fn is_learning(&self, watch: &Watch) -> bool {
        self.steps <= watch.pace.learned_steps
    }

    /// Somebody has found that the flag was right: it costs nothing of the budget.
    pub fn confirm(&mut self) {
        if self.flagged == Flagged::Unusual && !self.is_confirmed {
            self.is_confirmed = true;
            self.budget.confirm();
        }
    }

    /// The clock was set back. What it took for an hour and a day is neither.
    fn turn_back(&mut self, unix_ms: u64) {
        self.season.forget_hour();
        self.day = day(unix_ms);
        self.since_unix_ms = self.since_unix_ms.min(unix_ms);
        self.last_unix_ms = unix_ms;
    }

    fn observe(&mut self, pace: &Pace, step: &Step) -> Signs {
        let demand = step.demand();
        let usual = self.season.usual(step.unix_ms);
        let factor = step
            .factor()
            .max(1.0 + (f64::from(self.factor) - 1.0) * EVENT_FADES);
        self.factor = factor as f32;
        let times = demand / (usual + TOKENS_OFFSET);
        let is_first = self.steps == 0;
        let elapsed_ms = match is_first {
            true => 0,
            false => step.unix_ms - self.last_unix_ms,
        };
        self.last_unix_ms = step.unix_ms;
        let [burst, rise, level, forecast, of_keys] = self.usual;
        for ((plain, net), weight) in self.plain.iter_mut().zip(&mut self.net).zip(pace.windows) {
            average(plain, times, weight, is_first);
            average(net, times / factor, weight, is_first);
        }
        let high = step.forecast_high();
        if let Some(high) = high {
            let times = demand / factor / (high.max(usual) + TOKENS_OFFSET);
            average(
                &mut self.forecast,
                times,
                pace.windows[0],
                forecast.seen() == 0,
            );
        }
        let keys = step.keys();
        if let Some(keys) = keys {
            average(
                &mut self.keys,
                keys / factor,
                pace.windows[0],
                of_keys.seen() == 0,
            );
        }
        let denied_share = step.denied() / (demand + 0.2 * usual + TOKENS_OFFSET);
        // That more is denied in an event is the event.
        let is_event = factor > EVENT_LEAST;
        let denied_z = self
            .denied
            .observe(if is_event { 0.0 } else { denied_share });

        let is_learned = self.steps >= pace.learned_steps;
        let of_times = |usual: Robust, times: f32| {
            let value = (f64::from(times) + TIMES_OFFSET).ln();
            Seen {
                value,
                z: usual.z(value),
                times: (value - usual.middle()).exp(),
                is_learned,
            }
        };
        let demands = |times: [f32; 3]| {
            let [of_burst, of_rise, of_level] = times;
            [
                of_times(burst, of_burst),
                of_times(rise, of_rise),
                of_times(level, of_level),
            ]
        };
        let [of_burst, of_rise, of_level] = demands(self.net);
        // Against the mean level and not against this hour's: with more demand there are more keys, at night and by day.
        let log_demand = self
            .season
            .log_above(f64::from(self.plain[0]) * (usual + TOKENS_OFFSET));
        let key_value = f64::from(self.keys).ln_1p() - f64::from(self.keys_slope) * log_demand;
        let keys = keys.map(|_| Seen {
            value: key_value,
            z: of_keys.z(key_value),
            times: (key_value - of_keys.middle()).exp(),
            is_learned: of_keys.seen() >= pace.learned_steps,
        });
        let plain = demands(self.plain);
        let [burst_past, rise_past, level_past, _, _, keys_past] = &self.past;
        let pasts = [burst_past, rise_past, level_past, keys_past];
        let mut demand_and_keys = plain.iter().chain(&keys).zip(pasts);
        let has_risen = is_learned && demand_and_keys.any(|(seen, past)| is_risen(seen, past));
        Signs {
            seen: [
                Some(of_burst),
                Some(of_rise),
                Some(of_level),
                high.map(|_| Seen {
                    is_learned: forecast.seen() >= pace.learned_steps,
                    ..of_times(forecast, self.forecast)
                }),
                Some(Seen {
                    value: denied_share,
                    z: denied_z,
                    times: f64::INFINITY,
                    is_learned,
                }),
                keys,
            ],
            plain,
            is_learned,
            has_risen,
            elapsed_ms,
            unix_ms: step.unix_ms,
            demand,
            denied_share,
            log_demand,
            is_event,
        }
    }

    fn judge(&mut self, pace: &Pace, signs: &Signs, around: Around) -> Verdict {
        self.budget.pass(signs.elapsed_ms);
        let held = self.hold(signs, around);
        let was_flagged = self.flagged == Flagged::Unusual;
        self.quiet = if held.is_quiet {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        if was_flagged {
            if self.quiet >= pace.quiet_steps {
                self.flagged = Flagged::No;
            }
        } else if held.is_beyond {
            self.budget.flag();
            self.is_confirmed = false;
            self.flagged = Flagged::Unusual;
            self.since_unix_ms = signs.unix_ms;
        } else if held.is_crowd {
            if self.flagged == Flagged::No {
                self.since_unix_ms = signs.unix_ms;
            }
            self.flagged = Flagged::Crowd;
        } else {
            self.flagged = Flagged::No;
        }
        self.learn(pace, signs, &held, around);
        let (kind, since) = match self.flagged {
            Flagged::No => (Kind::Normal, None),
            Flagged::Unusual => (Kind::Unusual, Some(self.since_unix_ms)),
            Flagged::Crowd => (Kind::Crowd, Some(self.since_unix_ms)),
        };
        Verdict {
            kind,
            score: held.score,
            since_unix_ms: since,
            evidence: held.evidence,
        }
    }

    fn hold(&mut self, signs: &Signs, around: Around) -> Held {
        let mut held = Held {
            score: 0.0,
            is_beyond: false,
            is_crowd: false,
            is_quiet: true,
            scores: [Score::default(); Sign::COUNT],
            above: [false; Sign::COUNT],
            evidence: [None; Sign::COUNT],
        };
        let all = Sign::ALL.into_iter().zip(signs.seen).zip(&mut self.past);
        let slots = held
            .evidence
            .iter_mut()
            .zip(&mut held.scores)
            .zip(&mut held.above);
        for (((sign, seen), past), ((evidence, score), above)) in all.zip(slots) {
            let Some(seen) = seen else { continue };
            *score = past.observe(Score::of(seen.z_that_matters()));
            if !seen.is_learned {
                continue;
            }
            let bar = past.bar();
            let over = self.budget.over(bar);
            let is_over = score.value() > over;
            let plain = signs.plain_of(sign).filter(|_| signs.is_event);
            let by_event = plain.filter(|plain| !is_over && plain.z_that_matters().ln_1p() > over);
            // What is denied of a crowd is the crowd's.
            let with_others = around.explains_times > 0.0
                && (sign == Sign::Denied
                    || seen.times_above(bar.exp_m1()) <= around.explains_times);
            held.is_beyond |= is_over && !with_others;
            held.is_crowd |= by_event.is_some() || (is_over && with_others);
            *above = score.value() > bar.max(Z_LEAST.ln_1p());
            held.is_quiet &= !*above;
            if !with_others {
                held.score = held.score.max(score.value().exp_m1() / over.exp_m1());
            }
            if is_over || by_event.is_some() {
                let shown = by_event.unwrap_or(seen);
                *evidence = Some(Evidence {
                    sign,
                    times: if sign == Sign::Denied {
                        signs.denied_share
                    } else {
                        shown.times
                    },
                    z: shown.z,
                    p: past.p(if by_event.is_some() {
                        Score::of(shown.z)
                    } else {
                        *score
                    }),
                });
            }
        }
        held
    }

    /// What is unusual is learned slowly, and sets no bar: otherwise it would be usual the next time.
    fn learn(&mut self, pace: &Pace, signs: &Signs, held: &Held, around: Around) {
        let is_usual =
            self.flagged == Flagged::No && !signs.is_event && around.explains_times == 0.0;
        let share = if is_usual { 1.0 } else { SHARE_UNUSUAL };
        if !signs.is_event {
            self.season.learn(signs.demand, signs.unix_ms, share);
            let [burst, rise, level, forecast, _, keys] = signs.seen;
            let values = [burst, rise, level, forecast, keys];
            let [
                above_burst,
                above_rise,
                above_level,
                above_forecast,
                _,
                above_keys,
            ] = held.above;
            let above = [
                above_burst,
                above_rise,
                above_level,
                above_forecast,
                above_keys,
            ];
            for ((usual, seen), is_doubtful) in self.usual.iter_mut().zip(values).zip(above) {
                if let Some(seen) = seen {
                    let share = if is_doubtful { SHARE_UNUSUAL } else { share };
                    usual.learn(seen.value, pace.robust_rate, share);
                }
            }
            if let Some(keys) = keys {
                self.learn_slope(keys.value, signs.log_demand, pace.robust_rate * share);
            }
            self.denied
                .learn(signs.denied_share, pace.robust_rate * share);
        }
        let today = day(signs.unix_ms);
        if today != self.day {
            // Scores mean something when middle and spread are known.
            let [burst, rise, level, forecast, keys] = self.usual.map(Robust::seen);
            let seen = [burst, rise, level, forecast, self.steps, keys];
            for (past, seen) in self.past.iter_mut().zip(seen) {
                past.end_day(seen >= pace.learned_steps / 3);
            }
            self.day = today;
        }
        if is_usual {
            let all = self.past.iter_mut().zip(held.scores).zip(signs.seen);
            for ((past, score), _) in all.filter(|(_, seen)| seen.is_some()) {
                past.learn(score);
            }
        }
        self.steps = self.steps.saturating_add(1);
    }

    fn learn_slope(&mut self, value: f64, log_demand: f64, rate: f64) {
        let [.., usual] = self.usual;
        let away = (value - usual.middle()).clamp(-0.3, 0.3);
        let slope = f64::from(self.keys_slope);
        let moved = slope + rate * away * log_demand / (1.0 + log_demand * log_demand);
        self.keys_slope = moved.clamp(0.0, 1.0) as f32;
    }
}

/// Since 1970.
fn day(unix_ms: u64) -> u32 {
    (unix_ms / DAY_MS as u64).min(u64::from(u32::MAX)) as u32
}

fn average(mean: &mut f32, value: f64, weight: f64, is_first: bool) {
    let before = f64::from(*mean);
    *mean = match is_first {
        true => value as f32,
        false => (before + weight * (value - before)) as f32,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{FALL_A_WEEK, LEAST, RISE};

    #[test]
    fn a_flag_is_paid_back_by_time_however_many_steps_are_in_it() {
        for apart_ms in [60_000, 600_000, 3_600_000] {
            let (watch, mut customer) = (Watch::new(600_000), Customer::default());
            customer.budget.flag();
            for unix_ms in (0..=DAY_MS as u64).step_by(apart_ms) {
                let step = Step {
                    unix_ms,
                    asked: 100.0,
                    ..Step::default()
                };
                let signs = watch.observe(&mut customer, &step).unwrap();
                watch.judge(&mut customer, &signs, Around::default());
            }
            let left = LEAST + RISE - FALL_A_WEEK / 7.0;
            let margin = customer.budget.margin();
            assert!((margin - left).abs() < 1e-9, "{apart_ms}: {margin} {left}");
        }
    }
}
