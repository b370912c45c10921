//! What commands print: JSON, indented, so that people read it and `jq` too.

use serde::Serialize;

/// Prints a value.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn print(value: &impl Serialize) -> Result<(), String> {
    println!(
        "{}",
        serde_json::to_string_pretty(value).map_err(|error| error.to_string())?
    );
    Ok(())
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, with its name.
pub(super) fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
