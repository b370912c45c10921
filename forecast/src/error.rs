//! Why a model file was refused: what, where, and what to do about it.
//!
//! One variant per way of being wrong, because the control plane reports them to whoever uploaded the file and a test
//! holds each of them to a file that provokes it.

/// A model file that the gateway will not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is larger than the limit.
    #[error(
        "the model file has {bytes} bytes, more than the limit of {limit}: shrink the network or raise the limit"
    )]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// Allowed size.
        limit: usize,
    },
    /// The bytes are no ONNX protobuf.
    #[error(
        "the model file is not a complete ONNX protobuf ({reason}): check that the upload was not cut off"
    )]
    Unreadable {
        /// What the decoder said.
        reason: String,
    },
    /// A metadata key of the contract is absent.
    #[error(
        "metadata_props has no `{key}`: export the model with the metadata of the ONNX contract"
    )]
    MetadataMissing {
        /// The key.
        key: String,
    },
    /// A metadata value is not JSON of the right kind.
    #[error("metadata_props `{key}` cannot be read ({reason}): see the ONNX contract for its type")]
    MetadataUnreadable {
        /// The key.
        key: String,
        /// What the JSON reader said.
        reason: String,
    },
    /// A metadata value breaks a rule.
    #[error("metadata_props `{key}` {rule}")]
    MetadataValue {
        /// The key.
        key: String,
        /// The rule that it must keep.
        rule: String,
    },
    /// The model speaks another version of the contract.
    #[error(
        "the model follows version {found} of the ONNX contract, this build reads version {supported}: export it again or update the gateway"
    )]
    ContractVersion {
        /// Version in the file.
        found: u32,
        /// Version that is read.
        supported: u32,
    },
    /// The protobuf holds no graph.
    #[error("the file is an ONNX protobuf without a graph: export the whole model")]
    NoGraph,
    /// The operator set is too old or too new.
    #[error(
        "the model uses operator set {found} of the default domain, supported are 11 to 21: export it with 17"
    )]
    Opset {
        /// Version in the file, 0 when there is none.
        found: i64,
    },
    /// More nodes than allowed.
    #[error(
        "the graph has {nodes} nodes, more than the limit of {limit}: do not unroll loops, or raise the limit"
    )]
    TooManyNodes {
        /// Nodes in the file.
        nodes: usize,
        /// Allowed nodes.
        limit: usize,
    },
    /// More weights than allowed.
    #[error(
        "the model has at least {weights} weights, more than the limit of {limit}: shrink the network"
    )]
    TooManyWeights {
        /// Weights counted until the limit was passed.
        weights: usize,
        /// Allowed weights.
        limit: usize,
    },
    /// One batch would take too long.
    #[error(
        "one batch takes at least {flops} operations, more than the limit of {limit}: shrink the network"
    )]
    TooMuchWork {
        /// Operations counted until the limit was passed.
        flops: u64,
        /// Allowed operations.
        limit: u64,
    },
    /// An operator outside our register.
    #[error(
        "node `{node}` uses the operator {op}, which this build does not have: use one of the documented operators or \
         build with the feature full-operators"
    )]
    UnknownOperator {
        /// The operator.
        op: String,
        /// Name of the node.
        node: String,
    },
    /// A node that cannot be wired.
    #[error("node `{node}` ({op}): {reason}")]
    Operator {
        /// The operator.
        op: String,
        /// Name of the node, or its number.
        node: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two values have one name.
    #[error("the value `{name}` is made twice: every value of a graph needs a name of its own")]
    DuplicateValue {
        /// The name.
        name: String,
    },
    /// An input differs from the contract.
    #[error("the input `{name}` {reason}")]
    Input {
        /// The input.
        name: String,
        /// How it differs.
        reason: String,
    },
    /// The output differs from the contract.
    #[error("the output: {reason}")]
    Output {
        /// How it differs.
        reason: String,
    },
    /// A tensor lives in another file.
    #[error("the tensor `{tensor}` refers to another file: save the model with its weights inside")]
    ExternalData {
        /// The tensor.
        tensor: String,
    },
    /// A tensor has an element type that models do not use.
    #[error("the tensor `{tensor}` {reason}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// Dimensions and data of a tensor disagree.
    #[error("the tensor `{tensor}` {reason}")]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "the tensor `{tensor}` has a value at {index} that is not finite: the training diverged, train again"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Position of the value.
        index: usize,
    },
    /// The golden vectors cannot be used.
    #[error("the golden vectors: {reason}")]
    Golden {
        /// What is wrong with them.
        reason: String,
    },
    /// The model computes something else here than where it was trained.
    #[error(
        "the golden output differs in row {row} at {index}: {found} instead of {expected}; the file was changed or the \
         exporter computes differently"
    )]
    GoldenMismatch {
        /// Row of the golden input.
        row: usize,
        /// Position in the row, `h * Q + q`.
        index: usize,
        /// What was computed.
        found: f32,
        /// What the file says.
        expected: f32,
    },
    /// One customer's forecast depends on who else is in the batch.
    #[error(
        "row {row} gives another forecast at another place in the batch: the graph must not mix rows"
    )]
    RowsMixed {
        /// Row of the golden input.
        row: usize,
    },
    /// The model gives numbers that are no forecast.
    #[error(
        "the forecast of {what} has {value} at {index}: quantiles must be finite, not negative and ascending"
    )]
    Forecast {
        /// Which row.
        what: String,
        /// Position in the row, `h * Q + q`.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The batch does not fit.
    #[error("batches must have 1 to {limit} rows, not {rows}")]
    BatchRows {
        /// Rows asked for.
        rows: usize,
        /// Allowed rows.
        limit: usize,
    },
    /// tract refused the graph although every node could be wired.
    #[error("tract cannot load the graph ({reason})")]
    Graph {
        /// What tract said, innermost cause last.
        reason: String,
    },
    /// Running the model failed.
    #[error("running the model failed ({reason})")]
    Run {
        /// What tract said.
        reason: String,
    },
}
