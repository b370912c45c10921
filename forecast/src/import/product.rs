//! Matrix products, as tract's `EinSum`, which its optimiser turns into packed SIMD kernels.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::math;

use super::attributes;
use super::wiring::{Refusal, Wiring};

type Outputs = Result<Vec<OutletId>, Refusal>;

/// `a` is a matrix or a batch of them, `b` a matrix of weights or a batch of the same length.
pub(super) fn matmul(wiring: &mut Wiring<'_>) -> Outputs {
    let (a, b) = (wiring.input(0)?, wiring.input(1)?);
    let (left, right) = (wiring.shape(a)?, wiring.shape(b)?);
    let refuse = || Refusal::new(format!("{left:?} and {right:?} cannot be multiplied"));
    let (expression, inner, across, batched) = match (left.as_slice(), right.as_slice()) {
        ([_, k], [l, n]) => ("mk,kn->mn", (*k, *l), *n, true),
        ([_, _, k], [l, n]) => ("bmk,kn->bmn", (*k, *l), *n, true),
        ([x, _, k], [y, l, n]) => ("bmk,bkn->bmn", (*k, *l), *n, x == y),
        _ => return Err(refuse()),
    };
    if inner.0 != inner.1 || !batched {
        return Err(refuse());
    }
    Ok(vec![product(wiring, expression, a, b, across)?])
}

pub(super) fn gemm(wiring: &mut Wiring<'_>) -> Outputs {
    let (a, b) = (wiring.input(0)?, wiring.input(1)?);
    let (left, right) = (wiring.shape(a)?, wiring.shape(b)?);
    let refuse = || Refusal::new(format!("{left:?} and {right:?} cannot be multiplied"));
    let ([a0, a1], [b0, b1]) = (left.as_slice(), right.as_slice()) else {
        return Err(refuse());
    };
    let across_left = attributes::int(wiring.node, "transA", 0)? != 0;
    let across_right = attributes::int(wiring.node, "transB", 0)? != 0;
    let (expression, inner, across) = match (across_left, across_right) {
        (false, false) => ("mk,kn->mn", (a1, b0), b1),
        (false, true) => ("mk,nk->mn", (a1, b1), b0),
        (true, false) => ("km,kn->mn", (a0, b0), b1),
        (true, true) => ("km,nk->mn", (a0, b1), b0),
    };
    if inner.0 != inner.1 {
        return Err(refuse());
    }
    let mut y = product(wiring, expression, a, b, *across)?;
    y = scaled(wiring, y, attributes::float(wiring.node, "alpha", 1.0)?)?;
    if let Some(c) = wiring.optional(2) {
        wiring.check_float(c)?;
        let c = scaled(wiring, c, attributes::float(wiring.node, "beta", 1.0)?)?;
        y = wiring.wire_broadcast(math::add(), &[y, c])?;
    }
    Ok(vec![y])
}

/// An einsum of two operands; `across` is the width of the result, for the cost.
pub(super) fn product(
    wiring: &mut Wiring<'_>,
    expression: &str,
    a: OutletId,
    b: OutletId,
    across: usize,
) -> Result<OutletId, Refusal> {
    wiring.check_float(a)?;
    wiring.check_float(b)?;
    wiring.count(wiring.elements(a)?, across.saturating_mul(2));
    wiring.wire(EinSum::new(expression.parse()?, f32::datum_type()), &[a, b])
}

fn scaled(wiring: &mut Wiring<'_>, x: OutletId, factor: f32) -> Result<OutletId, Refusal> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = wiring.add_constant(tensor0(factor))?;
    wiring.wire_broadcast(math::mul(), &[x, factor])
}
