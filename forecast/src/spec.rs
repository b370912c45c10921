//! What a model says about itself: the metadata of the ONNX contract, version 1.
//!
//! Reader and writer live in one place, so a trainer cannot write what the gateway cannot read. Values are JSON text,
//! because `metadata_props` only carries strings and a second schema would have to be versioned separately.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::error::ModelError;
use crate::features::{CalendarFeature, PastFeature};
use crate::limits::Limits;

/// The version of the ONNX contract that this crate reads and writes.
pub const CONTRACT_VERSION: u32 = 1;

/// Everything that a caller must know to feed a model and to read its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Seconds per step of usage.
    pub step_s: u32,
    /// Steps of usage that the model sees: `W`.
    pub window: usize,
    /// Steps ahead of each forecast, ascending: `H` numbers. `1` is the step that has just begun.
    pub horizons: Vec<u32>,
    /// Forecast quantiles, ascending, each inside (0, 1): `Q` numbers.
    pub quantiles: Vec<f32>,
    /// Columns of the input `calendar`: `C` names.
    pub calendar_features: Vec<CalendarFeature>,
    /// Columns of the optional input `past`: `K` names, empty without that input.
    pub past_features: Vec<PastFeature>,
    /// Steps per season of the past covariates and the seasonal methods, 144 for a day of ten-minute steps.
    pub season_steps: usize,
    /// What kind of model it is, for people: `gru`, `ridge`.
    pub family: String,
    /// First instant of the training data, RFC 3339.
    pub training_start: String,
    /// Last instant of the training data, RFC 3339.
    pub training_end: String,
    /// SHA-256 of the training data, hex.
    pub data_digest: String,
    /// Split-conformal offsets `[h * Q + q]` in units of the window's mean usage, added to the network's quantiles.
    pub conformal_offsets: Vec<f32>,
    /// The oldest Forebay that can run the model.
    pub min_version: String,
}

mod key {
    pub(super) const PREFIX: &str = "forebay.";
    pub(super) const CONTRACT_VERSION: &str = "contract_version";
    pub(super) const STEP_S: &str = "step_s";
    pub(super) const WINDOW: &str = "window";
    pub(super) const HORIZONS: &str = "horizons";
    pub(super) const QUANTILES: &str = "quantiles";
    pub(super) const CALENDAR_FEATURES: &str = "calendar_features";
    pub(super) const PAST_FEATURES: &str = "past_features";
    pub(super) const SEASON_STEPS: &str = "season_steps";
    pub(super) const FAMILY: &str = "family";
    pub(super) const TRAINING_START: &str = "training_start";
    pub(super) const TRAINING_END: &str = "training_end";
    pub(super) const DATA_DIGEST: &str = "data_digest";
    pub(super) const CONFORMAL_OFFSETS: &str = "conformal_offsets";
    pub(super) const MIN_VERSION: &str = "min_version";
    pub(super) const GOLDEN_INPUT: &str = "golden_input";
    pub(super) const GOLDEN_OUTPUT: &str = "golden_output";
}

// === impl ModelSpec ===

impl ModelSpec {
    /// Floats of one row of `calendar`: `(W + H) * C`.
    #[must_use]
    pub fn calendar_row_len(&self) -> usize {
        self.window
            .saturating_add(self.horizons.len())
            .saturating_mul(self.calendar_features.len())
    }

    /// Floats of one row of `past`: `W * K`.
    #[must_use]
    pub fn past_row_len(&self) -> usize {
        self.window.saturating_mul(self.past_features.len())
    }

    /// Floats of one row of the output: `H * Q`.
    #[must_use]
    pub fn output_row_len(&self) -> usize {
        self.horizons.len().saturating_mul(self.quantiles.len())
    }

    /// The last horizon, in steps.
    #[must_use]
    pub fn last_horizon(&self) -> usize {
        self.horizons
            .last()
            .map_or(0, |h| usize::try_from(*h).unwrap_or(usize::MAX))
    }

    /// Steps of history that a [`SeriesWindow`](crate::SeriesWindow) must remember to fill all inputs.
    #[must_use]
    pub fn history_steps(&self) -> usize {
        if self.past_features.is_empty() {
            self.window
        } else {
            self.window.saturating_add(self.past_skip())
        }
    }

    /// How many steps before the newest one the `past` inputs end.
    #[must_use]
    pub fn past_skip(&self) -> usize {
        self.season_steps.saturating_sub(self.last_horizon())
    }

