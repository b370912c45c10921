//! What a file of traces is: which column, which seasons, which steps ahead, where the test span begins. Either somebody has said so, in TOML, or it is
//! inferred from the file and printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_calendar::{Calendar, CsvNames};
use forebay_families::{Agenda, Event, Frame};
use forebay_traces::{Join, ReadOptions, Series, TraceError, read};
use serde::Deserialize;

use crate::error::TrainError;
use crate::prepare::{PreparedFolder, column_of};
use crate::regular_file::read_text;
use crate::scoring::Cut;
use crate::steps_ahead::Ahead;

/// The settings of the data sets that are known by name: those of the reference scorer.
const KNOWN: &str = include_str!("../datasets.toml");

/// The column that is taken when nobody has named one.
const VALUE: &str = "requests";
/// The column of a prepared data set: what happened, and not what outliers are clipped to, since a forecast that missed them must lose by it.
const PREPARED_VALUE: &str = "recorded";
/// Columns that are no amounts.
const NO_VALUES: [&str; 6] = [
    "tenant",
    "customer",
    "timestamp_utc",
    "timestamp",
    "gap",
    "resource",
];

const MINUTE_S: usize = 60;
const HOUR_S: usize = 3_600;
const DAY_S: usize = 86_400;
const WEEK_S: usize = 7 * DAY_S;
/// A season must be seen this many times, a longer one this many.
const SEASONS_MIN: f64 = 4.0;
const LONG_SEASONS_MIN: f64 = 2.2;
/// Fewest steps whose errors make quantiles.
const ERROR_ROWS_MIN: usize = 120;
/// Most steps of a season, of a step and of trailing errors, and most origins.
pub(crate) const COUNT_MAX: usize = 1_000_000;
/// Settings are written by people.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
const OTHER: &str =
    "a pipe, a socket or a device: write what comes from there to a .csv or .parquet file";
/// Events are felt for so long at most, before and after the series: a week.
const EVENTS_REACH_S: i64 = WEEK_S as i64;

/// What somebody has said of a file; the rest is inferred.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Why the file is not scored at all.
    skip: Option<String>,
    /// Value column, or several joined by `+`.
    value: Option<String>,
    step_s: Option<u32>,
    season: Option<usize>,
    long_season: Option<usize>,
    /// Reported steps ahead; the largest is the forecast horizon.
    horizons: Option<Vec<Ahead>>,
    /// Columns of what else was measured.
    #[serde(default)]
    covariates: Vec<String>,
    /// Last share of each series that is the test span.
    test: Option<f64>,
    /// Origins per tenant.
    origins: Option<usize>,
    /// Steps of trailing errors.
    window: Option<usize>,
    /// Rows of one step are added up, rather than averaged.
    sum: Option<bool>,
    /// Steps without a row count as 0.
    fill_zero: Option<bool>,
    min_active: Option<f64>,
    min_seasons: Option<f64>,
    /// What was known to come.
    events: Option<EventsEntry>,
}

