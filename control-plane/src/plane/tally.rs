//! Tokens that went wrong, by cause, since the server started.

use crate::buckets::Cause;
use forebay_core::amount::Micro;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sums of micro-tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Cause::ALL.len()]);

/// Tokens by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokensByCause {
    /// A gateway is silent, or was.
    pub partition: f64,
    /// Gateways held more together than a contract that was made smaller.
    pub grant_overlap: f64,
    /// The server had just been started, or was not stopped cleanly.
    pub cold_start: f64,
    /// A gateway has dropped its entry of a customer, or made it anew.
    pub eviction: f64,
    /// None of these.
    pub other: f64,
}

// === impl Tally ===

impl Tally {
    /// Counts an amount; a negative one counts for nothing.
    pub fn add(&mut self, cause: Cause, amount: Micro) {
        if let Some(sum) = self.0.get_mut(cause as usize) {
            *sum = sum.saturating_add(amount.at_least_zero().get().unsigned_abs());
        }
    }

    /// In whole tokens and parts of one.
    #[must_use]
    pub fn tokens(&self) -> TokensByCause {
        #[allow(clippy::cast_precision_loss)] // for charts
        let of = |cause: Cause| {
            self.0
                .get(cause as usize)
                .map_or(0.0, |sum| *sum as f64 / 1e6)
        };
        TokensByCause {
            partition: of(Cause::Partition),
            grant_overlap: of(Cause::GrantOverlap),
            cold_start: of(Cause::ColdStart),
            eviction: of(Cause::Eviction),
            other: of(Cause::Other),
        }
    }
}

// === impl TokensByCause ===

impl TokensByCause {
    /// Each cause and its sum.
    #[must_use]
    pub const fn each(&self) -> [(Cause, f64); Cause::ALL.len()] {
        [
            (Cause::Partition, self.partition),
            (Cause::GrantOverlap, self.grant_overlap),
            (Cause::ColdStart, self.cold_start),
            (Cause::Eviction, self.eviction),
            (Cause::Other, self.other),
        ]
    }
}
