//! Moving numbers about without changing them. All positions are constants, so all shapes are known.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{AxisOp, ToDim};
use tract_onnx::tract_core::ops::array::{Slice, TypedConcat};
use tract_onnx::tract_core::ops::change_axes::perm_to_ops;

use super::attributes;
use super::wiring::{Refusal, Wiring};

type Outputs = Result<Vec<OutletId>, Refusal>;

pub(super) fn identity(wiring: &mut Wiring<'_>) -> Outputs {
    Ok(vec![wiring.input(0)?])
}

pub(super) fn concat(wiring: &mut Wiring<'_>) -> Outputs {
    let inputs = wiring.all_inputs()?;
    let first = wiring.shape(wiring.input(0)?)?;
    let axis = attributes::axis(attributes::int(wiring.node, "axis", 0)?, first.len())?;
    for input in &inputs {
        let shape = wiring.shape(*input)?;
        let same = shape.len() == first.len()
            && shape
                .iter()
                .zip(&first)
                .enumerate()
                .all(|(i, (a, b))| i == axis || a == b);
        if !same {
            return Err(Refusal::new(format!(
                "{shape:?} cannot be joined to {first:?} along axis {axis}"
            )));
        }
    }
    Ok(vec![wiring.wire(TypedConcat { axis }, &inputs)?])
}

