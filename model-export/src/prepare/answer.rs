//! What a range query of Prometheus, or of what speaks its API, was answered with: saved in a file, or just now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use forebay_traces::Samples;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use sha2::{Digest as _, Sha256};

use super::source::{RESOURCE, Taking};
use crate::card::hex;
use crate::error::TrainError;

/// Beyond year 2262 nanoseconds do not fit 64 bits.
const UNIX_S_MAX: f64 = 9.2e9;
/// The customer of what has none.
const EVERYBODY: &str = "*";

/// Of `GET /api/v1/query_range`.
pub(super) struct Answer {
    pub(super) status: String,
    pub(super) error: String,
    pub(super) is_partial: bool,
    pub(super) data: Option<AnswerData>,
}

#[derive(Deserialize)]
pub(super) struct AnswerData {
    #[serde(rename = "resultType", default)]
    kind: String,
    #[serde(default)]
    result: Vec<AnsweredSeries>,
}

#[derive(Deserialize)]
struct AnsweredSeries {
    metric: BTreeMap<String, String>,
    /// Other kinds of answers have none.
    #[serde(default)]
    values: Vec<(f64, AnsweredAmount)>,
}

/// A number that is written as text.
struct AnsweredAmount(f64);

/// Takes samples from answers.
pub(super) struct AnswerReader<'a> {
    /// Where they come from, for people.
    pub(super) place: &'a Path,
    pub(super) taking: &'a Taking,
    pub(super) samples: &'a mut Samples,
    /// The step that was asked for, where that is known.
    pub(super) asked_step_s: Option<u32>,
}

/// What has been taken from several answers, summed up: the same samples have the same sum, however they were asked for.
#[derive(Default)]
pub(super) struct TakenSum(BTreeMap<(String, String), Sha256>);

/// The sum of one series.
struct SeriesSum<'a>(&'a mut Sha256);

// === impl AnsweredAmount ===

impl<'de> Deserialize<'de> for AnsweredAmount {
    /// At once: texts would take three times as much memory as what they say.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let amount = text.parse();
        amount
            .map(Self)
            .map_err(|_| D::Error::custom(format!("{text:?} where a number must be")))
    }
}

// === impl AnswerReader ===

impl AnswerReader<'_> {
    fn error(&self, reason: String) -> TrainError {
        TrainError::Data {
            path: self.place.to_owned(),
            reason,
        }
    }

    pub(super) fn push(&mut self, answer: Answer, sum: &mut TakenSum) -> Result<(), TrainError> {
        if answer.is_partial {
            return Err(self.error(
                "a part of the server's storage did not answer (isPartial): ask again when it is whole".into(),
            ));
        }
        let data = match answer.data {
            Some(data) if answer.status == "success" => data,
            _ => {
                return Err(self.error(format!(
                    "Prometheus has refused the query: {}",
                    answer.error
                )));
            }
        };
        if data.kind != "matrix" {
            return Err(self.error(format!(
                "the answer is a {:?} and not a matrix: ask /api/v1/query_range",
                data.kind
            )));
        }
        let series = data.result;
        if let Some(one) = series.iter().find(|one| one.values.is_empty()) {
            return Err(self.error(format!(
                "the series {:?} has no `values`: histograms are not read",
                one.metric
            )));
        }
        if series.is_empty() {
            return Ok(());
        }
        let step_s = self.answered_step_s(&series)?;
        let mut seen = BTreeSet::new();
        for one in &series {
            let customer = self.customer(one)?;
            let resource = match (one.metric.get("resource"), &self.taking.resource) {
                (Some(label), _) if !self.taking.is_covariate => label,
                (_, Some(said)) => said,
                (_, None) => RESOURCE,
            };
            if !seen.insert((customer, resource)) {
                return Err(self.error(format!(
                    "there are two series for the customer {customer} and {resource}: say how they belong together, as with `sum by ({}) (...)`",
                    self.taking.customer_label
                )));
            }
            let mut taken = sum.of(customer, resource);
            for (at_s, AnsweredAmount(amount)) in &one.values {
                // The value at a time is that of the step that ends there.
                let start_s = at_s - step_s;
                if start_s.abs() >= UNIX_S_MAX {
                    return Err(self.error(format!("customer {customer}: {at_s} is no time")));
                }
                let at_ns = (start_s * 1e3).round() as i64 * 1_000_000;
                self.samples
                    .push(customer, resource, at_ns, Some(*amount))?;
                taken.add(at_ns, *amount);
            }
        }
        Ok(())
    }

    fn customer<'s>(&self, series: &'s AnsweredSeries) -> Result<&'s str, TrainError> {
        if self.taking.is_for_all {
            return Ok(EVERYBODY);
        }
        let label = &self.taking.customer_label;
        match series.metric.get(label) {
            Some(customer) if !customer.is_empty() => Ok(customer),
            _ => Err(self.error(format!(
                "the series {:?} has no label `{label}` to take the customer from: name another with --customer-label, or keep it with `sum by ({label}) (...)`",
                series.metric
            ))),
        }
    }

    /// What was asked for as `step`: the most frequent distance of two values, the shortest of several. That of the data set is another, and is
    /// believed only where no two values tell.
    fn answered_step_s(&self, series: &[AnsweredSeries]) -> Result<f64, TrainError> {
        if let Some(step_s) = self.asked_step_s {
            return Ok(f64::from(step_s));
        }
        let mut counts: HashMap<i64, u64> = HashMap::new();
        for one in series {
            for (before, after) in one.values.iter().zip(one.values.iter().skip(1)) {
                let distance_ms = ((after.0 - before.0) * 1e3).round() as i64;
                if distance_ms > 0 {
                    *counts.entry(distance_ms).or_default() += 1;
                }
            }
        }
        let usual = counts
            .into_iter()
            .max_by_key(|&(distance_ms, count)| (count, std::cmp::Reverse(distance_ms)));
        match (usual, self.taking.step_s) {
            (Some((distance_ms, _)), _) => Ok(distance_ms as f64 / 1e3),
            (None, Some(step_s)) => Ok(f64::from(step_s)),
            (None, None) => Err(self.error(
                "no customer has two values, so the step is unknown; say it with --step-s".into(),
            )),
        }
    }
}

// === impl TakenSum ===

impl TakenSum {
    fn of(&mut self, customer: &str, resource: &str) -> SeriesSum<'_> {
        let key = (customer.to_owned(), resource.to_owned());
        SeriesSum(self.0.entry(key).or_default())
    }

    /// Whether nothing has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of all series, as hex.
    pub(super) fn finish(self) -> String {
        let mut all = Sha256::new();
        for ((customer, resource), one) in self.0 {
            for text in [customer, resource] {
                all.update((text.len() as u64).to_le_bytes());
                all.update(text);
            }
            all.update(one.finalize());
        }
        hex(&all.finalize())
    }
}

// === impl SeriesSum ===

impl SeriesSum<'_> {
    fn add(&mut self, at_ns: i64, amount: f64) {
        self.0.update(at_ns.to_le_bytes());
        let bits = if amount.is_nan() {
            u64::MAX
        } else {
            amount.to_bits()
        };
        self.0.update(bits.to_le_bytes());
    }
}
