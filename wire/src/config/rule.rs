//! Which requests are charged.

use serde::{Deserialize, Serialize};

use super::{CostConfig, KeyConfig};

/// One rule. Of several matching rules each charges those resources that no earlier one has charged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Name in metrics: lower-case letters, digits and hyphens, at most 32.
    pub name: String,
    /// Requests that the rule applies to; absent: all.
    #[serde(default, rename = "match")]
    pub matches: MatchConfig,
    /// Whom they are charged to.
    pub key: KeyConfig,
    /// What they are charged.
    pub charges: Vec<ChargeConfig>,
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// The path starts with this, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The method is one of these; empty: any.
    pub methods: Vec<String>,
    /// Each of these holds.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on one request header: exactly one of `exact`, `prefix` and `present`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Name of the header, in lower case.
    pub name: String,
    /// The value is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// The value starts with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The header is there (true) or is not there (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// One resource and what is taken of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChargeConfig {
    /// Name of a resource of the policy.
    pub resource: String,
    /// Tokens of it that a request takes; absent: 1.
    #[serde(default)]
    pub cost: CostConfig,
}
