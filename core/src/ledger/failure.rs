//! Exchanges that came to nothing, and what that means for the chunk.
//!
//! A draw writes the pools first and the page second. If the second write fails and the first cannot be taken back, what was in the
//! chunk may lie in the pools: then it may not stay in the chunk too. An error alone does not say which it was.

use crate::chunk::Chunk;
use crate::error::CoreError;
use crate::time::TimeUs;

/// Why an exchange came to nothing.
pub(super) enum Failure {
    /// Nothing was changed.
    Whole(CoreError),
    /// The pools were changed, and could not be changed back.
    Half(CoreError),
}

// === impl Failure ===

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Failure {
        Failure::Whole(error)
    }
}

impl Failure {
    /// The error, for whoever brought no chunk.
    pub(super) fn into_error(self) -> CoreError {
        match self {
            Failure::Whole(error) | Failure::Half(error) => error,
        }
    }

    /// The error. The chunk that was brought is as before, or empty after half an exchange.
    pub(super) fn settle(self, chunk: &mut Chunk, now: TimeUs) -> CoreError {
        if let Failure::Half(_) = self {
            chunk.emptied(now);
        }
        self.into_error()
    }
}
