//! A model in tract: loaded once, with every check, then run on batches of a fixed size.
//!
//! The batch size is pinned when the model is loaded, because tract cannot plan recurrent layers for a symbolic one
//! and because a fixed size lets it pack all weights once.
//!
//! No check here can promise that tract never panics on a file that passed them, and in wasm a panic is the end of the
//! VM. That is why the control plane loads every model in a sandbox first and gateways load signed models only.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::batch::Batch;
use crate::error::ModelError;
use crate::golden::Golden;
use crate::grid::Quantiles;
use crate::import;
use crate::limits::Limits;
use crate::spec::ModelSpec;

/// A model that passed all checks.
pub struct Model {
    spec: ModelSpec,
    check: Check,
    batch_rows: usize,
    state: TypedSimpleState,
}

/// What loading found out about a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Size of the file.
    pub file_bytes: usize,
    /// Nodes in the graph.
    pub nodes: usize,
    /// Weights in the file.
    pub weights: usize,
    /// Floating-point operations for one customer, roughly.
    pub flops_per_row: u64,
    /// Largest difference from the golden output, relative to the larger of 1 and the expected value.
    pub golden_difference: f32,
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
        if !(1..=limits.batch_rows).contains(&batch_rows) {
            return Err(ModelError::BatchRows {
                rows: batch_rows,
                limit: limits.batch_rows,
            });
        }
        let proto: pb::ModelProto =
            prost::Message::decode(bytes).map_err(|error| ModelError::Unreadable {
                reason: error.to_string(),
            })?;
        let graph = proto.graph.as_ref().ok_or(ModelError::NoGraph)?;
        let metadata: BTreeMap<String, String> = proto
            .metadata_props
            .iter()
            .map(|entry| (entry.key.clone(), entry.value.clone()))
            .collect();
        let spec = ModelSpec::from_metadata(&metadata, limits)?;
        let golden = Golden::from_metadata(&metadata, &spec, batch_rows)?;
        let weights = import::check_initializers(graph, limits)?;
        let imported = import::import(&proto, &spec, limits, batch_rows)?;

        let broken = |error: TractError| ModelError::Graph {
            reason: format!("{error:#}"),
        };
        let plan = imported
            .graph
            .into_optimized()
            .and_then(TypedModel::into_runnable)
            .map_err(broken)?;
        let state = plan.spawn().map_err(broken)?;
        let check = Check {
            file_bytes: bytes.len(),
            nodes: imported.nodes,
            weights,
            flops_per_row: imported.flops_per_row,
            golden_difference: 0.0,
        };
        let mut model = Self {
            spec,
            check,
            batch_rows,
            state,
        };
        model.check.golden_difference = golden.check(&mut model, limits)?;
        Ok(model)
    }

    /// What the model says about itself.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What loading found out about it.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
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
    pub fn run(&mut self, batch: &Batch) -> Result<Quantiles, ModelError> {
        let mut values = self.run_all(batch)?;
        let row_len = self.spec.output_row_len();
        values.truncate(batch.len().saturating_mul(row_len));
        Ok(Quantiles::new(
            batch.len(),
            row_len,
            self.spec.quantiles.len(),
            values,
        ))
    }

    /// Runs the batch and returns the output of all rows, those that were not pushed too.
    pub(crate) fn run_all(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let failed = |error: TractError| ModelError::Run {
            reason: format!("{error:#}"),
        };
        let spec = &self.spec;
        let rows = self.batch_rows;
        let ahead = spec.window.saturating_add(spec.horizons.len());
        let tensor = |shape: &[usize], cells: &[f32]| {
            Ok(Tensor::from_shape(shape, cells)
                .map_err(failed)?
                .into_tvalue())
        };
        let mut inputs = tvec![
            tensor(&[rows, spec.window], &batch.usage)?,
            tensor(&[rows, spec.window], &batch.mask)?,
            tensor(
                &[rows, ahead, spec.calendar_features.len()],
                &batch.calendar
            )?,
        ];
        if !spec.past_features.is_empty() {
            inputs.push(tensor(
                &[rows, spec.window, spec.past_features.len()],
                &batch.past,
            )?);
        }
        let outputs = self.state.run(inputs).map_err(failed)?;
        let output = outputs.first().ok_or_else(|| ModelError::Run {
            reason: "there is no output".into(),
        })?;
        let values = output
            .try_as_plain_ram()
            .and_then(|plain| plain.as_slice::<f32>())
            .map_err(failed)?;
        Ok(values.to_vec())
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("spec", &self.spec)
            .field("check", &self.check)
            .finish_non_exhaustive()
    }
}
