//! How far a training is: a bar for people, or lines of JSON for a program that waits for its end.
//!
//! A program that reads a bar would have to guess at escape sequences, and one that reads nothing could not tell a slow training from one that
//! hangs.

use std::cell::Cell;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::TrainError;

/// Lines are written when another part of this many is done.
const PARTS: u64 = 20;

const STANDARD_OUTPUT: &str = "standard output";

/// Tells of a training.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Parts of which a line has told; `None` where nobody reads lines.
    told: Option<Cell<u64>>,
}

/// A line.
#[derive(Serialize)]
struct Told<'a> {
    done: u64,
    of: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

// === impl Progress ===

impl Progress {
    /// A bar on the terminal.
    pub(crate) fn bar() -> Self {
        Self {
            bar: bar(),
            told: None,
        }
    }

    /// Lines of JSON on standard output.
    pub(crate) fn lines() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            told: Some(Cell::new(0)),
        }
    }

    #[cfg(test)]
    pub(crate) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            told: None,
        }
    }

    /// What is to be done.
    pub(crate) fn set_length(&self, length: u64) {
        self.bar.set_length(length);
    }

    /// One more is done.
    ///
    /// # Errors
    /// When whoever has read the lines is gone: a training that nobody waits for ends.
    pub(crate) fn inc(&self) -> Result<(), TrainError> {
        self.bar.inc(1);
        let Some(told) = &self.told else {
            return Ok(());
        };
        let parts = self.bar.position() * PARTS / self.bar.length().unwrap_or(1).max(1);
        if parts <= told.replace(parts) {
            return Ok(());
        }
        self.tell("")
    }

    /// Something has happened.
    ///
    /// # Errors
    /// As [`Self::inc`].
    pub(crate) fn say(&self, message: String) -> Result<(), TrainError> {
        match self.told {
            Some(_) => self.tell(&message),
            None => {
                self.bar.set_message(message);
                Ok(())
            }
        }
    }

    /// Something that people should find in the terminal when all is over.
    ///
    /// # Errors
    /// As [`Self::inc`].
    pub(crate) fn announce(&self, message: &str) -> Result<(), TrainError> {
        match self.told {
            Some(_) => self.tell(message),
            None => write_line(message),
        }
    }

    /// All is done.
    ///
    /// # Errors
    /// As [`Self::inc`].
    pub(crate) fn finish(&self, message: String) -> Result<(), TrainError> {
        self.say(message)?;
        self.bar.finish();
        Ok(())
    }

    fn tell(&self, message: &str) -> Result<(), TrainError> {
        let told = Told {
            done: self.bar.position(),
            of: self.bar.length().unwrap_or(0),
            message,
        };
        let line = serde_json::to_string(&told).map_err(|source| TrainError::Json {
            path: STANDARD_OUTPUT.into(),
            source,
        })?;
        write_line(&line)
    }
}

fn write_line(line: &str) -> Result<(), TrainError> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|source| TrainError::Io {
        path: STANDARD_OUTPUT.into(),
        source,
    })
}

/// A bar with the time that is left.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    // The template is fixed; were it wrong, the default style would do.
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {pos}/{len}, {eta} left  {msg}")
    {
        bar.set_style(style);
    }
    bar
}
