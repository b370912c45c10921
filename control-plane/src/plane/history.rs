//! Usage history in and out: what a deployment already knows can be brought along, and everything can be taken away.

use super::Plane;
use super::audit::{Deed, Done};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::history::{CHUNK_BYTES, CHUNK_STEPS, Ring, Series, series_of};
use crate::store::{Batch, Row, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Chunks that are deleted at once: syncs wait meanwhile.
const SWEPT_AT_ONCE: usize = 512;
/// Chunks of a piece of the history that are deleted in one go: what is more waits for the next one.
const SWEPT_MOST: usize = 16_384;
/// Values in one import: bounds what one request can make us hold.
const MAX_VALUES: usize = 8_000_000;

/// Usage of one customer and resource, as it is imported.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportedSeries {
    /// The customer's key, or `hash:` and its hash.
    pub key: String,
    /// Name of the resource; may be left out where there is one.
    #[serde(default)]
    pub resource: Option<String>,
    /// Length of a step in milliseconds; must be that of the server.
    pub step_ms: u32,
    /// Number of the newest step (Unix time in ms / `step_ms`); absent: the last finished one.
    #[serde(default)]
    pub newest_step: Option<u64>,
    /// Tokens per step, oldest first; `null` is a gap.
    pub usage: Vec<Option<f64>>,
}

/// Usage of one customer and resource, as it is exported; can be imported again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeriesView {
    /// `hash:` and the customer's hash.
    pub key: String,
    /// Name of the resource.
    pub resource: String,
    /// Length of a step in milliseconds.
    pub step_ms: u32,
    /// Number of the newest step.
    pub newest_step: u64,
    /// Tokens per step, oldest first; `null` is a gap.
    pub usage: Vec<Option<f32>>,
}

impl Plane {
    /// Imports usage. Values of steps that are there already are replaced.
    ///
    /// # Errors
    /// When a series does not fit; then nothing is imported. When the store cannot be read, what comes before that is imported all the same.
    pub async fn import_history(
        &self,
        by: &Caller,
        imported: Vec<ImportedSeries>,
    ) -> Result<usize, ApiError> {
        let values: usize = imported.iter().map(|series| series.usage.len()).sum();
        if values > MAX_VALUES {
            return Err(ApiError::invalid(
                "too_many_values",
                format!("{values} values at once"),
                format!("send at most {MAX_VALUES}"),
            ));
        }
        let resolved: Vec<_> = imported
            .iter()
            .enumerate()
            .map(|(position, series)| self.resolve(position, series))
            .collect::<Result<_, _>>()?;
        // Of each series the chunks that its steps lie in, whole.
        let chunks = |series: &ImportedSeries| series.usage.len() as u64 / CHUNK_STEPS + 2;
        let chunks: u64 = imported.iter().map(chunks).sum();
        let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
        self.make_room(chunks.saturating_mul(CHUNK_BYTES))?;
        let deed = Deed::new(by, "history.import", "history").with("series", Some(imported.len()));
        let imported = self
            .change(deed, |state, batch, _| {
                // Whatever comes of the batch: whoever asks may not wait for it, and what cannot be written now is written later.
                self.forecast_desk().history_changed();
                for (series, newest, imported) in resolved {
                    let first =
                        newest.saturating_sub((imported.usage.len() as u64).saturating_sub(1));
                    let steps = (first..=newest).zip(&imported.usage);
                    #[allow(clippy::cast_possible_truncation)]
                    // a forecast needs no more than an f32 has
                    let known = steps.filter_map(|(step, usage)| Some((step, (*usage)? as f32)));
                    if let Err(error) = state.ring.set_all(&*self.store, batch, series, known) {
                        // What is in the ring already must get to the store.
                        let outcome = format!("a part of {values} values, until {error}");
                        return Ok(Done::new(Err(error), outcome));
                    }
                }
                Ok(Done::new(Ok(values), format!("{values} values")))
            })
            .await;
        // A survey that has begun meanwhile has read the store before the batch was in it.
        self.forecast_desk().history_changed();
        Ok(imported??)
    }

    /// Deletes those of some rows of the history that have left the retention when a step is the newest: a series that has gone idle begins no chunk that would
    /// push them out. Those that are in memory are left for another time.
    pub(crate) fn sweep(&self, rows: &[Row], newest_step: u64) {
        let number_of = |key: &[u8]| key.last_chunk().map(|number| u64::from_be_bytes(*number));
        let has_left = {
            let state = self.lock();
            let rows = rows.iter().filter(|(key, _)| {
                number_of(key).is_some_and(|number| state.ring.has_left(number, newest_step))
            });
            rows.take(SWEPT_MOST).collect::<Vec<_>>()
        };
        for some in has_left.chunks(SWEPT_AT_ONCE) {
            let state = self.lock();
            if state.is_stopped {
                return;
            }
            let mut batch = Batch::default();
            for (key, _) in some {
                let id = series_of(key).zip(number_of(key));
                if id.is_some_and(|id| state.ring.in_memory(id).is_none()) {
                    batch.delete(Table::History, key.as_slice());
                }
            }
            // Nobody waits for it: what is left is found by the next survey.
            drop(self.journal.submit(batch));
        }
    }