/// A calendar beside the traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table with `file`, such as [checkout_5m.events]"
)]
struct EventsEntry {
    /// File in the folder of the traces.
    file: PathBuf,
    /// IANA time zone of local times that name none.
    #[serde(default = "utc")]
    zone: String,
    /// Columns of a CSV file.
    #[serde(default)]
    columns: CsvNames,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Entries by the name of the file without its ending.
#[derive(Clone, Debug)]
pub(crate) struct Entries(BTreeMap<String, Entry>);

/// Series of a tenant, one for each covariate.
type Covariates = BTreeMap<String, Arc<Vec<Vec<f64>>>>;

/// A file, read, and how it is scored.
#[derive(Debug)]
pub(crate) struct DataSet {
    /// Name of the file without its ending.
    pub(crate) name: String,
    /// What was read and what was inferred, for people.
    pub(crate) settings: String,
    pub(crate) series: Vec<Series>,
    pub(crate) cut: Cut,
    pub(crate) frame: Frame,
    /// Reported steps ahead, ascending.
    pub(crate) reported: Vec<usize>,
    /// Occurrences of the calendar.
    pub(crate) events: Vec<forebay_calendar::Entry>,
    /// By tenant, on the grid of its series: one for each column that was named.
    covariates: Covariates,
}

/// A file of a folder: a data set, or why it is none.
pub(crate) enum Found {
    DataSet(Box<DataSet>),
    Skipped { name: String, reason: String },
}

/// Of settings whose values stand outside of a table, for which the parser has no word that helps.
fn wrong_shape(text: &str) -> Option<String> {
    let all: toml::Table = text.parse().ok()?;
    let (name, _) = all.iter().find(|(_, value)| !value.is_table())?;
    Some(format!(
        "`{name}` is no table: the settings of a file stand in one that is named as the file without its ending, such as [checkout_5m] for checkout_5m.csv"
    ))
}

// === impl Entries ===

impl Entries {
    /// Those of a file, or those that are known by name.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, TrainError> {
        let text = match path {
            Some(path) => read_text(path, SETTINGS_BYTES_MAX)?,
            None => KNOWN.to_owned(),
        };
        let entries = toml::from_str(&text).map_err(|error| TrainError::Settings {
            path: path.map_or("datasets.toml".into(), Path::to_owned),
            reason: wrong_shape(&text).unwrap_or_else(|| error.to_string()),
        })?;
        let entries = Self(entries);
        for (name, entry) in &entries.0 {
            entry.check().map_err(|reason| TrainError::Settings {
                path: path.map_or("datasets.toml".into(), Path::to_owned),
                reason: format!("[{name}]: {reason}"),
            })?;
        }
        Ok(entries)
    }

    /// Adds what the manifests of prepared data sets say of files that have no entry, and the column to those that name none.
    pub(crate) fn add(&mut self, prepared: &PreparedFolder) {
        for (name, resource) in prepared.resources() {
            let entry = Entry {
                value: Some(PREPARED_VALUE.to_owned()),
                step_s: Some(resource.step_s),
                season: Some(resource.season),
                long_season: resource.long_season,
                ..Entry::default()
            };
            let entry = self.0.entry(name.clone()).or_insert(entry);
            if entry.covariates.is_empty() {
                let names = resource.covariates.keys();
                entry.covariates = names.map(|name| column_of(name)).collect();
            }
            entry.value.get_or_insert_with(|| PREPARED_VALUE.to_owned());
        }
    }

