//! Everything that is watched, and the alerts that follow.

use crate::alert::{Alert, Key, Kind};
use crate::peers::Peers;
use crate::reference::learned_rounds;
use crate::round::{ModelRound, Round};
use crate::series::Series;
use crate::stage::{Reading, Stage};
use crate::words::Words;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Models that are watched: as many as the registry holds.
const MAX_MODELS: usize = 64;
/// Gateways that are: as many as a server works with.
const MAX_GATEWAYS: usize = 1_024;
/// Alerts: all of all gateways and models.
const MAX_ALERTS: usize = 4 * MAX_GATEWAYS;
/// Customers that are told of one by one: of more, nobody reads them.
const MAX_UNUSUAL: usize = 64;
/// Drifts that are remembered.
const MAX_DRIFTS: usize = 64;
/// Rounds within which the gateways are here again that ran a model when another process watched it: as many as one of them needs to be warm.
const AWAITED_ROUNDS: u32 = 30;

/// What is watched of the fleet.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(crate) learned_rounds: u32,
    pub(crate) models: BTreeMap<String, Model>,
    peers: Peers,
    pub(crate) alerts: BTreeMap<Key, Alert>,
    /// Oldest first.
    pub(crate) drifts: VecDeque<FoundDrift>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) series: Series,
    /// Rounds since it ran somewhere.
    pub(crate) absent: u32,
    /// It ran when another process watched it, and no gateway has said yet that it does.
    pub(crate) is_awaited: bool,
}

/// A drift that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDrift {
    /// When.
    pub unix_ms: u64,
    /// Digest of the model whose loss has moved.
    pub model: String,
}

// === impl Watch ===

impl Watch {
    /// Begins to watch rounds that are a step long each.
    #[must_use]
    pub fn new(step_ms: u32) -> Self {
        Self {
            learned_rounds: learned_rounds(step_ms),
            models: BTreeMap::new(),
            peers: Peers::default(),
            alerts: BTreeMap::new(),
            drifts: VecDeque::new(),
        }
    }

    /// Takes a round.
    pub fn observe(&mut self, round: &Round) {
        self.observe_models(round);
        let known = round.gateways.len().min(MAX_GATEWAYS);
        self.peers
            .observe(round.gateways.get(..known).unwrap_or_default());
        let mut findings = self.findings(round);
        for key in self.alerts.keys() {
            if !findings.contains_key(key) {
                // What it was about is gone, unless its gateways are only not here again.
                let reading = match self.is_awaited(key) {
                    true => Reading::Unclear,
                    false => Reading::Good,
                };
                findings.insert(key.clone(), (reading, Words::default()));
            }
        }
        for (key, (reading, words)) in findings {
            self.move_on(key, reading, words, round.unix_ms);
        }
    }

    /// All alerts, those among them that are pending or were resolved lately.
    pub fn alerts(&self) -> impl Iterator<Item = (&Key, &Alert)> {
        self.alerts.iter()
    }

    /// The newest drift that was found at that time or later.
    #[must_use]
    pub fn drift_since(&self, unix_ms: u64) -> Option<&FoundDrift> {
        self.drifts.back().filter(|drift| drift.unix_ms >= unix_ms)
    }

    fn observe_models(&mut self, round: &Round) {
        let forgotten = self.learned_rounds;
        self.models.retain(|_, model| {
            model.absent = model.absent.saturating_add(1);
            model.absent <= forgotten
        });
        for ModelRound { model, sums } in &round.models {
            if !self.models.contains_key(model) && !self.has_room() {
                continue;
            }
            let watched = self.models.entry(model.clone());
            let watched = watched.or_insert_with(|| Model {
                series: Series::new(self.learned_rounds),
                absent: 0,
                is_awaited: false,
            });
            watched.absent = 0;
            watched.is_awaited = false;
            if let Some(sums) = sums {
                watched.series.observe(sums, round.unix_ms);
            }
        }
    }

    /// Whether the model that an alert is about is still awaited.
    fn is_awaited(&self, key: &Key) -> bool {
        let model = key.model.as_ref().and_then(|model| self.models.get(model));
        model.is_some_and(|model| model.is_awaited && model.absent <= AWAITED_ROUNDS)
    }

