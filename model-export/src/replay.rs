//! `forebay-train replay`: real traces through the ensemble of the gateway with the committed models, scored beside simple methods by rolling origin.

pub(crate) mod methods;
mod report;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use forebay_forecast::{Limits, Method, Model, ModelError, QuantileGrid, TrackSettings};
use indicatif::ProgressBar;

use crate::card::Card;
use crate::error::TrainError;
use crate::export::MODEL_BYTES_MAX;
use crate::recipe::{QUANTILES, Recipe};
use crate::regular_file::read;
use crate::scoring::{self, Score, Scored};
use crate::stamp::rfc3339;
use methods::Forecasts;

pub(crate) use report::write;

/// Rows of one inference.
pub(crate) const BATCH_ROWS: usize = 64;

/// Name of the ensemble of all methods.
pub(crate) const ENSEMBLE: &str = "ensemble";
/// Name of the ensemble without the network.
pub(crate) const ENSEMBLE_WITHOUT: &str = "ensemble without network";
/// Name of the exported model alone.
pub(crate) const NETWORK: &str = "network";

/// Scores of one data set: per reported number of steps, per method.
pub(crate) struct Evaluation {
    pub(crate) recipe: Recipe,
    pub(crate) tables: Vec<(usize, Vec<(String, Score)>)>,
}

/// Scores all methods on the recipe's file, the network being the model at `model`.
pub(crate) fn replay(
    recipe: &Recipe,
    folder: &Path,
    model: &Path,
    error_rows: Option<usize>,
    progress: &ProgressBar,
) -> Result<Evaluation, TrainError> {
    let bytes = read(model, MODEL_BYTES_MAX)?;
    let failed = |source: ModelError| TrainError::Model {
        path: model.to_owned(),
        source,
    };
    let loaded = Model::load(&bytes, &Limits::default(), BATCH_ROWS).map_err(failed)?;
    let card = Card::of(model, &bytes)?;
    let scored = scoring::select(&recipe.cut(), recipe.read(folder)?);
    if scored.is_empty() {
        return Err(TrainError::Data {
            path: recipe.path(folder),
            reason: "no tenant is long and active enough to be scored".into(),
        });
    }
    check_fit(recipe, model, &loaded)?;
    check_training_end(model, &card, &scored)?;

    let mut settings = TrackSettings::for_model(loaded.spec());
    settings.error_rows = error_rows.unwrap_or(settings.error_rows);
    progress.set_length(scored.len() as u64);
    progress.set_message(recipe.name.clone());
    let load = || Model::load(&bytes, &Limits::default(), BATCH_ROWS);
    let forecasts = in_parallel(&scored, load, |model, one| {
        let forecasts = methods::forecast(recipe, one, model, &settings);
        progress.inc(1);
        forecasts
    })
    .map_err(failed)?;
    progress.finish();
    let tables = recipe
        .reported
        .iter()
        .map(|steps| (*steps, table(recipe, &scored, &forecasts, *steps)));
    Ok(Evaluation {
        recipe: recipe.clone(),
        tables: tables.collect(),
    })
}

fn table(
    recipe: &Recipe,
    scored: &[Scored],
    forecasts: &[Forecasts],
    steps: usize,
) -> Vec<(String, Score)> {
    type Pick<'a> = Box<dyn Fn(&Forecasts) -> &[QuantileGrid] + 'a>;
    let mut methods: Vec<(&str, Pick)> = Vec::new();
    for (i, method) in Method::ALL.into_iter().enumerate() {
        methods.push((method.name(), Box::new(move |f| &f.simple[i])));
    }
    methods.push((NETWORK, Box::new(|f| &f.network)));
    methods.push((ENSEMBLE_WITHOUT, Box::new(|f| &f.ensemble_without)));
    methods.push((ENSEMBLE, Box::new(|f| &f.ensemble)));
    let row = |(name, pick): (&str, Pick)| {
        let grid = |tenant: usize, origin: usize, step| {
            Some(pick(&forecasts[tenant])[origin].horizon(step))
        };
        let score = scoring::score(&recipe.cut(), scored, steps, grid);
        score.map(|score| (name.to_owned(), score))
    };
    methods.into_iter().filter_map(row).collect()
}

