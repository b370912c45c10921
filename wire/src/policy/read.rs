//! Readers of the policy document for the plugin (see [`crate::json`]), in the order of its types.
//!
//! What only a control plane does (sharing, groups, lending, anomalies) is unknown here: a gateway that stands alone would take it and do nothing.

use super::{
    Contention, Contract, Customer, Decimal, Limit, Named, PolicyDocument, Resource, Shadow,
    Unknown, UnknownAction,
};
use crate::config::ConfigError;
use crate::json::{Fields, Json, Place, Read, variant};

impl Read for PolicyDocument {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let known = [
            "version",
            "dry_run",
            "unknown",
            "resources",
            "shadow",
            "contracts",
            "customers",
        ];
        let fields = Fields::of(json, place, &known)?;
        Ok(Self {
            version: fields.required("version")?,
            dry_run: fields.or("dry_run", false)?,
            unknown: fields.or("unknown", Unknown::default())?,
            resources: fields.required::<Named<Resource>>("resources")?,
            shadow: fields.or("shadow", Shadow::default())?,
            sharing: None,
            anomaly: None,
            events: Vec::new(),
            groups: Named::default(),
            contracts: fields.required::<Named<Contract>>("contracts")?,
            customers: fields.or("customers", Vec::new())?,
        })
    }
}

impl Read for Unknown {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(
            json,
            place,
            &["action", "contract", "prefix_len_v4", "prefix_len_v6"],
        )?;
        Ok(Self {
            action: fields.or("action", UnknownAction::default())?,
            contract: fields.optional("contract")?,
            prefix_len_v4: fields.optional("prefix_len_v4")?,
            prefix_len_v6: fields.optional("prefix_len_v6")?,
        })
    }
}

impl Read for UnknownAction {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        match variant(json, place, &["default_contract", "commons", "deny"])? {
            ("default_contract", _) => Ok(Self::DefaultContract),
            ("commons", _) => Ok(Self::Commons),
            _ => Ok(Self::Deny),
        }
    }
}

impl Read for Resource {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["capacity_per_s", "depth_ms"])?;
        Ok(Self {
            capacity_per_s: fields.optional("capacity_per_s")?,
            depth_ms: fields.optional("depth_ms")?,
        })
    }
}

impl Read for Shadow {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let known = [
            "enabled",
            "quantile",
            "span_ms",
            "depth_factor",
            "protected_share",
            "contention",
        ];
        let fields = Fields::of(json, place, &known)?;
        let default = Self::default();
        Ok(Self {
            enabled: fields.or("enabled", default.enabled)?,
            quantile: fields.or("quantile", default.quantile)?,
            span_ms: fields.or("span_ms", default.span_ms)?,
            depth_factor: fields.or("depth_factor", default.depth_factor)?,
            protected_share: fields.or("protected_share", default.protected_share)?,
            contention: fields.or("contention", default.contention)?,
        })
    }
}

impl Read for Contention {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["window_ms", "needed", "windows"])?;
        let default = Self::default();
        Ok(Self {
            window_ms: fields.or("window_ms", default.window_ms)?,
            needed: fields.or("needed", default.needed)?,
            windows: fields.or("windows", default.windows)?,
        })
    }
}

impl Read for Contract {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let fields = Fields::of(json, place, &["tier", "priority", "weight", "limits"])?;
        Ok(Self {
            tier: fields.or("tier", super::one_u8())?,
            priority: fields.or("priority", 0)?,
            weight: fields.or("weight", super::one_u32())?,
            anomaly: None,
            limits: fields.required("limits")?,
        })
    }
}

impl Read for Limit {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let known = [
            "rate_per_s",
            "burst",
            "guarantee_per_s",
            "ceiling_per_s",
            "debt_limit",
            "borrow_limit",
        ];
        let fields = Fields::of(json, place, &known)?;
        Ok(Self {
            rate_per_s: fields.required("rate_per_s")?,
            burst: fields.required("burst")?,
            guarantee_per_s: fields.or("guarantee_per_s", Decimal::ZERO)?,
            ceiling_per_s: fields.optional("ceiling_per_s")?,
            debt_limit: fields.or("debt_limit", Decimal::ZERO)?,
            borrow_limit: fields.optional("borrow_limit")?,
            lend_limit_per_s: None,
        })
    }
}

impl Read for Customer {
    fn read(json: &Json, place: &Place<'_>) -> Result<Self, ConfigError> {
        let known = [
            "key",
            "contract",
            "banned",
            "ban_until_unix_s",
            "exempt",
            "frozen",
        ];
        let fields = Fields::of(json, place, &known)?;
        Ok(Self {
            key: fields.required("key")?,
            contract: fields.required("contract")?,
            group: None,
            banned: fields.or("banned", false)?,
            ban_until_unix_s: fields.optional("ban_until_unix_s")?,
            exempt: fields.or("exempt", false)?,
            frozen: fields.or("frozen", false)?,
        })
    }
}