    /// Whether another model can be watched; the one that is absent for longest makes room.
    fn has_room(&mut self) -> bool {
        if self.models.len() < MAX_MODELS {
            return true;
        }
        let absent = self.models.iter().filter(|(_, model)| model.absent > 1);
        let longest = absent.max_by_key(|(_, model)| model.absent);
        let Some(longest) = longest.map(|(digest, _)| digest.clone()) else {
            return false;
        };
        self.models.remove(&longest).is_some()
    }

    fn findings(&self, round: &Round) -> BTreeMap<Key, (Reading, Words)> {
        let mut findings = BTreeMap::new();
        let mut find = |kind, gateway: Option<&str>, model: &str, reading, words| {
            let key = Key {
                kind,
                gateway: gateway.map(str::to_owned),
                model: Some(model.to_owned()),
                customer: None,
            };
            findings.insert(key, (reading, words));
        };
        for (digest, model) in self.models.iter().filter(|(_, model)| model.absent == 0) {
            let read = model.series.readings();
            for (kind, reading, words) in [
                (
                    Kind::ForecastLoss,
                    read.loss,
                    Words::loss(digest, read.times_usual),
                ),
                (
                    Kind::ForecastCoverage,
                    read.coverage,
                    Words::coverage(digest, read.covered),
                ),
                (
                    Kind::ForecastDrift,
                    read.drift,
                    Words::drift(digest, read.times_usual),
                ),
            ] {
                find(kind, None, digest, reading, words);
            }
        }
        for (gateway, model, reading) in self.peers.readings() {
            let words = Words::gateway(gateway, model);
            find(Kind::GatewayForecasts, Some(gateway), model, reading, words);
        }
        for gateway in round.gateways.iter().take(MAX_GATEWAYS) {
            let name = gateway.gateway.as_str();
            if let Some(refusal) = &gateway.refusal {
                let words = Words::refused(name, &refusal.model, &refusal.reason);
                let model = &refusal.model;
                find(Kind::ModelRefused, Some(name), model, Reading::Bad, words);
            } else if let Some(model) = &gateway.lacks {
                let words = Words::missing(name, model);
                find(Kind::ModelMissing, Some(name), model, Reading::Bad, words);
            }
        }
        if let Some(model) = &round.taken_back {
            let words = Words::taken_back(model);
            find(Kind::CanaryTakenBack, None, model, Reading::Bad, words);
        }
        for unusual in round.unusual.iter().take(MAX_UNUSUAL) {
            let key = Key {
                kind: Kind::CustomerUnusual,
                gateway: None,
                model: None,
                customer: Some(unusual.customer.clone()),
            };
            findings.insert(key, (Reading::Bad, Words::unusual(unusual)));
        }
        findings
    }

    fn move_on(&mut self, key: Key, reading: Reading, words: Words, now_unix_ms: u64) {
        let before = self.alerts.get(&key).map(|alert| alert.stage);
        let after = Stage::next(before, reading, key.kind.patience(), now_unix_ms);
        let was_firing = before.is_some_and(|stage| stage.is_firing());
        let fires = !was_firing && after.is_some_and(|stage| stage.is_firing());
        if let (true, Kind::ForecastDrift, Some(model)) = (fires, key.kind, &key.model) {
            if self.drifts.len() >= MAX_DRIFTS {
                self.drifts.pop_front();
            }
            self.drifts.push_back(FoundDrift {
                unix_ms: now_unix_ms,
                model: model.clone(),
            });
        }
        let Some(stage) = after else {
            self.alerts.remove(&key);
            return;
        };
        if before.is_none() && self.alerts.len() >= MAX_ALERTS {
            return;
        }
        let alert = self.alerts.entry(key).or_insert_with(|| Alert {
            stage,
            summary: String::new(),
            description: String::new(),
        });
        alert.stage = stage;
        // What it said last goes on to stand there when it is over.
        if reading == Reading::Bad {
            alert.summary = words.summary;
            alert.description = words.description;
        }
    }
}
