//! What an operator sees at a glance.

use super::audit::{Deed, Done};
use super::canary::CanaryView;
use super::challenger::ChallengerView;
use super::score::Score;
use super::session::{Session, Terms};
use super::state::State;
use super::tally::TokensByCause;
use super::{Now, Plane};
use crate::auth::Caller;
use crate::buckets::Standing;
use crate::error::ApiError;
use crate::models::hex;
use crate::store::Start;
use forebay_core::fleet::Presence;
use forebay_wire::model::ModelDigest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The control plane at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// Version of the server.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// How the run before ended: `new`, `clean` or `unclean`.
    pub start: String,
    /// Epoch of the store.
    pub store_epoch: u64,
    /// Policy version in force; 0 for none.
    pub policy_version: u64,
    /// Policy customers.
    pub customers: usize,
    /// Customers that were frozen by hand.
    #[serde(default)]
    pub customers_frozen: usize,
    /// Customers that were banned by hand, for ever or until later.
    #[serde(default)]
    pub customers_banned: usize,
    /// Customers that were exempted by hand.
    #[serde(default)]
    pub customers_exempt: usize,
    /// Customers outside the policy that were seen.
    pub other_customers: usize,
    /// Reports dropped because there were too many of those.
    pub other_customers_dropped: u64,
    /// Tokens that gateways have admitted beyond contracts since the start, by cause. What is reported late is not blamed, so a little
    /// may be missed.
    #[serde(default)]
    pub over_admitted_tokens: TokensByCause,
    /// Tokens of customers that nobody could spend any more since the start, by cause. They flow again at the rate of the contract.
    #[serde(default)]
    pub stranded_tokens: TokensByCause,
    /// Syncs answered since the start.
    pub syncs: u64,
    /// Syncs refused since the start.
    pub syncs_refused: u64,
    /// Model epoch released; 0 for none.
    pub model_epoch: u64,
    /// Digest of the model released.
    pub model_digest: String,
    /// The release that runs at a share of the gateways first, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// The model that is compared with the one released, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<ChallengerView>,
    /// Models of the registry that run at gateways, and how their forecasts fare.
    #[serde(default)]
    pub models: Vec<RunningModelView>,
    /// Alerts that fire, by name. `GET /v1/alerts` says what they are about.
    #[serde(default)]
    pub alerts_firing: BTreeMap<String, u64>,
    /// True while customer keys are hashed under the development secret.
    pub development_key_secret: bool,
    /// The gateways that may spend what they were granted, by name.
    #[serde(default)]
    pub gateways: Vec<GatewayView>,
}

/// A gateway at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayView {
    /// Its name.
    pub id: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// True while its lease is live; then it works at the granted rates, otherwise at the fallback rates.
    pub live: bool,
    /// Milliseconds since its last sync, or since the server started.
    pub last_sync_ms_ago: u64,
    /// Version of its plugin.
    pub version: String,
    /// Policy in force there.
    pub policy_version: u64,
    /// Model that runs there; 0 for none.
    pub model_epoch: u64,
    /// How the newest model fares there.
    pub model_state: String,
    /// Why a model was refused there.
    pub model_message: String,
    /// SHA-256 of the model that runs there; empty for none.
    #[serde(default)]
    pub model_digest: String,
    /// True where the canary is to run.
    #[serde(default)]
    pub canary: bool,
    /// How its forecasts have fared since it runs there; absent before the first has matured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_score: Option<ScoreView>,
    /// Series forecast by the network, and by the fallback.
    pub series_by_network: u32,
    /// Series forecast by the fallback.
    pub series_by_fallback: u32,
    /// Mean pinball loss of matured forecasts over mean demand.
    pub pinball: f64,
    /// Share of matured forecasts whose upper quantile covered the demand.
    pub coverage: f64,
}

/// How forecasts of the whole fleet's usage have fared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScoreView {
    /// Forecasts that have matured.
    pub matured: u64,
    /// Pinball loss of their 0.9 quantile over usage.
    pub loss: f64,
    /// Share of them whose 0.9 quantile covered the usage.
    pub coverage: f64,
}

/// A model that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunningModelView {
    /// SHA-256 of the file.
    pub digest: String,
    /// Gateways that run it.
    pub gateways: u64,
    /// How its forecasts have fared there; absent before the first has matured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<ScoreView>,
}

// === impl ScoreView ===

impl ScoreView {
    fn of(score: &Score) -> Self {
        Self {
            matured: score.matured,
            loss: score.loss_per_usage().unwrap_or(0.0),
            coverage: score.coverage(),
        }
    }
}

