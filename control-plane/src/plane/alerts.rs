//! Alerts: once in each step what gateways have reported goes to the watch, and what fires to whoever tells people.
//!
//! As with a canary, it is done with whichever sync comes first in the second half of a step; and when somebody looks, so that alerts end
//! where no gateway syncs any more. What is usual takes days to learn, so it is written down every ten rounds and when the server stops, and whoever
//! leads next goes on with it. With each round was the worse alternative: a row of kilobytes to save what ten rounds add to a week. What
//! gateways say of themselves is not in it; it is said again with each sync.

use super::models::ModelBook;
use super::releases::Release;
use super::score::{Open, Score, Scores};
use super::session::{Session, Terms};
use super::sides::{are_by_resource, sums_of, typical};
use super::state::State;
use super::sync::round_at;
use super::{Now, Plane};
use crate::alertmanager::{Notice, Notified, Notifier};
use crate::anomaly::Book as Anomalies;
use crate::buckets::Standing;
use crate::models::hex;
use crate::store::{Batch, Store, StoreError, Table};
use forebay_alerts::{
    FoundDrift, GatewayRound, ModelRound, Refusal, Round, UnusualCustomer, Watch,
};
use forebay_core::fleet::Presence;
use forebay_wire::model::ModelDigest;
use forebay_wire::sync::ModelState;
use hashbrown::HashSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long it is news that a canary was taken back.
const NEWS_MS: u64 = 86_400_000;

/// The key of what is usual in the store.
const META_ALERTS: &[u8] = b"alerts";

/// Customers that alerts are given at most.
const UNUSUAL_MOST: usize = 64;

/// Rounds after which it is written down again.
const SAVED_ROUNDS: u64 = 10;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Alerts {
    watch: Watch,
    /// The round that is running.
    round: u64,
    /// The one in which it was written down.
    saved: u64,
}

/// All alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertsView {
    /// Alerts by name, gateway and model.
    pub alerts: Vec<AlertView>,
    /// The newest drift of forecasts that was found; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_drift: Option<DriftView>,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertView {
    /// Its name.
    pub name: String,
    /// `warning` or `info`.
    pub severity: String,
    /// `pending`, `firing`, or `resolved` for some steps.
    pub state: String,
    /// The gateway that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// SHA-256 of the model that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `hash:` and the hash of the customer that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// Since when it is pending, or fires, or has fired.
    pub since_unix_ms: u64,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_unix_ms: Option<u64>,
    /// What is wrong, in a line.
    pub summary: String,
    /// What that means and what to do.
    pub description: String,
}

/// A drift that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftView {
    /// SHA-256 of the model whose loss has moved to another level.
    pub model: String,
    /// When that was found.
    pub found_unix_ms: u64,
}

// === impl Alerts ===

impl Alerts {
    /// Goes on with what the store knows. One that cannot be read is only something to be learned again.
    pub(super) fn load(store: &dyn Store, step_ms: u32, now: Now) -> Result<Self, StoreError> {
        let mut watch = Watch::new(step_ms);
        if let Some(row) = store.get(Table::Meta, META_ALERTS)? {
            match serde_json::from_slice(&row) {
                Ok(memory) => watch.recall(memory),
                Err(error) => {
                    tracing::error!(%error, "what is usual for forecasts cannot be read from the store, and is learned anew");
                }
            }
        }
        let round = round_at(now, step_ms);
        Ok(Self {
            watch,
            round,
            saved: round,
        })
    }

    /// Adds what is usual to a batch.
    pub(super) fn save(&mut self, batch: &mut Batch) {
        match serde_json::to_vec(&self.watch.remember()) {
            Ok(row) => batch.put(Table::Meta, META_ALERTS, row),
            Err(error) => {
                tracing::error!(%error, "what is usual for forecasts cannot be written down");
            }
        }
        self.saved = self.round;
    }

