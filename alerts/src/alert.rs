//! An alert: what it is about, how bad it is, and how much patience it takes.

use crate::stage::{Patience, Stage};
use serde::{Deserialize, Serialize};

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A model loses far more than it used to.
    ForecastLoss,
    /// Its upper quantile is exceeded too often.
    ForecastCoverage,
    /// Its loss has moved to another level.
    ForecastDrift,
    /// A gateway loses far more than the others.
    GatewayForecasts,
    /// A gateway has refused its model.
    ModelRefused,
    /// A gateway has no model and forecasts by the fallback.
    ModelMissing,
    /// A canary was taken back.
    CanaryTakenBack,
    /// A customer behaves as it never did.
    CustomerUnusual,
}

/// How bad it is. Nothing here is critical: without good forecasts the plain contract works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Somebody should look in working hours.
    Warning,
    /// Somebody may want to know.
    Info,
}

/// What an alert is about. Two with the same key are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// What holds.
    pub kind: Kind,
    /// At which gateway, if it is about one.
    pub gateway: Option<String>,
    /// Digest of the model that it is about.
    pub model: Option<String>,
    /// Of which customer, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Where it is.
    pub stage: Stage,
    /// What is wrong, in a line.
    pub summary: String,
    /// What that means and what to do.
    pub description: String,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ForecastLoss,
        Self::ForecastCoverage,
        Self::ForecastDrift,
        Self::GatewayForecasts,
        Self::ModelRefused,
        Self::ModelMissing,
        Self::CanaryTakenBack,
        Self::CustomerUnusual,
    ];

    /// Its name, as the label `alertname` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForecastLoss => "ForebayForecastLoss",
            Self::ForecastCoverage => "ForebayForecastCoverage",
            Self::ForecastDrift => "ForebayForecastDrift",
            Self::GatewayForecasts => "ForebayGatewayForecasts",
            Self::ModelRefused => "ForebayModelRefused",
            Self::ModelMissing => "ForebayModelMissing",
            Self::CanaryTakenBack => "ForebayCanaryTakenBack",
            Self::CustomerUnusual => "ForebayCustomerUnusual",
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::CanaryTakenBack => Severity::Info,
            _ => Severity::Warning,
        }
    }

    /// How many rounds it takes to fire and to end, on top of the rounds that its reading is about.
    #[must_use]
    pub const fn patience(self) -> Patience {
        let (hold, clear) = match self {
            Self::ForecastLoss | Self::GatewayForecasts => (5, 10),
            Self::ForecastCoverage => (10, 10),
            // What was found stays for blocks of rounds, and is told once; a customer's flag has had its patience.
            Self::ForecastDrift | Self::CanaryTakenBack | Self::CustomerUnusual => (0, 0),
            Self::ModelRefused => (2, 2),
            // A model is fetched within some rounds.
            Self::ModelMissing => (10, 2),
        };
        Patience { hold, clear }
    }
}

// === impl Severity ===

impl Severity {
    /// Its name, as the label `severity` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}
