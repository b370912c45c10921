//! What a document says about customers that behave as they never did, and about events that are known before.
//!
//! Only a control plane watches customers, so it is compiled apart from the tables, as `sharing` is and for its reason.

use crate::check;
use crate::error::{Mistakes, PolicyError, Problem};
use forebay_wire::policy::{AnomalyAction, KnownEvent, PolicyDocument};
use std::collections::BTreeSet;

/// Events that a policy can have.
const MAX_EVENTS: usize = 1_024;
/// What a score may be to matter.
const SCORE: (f64, f64) = (1.0, 100.0);
/// More times the usual demand are explained by no event.
const FACTOR_MOST: f64 = 100.0;
/// What is longer than that is no event, but how things are.
const LONGEST_S: u64 = 31 * 86_400;
/// The last second of the year 9999: what begins later never begins.
const FROM_MOST_S: u64 = 253_402_300_799;

/// What is done about whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// For each row of the contract table: what follows for its customers.
    pub actions: Vec<AnomalyAction>,
    /// From which score on a flagged customer is capped.
    pub cap_from_score: f64,
    /// Events that are known.
    pub events: Vec<CompiledEvent>,
}

/// An event that is known before.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledEvent {
    /// From this time on, in milliseconds since 1970.
    pub from_unix_ms: u64,
    /// Up to this one, which is not in it.
    pub until_unix_ms: u64,
    /// How many times the usual demand is expected.
    pub factor: f64,
    /// Rows of the contract table; none: all of them.
    pub contracts: Option<BTreeSet<usize>>,
}

/// Compiles what a document says about anomalies; none where it says nothing.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn anomaly(document: &PolicyDocument) -> Result<Option<Anomaly>, PolicyError> {
    let mut mistakes = Mistakes::default();
    let Some(written) = &document.anomaly else {
        without_effect(&mut mistakes, document);
        return mistakes.into_result(None);
    };
    let contracts = document.contracts.iter();
    let own = contracts.filter_map(|(name, contract)| Some((name, contract.anomaly?)));
    let own = own.map(|(name, action)| (format!("contracts.{name}.anomaly"), action));
    let all = std::iter::once(("anomaly.action".to_owned(), written.action)).chain(own);
    let caps: Vec<String> = all
        .filter(|(_, action)| *action == AnomalyAction::CapAtContract)
        .map(|(path, _)| path)
        .collect();
    if document.sharing.is_none() {
        // Without an allocation there is nothing that could be capped.
        let because = "without a `sharing` section: write `flag`, or have the pools divided";
        for path in &caps {
            mistakes.add(path, Problem::NoEffect { because });
        }
    }
    if let Some(score) = written.cap_from_score {
        let path = "anomaly.cap_from_score";
        if caps.is_empty() {
            let because = "where nobody is capped";
            mistakes.add(path, Problem::NoEffect { because });
        }
        within(&mut mistakes, path, score, SCORE);
    }
    let events = events(&mut mistakes, document);
    let actions = document.contracts.iter();
    mistakes.into_result(Some(Anomaly {
        actions: actions
            .map(|(_, contract)| contract.anomaly.unwrap_or(written.action))
            .collect(),
        cap_from_score: written.cap_from_score.unwrap_or(SCORE.0),
        events,
    }))
}

/// What is written for a watch that is not kept.
fn without_effect(mistakes: &mut Mistakes, document: &PolicyDocument) {
    let because = "without an `anomaly` section";
    let sharing = document.sharing.as_ref();
    let is_spillover_scored = sharing.is_some_and(|sharing| sharing.spillover.is_some());
    if !document.events.is_empty() && !is_spillover_scored {
        let because = "without an `anomaly` section or `sharing.spillover`";
        mistakes.add("events", Problem::NoEffect { because });
    }
    for (name, contract) in document.contracts.iter() {
        if contract.anomaly.is_some() {
            let path = format!("contracts.{name}.anomaly");
            mistakes.add(path, Problem::NoEffect { because });
        }
    }
}

/// The events of a document, which explain demand to whoever judges it.
pub(crate) fn events(mistakes: &mut Mistakes, document: &PolicyDocument) -> Vec<CompiledEvent> {
    let found = document.events.len();
    if found > MAX_EVENTS {
        let allowed = "at most 1024";
        mistakes.add("events", Problem::Count { found, allowed });
        return Vec::new();
    }
    let events = document.events.iter().enumerate();
    events
        .map(|(position, event)| {
            let path = format!("events[{position}]");
            compiled(mistakes, document, &path, event)
        })
        .collect()
}

fn compiled(
    mistakes: &mut Mistakes,
    document: &PolicyDocument,
    path: &str,
    event: &KnownEvent,
) -> CompiledEvent {
    check::name(mistakes, &format!("{path}.name"), &event.name);
    let (from, until) = (event.from_unix_s, event.until_unix_s);
    let after = from.saturating_add(1);
    let longest = from.saturating_add(LONGEST_S);
    check::range(
        mistakes,
        &format!("{path}.from_unix_s"),
        from,
        0,
        FROM_MOST_S,
    );
    let end = format!("{path}.until_unix_s");
    check::range(mistakes, &end, until, after, longest);
    let factor = format!("{path}.factor");
    within(mistakes, &factor, event.factor, (1.0, FACTOR_MOST));
    let mut rows = BTreeSet::new();
    for (place, name) in event.contracts.iter().enumerate() {
        match document.contracts.names().position(|known| known == name) {
            Some(row) => {
                rows.insert(row);
            }
            None => {
                let problem = || Problem::NoSuchContract {
                    name: name.chars().take(64).collect(),
                    suggestion: check::suggestion(name, document.contracts.names()),
                };
                mistakes.add_with(format!("{path}.contracts[{place}]"), problem);
            }
        }
    }
    CompiledEvent {
        from_unix_ms: from.saturating_mul(1_000),
        until_unix_ms: until.saturating_mul(1_000),
        factor: event.factor,
        contracts: (!event.contracts.is_empty()).then_some(rows),
    }
}

/// `NaN` is in no range.
fn within(mistakes: &mut Mistakes, path: &str, found: f64, (least, most): (f64, f64)) {
    if !(least..=most).contains(&found) {
        let (found, allowed) = (found.to_string(), format!("{least} to {most}"));
        mistakes.add(path, Problem::Range { found, allowed });
    }
}

#[cfg(test)]
#[path = "anomaly_tests.rs"]
mod tests;
