//! One customer's forecasts through time: who was right, how wrong the quantiles were, and the next forecast.
//!
//! Forecasts have to be remembered until the step they were made for has passed. Remembering all horizons of all
//! experts would cost some 20 kB per customer, so only a few horizons, the *checkpoints*, are remembered and learned
//! from; what lies between them is interpolated.

use crate::calibration::Calibration;
use crate::cap::Cap;
use crate::ensemble::{Ensemble, EnsembleSettings};
use crate::fallback::{Fallback, Method};
use crate::grid::{QuantileGrid, pinball};
use crate::spec::ModelSpec;
use crate::window::SeriesWindow;

/// What all tracks of a forecaster have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackSettings {
    /// Steps ahead of each forecast, ascending.
    pub horizons: Vec<u32>,
    /// Forecast quantiles, ascending.
    pub quantiles: Vec<f32>,
    /// Steps per season of the seasonal methods.
    pub season_steps: usize,
    /// Steps whose errors make the simple methods' quantiles.
    pub error_rows: usize,
    /// Indexes into `horizons`, ascending: the horizons that are learned from.
    pub checkpoints: Vec<usize>,
    /// How many steps later than a forecast from it could be made a step's usage is known in full: 0 in a replay, 1 at a gateway, which is
    /// told what the others have used when the next step is running.
    pub late_steps: usize,
    /// Steps over which usage is averaged (the scale of offsets) and whose maximum caps the forecast.
    pub scale_steps: usize,
    /// Weighing of the experts.
    pub ensemble: EnsembleSettings,
    /// Whether quantiles are recalibrated online.
    pub calibrate: bool,
    /// The cap.
    pub cap: Cap,
    /// Split-conformal offsets of the network `[h * Q + q]`, in units of the scale; empty for none.
    pub conformal_offsets: Vec<f32>,
}

/// Where a forecast came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network took part, beside the simple methods.
    Network,
    /// Simple methods only: no model, or a history too short for it.
    Fallback,
    /// Nothing is known yet; the grid is zero.
    Nothing,
}

/// Learned state of one customer and resource.
#[derive(Clone, Debug)]
pub struct Track {
    ensemble: Ensemble,
    calibration: Calibration,
    /// Per checkpoint a ring of as many slots as the horizon is long, and as many more as usage is late; a slot holds the
    /// experts' quantiles and the given ones. NaN marks what was not forecast.
    pending: Vec<f32>,
    step: u64,
}

/// Buffers and methods shared by all tracks of a forecaster: a track is small, this is not.
#[derive(Clone, Debug)]
pub struct Blender {
    settings: TrackSettings,
    fallback: Fallback,
    experts: Vec<QuantileGrid>,
    available: Vec<bool>,
    weights: Vec<f32>,
    series: Vec<f32>,
}

/// The network is expert 0, the simple methods follow in the order of [`Method::ALL`].
const EXPERTS: usize = 1 + Method::ALL.len();
const NETWORK: usize = 0;

/// Weight of the network against one simple method when all have been equally good. The simple methods are four and err
/// alike, so with equal weights the network would be one voice in five. On the last part of the training span of
/// `servegen_10m` 3 was best; from 2 to 8 the loss changes by less than 0.3 %.
const NETWORK_PRIOR: f32 = 3.0;

// === impl TrackSettings ===

impl TrackSettings {
    /// Settings that fit a model: its horizons, quantiles, season and offsets.
    #[must_use]
    pub fn for_model(spec: &ModelSpec) -> Self {
        Self {
            conformal_offsets: spec.conformal_offsets.clone(),
            scale_steps: spec.window,
            ..Self::without_model(&spec.horizons, &spec.quantiles, spec.season_steps)
        }
    }

    /// Settings for the simple methods alone.
    #[must_use]
    pub fn without_model(horizons: &[u32], quantiles: &[f32], season_steps: usize) -> Self {
        let last = horizons.len().saturating_sub(1);
        let mut checkpoints = vec![0, last / 2, last];
        checkpoints.dedup();
        Self {
            horizons: horizons.to_vec(),
            quantiles: quantiles.to_vec(),
            season_steps,
            error_rows: 64,
            checkpoints,
            late_steps: 0,
            scale_steps: 48,
            ensemble: EnsembleSettings::default(),
            calibrate: true,
            cap: Cap::default(),
            conformal_offsets: Vec::new(),
        }
    }

    /// Floats of one remembered forecast: every expert's quantiles and the given ones.
    fn slot_len(&self) -> usize {
        self.quantiles
            .len()
            .saturating_mul(EXPERTS.saturating_add(1))
    }

