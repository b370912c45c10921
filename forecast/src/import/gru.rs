//! The recurrent layer, as tract's fused `GruSeq`.
//!
//! tract-onnx would wire it too, but with its input product inside the operator, on ndarray's kernels, which have no
//! SIMD in wasm; and with the hidden state carried from one call to the next, which is wrong for rows that are other
//! customers each time. Here the input product is a matrix product of the graph, and each call starts from zero.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::array::Slice;
use tract_onnx::tract_core::ops::gru_seq::GruSeq;
use tract_onnx::tract_core::ops::math;

use super::attributes;
use super::product::product;
use super::wiring::{Refusal, Wiring};

/// Three gates, each with a sigmoid or tanh, per hidden unit and step.
const GATE_FLOPS: usize = 48;

/// Forward, `linear_before_reset`, constant weights: what GRU layers of PyTorch and of our trainer export.
pub(super) fn gru(wiring: &mut Wiring<'_>) -> Result<Vec<OutletId>, Refusal> {
    check_attributes(wiring)?;
    let (x, w, r) = (wiring.input(0)?, wiring.input(1)?, wiring.input(2)?);
    if (4..wiring.node.input.len()).any(|i| wiring.optional(i).is_some()) {
        return Err(Refusal::new(
            "sequence_lens and initial_h are not supported: leave them out",
        ));
    }
    let (x_shape, w_shape, r_shape) = (wiring.shape(x)?, wiring.shape(w)?, wiring.shape(r)?);
    let ([steps, rows, width], [1, gates, w_width], [1, r_gates, hidden]) =
        (x_shape.as_slice(), w_shape.as_slice(), r_shape.as_slice())
    else {
        return Err(Refusal::new(format!(
            "X must be [steps, N, features], W and R [1, ..]: found {x_shape:?}, {w_shape:?}, {r_shape:?}"
        )));
    };
    if gates != r_gates || Some(*gates) != hidden.checked_mul(3) || w_width != width {
        return Err(Refusal::new(format!(
            "X {x_shape:?}, W {w_shape:?} and R {r_shape:?} do not fit together"
        )));
    }
    if *steps > wiring.limits.loop_steps {
        return Err(Refusal::new(format!(
            "{steps} steps are more than the limit of {}",
            wiring.limits.loop_steps
        )));
    }
    wiring.check_float(x)?;
    let weights = [w, r]
        .into_iter()
        .map(|outlet| wiring.constant(outlet))
        .collect::<Result<Vec<_>, _>>()?;
    if weights
        .iter()
        .any(|tensor| tensor.datum_type() != f32::datum_type())
    {
        return Err(Refusal::new("W and R must be floats"));
    }
    let cells = steps.saturating_mul(*rows);
    wiring.count(cells.saturating_mul(*gates), hidden.saturating_mul(2));
    wiring.count(cells.saturating_mul(*hidden), GATE_FLOPS);

    let (rows, gates, hidden) = (*rows, *gates, *hidden);
    let by_row = wiring.wire(AxisOp::Move(1, 0), &[x])?;
    let w = wiring.wire(AxisOp::Rm(0), &[w])?;
    let r = wiring.wire(AxisOp::Rm(0), &[r])?;
    let mut projected = product(wiring, "bsf,gf->bsg", by_row, w, gates)?;
    let bias = bias(wiring, gates)?;
    if let Some(bias) = bias {
        let of_input = wiring.wire(Slice::new(1, 0, gates), &[bias])?;
        projected = wiring.wire_broadcast(math::add(), &[projected, of_input])?;
    }
    let zero = wiring.add_constant(Tensor::zero::<f32>(&[rows, 1, hidden])?)?;
    let op = GruSeq {
        hidden,
        has_bias: bias.is_some(),
        chunk: 1,
        emit_y: wiring
            .node
            .output
            .first()
            .is_some_and(|name| !name.is_empty()),
        reset_every_turn: true,
        projected: true,
        packed_r: None,
    };
    let inputs: Vec<OutletId> = [projected, r]
        .into_iter()
        .chain(bias)
        .chain([zero])
        .collect();
    let outputs = wiring.wire_all(op, &inputs)?;
    let ([y, y_h], false) = (outputs.as_slice(), outputs.is_empty()) else {
        return Err(Refusal::new("tract's GRU no longer has two outputs"));
    };
    // Back from [N, steps, hidden] and [N, 1, hidden] to ONNX's [steps, 1, N, hidden] and [1, N, hidden].
    let y = wiring.wire(AxisOp::Move(1, 0), &[*y])?;
    let y = wiring.wire(AxisOp::Add(1), &[y])?;
    let y_h = wiring.wire(AxisOp::Move(1, 0), &[*y_h])?;
    Ok(vec![y, y_h])
}

fn check_attributes(wiring: &Wiring<'_>) -> Result<(), Refusal> {
    let node = wiring.node;
    if attributes::int(node, "linear_before_reset", 0)? != 1 {
        return Err(Refusal::new(
            "linear_before_reset must be 1: other GRUs do not run fused",
        ));
    }
    if attributes::int(node, "layout", 0)? != 0 {
        return Err(Refusal::new(
            "layout must be 0: transpose X to [steps, N, features]",
        ));
    }
    let direction = attributes::text(node, "direction", "forward")?;
    if direction != "forward" {
        return Err(Refusal::new(format!(
            "direction must be forward, not {direction}"
        )));
    }
    for name in ["activations", "activation_alpha", "activation_beta", "clip"] {
        if node
            .attribute
            .iter()
            .any(|attribute| attribute.name == name)
        {
            return Err(Refusal::new(format!(
                "its attribute `{name}` is not supported: leave it out"
            )));
        }
    }
    Ok(())
}

/// `B`, `[1, 6 * hidden]`: the biases of the input product, then of the recurrent one.
fn bias(wiring: &Wiring<'_>, gates: usize) -> Result<Option<OutletId>, Refusal> {
    let Some(bias) = wiring.optional(3) else {
        return Ok(None);
    };
    let shape = wiring.shape(bias)?;
    if shape.as_slice() != [1, gates.saturating_mul(2)] {
        return Err(Refusal::new(format!(
            "B has shape {shape:?}, it must be [1, {}]",
            gates.saturating_mul(2)
        )));
    }
    wiring.check_float(bias)?;
    wiring.constant(bias)?;
    Ok(Some(bias))
}
