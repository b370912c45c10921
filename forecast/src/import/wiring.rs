//! What an operator sees while it is wired: its node, its inputs with their shapes, and the graph to add to.

use std::collections::HashMap;

use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TypedOp;
use tract_onnx::tract_core::ops::change_axes::wire_with_rank_broadcast;

use crate::error::ModelError;
use crate::limits::Limits;

/// Why a node cannot be wired, before it is known which node it was.
#[derive(Debug)]
pub(super) struct Refusal(String);

/// One node on its way into the graph.
pub(super) struct Wiring<'a> {
    graph: &'a mut TypedModel,
    pub(super) node: &'a pb::NodeProto,
    pub(super) limits: &'a Limits,
    name: String,
    inputs: Vec<Option<OutletId>>,
    wired: usize,
    flops: u64,
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The error for the node it happened at.
    pub(super) fn at(self, node: &pb::NodeProto, index: usize) -> ModelError {
        let name = if node.name.is_empty() {
            format!("#{index}")
        } else {
            node.name.clone()
        };
        ModelError::Operator {
            op: node.op_type.clone(),
            node: name,
            reason: self.0,
        }
    }
}

impl From<TractError> for Refusal {
    fn from(error: TractError) -> Self {
        Self(format!("{error:#}"))
    }
}

impl From<ModelError> for Refusal {
    fn from(error: ModelError) -> Self {
        Self(error.to_string())
    }
}

// === impl Wiring ===

impl<'a> Wiring<'a> {
    pub(super) fn new(
        graph: &'a mut TypedModel,
        node: &'a pb::NodeProto,
        index: usize,
        values: &HashMap<&str, OutletId>,
        limits: &'a Limits,
    ) -> Result<Self, Refusal> {
        let inputs = node
            .input
            .iter()
            .map(|name| match (name.as_str(), values.get(name.as_str())) {
                ("", _) => Ok(None),
                (_, Some(outlet)) => Ok(Some(*outlet)),
                (_, None) => Err(Refusal(format!(
                    "its input `{name}` is not made by any node before it"
                ))),
            })
            .collect::<Result<_, _>>()?;
        // tract wants unique names; the file's own names may repeat or be empty.
        Ok(Self {
            graph,
            node,
            limits,
            name: format!("{index}.{}", node.op_type),
            inputs,
            wired: 0,
            flops: 0,
        })
    }

    /// Floating-point operations of what was wired, roughly.
    pub(super) fn flops(&self) -> u64 {
        self.flops
    }

    /// Adds to the cost: `elements` times `each`.
    pub(super) fn count(&mut self, elements: usize, each: usize) {
        let flops = u64::try_from(elements.saturating_mul(each)).unwrap_or(u64::MAX);
        self.flops = self.flops.saturating_add(flops);
    }

    /// Input number `i`.
    pub(super) fn input(&self, i: usize) -> Result<OutletId, Refusal> {
        self.optional(i)
            .ok_or_else(|| Refusal(format!("its input number {i} is missing")))
    }

    /// Input number `i`, when it is there and not the empty name.
    pub(super) fn optional(&self, i: usize) -> Option<OutletId> {
        self.inputs.get(i).copied().flatten()
    }

    /// All inputs; none may be left out.
    pub(super) fn all_inputs(&self) -> Result<Vec<OutletId>, Refusal> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// The shape of a value.
    pub(super) fn shape(&self, outlet: OutletId) -> Result<Vec<usize>, Refusal> {
        let shape = &self.graph.outlet_fact(outlet)?.shape;
        shape
            .as_concrete()
            .map(<[usize]>::to_vec)
            .ok_or_else(|| Refusal::new("its input has no fixed shape"))
    }

    /// The elements of a value.
    pub(super) fn elements(&self, outlet: OutletId) -> Result<usize, Refusal> {
        Ok(self
            .shape(outlet)?
            .iter()
            .fold(1, |product: usize, dim| product.saturating_mul(*dim)))
    }

    /// A value that must be known when the model is loaded.
    pub(super) fn constant(&self, outlet: OutletId) -> Result<Arc<Tensor>, Refusal> {
        self.graph
            .outlet_fact(outlet)?
            .konst
            .clone()
            .ok_or_else(|| {
                Refusal::new("shapes, axes, bounds and recurrent weights must be constants")
            })
    }

    /// A constant list of integers, such as axes.
    pub(super) fn constant_ints(&self, outlet: OutletId) -> Result<Vec<i64>, Refusal> {
        let tensor = self.constant(outlet)?;
        Ok(tensor.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
    }

    /// Refuses a value that is not made of f32: arithmetic on integers is nobody's model.
    pub(super) fn check_float(&self, outlet: OutletId) -> Result<(), Refusal> {
        let found = self.graph.outlet_fact(outlet)?.datum_type;
        if found == f32::datum_type() {
            Ok(())
        } else {
            Err(Refusal(format!("it works on floats, not on {found:?}")))
        }
    }

    /// Adds a constant.
    pub(super) fn add_constant(&mut self, tensor: Tensor) -> Result<OutletId, Refusal> {
        let name = self.next_name();
        Ok(self.graph.add_const(name, tensor)?)
    }

    /// Adds an operator with one output.
    pub(super) fn wire(
        &mut self,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> Result<OutletId, Refusal> {
        self.wire_all(op, inputs)?
            .first()
            .copied()
            .ok_or_else(|| Refusal::new("it makes nothing"))
    }

    /// Adds an operator.
    pub(super) fn wire_all(
        &mut self,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> Result<TVec<OutletId>, Refusal> {
        let name = self.next_name();
        Ok(self.graph.wire_node(name, op, inputs)?)
    }

    /// Adds an operator whose inputs are broadcast against each other.
    pub(super) fn wire_broadcast(
        &mut self,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> Result<OutletId, Refusal> {
        let name = self.next_name();
        let wired = wire_with_rank_broadcast(name, self.graph, op, inputs)?;
        wired
            .first()
            .copied()
            .ok_or_else(|| Refusal::new("it makes nothing"))
    }

    fn next_name(&mut self) -> String {
        self.wired = self.wired.saturating_add(1);
        format!("{}.{}", self.name, self.wired)
    }
}

/// Refuses a value that would be too large to hold.
pub(super) fn check_size(
    graph: &TypedModel,
    outlet: OutletId,
    limits: &Limits,
) -> Result<(), Refusal> {
    let fact = graph.outlet_fact(outlet)?;
    let Some(shape) = fact.shape.as_concrete() else {
        return Err(Refusal::new("its output has no fixed shape"));
    };
    let elements = shape
        .iter()
        .fold(1, |product: usize, dim| product.saturating_mul(*dim));
    if shape.len() > limits.rank || elements > limits.tensor_elements || elements == 0 {
        return Err(Refusal(format!(
            "its output has shape {shape:?}: at most {} dimensions and 1 to {} elements are allowed",
            limits.rank, limits.tensor_elements
        )));
    }
    Ok(())
}