    /// The horizon of checkpoint `c` in steps, at least one.
    fn checkpoint_steps(&self, c: usize) -> usize {
        let horizon = self
            .checkpoints
            .get(c)
            .and_then(|i| self.horizons.get(*i))
            .copied()
            .unwrap_or(1);
        usize::try_from(horizon).unwrap_or(usize::MAX).max(1)
    }

    /// Forecasts of checkpoint `c` that wait for the usage of their step.
    fn pending_slots(&self, c: usize) -> usize {
        self.checkpoint_steps(c).saturating_add(self.late_steps)
    }

    /// Where the slots of checkpoint `c` begin in [`Track::pending`].
    fn pending_start(&self, c: usize) -> usize {
        (0..c).fold(0, |sum: usize, before| {
            sum.saturating_add(self.pending_slots(before).saturating_mul(self.slot_len()))
        })
    }

    /// The checkpoints around horizon number `h` and how far it is towards the second, 0..1.
    fn between(&self, h: usize) -> (usize, usize, f32) {
        let upper = self
            .checkpoints
            .iter()
            .position(|c| *c >= h)
            .unwrap_or(self.checkpoints.len().saturating_sub(1));
        let lower = if self.checkpoints.get(upper).is_some_and(|c| *c > h) {
            upper.saturating_sub(1)
        } else {
            upper
        };
        let steps = |c: usize| self.checkpoint_steps(c) as f32;
        let here = self.horizons.get(h).copied().unwrap_or(0) as f32;
        let gap = steps(upper) - steps(lower);
        let part = if gap > 0.0 {
            ((here - steps(lower)) / gap).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (lower, upper, part)
    }
}

// === impl Track ===

impl Track {
    /// A customer nobody has forecast before.
    #[must_use]
    pub fn new(settings: &TrackSettings) -> Self {
        let checkpoints = settings.checkpoints.len();
        Self {
            ensemble: Ensemble::new(checkpoints, EXPERTS),
            calibration: Calibration::new(checkpoints, settings.quantiles.len()),
            pending: vec![f32::NAN; settings.pending_start(checkpoints)],
            step: 0,
        }
    }

