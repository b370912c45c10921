//! From due series to forecasts, in pieces small enough for a tick.
//!
//! A batch of 64 customers takes the network most of a tick, and blending its rows with the simple methods as long again. So a batch
//! lives across ticks: rows are pushed, the network runs once, rows are blended one by one, and the clock is read in between. Only the
//! nearest horizon is used here: it is the step that is running, and one horizon costs the simple methods a tenth of twenty.

use std::collections::VecDeque;

use forebay_core::policy::ContractIndex;
use forebay_forecast::{Batch, Blender, Model, Quantiles, Source, TrackSettings};

use crate::host::{Host, Metric};
use crate::run_cost::RunCost;
use crate::series::{Forecast, SeriesKey, SeriesTable, SlotId};

/// Customers in one run of the network.
pub const BATCH_ROWS: usize = 64;

/// Quantiles of the simple methods while there is no model.
const PLAIN_QUANTILES: [f32; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];

/// What the other gateways have used in a step is told while the next one is running.
const LATE_STEPS: usize = 1;

/// The simple methods would like two seasons; beyond this memory is worth more.
const PLAIN_HISTORY_STEPS_MOST: usize = 512;

/// What pushing or blending one row costs at most.
pub(crate) const ROW_US: u64 = 40;

/// Forecasts in the making.
#[derive(Debug)]
pub struct Inference {
    blender: Blender,
    generation: u32,
    window_steps: usize,
    history_steps: usize,
    batch: Option<Batch>,
    rows: Vec<(SlotId, SeriesKey)>,
    output: Option<Quantiles>,
    next_row: usize,
    queue: VecDeque<SlotId>,
    run_cost: RunCost,
}

/// What one unit of work came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// There is nothing to do.
    Idle,
    /// Something was done; a forecast comes later.
    Worked,
    /// The network will forecast this series from what its window holds now.
    Begun(SlotId),
    /// This series has a new forecast.
    Ready(SlotId),
    /// The network failed: the model must go. Its rows are queued again.
    Failed(String),
}

// === impl Inference ===

impl Inference {
    /// Simple methods alone.
    #[must_use]
    pub fn without_model(step_s: u32, cap_factor: f32, generation: u32) -> Self {
        // A day is the season that nearly every service has.
        let season_steps = usize::try_from(86_400_u32.checked_div(step_s.max(1)).unwrap_or(1))
            .unwrap_or(1)
            .clamp(1, 1_440);
        let mut settings = TrackSettings::without_model(&[1], &PLAIN_QUANTILES, season_steps);
        settings.late_steps = LATE_STEPS;
        settings.cap.factor = cap_factor;
        Self::new(settings, generation, 48, 0, None)
    }

    /// The network beside the simple methods.
    #[must_use]
    pub fn with_model(model: &Model, cap_factor: f32, generation: u32) -> Self {
        let spec = model.spec();
        Self::new(
            settings_of(model, cap_factor),
            generation,
            spec.window,
            spec.history_steps(),
            Some(model.batch()),
        )
    }

    fn new(
        settings: TrackSettings,
        generation: u32,
        window_steps: usize,
        history_steps: usize,
        batch: Option<Batch>,
    ) -> Self {
        let blender = Blender::new(settings);
        let history_steps =
            history_steps.max(blender.history_steps().min(PLAIN_HISTORY_STEPS_MOST));
        Self {
            blender,
            generation,
            window_steps,
            history_steps,
            batch,
            rows: Vec::with_capacity(BATCH_ROWS),
            output: None,
            next_row: 0,
            queue: VecDeque::new(),
            run_cost: RunCost::default(),
        }
    }

    /// Methods and settings that all series share.
    pub fn blender_mut(&mut self) -> &mut Blender {
        &mut self.blender
    }

    /// Settings that all series share.
    #[must_use]
    pub fn settings(&self) -> &TrackSettings {
        self.blender.settings()
    }

    /// Tells models apart: learned state of another generation is void.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Steps that a series must remember.
    #[must_use]
    pub fn history_steps(&self) -> usize {
        self.history_steps
    }

    /// Steps that the forecasts look back at; a series without usage in them has none.
    #[must_use]
    pub fn window_steps(&self) -> usize {
        self.window_steps
    }

    /// Asks for a forecast of this series.
    pub fn push(&mut self, slot: SlotId) {
        self.queue.push_back(slot);
    }

