//! Inputs and the output that they must give: proves that this build computes what the trainer computed.
//!
//! It proves parity, not quality: whoever writes a wrong model also writes its golden output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::ModelError;
use crate::limits::Limits;
use crate::model::Model;
use crate::spec::{ModelSpec, golden_keys};

/// A few rows of inputs with the output of the trainer's own forward pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Rows of the inputs below.
    pub rows: usize,
    /// `[rows, W]`.
    pub usage: Vec<f32>,
    /// `[rows, W]`.
    pub mask: Vec<f32>,
    /// `[rows, W + H, C]`.
    pub calendar: Vec<f32>,
    /// `[rows, W, K]`, empty without past features.
    #[serde(default)]
    pub past: Vec<f32>,
    /// `[rows, H, Q]`; kept under its own metadata key.
    #[serde(skip)]
    pub quantiles: Vec<f32>,
}

// === impl Golden ===

impl Golden {
    /// The two metadata entries.
    #[must_use]
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let (input, output) = golden_keys();
        vec![
            (input, serde_json::json!(self).to_string()),
            (output, serde_json::json!(self.quantiles).to_string()),
        ]
    }

    /// Reads the vectors and checks them against the spec; they must fit into one batch.
    pub(crate) fn from_metadata(
        metadata: &BTreeMap<String, String>,
        spec: &ModelSpec,
        batch_rows: usize,
    ) -> Result<Self, ModelError> {
        let (input, output) = golden_keys();
        let text = |key: &String| {
            metadata
                .get(key)
                .ok_or_else(|| ModelError::MetadataMissing { key: key.clone() })
        };
        let unreadable = |key: &String, error: serde_json::Error| ModelError::MetadataUnreadable {
            key: key.clone(),
            reason: error.to_string(),
        };
        let mut golden: Self =
            serde_json::from_str(text(&input)?).map_err(|error| unreadable(&input, error))?;
        golden.quantiles =
            serde_json::from_str(text(&output)?).map_err(|error| unreadable(&output, error))?;
        // The trainer and the gateway may use different batches, so a single row must do.
        golden.truncate(spec, batch_rows);
        golden.check_lengths(spec)?;
        Ok(golden)
    }

    /// Keeps what fits into a batch.
    fn truncate(&mut self, spec: &ModelSpec, batch_rows: usize) {
        if self.rows <= batch_rows {
            return;
        }
        self.rows = batch_rows;
        for (values, row_len) in [
            (&mut self.usage, spec.window),
            (&mut self.mask, spec.window),
            (&mut self.calendar, spec.calendar_row_len()),
            (&mut self.past, spec.past_row_len()),
            (&mut self.quantiles, spec.output_row_len()),
        ] {
            values.truncate(batch_rows.saturating_mul(row_len));
        }
    }

    fn check_lengths(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        if self.rows == 0 {
            return Err(ModelError::Golden {
                reason: "there must be at least one row".into(),
            });
        }
        for (name, values, row_len) in [
            ("usage", &self.usage, spec.window),
            ("mask", &self.mask, spec.window),
            ("calendar", &self.calendar, spec.calendar_row_len()),
            ("past", &self.past, spec.past_row_len()),
            ("the output", &self.quantiles, spec.output_row_len()),
        ] {
            let expected = self.rows.saturating_mul(row_len);
            if values.len() != expected {
                let reason = format!(
                    "{name} has {} numbers, {} rows of {row_len} are needed",
                    values.len(),
                    self.rows
                );
                return Err(ModelError::Golden { reason });
            }
            if !values.iter().all(|value| value.is_finite()) {
                return Err(ModelError::Golden {
                    reason: format!("{name} has numbers that are not finite"),
                });
            }
        }
        Ok(())
    }

    /// Runs the model on the rows, at two places of the batch; the largest relative difference from the output.
    pub(crate) fn check(&self, model: &mut Model, limits: &Limits) -> Result<f32, ModelError> {
        let spec = model.spec().clone();
        let row_len = spec.output_row_len();
        let found = model.run_all(&self.batch(&spec, model.batch_rows(), false))?;
        for (row, values) in found.chunks(row_len.max(1)).enumerate() {
            let what = || {
                if row < self.rows {
                    format!("golden row {row}")
                } else {
                    "an empty row".into()
                }
            };
            check_forecast(values, spec.quantiles.len(), limits, what)?;
        }
        let mut largest = 0.0_f32;
        for (i, (found, expected)) in found.iter().zip(&self.quantiles).enumerate() {
            let difference = (found - expected).abs() / expected.abs().max(1.0);
            if difference > limits.golden_tolerance {
                return Err(ModelError::GoldenMismatch {
                    row: i.checked_div(row_len).unwrap_or(0),
                    index: i.checked_rem(row_len).unwrap_or(0),
                    found: *found,
                    expected: *expected,
                });
            }
            largest = largest.max(difference);
        }
        // The same rows, last first, at the end of the batch: each must come out as before.
        let moved = model.run_all(&self.batch(&spec, model.batch_rows(), true))?;
        let back_to_front = moved.chunks(row_len.max(1)).rev();
        for (row, (found, moved)) in found
            .chunks(row_len.max(1))
            .zip(back_to_front)
            .take(self.rows)
            .enumerate()
        {
            let same =
                |(a, b): (&f32, &f32)| (a - b).abs() <= limits.golden_tolerance * a.abs().max(1.0);
            if !found.iter().zip(moved).all(same) {
                return Err(ModelError::RowsMixed { row });
            }
        }
        Ok(largest)
    }

    /// The rows as a batch; when `reversed`, they fill it from its end.
    fn batch(&self, spec: &ModelSpec, capacity: usize, reversed: bool) -> Batch {
        let mut batch = Batch::new(spec, capacity);
        for (cells, values, row_len) in [
            (&mut batch.usage, &self.usage, spec.window),
            (&mut batch.mask, &self.mask, spec.window),
            (&mut batch.calendar, &self.calendar, spec.calendar_row_len()),
            (&mut batch.past, &self.past, spec.past_row_len()),
        ] {
            let rows = values.chunks_exact(row_len.max(1));
            if reversed {
                cells
                    .chunks_exact_mut(row_len.max(1))
                    .rev()
                    .zip(rows)
                    .for_each(|(cells, row)| cells.copy_from_slice(row));
            } else {
                cells
                    .chunks_exact_mut(row_len.max(1))
                    .zip(rows)
                    .for_each(|(cells, row)| cells.copy_from_slice(row));
            }
        }
        batch
    }
}

/// Refuses numbers that are no quantiles of a number of tokens. Rounding may disturb order and sign a little.
fn check_forecast(
    values: &[f32],
    quantiles: usize,
    limits: &Limits,
    what: impl Fn() -> String,
) -> Result<(), ModelError> {
    let wrong = |index: usize, value: f32| ModelError::Forecast {
        what: what(),
        index,
        value,
    };
    let mut before = 0.0_f32;
    for (index, value) in values.iter().enumerate() {
        if index.checked_rem(quantiles) == Some(0) {
            before = 0.0;
        }
        let slack = limits.golden_tolerance * before.abs().max(1.0);
        if !value.is_finite() || *value < before - slack {
            return Err(wrong(index, *value));
        }
        before = *value;
    }
    Ok(())
}