    /// The same, if it was last done some rounds ago.
    pub(super) fn save_sometimes(&mut self, batch: &mut Batch) {
        if self.round.abs_diff(self.saved) >= SAVED_ROUNDS {
            self.save(batch);
        }
    }

    /// Alerts that fire, by name.
    #[must_use]
    pub fn firing(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for (key, alert) in self.watch.alerts() {
            if alert.stage.is_firing() {
                let count: &mut u64 = counts.entry(key.kind.name()).or_default();
                *count = count.saturating_add(1);
            }
        }
        counts
    }

    fn notices(&self) -> Vec<Notice> {
        let firing = self.watch.alerts().filter_map(|(key, alert)| {
            let forebay_alerts::Stage::Firing { since_unix_ms, .. } = alert.stage else {
                return None;
            };
            Some(Notice {
                key: key.clone(),
                since_unix_ms,
                summary: alert.summary.clone(),
                description: alert.description.clone(),
            })
        });
        firing.collect()
    }
}

impl Plane {
    /// Has people told of alerts from now on.
    #[must_use]
    pub fn notified_by(mut self, notifier: Notifier) -> Self {
        self.notifier = Some(notifier);
        self
    }

    /// What Alertmanagers were told, if there are any.
    #[must_use]
    pub fn notified(&self) -> Option<Vec<Notified>> {
        Some(self.notifier.as_ref()?.notified())
    }

    /// All alerts, those among them that are pending or were resolved lately.
    #[must_use]
    pub fn alerts(&self) -> AlertsView {
        let now = self.now();
        let mut state = self.lock();
        self.watch_alerts(&mut state, now);
        let watch = &state.alerts.watch;
        AlertsView {
            alerts: watch.alerts().map(AlertView::of).collect(),
            newest_drift: watch.drift_since(0).map(DriftView::of),
        }
    }

    /// The newest drift of a model's forecasts that was found at that time or later.
    #[must_use]
    pub fn drift_since(&self, unix_ms: u64) -> Option<DriftView> {
        let state = self.lock();
        state.alerts.watch.drift_since(unix_ms).map(DriftView::of)
    }

    /// Lets the watch see the round that is over, if one is.
    pub(super) fn watch_alerts(&self, state: &mut State, now: Now) {
        let round = round_at(now, self.settings.step_ms);
        if round == state.alerts.round || state.is_stopped {
            return;
        }
        let mut seen = close_round(state, self.settings.terms(), round, now);
        seen.unusual = unusual(&self.anomaly_book());
        state.alerts.round = round;
        state.alerts.watch.observe(&seen);
        if let Some(notifier) = &self.notifier {
            notifier.set(state.alerts.notices(), now.unix_ms);
        }
    }
}

// === impl AlertView ===

impl AlertView {
    fn of((key, alert): (&forebay_alerts::Key, &forebay_alerts::Alert)) -> Self {
        use forebay_alerts::Stage::{Firing, Pending, Resolved};
        let (since_unix_ms, resolved_unix_ms) = match alert.stage {
            Pending { since_unix_ms, .. } | Firing { since_unix_ms, .. } => (since_unix_ms, None),
            Resolved {
                since_unix_ms,
                resolved_unix_ms,
                ..
            } => (since_unix_ms, Some(resolved_unix_ms)),
        };
        Self {
            name: key.kind.name().to_owned(),
            severity: key.kind.severity().name().to_owned(),
            state: alert.stage.name().to_owned(),
            gateway: key.gateway.clone(),
            model: key.model.clone(),
            customer: key.customer.clone(),
            since_unix_ms,
            resolved_unix_ms,
            summary: alert.summary.clone(),
            description: alert.description.clone(),
        }
    }
}

// === impl DriftView ===

impl DriftView {
    fn of(drift: &FoundDrift) -> Self {
        Self {
            model: drift.model.clone(),
            found_unix_ms: drift.unix_ms,
        }
    }
}