impl Plane {
    /// Looks at everything once.
    #[must_use]
    pub fn status(&self) -> StatusView {
        let now = self.now();
        let mut state = self.lock();
        self.watch_alerts(&mut state, now);
        let terms = self.settings.terms();
        let gateways = state.fleet.sessions().filter_map(|(id, session)| {
            match session.standing(terms, now.mono) {
                Standing::Present(presence) => {
                    let canary = state.models.canary.as_ref();
                    let runs_canary = canary.is_some_and(|canary| canary.runs_at(id));
                    Some(GatewayView {
                        canary: runs_canary,
                        ..gateway_view(id, session, presence, now)
                    })
                }
                Standing::Ended(_) => None,
            }
        });
        let gateways = gateways.collect();
        let release = state.models.active();
        let canary = state.models.canary.as_ref().and_then(|canary| {
            let release = state.models.releases.get(&canary.epoch)?;
            Some(canary.view(release))
        });
        let challenger = state.models.challenger.as_ref();
        let challenger = challenger.map(|challenger| challenger.view(&state.fleet, terms, now));
        let by_hand = state.directory.by_hand(now.unix_ms);
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.mono.0 / 1_000_000,
            start: match self.start {
                Start::New => "new",
                Start::Clean { .. } => "clean",
                Start::Unclean { .. } => "unclean",
            }
            .to_owned(),
            store_epoch: self.start.epoch(),
            policy_version: state.policies.active_epoch(),
            customers: state.directory.len(),
            customers_frozen: by_hand.frozen,
            customers_banned: by_hand.banned,
            customers_exempt: by_hand.exempt,
            other_customers: state.others,
            other_customers_dropped: state.others_dropped,
            over_admitted_tokens: state.over_admitted.tokens(),
            stranded_tokens: state.stranded.tokens(),
            syncs: state.syncs,
            syncs_refused: state.syncs_refused,
            model_epoch: release.map_or(0, |release| release.epoch),
            model_digest: release.map_or(String::new(), |release| release.digest.clone()),
            canary,
            challenger,
            models: running_models(&state, terms, now),
            alerts_firing: state
                .alerts
                .firing()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            development_key_secret: self.keys.is_development(),
            gateways,
        }
    }

    /// Takes back at once what a gateway holds, on the operator's word that it is gone.
    ///
    /// # Errors
    /// When that gateway does not hold anything.
    pub async fn retire_gateway(&self, by: &Caller, id: &str) -> Result<(), ApiError> {
        self.change(Deed::new(by, "gateway.retire", id), |state, batch, now| {
            if !state.fleet.retire(id, now.mono) {
                let message = format!("gateway `{id}` holds nothing here");
                let hint = "`forebay status` shows the gateways that do";
                return Err(ApiError::not_found("no_such_gateway", message, hint).at("gateway_id"));
            }
            state.save_gateway(batch, id);
            Ok(Done::new((), "retired"))
        })
        .await
    }
}

/// What runs where, by model. What is not in the registry is nobody's business: any gateway may say any digest.
fn running_models(state: &State, terms: Terms, now: Now) -> Vec<RunningModelView> {
    let mut sums: BTreeMap<ModelDigest, (u64, Score)> = BTreeMap::new();
    for (_, session) in state.fleet.sessions() {
        let is_present = matches!(session.standing(terms, now.mono), Standing::Present(_));
        let digest = ModelDigest::try_from(session.model_status.digest.as_slice());
        let Some(digest) = digest.ok().filter(|_| is_present) else {
            continue;
        };
        if !state.models.models.contains_key(&digest) {
            continue;
        }
        let (gateways, sum) = sums.entry(digest).or_default();
        *gateways = gateways.saturating_add(1);
        if let Some((_, score)) = session.scores.newest() {
            *sum = sum.plus(&score);
        }
    }
    sums.into_iter()
        .map(|(digest, (gateways, sum))| RunningModelView {
            digest: hex(&digest),
            gateways,
            score: (sum.matured > 0).then(|| ScoreView::of(&sum)),
        })
        .collect()
}

fn gateway_view(id: &str, session: &Session, presence: Presence, now: Now) -> GatewayView {
    let model = &session.model_status;
    GatewayView {
        id: id.to_owned(),
        incarnation: session.incarnation,
        live: presence == Presence::Live,
        last_sync_ms_ago: now.mono.since(session.last_reply_at) / 1_000,
        version: session.version.clone(),
        policy_version: session.policy_epoch_applied,
        model_epoch: model.epoch,
        model_state: format!("{:?}", model.state()).to_lowercase(),
        model_message: model.message.chars().take(1_000).collect(),
        model_digest: ModelDigest::try_from(model.digest.as_slice())
            .map_or(String::new(), |digest| hex(&digest)),
        canary: false,
        model_score: session
            .scores
            .newest()
            .map(|(_, score)| ScoreView::of(&score)),
        series_by_network: model.series_by_network,
        series_by_fallback: model.series_by_fallback,
        pinball: f64::from(u32::try_from(model.pinball_ppm).unwrap_or(u32::MAX)) / 1e6,
        coverage: f64::from(model.coverage_ppm) / 1e6,
    }
}
