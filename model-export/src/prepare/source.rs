//! Where usage comes from: tables, the control plane's usage history, and what Prometheus answered to a range query.
//!
//! Prometheus is read from a saved answer and not asked here: which address, which secret, which certificate is what `curl` knows already, and a
//! data set can be made again from a file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use forebay_traces::{ReadOptions, Samples, TraceError};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::Preparation;
use crate::card::sha256_of;
use crate::error::TrainError;

/// Columns that are looked for when nobody has named one.
const VALUES: [&str; 2] = ["amount", "requests"];
/// Resource of an answer of Prometheus that has no label `resource`.
const RESOURCE: &str = "requests";
/// JSON is read as a whole. Two bytes may be a sample, and until it is one of a grid that takes 40: less than 1 GiB for a file.
pub(super) const JSON_BYTES_MAX: u64 = 1 << 25;
/// Beyond year 2262 nanoseconds do not fit 64 bits.
const UNIX_S_MAX: f64 = 9.2e9;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Without its folder, which is another one on each machine.
    name: String,
    sha256: String,
}

/// A piece of JSON that may be usage: the fields of all kinds, told apart when they are read.
///
/// An untagged enum would say the same in fewer words, and keep a tree of the whole document, dozens of bytes for each number, to try one kind after another.
#[derive(Deserialize)]
struct Said {
    /// An answer of Prometheus has it.
    status: Option<String>,
    #[serde(default)]
    error: String,
    #[serde(rename = "isPartial", default)]
    is_partial: bool,
    data: Option<AnswerData>,
    /// History of several customers has it.
    series: Option<Vec<HistorySeries>>,
    key: Option<String>,
    resource: Option<String>,
    step_ms: Option<u32>,
    newest_step: Option<u64>,
    usage: Option<Vec<Option<f64>>>,
}

/// What the fields are.
enum Kind {
    Prometheus(Answer),
    History(Vec<HistorySeries>),
}

/// Of `GET /v1/history`.
#[derive(Deserialize)]
struct HistorySeries {
    key: String,
    resource: String,
    step_ms: u32,
    newest_step: u64,
    usage: Vec<Option<f64>>,
}

/// Of `GET /api/v1/query_range`.
struct Answer {
    status: String,
    error: String,
    is_partial: bool,
    data: Option<AnswerData>,
}

#[derive(Deserialize)]
struct AnswerData {
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

/// One JSON file, and where its samples go.
struct JsonSource<'a> {
    path: &'a Path,
    preparation: &'a Preparation,
    samples: &'a mut Samples,
}

// === impl Said ===

impl Said {
    /// `None` if it is nothing that is known.
    fn kind(self) -> Option<Kind> {
        if let Some(status) = self.status {
            return Some(Kind::Prometheus(Answer {
                status,
                error: self.error,
                is_partial: self.is_partial,
                data: self.data,
            }));
        }
        if let Some(series) = self.series {
            return Some(Kind::History(series));
        }
        Some(Kind::History(vec![HistorySeries {
            key: self.key?,
            resource: self.resource?,
            step_ms: self.step_ms?,
            newest_step: self.newest_step?,
            usage: self.usage?,
        }]))
    }
}

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

// === impl Source ===

impl Source {
    /// Reads a file and adds what it says.
    pub(super) fn read(
        path: &Path,
        preparation: &Preparation,
        samples: &mut Samples,
    ) -> Result<Self, TrainError> {
        let is_json = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let sha256 = match is_json {
            true => read_json(path, preparation, samples)?,
            false => read_table(path, preparation, samples)?,
        };
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            sha256,
        })
    }
}

fn read_table(
    path: &Path,
    preparation: &Preparation,
    samples: &mut Samples,
) -> Result<String, TrainError> {
    let options = |value: &str| {
        let resource = preparation.resource.as_deref();
        let resource = resource.unwrap_or(if value == "amount" { RESOURCE } else { value });
        ReadOptions {
            resource: Some(resource.to_owned()),
            ..ReadOptions::value(value)
        }
    };
    match &preparation.value {
        Some(value) => samples.read(path, &options(value)).map_err(unknown_kind)?,
        None => {
            let [first, second] = VALUES;
            match samples.read(path, &options(first)) {
                Err(TraceError::MissingColumn { column, .. }) if column == first => {
                    samples.read(path, &options(second)).map_err(no_value)?;
                }
                read => read.map_err(unknown_kind)?,
            }
        }
    }
    let failed = |source| TrainError::Io {
        path: path.to_owned(),
        source,
    };
    sha256_of(File::open(path).map_err(failed)?).map_err(failed)
}

/// Tables are not all that is read here.
fn unknown_kind(error: TraceError) -> TrainError {
    match error {
        TraceError::UnknownKind { path } => TrainError::Data {
            path,
            reason: "unknown kind of file; the name must end in .parquet, .csv or .json".into(),
        },
        error => error.into(),
    }
}

/// Names both of the columns that were looked for, and what would help.
fn no_value(error: TraceError) -> TrainError {
    match error {
        TraceError::MissingColumn {
            path,
            column,
            present,
        } if column == VALUES[1] => TrainError::Data {
            path,
            reason: format!(
                "neither a column `amount` nor one `requests`; name the column with --value (the file has {present})"
            ),
        },
        error => error.into(),
    }
}

