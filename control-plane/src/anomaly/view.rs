//! What the API says of anomalies.

use super::book::{Book, Flag};
use forebay_anomaly::{Action, Evidence, Kind};
use forebay_wire::key::CustomerHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Anomalies in one answer.
const MAX_LISTED: usize = 1_000;
/// JSON has no infinity.
const NUMBER_MOST: f64 = 1e12;

/// Which anomalies are wanted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnomaliesQuery {
    /// Of this customer only: its key, or `hash:` and its hash.
    #[serde(default)]
    pub customer: Option<String>,
    /// Of this kind only: `unusual` or `crowd`.
    #[serde(default)]
    pub kind: Option<AnomalyKind>,
    /// `hash:` and the hash of a customer: those behind it.
    #[serde(default)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Whether somebody is alone with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyKind {
    /// Unlike its past, and nobody else's is.
    Unusual,
    /// Unlike its past, by a known event or with the others: nothing follows.
    Crowd,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlagAction {
    /// People are told.
    Flag,
    /// And it is allocated nothing beyond its contract's rate.
    CapAtContract,
}

/// The same, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) only: Option<CustomerHash>,
    pub(crate) kind: Option<AnomalyKind>,
    pub(crate) after: Option<CustomerHash>,
    pub(crate) limit: Option<usize>,
}

/// Customers that behave as they never did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnomaliesView {
    /// When the step that was judged last began; absent where nobody is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_unix_ms: Option<u64>,
    /// Series (of a customer and a resource) that are watched.
    pub watched: usize,
    /// Those among them that are not judged yet: the first week of each.
    pub learning: usize,
    /// Series that there was no room for.
    pub left_out: usize,
    /// By customer and resource.
    pub anomalies: Vec<AnomalyView>,
}

/// A customer that behaves as it never did in a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnomalyView {
    /// `hash:` and the customer's hash.
    pub customer: String,
    /// Name of its contract.
    pub contract: String,
    /// Name of the resource.
    pub resource: String,
    /// Whether it is alone with it.
    pub kind: AnomalyKind,
    /// Since when.
    pub since_unix_ms: u64,
    /// The highest sign that is not explained, as a share of what it takes to be flagged.
    pub score: f64,
    /// What follows; nothing in a crowd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<FlagAction>,
    /// What spoke for it last; empty after a restart until something speaks again.
    pub evidence: Vec<EvidenceView>,
}

/// A sign that is beyond the customer's own past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceView {
    /// `burst`, `rise`, `level`, `forecast`, `denied` or `keys`.
    pub sign: String,
    /// As a multiple of what is usual; of `denied`, the share that was denied.
    pub times: f64,
    /// Robust standard deviations above what is usual.
    pub z: f64,
    /// On what share of its past days the sign was as high.
    pub p: f64,
    /// The same in words.
    pub says: String,
}

// === impl AnomalyKind ===

impl AnomalyKind {
    fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Normal => None,
            Kind::Unusual => Some(Self::Unusual),
            Kind::Crowd => Some(Self::Crowd),
        }
    }
}

// === impl EvidenceView ===

impl EvidenceView {
    pub(super) fn of(evidence: Evidence) -> Self {
        Self {
            sign: evidence.sign.name().to_owned(),
            times: number(evidence.times),
            z: number(evidence.z),
            p: number(evidence.p),
            says: evidence.to_string(),
        }
    }
}

fn number(value: f64) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    value.clamp(-NUMBER_MOST, NUMBER_MOST)
}

// === impl Flag ===

impl Flag {
    /// What speaks for it, in words.
    pub(crate) fn says(&self) -> String {
        let all = self.evidence.iter();
        let all: Vec<&str> = all.map(|evidence| evidence.says.as_str()).collect();
        match all.as_slice() {
            [] => "its signs before the restart are not known any more".to_owned(),
            all => all.join("; "),
        }
    }
}

// === impl Book ===

impl Book {
    /// What is wanted of it.
    pub(crate) fn view(&self, wanted: &Wanted) -> AnomaliesView {
        let flags = self.flags.iter().filter_map(|flag| {
            let customer = flag.series.customer;
            let kind = AnomalyKind::of(flag.kind)?;
            let is_wanted = wanted.only.is_none_or(|only| only == customer)
                && wanted.after.is_none_or(|after| customer > after)
                && wanted.kind.is_none_or(|wanted| wanted == kind);
            is_wanted.then(|| AnomalyView {
                customer: format!("hash:{customer}"),
                contract: flag.contract.clone(),
                resource: self.name_of(flag.series.resource).to_owned(),
                kind,
                since_unix_ms: flag.since_unix_ms,
                score: number(flag.score),
                action: flag.action.map(|action| match action {
                    Action::Flag => FlagAction::Flag,
                    Action::CapAtContract => FlagAction::CapAtContract,
                }),
                evidence: flag.evidence.clone(),
            })
        });
        let most = wanted.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
        // A customer's resources stay together, so that the next page begins with the next customer.
        let mut anomalies: Vec<AnomalyView> = Vec::new();
        let mut customers = 0;
        for anomaly in flags {
            let is_next = anomalies
                .last()
                .is_none_or(|last| last.customer != anomaly.customer);
            customers += usize::from(is_next);
            if customers > most {
                break;
            }
            anomalies.push(anomaly);
        }
        AnomaliesView {
            step_unix_ms: self.step.map(|(_, unix_ms)| unix_ms),
            watched: self.counts.watched,
            learning: self.counts.learning,
            left_out: self.counts.left_out,
            anomalies,
        }
    }
}
