//! What commands print: JSON, indented, so that people read it and `jq` too.

use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints a value.
///
/// # Errors
/// When it cannot be written as JSON, or there is no room where it should go.
pub(super) fn print(value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    print_text(&format!("{text}\n")).map(|_| ())
}

/// Prints a text as it is, and says whether anybody wants another.
///
/// # Errors
/// When there is no room where it should go.
pub(super) fn print_text(text: &str) -> Result<bool, String> {
    match write!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("cannot print the answer: {error}")),
        Ok(()) => Ok(true),
    }
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, with its name.
pub(super) fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
