//! Forecasts of every method at every origin, made by the `forecast` crate: what is scored is what the gateway runs.

use forebay_forecast::{
    Batch, Blender, Fallback, Method, Model, ModelError, QuantileGrid, SeriesWindow, Track,
    TrackSettings,
};

use crate::recipe::{QUANTILES, Recipe};
use crate::scoring::Scored;

/// Steps before the test span from which on the ensemble learns its weights. By then it has forgotten its start.
const WARM_UP_STEPS: usize = 288;

/// Forecasts of one tenant: one grid per origin and method.
pub(crate) struct Forecasts {
    /// In the order of [`Method::ALL`].
    pub(crate) simple: Vec<Vec<QuantileGrid>>,
    /// The exported model alone.
    pub(crate) network: Vec<QuantileGrid>,
    /// Simple methods, weighed online.
    pub(crate) ensemble_without: Vec<QuantileGrid>,
    /// Simple methods and the network, weighed online.
    pub(crate) ensemble: Vec<QuantileGrid>,
}

/// All forecasts of one tenant.
pub(crate) fn forecast(
    recipe: &Recipe,
    scored: &Scored,
    model: &mut Model,
    settings: &TrackSettings,
) -> Result<Forecasts, ModelError> {
    let network = network_rows(recipe, scored, model)?;
    let without = TrackSettings {
        conformal_offsets: Vec::new(),
        ..settings.clone()
    };
    Ok(Forecasts {
        simple: simple(recipe, scored),
        network: scored
            .origins
            .iter()
            .map(|origin| {
                QuantileGrid::from_values(
                    QUANTILES.len(),
                    network[*origin - first_step(scored)].clone(),
                )
            })
            .collect(),
        ensemble_without: ensemble(scored, None, without),
        ensemble: ensemble(scored, Some(&network), settings.clone()),
    })
}

/// The simple methods' forecasts: per method, one grid per origin.
pub(super) fn simple(recipe: &Recipe, scored: &Scored) -> Vec<Vec<QuantileGrid>> {
    let horizons: Vec<u32> = (1..=recipe.horizons as u32).collect();
    let mut fallback = Fallback::new(
        recipe.season_steps,
        &horizons,
        &QUANTILES,
        recipe.error_rows,
    );
    let filled: Vec<f32> = scored
        .series
        .filled_forward()
        .into_iter()
        .map(|v| v as f32)
        .collect();
    let mut all = vec![Vec::new(); Method::ALL.len()];
    for origin in &scored.origins {
        let known = &filled[..=*origin];
        fallback.observe(known);
        for (method, grids) in Method::ALL.into_iter().zip(&mut all) {
            let mut grid = QuantileGrid::zeros(recipe.horizons, QUANTILES.len());
            fallback.forecast(method, known, &mut grid);
            grids.push(grid);
        }
    }
    all
}

/// First step from whose end a forecast is made.
fn first_step(scored: &Scored) -> usize {
    scored.test_start.saturating_sub(WARM_UP_STEPS)
}

/// The model's rows for every step from [`first_step`] on.
fn network_rows(
    recipe: &Recipe,
    scored: &Scored,
    model: &mut Model,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let mut rows = Vec::new();
    let mut batch = model.batch();
    let spec = model.spec().clone();
    let mut window = SeriesWindow::new(spec.history_steps());
    let last = scored.series.len() - recipe.horizons - 1;
    let mut flush = |batch: &mut Batch| -> Result<(), ModelError> {
        let quantiles = model.run(batch)?;
        rows.extend((0..batch.len()).map(|row| quantiles.row(row).to_vec()));
        batch.clear();
        Ok(())
    };
    for t in 0..=last {
        record(&mut window, scored, t);
        if t < first_step(scored) {
            continue;
        }
        // A fresh batch always has room: it is flushed when full.
        let _ = batch.push(&spec, &window);
        if batch.is_full() {
            flush(&mut batch)?;
        }
    }
    if !batch.is_empty() {
        flush(&mut batch)?;
    }
    Ok(rows)
}

/// The online ensemble's forecasts at the origins. It runs over every step, as in the gateway.
fn ensemble(
    scored: &Scored,
    network: Option<&[Vec<f32>]>,
    settings: TrackSettings,
) -> Vec<QuantileGrid> {
    let late_steps = settings.late_steps;
    let mut blender = Blender::new(settings);
    let mut track = Track::new(blender.settings());
    let mut window = SeriesWindow::new(blender.history_steps());
    let mut grids = Vec::new();
    let mut origins = scored.origins.iter().peekable();
    let first = first_step(scored);
    for t in 0..scored.series.len() {
        record(&mut window, scored, t);
        if t < first {
            continue;
        }
        blender.mature(&mut track, window.back(late_steps));
        let row = network
            .and_then(|rows| rows.get(t - first))
            .map(Vec::as_slice);
        let (grid, _) = blender.forecast(&mut track, &window, row, None);
        if origins.next_if(|origin| **origin == t).is_some() {
            grids.push(grid);
        }
    }
    grids
}

fn record(window: &mut SeriesWindow, scored: &Scored, t: usize) {
    let series = &scored.series;
    let step = series.start_s / i64::from(series.step_s) + t as i64;
    let value = series.values[t];
    window.record(step, (!value.is_nan()).then_some(value as f32));
}
