//! A control plane without a network, whose time is moved by hand and whose usage is made up, with who forecasts for it.

#![allow(dead_code, reason = "each test file uses its own part")]

use super::kit::{self, Gateway, hash};
use forebay_control_plane::auth::{Caller, Role};
use forebay_control_plane::document::Format;
use forebay_control_plane::forecasts::{
    ForecastScore, ForecastsQuery, ForecastsView, HorizonForecast, Limits, SubjectForecasts, Worker,
};
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{Clock, ImportedSeries, Plane, Settings};
use forebay_control_plane::store::{MemoryStore, Store};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const STEP_MS: u32 = 60_000;
pub(crate) const HISTORY_STEPS: u64 = 4_032;
pub(crate) const STEP_S: f64 = 60.0;

/// A control plane whose time is moved by hand, and who forecasts for it.
pub(crate) struct Deployment {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) plane: Plane,
    pub(crate) worker: Worker,
}

// === impl Deployment ===

impl Deployment {
    pub(crate) async fn new(limits: Limits, customers: &[&str]) -> Self {
        let deployment = Self::on(Arc::default(), Arc::new(AtomicU64::new(1_000_000)), limits);
        let listed = customers.iter().enumerate().map(|(place, key)| {
            let contract = if place % 2 == 0 { "gold" } else { "silver" };
            json!({"key": key, "contract": contract})
        });
        let limits = json!({"requests": {"rate_per_s": 1000, "burst": 100_000}});
        let policy = json!({
            "version": 1,
            "unknown": {"action": "default_contract", "contract": "free"},
            "resources": {"requests": {}},
            "contracts": {
                "gold": {"limits": limits}, "silver": {"tier": 2, "limits": limits},
                "free": {"tier": 3, "limits": limits}
            },
            "customers": listed.collect::<Vec<_>>(),
        });
        let policy = policy.to_string();
        let by = admin();
        let applied = deployment.plane.apply_policy(&by, &policy, Format::Json);
        applied.await.unwrap();
        deployment
    }

    pub(crate) fn on(store: Arc<MemoryStore>, clock: Arc<AtomicU64>, limits: Limits) -> Self {
        let settings = Settings {
            step_ms: STEP_MS,
            history_steps: HISTORY_STEPS,
            ..kit::settings()
        };
        let plane = Plane::start(
            Arc::clone(&store) as Arc<dyn Store>,
            Keys::new(None, None).unwrap(),
            settings,
            Clock::Manual(Arc::clone(&clock)),
        );
        Self {
            store,
            clock,
            plane: plane.unwrap(),
            worker: Worker::new(limits),
        }
    }

    pub(crate) async fn import(&self, key: &str, usage: Vec<Option<f64>>) {
        let series = ImportedSeries {
            key: key.to_owned(),
            resource: None,
            step_ms: STEP_MS,
            newest_step: None,
            usage,
        };
        let by = admin();
        let imported = self.plane.import_history(&by, vec![series]);
        imported.await.unwrap();
    }

    pub(crate) fn look(&mut self) -> ForecastsView {
        self.worker.look(&self.plane).unwrap();
        self.plane.forecasts(&ForecastsQuery::default()).unwrap()
    }

    /// A step in which a gateway reports as often as it does.
    pub(crate) async fn step(&self, gateway: &mut Gateway, usage: &[(&str, u64)]) {
        for part in 0..3 {
            // What is reported with the first sync may be of the step before.
            if part == 1 {
                for (key, tokens) in usage {
                    gateway.spend(key, *tokens);
                }
            }
            self.sync(gateway).await;
            self.pass(20);
        }
    }

    pub(crate) async fn sync(&self, gateway: &mut Gateway) {
        let answer = self.plane.sync(gateway.request()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.reply.error);
        gateway.apply(&answer.reply);
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

pub(crate) fn admin() -> Caller {
    Caller {
        role: Role::Admin,
        fingerprint: String::new(),
    }
}

/// A number from 0 to 1 that looks like chance.
pub(crate) fn noise(seed: u64, place: u64) -> f64 {
    let mixed = (seed << 32 | place)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Noisy usage around a mean in tokens per step.
pub(crate) fn noisy(seed: u64, mean: f64, steps: u64) -> Vec<Option<f64>> {
    (0..steps)
        .map(|step| Some(mean * (0.5 + noise(seed, step))))
        .collect()
}

pub(crate) fn of_subject<'a>(view: &'a ForecastsView, name: &str) -> &'a SubjectForecasts {
    let found = view
        .forecasts
        .iter()
        .find(|one| one.group.as_deref().or(one.customer.as_deref()) == Some(name));
    found.unwrap_or_else(|| panic!("no forecast of {name}: {:?}", names(view)))
}

pub(crate) fn names(view: &ForecastsView) -> Vec<String> {
    let names = view.forecasts.iter();
    names
        .map(|one| one.group.clone().or(one.customer.clone()).unwrap())
        .collect()
}

pub(crate) fn named(key: &str) -> String {
    format!("hash:{}", hash(key))
}

pub(crate) fn ahead<'a>(of: &'a SubjectForecasts, horizon: &str) -> &'a HorizonForecast {
    let mut horizons = of.horizons.iter();
    horizons.find(|one| one.horizon == horizon).unwrap()
}

/// Whether two rates are the same but for single precision.
pub(crate) fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-4 * one.abs().max(other.abs()).max(1e-9)
}

pub(crate) fn score<'a>(
    view: &'a ForecastsView,
    horizon: &str,
    of: &str,
) -> Option<&'a ForecastScore> {
    let mut scores = view.scores.iter();
    scores.find(|one| one.horizon == horizon && one.of == of)
}
