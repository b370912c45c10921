//! Where usage comes from: tables, the control plane's usage history, and what Prometheus answered to a range query.
//!
//! Files here; a server that is asked is in `server.rs`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use forebay_traces::{ReadOptions, Samples, TraceError};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, AnswerData, AnswerReader, TakenSum};
use crate::card::sha256_of;
use crate::error::TrainError;
use crate::regular_file;

/// Columns that are looked for when nobody has named one.
const VALUES: [&str; 2] = ["amount", "requests"];
/// The column of a prepared file, which is named for its resource.
const PREPARED_VALUE: &str = "recorded";
/// Resource of an answer of Prometheus that has no label `resource`.
pub(super) const RESOURCE: &str = "requests";
/// JSON is read as a whole. Two bytes may be a sample, and until it is one of a grid that takes 40: less than 1 GiB for a file.
pub(super) const JSON_BYTES_MAX: u64 = 1 << 25;

/// How what a source says is taken.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    /// Column of the amount, or several joined by `+`.
    pub(crate) value: Option<String>,
    /// Resource of rows that do not name one.
    pub(crate) resource: Option<String>,
    /// Label of Prometheus that names the customer.
    pub(crate) customer_label: String,
    pub(crate) step_s: Option<u32>,
    /// The resource is the name of a covariate, whatever labels say.
    pub(crate) is_covariate: bool,
    /// Labels of Prometheus name no customer.
    pub(crate) is_for_all: bool,
}

/// A file that was read, or what a server was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    /// Without its folder, which is another one on each machine.
    pub(super) name: String,
    pub(super) sha256: String,
}

/// A piece of JSON that may be usage: the fields of all kinds, told apart when they are read.
///
/// An untagged enum would say the same in fewer words, and keep a tree of the whole document, dozens of bytes for each number, to try one kind after another.
#[derive(Deserialize)]
pub(super) struct Said {
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

/// One JSON file, and where its samples go.
struct JsonSource<'a> {
    path: &'a Path,
    taking: &'a Taking,
    samples: &'a mut Samples,
}

// === impl Said ===

impl Said {
    /// What a server answers, whatever its status.
    pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
        let said: Self = serde_json::from_slice(bytes).ok()?;
        match said.kind()? {
            Kind::Prometheus(answer) => Some(answer),
            Kind::History(_) => None,
        }
    }

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

// === impl Source ===

impl Source {
    /// Reads a file and adds what it says.
    pub(super) fn read(
        path: &Path,
        taking: &Taking,
        samples: &mut Samples,
    ) -> Result<Self, TrainError> {
        // What has been read of a pipe cannot be read again for its sum.
        regular_file::open(path)?;
        let is_json = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let sha256 = match is_json {
            true => read_json(path, taking, samples)?,
            false => read_table(path, taking, samples)?,
        };
        Ok(Self::named(path, sha256))
    }

    /// A file that is read elsewhere.
    pub(super) fn of_file(path: &Path) -> Result<Self, TrainError> {
        let sum = File::open(path).and_then(sha256_of);
        let sha256 = sum.map_err(|source| TrainError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::named(path, sha256))
    }

    fn named(path: &Path, sha256: String) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            sha256,
        }
    }
}

fn read_table(path: &Path, taking: &Taking, samples: &mut Samples) -> Result<String, TrainError> {
    let options = |value: &str| {
        let resource = taking.resource.as_deref();
        let resource = resource.unwrap_or(if value == "amount" { RESOURCE } else { value });
        ReadOptions {
            resource: Some(resource.to_owned()),
            ..ReadOptions::value(value)
        }
    };
    match &taking.value {
        Some(value) => samples.read(path, &options(value)).map_err(unknown_kind)?,
        None => {
            let is_missing = |read: &Result<(), TraceError>, wanted: &str| matches!(read, Err(TraceError::MissingColumn { column, .. }) if column == wanted);
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let prepared = ReadOptions {
                resource: Some(taking.resource.clone().unwrap_or_else(|| stem.into_owned())),
                ..ReadOptions::value(PREPARED_VALUE)
            };
            let mut read = samples.read(path, &prepared);
            for (before, value) in [(PREPARED_VALUE, VALUES[0]), (VALUES[0], VALUES[1])] {
                if is_missing(&read, before) {
                    read = samples.read(path, &options(value));
                }
            }
            read.map_err(no_value)?;
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
            reason: "unknown kind of file; the name must end in .parquet, .csv, .json or .toml"
                .into(),
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
        error => unknown_kind(error),
    }
}

fn read_json(path: &Path, taking: &Taking, samples: &mut Samples) -> Result<String, TrainError> {
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
        taking,
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
                Kind::Prometheus(answer) => {
                    let mut reader = AnswerReader {
                        place: self.path,
                        taking: self.taking,
                        samples: self.samples,
                        asked_step_s: None,
                    };
                    reader.push(answer, &mut TakenSum::default())?;
                }
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
        if series.step_ms == 0 {
            return Err(whole(
                "its `step_ms` is 0: it is the length of a step in milliseconds, such as 60000",
            ));
        }
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
}
