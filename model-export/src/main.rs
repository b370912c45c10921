//! `forebay-train`: data in, a verified ONNX model with its card out, and the scores that say whether it is worth it.
//!
//! A program of its own, not a part of the control plane: training wants minutes of all processors and a deep learning
//! library, and neither belongs beside the process that hands out tokens.
// An index out of range here is a defect that must stop the run, not something to carry on from: files are checked at
// the door, and everything behind it is arithmetic on sizes that this program chose itself.
#![allow(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod card;
mod cli;
mod conformal;
mod dataset;
mod destination;
mod drift;
mod error;
mod evaluate;
mod export;
mod fit;
mod gradient_tape;
mod network;
mod onnx_tape;
mod output;
mod prepare;
mod progress;
mod recipe;
mod regular_file;
mod replay;
mod retrain;
mod samples;
mod scoring;
mod stamp;
mod steps_ahead;
mod tape;
mod train;
mod unfinished;
mod verify;
mod weights;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use error::TrainError;

/// What shells say of a program that a broken pipe has ended.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(TrainError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::from(BROKEN_PIPE)
        }
        Err(error) => {
            // Whoever has closed standard error as well wants to hear nothing.
            let _ = writeln!(io::stderr(), "forebay-train: {error}");
            ExitCode::FAILURE
        }
    }
}
