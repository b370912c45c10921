//! The parts of the configuration that are looked at for each request.

use forebay_wire::config::{AccessLogConfig, DenialConfig, HeadersConfig, PluginConfig};

use crate::rate_headers;

/// What the client is told, and what access logs can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) headers: HeadersConfig,
    pub(crate) denial: DenialConfig,
    pub(crate) access_log: AccessLogConfig,
    /// Whether responses carry any rate-limit header.
    pub(crate) has_rate_headers: bool,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn compile(config: &PluginConfig) -> Self {
        Self {
            headers: config.headers.clone(),
            denial: config.denial.clone(),
            access_log: config.access_log.clone(),
            has_rate_headers: rate_headers::any(&config.headers),
        }
    }
}
