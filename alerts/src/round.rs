//! What is known at the end of a round, as it comes in.

use serde::{Deserialize, Serialize};

/// Resources that are told apart: as many as a deployment has.
pub const RESOURCES_MOST: usize = 4;

/// What has matured, at the typical gateway: all gateways forecast the same usage, so that more of them say nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Forecasts.
    pub matured: f64,
    /// Those whose 0.9 quantile was not exceeded.
    pub covered: f64,
    /// Losses by resource: tokens of two resources are no amounts that can be added up.
    pub losses: [Losses; RESOURCES_MOST],
}

/// Losses of the forecasts of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// Pinball loss of the 0.9 quantile, in tokens.
    pub loss: f64,
    /// What was used, in tokens.
    pub usage: f64,
}

/// A round: about a step of usage history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// When it ended.
    pub unix_ms: u64,
    /// Models that run somewhere.
    pub models: Vec<ModelRound>,
    /// Gateways whose lease is live.
    pub gateways: Vec<GatewayRound>,
    /// The model that was taken back as a canary, while that is news.
    pub taken_back: Option<String>,
    /// Customers that behave as they never did, the worst first.
    pub unusual: Vec<UnusualCustomer>,
}

/// A customer that behaves as it never did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnusualCustomer {
    /// How it is named.
    pub customer: String,
    /// What speaks for it.
    pub says: String,
    /// Whether it is allocated nothing beyond its contract.
    pub is_capped: bool,
}

/// A model in a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelRound {
    /// Its digest.
    pub model: String,
    /// What has matured; `None` while no gateway is warm.
    pub sums: Option<Sums>,
}

/// A gateway in a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayRound {
    /// Its name.
    pub gateway: String,
    /// What it runs.
    pub model: Option<String>,
    /// What has matured; `None` while it is not warm.
    pub sums: Option<Sums>,
    /// What it has refused, if that is what it is to run.
    pub refusal: Option<Refusal>,
    /// The model that it is to run, where it runs none.
    pub lacks: Option<String>,
}

/// A model that a gateway will not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Its digest.
    pub model: String,
    /// What the gateway says.
    pub reason: String,
}

// === impl Sums ===

impl Sums {
    /// Of a deployment with one resource.
    #[must_use]
    pub const fn of_one(matured: f64, covered: f64, loss: f64, usage: f64) -> Self {
        const NONE: Losses = Losses {
            loss: 0.0,
            usage: 0.0,
        };
        Self {
            matured,
            covered,
            losses: [Losses { loss, usage }, NONE, NONE, NONE],
        }
    }

    /// Whether these can be sums.
    pub(crate) fn can_be(&self) -> bool {
        let losses = self.losses.iter();
        let losses = losses.flat_map(|losses| [losses.loss, losses.usage]);
        losses
            .chain([self.matured, self.covered])
            .all(|sum| (0.0..f64::INFINITY).contains(&sum))
    }
}

// === impl Losses ===

impl Losses {
    /// Both together.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            loss: self.loss + other.loss,
            usage: self.usage + other.usage,
        }
    }

    /// Whether anything is said.
    pub(crate) fn is_some(&self) -> bool {
        self.loss > 0.0 || self.usage > 0.0
    }

    /// The logarithm of loss per unit of usage; `None` while nothing was used. Losses are of many sizes and have long tails, their
    /// logarithms have not.
    pub(crate) fn log_loss(&self) -> Option<f64> {
        /// Forecasts that were never wrong are as good as this.
        const RATIO_MIN: f64 = 1e-9;
        (self.usage > 0.0)
            .then(|| (self.loss / self.usage).max(RATIO_MIN).ln())
            .filter(|value| value.is_finite())
    }
}
