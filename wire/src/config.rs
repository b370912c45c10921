//! The configuration of the admission plugin: which requests are charged, whom, how much, and what the client is told.
//!
//! Rules live here and contracts live in the policy document, because they change for different reasons and by different hands: a rule
//! follows the routes of the gateway, a contract follows the customer. One document for both was the alternative; then every new customer
//! would be a new Envoy configuration, of which Envoy keeps each version in memory.
//!
//! Unknown fields are refused and every error names the place. [`PluginConfig::parse`] is the only door, so a configuration that exists has
//! been checked.

mod cost;
mod error;
mod key;
mod read;
mod rule;
mod validate;

pub use cost::{CostConfig, HeaderCost, SettledCost};
pub use error::ConfigError;
pub use key::{HeaderKey, KeyConfig, MissingKey, PropertyKey, SourceAddressKey};
pub use rule::{ChargeConfig, HeaderMatch, MatchConfig, RuleConfig};

use serde::{Deserialize, Serialize};

use crate::json::{Place, Read, parse};
use crate::policy::{Decimal, PolicyDocument};

/// The version of the document that this build reads.
pub const PLUGIN_CONFIG_VERSION: u32 = 1;

/// Bytes of a configuration that are read at most. An inline policy of ten thousand customers takes about 600 KB.
pub const MAX_CONFIG_BYTES: usize = 16 << 20;

/// Rules in one configuration at most: each is tried for each request, and each has metrics of its own.
pub const MAX_RULES: usize = 32;

/// Tokens that one request can cost at most, whatever a header says.
pub const MAX_COST_TOKENS: u64 = 1_000_000_000;

/// Configuration of the admission plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// Version of this document; 1.
    pub version: u32,
    /// Which requests are charged, tried in order. A request that no rule matches is admitted and not charged.
    pub rules: Vec<RuleConfig>,
    /// Headers that tell the client its limits.
    #[serde(default)]
    pub headers: HeadersConfig,
    /// The answer to a denied request.
    #[serde(default)]
    pub denial: DenialConfig,
    /// What access logs can show.
    #[serde(default)]
    pub access_log: AccessLogConfig,
    /// The policy, for a gateway that stands alone. Either this or `control_plane`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyDocument>,
    /// For a gateway whose policy and grants come from the control plane, through the forecaster plugin. Either this or `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<AwaitPolicyConfig>,
    /// Size of the ledger. It must be the same in every configuration of one Envoy process; a change starts the ledger anew, empty.
    #[serde(default)]
    pub ledger: LedgerConfig,
}

/// Headers that tell the client its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeadersConfig {
    /// `Retry-After` on denials: whole seconds, rounded up, until the request could succeed.
    pub retry_after: bool,
    /// `X-RateLimit-Limit`: the burst of the tightest bucket.
    pub limit: bool,
    /// Appends the quota policy, `, N;w=S`, to `X-RateLimit-Limit`. Without effect when `limit` is off.
    pub quota_policy: bool,
    /// `X-RateLimit-Remaining`: what this gateway still holds for the customer, a lower bound.
    pub remaining: bool,
    /// `X-RateLimit-Reset`: seconds until the tightest bucket is full again.
    pub reset: bool,
    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11): burst and window, what remains and for how long, of each
    /// resource.
    pub rate_limit: bool,
}

/// The answer to a denied request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DenialConfig {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Body. Of a gRPC request it becomes the status message.
    pub body: String,
    /// Content type of the body.
    pub content_type: String,
    /// gRPC status of denied gRPC requests, 1 to 16. 8 is RESOURCE_EXHAUSTED.
    pub grpc_status: u32,
}

/// What the plugin leaves in filter state for access logs. Both are off by default: each costs a host call for each request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogConfig {
    /// The verdict, as `%FILTER_STATE(wasm.forebay.verdict:PLAIN)%`.
    pub verdict: bool,
    /// The hash of the customer's key, as `%FILTER_STATE(wasm.forebay.customer:PLAIN)%`. The key itself is never shown.
    pub customer: bool,
}

/// What holds before the control plane has answered for the first time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AwaitPolicyConfig {
    /// Admission until the first answer.
    pub cold_start: ColdStart,
}

/// Admission of a gateway that the control plane never answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ColdStart {
    /// Nothing is admitted.
    #[default]
    Deny,
    /// All customers together may take this much of each resource.
    Shared(SharedRate),
}

/// One bucket for everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SharedRate {
    /// Tokens per second.
    pub rate_per_s: Decimal,
    /// Depth in tokens.
    pub burst: Decimal,
}

/// Size of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// Customers of the policy that are expected; sizes their pages. More of them only make the pages longer.
    pub max_policy_customers: u32,
    /// Other customers that are kept apart. When there are more, the one idle for longest makes room and starts low when it returns.
    pub max_other_customers: u32,
}

// === impl PluginConfig ===

impl PluginConfig {
    /// Reads and checks a configuration: JSON, or a protobuf `Struct` as Envoy hands it over.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::at(
                ".",
                format!(
                    "the configuration has {} bytes, more than {MAX_CONFIG_BYTES}; send customers through the control plane",
                    json.len()
                ),
            ));
        }
        let json = &*crate::structured::json_text(json);
        if json.iter().all(u8::is_ascii_whitespace) {
            return Err(ConfigError::at(
                ".",
                "the configuration is empty; give at least version, rules and policy",
            ));
        }
        let config: Self = Read::read(&parse(json)?, &Place::Root)?;
        validate::check(&config)?;
        Ok(config)
    }
}

// === impl HeadersConfig ===

impl Default for HeadersConfig {
    fn default() -> Self {
        Self {
            retry_after: true,
            limit: false,
            quota_policy: true,
            remaining: false,
            reset: false,
            rate_limit: false,
        }
    }
}

// === impl DenialConfig ===

impl Default for DenialConfig {
    fn default() -> Self {
        Self {
            status: 429,
            body: String::from("rate limited\n"),
            content_type: String::from("text/plain"),
            grpc_status: 8,
        }
    }
}

// === impl LedgerConfig ===

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            max_policy_customers: 8_192,
            max_other_customers: 8_192,
        }
    }
}
