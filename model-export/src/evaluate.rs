//! `forebay-train evaluate DIR`: what the system would deploy for each data set of a folder, beside every family alone, by rolling origin.

mod group;
mod hours;
mod html;
mod json;
mod promise;
mod scenarios;
mod svg;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use forebay_families::{
    Agenda, Arima, Boosting, BoostingWithCovariates, Entrant, Family, Forecasts, History, Learner,
    MixtureSettings, Race, RidgeRegression, RidgeWithCovariates, SIMPLE, race,
};

use forebay_traces::Series;
use group::Group;
use promise::Promise;
use scenarios::Odds;

use crate::dataset::{DataSet, Entries, Found, traces};
use crate::destination::{Destination, keep_apart};
use crate::error::TrainError;
use crate::output::{Output, figure};
use crate::prepare::{PreparedFolder, files_of};
use crate::scoring::{self, Cut, Score, Scored, TABLE_HEAD};

/// Name of the mixture that would be deployed.
const DEPLOYED: &str = "mixture";
/// Most forecasts of a family that are kept: 16 bytes each, and there are about ten families and mixtures.
const ROWS_MOST: usize = 12_000_000;
/// The largest amount of a step.
const AMOUNT_MAX: f64 = 1e30;
/// Customers whose forecasts are drawn.
const DRAWN: usize = 2;

/// Everything that reports say of a data set.
pub(crate) struct Evaluated {
    name: String,
    settings: String,
    entrants: Vec<Entrant>,
    tables: Vec<Table>,
    /// Of all steps ahead.
    group: Option<Group>,
    /// What else there is to say, for people.
    remarks: Vec<String>,
    fans: Vec<svg::Fan>,
}

