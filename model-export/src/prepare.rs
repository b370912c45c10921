//! `forebay-train prepare`: usage history in, a versioned data set out.
//!
//! Exports have rows twice, rows that are missing, amounts that nobody can have meant, and no two of them the same shape. Whoever trains on
//! them mends that in a script of a notebook, and a year later nobody knows which. Here it is done once, by rules that are written
//! beside the result, and the same usage has the same digest whatever machine and whatever order of rows it came from.

mod answer;
mod covariates;
mod described;
mod folder;
mod grid;
mod labels;
mod local_clock;
mod manifest;
mod outlier;
mod server;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use forebay_traces::{Join, Samples, TraceError};

use crate::error::TrainError;
use crate::output::Output;
use crate::unfinished::sweep;
use covariates::PreparedCovariate;
use described::Extras;
use grid::{Counts, UsageGrid};
use labels::CustomerLabels;
use local_clock::LocalClock;
use manifest::Manifest;
use outlier::OutlierRule;
use source::{Source, Taking};

pub(crate) use covariates::column_of;
pub(crate) use folder::files_of;
pub(crate) use manifest::{PreparedFolder, PreparedResource};

/// Less than this cannot tell a weekly season from chance.
const ENOUGH_S: u64 = 7 * 86_400;
/// Most steps of all customers and resources: 8 bytes each, and what was clipped.
pub(crate) const STEPS_MAX: u64 = 50_000_000;
/// Forecasts have single precision.
const AMOUNT_MAX: f64 = 1e30;

/// What is to be prepared, and how.
#[derive(Clone, Debug)]
pub(crate) struct Preparation {
    pub(crate) inputs: Vec<PathBuf>,
    /// The new folder.
    pub(crate) out: PathBuf,
    /// Column of the amount, or several joined by `+`.
    pub(crate) value: Option<String>,
    /// Resource of rows that do not name one.
    pub(crate) resource: Option<String>,
    /// Label of Prometheus that names the customer.
    pub(crate) customer_label: String,
    pub(crate) step_s: Option<u32>,
    /// What becomes of several rows of one step.
    pub(crate) join: Join,
    /// IANA name of the time zone of local hours.
    pub(crate) zone: String,
}

/// All customers of a resource.
pub(crate) struct ResourceGrid {
    name: String,
    step_s: u32,
    /// By name of the customer.
    customers: Vec<UsageGrid>,
    counts: Counts,
    /// File and row of the first amount that was left out because it was negative, for people.
    first_negative: Option<String>,
    rule: OutlierRule,
    /// By name, as they are in each customer's grid.
    covariates: BTreeMap<String, PreparedCovariate>,
}

/// A data set before it is written; the manifest has no sums of files yet.
struct Unwritten {
    manifest: Manifest,
    grids: Vec<ResourceGrid>,
    clock: LocalClock,
    labels: CustomerLabels,
}

// === impl Preparation ===

impl Preparation {
    /// Prepares, writes the folder, and says what was found.
    pub(crate) fn run(&self, out: &mut Output<'_>) -> Result<(), TrainError> {
        let swept = sweep(&self.out);
        let manifest = self.prepare()?;
        out.line(said_of(&manifest, &self.out))?;
        for left in swept {
            out.line(format_args!(
                "removed {}, which a run that was killed has left",
                left.display()
            ))?;
        }
        Ok(())
    }

    fn prepare(&self) -> Result<Manifest, TrainError> {
        folder::refuse_taken(&self.out)?;
        folder::refuse_unwritable(&self.out)?;
        self.read()?.write(&self.out)
    }

    fn read(&self) -> Result<Unwritten, TrainError> {
        let clock = LocalClock::of(&self.zone)?;
        let mut samples = Samples::new();
        let taking = self.taking();
        let mut extras = Extras::default();
        let mut sources = Vec::new();
        for path in &self.inputs {
            let is_described = path
                .extension()
                .is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
            match is_described {
                true => sources.extend(described::read(path, &taking, &mut samples, &mut extras)?),
                false => sources.push(Source::read(path, &taking, &mut samples)?),
            }
        }
        sources.sort();
        samples.sort();
        let mut names: Vec<&str> = samples.resources().map(|(name, _)| name).collect();
        names.sort_unstable();
        let mut grids: Vec<ResourceGrid> = Vec::new();
        for name in names {
            let taken: u64 = grids.iter().map(|grid| grid.counts.steps).sum();
            let room = STEPS_MAX.saturating_sub(taken);
            grids.push(ResourceGrid::of(name, &samples, self, room)?);
        }
        if grids.is_empty() {
            return Err(self.data_error("there is no row of usage in any of the sources".into()));
        }
        let mut amounts = grids
            .iter()
            .flat_map(|grid| &grid.customers)
            .flat_map(|one| &one.amounts);
        if amounts.all(|amount| amount.is_nan()) {
            return Err(self.data_error(
                "there is no amount in any of the sources: all of them are empty or NaN".into(),
            ));
        }
        let mut covariates = extras.covariates;
        // The order of columns is that of names, and so is that of the manifest.
        covariates.sort_by(|a, b| a.name.cmp(&b.name));
        covariates::attach(&covariates, &mut grids).map_err(|reason| self.data_error(reason))?;
        let mut labels = extras.labels;
        let customers = grids.iter().flat_map(|grid| &grid.customers);
        labels.keep(
            &customers
                .map(|one| one.customer.as_str())
                .collect::<BTreeSet<_>>(),
        );
        let manifest = Manifest::new(sources, &grids, &clock, &labels, self.join);
        Ok(Unwritten {
            manifest,
            grids,
            clock,
            labels,
        })
    }

