//! A model in force and its challenger, forecast by forecast.
//!
//! Fair means: the same series, the same steps, the same knowledge. What the champion forecasts from is copied when it does, and the
//! challenger forecasts from the copy, later in the step, when there is time; what has become known in between does not help it. Its rows
//! have tracks of their own, which learn when the champion's do. A step counts for both or for neither.

use std::collections::VecDeque;

use forebay_forecast::{Batch, Blender, Model, Quantiles, SeriesWindow, Track};
use forebay_wire::model::ModelDigest;
use forebay_wire::sync::ForecastScore;

use super::sample::Sample;
use crate::accuracy::{SCORED_QUANTILE, Score};
use crate::host::{Host, Metric};
use crate::inference::{ROW_US, at_quantile, settings_of};
use crate::run_cost::RunCost;
use crate::series::{Due, Forecast, SeriesKey};

/// Ticks in which the champion has begun no forecast of the sample, after which it will not in this step: the walk over the ledger comes by
/// all pages in fewer, where it is not behind.
const SETTLED_TICKS: u32 = 20;

/// A series that the champion has not forecast for so many steps gives its place in the sample back: the table has dropped it.
const UNSEEN_STEPS_MOST: i64 = 8;

/// Two models, the sample that both forecast, and how both have fared.
#[derive(Debug)]
pub struct Duel {
    blender: Blender,
    window_steps: usize,
    batch: Batch,
    sample: Sample<Row>,
    champion: Score,
    challenger: Score,
    quiet_ticks: u32,
    run_cost: RunCost,
    round: Option<Round>,
    /// The step of the last round: there is one in each.
    round_step: i64,
}

/// What is known of one series.
#[derive(Debug)]
struct Row {
    track: Track,
    /// The step that the champion has forecast last.
    seen_step: i64,
    /// What it has forecast from, until the challenger has as well.
    seen: Option<Seen>,
    /// The challenger's forecast of the running step.
    said: Option<Said>,
    /// The one of the step before, until the fleet's usage in it is known.
    waiting: Option<Said>,
}

#[derive(Debug)]
struct Seen {
    window: SeriesWindow,
    /// What the contract allows in one step.
    ceiling: Option<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    step: i64,
    high: f32,
}

/// The forecasts of one step in the making.
#[derive(Debug)]
struct Round {
    step: i64,
    queue: VecDeque<SeriesKey>,
    rows: Vec<SeriesKey>,
    output: Option<Quantiles>,
    next_row: usize,
}

/// What one unit of work came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// There is nothing to do.
    Idle,
    /// Something was done.
    Worked,
    /// The network failed: the challenger must go.
    Failed(String),
}

/// Why two models cannot be compared here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Their steps differ.
    #[error(
        "the challenger's steps have {challenger_s} s and the running model's {champion_s} s: usage is kept in the running model's; try it as a canary"
    )]
    Steps {
        /// The challenger's.
        challenger_s: u32,
        /// The running model's.
        champion_s: u32,
    },
    /// The challenger needs a longer history than is kept.
    #[error(
        "the challenger looks back {needed} steps, and this gateway keeps {kept} for the running model; try it as a canary"
    )]
    History {
        /// Steps that it looks back.
        needed: usize,
        /// Steps that are kept of each series.
        kept: usize,
    },
}

// === impl Duel ===

impl Duel {
    /// Nothing has been forecast yet. `kept_steps`: what is remembered of each series.
    ///
    /// # Errors
    /// When the challenger cannot forecast from what the champion does.
    pub fn between(
        champion: &Model,
        challenger: &Model,
        digest: &ModelDigest,
        cap_factor: f32,
        kept_steps: usize,
    ) -> Result<Self, Unfit> {
        let (challenger_s, champion_s) = (challenger.spec().step_s, champion.spec().step_s);
        if challenger_s != champion_s {
            return Err(Unfit::Steps {
                challenger_s,
                champion_s,
            });
        }
        let needed = challenger.spec().history_steps();
        if needed > kept_steps {
            return Err(Unfit::History {
                needed,
                kept: kept_steps,
            });
        }
        Ok(Self {
            blender: Blender::new(settings_of(challenger, cap_factor)),
            window_steps: challenger.spec().window,
            batch: challenger.batch(),
            sample: Sample::new(digest),
            champion: Score::default(),
            challenger: Score::default(),
            quiet_ticks: 0,
            run_cost: RunCost::default(),
            round: None,
            round_step: i64::MIN,
        })
    }

    /// The champion forecasts step `step` of a series from this window.
    pub fn see(&mut self, key: &SeriesKey, window: &SeriesWindow, step: i64, ceiling: Option<f32>) {
        let settings = self.blender.settings();
        let Some(row) = self.sample.admit(key, || Row::new(Track::new(settings))) else {
            return;
        };
        if row.seen_step == step {
            // It does so a second time, and knows more by now: this step compares nothing.
            row.seen = None;
            row.said = None;
            return;
        }
        row.seen_step = step;
        if self.round_step != step {
            let window = window.clone();
            row.seen = Some(Seen { window, ceiling });
            self.quiet_ticks = 0;
        }
    }

    /// The champion has nothing to forecast of a series that nobody uses.
    pub fn forget(&mut self, key: &SeriesKey) {
        self.sample.drop(key);
    }

