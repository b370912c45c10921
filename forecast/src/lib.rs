//! ONNX in, quantiles out: everything about a forecast that needs neither a clock, nor a host, nor a socket.
//!
//! The forecaster plugin runs this crate inside Envoy, the trainer evaluates the very same code before it publishes a
//! model, and the control plane's sandbox loads an uploaded model through it. One implementation for all three means
//! that a score printed by `forebay-train evaluate` is a statement about what the gateway will do.
//!
//! The way of a forecast:
//! 1. [`SeriesWindow`] holds one customer's usage of one resource, step by step, gaps included.
//! 2. [`Batch`] turns windows into the tensors of the ONNX contract ([`ModelSpec`], [`CalendarFeature`]).
//! 3. [`Model::run`] makes a [`QuantileGrid`] per customer in one fixed-size inference.
//! 4. [`Blender`] sets the network beside the simple methods of [`Fallback`], weighs all of them by their recent errors
//!    ([`Ensemble`]), recalibrates the result ([`Calibration`]) and caps it ([`Cap`]).
//!
//! Beside that, [`drift`] tells when a series is no longer what it was.
//!
//! Time is always an argument: seconds since the Unix epoch for the calendar, steps for everything else.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod drift;

mod batch;
mod calibration;
mod cap;
mod ensemble;
mod error;
mod fallback;
mod features;
mod golden;
mod grid;
mod import;
mod limits;
mod model;
mod spec;
mod track;
mod verdict;
mod window;

pub use batch::{Batch, BatchFull};
pub use calibration::Calibration;
pub use cap::Cap;
pub use ensemble::{Ensemble, EnsembleSettings};
pub use error::ModelError;
pub use fallback::{Fallback, Method};
pub use features::{CalendarFeature, PastFeature};
pub use golden::Golden;
pub use grid::{QuantileGrid, Quantiles, pinball};
pub use limits::Limits;
pub use model::{Check, Model};
pub use spec::{CONTRACT_VERSION, ModelSpec};
pub use track::{Blender, Source, Track, TrackSettings};
pub use verdict::verdict;
pub use window::SeriesWindow;

/// The ONNX protobuf types that the loader reads, so that a writer agrees with it by construction.
pub use tract_onnx::pb;
