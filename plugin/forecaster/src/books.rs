//! Everything that must be made anew when the ledger or the model changes its shape, in one place, so that nothing is forgotten.

use forebay_forecast::{Model, Source};
use forebay_wire::forecaster_config::ForecasterConfig;
use forebay_wire::sync::{ChallengerStatus, ModelState, ModelStatus};

use crate::accuracy::{Accuracy, Score};
use crate::challenger::Duel;
use crate::fresh::Fresh;
use crate::inference::Inference;
use crate::model::ModelRefresh;
use crate::scan::Scan;
use crate::series::SeriesTable;
use crate::shadow::ShadowWriter;
use crate::sync::{Outbox, Windows};

/// Reports in a sync without a control plane to send them to.
const NO_REPORTS: u32 = 0;

/// The default of the policy, until one is there.
const QUANTILE_FIRST: f32 = 0.9;

/// Series, forecasts, reports and claims of one ledger.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) table: SeriesTable,
    pub(crate) inference: Inference,
    pub(crate) scan: Scan,
    pub(crate) outbox: Outbox,
    pub(crate) windows: Windows,
    pub(crate) writer: ShadowWriter,
    pub(crate) accuracy: Accuracy,
    pub(crate) score: Score,
    /// The model that runs against another one, while there is one.
    pub(crate) duel: Option<Duel>,
    pub(crate) fresh: Fresh,
    /// Calendar seconds per step.
    pub(crate) step_s: u32,
    /// Real seconds per step.
    pub(crate) step_real_s: f32,
    /// Grows with each model and each ledger.
    pub(crate) generation: u32,
}

// === impl Books ===

impl Books {
    /// Empty books for a ledger of `pages` pages.
    pub(crate) fn new(
        pages: u32,
        config: &ForecasterConfig,
        generation: u32,
        model: Option<&Model>,
    ) -> Self {
        let reports_most = config
            .control_plane
            .as_ref()
            .map_or(NO_REPORTS, |settings| settings.batch_customers);
        let step_s = step_s(config, model);
        Self {
            table: SeriesTable::new(pages, config.series.max_series),
            inference: inference(config, model, generation),
            scan: Scan::new(pages),
            outbox: Outbox::new(pages, reports_most),
            windows: Windows::default(),
            writer: ShadowWriter::new(pages),
            accuracy: Accuracy::new(QUANTILE_FIRST),
            score: Score::default(),
            duel: None,
            fresh: Fresh::default(),
            step_s,
            step_real_s: 1.0,
            generation,
        }
    }

    /// Grants have reached these pages: until the control plane hears of it, it must count the share before them as well.
    pub(crate) fn report_soon(&mut self, places: Vec<u32>) {
        for place in &places {
            self.outbox.mark(*place);
        }
        self.scan.visit_soon(places);
    }

    /// No claim is what it should be any more: all are made anew.
    pub(crate) fn mark_claims(&mut self) {
        for slot in self.table.slots() {
            if let Some(place) = self.table.page_of(slot) {
                self.writer.mark(place);
            }
        }
    }

    /// Another model, or none: usage stays if the step does, what was learned does not.
    pub(crate) fn change_model(&mut self, config: &ForecasterConfig, model: Option<&Model>) {
        self.generation = self.generation.wrapping_add(1);
        self.inference = inference(config, model, self.generation);
        self.score = Score::default();
        self.duel = None;
        let step_s = step_s(config, model);
        let keeps_usage = step_s == self.step_s;
        self.step_s = step_s;
        self.windows.clear();
        let wants_windows = config.control_plane.is_some();
        let mut last = None;
        for slot in self.table.slots() {
            let customer = self.table.get(slot).map(|(key, _)| key.customer);
            let Some(series) = self.table.get_mut(slot) else {
                continue;
            };
            let history_steps = self.inference.history_steps();
            series.rebuild(
                history_steps,
                self.inference.settings(),
                self.generation,
                keeps_usage,
            );
            self.inference.push(slot);
            // A customer's resources stand side by side, and one wish brings them all.
            if let Some(customer) =
                customer.filter(|customer| wants_windows && last != Some(*customer))
            {
                self.windows.want(customer);
                last = Some(customer);
            }
        }
    }

    /// What the control plane is told about model and forecasts.
    pub(crate) fn model_status(
        &self,
        models: &ModelRefresh,
        challengers: &ModelRefresh,
    ) -> ModelStatus {
        let (state, reason) = models.state();
        let running = models.running();
        let (mut by_network, mut by_fallback) = (0_u32, 0_u32);
        for slot in self.table.slots() {
            match self
                .table
                .get(slot)
                .and_then(|(_, series)| series.forecast())
                .map(|forecast| forecast.source)
            {
                Some(Source::Network) => by_network = by_network.saturating_add(1),
                Some(Source::Fallback) => by_fallback = by_fallback.saturating_add(1),
                Some(Source::Nothing) | None => {}
            }
        }
        ModelStatus {
            epoch: running.map_or(0, |running| running.epoch),
            digest: running.map_or_else(Vec::new, |running| running.digest.to_vec()),
            state: state.into(),
            message: reason.to_owned(),
            series_by_network: by_network,
            series_by_fallback: by_fallback,
            pinball_ppm: self.accuracy.pinball_ppm(),
            coverage_ppm: u32::try_from(self.accuracy.coverage_ppm()).unwrap_or(u32::MAX),
            offered_epoch: models.offered_epoch(),
            score: self.score.to_wire(),
            challenger: self.challenger_status(challengers),
        }
    }

    fn challenger_status(&self, challengers: &ModelRefresh) -> Option<ChallengerStatus> {
        let (state, reason) = challengers.state();
        let running = challengers.running();
        let scores = self.duel.as_ref().and_then(Duel::to_wire);
        let (challenger_score, champion_score) = scores.unzip();
        (state != ModelState::None).then(|| ChallengerStatus {
            epoch: running.map_or(0, |running| running.epoch),
            digest: running.map_or_else(Vec::new, |running| running.digest.to_vec()),
            state: state.into(),
            message: reason.to_owned(),
            offered_epoch: challengers.offered_epoch(),
            challenger_score,
            champion_score,
        })
    }
}

fn inference(config: &ForecasterConfig, model: Option<&Model>, generation: u32) -> Inference {
    match model {
        Some(model) => Inference::with_model(model, config.shadow.cap_factor, generation),
        None => {
            Inference::without_model(config.series.step_s, config.shadow.cap_factor, generation)
        }
    }
}

fn step_s(config: &ForecasterConfig, model: Option<&Model>) -> u32 {
    model.map_or(config.series.step_s, |model| model.spec().step_s)
}