    /// A step of a series is over. `judged`: the champion's forecast that has matured, and the fleet's usage; `due`: what tracks learn.
    pub fn turn(&mut self, key: &SeriesKey, judged: Option<&(Forecast, f32)>, due: Option<Due>) {
        let Some(row) = self.sample.get_mut(key) else {
            return;
        };
        if let Some((forecast, usage)) = judged
            && let Some(said) = row.waiting.filter(|said| said.step == forecast.step)
            && [said.high, forecast.high, *usage]
                .iter()
                .all(|value| value.is_finite())
        {
            self.challenger.matured(key.resource, said.high, *usage);
            self.champion.matured(key.resource, forecast.high, *usage);
        }
        row.waiting = row.said.take();
        row.seen = None;
        if let Some(due) = due {
            due.teach(&mut self.blender, &mut row.track);
        }
    }

    /// A tick passes in which the champion has nothing to do: the step's round may begin.
    pub fn tick(&mut self, step: i64) {
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        if self.round.as_ref().is_some_and(|round| round.step != step) {
            // It has not been finished in its step.
            self.round = None;
            self.batch.clear();
        }
        let is_complete = self.sample.iter().all(|(_, row)| row.seen_step == step);
        if self.round_step == step || !(is_complete || self.quiet_ticks >= SETTLED_TICKS) {
            return;
        }
        let seen = self.sample.iter().filter(|(_, row)| row.seen.is_some());
        let queue: VecDeque<SeriesKey> = seen.map(|(key, _)| *key).collect();
        let seen_since = step.saturating_sub(UNSEEN_STEPS_MOST);
        self.sample.retain(|row| row.seen_step >= seen_since);
        if !queue.is_empty() {
            self.round_step = step;
            self.round = Some(Round {
                step,
                queue,
                rows: Vec::new(),
                output: None,
                next_row: 0,
            });
        }
    }

    /// Whether the next unit of work may start. `fits` says whether what it will cost about is left of the budget. A run that was put off
    /// for some ticks is tried even if it is longer than a budget, but never in a tick that has nothing left.
    pub fn may_start(&mut self, fits: impl Fn(u64) -> bool) -> bool {
        let Some(round) = &self.round else {
            return false;
        };
        fits(ROW_US) && (!round.is_run_due() || self.run_cost.may_run(fits))
    }

    /// Does one unit of work.
    pub fn work(&mut self, host: &impl Host, model: &mut Model) -> Pace {
        let Some(mut round) = self.round.take() else {
            return Pace::Idle;
        };
        if let Some(key) = round.queue.pop_front() {
            if self.push(&key, model) {
                round.rows.push(key);
            } else {
                self.blend(&key, round.step, None);
            }
        } else if let Some(output) = &round.output {
            let row = round.next_row;
            if let Some(key) = round.rows.get(row) {
                self.blend(key, round.step, Some(output.row(row)));
            }
            round.next_row = row.saturating_add(1);
        } else if round.is_run_due() {
            let started_us = host.monotonic_us();
            let result = model.run(&self.batch);
            self.batch.clear();
            let took_us = host.monotonic_us().saturating_sub(started_us);
            host.record(Metric::ChallengerBatchUs, took_us);
            self.run_cost.took(took_us);
            match result {
                Ok(output) => round.output = Some(output),
                Err(error) => return Pace::Failed(error.to_string()),
            }
        }
        if !round.is_over() {
            self.round = Some(round);
        }
        Pace::Worked
    }

    /// How both have fared, the challenger first; nothing before the first step of both.
    #[must_use]
    pub fn to_wire(&self) -> Option<(ForecastScore, ForecastScore)> {
        self.challenger.to_wire().zip(self.champion.to_wire())
    }

    /// Puts a series into the batch. `false` where the network has nothing to say.
    fn push(&mut self, key: &SeriesKey, model: &Model) -> bool {
        let row = self.sample.get_mut(key);
        let Some(seen) = row.and_then(|row| row.seen.as_ref()) else {
            return false;
        };
        let observed = seen.window.observed_of_last(self.window_steps);
        observed.saturating_mul(2) >= self.window_steps
            && self.batch.push(model.spec(), &seen.window).is_ok()
    }

    fn blend(&mut self, key: &SeriesKey, step: i64, network: Option<&[f32]>) {
        let Some(row) = self.sample.get_mut(key) else {
            return;
        };
        if row.seen_step != step {
            return;
        }
        let Some(seen) = row.seen.take() else {
            return;
        };
        let quantiles = self.blender.settings().quantiles.len();
        let nearest = network.and_then(|row| row.get(..quantiles));
        let (grid, _) = self
            .blender
            .forecast(&mut row.track, &seen.window, nearest, seen.ceiling);
        let levels = &self.blender.settings().quantiles;
        row.said = Some(Said {
            step,
            high: at_quantile(levels, grid.horizon(0), SCORED_QUANTILE),
        });
    }
}

// === impl Row ===

impl Row {
    fn new(track: Track) -> Self {
        Self {
            track,
            seen_step: i64::MIN,
            seen: None,
            said: None,
            waiting: None,
        }
    }
}

// === impl Round ===

impl Round {
    fn is_run_due(&self) -> bool {
        self.queue.is_empty() && self.output.is_none() && !self.rows.is_empty()
    }

    fn is_over(&self) -> bool {
        self.queue.is_empty() && self.next_row >= self.rows.len()
    }
}
