//! Whom a request is charged to.

use serde::{Deserialize, Serialize};

/// Where the customer's key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyConfig {
    /// A request header that something before this filter has verified.
    Header(HeaderKey),
    /// A property of the request, such as a claim of a verified token in dynamic metadata or filter state.
    Property(PropertyKey),
    /// The address of the client.
    SourceAddress(SourceAddressKey),
    /// One customer for all requests of the rule.
    Constant(String),
}

/// A request header as key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderKey {
    /// Name of the header, in lower case.
    pub name: String,
    /// Must be true: it says that no client can set this header, because a filter or listener before this one sets or verifies it.
    #[serde(default)]
    pub trusted: bool,
    /// What happens to a request without it.
    #[serde(default)]
    pub missing: MissingKey,
}

/// A property as key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PropertyKey {
    /// Path of the property, such as `["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", "sub"]`.
    pub path: Vec<String>,
    /// What happens to a request without it.
    #[serde(default)]
    pub missing: MissingKey,
}

/// The client's address as key, cut to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SourceAddressKey {
    /// Leading bits of an IPv4 address that count, 1 to 32.
    pub prefix_len_v4: u8,
    /// Leading bits of an IPv6 address that count, 1 to 128. One client often has a whole /64.
    pub prefix_len_v6: u8,
}

/// What happens to a request that matches a rule and has no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MissingKey {
    /// It is denied, with the reason `unknown`.
    #[default]
    Deny,
    /// The rule does not apply; later rules are tried.
    Skip,
}

// === impl SourceAddressKey ===

impl Default for SourceAddressKey {
    fn default() -> Self {
        Self {
            prefix_len_v4: 32,
            prefix_len_v6: 64,
        }
    }
}
