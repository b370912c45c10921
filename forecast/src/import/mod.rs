//! From an ONNX file to a tract graph, operator by operator, with our own register.
//!
//! `tract_onnx::onnx()` would do it in one call, and costs three ways: it links some 150 operators and the shape
//! inference of tract-hir into the plugin (15 MB instead of a tenth of it, and Envoy compiles all of it before it is
//! ready); it panics on some malformed files, which would trap the VM; and its errors do not name the node. The model
//! families that a gateway can afford need two dozen operators, and as the batch is pinned before anything is wired,
//! every shape is a number at every node: the checks below are complete, not symbolic.
//!
//! What is refused here needs the cargo feature `full-operators`, which hands unknown operators to `tract_onnx`.

mod attributes;
mod gru;
mod layout;
mod math;
mod product;
mod reduce;
mod tensors;
mod wiring;

#[cfg(feature = "full-operators")]
mod full;

use std::collections::HashMap;

use tract_onnx::pb;
use tract_onnx::prelude::*;

use crate::error::ModelError;
use crate::limits::Limits;
use crate::spec::ModelSpec;
use wiring::{Refusal, Wiring};

pub(crate) use tensors::check_initializers;

/// Wires one node and returns its outputs.
type Wire = fn(&mut Wiring<'_>) -> Result<Vec<OutletId>, Refusal>;

/// The operators that a model may use. `docs/reference/onnx.md` lists them, and a test holds it to this table.
const OPERATORS: &[(&str, Wire)] = &[
    ("Abs", math::abs),
    ("Add", math::add),
    ("Clip", math::clip),
    ("Concat", layout::concat),
    ("Constant", tensors::constant),
    ("Div", math::div),
    ("Exp", math::exp),
    ("GRU", gru::gru),
    ("Gemm", product::gemm),
    ("Identity", layout::identity),
    ("Log", math::log),
    ("MatMul", product::matmul),
    ("Max", math::max),
    ("Min", math::min),
    ("Mul", math::mul),
    ("Neg", math::neg),
    ("ReduceMax", reduce::max),
    ("ReduceMean", reduce::mean),
    ("ReduceMin", reduce::min),
    ("ReduceSum", reduce::sum),
    ("Relu", math::relu),
    ("Reshape", layout::reshape),
    ("Sigmoid", math::sigmoid),
    ("Slice", layout::slice),
    ("Softplus", math::softplus),
    ("Sqrt", math::sqrt),
    ("Squeeze", layout::squeeze),
    ("Sub", math::sub),
    ("Tanh", math::tanh),
    ("Transpose", layout::transpose),
    ("Unsqueeze", layout::unsqueeze),
];

fn operator(op_type: &str) -> Option<Wire> {
    OPERATORS
        .iter()
        .find(|(name, _)| *name == op_type)
        .map(|(_, wire)| *wire)
}

/// An input of the contract: its name and its shape for a batch.
struct Input {
    name: &'static str,
    shape: Vec<usize>,
}

/// A graph ready to be optimised, and what it costs.
pub(crate) struct Imported {
    pub(crate) graph: TypedModel,
    pub(crate) nodes: usize,
    pub(crate) flops_per_row: u64,
}

/// The inputs that a model with this spec must have, in the order in which they are fed.
fn inputs(spec: &ModelSpec, rows: usize) -> Vec<Input> {
    let ahead = spec.window.saturating_add(spec.horizons.len());
    let mut inputs = vec![
        Input {
            name: "usage",
            shape: vec![rows, spec.window],
        },
        Input {
            name: "mask",
            shape: vec![rows, spec.window],
        },
        Input {
            name: "calendar",
            shape: vec![rows, ahead, spec.calendar_features.len()],
        },
    ];
    if !spec.past_features.is_empty() {
        inputs.push(Input {
            name: "past",
            shape: vec![rows, spec.window, spec.past_features.len()],
        });
    }
    inputs
}

/// The name of the contract's output.
const OUTPUT: &str = "quantiles";

/// Builds the graph for batches of `rows` customers.
pub(crate) fn import(
    proto: &pb::ModelProto,
    spec: &ModelSpec,
    limits: &Limits,
    rows: usize,
) -> Result<Imported, ModelError> {
    let graph = proto.graph.as_ref().ok_or(ModelError::NoGraph)?;
    check_opset(proto)?;
    if graph.node.len() > limits.nodes {
        return Err(ModelError::TooManyNodes {
            nodes: graph.node.len(),
            limit: limits.nodes,
        });
    }
    let expected = inputs(spec, rows);
    check_inputs(graph, &expected)?;
    check_output(graph, spec)?;
    let unknown = graph
        .node
        .iter()
        .find(|node| operator(&node.op_type).is_none());
    let imported = match unknown {
        Some(unknown) => import_foreign(proto, &expected, unknown)?,
        None => wire(graph, &expected, limits, rows)?,
    };
    check_output_shape(
        &imported.graph,
        &[rows, spec.horizons.len(), spec.quantiles.len()],
    )?;
    Ok(imported)
}

/// A graph with an operator outside the register: handed to `tract_onnx`.
#[cfg(feature = "full-operators")]
fn import_foreign(
    proto: &pb::ModelProto,
    inputs: &[Input],
    unknown: &pb::NodeProto,
) -> Result<Imported, ModelError> {
    full::import(proto, inputs).map_err(|error| ModelError::Operator {
        op: unknown.op_type.clone(),
        node: unknown.name.clone(),
        reason: format!("{error:#}"),
    })
}

/// A graph with an operator outside the register: refused.
#[cfg(not(feature = "full-operators"))]
fn import_foreign(
    _: &pb::ModelProto,
    _: &[Input],
    unknown: &pb::NodeProto,
) -> Result<Imported, ModelError> {
    Err(ModelError::UnknownOperator {
        op: unknown.op_type.clone(),
        node: unknown.name.clone(),
    })
}

fn wire(
    graph: &pb::GraphProto,
    inputs: &[Input],
    limits: &Limits,
    rows: usize,
) -> Result<Imported, ModelError> {
    let mut model = TypedModel::default();
    let mut values: HashMap<&str, OutletId> = HashMap::new();
    let broken = |error: TractError| ModelError::Graph {
        reason: format!("{error:#}"),
    };
    for input in inputs {
        let outlet = model
            .add_source(input.name, f32::fact(&input.shape))
            .map_err(broken)?;
        values.insert(input.name, outlet);
    }
    for initializer in &graph.initializer {
        let tensor = tensors::tensor(initializer)?;
        let outlet = model
            .add_const(initializer.name.clone(), tensor)
            .map_err(broken)?;
        if values.insert(&initializer.name, outlet).is_some() {
            return Err(ModelError::DuplicateValue {
                name: initializer.name.clone(),
            });
        }
    }
    let mut flops = 0_u64;
    for (index, node) in graph.node.iter().enumerate() {
        let refused = |refusal: Refusal| refusal.at(node, index);
        let build = operator(&node.op_type).ok_or_else(|| ModelError::UnknownOperator {
            op: node.op_type.clone(),
            node: node.name.clone(),
        })?;
        let mut wiring = Wiring::new(&mut model, node, index, &values, limits).map_err(refused)?;
        let outputs = build(&mut wiring).map_err(refused)?;
        flops = flops.saturating_add(wiring.flops());
        let bound = limits
            .flops_per_row
            .saturating_mul(u64::try_from(rows).unwrap_or(u64::MAX));
        if flops > bound {
            return Err(ModelError::TooMuchWork {
                flops,
                limit: bound,
            });
        }
        for (name, outlet) in node.output.iter().zip(outputs) {
            // An output without a name is not wanted; tract may make nothing for it.
            if name.is_empty() {
                continue;
            }
            wiring::check_size(&model, outlet, limits).map_err(refused)?;
            if values.insert(name, outlet).is_some() {
                return Err(ModelError::DuplicateValue { name: name.clone() });
            }
        }
    }
    let output = values.get(OUTPUT).ok_or_else(|| ModelError::Output {
        reason: format!("no node makes a value named `{OUTPUT}`"),
    })?;
    model.select_output_outlets(&[*output]).map_err(broken)?;
    let rows = u64::try_from(rows.max(1)).unwrap_or(u64::MAX);
    Ok(Imported {
        graph: model,
        nodes: graph.node.len(),
        flops_per_row: flops.checked_div(rows).unwrap_or(flops),
    })
}

/// Operator set 13 moved `axes` of Squeeze and ReduceSum from attributes to inputs; both forms are read, so any set of
/// the default domain in this range will do.
fn check_opset(proto: &pb::ModelProto) -> Result<(), ModelError> {
    let version = proto
        .opset_import
        .iter()
        .find(|import| import.domain.is_empty() || import.domain == "ai.onnx")
        .map_or(0, |import| import.version);
    if (11..=21).contains(&version) {
        Ok(())
    } else {
        Err(ModelError::Opset { found: version })
    }
}

fn check_inputs(graph: &pb::GraphProto, expected: &[Input]) -> Result<(), ModelError> {
    let initialized = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    for declared in &graph.input {
        if !expected.iter().any(|input| input.name == declared.name) && !initialized(&declared.name)
        {
            return Err(ModelError::Input {
                name: declared.name.clone(),
                reason: "is not an input of the contract (usage, mask, calendar, and past with past_features)".into(),
            });
        }
    }
    for input in expected {
        let refused = |reason: String| ModelError::Input {
            name: input.name.into(),
            reason,
        };
        let declared = graph
            .input
            .iter()
            .find(|declared| declared.name == input.name)
            .ok_or_else(|| refused("is missing".into()))?;
        check_declared(declared, &input.shape).map_err(refused)?;
    }
    Ok(())
}

fn check_output(graph: &pb::GraphProto, spec: &ModelSpec) -> Result<(), ModelError> {
    let refused = |reason: String| ModelError::Output { reason };
    let [declared] = graph.output.as_slice() else {
        return Err(refused(format!(
            "the graph must have exactly one output, it has {}",
            graph.output.len()
        )));
    };
    if declared.name != OUTPUT {
        return Err(refused(format!(
            "it must be named `{OUTPUT}`, not `{}`",
            declared.name
        )));
    }
    check_declared(declared, &[0, spec.horizons.len(), spec.quantiles.len()]).map_err(refused)
}

/// Compares a declared type with the contract; the first dimension is the batch and may be anything.
fn check_declared(declared: &pb::ValueInfoProto, shape: &[usize]) -> Result<(), String> {
    let Some(pb::type_proto::Value::TensorType(tensor)) =
        declared.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err("has no tensor type".into());
    };
    if tensor.elem_type != pb::tensor_proto::DataType::Float as i32 {
        return Err(format!(
            "has element type {}, it must be float (1)",
            tensor.elem_type
        ));
    }
    let Some(dims) = tensor.shape.as_ref().map(|shape| &shape.dim) else {
        return Ok(());
    };
    if dims.len() != shape.len() {
        return Err(format!(
            "has {} dimensions, the contract says {}",
            dims.len(),
            shape.len()
        ));
    }
    for (axis, (dim, expected)) in dims.iter().zip(shape).enumerate().skip(1) {
        if let Some(pb::tensor_shape_proto::dimension::Value::DimValue(found)) = dim.value
            && usize::try_from(found) != Ok(*expected)
        {
            return Err(format!(
                "has {found} in dimension {axis}, the metadata says {expected}"
            ));
        }
    }
    Ok(())
}

