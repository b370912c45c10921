//! `forebay-train train`: from series to an ONNX file with its card.

use std::path::Path;

use forebay_forecast::{Limits, Model, ModelSpec, PastFeature};
use forebay_traces::Series;
use forebay_traces::generator::GeneratorSpec;

use crate::card::{Card, sha256, sha256_of};
use crate::conformal;
use crate::error::TrainError;
use crate::export::to_onnx;
use crate::progress::Progress;
use crate::recipe::{QUANTILES, Recipe};
use crate::regular_file;
use crate::samples::Samples;
use crate::stamp::rfc3339;
use crate::train::{self, Settings};

const FAMILY: &str = "gru";
const BATCH_ROWS: usize = 64;
const GENERATED_CUSTOMERS: usize = 80;

/// Series and where they come from.
pub(crate) struct Data {
    pub(crate) series: Vec<Series>,
    pub(crate) source: String,
    pub(crate) sha256: String,
}

// === impl Data ===

impl Data {
    /// The recipe's trace in a data folder.
    pub(crate) fn from_trace(recipe: &Recipe, folder: &Path) -> Result<Self, TrainError> {
        let path = recipe.path(folder);
        let sum = sha256_of(regular_file::open(&path)?);
        Ok(Self {
            series: recipe.read(folder)?,
            source: recipe.file.clone(),
            sha256: sum.map_err(|source| TrainError::Io { path, source })?,
        })
    }

    /// Generated demand: two weeks of ten-minute steps.
    pub(crate) fn generated(seed: u64) -> Self {
        let spec = GeneratorSpec {
            seed,
            customers: GENERATED_CUSTOMERS,
            ..GeneratorSpec::default()
        };
        let series = spec.series();
        let bytes: Vec<u8> = series
            .iter()
            .flat_map(|one| &one.values)
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Self {
            series,
            source: format!("generator, seed {seed}"),
            sha256: sha256(&bytes),
        }
    }
}

/// Trains a model and calibrates it: the ONNX file's bytes and its card. `out` is only named in errors.
pub(crate) fn fit(
    recipe: &Recipe,
    data: &Data,
    settings: &Settings,
    out: &Path,
    progress: &Progress,
) -> Result<(Vec<u8>, Card), TrainError> {
    let nothing = |reason: &str| TrainError::Data {
        path: data.source.clone().into(),
        reason: reason.to_owned(),
    };
    let first = data
        .series
        .first()
        .ok_or_else(|| nothing("the data hold no series"))?;
    let step_s = first.step_s;
    // One cut for all series: the earliest test start of any of them, so that no test span is ever touched.
    let end_s = data
        .series
        .iter()
        .map(|one| one.stamp_s(recipe.test_start(one.len())))
        .min()
        .unwrap_or(first.start_s);
    let start_s = data
        .series
        .iter()
        .map(|one| one.start_s)
        .min()
        .unwrap_or(first.start_s);
    let end = move |one: &Series| steps_before(one, end_s);
    let held_back_s = end_s - ((end_s - start_s) as f64 * settings.held_back) as i64;

    let mut spec = ModelSpec {
        training_start: rfc3339(start_s),
        training_end: rfc3339(end_s),
        data_digest: data.sha256.clone(),
        ..spec(recipe, step_s)
    };
    let samples = Samples::new(&data.series, &spec, end);
    let (fit, held_back) = samples.split(held_back_s);
    if fit.is_empty() || held_back.is_empty() {
        return Err(nothing(
            "too short: a training span needs more steps than the window and the horizon together",
        ));
    }
    let shape = recipe.shape();
    let trained = train::train(&samples, &fit, &held_back, &shape, settings, progress)?;

    let failed = |source| TrainError::Model {
        path: out.to_owned(),
        source,
    };
    let bytes = to_onnx(&shape, &trained.weights, &spec);
    let mut model = Model::load(&bytes, &Limits::default(), BATCH_ROWS).map_err(failed)?;
    spec.conformal_offsets = conformal::offsets(&mut model, &data.series, |one| {
        let first = steps_before(one, held_back_s);
        first..end(one).saturating_sub(recipe.horizons).max(first)
    })
    .map_err(failed)?;
    let bytes = to_onnx(&shape, &trained.weights, &spec);
    let card = Card {
        recipe: recipe.name.clone(),
        family: FAMILY.into(),
        model_sha256: sha256(&bytes),
        model_bytes: bytes.len(),
        parameters: trained
            .weights
            .values()
            .map(|matrix| matrix.values.len())
            .sum(),
        data_sha256: data.sha256.clone(),
        data_source: data.source.clone(),
        series: data.series.len(),
        samples: samples.len(),
        training_start: spec.training_start.clone(),
        training_end: spec.training_end.clone(),
        training_end_unix_s: end_s,
        epochs: trained.epoch,
        validation_loss: trained.validation_loss,
        start_loss: trained.start_loss,
        shape,
        settings: settings.clone(),
        trial: None,
        trainer_version: env!("CARGO_PKG_VERSION").into(),
    };
    Ok((bytes, card))
}

/// What a model of the recipe says about itself, before it is known what it was trained on.
pub(crate) fn spec(recipe: &Recipe, step_s: u32) -> ModelSpec {
    ModelSpec {
        step_s,
        window: recipe.window,
        horizons: (1..=recipe.horizons as u32).collect(),
        quantiles: QUANTILES.to_vec(),
        calendar_features: recipe.calendar.clone(),
        past_features: vec![PastFeature::SeasonAhead, PastFeature::SeasonAheadMask],
        season_steps: recipe.season_steps,
        family: FAMILY.into(),
        training_start: String::new(),
        training_end: String::new(),
        data_digest: String::new(),
        conformal_offsets: vec![0.0; recipe.horizons * QUANTILES.len()],
        min_version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Steps of the series that end before the instant.
fn steps_before(series: &Series, unix_s: i64) -> usize {
    let steps = (unix_s - series.start_s).div_euclid(i64::from(series.step_s));
    usize::try_from(steps).unwrap_or(0).min(series.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_on_generated_demand_beats_the_last_value_and_repeats_itself() {
        let generator = GeneratorSpec {
            customers: 4,
            steps: 4 * 144,
            ..GeneratorSpec::default()
        };
        let data = Data {
            series: generator.series(),
            source: "test".into(),
            sha256: String::new(),
        };
        let settings = Settings {
            epochs: 2,
            ..Settings::default()
        };
        let train = || {
            fit(
                &Recipe::generated(),
                &data,
                &settings,
                Path::new("test.onnx"),
                &Progress::hidden(),
            )
            .unwrap()
        };
        let (bytes, card) = train();
        assert!(
            card.validation_loss < card.start_loss,
            "{} {}",
            card.validation_loss,
            card.start_loss
        );
        assert_eq!(card.training_end_unix_s, data.series[0].stamp_s(403));
        assert_eq!(card.model_sha256, sha256(&bytes));
        assert!(
            train().0 == bytes,
            "the same data and seed must give the same file"
        );
    }

    #[test]
    fn data_without_a_usable_series_are_refused() {
        let data = Data {
            series: vec![],
            source: "empty.csv".into(),
            sha256: String::new(),
        };
        let settings = Settings::default();
        let error = fit(
            &Recipe::generated(),
            &data,
            &settings,
            Path::new("x"),
            &Progress::hidden(),
        );
        assert!(error.err().unwrap().to_string().contains("empty.csv"));
    }
}
