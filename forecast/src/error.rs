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
    /// tract refused the graph.
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
