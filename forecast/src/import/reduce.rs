//! Sums, means and extremes over axes.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::AxisOp;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use super::wiring::{Refusal, Wiring};
use super::{attributes, layout};

type Outputs = Result<Vec<OutletId>, Refusal>;

pub(super) fn sum(wiring: &mut Wiring<'_>) -> Outputs {
    reduce(wiring, Reducer::Sum, false)
}

pub(super) fn max(wiring: &mut Wiring<'_>) -> Outputs {
    reduce(wiring, Reducer::Max, false)
}

pub(super) fn min(wiring: &mut Wiring<'_>) -> Outputs {
    reduce(wiring, Reducer::Min, false)
}

pub(super) fn mean(wiring: &mut Wiring<'_>) -> Outputs {
    reduce(wiring, Reducer::Sum, true)
}

fn reduce(wiring: &mut Wiring<'_>, reducer: Reducer, mean: bool) -> Outputs {
    let mut x = wiring.input(0)?;
    wiring.check_float(x)?;
    wiring.count(wiring.elements(x)?, 1);
    let shape = wiring.shape(x)?;
    let mut axes = layout::axes(wiring, shape.len())?.unwrap_or_else(|| (0..shape.len()).collect());
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() {
        return Err(Refusal::new("an empty list of axes is not supported"));
    }
    let keep = attributes::int(wiring.node, "keepdims", 1)? != 0;
    let count = axes.iter().fold(1_usize, |n, axis| {
        n.saturating_mul(shape.get(*axis).copied().unwrap_or(1))
    });
    x = wiring.wire(
        Reduce {
            axes: axes.iter().copied().collect(),
            reducer,
        },
        &[x],
    )?;
    if mean {
        let share = wiring.add_constant(tensor0(1.0 / count as f32))?;
        x = wiring.wire_broadcast(math::mul(), &[x, share])?;
    }
    if !keep {
        for axis in axes.into_iter().rev() {
            x = wiring.wire(AxisOp::Rm(axis), &[x])?;
        }
    }
    Ok(vec![x])
}