fn read_json(
    path: &Path,
    preparation: &Preparation,
    samples: &mut Samples,
) -> Result<String, TrainError> {
    let failed = |source| TrainError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // One byte more than allowed, since what is no file has no length beforehand.
    let mut bytes = Vec::new();
    let mut most = file.take(JSON_BYTES_MAX + 1);
    most.read_to_end(&mut bytes).map_err(failed)?;
    let mut source = JsonSource {
        path,
        preparation,
        samples,
    };
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(source.error(format!(
            "more than {JSON_BYTES_MAX} bytes of JSON; ask for fewer customers or a shorter time, and give several files"
        )));
    }
    source.samples.begin(path);
    source.read(&bytes)?;
    sha256_of(bytes.as_slice()).map_err(failed)
}

// === impl JsonSource ===

impl JsonSource<'_> {
    fn error(&self, reason: String) -> TrainError {
        TrainError::Data {
            path: self.path.to_owned(),
            reason,
        }
    }

    /// Exports of several customers may follow one another.
    fn read(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let mut parts = serde_json::Deserializer::from_slice(bytes).into_iter::<Said>();
        let mut count = 0;
        loop {
            let place = parts.byte_offset();
            let Some(part) = parts.next() else { break };
            let unknown = |error: &str| {
                self.error(format!(
                    "what begins at byte {place} is neither usage history of the control plane (GET /v1/history) nor a range query's answer of Prometheus: {error}"
                ))
            };
            let part = part.map_err(|error| unknown(&error.to_string()))?;
            match part.kind().ok_or_else(|| unknown("fields are missing"))? {
                Kind::Prometheus(answer) => self.push_answer(answer)?,
                Kind::History(all) => all.iter().try_for_each(|one| self.push_history(one))?,
            }
            count += 1;
        }
        match count {
            0 => Err(self.error("the file is empty".into())),
            _ => Ok(()),
        }
    }

    fn push_history(&mut self, series: &HistorySeries) -> Result<(), TrainError> {
        let whole = |reason: &str| {
            self.error(format!(
                "the history of {} ({}): {reason}",
                series.key, series.resource
            ))
        };
        let step_ns = u64::from(series.step_ms) * 1_000_000;
        // The newest step must end before nanoseconds do.
        let end_ns = series
            .newest_step
            .checked_add(1)
            .and_then(|steps| steps.checked_mul(step_ns));
        if end_ns.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(whole("its newest step lies beyond the year 2262"));
        }
        let steps = series.usage.len() as u64;
        let Some(oldest) = (series.newest_step + 1).checked_sub(steps) else {
            return Err(whole("it begins before 1970: is `newest_step` wrong?"));
        };
        for (step, amount) in (oldest..).zip(&series.usage) {
            let at_ns = (step * step_ns).cast_signed();
            self.samples
                .push(&series.key, &series.resource, at_ns, *amount)?;
        }
        Ok(())
    }

    fn push_answer(&mut self, answer: Answer) -> Result<(), TrainError> {
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
        let step_s = self.answered_step_s(&series)?;
        let mut seen = BTreeSet::new();
        for one in &series {
            let customer = self.customer(one)?;
            let resource = match (one.metric.get("resource"), &self.preparation.resource) {
                (Some(label), _) => label,
                (None, Some(said)) => said,
                (None, None) => RESOURCE,
            };
            if !seen.insert((customer, resource)) {
                let label = &self.preparation.customer_label;
                return Err(self.error(format!(
                    "there are two series for the customer {customer} and {resource}: say how they belong together, as with `sum by ({label}) (...)`"
                )));
            }
            for (at_s, AnsweredAmount(amount)) in &one.values {
                // The value at a time is that of the step that ends there.
                let start_s = at_s - step_s;
                if start_s.abs() >= UNIX_S_MAX {
                    return Err(self.error(format!("customer {customer}: {at_s} is no time")));
                }
                let at_ns = (start_s * 1e3).round() as i64 * 1_000_000;
                self.samples
                    .push(customer, resource, at_ns, Some(*amount))?;
            }
        }
        Ok(())
    }

    fn customer<'s>(&self, series: &'s AnsweredSeries) -> Result<&'s str, TrainError> {
        let label = &self.preparation.customer_label;
        match series.metric.get(label) {
            Some(customer) if !customer.is_empty() => Ok(customer),
            _ => Err(self.error(format!(
                "the series {:?} has no label `{label}` to take the customer from: name another with --customer-label, or keep it with `sum by ({label}) (...)`",
                series.metric
            ))),
        }
    }

    /// What was asked for as `step`: the most frequent distance of two values, the shortest of several.
    fn answered_step_s(&self, series: &[AnsweredSeries]) -> Result<f64, TrainError> {
        if let Some(step_s) = self.preparation.step_s {
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
        match usual {
            Some((distance_ms, _)) => Ok(distance_ms as f64 / 1e3),
            None => Err(self.error(
                "no customer has two values, so the step is unknown; say it with --step-s".into(),
            )),
        }
    }
}