    /// Names of entries that none of the files has.
    pub(crate) fn unused(&self, paths: &[PathBuf]) -> Vec<&str> {
        let is_used = |name: &str| {
            paths
                .iter()
                .any(|path| path.file_stem().is_some_and(|stem| stem == name))
        };
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| !is_used(name)).collect()
    }

    /// What is read of these traces: themselves, and calendars beside them.
    pub(crate) fn files_of(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let calendar = |path: &PathBuf| {
            let entry = self.0.get(path.file_stem()?.to_string_lossy().as_ref())?;
            entry.events.as_ref().map(|events| events.path(path))
        };
        let calendars = paths.iter().filter_map(calendar);
        paths.iter().cloned().chain(calendars).collect()
    }

    /// Reads a file and finds out how it is scored.
    pub(crate) fn read(&self, path: &Path) -> Result<Found, TrainError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let entry = self.0.get(name.as_ref()).cloned().unwrap_or_default();
        if let Some(reason) = entry.skip {
            return Ok(Found::Skipped {
                name: name.into_owned(),
                reason,
            });
        }
        if path.is_dir() {
            return Ok(Found::Skipped {
                name: name.into_owned(),
                reason: "it is a folder: evaluate that one by itself, or join its files".into(),
            });
        }
        let (value, series) = match entry.read(path) {
            Ok(read) => read,
            // A folder of traces may hold other tables as well.
            Err(error @ (TraceError::MissingColumn { .. } | TraceError::NoHeading { .. }))
                if entry.value.is_some() =>
            {
                return Err(error.into());
            }
            Err(
                error @ (TraceError::MissingColumn { .. }
                | TraceError::NoHeading { .. }
                | TraceError::OddStep { .. }
                | TraceError::NoStep { .. }
                | TraceError::TooLong { .. }
                | TraceError::Empty { .. }),
            ) => {
                return Ok(Found::Skipped {
                    name: name.into_owned(),
                    reason: error.to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let events = match &entry.events {
            Some(events) => events.read(path, &series)?,
            None => Calendar::default(),
        };
        let covariates = entry.read_covariates(path, &series)?;
        match DataSet::new(name.to_string(), &entry, &value, series, events) {
            Ok(data_set) => Ok(Found::DataSet(Box::new(DataSet {
                covariates,
                ..data_set
            }))),
            Err(reason) => Ok(Found::Skipped {
                name: name.into_owned(),
                reason,
            }),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn check(&self) -> Result<(), String> {
        let share = |name: &str, value: Option<f64>| match value {
            Some(value) if !(0.0..1.0).contains(&value) => Err(format!(
                "`{name}` is {value}; it must be at least 0 and below 1"
            )),
            _ => Ok(()),
        };
        share("test", self.test)?;
        share("min_active", self.min_active)?;
        if self.test == Some(0.0) {
            return Err("`test` is 0; there would be nothing to score".to_owned());
        }
        let counts = [
            ("season", self.season),
            ("long_season", self.long_season),
            ("origins", self.origins),
            ("window", self.window),
            ("step_s", self.step_s.map(|step_s| step_s as usize)),
        ];
        for (name, count) in counts {
            if count == Some(0) {
                return Err(format!("`{name}` is 0; it must be at least 1"));
            }
            if count.is_some_and(|count| count > COUNT_MAX) {
                return Err(format!("`{name}` must be at most {COUNT_MAX}"));
            }
        }
        if let Some(horizons) = &self.horizons {
            if horizons.is_empty() {
                return Err("`horizons` is empty; leave it out, or say steps ahead".to_owned());
            }
            horizons.iter().try_for_each(Ahead::check)?;
        }
        match self.min_seasons {
            Some(seasons) if !(0.0..=1e6).contains(&seasons) => Err(format!(
                "`min_seasons` is {seasons}; it must not be negative"
            )),
            _ => Ok(()),
        }
    }

    /// What else was measured of each tenant, in the steps of its series; NaN where it was not.
    fn read_covariates(&self, path: &Path, series: &[Series]) -> Result<Covariates, TraceError> {
        let mut all: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
        for column in &self.covariates {
            let options = ReadOptions {
                step_s: series.first().map(|one| one.step_s),
                ..ReadOptions::value(column)
            };
            let measured: BTreeMap<String, Series> = read(path, &options)?
                .into_iter()
                .map(|one| (one.tenant.clone(), one))
                .collect();
            for one in series {
                let value = |step: usize| {
                    let found = measured.get(&one.tenant)?;
                    let ahead_s = one.stamp_s(step) - found.start_s;
                    let at = ahead_s.div_euclid(i64::from(found.step_s));
                    found.values.get(usize::try_from(at).ok()?).copied()
                };
                let values = (0..one.len()).map(|step| value(step).unwrap_or(f64::NAN));
                let of_tenant = all.entry(one.tenant.clone()).or_default();
                of_tenant.push(values.collect());
            }
        }
        let shared = all.into_iter().map(|(name, all)| (name, Arc::new(all)));
        Ok(shared.collect())
    }

    /// The series, and the name of the value column.
    fn read(&self, path: &Path) -> Result<(String, Vec<Series>), TraceError> {
        let options = |value: &str| ReadOptions {
            step_s: self.step_s,
            join: match self.sum {
                Some(true) => Join::Sum,
                _ => Join::Mean,
            },
            fill_zero: self.fill_zero.unwrap_or(false),
            ..ReadOptions::value(value)
        };
        let value = self.value.as_deref().unwrap_or(VALUE);
        let error = match read(path, &options(value)) {
            Ok(series) => return Ok((value.to_owned(), series)),
            Err(error) => error,
        };
        // Nobody has named a column: the first one that holds numbers.
        if self.value.is_none()
            && let TraceError::MissingColumn {
                column, present, ..
            } = &error
            && column == VALUE
        {
            for other in present.split(", ").filter(|name| !NO_VALUES.contains(name)) {
                match read(path, &options(other)) {
                    Ok(series) => return Ok((other.to_owned(), series)),
                    // A column of something else; a bad amount among good ones is an error.
                    Err(TraceError::WrongType { .. } | TraceError::BadCell { row: 1, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error)
    }
}

// === impl EventsEntry ===

impl EventsEntry {
    /// Those that may be felt within the time of the series, or by the forecasts from it.
    fn read(&self, trace: &Path, series: &[Series]) -> Result<Calendar, TrainError> {
        let path = self.path(trace);
        let options = forebay_calendar::ReadOptions {
            from_s: series.iter().map(|one| one.start_s).min().unwrap_or(0) - EVENTS_REACH_S,
            until_s: series
                .iter()
                .map(|one| one.stamp_s(one.len()))
                .max()
                .unwrap_or(0)
                + EVENTS_REACH_S,
            zone: self.zone.clone(),
            names: self.columns.clone(),
        };
        Ok(forebay_calendar::read(&path, &options)?)
    }

    /// Of the calendar beside a trace.
    fn path(&self, trace: &Path) -> PathBuf {
        let folder = trace.parent().unwrap_or(Path::new(""));
        folder.join(&self.file)
    }
}

// === impl DataSet ===

impl DataSet {
    /// What else was measured of a tenant.
    pub(crate) fn covariates(&self, tenant: &str) -> Arc<Vec<Vec<f64>>> {
        self.covariates.get(tenant).cloned().unwrap_or_default()
    }

    /// What was known to come for each of these tenants. Those of whom the calendar says nothing share one: tens of thousands of events for each of
    /// hundreds of tenants would be gigabytes.
    pub(crate) fn agendas<'a>(&self, tenants: impl Iterator<Item = &'a str>) -> Vec<Arc<Agenda>> {
        let customers = self.events.iter().filter_map(|one| one.customer.as_deref());
        let named: BTreeSet<&str> = customers.collect();
        let common = Arc::new(self.common_agenda());
        let agenda = |tenant| match named.contains(tenant) {
            true => Arc::new(self.agenda_of(|customer| customer.is_none_or(|one| one == tenant))),
            false => Arc::clone(&common),
        };
        tenants.map(agenda).collect()
    }

    /// What was known to come for everybody.
    pub(crate) fn common_agenda(&self) -> Agenda {
        self.agenda_of(|customer| customer.is_none())
    }

    fn agenda_of(&self, concerns: impl Fn(Option<&str>) -> bool) -> Agenda {
        let entries = self.events.iter();
        let concerning = entries.filter(|entry| concerns(entry.customer.as_deref()));
        Agenda::new(concerning.map(|entry| entry.event.clone()))
    }

    fn new(
        name: String,
        entry: &Entry,
        value: &str,
        series: Vec<Series>,
        calendar: Calendar,
    ) -> Result<Self, String> {
        let step_s = series.first().map_or(1, |one| one.step_s) as usize;
        let longest = series.iter().map(Series::len).max().unwrap_or(0);
        let (inferred, inferred_long) = seasons(step_s, longest);
        let season = entry.season.unwrap_or(inferred);
        let long_season = match (entry.season, entry.long_season) {
            (_, Some(long)) => Some(long),
            (Some(_), None) => None,
            (None, None) => inferred_long,
        };
        let test_share = entry.test.unwrap_or(0.25);
        let test_steps = longest - (longest as f64 * (1.0 - test_share)) as usize;
        let ahead = entry.horizons.clone().unwrap_or_else(|| {
            let usual = horizons(step_s).into_iter();
            usual.map(Ahead::Steps).collect()
        });
        let (mut reported, mut not_scored) = (Vec::new(), String::new());
        for one in ahead {
            match one.steps(step_s, test_steps) {
                Ok(steps) => reported.push(steps),
                Err(reason) => {
                    let _ = write!(not_scored, ", not scored: {reason}");
                }
            }
        }
        reported.sort_unstable();
        reported.dedup();
        let Some(horizons) = reported.last().copied() else {
            return Err(not_scored.trim_start_matches(", not scored: ").to_owned());
        };
        let cut = Cut {
            season_steps: season,
            horizons,
            test_share,
            origins: entry.origins.unwrap_or(100),
            min_active: entry.min_active.unwrap_or(0.0),
            min_seasons: entry.min_seasons.unwrap_or(SEASONS_MIN),
        };
        let frame = Frame {
            season,
            long_season,
            horizons: cut.horizons,
            error_rows: entry.window.unwrap_or(season.max(ERROR_ROWS_MIN)),
        };
        let long = long_season.map_or("none".to_owned(), |steps| steps.to_string());
        let settings = format!(
            "{} series, value {value}, covariates [{}], step {step_s} s, season {season}, longer season {long}, steps ahead {reported:?}, test span {}, {} origins, errors of {} steps, {}{not_scored}",
            series.len(),
            entry.covariates.join(", "),
            cut.test_share,
            cut.origins,
            frame.error_rows,
            events_said(&calendar, &series, entry.events.as_ref())
        );
        Ok(Self {
            name,
            settings,
            series,
            cut,
            frame,
            reported,
            events: calendar.entries,
            covariates: BTreeMap::new(),
        })
    }
}

/// Events that nobody knew of beforehand help no forecast, and a calendar may be full of them: where it says when entries were changed, all of what was
/// changed after the traces is news.
fn events_said(calendar: &Calendar, series: &[Series], entry: Option<&EventsEntry>) -> String {
    let starts_s = series.iter().map(|one| one.start_s).min().unwrap_or(0);
    let ends_s = series.iter().map(|one| one.stamp_s(one.len())).max();
    let within = starts_s..ends_s.unwrap_or(0);
    let events = || calendar.entries.iter().map(|entry| &entry.event);
    let took_place = |event: &&Event| event.known_until_s.is_none();
    let during = || {
        events()
            .filter(|event| within.contains(&event.starts_s))
            .filter(took_place)
    };
    let was_known = |event: &&Event| event.known_s.is_none_or(|known_s| known_s < event.starts_s);
    let mut said = format!("{} events", calendar.entries.len());
    if let Some(entry) = entry
        && calendar.entries.is_empty()
    {
        let _ = write!(
            said,
            " ({} has none from a week before the traces to a week after them)",
            entry.file.display()
        );
    }
    if !calendar.entries.is_empty() {
        let known = during().filter(was_known).count();
        let began = during().count();
        let _ = write!(
            said,
            " ({known} of the {began} that begin within the traces were known before they did)"
        );
    }
    if calendar.momentary > 0 {
        let _ = write!(
            said,
            ", {} entries without any length left out",
            calendar.momentary
        );
    }
    said
}

/// A season and a longer one of steps of this length, as far as they are seen often enough.
pub(crate) fn seasons(step_s: usize, steps: usize) -> (usize, Option<usize>) {
    let season = season(step_s, steps);
    let week = WEEK_S / step_s.min(WEEK_S);
    let is_long = season * step_s == DAY_S && steps as f64 > LONG_SEASONS_MIN * week as f64;
    (season, is_long.then_some(week))
}

/// The longest of a week, a day, an hour and a minute that is seen often enough; days only for steps of less than one.
fn season(step_s: usize, steps: usize) -> usize {
    let periods: &[usize] = match step_s {
        DAY_S.. => &[WEEK_S],
        _ => &[DAY_S, HOUR_S, MINUTE_S],
    };
    let seen = periods
        .iter()
        .map(|period| period / step_s)
        .find(|season| *season >= 2 && steps as f64 >= SEASONS_MIN * *season as f64);
    seen.unwrap_or(1)
}

/// Steps ahead that are worth a forecast, by the length of a step.
fn horizons(step_s: usize) -> Vec<usize> {
    match step_s {
        0..30 => vec![1, 10, 60],
        30..180 => vec![1, 5, 15],
        180..450 => vec![1, 3, 12],
        450..HOUR_S => vec![1, (HOUR_S / step_s).max(2)],
        HOUR_S..DAY_S => vec![1, (DAY_S / step_s).max(2)],
        _ => vec![1, 7],
    }
}

/// The traces of a folder by name: what ends in `.parquet` or `.csv`, folders of such names among them. Of a file, itself.
pub(crate) fn traces(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let failed = |source| TrainError::Io {
        path: folder.to_owned(),
        source,
    };
    let found = fs::metadata(folder).map_err(failed)?;
    if found.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    if !found.is_dir() {
        return Err(TrainError::Data {
            path: folder.to_owned(),
            reason: format!("it is neither a folder nor a file, but {OTHER}"),
        });
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if ending != "parquet" && ending != "csv" {
            continue;
        }
        let reason = match fs::metadata(&path) {
            Ok(found) if found.is_file() || found.is_dir() => {
                paths.push(path);
                continue;
            }
            Ok(_) => format!("it is no file, but {OTHER}, or move it away"),
            Err(error) if path.is_symlink() && error.kind() == ErrorKind::NotFound => {
                "it is a link to a file that is not there: mend the link, or remove it".to_owned()
            }
            Err(source) => return Err(TrainError::Io { path, source }),
        };
        return Err(TrainError::Data { path, reason });
    }
    paths.sort();
    let files: Vec<&PathBuf> = paths.iter().filter(|path| path.is_file()).collect();
    for (path, next) in files.iter().zip(files.iter().skip(1)) {
        if path.file_stem() == next.file_stem() {
            let reason = format!(
                "its scores would be under the same name as those of {}: rename one of them",
                next.display()
            );
            return Err(TrainError::Data {
                path: path.to_path_buf(),
                reason,
            });
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_data_sets_are_well_said() {
        let entries = Entries::load(None).unwrap();
        assert!(entries.0.contains_key("ms_rate_1m"));
    }

    #[test]
    fn seasons_and_steps_ahead_follow_the_step() {
        let week_of_minutes = 7 * 1_440;
        assert_eq!(season(60, week_of_minutes), 1_440);
        assert_eq!(season(60, 480), 60);
        assert_eq!(season(3_600, 3_000), 24);
        assert_eq!(season(1, 1_800), 60);
        assert_eq!(season(86_400, 365), 7);
        assert_eq!(season(3_600, 20), 1);
        assert_eq!(horizons(60), [1, 5, 15]);
        assert_eq!(horizons(600), [1, 6]);
        assert_eq!(horizons(3_600), [1, 24]);
        assert_eq!(horizons(86_400), [1, 7]);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        for (text, word) in [
            ("[a]\ntest = 1.5\n", "test"),
            ("[a]\nhorizons = []\n", "horizons"),
            ("[a]\nhorizons = [1, \"1 fortnight\"]\n", "1 fortnight"),
            ("[a]\nhorizons = [1.5]\n", "numbers of steps, or times"),
            ("[a]\nseason = 0\n", "season"),
            ("[a]\nlong_season = 9223372036854775807\n", "long_season"),
            ("[a]\nsesaon = 4\n", "sesaon"),
        ] {
            let path = folder.path().join("settings.toml");
            fs::write(&path, text).unwrap();
            let error = Entries::load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
