//! A check's outcome as JSON: what the sandbox in the control plane reads out of the plugin's memory.

use serde::Serialize;

use crate::limits::Limits;
use crate::model::{Check, Model};
use crate::spec::ModelSpec;

#[derive(Serialize)]
struct Verdict<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    facts: Option<Facts<'a>>,
}

#[derive(Serialize)]
struct Facts<'a> {
    family: &'a str,
    step_s: u32,
    window: usize,
    season_steps: usize,
    horizons: &'a [u32],
    quantiles: &'a [f32],
    training_start: &'a str,
    training_end: &'a str,
    data_digest: &'a str,
    #[serde(flatten)]
    check: &'a Check,
}

/// Loads the model as a gateway would and says whether it could: `{"ok": true, ...}` with what is known about the
/// model, or `{"ok": false, "message": ...}`.
#[must_use]
pub fn verdict(bytes: &[u8], limits: &Limits, batch_rows: usize) -> String {
    let loaded = Model::load(bytes, limits, batch_rows);
    let message = loaded
        .as_ref()
        .err()
        .map(ToString::to_string)
        .unwrap_or_default();
    let facts = loaded
        .as_ref()
        .ok()
        .map(|model| facts(model.spec(), model.check()));
    serde_json::json!(Verdict {
        ok: loaded.is_ok(),
        message: &message,
        facts
    })
    .to_string()
}

fn facts<'a>(spec: &'a ModelSpec, check: &'a Check) -> Facts<'a> {
    Facts {
        family: &spec.family,
        step_s: spec.step_s,
        window: spec.window,
        season_steps: spec.season_steps,
        horizons: &spec.horizons,
        quantiles: &spec.quantiles,
        training_start: &spec.training_start,
        training_end: &spec.training_end,
        data_digest: &spec.data_digest,
        check,
    }
}
