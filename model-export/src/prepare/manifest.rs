//! What a data set is made of and by which rules, as a file beside it; and the digest by which two of them are known to be the same.
//!
//! The digest is of the grids and not of the files: another version of the Parquet library writes other bytes for the same usage. What nobody may
//! change unnoticed, the files, have sums of their own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use forebay_traces::Join;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::covariates::{self, PreparedCovariate};
use super::grid::{Counts, UsageGrid};
use super::labels::{CustomerLabels, ROLES};
use super::local_clock::{LocalClock, UtcOffset};
use super::outlier::{OutlierRule, quantile};
use super::source::Source;
use super::{ENOUGH_S, ResourceGrid};
use crate::card::{hex, sha256_of};
use crate::dataset::{COUNT_MAX, seasons};
use crate::error::TrainError;
use crate::stamp::rfc3339;

/// The manifest's name in its folder.
pub(crate) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "forebay-usage";
const FORMAT_VERSION: u32 = 2;
/// A manifest of 64 resources has some 60 kB, and each source some 150 bytes.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const NAME_BYTES_MAX: usize = 64;
/// First share of the span that `scale` describes. Where `evaluate` tests is not said by it: that is the last share of each customer's own span,
/// which for one whose usage ends early begins before.
const TRAINING_SHARE: f64 = 0.75;

/// Everything that is known about a data set. Nothing here depends on the machine, on the time, or on the order of rows, but for the sums of
/// sources and files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: String,
    format_version: u32,
    /// SHA-256 of all grids, hex.
    pub(crate) digest: String,
    /// Of local hours and weekdays.
    time_zone: String,
    utc_offsets: Vec<UtcOffset>,
    rows_of_a_step: Joined,
    /// Some resource has less usage than a forecast needs.
    pub(crate) degraded: bool,
    pub(crate) resources: BTreeMap<String, PreparedResource>,
    /// SHA-256 of the customers' roles, hex. Of geography there is no word here: its file may be deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    roles_sha256: Option<String>,
    pub(super) sources: Vec<Source>,
}

/// What the amount of several rows of one step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Joined {
    Mean,
    Sum,
}

/// A resource's part: one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreparedResource {
    /// SHA-256 of `NAME.parquet`, hex.
    sha256: String,
    pub(crate) step_s: u32,
    pub(crate) customers: usize,
    /// Start of the first step of any customer.
    pub(crate) start: String,
    /// End of the last one.
    pub(crate) end: String,
    /// Steps of a season, and of a longer one, that are seen often enough.
    pub(crate) season: usize,
    pub(crate) long_season: Option<usize>,
    /// What is said of `scale` comes from before; whoever learns outside of this program may stop here, and nothing in it holds anybody to it.
    pub(crate) training_end: String,
    scale: Scale,
    pub(crate) counts: Counts,
    /// Not in the file: its path is another one on each machine.
    #[serde(skip)]
    pub(super) first_negative: Option<String>,
    outliers: OutlierRule,
    /// What else was measured, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) covariates: BTreeMap<String, PreparedCovariate>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) degraded_because: Option<String>,
}

/// How large amounts are, whatever a few of them do; null if none is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    median: Option<f64>,
    /// Third quartile less the first.
    iqr: Option<f64>,
}

/// A folder whose files are those of its manifest.
#[derive(Debug)]
pub(crate) struct PreparedFolder {
    manifest: Manifest,
}

/// Only such names of resources are names of files everywhere.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with(['.', '-'])
}

pub(super) fn file_of(folder: &Path, resource: &str) -> PathBuf {
    folder.join(format!("{resource}.parquet"))
}

// === impl Manifest ===

