//! What commands print: JSON, indented, so that people read it and `jq` too.

use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints a value.
///
/// # Errors
/// When it cannot be written as JSON, or there is no room where it should go.
pub(super) fn print(value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("cannot print the answer: {error}")),
    }
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, with its name.
pub(super) fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
