//! What a command says to people, on standard output.
//!
//! `println!` was the worse alternative: it ends the program with a panic where nobody reads on, as behind `| head`.

use std::fmt::Display;
use std::io::Write;

use crate::error::TrainError;

/// Where lines for people go.
pub(crate) struct Output<'a>(&'a mut dyn Write);

// === impl Output ===

impl<'a> Output<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self(out)
    }

    /// # Errors
    /// When it cannot be written: whoever has read is gone, or a disk is full.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), TrainError> {
        writeln!(self.0, "{text}").map_err(TrainError::Output)
    }
}

/// A figure of a table; one that cannot be said, such as an error as a part of no error at all, is a dash.
pub(crate) fn figure(value: f64, digits: usize) -> String {
    match value.is_nan() {
        true => "-".to_owned(),
        false => format!("{value:.digits$}"),
    }
}