impl Manifest {
    pub(super) fn new(
        sources: Vec<Source>,
        grids: &[ResourceGrid],
        clock: &LocalClock,
        labels: &CustomerLabels,
        join: Join,
    ) -> Self {
        let spans = || grids.iter().map(ResourceGrid::span_s);
        let start_s = spans().map(|(start_s, _)| start_s).min().unwrap_or(0);
        let end_s = spans().map(|(_, end_s)| end_s).max().unwrap_or(0);
        let resources = grids
            .iter()
            .map(|grid| (grid.name.clone(), PreparedResource::of(grid)));
        let resources: BTreeMap<_, _> = resources.collect();
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            digest: digest(grids, clock, labels),
            time_zone: clock.name().to_owned(),
            utc_offsets: clock.offsets(start_s, end_s),
            rows_of_a_step: match join {
                Join::Mean => Joined::Mean,
                Join::Sum => Joined::Sum,
            },
            degraded: resources.values().any(|one| one.degraded_because.is_some()),
            resources,
            roles_sha256: (!labels.roles.is_empty()).then(String::new),
            sources,
        }
    }

    /// How many files were read.
    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Notes the sums of the files that have been written.
    pub(super) fn sum(&mut self, folder: &Path) -> Result<(), TrainError> {
        for (name, resource) in &mut self.resources {
            resource.sha256 = sum_of(&file_of(folder, name))?;
        }
        if let Some(sha256) = &mut self.roles_sha256 {
            *sha256 = sum_of(&folder.join(ROLES))?;
        }
        Ok(())
    }
}

// === impl PreparedResource ===

impl PreparedResource {
    fn of(grid: &ResourceGrid) -> Self {
        let (start_s, end_s) = grid.span_s();
        let steps = end_s.abs_diff(start_s) / u64::from(grid.step_s);
        let training = (steps as f64 * TRAINING_SHARE) as i64;
        let training_end_s = start_s + training * i64::from(grid.step_s);
        let longest_s = grid.longest() as u64 * u64::from(grid.step_s);
        let degraded_because = (longest_s < ENOUGH_S).then(|| {
            format!(
                "no customer has 7 days of usage ({:.1} at most), so that a weekly season cannot be told from chance; a model trained on it knows days at best, \
                 and its scores say little: release none that was trained on this alone",
                longest_s as f64 / 86_400.0
            )
        });
        let (season, long_season) = seasons(grid.step_s as usize, grid.longest());
        Self {
            sha256: String::new(),
            step_s: grid.step_s,
            customers: grid.customers.len(),
            start: rfc3339(start_s),
            end: rfc3339(end_s),
            season,
            long_season,
            training_end: rfc3339(training_end_s),
            scale: Scale::before(training_end_s, &grid.customers),
            counts: grid.counts,
            first_negative: grid.first_negative.clone(),
            outliers: grid.rule,
            covariates: grid.covariates.clone(),
            degraded_because,
        }
    }
}

// === impl Scale ===

impl Scale {
    fn before(end_s: i64, customers: &[UsageGrid]) -> Self {
        let amounts = customers.iter().flat_map(|one| {
            let of_training = (0..one.len()).take_while(move |step| one.stamp_s(*step) < end_s);
            of_training.map(|step| one.amounts[step])
        });
        let mut known: Vec<f64> = amounts.filter(|amount| !amount.is_nan()).collect();
        known.sort_unstable_by(f64::total_cmp);
        let [q1, median, q3] = [0.25, 0.5, 0.75].map(|share| quantile(&known, share));
        let said = |value: f64| (!value.is_nan()).then_some(value);
        Self {
            median: said(median),
            iqr: said(q3 - q1),
        }
    }
}

// === impl PreparedFolder ===