/// Scores for steps `1..=steps` of all families and of what is deployed.
struct Table {
    steps: usize,
    rows: Vec<(&'static str, Score)>,
    odds: Option<Odds>,
    /// Of the farthest step.
    promise: Option<Promise>,
    /// wQL with events known / unknown.
    events_ratio: Option<f64>,
}

/// Where reports are written.
struct Reports {
    page: Option<Destination>,
    json: Option<Destination>,
}

/// Scores all data sets of a folder, and writes the reports that are asked for.
pub(crate) fn run(
    folder: &Path,
    settings: Option<&Path>,
    report: Option<&Path>,
    json: Option<&Path>,
    out: &mut Output<'_>,
) -> Result<(), TrainError> {
    let mut entries = Entries::load(settings)?;
    let paths = traces(folder)?;
    let is_file = folder.is_file();
    let prepared = match folder.parent() {
        Some(parent) if is_file => PreparedFolder::open(parent)?,
        _ => PreparedFolder::open(folder)?,
    };
    let mut evaluated = Vec::new();
    let reports = Reports {
        page: report.map(Destination::open).transpose()?,
        json: json.map(Destination::open).transpose()?,
    };
    let mut read = entries.files_of(&paths);
    read.extend(settings.map(Path::to_owned));
    if prepared.is_some() {
        let set = if is_file {
            folder.parent()
        } else {
            Some(folder)
        };
        read.extend(set.map(files_of).unwrap_or_default());
    }
    let written: Vec<&Destination> = reports.page.iter().chain(&reports.json).collect();
    keep_apart(&written, &read)?;
    // Before the manifest's names come in: they are not said by anybody, and one file of several may be asked for.
    if settings.is_some() {
        for name in entries.unused(&paths) {
            out.line(format_args!(
                "settings: there is no file {name} in the folder"
            ))?;
        }
    }
    if let Some(prepared) = &prepared {
        entries.add(prepared);
        for (name, resource) in prepared.resources() {
            if let Some(why) = &resource.degraded_because {
                out.line(format_args!("{name} is degraded: {why}"))?;
            }
        }
    }
    for path in paths {
        match entries.read(&path)? {
            Found::Skipped { reason, .. } if is_file => {
                return Err(TrainError::Data {
                    reason: format!("not scored, {reason}"),
                    path,
                });
            }
            Found::Skipped { name, reason } => {
                out.line(format_args!("\n## {name}: not scored, {reason}"))?;
            }
            Found::DataSet(data_set) => {
                refuse_huge(&path, &data_set)?;
                evaluated.extend(evaluate(*data_set, out)?);
            }
        }
    }
    if evaluated.is_empty() {
        return Err(TrainError::Data {
            path: folder.to_owned(),
            reason: "no trace in this folder can be scored: .parquet or .csv files with columns tenant, timestamp_utc and an amount".into(),
        });
    }
    out.line(summary(&evaluated))?;
    if let Some(page) = reports.page {
        page.write(html::page(&evaluated).as_bytes())?;
    }
    if let (Some(place), Some(path)) = (reports.json, json) {
        place.write(json::text(&evaluated, path)?.as_bytes())?;
    }
    Ok(())
}

/// Forecasts have single precision.
fn refuse_huge(path: &Path, data_set: &DataSet) -> Result<(), TrainError> {
    let is_huge = |one: &&Series| one.values.iter().any(|value| *value > AMOUNT_MAX);
    match data_set.series.iter().find(is_huge) {
        None => Ok(()),
        Some(one) => Err(TrainError::Data {
            path: path.to_owned(),
            reason: format!(
                "an amount of tenant `{}` is above {AMOUNT_MAX:e}, the most that can be forecast",
                one.tenant
            ),
        }),
    }
}

/// `None` if no tenant can be scored.
fn evaluate(mut data_set: DataSet, out: &mut Output<'_>) -> Result<Option<Evaluated>, TrainError> {
    let start = Instant::now();
    out.line(format_args!(
        "\n## {}: {}",
        data_set.name, data_set.settings
    ))?;
    let scored = scoring::select(&data_set.cut, std::mem::take(&mut data_set.series));
    let scored = as_many_as_fit(scored, &data_set.cut, out)?;
    if scored.is_empty() {
        out.line("not scored: no tenant of this file is long and active enough")?;
        return Ok(None);
    }
    let histories: Vec<History> = scored
        .iter()
        .map(|one| {
            let series = &one.series;
            History::new(series.start_s, series.step_s, series.values.clone())
                .with_covariates(data_set.covariates(&series.tenant))
        })
        .collect();
    let tables_of = |race: &Race| -> Vec<Table> {
        let steps = data_set.reported.iter();
        steps
            .map(|steps| table(&data_set, &scored, race, *steps))
            .collect()
    };
    let without_events = run_race(&data_set, &scored, &histories);
    let (race, unknowing) = if data_set.events.is_empty() {
        (without_events, None)
    } else {
        let agendas = data_set.agendas(scored.iter().map(|one| one.series.tenant.as_str()));
        let with_agenda =
            |(history, agenda): (&History, Arc<Agenda>)| history.clone().with_agenda(agenda);
        let knowing: Vec<History> = histories.iter().zip(agendas).map(with_agenda).collect();
        let race = run_race(&data_set, &scored, &knowing);
        (race, Some(tables_of(&without_events)))
    };
    for entrant in &race.entrants {
        out.line(said_of(entrant))?;
    }
    let mut tables = tables_of(&race);
    for (knowing, unknowing) in tables.iter_mut().zip(unknowing.iter().flatten()) {
        knowing.events_ratio = Some(knowing.deployed_wql() / unknowing.deployed_wql());
    }
    for table in &tables {
        out.line(table.said(&data_set.name))?;
    }
    let group = Group::of(&data_set, &scored, &race.deployed);
    let mut remarks = vec![hours::said(&scored, &race.deployed)];
    remarks.extend(group.as_ref().map(|group| match group {
        Ok(group) => group.said(),
        Err(why_not) => why_not.clone(),
    }));
    for remark in &remarks {
        out.line(remark)?;
    }
    out.line(format_args!("{:.0} s", start.elapsed().as_secs_f64()))?;
    let fans = drawn(&scored)
        .into_iter()
        .filter_map(|tenant| {
            let forecasts = race.deployed[tenant].as_ref()?;
            Some(svg::Fan::of(&scored[tenant], forecasts, &data_set.cut))
        })
        .collect();
    Ok(Some(Evaluated {
        name: data_set.name,
        settings: data_set.settings,
        entrants: race.entrants,
        tables,
        group: group.and_then(Result::ok),
        remarks,
        fans,
    }))
}

/// Those that learn, in the order in which they may enter.
fn learners() -> [&'static dyn Learner; 5] {
    [
        &Boosting,
        &BoostingWithCovariates,
        &RidgeRegression,
        &RidgeWithCovariates,
        &Arima,
    ]
}

fn run_race(data_set: &DataSet, scored: &[Scored], histories: &[History]) -> Race {
    let test_starts: Vec<usize> = scored.iter().map(|one| one.test_start).collect();
    let settings = MixtureSettings::default();
    race(
        histories,
        &data_set.frame,
        &test_starts,
        &learners(),
        &settings,
    )
}

/// Every so manieth tenant, if the forecasts of all would take too much memory; none of those whose own would.
fn as_many_as_fit(
    scored: Vec<Scored>,
    cut: &Cut,
    out: &mut Output<'_>,
) -> Result<Vec<Scored>, TrainError> {
    let rows = |one: &Scored| {
        let from = one.test_start - one.test_start / 2;
        (one.series.len() - from).saturating_mul(cut.horizons)
    };
    let before = scored.len();
    let scored: Vec<Scored> = scored
        .into_iter()
        .filter(|one| rows(one) <= ROWS_MOST)
        .collect();
    if scored.len() < before {
        out.line(format_args!(
            "not scored: {} of {before} tenants, the forecasts of each of which would take too much memory: ask for fewer steps ahead (`horizons`), or cut the file",
            before - scored.len()
        ))?;
    }
    let all: usize = scored.iter().map(rows).sum();
    let every = all.div_ceil(ROWS_MOST).max(1);
    if every > 1 {
        out.line(format_args!(
            "scored: {} of {} tenants, because forecasts of all would take too much memory",
            scored.len().div_ceil(every),
            scored.len()
        ))?;
    }
    Ok(scored.into_iter().step_by(every).collect())
}

fn said_of(entrant: &Entrant) -> String {
    let [first, second] = entrant.gains.map(|gain| figure(100.0 * gain, 1));
    let verdict = if entrant.is_deployed {
        "deployed"
    } else {
        "not deployed"
    };
    format!(
        "{}: lowers the mixture's loss by {first} % and {second} % on two folds before the test: {verdict}",
        entrant.name
    )
}

fn table<'a>(data_set: &DataSet, scored: &[Scored], race: &'a Race, steps: usize) -> Table {
    let score = |of: &dyn Fn(usize) -> Option<&'a Forecasts>| {
        scoring::score(&data_set.cut, scored, steps, |tenant, nth, step| {
            Some(of(tenant)?.of(scored[tenant].origins[nth], step + 1))
        })
    };
    let of_family = |(family, name): (usize, &&'static str)| {
        let found = score(&|tenant| race.forecasts[tenant][family].as_ref())?;
        Some((*name, found))
    };
    let mut rows: Vec<_> = race
        .names
        .iter()
        .enumerate()
        .filter_map(of_family)
        .collect();
    let deployed = score(&|tenant| race.deployed[tenant].as_ref());
    rows.extend(deployed.map(|found| (DEPLOYED, found)));
    Table {
        steps,
        rows,
        odds: Odds::of(data_set, scored, &race.deployed, steps),
        promise: Promise::of(scored, &race.deployed, steps),
        events_ratio: None,
    }
}

