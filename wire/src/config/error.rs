//! Why a configuration was refused, and where in it.

use thiserror::Error;

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// Place in the document, such as `rules[0].key.header.trusted`; `.` is the document itself.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

// === impl ConfigError ===

impl ConfigError {
    /// An error at a place of the document.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}