impl PreparedFolder {
    /// `None` if there is no manifest of a data set in the folder. Fails if its files are not those that it describes.
    pub(crate) fn open(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(MANIFEST);
        let refused = |reason: String| TrainError::Data {
            path: path.clone(),
            reason,
        };
        let length = match fs::metadata(&path) {
            Ok(found) if found.is_file() => found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(_) => return Err(refused("it is no file: move it away".to_owned())),
            Err(source) => return Err(TrainError::Io { path, source }),
        };
        if length > MANIFEST_BYTES_MAX {
            return Err(refused(format!(
                "it has {length} bytes, and a manifest of a data set {MANIFEST_BYTES_MAX} at most: prepare the data set again, or move away what is none"
            )));
        }
        let bytes = fs::read(&path).map_err(|source| TrainError::Io {
            path: path.clone(),
            source,
        })?;
        let said: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
            refused(format!(
                "damaged ({error}): prepare the data set again, or move away what is none"
            ))
        })?;
        // Manifests of others have that name, too.
        if said["format"] != FORMAT {
            return Ok(None);
        }
        if said["format_version"] != FORMAT_VERSION {
            return Err(refused(format!(
                "its format has version {}, and this program reads version {FORMAT_VERSION}: prepare it again",
                said["format_version"]
            )));
        }
        let manifest: Manifest = serde_json::from_value(said).map_err(|error| {
            refused(format!(
                "not a manifest of a data set ({error}): prepare it again"
            ))
        })?;
        let mut files = Vec::new();
        for (name, resource) in &manifest.resources {
            if !is_file_name(name) {
                return Err(refused(format!("{name:?} is no name of a resource")));
            }
            let is_count = |count: usize| (1..=COUNT_MAX).contains(&count);
            if !is_count(resource.season)
                || !resource.long_season.is_none_or(is_count)
                || resource.step_s == 0
            {
                return Err(refused(format!(
                    "the step and the seasons of {name} must be from 1 to {COUNT_MAX}: prepare the data set again"
                )));
            }
            files.push((file_of(folder, name), &resource.sha256));
        }
        if let Some(sha256) = &manifest.roles_sha256 {
            files.push((folder.join(ROLES), sha256));
        }
        for (file, sha256) in files {
            if sum_of(&file)? != *sha256 {
                return Err(TrainError::Data {
                    path: file,
                    reason: format!(
                        "not the file that {MANIFEST} describes: it has been changed or damaged; prepare it again"
                    ),
                });
            }
        }
        Ok(Some(Self { manifest }))
    }

    /// By which the same usage is known to be the same.
    pub(crate) fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// The resources by name.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&String, &PreparedResource)> {
        self.manifest.resources.iter()
    }
}

fn sum_of(path: &Path) -> Result<String, TrainError> {
    let sum = File::open(path).and_then(sha256_of);
    sum.map_err(|source| TrainError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Numbers as little-endian bytes, texts behind their length: no two data sets make the same stream.
fn digest(grids: &[ResourceGrid], clock: &LocalClock, labels: &CustomerLabels) -> String {
    let mut sum = Sha256::new();
    let text = |sum: &mut Sha256, text: &str| {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    };
    text(&mut sum, FORMAT);
    sum.update(FORMAT_VERSION.to_le_bytes());
    text(&mut sum, clock.name());
    for grid in grids {
        text(&mut sum, &grid.name);
        sum.update(grid.step_s.to_le_bytes());
        sum.update((grid.customers.len() as u64).to_le_bytes());
        for one in &grid.customers {
            text(&mut sum, &one.customer);
            sum.update(one.start_s.to_le_bytes());
            sum.update((one.len() as u64).to_le_bytes());
            for (step, amount) in one.amounts.iter().enumerate() {
                for amount in [one.recorded(step), *amount] {
                    // There are many ways to write that something is no number; here it is one.
                    let bits = if amount.is_nan() {
                        u64::MAX
                    } else {
                        amount.to_bits()
                    };
                    sum.update(bits.to_le_bytes());
                }
                let local = clock.local(one.stamp_s(step));
                let is_outlier = one.outliers.contains_key(&step);
                sum.update([u8::from(is_outlier), local.hour, local.weekday]);
            }
        }
    }
    covariates::digest(grids, &mut sum);
    labels.digest(&mut sum);
    hex(&sum.finalize())
}
