//! How much a request is charged.

use serde::{Deserialize, Serialize};

use crate::policy::Decimal;

/// Tokens that a request takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CostConfig {
    /// The same for every request; 0 or more, up to six digits after the point.
    Constant(Decimal),
    /// What a request header says.
    Header(HeaderCost),
    /// An estimate now, and what the response says afterwards.
    Settle(SettledCost),
}

/// A request header as cost. A value that is no number from 0 up is replaced by `default`, one above `max` by `max`; both are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderCost {
    /// Name of the header, in lower case.
    pub name: String,
    /// Must be true: it says that no client can set this header.
    #[serde(default)]
    pub trusted: bool,
    /// Tokens of a request without it.
    #[serde(default = "one")]
    pub default: Decimal,
    /// Tokens that a request can cost at most.
    pub max: Decimal,
}

/// A cost that is known only with the response. A response without the header leaves the estimate as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SettledCost {
    /// Tokens taken when the request arrives.
    pub estimate: Decimal,
    /// Response header, in lower case, in which the upstream reports the true cost. It is removed before the client sees it.
    pub response_header: String,
    /// Tokens that a request can cost at most; a report above it is charged as `max` and counted.
    pub max: Decimal,
}

// === impl CostConfig ===

impl Default for CostConfig {
    fn default() -> Self {
        Self::Constant(one())
    }
}

pub(super) fn one() -> Decimal {
    Decimal::from_tokens(1).unwrap_or(Decimal::ZERO)
}