fn check_output_shape(graph: &TypedModel, expected: &[usize]) -> Result<(), ModelError> {
    let refused = |reason: String| ModelError::Output { reason };
    let fact = graph
        .output_fact(0)
        .map_err(|error| refused(format!("{error:#}")))?;
    let shape = fact
        .shape
        .as_concrete()
        .ok_or_else(|| refused("it has no fixed shape".into()))?;
    if fact.datum_type == f32::datum_type() && shape == expected {
        return Ok(());
    }
    Err(refused(format!(
        "the graph makes {:?} {shape:?}, the metadata says F32 {expected:?}",
        fact.datum_type
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_operator_and_no_other() {
        let text = include_str!("../../../docs/reference/onnx.md");
        let (_, rest) = text.split_once("## Operators").unwrap();
        let rows = rest
            .lines()
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1);
        let documented: Vec<&str> = rows
            .take_while(|line| line.starts_with('|'))
            .flat_map(|line| {
                line.split('|')
                    .nth(1)
                    .unwrap()
                    .split('`')
                    .skip(1)
                    .step_by(2)
            })
            .collect();
        let mut registered: Vec<&str> = OPERATORS.iter().map(|(name, _)| *name).collect();
        registered.sort_unstable();
        let mut sorted = documented.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, registered);
    }
}