/// The largest tenant and the median one by demand.
fn drawn(scored: &[Scored]) -> Vec<usize> {
    let demand = |one: &Scored| -> f64 { one.series.values.iter().filter(|v| !v.is_nan()).sum() };
    let mut by_size: Vec<usize> = (0..scored.len()).collect();
    by_size.sort_by(|a, b| demand(&scored[*b]).total_cmp(&demand(&scored[*a])));
    let mut drawn = vec![by_size[0], by_size[by_size.len() / 2]];
    drawn.dedup();
    drawn.truncate(DRAWN);
    drawn
}

fn summary(evaluated: &[Evaluated]) -> String {
    let tables = || evaluated.iter().flat_map(|one| &one.tables);
    let mean = |ratio: fn(&Table) -> f64| {
        let logs: Vec<f64> = tables()
            .map(|table| ratio(table).ln())
            .filter(|log| log.is_finite())
            .collect();
        (logs.iter().sum::<f64>() / logs.len() as f64).exp()
    };
    let ratios: Vec<f64> = tables()
        .map(Table::ratio)
        .filter(|ratio| !ratio.is_nan())
        .collect();
    let at_most_one = ratios.iter().filter(|ratio| **ratio <= 1.0).count();
    let without = match tables().count() - ratios.len() {
        0 => String::new(),
        count => format!(", {count} without a ratio"),
    };
    format!(
        "\ndeployed / best simple method: geometric mean {} (median tenant {}), highest {}, at most 1 in {at_most_one} of {} cells{without}",
        figure(mean(Table::ratio), 3),
        figure(mean(Table::median_ratio), 3),
        figure(ratios.iter().copied().fold(f64::NAN, f64::max), 3),
        ratios.len()
    )
}

