//! Weights and constants: checked and copied here, so that tract never sees the file's tensors.

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, TensorProto};
use tract_onnx::prelude::*;

use super::wiring::{Refusal, Wiring};
use crate::error::ModelError;
use crate::limits::Limits;

/// Checks all initializers before any of them is copied; the number of weights.
pub(crate) fn check_initializers(graph: &GraphProto, limits: &Limits) -> Result<usize, ModelError> {
    let constants = graph
        .node
        .iter()
        .flat_map(|node| &node.attribute)
        .filter_map(|attribute| attribute.t.as_ref());
    let mut weights = 0_usize;
    for tensor in graph.initializer.iter().chain(constants) {
        weights = weights.saturating_add(elements(tensor, limits)?);
        if weights > limits.weights {
            return Err(ModelError::TooManyWeights {
                weights,
                limit: limits.weights,
            });
        }
        check_finite(tensor)?;
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let name = sparse
            .values
            .as_ref()
            .map_or(String::new(), |values| values.name.clone());
        return Err(ModelError::TensorType {
            tensor: name,
            reason: "is sparse; store it as a dense tensor".into(),
        });
    }
    Ok(weights)
}

/// The tensor of an initializer or a constant that [`check_initializers`] has passed.
pub(super) fn tensor(proto: &TensorProto) -> Result<Tensor, ModelError> {
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|dim| usize::try_from(*dim).unwrap_or(0))
        .collect();
    let tensor = if proto.data_type == DataType::Int64 as i32 {
        let values: Vec<i64> = if proto.raw_data.is_empty() {
            proto.int64_data.clone()
        } else {
            words::<8>(&proto.raw_data)
                .map(i64::from_le_bytes)
                .collect()
        };
        Tensor::from_shape(&shape, &values)
    } else {
        Tensor::from_shape(&shape, &floats(proto))
    };
    tensor.map_err(|error| ModelError::TensorSize {
        tensor: proto.name.clone(),
        reason: format!("{error:#}"),
    })
}

/// The node `Constant`.
pub(super) fn constant(wiring: &mut Wiring<'_>) -> Result<Vec<OutletId>, Refusal> {
    let value = wiring
        .node
        .attribute
        .iter()
        .find(|attribute| attribute.name == "value")
        .and_then(|attribute| attribute.t.as_ref())
        .ok_or_else(|| Refusal::new("it has no tensor attribute `value`"))?;
    Ok(vec![wiring.add_constant(tensor(value)?)?])
}

/// The number of elements, when type, dimensions and data agree.
fn elements(proto: &TensorProto, limits: &Limits) -> Result<usize, ModelError> {
    let name = || proto.name.clone();
    if proto.data_location == Some(DataLocation::External as i32) || !proto.external_data.is_empty()
    {
        return Err(ModelError::ExternalData { tensor: name() });
    }
    let (width, listed) = if proto.data_type == DataType::Float as i32 {
        (4_usize, proto.float_data.len())
    } else if proto.data_type == DataType::Int64 as i32 {
        (8, proto.int64_data.len())
    } else {
        let reason = format!(
            "has element type {}; weights are float (1), indexes int64 (7)",
            proto.data_type
        );
        return Err(ModelError::TensorType {
            tensor: name(),
            reason,
        });
    };
    let size = |reason: String| ModelError::TensorSize {
        tensor: name(),
        reason,
    };
    if proto.dims.len() > limits.rank {
        return Err(size(format!(
            "has {} dimensions, at most {} are allowed",
            proto.dims.len(),
            limits.rank
        )));
    }
    let product = proto
        .dims
        .iter()
        .try_fold(1_usize, |product, dim| {
            product.checked_mul(usize::try_from(*dim).ok().filter(|dim| *dim > 0)?)
        })
        .ok_or_else(|| size(format!("has the absurd dimensions {:?}", proto.dims)))?;
    let stored = if proto.raw_data.is_empty() {
        listed
    } else if listed == 0 && proto.raw_data.len().checked_rem(width) == Some(0) {
        proto.raw_data.len().checked_div(width).unwrap_or(0)
    } else {
        return Err(size(format!(
            "has {} raw bytes and {listed} listed values",
            proto.raw_data.len()
        )));
    };
    if stored != product {
        return Err(size(format!(
            "says {:?} ({product} elements) and stores {stored}",
            proto.dims
        )));
    }
    Ok(product)
}

fn check_finite(proto: &TensorProto) -> Result<(), ModelError> {
    if proto.data_type != DataType::Float as i32 {
        return Ok(());
    }
    match floats(proto).iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ModelError::NotFinite {
            tensor: proto.name.clone(),
            index,
        }),
        None => Ok(()),
    }
}

fn floats(proto: &TensorProto) -> Vec<f32> {
    if proto.raw_data.is_empty() {
        proto.float_data.clone()
    } else {
        words::<4>(&proto.raw_data)
            .map(f32::from_le_bytes)
            .collect()
    }
}

/// Little-endian words of `N` bytes.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes
        .chunks_exact(N)
        .filter_map(|chunk| chunk.try_into().ok())
}
