//! A trained network as an ONNX file with its metadata and golden vectors.

use std::path::Path;

use burn_core::tensor::Device;
use forebay_forecast::{Batch, Golden, Limits, Model, ModelSpec, SeriesWindow, pb};
use forebay_traces::generator::SeededRandom;
use prost::Message;

use crate::error::TrainError;
use crate::gradient_tape::{GradientTape, tensor};
use crate::network::{Inputs, Shape, forward};
use crate::onnx_tape;
use crate::regular_file::read;
use crate::tape::Matrix;
use crate::weights::Weights;

/// Rows of the golden vectors: enough for a gap, a young series and three orders of magnitude.
const GOLDEN_ROWS: usize = 4;

/// Most bytes that are read of a model. What gateways take is less, and says so itself.
pub(crate) const MODEL_BYTES_MAX: u64 = 1 << 28;

/// The bytes of the ONNX file.
pub(crate) fn to_onnx(shape: &Shape, weights: &Weights, spec: &ModelSpec) -> Vec<u8> {
    let mut model = onnx_tape::model(shape, weights);
    let golden = golden(shape, weights, spec);
    model.metadata_props = spec
        .to_metadata()
        .into_iter()
        .chain(golden.to_metadata())
        .map(|(key, value)| pb::StringStringEntryProto { key, value })
        .collect();
    model.encode_to_vec()
}

/// Sizes, weights and spec of a file that this program wrote.
pub(crate) fn from_onnx(path: &Path) -> Result<(Shape, Weights, ModelSpec), TrainError> {
    let bytes = read(path, MODEL_BYTES_MAX)?;
    let model = Model::load(&bytes, &Limits::default(), 1).map_err(|source| TrainError::Model {
        path: path.to_owned(),
        source,
    })?;
    let spec = model.spec().clone();
    let foreign = |what: &str| TrainError::Data {
        path: path.to_owned(),
        reason: format!("{what}; only models written by forebay-train can be taken apart again"),
    };
    let proto = pb::ModelProto::decode(bytes.as_slice()).map_err(|_| foreign("not ONNX"))?;
    let graph = proto
        .graph
        .ok_or_else(|| foreign("the file has no graph"))?;
    let mut matrices: Weights = graph.initializer.iter().filter_map(matrix).collect();
    if let Some(bias) = matrices.remove("gru.bias") {
        let (input, state) = bias.values.split_at(bias.columns / 2);
        let row = |values: &[f32]| Matrix {
            rows: 1,
            columns: values.len(),
            values: values.to_vec(),
        };
        matrices.insert("gru.input_bias".into(), row(input));
        matrices.insert("gru.state_bias".into(), row(state));
    }
    let size = |name: &str| -> Result<(usize, usize), TrainError> {
        let matrix = matrices
            .get(name)
            .ok_or_else(|| foreign(&format!("no matrix `{name}`")))?;
        Ok((matrix.rows, matrix.columns))
    };
    let shape = Shape {
        window: spec.window,
        horizons: spec.horizons.len(),
        quantiles: spec.quantiles.clone(),
        calendar: spec.calendar_features.len(),
        patch: size("gru.input")?.0.saturating_sub(1) / 2,
        hidden: size("gru.state")?.0,
        dense: size("dense.bias")?.1,
    };
    let mut weights = Weights::new();
    for parameter in shape.parameters() {
        if size(parameter.name)? != (parameter.rows, parameter.columns) {
            return Err(foreign(&format!("`{}` has another size", parameter.name)));
        }
        if let Some(matrix) = matrices.get(parameter.name) {
            weights.insert(parameter.name.to_owned(), matrix.clone());
        }
    }
    Ok((shape, weights, spec))
}

/// An initializer of the writer as a matrix; those of the recurrent layer are stored with their rows as columns.
fn matrix(tensor: &pb::TensorProto) -> Option<(String, Matrix)> {
    let (rows, columns, transposed) = match tensor.dims.as_slice() {
        [rows, columns] => (*rows as usize, *columns as usize, false),
        [1, rows, columns] => (*rows as usize, *columns as usize, true),
        _ => return None,
    };
    let values: Vec<f32> = tensor
        .raw_data
        .chunks_exact(size_of::<f32>())
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    let matrix = Matrix {
        rows,
        columns,
        values,
    };
    let whole = matrix.values.len() == rows * columns;
    let matrix = if transposed && whole {
        matrix.transposed()
    } else {
        matrix
    };
    whole.then(|| (tensor.name.clone(), matrix))
}

/// Windows of made-up customers of very different sizes, with gaps and young series among them.
pub(crate) fn made_up_batch(spec: &ModelSpec, rows: usize, seed: u64) -> Batch {
    let mut random = SeededRandom::new(seed);
    let mut batch = Batch::new(spec, rows);
    for row in 0..rows {
        let mut window = SeriesWindow::new(spec.history_steps());
        let level = 10_f64.powi((row % 4) as i32 - 1);
        let known = if row % 5 == 3 {
            spec.window / 2
        } else {
            spec.history_steps()
        };
        for step in 0..known {
            let wave = 1.0 + 0.5 * (step as f64 / 20.0).sin();
            let usage = (level * wave * (0.3 * random.normal()).exp()) as f32;
            let gap = row % 3 == 2 && random.uniform() < 0.1;
            window.record(2_900_000 + step as i64, (!gap).then_some(usage));
        }
        // The batch was made for this many rows.
        let _ = batch.push(spec, &window);
    }
    batch
}

