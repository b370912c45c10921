//! A model in tract: loaded once with every check, then run on fixed-size batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::batch::Batch;
use crate::error::ModelError;
use crate::grid::Quantiles;
use crate::limits::Limits;
use crate::spec::{ModelSpec, golden_keys};

/// A model that passed all checks.
#[derive(Clone, Debug)]
pub struct Model {
    spec: ModelSpec,
    batch_rows: usize,
    plan: Arc<TypedSimplePlan>,
}

/// Inputs and the output that they must give: proves that this build computes what the trainer computed.
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

/// What a check found out about a model that passed it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Nodes in the graph.
    pub nodes: usize,
    /// Weights in the file.
    pub weights: usize,
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
}

// === impl Model ===

impl Model {
    /// Loads a model from the bytes of an ONNX file, for batches of `batch_rows` customers.
    ///
    /// # Errors
    /// Any way in which the file breaks the contract or a limit.
    pub fn load(bytes: &[u8], limits: &Limits, batch_rows: usize) -> Result<Self, ModelError> {
        if bytes.len() > limits.file_bytes {
            return Err(ModelError::TooLarge {
                bytes: bytes.len(),
                limit: limits.file_bytes,
            });
        }
        let graph = |error: TractError| ModelError::Graph {
            reason: format!("{error:#}"),
        };
        let onnx = tract_onnx::onnx();
        let proto: pb::ModelProto = onnx.proto_model_for_read(&mut &*bytes).map_err(graph)?;
        let metadata: BTreeMap<String, String> = proto
            .metadata_props
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        let spec = ModelSpec::from_metadata(&metadata, limits)?;
        let mut model = onnx.model_for_proto_model(&proto).map_err(graph)?;
        let shapes = [
            vec![batch_rows, spec.window],
            vec![batch_rows, spec.window],
            vec![
                batch_rows,
                spec.window.saturating_add(spec.horizons.len()),
                spec.calendar_features.len(),
            ],
            vec![batch_rows, spec.window, spec.past_features.len()],
        ];
        let inputs = if spec.past_features.is_empty() { 3 } else { 4 };
        for (i, shape) in shapes.iter().take(inputs).enumerate() {
            model
                .set_input_fact(i, f32::fact(shape).into())
                .map_err(graph)?;
        }
        let plan = model
            .into_optimized()
            .and_then(|m| m.into_runnable())
            .map_err(graph)?;
        Ok(Self {
            spec,
            batch_rows,
            plan,
        })
    }

    /// What the model says about itself.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Rows of the batches that the model was loaded for.
    #[must_use]
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// An empty batch that fits.
    #[must_use]
    pub fn batch(&self) -> Batch {
        Batch::new(&self.spec, self.batch_rows)
    }

    /// Forecasts every row of the batch.
    ///
    /// # Errors
    /// [`ModelError::Run`] when the batch was made for another model or tract fails.
    pub fn run(&self, batch: &Batch) -> Result<Quantiles, ModelError> {
        let run = |error: TractError| ModelError::Run {
            reason: format!("{error:#}"),
        };
        let spec = &self.spec;
        let rows = self.batch_rows;
        let steps = spec.window.saturating_add(spec.horizons.len());
        let tensor = |shape: &[usize], cells: &[f32]| {
            Tensor::from_shape(shape, cells).map(|t| t.into_tvalue())
        };
        let mut inputs = tvec![
            tensor(&[rows, spec.window], &batch.usage).map_err(run)?,
            tensor(&[rows, spec.window], &batch.mask).map_err(run)?,
            tensor(
                &[rows, steps, spec.calendar_features.len()],
                &batch.calendar
            )
            .map_err(run)?,
        ];
        if !spec.past_features.is_empty() {
            inputs.push(
                tensor(&[rows, spec.window, spec.past_features.len()], &batch.past).map_err(run)?,
            );
        }
        let outputs = self.plan.run(inputs).map_err(run)?;
        let output = outputs.first().ok_or_else(|| ModelError::Run {
            reason: "no output".into(),
        })?;
        let values = output
            .try_as_plain_ram()
            .and_then(|plain| plain.as_slice::<f32>())
            .map_err(run)?;
        let row_len = spec.output_row_len();
        let used = values
            .iter()
            .copied()
            .take(batch.len().saturating_mul(row_len))
            .collect();
        Ok(Quantiles::new(
            batch.len(),
            row_len,
            spec.quantiles.len(),
            used,
        ))
    }
}
