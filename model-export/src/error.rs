//! What can go wrong in the trainer; each message says what, where and what to do.

use std::path::PathBuf;

use forebay_forecast::ModelError;
use forebay_traces::TraceError;

/// Why a command of `forebay-train` failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The calendar cannot be read.
    #[error(transparent)]
    Calendar(#[from] forebay_calendar::CalendarError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file or a folder cannot be written, or is not to be.
    #[error("cannot write {path}: {reason}")]
    Destination { path: PathBuf, reason: String },
    /// What is said cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// A JSON file is not what it should be.
    #[error("{path}: {source}")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The model breaks the ONNX contract.
    #[error("{path}: {source}")]
    Model { path: PathBuf, source: ModelError },
    /// No series can be used.
    #[error("{path}: {reason}")]
    Data { path: PathBuf, reason: String },
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The settings of data sets are not what they should be.
    #[error("{path}: {reason}")]
    Settings { path: PathBuf, reason: String },
    /// There is no data folder.
    #[error(
        "no data: give --data DIR or set FOREBAY_DATA to a folder with servegen_10m.parquet and ms_rate_1m.parquet \
         (columns: see docs/reference/training.md); to train without data use --generate SEED"
    )]
    NoData,
    /// Trainer, tract or onnxruntime disagree.
    #[error("{path}: {reason}")]
    Disagree { path: PathBuf, reason: String },
}
