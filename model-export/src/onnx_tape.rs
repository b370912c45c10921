//! The network written as ONNX: each operation of the tape is one node of the standard operator set.
//!
//! The protobuf types are those that tract reads with, so writer and reader agree by construction and no second ONNX
//! crate is needed.

use std::collections::BTreeSet;
use std::ops::Range;

use forebay_forecast::pb;
use pb::attribute_proto::AttributeType;
use pb::tensor_proto::DataType;
use pb::tensor_shape_proto::{Dimension, dimension};

use crate::network::{Inputs, Shape, forward};
use crate::tape::{Matrix, Tape};
use crate::weights::Weights;

/// Softplus, Clip with inputs and Squeeze-free shapes all exist here; newer sets add nothing that is needed.
const OPERATOR_SET: i64 = 13;
const IR_VERSION: i64 = 8;

/// Emits nodes; a value is the name of a node's output.
struct OnnxTape<'a> {
    weights: &'a Weights,
    nodes: Vec<pb::NodeProto>,
    initializers: Vec<pb::TensorProto>,
    known: BTreeSet<String>,
}

/// The whole model but its metadata. `past` is `[N, W, 2]`: the season's usage and mask.
pub(crate) fn model(shape: &Shape, weights: &Weights) -> pb::ModelProto {
    let mut tape = OnnxTape {
        weights,
        nodes: Vec::new(),
        initializers: Vec::new(),
        known: BTreeSet::new(),
    };
    let steps = shape.window + shape.horizons;
    let inputs = Inputs {
        usage: "usage".to_owned(),
        mask: "mask".to_owned(),
        season: tape.part("past", 2, 0, shape.window),
        season_mask: tape.part("past", 2, 1, shape.window),
        calendar: tape.part("calendar", 1, steps - 1, shape.calendar),
    };
    let flat = forward(&mut tape, shape, &inputs);
    let sizes = [-1, shape.horizons as i64, shape.quantiles.len() as i64];
    let sizes = tape.integers(&sizes);
    tape.emit_as("quantiles", "Reshape", vec![flat, sizes], vec![]);

    let (window, horizons, quantiles) = (shape.window, shape.horizons, shape.quantiles.len());
    let graph = pb::GraphProto {
        name: "forebay".into(),
        input: vec![
            value_info("usage", &[window]),
            value_info("mask", &[window]),
            value_info("calendar", &[steps, shape.calendar]),
            value_info("past", &[window, 2]),
        ],
        output: vec![value_info("quantiles", &[horizons, quantiles])],
        node: tape.nodes,
        initializer: tape.initializers,
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![pb::OperatorSetIdProto {
            domain: String::new(),
            version: OPERATOR_SET,
        }],
        producer_name: "forebay-train".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        ..Default::default()
    }
}

