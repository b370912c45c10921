//! `forebay simulate --policy NEW --against OLD`: recorded usage against two policies.
//!
//! Policies, usage and forecasts come together here; what becomes of them is `forebay_simulator::pool::what_if`.

mod document;
mod forecasts;
mod record;
mod report;

use super::super::commands::SimulateOptions;
use super::super::policy::of_file;
use document::Document;
use forebay_simulator::pool::what_if::{CUSTOMERS_MOST, Outcome, Told, Usage, compare};
use record::Record;
use report::Report;
use std::collections::HashSet;
use std::path::Path;

/// Where nobody names one.
const SEED: u64 = 1;

/// Runs the comparison, prints its tables and writes its file.
///
/// # Errors
/// What is wrong with the policies, the usage or a file.
pub(super) fn run(options: &SimulateOptions, against: &Path) -> Result<(), String> {
    let [newer] = options.policies.as_slice() else {
        let given = options.policies.len();
        return Err(format!(
            "--against compares with one policy, but --policy names {given}: give one file"
        ));
    };
    let newer = Path::new(newer);
    let (checked_old, checked_new) = (of_file(against)?, of_file(newer)?);
    let old = Document::new(against, &checked_old)?;
    let new = Document::new(newer, &checked_new)?;

    let mut record = record::read(options)?;
    add_lenders(&mut record, [&old, &new])?;
    let Record {
        names,
        step_s,
        steps,
        starts_s,
    } = record;
    let usage = Usage::new(step_s, steps).map_err(|error| error.to_string())?;
    if usage.is_nothing() {
        return Err("nobody asks for anything in the recorded usage".to_owned());
    }
    let seed = options.seed.unwrap_or(SEED);
    let listed = [&old, &new].map(|document| document.listed(&names));
    let outcomes = outcomes(&usage, [&old, &new], &names, starts_s, seed)?;
    let report = Report {
        files: [against, newer],
        names: &names,
        seconds: usage.seconds(),
        seed,
        listed,
        outcomes: &outcomes,
    };
    super::say(&report.text())?;
    if let Some(path) = &options.json {
        let json =
            serde_json::to_string_pretty(&report.fields()).map_err(|error| error.to_string())?;
        super::write(path, &json)?;
    }
    Ok(())
}

fn outcomes(
    usage: &Usage,
    documents: [&Document<'_>; 2],
    names: &[String],
    starts_s: i64,
    seed: u64,
) -> Result<[Outcome; 2], String> {
    let [old, new] = documents.map(|document| document.side(names, starts_s));
    let of_cycles = |cycle_s| {
        let per_cycle = usage.per_cycle(cycle_s);
        let per_cycle = per_cycle.map_err(|error| error.to_string())?;
        Ok::<_, String>(forecasts::outlooks(&per_cycle, cycle_s))
    };
    let outlooks = of_cycles(old.cycle_s)?;
    let others = match new.cycle_s == old.cycle_s {
        true => None,
        false => Some(of_cycles(new.cycle_s)?),
    };
    let told_old = Told {
        side: &old,
        outlooks: &outlooks,
    };
    let told_new = Told {
        side: &new,
        outlooks: others.as_ref().unwrap_or(&outlooks),
    };
    Ok(compare(usage, [told_old, told_new], seed))
}

/// Who has a guarantee and never asks can lend it, so it takes part.
fn add_lenders(record: &mut Record, documents: [&Document<'_>; 2]) -> Result<(), String> {
    let mut known: HashSet<String> = record.names.iter().cloned().collect();
    for name in documents.iter().flat_map(|document| document.guaranteed()) {
        if known.insert(name.to_owned()) {
            record.names.push(name.to_owned());
            record.steps.push(Vec::new());
        }
        if record.names.len() > CUSTOMERS_MOST {
            return Err(format!(
                "the recorded usage and those with a guarantee are more than {CUSTOMERS_MOST} customers: leave some out of the policies"
            ));
        }
    }
    Ok(())
}
