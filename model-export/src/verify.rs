//! `forebay-train verify`: the trainer (burn), tract and onnxruntime must compute the same from one file.
//!
//! onnxruntime is an implementation of ONNX that shares no line with ours: what it agrees with is the format, not our
//! reading of it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use forebay_forecast::{Batch, Limits, Model, ModelSpec};
use serde_json::json;

use crate::error::TrainError;
use crate::export::{MODEL_BYTES_MAX, from_onnx, made_up_batch, trainer_output};
use crate::regular_file::read;

/// Largest difference allowed, in tokens for customers of up to one token per step and relative to the mean usage of
/// larger ones.
pub(crate) const DIFFERENCE_MAX: f32 = 1e-4;
const ROWS: usize = 64;
const SEED: u64 = 20;
const SCRIPT: &str = include_str!("verify.py");

/// Largest differences found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Differences {
    /// Trainer and tract.
    pub(crate) trainer_tract: f32,
    /// tract and onnxruntime.
    pub(crate) tract_onnxruntime: f32,
}

/// Compares the three on made-up customers; fails when they differ by more than [`DIFFERENCE_MAX`].
pub(crate) fn verify(path: &Path, python: &Path) -> Result<Differences, TrainError> {
    let (shape, weights, spec) = from_onnx(path)?;
    let failed = |source| TrainError::Model {
        path: path.to_owned(),
        source,
    };
    let bytes = read(path, MODEL_BYTES_MAX)?;
    let mut model = Model::load(&bytes, &Limits::default(), ROWS).map_err(failed)?;
    let batch = made_up_batch(&spec, ROWS, SEED);
    let trainer = trainer_output(&shape, &weights, &batch, ROWS);
    let quantiles = model.run(&batch).map_err(failed)?;
    let tract: Vec<f32> = (0..ROWS)
        .flat_map(|row| quantiles.row(row).to_vec())
        .collect();
    let onnxruntime = run_onnxruntime(path, python, &spec, &batch)?;
    let scales: Vec<f32> = batch
        .usage()
        .chunks(spec.window)
        .map(|usage| (usage.iter().sum::<f32>() / spec.window as f32).max(1.0))
        .collect();
    let difference = |a: &[f32], b: &[f32]| {
        let per_row = spec.output_row_len();
        let pairs = a.iter().zip(b).enumerate();
        pairs
            .map(|(i, (a, b))| (a - b).abs() / scales[i / per_row])
            .fold(0.0, f32::max)
    };
    let same_size = trainer.len() == tract.len() && tract.len() == onnxruntime.len();
    let found = Differences {
        trainer_tract: difference(&trainer, &tract),
        tract_onnxruntime: difference(&tract, &onnxruntime),
    };
    // Written so that a NaN fails.
    let agree = found.trainer_tract <= DIFFERENCE_MAX && found.tract_onnxruntime <= DIFFERENCE_MAX;
    if !same_size || !agree {
        return Err(TrainError::Disagree {
            path: path.to_owned(),
            reason: format!(
                "trainer and tract differ by {:e}, tract and onnxruntime by {:e}; at most {DIFFERENCE_MAX:e} is allowed",
                found.trainer_tract, found.tract_onnxruntime
            ),
        });
    }
    Ok(found)
}

fn run_onnxruntime(
    path: &Path,
    python: &Path,
    spec: &ModelSpec,
    batch: &Batch,
) -> Result<Vec<f32>, TrainError> {
    let steps = spec.window + spec.horizons.len();
    let input = |shape: Vec<usize>, values: &[f32]| json!({ "shape": shape, "values": values });
    let request = json!({
        "model": path,
        "inputs": {
            "usage": input(vec![ROWS, spec.window], batch.usage()),
            "mask": input(vec![ROWS, spec.window], batch.mask()),
            "calendar": input(vec![ROWS, steps, spec.calendar_features.len()], batch.calendar()),
            "past": input(vec![ROWS, spec.window, spec.past_features.len()], batch.past()),
        },
    });
    let io = |source| TrainError::Io {
        path: python.to_owned(),
        source,
    };
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(request.to_string().as_bytes())
            .map_err(io)?;
    }
    let output = child.wait_with_output().map_err(io)?;
    if !output.status.success() {
        return Err(TrainError::Disagree {
            path: path.to_owned(),
            reason: format!(
                "onnxruntime refuses it: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|source| TrainError::Json {
        path: python.to_owned(),
        source,
    })
}
