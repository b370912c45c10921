//! The configuration of the forecaster plugin.
//!
//! One small document, because Envoy keeps every version of a plugin's configuration in memory: policies, windows and models come by
//! sync and never by configuration. Unknown fields are refused with their path: a misspelt bound that is silently ignored is found only
//! in production.

use serde::{Deserialize, Serialize};

use crate::config::LedgerConfig;

/// The version of the document that this build reads.
pub const FORECASTER_CONFIG_VERSION: u32 = 1;

/// Configuration of the forecaster, one per gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForecasterConfig {
    /// Version of this document; 1.
    pub version: u32,
    /// Where to synchronise. Absent: the gateway forecasts for itself from its own traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlaneConfig>,
    /// When the forecaster works and for how long at once.
    #[serde(default)]
    pub tick: TickConfig,
    /// What calendar the forecasts see.
    #[serde(default)]
    pub calendar: CalendarConfig,
    /// How many usage series are kept.
    #[serde(default)]
    pub series: SeriesConfig,
    /// How forecasts become shadow refills.
    #[serde(default)]
    pub shadow: ShadowConfig,
    /// Which models are accepted.
    #[serde(default)]
    pub model: ModelConfig,
    /// Size of the ledger, should the policy of the control plane come before any other has seeded one.
    #[serde(default)]
    pub ledger: LedgerConfig,
}

/// The control plane as this gateway reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ControlPlaneConfig {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// Value of the `:authority` header.
    #[serde(default = "default_authority")]
    pub authority: String,
    /// Name of this gateway in the fleet. Absent: the environment variable `FOREBAY_GATEWAY_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
    /// What shows the control plane that this is a gateway.
    #[serde(default)]
    pub credential: Credential,
    /// Time between two syncs, 50 to 10 000 ms.
    #[serde(default = "default_sync_interval_ms")]
    pub sync_interval_ms: u32,
    /// When an unanswered sync counts as failed, 50 to 30 000 ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
    /// Customers in one sync at most, 16 to 4 096.
    #[serde(default = "default_batch_customers")]
    pub batch_customers: u32,
}

/// What shows the control plane that somebody is a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The environment variable `FOREBAY_GATEWAY_TOKEN`, beside a certificate if the cluster has one.
    #[default]
    Token,
    /// The certificate of the cluster's `transport_socket` alone.
    Certificate,
}

/// The forecaster's timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TickConfig {
    /// Time between two ticks, 5 to 1 000 ms.
    pub period_ms: u32,
    /// Time after which a tick starts no further piece of work, 200 to 2 000 us. It runs on Envoy's main thread.
    pub budget_us: u32,
}

/// The calendar that forecasts see: the wall clock, or a replayed past at another speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CalendarConfig {
    /// Calendar seconds per second, 1 to 86 400. Above 1 only for replays: a step of the model then lasts `step_s / speed_up`.
    pub speed_up: u32,
    /// Unix time, in ms, at which the replay starts on the wall clock. 0: no replay.
    pub wall_start_ms: u64,
    /// Unix time, in ms, that the calendar shows at `wall_start_ms`.
    pub calendar_start_ms: u64,
}

/// Bounds of the usage series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SeriesConfig {
    /// Series, one per customer and resource, kept at most; 1 to 65 536. The longest idle one makes room.
    pub max_series: u32,
    /// Calendar seconds per step while no model says otherwise, 1 to 3 600.
    pub step_s: u32,
}

/// From a forecast to the refill of a shadow bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ShadowConfig {
    /// False: every shadow refill is 0, so that its effect can be measured.
    pub enabled: bool,
    /// A forecast is never above this multiple of the series' trailing maximum, 1 to 100.
    pub cap_factor: f32,
    /// Refill of a customer that deviates, as a multiple of what was forecast, 1 to 10. 1: no raise.
    pub deviation_raise: f32,
    /// Time in which half of a raise is gone, 100 to 600 000 ms.
    pub deviation_half_life_ms: u32,
}

/// Which model files this gateway loads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Ed25519 public keys, 64 hexadecimal digits each, at most 4. A model is loaded when one of them verifies its signature. None: no model
    /// is loaded and forecasts come from the fallback.
    pub public_keys: Vec<String>,
    /// Largest model file, 1 024 to 16 777 216 bytes.
    pub max_bytes: u32,
}

/// What is wrong with a forecaster configuration.
#[derive(Debug, thiserror::Error)]
pub enum ForecasterConfigError {
    /// It is not JSON, or does not have the shape; the path is part of the text.
    #[error("forecaster configuration: {path}: {reason}")]
    Shape {
        /// Path of the field, `.` for the document.
        path: String,
        /// What the parser says.
        reason: String,
    },
    /// A field is out of its range.
    #[error("forecaster configuration: {path}: {reason}")]
    Range {
        /// Path of the field.
        path: &'static str,
        /// What is allowed, and what was found.
        reason: String,
    },
}

fn default_authority() -> String {
    "forebay-control-plane".to_string()
}

fn default_sync_interval_ms() -> u32 {
    250
}

fn default_timeout_ms() -> u32 {
    2_000
}

fn default_batch_customers() -> u32 {
    1_024
}

// === impl ForecasterConfig ===