    fn resolve<'a>(
        &self,
        position: usize,
        imported: &'a ImportedSeries,
    ) -> Result<(Series, u64, &'a ImportedSeries), ApiError> {
        let place = |field: &str| format!("series[{position}].{field}");
        let wrong = |field: &str, message: String, hint: &str| {
            Err(ApiError::invalid("history_refused", message, hint).at(place(field)))
        };
        if imported.step_ms != self.settings.step_ms {
            let message = format!(
                "steps of {} ms do not fit this server's of {} ms",
                imported.step_ms, self.settings.step_ms
            );
            return wrong(
                "step_ms",
                message,
                "sum the usage up to the server's steps first",
            );
        }
        let length = imported.usage.len() as u64;
        if length == 0 || length > self.settings.history_steps {
            let message = format!(
                "{length} steps, allowed are 1 to {}",
                self.settings.history_steps
            );
            return wrong(
                "usage",
                message,
                "only as many steps as --history-steps are kept",
            );
        }
        let is_amount = |usage: f64| usage.is_finite() && (0.0..=1e12).contains(&usage);
        if let Some(step) = imported
            .usage
            .iter()
            .position(|usage| usage.is_some_and(|usage| !is_amount(usage)))
        {
            let hint = "usage is a number of tokens from 0 to 1e12, or null for a gap";
            return wrong(
                &format!("usage[{step}]"),
                "not an amount of tokens".to_owned(),
                hint,
            );
        }
        let state = self.lock();
        let resource = super::customers::resource_index(&state, imported.resource.as_deref())
            .map_err(|error| ApiError {
                place: place("resource"),
                ..error
            })?;
        let last_finished = self.clock.now().unix_ms / u64::from(self.settings.step_ms.max(1));
        let newest = imported
            .newest_step
            .unwrap_or(last_finished.saturating_sub(1));
        if newest >= last_finished.max(1) {
            let message =
                format!("step {newest} has not finished: the running one is {last_finished}");
            return wrong(
                "newest_step",
                message,
                "leave it out for the last finished step",
            );
        }
        if length > newest.saturating_add(1) {
            let message = format!("{length} steps that end with step {newest} begin before step 0");
            return wrong("newest_step", message, "steps are counted from 1970 on");
        }
        let customer = self.hash_of(&imported.key).map_err(|error| ApiError {
            place: place("key"),
            ..error
        })?;
        Ok((
            Series::new(customer, u8::try_from(resource).unwrap_or(0)),
            newest,
            imported,
        ))
    }

    /// Exports the usage of one customer and resource.
    ///
    /// # Errors
    /// When there is no such resource, or the store cannot be read.
    pub fn export_history(
        &self,
        key: &str,
        resource: Option<&str>,
        steps: Option<u64>,
    ) -> Result<SeriesView, ApiError> {
        let customer = self.hash_of(key)?;
        let (index, name, newest, coverage) = {
            let state = self.lock();
            let index = super::customers::resource_index(&state, resource)?;
            let name = state
                .policies
                .compiled()
                .and_then(|policy| policy.resources.get(index))
                .map(|found| found.name.clone());
            let now_step = self.clock.now().unix_ms / u64::from(self.settings.step_ms.max(1));
            (
                index,
                name.unwrap_or_default(),
                now_step.saturating_sub(1),
                state.coverage.clone(),
            )
        };
        let steps = steps
            .unwrap_or(self.settings.history_steps)
            .clamp(1, self.settings.history_steps);
        let first = newest.saturating_sub(steps.saturating_sub(1));
        let usage = Ring::read(
            &*self.store,
            Series::new(customer, u8::try_from(index).unwrap_or(0)),
            first,
            newest,
        )?;
        let (values, mask) = usage.with_gaps(|step| coverage.observed(step));
        let is_known = |position: usize| {
            mask.get(position / 8)
                .is_some_and(|bits| bits & (1 << (position % 8)) != 0)
        };
        let usage = values
            .into_iter()
            .enumerate()
            .map(|(position, value)| is_known(position).then_some(value))
            .collect();
        Ok(SeriesView {
            key: format!("hash:{customer}"),
            resource: name,
            step_ms: self.settings.step_ms,
            newest_step: newest,
            usage,
        })
    }
}
