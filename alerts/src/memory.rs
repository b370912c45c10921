//! What outlives a process: what is usual for models, and which alerts of theirs were told.
//!
//! Without it a server that starts anew would learn for days what it knew before. What is known of gateways is not in it: it is learned in half
//! an hour, and there may be a thousand of them.

use crate::alert::{Alert, Key, Kind};
use crate::series::Series;
use crate::watch::{FoundDrift, Model, Watch};
use serde::{Deserialize, Serialize};

/// Models that are remembered: those that run, and those that did lately.
const MODELS_MOST: usize = 8;
/// Alerts of each.
const KINDS: [Kind; 3] = [
    Kind::ForecastLoss,
    Kind::ForecastCoverage,
    Kind::ForecastDrift,
];

/// What is remembered, of a bounded size: to be written down and read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Says of which steps it is.
    learned_rounds: u32,
    models: Vec<Remembered>,
    alerts: Vec<(Key, Alert)>,
    newest_drift: Option<FoundDrift>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Remembered {
    model: String,
    absent: u32,
    series: Series,
}

impl Watch {
    /// What another process has to know to go on.
    #[must_use]
    pub fn remember(&self) -> Memory {
        let mut models: Vec<Remembered> = self
            .models
            .iter()
            .map(|(digest, model)| Remembered {
                model: digest.clone(),
                absent: model.absent,
                series: model.series.clone(),
            })
            .collect();
        models.sort_by_key(|model| model.absent);
        models.truncate(MODELS_MOST);
        let is_of_them = |key: &Key| {
            let model = key.model.as_ref();
            KINDS.contains(&key.kind) && models.iter().any(|known| Some(&known.model) == model)
        };
        let alerts = self.alerts.iter().filter(|(key, _)| is_of_them(key));
        Memory {
            learned_rounds: self.learned_rounds,
            alerts: alerts
                .map(|(key, alert)| (key.clone(), alert.clone()))
                .collect(),
            newest_drift: self.drifts.back().cloned(),
            models,
        }
    }

    /// Goes on from there. What was learned in steps of another length, or cannot have been learned at all, is left out.
    pub fn recall(&mut self, memory: Memory) {
        if memory.learned_rounds != self.learned_rounds {
            return;
        }
        let models = memory.models.into_iter().take(MODELS_MOST);
        for Remembered {
            model,
            absent,
            series,
        } in models.filter(|known| known.series.can_be())
        {
            let known = Model {
                series,
                absent,
                is_awaited: true,
            };
            self.models.insert(model, known);
        }
        let alerts = memory.alerts.into_iter().take(MODELS_MOST * KINDS.len());
        self.alerts.extend(alerts);
        self.drifts.extend(memory.newest_drift);
    }
}
