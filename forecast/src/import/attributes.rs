//! Attributes of a node, with the ONNX defaults. An attribute of the wrong kind is an error, not a default.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::attribute_proto::AttributeType;

use super::wiring::Refusal;

fn find(node: &NodeProto, name: &str, kind: AttributeType) -> Result<Option<usize>, Refusal> {
    let Some(index) = node
        .attribute
        .iter()
        .position(|attribute| attribute.name == name)
    else {
        return Ok(None);
    };
    let found = node
        .attribute
        .get(index)
        .map_or(0, |attribute| attribute.r#type);
    if found == kind as i32 {
        Ok(Some(index))
    } else {
        Err(Refusal::new(format!(
            "its attribute `{name}` has type {found}, it must be {}",
            kind as i32
        )))
    }
}

pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> Result<i64, Refusal> {
    let index = find(node, name, AttributeType::Int)?;
    Ok(index
        .and_then(|i| node.attribute.get(i))
        .map_or(default, |attribute| attribute.i))
}

pub(super) fn float(node: &NodeProto, name: &str, default: f32) -> Result<f32, Refusal> {
    let index = find(node, name, AttributeType::Float)?;
    let value = index
        .and_then(|i| node.attribute.get(i))
        .map_or(default, |attribute| attribute.f);
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Refusal::new(format!("its attribute `{name}` is {value}")))
    }
}

pub(super) fn ints(node: &NodeProto, name: &str) -> Result<Option<Vec<i64>>, Refusal> {
    let index = find(node, name, AttributeType::Ints)?;
    Ok(index
        .and_then(|i| node.attribute.get(i))
        .map(|attribute| attribute.ints.clone()))
}

pub(super) fn text<'a>(
    node: &'a NodeProto,
    name: &str,
    default: &'a str,
) -> Result<&'a str, Refusal> {
    let index = find(node, name, AttributeType::String)?;
    let Some(attribute) = index.and_then(|i| node.attribute.get(i)) else {
        return Ok(default);
    };
    std::str::from_utf8(&attribute.s)
        .map_err(|_| Refusal::new(format!("its attribute `{name}` is not UTF-8")))
}

/// An axis of a tensor of rank `rank`; negative ones count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let counted = if axis < 0 {
        axis.saturating_add(signed)
    } else {
        axis
    };
    usize::try_from(counted)
        .ok()
        .filter(|axis| *axis < rank)
        .ok_or_else(|| {
            Refusal::new(format!(
                "axis {axis} is outside a tensor of {rank} dimensions"
            ))
        })
}
