//! What is concluded of a customer, and what may be done about it.

use crate::signs::Sign;
use serde::{Deserialize, Serialize};

/// What a customer's behaviour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As ever.
    Normal,
    /// Unlike its past, and nobody else's is.
    Unusual,
    /// Unlike its past, by a known event or with the others.
    Crowd,
}

/// The verdict on a customer in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// The highest sign that is not explained, as a share of what it takes: from 1 on it is beyond.
    pub score: f64,
    /// Since when it is unusual or in a crowd.
    pub since_unix_ms: Option<u64>,
    /// What speaks for it in this step, by [`Sign::ALL`].
    pub evidence: [Option<Evidence>; Sign::COUNT],
}

/// What speaks for a verdict. Its `Display` says it in words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Which sign.
    pub sign: Sign,
    /// As a multiple of what is usual; of [`Sign::Denied`], the share that was denied in the step.
    pub times: f64,
    /// Robust standard deviations above what is usual.
    pub z: f64,
    /// On what share of its past days, this one among them, the customer's sign was as high.
    pub p: f64,
}

/// What is done about a customer that is unusual. There is no number in it, so it cannot say less than the contract, and a guarantee is
/// never more than the contract's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// People are told.
    Flag,
    /// And it borrows nothing: no tokens beyond the contract.
    CapAtContract,
}

/// Which action follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Always [`Action::Flag`].
    Flag,
    /// [`Action::CapAtContract`] from this score on.
    CapAtContract {
        /// 1: whoever is flagged.
        score_least: f64,
    },
}

// === impl Verdict ===

impl Verdict {
    /// What the rule makes of it. Nothing happens to customers that are in a crowd.
    #[must_use]
    pub fn action(&self, rule: Rule) -> Option<Action> {
        if self.kind != Kind::Unusual {
            return None;
        }
        Some(match rule {
            Rule::CapAtContract { score_least } if self.score >= score_least => {
                Action::CapAtContract
            }
            _ => Action::Flag,
        })
    }

    /// What speaks for it.
    pub fn evidence(&self) -> impl Iterator<Item = Evidence> {
        self.evidence.into_iter().flatten()
    }
}

// === impl Action ===

impl Action {
    /// The rate that a customer may reach by borrowing, of its contract's rate and the ceiling that it has otherwise.
    #[must_use]
    pub fn ceiling<T: Ord>(self, contract: T, ceiling: T) -> T {
        match self {
            Self::Flag => ceiling.max(contract),
            Self::CapAtContract => contract,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_action_leaves_less_than_the_contract(contract in any::<u64>(), ceiling in any::<u64>()) {
            for action in [Action::Flag, Action::CapAtContract] {
                prop_assert!(action.ceiling(contract, ceiling) >= contract);
            }
            prop_assert_eq!(Action::CapAtContract.ceiling(contract, ceiling), contract);
        }
    }

    #[test]
    fn a_rule_caps_only_what_is_unusual_and_high() {
        let verdict = |kind, score| Verdict {
            kind,
            score,
            since_unix_ms: None,
            evidence: [None; Sign::COUNT],
        };
        let rule = Rule::CapAtContract { score_least: 2.0 };
        assert_eq!(verdict(Kind::Normal, 9.0).action(rule), None);
        assert_eq!(verdict(Kind::Crowd, 9.0).action(rule), None);
        assert_eq!(verdict(Kind::Unusual, 1.5).action(rule), Some(Action::Flag));
        assert_eq!(
            verdict(Kind::Unusual, 2.0).action(rule),
            Some(Action::CapAtContract)
        );
        assert_eq!(
            verdict(Kind::Unusual, 9.0).action(Rule::Flag),
            Some(Action::Flag)
        );
    }
}