    /// The step number of row `i` of `calendar` when `newest` is the newest step of the window.
    #[must_use]
    pub fn calendar_step(&self, newest: i64, i: usize) -> i64 {
        if let Some(ahead) = i.checked_sub(self.window) {
            let horizon = self.horizons.get(ahead).copied().unwrap_or(0);
            return newest.saturating_add(i64::from(horizon));
        }
        let back = self.window.saturating_sub(1).saturating_sub(i);
        newest.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX))
    }

    /// The metadata that a writer puts into `metadata_props`, all but the golden vectors.
    #[must_use]
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let entry = |name: &str, value: serde_json::Value| {
            (format!("{}{name}", key::PREFIX), value.to_string())
        };
        vec![
            entry(key::CONTRACT_VERSION, CONTRACT_VERSION.into()),
            entry(key::STEP_S, self.step_s.into()),
            entry(key::WINDOW, self.window.into()),
            entry(key::HORIZONS, serde_json::json!(self.horizons)),
            entry(key::QUANTILES, serde_json::json!(self.quantiles)),
            entry(
                key::CALENDAR_FEATURES,
                serde_json::json!(self.calendar_features),
            ),
            entry(key::PAST_FEATURES, serde_json::json!(self.past_features)),
            entry(key::SEASON_STEPS, self.season_steps.into()),
            entry(key::FAMILY, self.family.as_str().into()),
            entry(key::TRAINING_START, self.training_start.as_str().into()),
            entry(key::TRAINING_END, self.training_end.as_str().into()),
            entry(key::DATA_DIGEST, self.data_digest.as_str().into()),
            entry(
                key::CONFORMAL_OFFSETS,
                serde_json::json!(self.conformal_offsets),
            ),
            entry(key::MIN_VERSION, self.min_version.as_str().into()),
        ]
    }

    /// Reads the spec from `metadata_props`.
    ///
    /// # Errors
    /// Which key is missing or unreadable, or which value breaks a rule of the contract.
    pub fn from_metadata(
        metadata: &BTreeMap<String, String>,
        limits: &Limits,
    ) -> Result<Self, ModelError> {
        let version: u32 = read(metadata, key::CONTRACT_VERSION)?;
        if version != CONTRACT_VERSION {
            return Err(ModelError::ContractVersion {
                found: version,
                supported: CONTRACT_VERSION,
            });
        }
        let spec = Self {
            step_s: read(metadata, key::STEP_S)?,
            window: read(metadata, key::WINDOW)?,
            horizons: read(metadata, key::HORIZONS)?,
            quantiles: read(metadata, key::QUANTILES)?,
            calendar_features: read(metadata, key::CALENDAR_FEATURES)?,
            past_features: read(metadata, key::PAST_FEATURES)?,
            season_steps: read(metadata, key::SEASON_STEPS)?,
            family: read(metadata, key::FAMILY)?,
            training_start: read(metadata, key::TRAINING_START)?,
            training_end: read(metadata, key::TRAINING_END)?,
            data_digest: read(metadata, key::DATA_DIGEST)?,
            conformal_offsets: read(metadata, key::CONFORMAL_OFFSETS)?,
            min_version: read(metadata, key::MIN_VERSION)?,
        };
        spec.validate(limits)?;
        Ok(spec)
    }

    fn validate(&self, limits: &Limits) -> Result<(), ModelError> {
        let rule = |ok: bool, name: &str, rule: String| {
            if ok {
                Ok(())
            } else {
                Err(ModelError::MetadataValue {
                    key: full_key(name),
                    rule,
                })
            }
        };
        rule(
            (1..=86_400).contains(&self.step_s),
            key::STEP_S,
            "must be 1 to 86400 seconds".into(),
        )?;
        rule(
            (1..=limits.window_steps).contains(&self.window),
            key::WINDOW,
            format!("must be 1 to {} steps", limits.window_steps),
        )?;
        let last = self.last_horizon();
        rule(
            strictly_ascending(&self.horizons)
                && self.horizons.first().is_some_and(|h| *h >= 1)
                && last <= limits.horizons,
            key::HORIZONS,
            format!(
                "must be strictly ascending steps from 1 to {}",
                limits.horizons
            ),
        )?;
        rule(
            !self.quantiles.is_empty()
                && self.quantiles.len() <= limits.quantiles
                && strictly_ascending(&self.quantiles)
                && self.quantiles.iter().all(|q| *q > 0.0 && *q < 1.0),
            key::QUANTILES,
            format!(
                "must be 1 to {} strictly ascending numbers between 0 and 1",
                limits.quantiles
            ),
        )?;
        let distinct = |names: usize, seen: usize| names == seen;
        let calendar: std::collections::HashSet<_> = self.calendar_features.iter().collect();
        rule(
            distinct(self.calendar_features.len(), calendar.len())
                && !self.calendar_features.is_empty(),
            key::CALENDAR_FEATURES,
            "must be a list of at least one name, each once".into(),
        )?;
        let past: std::collections::HashSet<_> = self.past_features.iter().collect();
        rule(
            distinct(self.past_features.len(), past.len()),
            key::PAST_FEATURES,
            "must name each feature once".into(),
        )?;
        rule(
            self.season_steps >= last && self.season_steps <= limits.season_steps,
            key::SEASON_STEPS,
            format!(
                "must be at least the last horizon ({last}) and at most {}",
                limits.season_steps
            ),
        )?;
        let offsets = self.output_row_len();
        rule(
            self.conformal_offsets.len() == offsets
                && self.conformal_offsets.iter().all(|o| o.is_finite()),
            key::CONFORMAL_OFFSETS,
            format!("must be {offsets} finite numbers, one per horizon and quantile"),
        )?;
        rule(
            version_supported(&self.min_version),
            key::MIN_VERSION,
            format!("must be a version up to {}", env!("CARGO_PKG_VERSION")),
        )
    }
}