/// What has matured in the round that is over, by gateway and by model of the registry. Every session begins the next one.
fn close_round(state: &mut State, terms: Terms, next: u64, now: Now) -> Round {
    let (open, next) = (Open::at(state.alerts.round), Open::at(next));
    let book = &state.models;
    let mut gateways = Vec::new();
    let mut by_model: BTreeMap<ModelDigest, Vec<Score>> = BTreeMap::new();
    for (id, session) in state.fleet.named_sessions_mut() {
        let matured = matured(&session.watched, &open);
        session.watched.next_round(&open, &next);
        if session.standing(terms, now.mono) != Standing::Present(Presence::Live) {
            continue;
        }
        let runs = ModelDigest::try_from(session.model_status.digest.as_slice()).ok();
        let runs = runs.filter(|digest| book.models.contains_key(digest));
        let score = matured.filter(|(of, _)| Some(*of) == runs);
        if let Some(digest) = runs {
            let scores = by_model.entry(digest).or_default();
            scores.extend(score.map(|(_, score)| score));
        }
        let gateway = GatewayRound {
            gateway: id.to_owned(),
            model: runs.map(|digest| hex(&digest)),
            ..said(book, id, session)
        };
        gateways.push((gateway, score));
    }
    let of_model = |digest: &ModelDigest| by_model.get(digest).map_or(&[][..], Vec::as_slice);
    let gateways = gateways.into_iter().map(|(gateway, score)| GatewayRound {
        // As the others by the same model say it.
        sums: score
            .and_then(|(digest, score)| sums_of(&score, are_by_resource(of_model(&digest).iter()))),
        ..gateway
    });
    let models = by_model.iter().map(|(digest, scores)| ModelRound {
        model: hex(digest),
        sums: typical(scores),
    });
    Round {
        unix_ms: now.unix_ms,
        models: models.collect(),
        gateways: gateways.collect(),
        taken_back: taken_back(book, now).map(|release| release.digest.clone()),
        unusual: Vec::new(),
    }
}

/// Customers that behave as they never did, the worst first.
fn unusual(book: &Anomalies) -> Vec<UnusualCustomer> {
    let (mut named, capped) = (HashSet::new(), book.capped());
    let flags = book.worst().into_iter();
    let flags = flags.filter(|flag| named.insert(flag.series.customer));
    let unusual = flags.take(UNUSUAL_MOST).map(|flag| UnusualCustomer {
        customer: format!("hash:{}", flag.series.customer),
        says: flag.says(),
        is_capped: capped.contains(&flag.series.customer),
    });
    unusual.collect()
}

/// What has matured at a gateway that is warm.
fn matured(scores: &Scores, open: &Open) -> Option<(ModelDigest, Score)> {
    let matured = scores.in_round(open)?;
    (scores.warm_up_left() == 0).then_some(matured)
}

/// What a gateway says of the model that it is to run. One that has never said anything of models is no forecaster.
fn said(book: &ModelBook, id: &str, session: &Session) -> GatewayRound {
    let status = &session.model_status;
    let offer = book
        .offer(id)
        .filter(|offer| status.offered_epoch == offer.epoch);
    let model = offer.and_then(|offer| ModelDigest::try_from(offer.digest.as_slice()).ok());
    let Some(model) = model.map(|digest| hex(&digest)) else {
        return GatewayRound::default();
    };
    if status.state() == ModelState::Refused {
        return GatewayRound {
            refusal: Some(Refusal {
                model,
                reason: status.message.clone(),
            }),
            ..GatewayRound::default()
        };
    }
    GatewayRound {
        lacks: status.digest.is_empty().then_some(model),
        ..GatewayRound::default()
    }
}

/// The canary that was taken back, if that was the last thing to happen to models.
fn taken_back(book: &ModelBook, now: Now) -> Option<&Release> {
    let mut newest = book.releases.values().rev();
    let back = newest.next().filter(|release| release.roll_back)?;
    let withdrawn = newest.next().filter(|release| release.withdrawn)?;
    let age_ms = now.unix_ms.saturating_sub(back.activated_at_unix_ms);
    (age_ms < NEWS_MS).then_some(withdrawn)
}