pub(super) fn transpose(wiring: &mut Wiring<'_>) -> Outputs {
    let mut x = wiring.input(0)?;
    let rank = wiring.shape(x)?.len();
    let order = match attributes::ints(wiring.node, "perm")? {
        Some(perm) => perm
            .iter()
            .map(|axis| attributes::axis(*axis, rank))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    if !seen.into_iter().eq(0..rank) {
        return Err(Refusal::new(format!(
            "{order:?} is no order of {rank} axes"
        )));
    }
    for op in perm_to_ops(&order) {
        x = wiring.wire(op, &[x])?;
    }
    Ok(vec![x])
}

pub(super) fn squeeze(wiring: &mut Wiring<'_>) -> Outputs {
    let mut x = wiring.input(0)?;
    let shape = wiring.shape(x)?;
    let mut axes = match axes(wiring, shape.len())? {
        Some(axes) => axes,
        None => shape
            .iter()
            .enumerate()
            .filter(|(_, dim)| **dim == 1)
            .map(|(axis, _)| axis)
            .collect(),
    };
    if let Some(axis) = axes.iter().find(|axis| shape.get(**axis) != Some(&1)) {
        return Err(Refusal::new(format!("axis {axis} of {shape:?} is not 1")));
    }
    axes.sort_unstable();
    axes.dedup();
    for axis in axes.into_iter().rev() {
        x = wiring.wire(AxisOp::Rm(axis), &[x])?;
    }
    Ok(vec![x])
}

pub(super) fn unsqueeze(wiring: &mut Wiring<'_>) -> Outputs {
    let mut x = wiring.input(0)?;
    let rank = wiring.shape(x)?.len();
    let count = match wiring.optional(1) {
        Some(outlet) => wiring.constant_ints(outlet)?.len(),
        None => attributes::ints(wiring.node, "axes")?.map_or(0, |axes| axes.len()),
    };
    let mut axes = axes(wiring, rank.saturating_add(count))?.unwrap_or_default();
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() || axes.len() != count {
        return Err(Refusal::new("it needs axes, each once"));
    }
    for axis in axes {
        x = wiring.wire(AxisOp::Add(axis), &[x])?;
    }
    Ok(vec![x])
}

pub(super) fn reshape(wiring: &mut Wiring<'_>) -> Outputs {
    let x = wiring.input(0)?;
    let from = wiring.shape(x)?;
    let asked = wiring.constant_ints(wiring.input(1)?)?;
    if attributes::int(wiring.node, "allowzero", 0)? != 0 {
        return Err(Refusal::new("its attribute `allowzero` is not supported"));
    }
    let to = new_shape(&from, &asked)?;
    if from == to {
        return Ok(vec![x]);
    }
    let dims = |shape: &[usize]| shape.iter().map(ToDim::to_dim).collect::<TVec<TDim>>();
    // Leading axes that stay (the batch) are left out: tract can then move other operators across the reshape.
    let kept = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let (from, to) = (
        from.get(kept..).unwrap_or(&[]),
        to.get(kept..).unwrap_or(&[]),
    );
    Ok(vec![
        wiring.wire(AxisOp::Reshape(kept, dims(from), dims(to)), &[x])?,
    ])
}

pub(super) fn slice(wiring: &mut Wiring<'_>) -> Outputs {
    let mut x = wiring.input(0)?;
    let shape = wiring.shape(x)?;
    let (starts, ends) = (
        wiring.constant_ints(wiring.input(1)?)?,
        wiring.constant_ints(wiring.input(2)?)?,
    );
    let axes = match wiring.optional(3) {
        Some(outlet) => wiring.constant_ints(outlet)?,
        None => (0_i64..).take(starts.len()).collect(),
    };
    let steps = wiring
        .optional(4)
        .map(|outlet| wiring.constant_ints(outlet))
        .transpose()?;
    if steps.is_some_and(|steps| steps.iter().any(|step| *step != 1)) {
        return Err(Refusal::new("only steps of 1 are supported"));
    }
    if starts.len() != ends.len() || starts.len() != axes.len() {
        return Err(Refusal::new("starts, ends and axes differ in length"));
    }
    for ((start, end), axis) in starts.into_iter().zip(ends).zip(axes) {
        let axis = attributes::axis(axis, shape.len())?;
        let len = shape.get(axis).copied().unwrap_or(0);
        let (start, end) = (position(start, len), position(end, len));
        if start >= end {
            return Err(Refusal::new(format!(
                "{start}..{end} of axis {axis} in {shape:?} is empty"
            )));
        }
        x = wiring.wire(Slice::new(axis, start, end), &[x])?;
    }
    Ok(vec![x])
}

/// Axes from the second input (operator set 13 and later) or from the attribute.
pub(super) fn axes(wiring: &Wiring<'_>, rank: usize) -> Result<Option<Vec<usize>>, Refusal> {
    let listed = match wiring.optional(1) {
        Some(outlet) => Some(wiring.constant_ints(outlet)?),
        None => attributes::ints(wiring.node, "axes")?,
    };
    listed
        .map(|axes| {
            axes.into_iter()
                .map(|axis| attributes::axis(axis, rank))
                .collect()
        })
        .transpose()
}

/// ONNX positions: negative ones count from the end, all are clamped.
fn position(position: i64, len: usize) -> usize {
    let signed = i64::try_from(len).unwrap_or(i64::MAX);
    let counted = if position < 0 {
        position.saturating_add(signed)
    } else {
        position
    };
    usize::try_from(counted.clamp(0, signed)).unwrap_or(0)
}

/// Resolves 0 (copy) and -1 (what is left).
fn new_shape(from: &[usize], asked: &[i64]) -> Result<Vec<usize>, Refusal> {
    let refuse = || {
        Refusal::new(format!(
            "{from:?} cannot become {asked:?}: the product must stay the same, and the batch dimension must be written \
             as 0 or -1, because its size is chosen when the model is loaded"
        ))
    };
    let mut to = Vec::with_capacity(asked.len());
    let mut rest = None;
    for (i, dim) in asked.iter().enumerate() {
        to.push(match dim {
            0 => *from.get(i).ok_or_else(refuse)?,
            -1 if rest.is_none() => {
                rest = Some(i);
                1
            }
            dim => usize::try_from(*dim).map_err(|_| refuse())?,
        });
    }
    let product = |shape: &[usize]| {
        shape
            .iter()
            .try_fold(1_usize, |product, dim| product.checked_mul(*dim))
    };
    let (have, known) = (
        product(from).ok_or_else(refuse)?,
        product(&to).ok_or_else(refuse)?,
    );
    if let Some(place) = rest.and_then(|i| to.get_mut(i)) {
        *place = have
            .checked_div(known)
            .filter(|dim| *dim > 0)
            .ok_or_else(refuse)?;
    }
    if product(&to) == Some(have) {
        Ok(to)
    } else {
        Err(refuse())
    }
}