    fn slot_mut(&mut self, settings: &TrackSettings, c: usize) -> &mut [f32] {
        let slots = u64::try_from(settings.pending_slots(c)).unwrap_or(1);
        let turn = usize::try_from(self.step.checked_rem(slots).unwrap_or(0)).unwrap_or(0);
        let start = settings
            .pending_start(c)
            .saturating_add(turn.saturating_mul(settings.slot_len()));
        self.pending
            .get_mut(start..start.saturating_add(settings.slot_len()))
            .unwrap_or(&mut [])
    }
}

// === impl Blender ===

impl Blender {
    /// A blender for tracks with these settings.
    #[must_use]
    pub fn new(settings: TrackSettings) -> Self {
        let (horizons, quantiles) = (settings.horizons.len(), settings.quantiles.len());
        Self {
            fallback: Fallback::new(
                settings.season_steps,
                &settings.horizons,
                &settings.quantiles,
                settings.error_rows,
            ),
            experts: vec![QuantileGrid::zeros(horizons, quantiles); EXPERTS],
            available: vec![false; EXPERTS],
            weights: vec![0.0; EXPERTS.saturating_mul(settings.checkpoints.len())],
            series: Vec::new(),
            settings,
        }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &TrackSettings {
        &self.settings
    }

    /// Steps of history that the simple methods can use.
    #[must_use]
    pub fn history_steps(&self) -> usize {
        self.fallback.history_steps()
    }

    /// One step has passed: learns from the forecasts that were made for the step [`TrackSettings::late_steps`] before it, whose usage
    /// `actual` is. `None` when that is unknown.
    ///
    /// Call it once per step and before the forecast from that step.
    pub fn mature(&mut self, track: &mut Track, actual: Option<f32>) {
        let settings = &self.settings;
        let quantiles = settings.quantiles.len();
        track.step = track.step.wrapping_add(1);
        for c in 0..settings.checkpoints.len() {
            let slot = track.slot_mut(settings, c).to_vec();
            track.slot_mut(settings, c).fill(f32::NAN);
            let Some(actual) = actual else { continue };
            let mut rows = slot.chunks_exact(quantiles.max(1));
            for expert in 0..EXPERTS {
                let row = rows.next().unwrap_or(&[]);
                let loss: f32 = row
                    .iter()
                    .zip(&settings.quantiles)
                    .map(|(f, q)| pinball(*q, *f, actual))
                    .sum();
                track
                    .ensemble
                    .score(&settings.ensemble, c, expert, loss / quantiles as f32);
            }
            let given = rows.next().unwrap_or(&[]);
            if settings.calibrate {
                track
                    .calibration
                    .observe(c, &settings.quantiles, given, actual);
            }
        }
    }

    /// The forecast from the newest step of `window`. `network` is the model's row for it, when there is one;
    /// `ceiling` what the contract allows in one step.
    pub fn forecast(
        &mut self,
        track: &mut Track,
        window: &SeriesWindow,
        network: Option<&[f32]>,
        ceiling: Option<f32>,
    ) -> (QuantileGrid, Source) {
        let scale = window
            .mean_of_last(self.settings.scale_steps)
            .unwrap_or(0.0);
        self.consult(window, network, scale);
        let (horizons, quantiles) = (self.settings.horizons.len(), self.settings.quantiles.len());
        let mut grid = QuantileGrid::zeros(horizons, quantiles);
        if !self.available.contains(&true) {
            return (grid, Source::Nothing);
        }
        self.weigh(track);
        for h in 0..horizons {
            self.blend(track, h, grid.horizon_mut(h));
        }
        grid.tidy();
        self.remember(track, &grid);
        self.settings.cap.apply(
            &mut grid,
            window.max_of_last(self.settings.scale_steps),
            ceiling,
        );
        let network_used = self.available.get(NETWORK) == Some(&true);
        (
            grid,
            if network_used {
                Source::Network
            } else {
                Source::Fallback
            },
        )
    }

    /// Lets every expert that can speak write its forecast.
    fn consult(&mut self, window: &SeriesWindow, network: Option<&[f32]>, scale: f32) {
        window.filled(&mut self.series);
        self.fallback.observe(&self.series);
        let mut experts = self.experts.iter_mut().zip(&mut self.available);
        if let Some((grid, available)) = experts.next() {
            let row = network.filter(|row| {
                row.len() == grid.values().len() && row.iter().all(|v| v.is_finite())
            });
            *available = row.is_some();
            if let Some(row) = row {
                let offsets = self
                    .settings
                    .conformal_offsets
                    .iter()
                    .copied()
                    .chain(std::iter::repeat(0.0));
                for ((place, value), offset) in grid.values_mut().iter_mut().zip(row).zip(offsets) {
                    *place = value + offset * scale;
                }
                grid.tidy();
            }
        }
        for ((grid, available), method) in experts.zip(Method::ALL) {
            *available = self.fallback.forecast(method, &self.series, grid);
        }
    }

    fn weigh(&mut self, track: &Track) {
        let mut priors = [0.0; EXPERTS];
        for (expert, (prior, available)) in priors.iter_mut().zip(&self.available).enumerate() {
            *prior = match (available, expert) {
                (false, _) => 0.0,
                (true, NETWORK) => NETWORK_PRIOR,
                (true, _) => 1.0,
            };
        }
        for (c, weights) in self.weights.chunks_mut(EXPERTS).enumerate() {
            track
                .ensemble
                .weights(&self.settings.ensemble, c, &priors, weights);
        }
    }

    /// Writes the weighted and recalibrated quantiles of horizon number `h`.
    fn blend(&self, track: &Track, h: usize, out: &mut [f32]) {
        let (lower, upper, part) = self.settings.between(h);
        let weight = |c: usize, expert: usize| {
            self.weights
                .get(c.saturating_mul(EXPERTS).saturating_add(expert))
                .copied()
                .unwrap_or(0.0)
        };
        for (expert, grid) in self.experts.iter().enumerate() {
            let weight = weight(lower, expert) * (1.0 - part) + weight(upper, expert) * part;
            if weight > 0.0 {
                for (place, value) in out.iter_mut().zip(grid.horizon(h)) {
                    *place += weight * value;
                }
            }
        }
        let width = out.last().copied().unwrap_or(0.0) - out.first().copied().unwrap_or(0.0);
        let offsets = track
            .calibration
            .offsets(lower)
            .iter()
            .zip(track.calibration.offsets(upper));
        for ((place, (low, high)), level) in
            out.iter_mut().zip(offsets).zip(&self.settings.quantiles)
        {
            // The median is the experts' business: it minimises the loss, it does not promise a coverage.
            if *level != 0.5 {
                *place += (low * (1.0 - part) + high * part) * width;
            }
        }
    }

    /// Keeps the checkpoints of this forecast until they mature.
    fn remember(&self, track: &mut Track, grid: &QuantileGrid) {
        let quantiles = self.settings.quantiles.len();
        for (c, horizon) in self.settings.checkpoints.iter().enumerate() {
            let slot = track.slot_mut(&self.settings, c);
            slot.fill(f32::NAN);
            let mut rows = slot.chunks_mut(quantiles.max(1));
            for (expert, available) in self.experts.iter().zip(&self.available) {
                let row = rows.next().unwrap_or(&mut []);
                if *available {
                    row.copy_from_slice(expert.horizon(*horizon));
                }
            }
            rows.next()
                .unwrap_or(&mut [])
                .copy_from_slice(grid.horizon(*horizon));
        }
    }
}