impl ForecasterConfig {
    /// Reads and checks a document: JSON, or a protobuf `Struct` as Envoy hands it over.
    ///
    /// # Errors
    /// Says which field is wrong and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ForecasterConfigError> {
        let json = crate::structured::json_text(bytes);
        let mut reader = serde_json::Deserializer::from_slice(&json);
        let config: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            ForecasterConfigError::Shape {
                path: error.path().to_string(),
                reason: error.inner().to_string(),
            }
        })?;
        reader.end().map_err(|error| ForecasterConfigError::Shape {
            path: ".".to_string(),
            reason: error.to_string(),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ForecasterConfigError> {
        within(
            "version",
            self.version,
            FORECASTER_CONFIG_VERSION,
            FORECASTER_CONFIG_VERSION,
        )?;
        if let Some(control_plane) = &self.control_plane {
            control_plane.check()?;
        }
        within("tick.period_ms", self.tick.period_ms, 5, 1_000)?;
        within("tick.budget_us", self.tick.budget_us, 200, 2_000)?;
        within("calendar.speed_up", self.calendar.speed_up, 1, 86_400)?;
        if self.calendar.speed_up > 1 && self.calendar.wall_start_ms == 0 {
            return Err(ForecasterConfigError::Range {
                path: "calendar.wall_start_ms",
                reason: "a replay (speed_up above 1) needs the time at which it starts".to_string(),
            });
        }
        within("series.max_series", self.series.max_series, 1, 65_536)?;
        within("series.step_s", self.series.step_s, 1, 3_600)?;
        within("shadow.cap_factor", self.shadow.cap_factor, 1.0, 100.0)?;
        within(
            "shadow.deviation_raise",
            self.shadow.deviation_raise,
            1.0,
            10.0,
        )?;
        within(
            "shadow.deviation_half_life_ms",
            self.shadow.deviation_half_life_ms,
            100,
            600_000,
        )?;
        within("model.max_bytes", self.model.max_bytes, 1_024, 16_777_216)?;
        within("model.public_keys", self.model.public_keys.len(), 0, 4)?;
        for key in &self.model.public_keys {
            if key.len() != 64 || !key.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(ForecasterConfigError::Range {
                    path: "model.public_keys",
                    reason: "a key is 64 hexadecimal digits; `forebay model keygen` printed the one to paste here".to_string(),
                });
            }
        }
        Ok(())
    }
}

// === impl ControlPlaneConfig ===

impl ControlPlaneConfig {
    fn check(&self) -> Result<(), ForecasterConfigError> {
        within("control_plane.cluster (length)", self.cluster.len(), 1, 256)?;
        within(
            "control_plane.authority (length)",
            self.authority.len(),
            1,
            256,
        )?;
        if let Some(gateway_id) = &self.gateway_id {
            within(
                "control_plane.gateway_id (length)",
                gateway_id.len(),
                1,
                128,
            )?;
        }
        within(
            "control_plane.sync_interval_ms",
            self.sync_interval_ms,
            50,
            10_000,
        )?;
        within("control_plane.timeout_ms", self.timeout_ms, 50, 30_000)?;
        within(
            "control_plane.batch_customers",
            self.batch_customers,
            16,
            4_096,
        )
    }
}

// === impl defaults ===

impl Default for TickConfig {
    fn default() -> Self {
        Self {
            period_ms: 20,
            budget_us: 1_200,
        }
    }
}

impl Default for CalendarConfig {
    fn default() -> Self {
        Self {
            speed_up: 1,
            wall_start_ms: 0,
            calendar_start_ms: 0,
        }
    }
}

impl Default for SeriesConfig {
    fn default() -> Self {
        Self {
            max_series: 10_000,
            step_s: 60,
        }
    }
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            cap_factor: 3.0,
            deviation_raise: 1.5,
            deviation_half_life_ms: 5_000,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            public_keys: Vec::new(),
            max_bytes: 4 * 1_024 * 1_024,
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    path: &'static str,
    found: T,
    least: T,
    most: T,
) -> Result<(), ForecasterConfigError> {
    // Written so that a NaN is refused too.
    if found >= least && found <= most {
        return Ok(());
    }
    Err(ForecasterConfigError::Range {
        path,
        reason: format!("must be between {least} and {most}, found {found}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_document_gets_the_documented_defaults() {
        let config =
            ForecasterConfig::parse(br#"{"version": 1, "control_plane": {"cluster": "forebay"}}"#)
                .unwrap();
        let control_plane = config.control_plane.unwrap();
        assert_eq!(control_plane.sync_interval_ms, 250);
        assert_eq!(config.tick, TickConfig::default());
        assert!(config.shadow.enabled);
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path() {
        let error = ForecasterConfig::parse(br#"{"version": 1, "tick": {"period": 20}}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("tick"), "{error}");
        assert!(error.contains("period"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_path_and_range() {
        for (document, path) in [
            (r#"{"version": 2}"#, "version"),
            (
                r#"{"version": 1, "tick": {"budget_us": 50000}}"#,
                "tick.budget_us",
            ),
            (
                r#"{"version": 1, "calendar": {"speed_up": 60}}"#,
                "calendar.wall_start_ms",
            ),
            (
                r#"{"version": 1, "model": {"public_keys": ["12"]}}"#,
                "model.public_keys",
            ),
            (
                r#"{"version": 1, "control_plane": {"cluster": ""}}"#,
                "control_plane.cluster",
            ),
            (
                r#"{"version": 1, "control_plane": {"cluster": "c", "sync_interval_ms": 1}}"#,
                "sync_interval_ms",
            ),
        ] {
            let error = ForecasterConfig::parse(document.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(ForecasterConfig::parse(br#"{"version": 1} {}"#).is_err());
    }
}
