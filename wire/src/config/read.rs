//! Readers of the plugin configuration, in the order of its types.

use super::{
    AccessLogConfig, AwaitPolicyConfig, ChargeConfig, ColdStart, ConfigError, CostConfig,
    DenialConfig, HeaderCost, HeaderKey, HeaderMatch, HeadersConfig, KeyConfig, LedgerConfig,
    MatchConfig, MissingKey, PluginConfig, PropertyKey, RuleConfig, SettledCost, SharedRate,
    SourceAddressKey,
};
use crate::json::{Fields, Json, Place, Read, variant};

impl Read for PluginConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let known = [
            "version",
            "rules",
            "headers",
            "denial",
            "access_log",
            "policy",
            "control_plane",
            "ledger",
        ];
        let fields = Fields::of(json, place, &known)?;
        Ok(Self {
            version: fields.required("version")?,
            rules: fields.required("rules")?,
            headers: fields.or("headers", HeadersConfig::default())?,
            denial: fields.or("denial", DenialConfig::default())?,
            access_log: fields.or("access_log", AccessLogConfig::default())?,
            policy: fields.optional("policy")?,
            control_plane: fields.optional("control_plane")?,
            ledger: fields.or("ledger", LedgerConfig::default())?,
        })
    }
}

impl Read for RuleConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["name", "match", "key", "charges"])?;
        Ok(Self {
            name: fields.required("name")?,
            matches: fields.or("match", MatchConfig::default())?,
            key: fields.required("key")?,
            charges: fields.required("charges")?,
        })
    }
}

impl Read for MatchConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["path_prefix", "methods", "headers"])?;
        Ok(Self {
            path_prefix: fields.optional("path_prefix")?,
            methods: fields.or("methods", Vec::new())?,
            headers: fields.or("headers", Vec::new())?,
        })
    }
}

impl Read for HeaderMatch {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["name", "exact", "prefix", "present"])?;
        Ok(Self {
            name: fields.required("name")?,
            exact: fields.optional("exact")?,
            prefix: fields.optional("prefix")?,
            present: fields.optional("present")?,
        })
    }
}

impl Read for KeyConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let (name, content) = variant(
            json,
            place,
            &["header", "property", "source_address", "constant"],
        )?;
        let (content, inner) = (content.unwrap_or(&Json::Null), Place::Field(place, name));
        match name {
            "header" => HeaderKey::read(content, &inner).map(Self::Header),
            "property" => PropertyKey::read(content, &inner).map(Self::Property),
            "source_address" => SourceAddressKey::read(content, &inner).map(Self::SourceAddress),
            _ => String::read(content, &inner).map(Self::Constant),
        }
    }
}

impl Read for HeaderKey {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["name", "trusted", "missing"])?;
        Ok(Self {
            name: fields.required("name")?,
            trusted: fields.or("trusted", false)?,
            missing: fields.or("missing", MissingKey::default())?,
        })
    }
}

impl Read for PropertyKey {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["path", "missing"])?;
        Ok(Self {
            path: fields.required("path")?,
            missing: fields.or("missing", MissingKey::default())?,
        })
    }
}

impl Read for SourceAddressKey {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["prefix_len_v4", "prefix_len_v6"])?;
        let default = Self::default();
        Ok(Self {
            prefix_len_v4: fields.or("prefix_len_v4", default.prefix_len_v4)?,
            prefix_len_v6: fields.or("prefix_len_v6", default.prefix_len_v6)?,
        })
    }
}

impl Read for MissingKey {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        match variant(json, place, &["deny", "skip"])? {
            ("deny", _) => Ok(Self::Deny),
            _ => Ok(Self::Skip),
        }
    }
}

impl Read for ChargeConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["resource", "cost"])?;
        Ok(Self {
            resource: fields.required("resource")?,
            cost: fields.or("cost", CostConfig::default())?,
        })
    }
}

impl Read for CostConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let (name, content) = variant(json, place, &["constant", "header", "settle"])?;
        let (content, inner) = (content.unwrap_or(&Json::Null), Place::Field(place, name));
        match name {
            "constant" => Read::read(content, &inner).map(Self::Constant),
            "header" => HeaderCost::read(content, &inner).map(Self::Header),
            _ => SettledCost::read(content, &inner).map(Self::Settle),
        }
    }
}

impl Read for HeaderCost {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["name", "trusted", "default", "max"])?;
        Ok(Self {
            name: fields.required("name")?,
            trusted: fields.or("trusted", false)?,
            default: fields.or("default", super::cost::one())?,
            max: fields.required("max")?,
        })
    }
}

impl Read for SettledCost {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["estimate", "response_header", "max"])?;
        Ok(Self {
            estimate: fields.required("estimate")?,
            response_header: fields.required("response_header")?,
            max: fields.required("max")?,
        })
    }
}

impl Read for HeadersConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(
            json,
            place,
            &[
                "retry_after",
                "limit",
                "quota_policy",
                "remaining",
                "reset",
                "rate_limit",
            ],
        )?;
        let default = Self::default();
        Ok(Self {
            retry_after: fields.or("retry_after", default.retry_after)?,
            limit: fields.or("limit", default.limit)?,
            quota_policy: fields.or("quota_policy", default.quota_policy)?,
            remaining: fields.or("remaining", default.remaining)?,
            reset: fields.or("reset", default.reset)?,
            rate_limit: fields.or("rate_limit", default.rate_limit)?,
        })
    }
}

impl Read for DenialConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(
            json,
            place,
            &["status", "body", "content_type", "grpc_status"],
        )?;
        let default = Self::default();
        Ok(Self {
            status: fields.or("status", default.status)?,
            body: fields.or("body", default.body)?,
            content_type: fields.or("content_type", default.content_type)?,
            grpc_status: fields.or("grpc_status", default.grpc_status)?,
        })
    }
}

impl Read for AccessLogConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["verdict", "customer"])?;
        Ok(Self {
            verdict: fields.or("verdict", false)?,
            customer: fields.or("customer", false)?,
        })
    }
}

impl Read for AwaitPolicyConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["cold_start"])?;
        Ok(Self {
            cold_start: fields.or("cold_start", ColdStart::default())?,
        })
    }
}

impl Read for ColdStart {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        match variant(json, place, &["deny", "shared"])? {
            ("shared", content) => {
                let inner = Place::Field(place, "shared");
                SharedRate::read(content.unwrap_or(&Json::Null), &inner).map(Self::Shared)
            }
            _ => Ok(Self::Deny),
        }
    }
}

impl Read for SharedRate {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["rate_per_s", "burst"])?;
        Ok(Self {
            rate_per_s: fields.required("rate_per_s")?,
            burst: fields.required("burst")?,
        })
    }
}

impl Read for LedgerConfig {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(
            json,
            place,
            &["max_policy_customers", "max_other_customers"],
        )?;
        let default = Self::default();
        Ok(Self {
            max_policy_customers: fields
                .or("max_policy_customers", default.max_policy_customers)?,
            max_other_customers: fields.or("max_other_customers", default.max_other_customers)?,
        })
    }
}