/// The metadata key of the golden input, the golden output.
pub(crate) fn golden_keys() -> (String, String) {
    (full_key(key::GOLDEN_INPUT), full_key(key::GOLDEN_OUTPUT))
}

fn full_key(name: &str) -> String {
    format!("{}{name}", key::PREFIX)
}

fn read<T: DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    name: &str,
) -> Result<T, ModelError> {
    let key = full_key(name);
    let Some(text) = metadata.get(&key) else {
        return Err(ModelError::MetadataMissing { key });
    };
    serde_json::from_str(text).map_err(|error| ModelError::MetadataUnreadable {
        key,
        reason: error.to_string(),
    })
}

fn strictly_ascending<T: PartialOrd>(values: &[T]) -> bool {
    values.iter().zip(values.iter().skip(1)).all(|(a, b)| a < b)
}

/// Whether this build is at least `min_version` (`major.minor.patch`).
fn version_supported(min_version: &str) -> bool {
    match (version(min_version), version(env!("CARGO_PKG_VERSION"))) {
        (Some(min), Some(own)) => min <= own,
        _ => false,
    }
}

fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
impl ModelSpec {
    /// A small valid spec for tests.
    pub(crate) fn example() -> Self {
        Self {
            step_s: 600,
            window: 8,
            horizons: vec![1, 2],
            quantiles: vec![0.1, 0.5, 0.9],
            calendar_features: vec![CalendarFeature::DaySin, CalendarFeature::DayCos],
            past_features: vec![],
            season_steps: 144,
            family: "test".into(),
            training_start: "2025-01-01T00:00:00Z".into(),
            training_end: "2025-01-08T00:00:00Z".into(),
            data_digest: "00".into(),
            conformal_offsets: vec![0.0; 6],
            min_version: "0.1.0".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> BTreeMap<String, String> {
        ModelSpec::example().to_metadata().into_iter().collect()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let spec = ModelSpec::from_metadata(&metadata(), &Limits::default()).unwrap();
        assert_eq!(spec, ModelSpec::example());
    }

    #[test]
    fn each_missing_key_is_named() {
        for (gone, _) in ModelSpec::example().to_metadata() {
            let mut metadata = metadata();
            metadata.remove(&gone);
            let error = ModelSpec::from_metadata(&metadata, &Limits::default()).unwrap_err();
            assert!(
                matches!(&error, ModelError::MetadataMissing { key } if *key == gone),
                "{error}"
            );
        }
    }

    #[test]
    fn each_value_outside_the_contract_is_refused_with_its_key() {
        for (name, bad) in [
            ("step_s", "0"),
            ("window", "0"),
            ("window", "1000000"),
            ("horizons", "[]"),
            ("horizons", "[2, 1]"),
            ("horizons", "[0, 1]"),
            ("horizons", "[1, 4000000000]"),
            ("quantiles", "[0.5, 0.1]"),
            ("quantiles", "[0.0, 0.5, 0.9]"),
            ("calendar_features", "[]"),
            ("calendar_features", "[\"day_sin\", \"day_sin\"]"),
            ("season_steps", "1"),
            ("conformal_offsets", "[0.0]"),
            ("conformal_offsets", "[0,0,0,0,0,1e39]"),
            ("min_version", "\"99.0.0\""),
            ("min_version", "\"new\""),
        ] {
            let mut metadata = metadata();
            metadata.insert(full_key(name), bad.into());
            let error = ModelSpec::from_metadata(&metadata, &Limits::default()).unwrap_err();
            assert!(
                error.to_string().contains(&full_key(name)),
                "{name} = {bad}: {error}"
            );
        }
    }

    #[test]
    fn an_unknown_feature_or_version_is_refused() {
        let mut unknown = metadata();
        unknown.insert(full_key(key::CALENDAR_FEATURES), "[\"moon_phase\"]".into());
        let error = ModelSpec::from_metadata(&unknown, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("moon_phase"), "{error}");
        let mut newer = metadata();
        newer.insert(full_key(key::CONTRACT_VERSION), "2".into());
        assert!(matches!(
            ModelSpec::from_metadata(&newer, &Limits::default()),
            Err(ModelError::ContractVersion {
                found: 2,
                supported: 1
            })
        ));
    }
}