    /// Whether no series waits for its forecast.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.rows.is_empty()
    }

    /// Whether the next unit of work may start. `fits` says whether what it will cost about is left of the budget.
    pub fn may_start(&mut self, fits: impl Fn(u64) -> bool) -> bool {
        if !self.is_run_due() {
            return fits(ROW_US);
        }
        self.run_cost.may_run(fits)
    }

    /// Does one unit of work. `ceiling` is what the contract of a series allows in one step, `step` the running one.
    pub fn work(
        &mut self,
        host: &impl Host,
        table: &mut SeriesTable,
        model: Option<&mut Model>,
        request: &Request<'_>,
    ) -> Progress {
        if self.output.is_some() {
            return self.blend_next(table, request);
        }
        if self.is_run_due() {
            return self.run(host, model);
        }
        let Some(slot) = self.queue.pop_front() else {
            return Progress::Idle;
        };
        let Some(key) = table.get(slot).map(|(key, _)| *key) else {
            return Progress::Worked;
        };
        let Some(series) = table.get_mut(slot) else {
            return Progress::Worked;
        };
        if series.generation() != self.generation || !series.is_active(self.window_steps) {
            series.set_forecast(None);
            return Progress::Ready(slot);
        }
        let seen = series.window().observed_of_last(self.window_steps);
        let long_enough = seen.saturating_mul(2) >= self.window_steps;
        let Some((batch, model)) = self.batch.as_mut().zip(model).filter(|_| long_enough) else {
            return self.blend(table, slot, None, request);
        };
        if batch.push(model.spec(), series.window()).is_ok() {
            self.rows.push((slot, key));
            Progress::Begun(slot)
        } else {
            self.queue.push_front(slot);
            Progress::Worked
        }
    }

    /// Whether a batch is complete and the network is what comes next.
    #[must_use]
    pub fn is_run_due(&self) -> bool {
        let full = self.batch.as_ref().is_some_and(Batch::is_full);
        self.output.is_none() && !self.rows.is_empty() && (full || self.queue.is_empty())
    }

    fn run(&mut self, host: &impl Host, model: Option<&mut Model>) -> Progress {
        let Some((batch, model)) = self.batch.as_mut().zip(model) else {
            self.queue.extend(self.rows.drain(..).map(|(slot, _)| slot));
            return Progress::Worked;
        };
        let started_us = host.monotonic_us();
        let result = model.run(batch);
        batch.clear();
        let took_us = host.monotonic_us().saturating_sub(started_us);
        host.record(Metric::BatchUs, took_us);
        self.run_cost.took(took_us);
        match result {
            Ok(output) => {
                self.output = Some(output);
                self.next_row = 0;
                Progress::Worked
            }
            Err(error) => {
                self.batch = None;
                self.queue.extend(self.rows.drain(..).map(|(slot, _)| slot));
                Progress::Failed(error.to_string())
            }
        }
    }

    fn blend_next(&mut self, table: &mut SeriesTable, request: &Request<'_>) -> Progress {
        let Some(output) = self.output.take() else {
            return Progress::Idle;
        };
        let row = self.next_row;
        self.next_row = row.saturating_add(1);
        let progress = match self.rows.get(row).copied() {
            // The slot may have changed hands since the row was pushed: a stranger's row must not become its forecast.
            Some((slot, key)) if table.get(slot).is_some_and(|(now, _)| *now == key) => {
                self.blend(table, slot, Some(output.row(row)), request)
            }
            _ => Progress::Worked,
        };
        if self.next_row < self.rows.len() {
            self.output = Some(output);
        } else {
            self.rows.clear();
        }
        progress
    }

    fn blend(
        &mut self,
        table: &mut SeriesTable,
        slot: SlotId,
        network: Option<&[f32]>,
        request: &Request<'_>,
    ) -> Progress {
        let Some(ceiling) = table
            .get(slot)
            .map(|(key, series)| (request.ceiling)(key, series.contract))
        else {
            return Progress::Worked;
        };
        let Some(series) = table.get_mut(slot) else {
            return Progress::Worked;
        };
        if series.generation() != self.generation {
            return Progress::Worked;
        }
        let quantiles = self.blender.settings().quantiles.len();
        let nearest = network.and_then(|row| row.get(..quantiles));
        let (track, window) = series.track_and_window();
        let (grid, source) = self.blender.forecast(track, window, nearest, ceiling);
        let levels = &self.blender.settings().quantiles;
        let values = grid.horizon(0);
        let forecast = (source != Source::Nothing).then(|| Forecast {
            step: request.step,
            low: at_quantile(levels, values, 0.1),
            median: at_quantile(levels, values, 0.5),
            high: at_quantile(levels, values, 0.9),
            claim: at_quantile(levels, values, request.quantile),
            source,
        });
        series.set_forecast(forecast);
        Progress::Ready(slot)
    }
}

/// How the forecasts of a model are blended here.
pub(crate) fn settings_of(model: &Model, cap_factor: f32) -> TrackSettings {
    let spec = model.spec();
    let mut settings = TrackSettings::for_model(spec);
    settings.horizons.truncate(1);
    settings.conformal_offsets.truncate(spec.quantiles.len());
    settings.checkpoints = vec![0];
    settings.late_steps = LATE_STEPS;
    settings.cap.factor = cap_factor;
    settings
}

/// What a forecast is made for.
pub struct Request<'a> {
    /// The running step.
    pub step: i64,
    /// The quantile of the policy.
    pub quantile: f32,
    /// What the contract of a series allows in one step, in tokens.
    pub ceiling: &'a dyn Fn(&SeriesKey, ContractIndex) -> Option<f32>,
}

/// The value at any quantile: between two given ones in proportion, beyond the outermost the outermost.
pub(crate) fn at_quantile(levels: &[f32], values: &[f32], quantile: f32) -> f32 {
    let mut below: Option<(f32, f32)> = None;
    for (level, value) in levels.iter().copied().zip(values.iter().copied()) {
        if level >= quantile {
            let Some((low_level, low_value)) = below else {
                return value;
            };
            let gap = level - low_level;
            let part = if gap > 0.0 {
                (quantile - low_level) / gap
            } else {
                1.0
            };
            return low_value + (value - low_value) * part;
        }
        below = Some((level, value));
    }
    below.map_or(0.0, |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_between_two_is_interpolated_and_one_beyond_is_the_last() {
        let (levels, values) = ([0.1, 0.5, 0.9], [10.0, 50.0, 100.0]);
        assert_eq!(at_quantile(&levels, &values, 0.5), 50.0);
        assert_eq!(at_quantile(&levels, &values, 0.7), 75.0);
        assert_eq!(at_quantile(&levels, &values, 0.01), 10.0);
        assert_eq!(at_quantile(&levels, &values, 0.99), 100.0);
        assert_eq!(at_quantile(&[], &[], 0.5), 0.0);
    }
}