/// A float tensor whose first dimension is the batch.
fn value_info(name: &str, sizes: &[usize]) -> pb::ValueInfoProto {
    let fixed = sizes
        .iter()
        .map(|size| dimension::Value::DimValue(*size as i64));
    let dim = std::iter::once(dimension::Value::DimParam("N".into()))
        .chain(fixed)
        .map(|value| Dimension {
            value: Some(value),
            ..Default::default()
        })
        .collect();
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            value: Some(pb::type_proto::Value::TensorType(pb::type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(pb::TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn integer_attribute(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..Default::default()
    }
}

// === impl OnnxTape ===

impl OnnxTape<'_> {
    fn emit(&mut self, operator: &str, inputs: Vec<String>) -> String {
        self.emit_with(operator, inputs, vec![])
    }

    fn emit_with(
        &mut self,
        operator: &str,
        inputs: Vec<String>,
        attributes: Vec<pb::AttributeProto>,
    ) -> String {
        let output = format!("v{}", self.nodes.len());
        self.emit_as(&output, operator, inputs, attributes);
        output
    }

    fn emit_as(
        &mut self,
        output: &str,
        operator: &str,
        inputs: Vec<String>,
        attributes: Vec<pb::AttributeProto>,
    ) {
        self.nodes.push(pb::NodeProto {
            name: format!("{operator}.{output}"),
            op_type: operator.to_owned(),
            input: inputs,
            output: vec![output.to_owned()],
            attribute: attributes,
            ..Default::default()
        });
    }

    fn initializer(&mut self, name: &str, dims: Vec<i64>, kind: DataType, raw_data: Vec<u8>) {
        if self.known.insert(name.to_owned()) {
            self.initializers.push(pb::TensorProto {
                name: name.to_owned(),
                dims,
                data_type: kind as i32,
                raw_data,
                ..Default::default()
            });
        }
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix) -> String {
        let raw = matrix.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = vec![matrix.rows as i64, matrix.columns as i64];
        self.initializer(name, dims, DataType::Float, raw);
        name.to_owned()
    }

    fn gru_matrix(&mut self, name: &str, matrix: &Matrix) {
        let transposed = matrix.transposed();
        let raw = transposed
            .values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let dims = vec![1, transposed.rows as i64, transposed.columns as i64];
        self.initializer(name, dims, DataType::Float, raw);
    }

    fn number(&mut self, value: f32) -> String {
        let name = format!("number.{value:e}");
        let raw = value.to_le_bytes().to_vec();
        self.initializer(&name, vec![], DataType::Float, raw);
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let words: Vec<String> = values.iter().map(i64::to_string).collect();
        let name = format!("integers.{}", words.join("_"));
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(&name, vec![values.len() as i64], DataType::Int64, raw);
        name
    }

    fn slice(&mut self, input: &str, axis: i64, range: Range<usize>) -> String {
        let start = self.integers(&[range.start as i64]);
        let end = self.integers(&[range.end as i64]);
        let axis = self.integers(&[axis]);
        self.emit("Slice", vec![input.to_owned(), start, end, axis])
    }

    /// Index `index` along `axis` of a three-dimensional input, as rows of `columns`.
    fn part(&mut self, input: &str, axis: i64, index: usize, columns: usize) -> String {
        let part = self.slice(input, axis, index..index + 1);
        self.reshape(&part, columns)
    }
}

impl Tape for OnnxTape<'_> {
    type Value = String;

    fn weight(&mut self, name: &str) -> String {
        let weights = self.weights;
        self.matrix(name, &weights[name])
    }

    fn constant(&mut self, name: &str, matrix: Matrix) -> String {
        self.matrix(name, &matrix)
    }

    fn matmul(&mut self, a: &String, b: &String) -> String {
        self.emit("MatMul", vec![a.clone(), b.clone()])
    }

    fn add(&mut self, a: &String, b: &String) -> String {
        self.emit("Add", vec![a.clone(), b.clone()])
    }

    fn sub(&mut self, a: &String, b: &String) -> String {
        self.emit("Sub", vec![a.clone(), b.clone()])
    }

    fn mul(&mut self, a: &String, b: &String) -> String {
        self.emit("Mul", vec![a.clone(), b.clone()])
    }

    fn div(&mut self, a: &String, b: &String) -> String {
        self.emit("Div", vec![a.clone(), b.clone()])
    }

    fn tanh(&mut self, a: &String) -> String {
        self.emit("Tanh", vec![a.clone()])
    }

    fn softplus(&mut self, a: &String) -> String {
        self.emit("Softplus", vec![a.clone()])
    }

    fn exp(&mut self, a: &String) -> String {
        self.emit("Exp", vec![a.clone()])
    }

    fn log(&mut self, a: &String) -> String {
        self.emit("Log", vec![a.clone()])
    }

    fn clamp(&mut self, a: &String, low: f32, high: f32) -> String {
        let low = self.number(low);
        let high = self.number(high);
        self.emit("Clip", vec![a.clone(), low, high])
    }

    fn columns(&mut self, a: &String, range: Range<usize>) -> String {
        self.slice(a, 1, range)
    }

    fn join(&mut self, parts: &[String]) -> String {
        let axis = integer_attribute("axis", 1);
        self.emit_with("Concat", parts.to_vec(), vec![axis])
    }

    fn gru(&mut self, inputs: &String, steps: usize) -> String {
        let weights = self.weights;
        let (input, state) = (&weights["gru.input"], &weights["gru.state"]);
        let hidden = state.rows;
        // ONNX keeps the gates (update, reset, new: our order) as rows, and wants a direction in front.
        self.gru_matrix("gru.input", input);
        self.gru_matrix("gru.state", state);
        let biases = weights["gru.input_bias"]
            .values
            .iter()
            .chain(&weights["gru.state_bias"].values);
        let raw = biases.flat_map(|v| v.to_le_bytes()).collect();
        let dims = vec![1, (input.columns + state.columns) as i64];
        self.initializer("gru.bias", dims, DataType::Float, raw);

        let sizes = self.integers(&[-1, steps as i64, input.rows as i64]);
        let sequence = self.emit("Reshape", vec![inputs.clone(), sizes]);
        let steps_first = pb::AttributeProto {
            name: "perm".into(),
            r#type: AttributeType::Ints as i32,
            ints: vec![1, 0, 2],
            ..Default::default()
        };
        let sequence = self.emit_with("Transpose", vec![sequence], vec![steps_first]);
        let names = [sequence.as_str(), "gru.input", "gru.state", "gru.bias"];
        self.nodes.push(pb::NodeProto {
            name: "gru".into(),
            op_type: "GRU".into(),
            input: names.map(str::to_owned).to_vec(),
            // Only the last state is asked for.
            output: vec![String::new(), "gru.last".into()],
            attribute: vec![
                integer_attribute("hidden_size", hidden as i64),
                integer_attribute("linear_before_reset", 1),
            ],
            ..Default::default()
        });
        let axis = self.integers(&[0]);
        self.emit("Squeeze", vec!["gru.last".into(), axis])
    }

    fn reshape(&mut self, a: &String, columns: usize) -> String {
        let sizes = self.integers(&[-1, columns as i64]);
        self.emit("Reshape", vec![a.clone(), sizes])
    }
}
