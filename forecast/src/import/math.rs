//! Arithmetic, element by element.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TypedOp;
use tract_onnx::tract_core::ops::{math, nn};

use super::wiring::{Refusal, Wiring};

type Outputs = Result<Vec<OutletId>, Refusal>;

/// A transcendental function costs about this many simple operations.
const TRANSCENDENTAL_FLOPS: usize = 12;

pub(super) fn add(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::add().into())
}

pub(super) fn sub(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::sub().into())
}

pub(super) fn mul(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::mul().into())
}

pub(super) fn div(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::div().into())
}

pub(super) fn max(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::max().into())
}

pub(super) fn min(wiring: &mut Wiring<'_>) -> Outputs {
    fold(wiring, || math::min().into())
}

pub(super) fn abs(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::abs(), 1)
}

pub(super) fn neg(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::neg(), 1)
}

pub(super) fn sqrt(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::sqrt(), 1)
}

pub(super) fn exp(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::exp(), TRANSCENDENTAL_FLOPS)
}

pub(super) fn log(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::ln(), TRANSCENDENTAL_FLOPS)
}

pub(super) fn tanh(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, math::tanh(), TRANSCENDENTAL_FLOPS)
}

pub(super) fn sigmoid(wiring: &mut Wiring<'_>) -> Outputs {
    each(wiring, nn::sigmoid(), TRANSCENDENTAL_FLOPS)
}

pub(super) fn relu(wiring: &mut Wiring<'_>) -> Outputs {
    let x = float_input(wiring, 0)?;
    Ok(vec![at_least(wiring, x, 0.0)?])
}

/// ln(1 + e^x), written so that a large x does not overflow: max(x, 0) + ln(1 + e^-|x|).
pub(super) fn softplus(wiring: &mut Wiring<'_>) -> Outputs {
    let x = float_input(wiring, 0)?;
    wiring.count(wiring.elements(x)?, TRANSCENDENTAL_FLOPS.saturating_mul(2));
    let positive = at_least(wiring, x, 0.0)?;
    let size = wiring.wire(math::abs(), &[x])?;
    let negative = wiring.wire(math::neg(), &[size])?;
    let decay = wiring.wire(math::exp(), &[negative])?;
    let one = wiring.add_constant(tensor0(1.0_f32))?;
    let sum = wiring.wire_broadcast(math::add(), &[decay, one])?;
    let rest = wiring.wire(math::ln(), &[sum])?;
    Ok(vec![wiring.wire(math::add(), &[positive, rest])?])
}

pub(super) fn clip(wiring: &mut Wiring<'_>) -> Outputs {
    let mut x = float_input(wiring, 0)?;
    for (i, op) in [(1, math::max()), (2, math::min())] {
        if let Some(bound) = wiring.optional(i) {
            wiring.check_float(bound)?;
            wiring.count(wiring.elements(x)?, 1);
            x = wiring.wire_broadcast(op, &[x, bound])?;
        }
    }
    Ok(vec![x])
}

/// `max(x, bound)`.
fn at_least(wiring: &mut Wiring<'_>, x: OutletId, bound: f32) -> Result<OutletId, Refusal> {
    wiring.count(wiring.elements(x)?, 1);
    let bound = wiring.add_constant(tensor0(bound))?;
    wiring.wire_broadcast(math::max(), &[x, bound])
}

fn float_input(wiring: &Wiring<'_>, i: usize) -> Result<OutletId, Refusal> {
    let x = wiring.input(i)?;
    wiring.check_float(x)?;
    Ok(x)
}

fn each(wiring: &mut Wiring<'_>, op: impl Into<Box<dyn TypedOp>>, flops: usize) -> Outputs {
    let x = float_input(wiring, 0)?;
    wiring.count(wiring.elements(x)?, flops);
    Ok(vec![wiring.wire(op, &[x])?])
}

/// Two or more inputs, combined from the left.
fn fold(wiring: &mut Wiring<'_>, op: impl Fn() -> Box<dyn TypedOp>) -> Outputs {
    let mut result = float_input(wiring, 0)?;
    for other in wiring.all_inputs()?.into_iter().skip(1) {
        wiring.check_float(other)?;
        check_broadcast(&wiring.shape(result)?, &wiring.shape(other)?)?;
        result = wiring.wire_broadcast(op(), &[result, other])?;
        wiring.count(wiring.elements(result)?, 1);
    }
    Ok(vec![result])
}

fn check_broadcast(a: &[usize], b: &[usize]) -> Result<(), Refusal> {
    let fits = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .all(|(a, b)| a == b || *a == 1 || *b == 1);
    if fits {
        Ok(())
    } else {
        Err(Refusal::new(format!(
            "its inputs {a:?} and {b:?} cannot be broadcast"
        )))
    }
}
