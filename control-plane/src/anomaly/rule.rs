//! What the policy says of anomalies, by row of the contract table in force.

use forebay_anomaly::Rule as Action;
use forebay_core::policy::ContractIndex;
use forebay_policy::Anomaly;
use forebay_wire::policy::AnomalyAction;
use hashbrown::{HashMap, HashSet};

/// What is done about whom, and which events are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// By row; of others nobody is watched.
    actions: HashMap<ContractIndex, Action>,
    events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    from_unix_ms: u64,
    until_unix_ms: u64,
    factor: f64,
    /// None: all.
    contracts: Option<HashSet<ContractIndex>>,
}

// === impl Rule ===

impl Rule {
    /// Of a policy whose contracts went to the rows `moved`.
    pub(crate) fn of(anomaly: &Anomaly, moved: &[ContractIndex]) -> Self {
        let actions = moved.iter().zip(&anomaly.actions);
        let actions = actions.filter_map(|(row, action)| {
            let action = match action {
                AnomalyAction::Off => return None,
                AnomalyAction::Flag => Action::Flag,
                AnomalyAction::CapAtContract => Action::CapAtContract {
                    score_least: anomaly.cap_from_score,
                },
            };
            Some((*row, action))
        });
        let events = anomaly.events.iter().map(|event| Event {
            from_unix_ms: event.from_unix_ms,
            until_unix_ms: event.until_unix_ms,
            factor: event.factor,
            contracts: event.contracts.as_ref().map(|rows| {
                let rows = rows.iter().filter_map(|row| moved.get(*row));
                rows.copied().collect()
            }),
        });
        Self {
            actions: actions.collect(),
            events: events.collect(),
        }
    }

    /// What follows for customers with a contract; none: they are not watched.
    pub(crate) fn action(&self, contract: ContractIndex) -> Option<Action> {
        self.actions.get(&contract).copied()
    }

    /// How many times the usual demand is expected of customers with a contract in a step: of several events, by the one that explains most.
    pub(crate) fn event_factor(
        &self,
        contract: ContractIndex,
        (from_unix_ms, until_unix_ms): (u64, u64),
    ) -> Option<f64> {
        let events = self.events.iter().filter(|event| {
            let is_then = event.from_unix_ms < until_unix_ms && from_unix_ms < event.until_unix_ms;
            let contracts = event.contracts.as_ref();
            is_then && contracts.is_none_or(|contracts| contracts.contains(&contract))
        });
        events.map(|event| event.factor).max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, check};

    #[test]
    fn actions_and_events_go_with_the_rows_of_contracts() {
        let text = r#"{
            "version": 1, "sharing": {}, "resources": {"requests": {"capacity_per_s": 100}},
            "anomaly": {"action": "flag", "cap_from_score": 3},
            "events": [
                {"name": "sale", "from_unix_s": 100, "until_unix_s": 200, "factor": 4},
                {"name": "launch", "from_unix_s": 150, "until_unix_s": 160, "factor": 9, "contracts": ["b"]}
            ],
            "contracts": {
                "a": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}},
                "b": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}, "anomaly": "cap_at_contract"},
                "c": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}, "anomaly": "off"}
            }
        }"#;
        let checked = check(text, Format::Json).unwrap();
        let moved = [5, 0, 1].map(ContractIndex);
        let rule = Rule::of(&checked.anomaly.unwrap(), &moved);
        let capped = Action::CapAtContract { score_least: 3.0 };
        let actions = [5, 0, 1, 2].map(|row| rule.action(ContractIndex(row)));
        assert_eq!(actions, [Some(Action::Flag), Some(capped), None, None]);
        let factor = |row, from_s: u64, until_s: u64| {
            let step = (from_s * 1_000, until_s * 1_000);
            rule.event_factor(ContractIndex(row), step)
        };
        for (row, from, until, expected) in [
            (5, 40, 100, None),
            (5, 90, 101, Some(4.0)),
            (5, 155, 156, Some(4.0)),
            (0, 155, 156, Some(9.0)),
            (0, 199, 259, Some(4.0)),
            (0, 200, 260, None),
        ] {
            assert_eq!(factor(row, from, until), expected, "{row} {from}");
        }
    }
}