/// What burn computes for a batch of the `forecast` crate: `[rows * H * Q]`.
pub(crate) fn trainer_output(
    shape: &Shape,
    weights: &Weights,
    batch: &Batch,
    rows: usize,
) -> Vec<f32> {
    let device = Device::flex();
    let mut tape = GradientTape::new(weights, &device);
    let past = |channel: usize| {
        Matrix::from_fn(rows, shape.window, |row, step| {
            batch.past()[(row * shape.window + step) * 2 + channel]
        })
    };
    let plain = |cells: &[f32]| {
        Matrix::from_fn(rows, shape.window, |row, step| {
            cells[row * shape.window + step]
        })
    };
    let steps = shape.window + shape.horizons;
    let calendar = Matrix::from_fn(rows, shape.calendar, |row, column| {
        batch.calendar()[(row * steps + steps - 1) * shape.calendar + column]
    });
    let inputs = Inputs {
        usage: tensor(plain(batch.usage()), &device),
        mask: tensor(plain(batch.mask()), &device),
        season: tensor(past(0), &device),
        season_mask: tensor(past(1), &device),
        calendar: tensor(calendar, &device),
    };
    forward(&mut tape, shape, &inputs)
        .into_data()
        .try_to_vec()
        .unwrap_or_default()
}

fn golden(shape: &Shape, weights: &Weights, spec: &ModelSpec) -> Golden {
    let batch = made_up_batch(spec, GOLDEN_ROWS, 1);
    Golden {
        rows: GOLDEN_ROWS,
        usage: batch.usage().to_vec(),
        mask: batch.mask().to_vec(),
        calendar: batch.calendar().to_vec(),
        past: batch.past().to_vec(),
        quantiles: trainer_output(shape, weights, &batch, GOLDEN_ROWS),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fit::spec;
    use crate::recipe::Recipe;
    use crate::weights;

    fn random_model() -> (Shape, Weights, ModelSpec) {
        let recipe = Recipe::generated();
        let shape = recipe.shape();
        let mut random = SeededRandom::new(5);
        let mut weights = weights::start(&shape, &mut random);
        for value in weights.values_mut().flat_map(|matrix| &mut matrix.values) {
            *value += 0.2 * random.normal() as f32;
        }
        (shape, weights, spec(&recipe, 600))
    }

    fn rows(model: &mut Model, batch: &Batch, count: usize) -> Vec<f32> {
        let quantiles = model.run(batch).unwrap();
        (0..count)
            .flat_map(|row| quantiles.row(row).to_vec())
            .collect()
    }

    #[test]
    fn tract_computes_what_the_trainer_computes_and_the_golden_vectors_prove_it() {
        let (shape, weights, spec) = random_model();
        let bytes = to_onnx(&shape, &weights, &spec);
        // Loading already compares the golden output.
        let mut model = Model::load(&bytes, &Limits::default(), 16).unwrap();
        let batch = made_up_batch(&spec, 16, 9);
        let tract = rows(&mut model, &batch, 16);
        for (ours, theirs) in trainer_output(&shape, &weights, &batch, 16)
            .iter()
            .zip(&tract)
        {
            assert!(
                (ours - theirs).abs() <= 1e-4 * theirs.max(1.0),
                "{ours} {theirs}"
            );
        }
        for horizon in tract.chunks(shape.quantiles.len()) {
            assert!(horizon.is_sorted() && horizon[0] >= 0.0, "{horizon:?}");
        }
    }

    #[test]
    fn a_thousand_times_the_usage_gives_a_thousand_times_the_forecast() {
        let (shape, weights, spec) = random_model();
        let mut windows = [
            SeriesWindow::new(spec.history_steps()),
            SeriesWindow::new(spec.history_steps()),
        ];
        for step in 0..spec.history_steps() as i64 {
            let usage = 5.0 + (step % 7) as f32;
            windows[0].record(step, Some(usage));
            windows[1].record(step, Some(1000.0 * usage));
        }
        let mut batch = Batch::new(&spec, 2);
        for window in &windows {
            batch.push(&spec, window).unwrap();
        }
        let out = trainer_output(&shape, &weights, &batch, 2);
        let (small, large) = out.split_at(shape.outputs());
        for (small, large) in small.iter().zip(large) {
            assert!(
                (1000.0 * small - large).abs() <= 1e-3 * large.max(1.0),
                "{small} {large}"
            );
        }
    }

    #[test]
    fn a_row_of_padding_gives_finite_numbers() {
        let (shape, weights, spec) = random_model();
        let batch = Batch::new(&spec, 1);
        assert!(
            trainer_output(&shape, &weights, &batch, 1)
                .iter()
                .all(|v| v.is_finite())
        );
    }

    #[test]
    fn a_model_is_taken_apart_into_what_it_was_made_of() {
        let (shape, weights, spec) = random_model();
        let bytes = to_onnx(&shape, &weights, &spec);
        let path = std::env::temp_dir().join(format!("forebay-train-{}.onnx", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let read = from_onnx(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), (shape, weights, spec));
    }
}