// === impl Table ===

impl Table {
    fn of(&self, name: &str) -> Option<&Score> {
        let row = self.rows.iter().find(|(found, _)| *found == name);
        row.map(|(_, score)| score)
    }

    fn ratio_of(&self, figure: fn(&Score) -> f64) -> f64 {
        let Some(deployed) = self.of(DEPLOYED) else {
            return f64::NAN;
        };
        // Figures of other points cannot be compared.
        let simple = SIMPLE.iter().filter_map(|family| self.of(family.name()));
        let best = simple
            .filter(|score| score.points == deployed.points)
            .map(figure)
            .fold(f64::NAN, f64::min);
        figure(deployed) / best
    }

    /// wQL of what is deployed / of the simple family that turned out to be best.
    fn ratio(&self) -> f64 {
        self.ratio_of(|score| score.wql)
    }

    /// The same for the median tenant's wQL.
    fn median_ratio(&self) -> f64 {
        self.ratio_of(|score| score.wql_median)
    }

    fn deployed_wql(&self) -> f64 {
        self.of(DEPLOYED).map_or(f64::NAN, |score| score.wql)
    }

    fn said(&self, name: &str) -> String {
        let (tenants, points) = self
            .rows
            .first()
            .map_or((0, 0), |(_, score)| (score.tenants, score.points));
        let mut lines = vec![format!(
            "\n### {name} - steps 1..{}, {tenants} tenants, {points} scored points\n{TABLE_HEAD}",
            self.steps
        )];
        let rows = self.rows.iter();
        lines.extend(rows.map(|(method, score)| format!("| {method} | {} |", score.cells())));
        let honest = self.of(DEPLOYED).and_then(|score| score.honest);
        let honest = honest.map_or("too few points to judge tenants by".to_owned(), |share| {
            format!(
                "{:.0} % of tenants within the binomial interval of q0.9",
                100.0 * share
            )
        });
        lines.push(format!(
            "deployed / best simple method: {} (median tenant {}); {honest}",
            figure(self.ratio(), 3),
            figure(self.median_ratio(), 3)
        ));
        lines.extend(self.promise.map(Promise::said));
        lines.extend(
            self.events_ratio
                .map(|ratio| format!("wQL with events known / unknown: {}", figure(ratio, 3))),
        );
        lines.extend(self.odds.as_ref().map(Odds::said));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