/// Runs `work` on all items with as many threads as there are processors; results keep the order. Each thread has a
/// tool of its own (a loaded model cannot be shared).
pub(crate) fn in_parallel<T: Sync, S, R: Send, E: Send>(
    items: &[T],
    tool: impl Fn() -> Result<S, E> + Sync,
    work: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>, E> {
        let mut tool = tool()?;
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return Ok(done);
            };
            done.push((index, work(&mut tool, item)?));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<Result<Vec<(usize, R)>, E>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().map(join).collect()
    });
    let mut done = Vec::new();
    for part in parts {
        done.extend(part?);
    }
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// The model must speak of the same steps and quantiles as the recipe.
fn check_fit(recipe: &Recipe, model: &Path, loaded: &Model) -> Result<(), TrainError> {
    let spec = loaded.spec();
    let horizons: Vec<u32> = (1..=recipe.horizons as u32).collect();
    if spec.horizons != horizons
        || spec.quantiles != QUANTILES
        || spec.season_steps != recipe.season_steps
    {
        return Err(TrainError::Data {
            path: model.to_owned(),
            reason: format!(
                "the model's horizons, quantiles or season are not those of {}",
                recipe.name
            ),
        });
    }
    Ok(())
}

/// A score is worth nothing when the model has seen the test span.
fn check_training_end(model: &Path, card: &Card, scored: &[Scored]) -> Result<(), TrainError> {
    for one in scored {
        let test_start_s = one.series.stamp_s(one.test_start);
        if card.training_end_unix_s > test_start_s {
            return Err(TrainError::Data {
                path: model.to_owned(),
                reason: format!(
                    "its training data end at {}, but the test span of `{}` begins at {}: the scores would be of data it has seen",
                    card.training_end,
                    one.series.tenant,
                    rfc3339(test_start_s)
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `score.py` prints with the settings of its own documentation: wQL, WAPE and MASE of the largest horizon.
    const SERVEGEN_10M: [(&str, [f64; 3]); 4] = [
        ("last", [0.253, 0.395, 1.418]),
        ("ewma0.3", [0.246, 0.402, 1.324]),
        ("snaive", [0.381, 0.665, 1.826]),
        ("sn*level", [0.323, 0.525, 1.776]),
    ];
    const MS_RATE_1M: [(&str, [f64; 3]); 4] = [
        ("last", [0.016, 0.030, 0.414]),
        ("ewma0.3", [0.015, 0.028, 0.385]),
        ("snaive", [0.050, 0.108, 1.483]),
        ("sn*level", [0.021, 0.041, 0.581]),
    ];

    fn agrees_with_the_reference(recipe: &Recipe, expected: [(&str, [f64; 3]); 4]) {
        let Some(folder) = std::env::var_os("FOREBAY_DATA") else {
            eprintln!(
                "SKIPPED: set FOREBAY_DATA to compare with the reference scorer on {}",
                recipe.name
            );
            return;
        };
        let scored = scoring::select(&recipe.cut(), recipe.read(Path::new(&folder)).unwrap());
        let forecasts = in_parallel(
            &scored,
            || Ok(()),
            |(), one| Ok::<_, ModelError>(methods::simple(recipe, one)),
        )
        .unwrap();
        for (i, (name, [wql, wape, mase])) in expected.into_iter().enumerate() {
            let grid = |tenant: usize, origin: usize, step| {
                Some(forecasts[tenant][i][origin].horizon(step))
            };
            let found = scoring::score(&recipe.cut(), &scored, recipe.horizons, grid).unwrap();
            // The reference prints three digits.
            for (ours, theirs) in [(found.wql, wql), (found.wape, wape), (found.mase, mase)] {
                assert!(
                    (ours - theirs).abs() < 0.000_51,
                    "{name}: {ours} instead of {theirs}"
                );
            }
        }
    }

    #[test]
    fn simple_methods_agree_with_the_reference_scorer_on_servegen_10m() {
        agrees_with_the_reference(&Recipe::servegen_10m(), SERVEGEN_10M);
    }

    #[test]
    fn simple_methods_agree_with_the_reference_scorer_on_ms_rate_1m() {
        agrees_with_the_reference(&Recipe::ms_rate_1m(), MS_RATE_1M);
    }
}
