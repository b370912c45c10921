//! The way round our register: everything that `tract_onnx` can read.
//!
//! For people who bring a model of another family and pay for it with the size of the plugin and with weaker checks
//! (no bound on the work before tract has folded constants). The checks of the file, the contract and the golden
//! vector stay.

use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::gru_seq::GruSeq;
use tract_onnx::tract_core::ops::scan::Scan;

use super::{Imported, Input};

pub(super) fn import(proto: &pb::ModelProto, inputs: &[Input]) -> TractResult<Imported> {
    let mut model = tract_onnx::onnx().model_for_proto_model(proto)?;
    let outlets = inputs
        .iter()
        .map(|input| {
            model
                .node_by_name(input.name)
                .map(|node| OutletId::new(node.id, 0))
        })
        .collect::<TractResult<Vec<_>>>()?;
    model.set_input_outlets(&outlets)?;
    for (i, input) in inputs.iter().enumerate() {
        model.set_input_fact(i, f32::fact(&input.shape).into())?;
    }
    let mut graph = model.into_typed()?;
    forget_between_runs(&mut graph);
    let nodes = graph.nodes().len();
    Ok(Imported {
        graph,
        nodes,
        flops_per_row: 0,
    })
}

/// tract carries the state of recurrent layers from one run to the next; the rows of the next run are other customers.
fn forget_between_runs(graph: &mut TypedModel) {
    for node in graph.nodes_mut() {
        if let Some(scan) = node.op_as_mut::<Scan>() {
            scan.reset_every_turn = true;
        } else if let Some(gru) = node.op_as_mut::<GruSeq>() {
            gru.reset_every_turn = true;
        }
    }
}