    /// How files are taken that are named by themselves.
    fn taking(&self) -> Taking {
        Taking {
            value: self.value.clone(),
            resource: self.resource.clone(),
            customer_label: self.customer_label.clone(),
            step_s: self.step_s,
            is_covariate: false,
            is_for_all: false,
        }
    }

    fn data_error(&self, reason: String) -> TrainError {
        TrainError::Data {
            path: self.first_input().to_owned(),
            reason,
        }
    }

    fn first_input(&self) -> &Path {
        self.inputs.first().map_or(Path::new(""), PathBuf::as_path)
    }
}

// === impl Unwritten ===

impl Unwritten {
    fn write(self, out: &Path) -> Result<Manifest, TrainError> {
        folder::write(out, self.manifest, &self.grids, &self.clock, &self.labels)
    }
}

// === impl ResourceGrid ===

impl ResourceGrid {
    /// Of `room` steps at most.
    fn of(
        name: &str,
        samples: &Samples,
        preparation: &Preparation,
        room: u64,
    ) -> Result<Self, TrainError> {
        let path = preparation.first_input();
        let first_negative = samples.first_negative(name);
        if let Some((file, row)) = first_negative
            && samples.series(name).next().is_none()
        {
            return Err(TrainError::Data {
                path: file.to_owned(),
                reason: format!(
                    "all amounts of the resource {name} are negative, the first in row {row}"
                ),
            });
        }
        if !manifest::is_file_name(name) {
            return Err(preparation.data_error(format!(
                "the resource {name:?} cannot be the name of a file: it must be letters, digits, `_`, `-` and `.`, 64 at most (--resource names that of rows which name none)"
            )));
        }
        let step_s = match preparation.step_s {
            Some(step_s) => step_s,
            None => samples.usual_step_s(name, path).map_err(|error| match error {
                TraceError::OddStep { step_ns, .. } => preparation.data_error(format!(
                    "the usual distance of two samples of {name} is {step_ns} ns, no whole number of seconds: single events must be added up to steps first"
                )),
                error => error.into(),
            })?,
        };
        let mut negatives = samples.resources().filter(|(found, _)| *found == name);
        let mut counts = Counts {
            negatives: negatives.next().map_or(0, |(_, count)| count),
            ..Counts::default()
        };
        let rule = OutlierRule::of_step(step_s);
        let mut customers = Vec::new();
        for series in samples.series(name) {
            let room = room.saturating_sub(counts.steps);
            let mut customer =
                UsageGrid::of(&series, step_s, preparation.join, room, &mut counts).map_err(|steps| {
                    preparation.data_error(format!(
                        "customer `{}` spans {steps} steps of {step_s} s in {name}, and a data set has {STEPS_MAX} at most: is a time wrong, or the step too short (--step-s)?",
                        series.tenant
                    ))
                })?;
            if customer.amounts.iter().any(|amount| *amount > AMOUNT_MAX) {
                return Err(preparation.data_error(format!(
                    "an amount of customer `{}` in {name} is above {AMOUNT_MAX:e}, the most that can be forecast",
                    series.tenant
                )));
            }
            counts.outliers += customer.clip(&rule);
            customers.push(customer);
        }
        customers.sort_by(|a, b| a.customer.cmp(&b.customer));
        Ok(Self {
            name: name.to_owned(),
            step_s,
            customers,
            counts,
            first_negative: first_negative
                .map(|(file, row)| format!("{}, row {row}", file.display())),
            rule,
            covariates: BTreeMap::new(),
        })
    }

    /// First and last instant of all customers.
    fn span_s(&self) -> (i64, i64) {
        let start = self.customers.iter().map(|one| one.start_s).min();
        let end = self
            .customers
            .iter()
            .map(|one| one.stamp_s(one.len()))
            .max();
        (start.unwrap_or(0), end.unwrap_or(0))
    }

    /// Steps of the customer with most of them.
    fn longest(&self) -> usize {
        let lengths = self.customers.iter().map(UsageGrid::len);
        lengths.max().unwrap_or(0)
    }
}

fn said_of(manifest: &Manifest, out: &Path) -> String {
    let mut text = format!("{}: digest {}", out.display(), manifest.digest);
    for (name, resource) in &manifest.resources {
        let counts = &resource.counts;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{name}: {} customers, {} steps of {} s from {} to {}; gaps {}, outliers clipped {}, duplicates left out {}, rows joined {}, negative rows left out {}{}; training may go until {}",
            resource.customers,
            counts.steps,
            resource.step_s,
            resource.start,
            resource.end,
            counts.gaps,
            counts.outliers,
            counts.duplicates,
            counts.joined,
            counts.negatives,
            match &resource.first_negative {
                Some(place) => format!(" (the first: {place})"),
                None => String::new(),
            },
            resource.training_end,
        );
        for (covariate, found) in &resource.covariates {
            let _ = write!(
                text,
                "\n{name}: covariate {covariate} of {} customers, gaps {}, negative rows left out {}",
                found.customers, found.gaps, found.negatives
            );
        }
        if let Some(why) = &resource.degraded_because {
            let _ = write!(text, "\n{name} is degraded: {why}");
        }
    }
    text
}

#[cfg(test)]
mod covariates_tests;
#[cfg(test)]
mod database_tests;
#[cfg(test)]
mod evaluated_tests;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod memory_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
