//! What is said about a dry run.

use super::counting::{Counted, Counting, Lane};
use forebay_simulator::pool::what_if::{Loan, Outcome, Tally};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lines of an answer where nobody says how many, and at most.
const LINES: usize = 20;
pub(crate) const LINES_MOST: usize = 1_000;

/// How many lines an answer has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRunQuery {
    /// Customers, and loans, of each resource at most; 20 without it, 1000 at most.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A candidate policy beside the one in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DryRunView {
    /// SHA-256 of the candidate, as the server writes it.
    pub digest: String,
    /// When it came.
    pub since_unix_ms: u64,
    /// Customers that it lists.
    pub customers: usize,
    /// The version that it is compared with; 0 before the first step.
    pub live: u64,
    /// From when on is counted: the end of the first step after it came, after the last start of the server, or after another version had come into force. Absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_from_unix_ms: Option<u64>,
    /// Steps of usage that were counted.
    pub steps: u64,
    /// Their length.
    pub step_ms: u32,
    /// Steps in which no gateway has reported.
    pub gaps: u64,
    /// Customers that take part, 10 000 at most.
    pub compared: usize,
    /// By resource.
    pub resources: Vec<ResourceDryRun>,
}

/// One resource of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceDryRun {
    /// Its name.
    pub resource: String,
    /// Tokens that were asked for.
    pub asked: f64,
    /// All customers under the policy in force, by the model.
    pub live: TallyView,
    /// All customers under the candidate, by the same model.
    pub candidate: TallyView,
    /// What gateways have counted under the policy in force.
    pub counted: CountedView,
    /// How far the model of the policy in force is from that: over all customers, what it admits of each too much or too little, as a part of what was asked for. A change that is
    /// smaller than this part says nothing. Absent while nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_error: Option<f64>,
    /// Tokens that those asked for who came when there was no room for them.
    pub left_out: f64,
    /// Customers for whom most changes.
    pub changes: Vec<CustomerDryRun>,
    /// The largest loans of guarantees under either policy.
    pub loans: Vec<LoanDryRun>,
    /// Small loans have been left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loans_cut: bool,
}

/// What has become of what was asked for, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TallyView {
    /// Admitted.
    pub admitted: f64,
    /// Denied by contracts.
    pub denied_by_contract: f64,
    /// Denied by the pool.
    pub denied_by_pool: f64,
    /// Denied because the customer is banned, frozen or unknown.
    pub refused: f64,
    /// Seconds in which a customer asked for no more than its guarantee and the pool denied something.
    pub guarantee_missed_s: u64,
    /// Guarantees that others had, in tokens per second times seconds.
    pub lent_token_seconds: f64,
    /// Others' guarantees.
    pub borrowed_token_seconds: f64,
}

/// What gateways have counted, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CountedView {
    /// Asked for.
    pub asked: f64,
    /// Admitted.
    pub admitted: f64,
    /// Denied.
    pub denied: f64,
}

/// A customer under both policies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerDryRun {
    /// Its hash.
    pub customer: String,
    /// Tokens that it asked for.
    pub asked: f64,
    /// What is admitted more under the candidate.
    pub change: f64,
    /// Under the policy in force, by the model.
    pub live: TallyView,
    /// Under the candidate.
    pub candidate: TallyView,
    /// What gateways have counted.
    pub counted: CountedView,
}

/// What one customer had of another's guarantee, in tokens per second times seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoanDryRun {
    /// Whose guarantee it is.
    pub lender: String,
    /// Who had it.
    pub borrower: String,
    /// Under the policy in force.
    pub live_token_seconds: f64,
    /// Under the candidate.
    pub candidate_token_seconds: f64,
}

// === impl DryRunQuery ===

impl DryRunQuery {
    /// The same, within its bounds.
    pub(crate) fn lines(&self) -> usize {
        self.limit.unwrap_or(LINES).min(LINES_MOST)
    }
}

// === impl views ===

impl DryRunView {
    /// The same with so many lines of each resource at most.
    pub(crate) fn cut(&self, lines: usize) -> Self {
        let resources = self.resources.iter().map(|resource| ResourceDryRun {
            changes: resource.changes.iter().take(lines).cloned().collect(),
            loans: resource.loans.iter().take(lines).cloned().collect(),
            resource: resource.resource.clone(),
            ..*resource
        });
        Self {
            digest: self.digest.clone(),
            resources: resources.collect(),
            ..*self
        }
    }
}

impl Counting {
    /// By resource, with so many lines of each.
    pub(crate) fn resources(&self, lines: usize) -> Vec<ResourceDryRun> {
        let lanes = self.lanes.iter();
        lanes.map(|lane| self.resource(lane, lines)).collect()
    }

    fn resource(&self, lane: &Lane, lines: usize) -> ResourceDryRun {
        let [live, candidate] = lane.both.outcomes();
        let both = live.tallies.iter().zip(&candidate.tallies);
        let rows = both.zip(&lane.counted).zip(&self.hashes);
        let mut changed: Vec<(f64, &Tally, &Tally, &Counted, String)> = rows
            .map(|(((live, candidate), counted), hash)| {
                let change = candidate.admitted - live.admitted;
                (change, live, candidate, counted, hash.to_string())
            })
            .collect();
        let wrong: f64 = changed
            .iter()
            .map(|(_, live, _, counted, _)| (live.admitted - counted.admitted).abs())
            .sum();
        changed.sort_by(|one, other| {
            let by_change = other.0.abs().total_cmp(&one.0.abs());
            let by_size = || other.1.asked.total_cmp(&one.1.asked);
            by_change
                .then_with(by_size)
                .then_with(|| one.4.cmp(&other.4))
        });
        changed.truncate(lines);
        let counted = lane
            .counted
            .iter()
            .fold(Counted::default(), |sum, counted| Counted {
                asked: sum.asked + counted.asked,
                admitted: sum.admitted + counted.admitted,
                denied: sum.denied + counted.denied,
            });
        let asked = live.total().asked;
        ResourceDryRun {
            resource: lane.name.clone(),
            asked,
            live: TallyView::of(&live.total()),
            candidate: TallyView::of(&candidate.total()),
            counted: CountedView::of(&counted),
            model_error: (asked > 0.0).then_some(wrong / asked),
            left_out: lane.left_out,
            changes: changed
                .into_iter()
                .map(
                    |(change, live, candidate, counted, customer)| CustomerDryRun {
                        customer,
                        asked: live.asked,
                        change,
                        live: TallyView::of(live),
                        candidate: TallyView::of(candidate),
                        counted: CountedView::of(counted),
                    },
                )
                .collect(),
            loans: self.loans(&live, &candidate, lines),
            loans_cut: live.is_cut || candidate.is_cut,
        }
    }

    fn loans(&self, live: &Outcome, candidate: &Outcome, lines: usize) -> Vec<LoanDryRun> {
        let mut pairs: BTreeMap<(usize, usize), [f64; 2]> = BTreeMap::new();
        let mut add = |loans: &[Loan], side: usize| {
            for loan in loans {
                let both = pairs.entry((loan.lender, loan.borrower)).or_default();
                if let Some(of_side) = both.get_mut(side) {
                    *of_side = loan.token_seconds;
                }
            }
        };
        add(&live.loans, 0);
        add(&candidate.loans, 1);
        let mut pairs: Vec<((usize, usize), [f64; 2])> = pairs.into_iter().collect();
        let size = |[live, candidate]: &[f64; 2]| live.max(*candidate);
        pairs.sort_by(|one, other| size(&other.1).total_cmp(&size(&one.1)));
        pairs.truncate(lines);
        let name = |place: usize| {
            let hash = self.hashes.get(place);
            hash.map_or(String::new(), ToString::to_string)
        };
        let loans = pairs.into_iter();
        loans
            .map(|((lender, borrower), [live, candidate])| LoanDryRun {
                lender: name(lender),
                borrower: name(borrower),
                live_token_seconds: live,
                candidate_token_seconds: candidate,
            })
            .collect()
    }
}

impl TallyView {
    fn of(tally: &Tally) -> Self {
        Self {
            admitted: tally.admitted,
            denied_by_contract: tally.denied_by_contract,
            denied_by_pool: tally.denied_by_pool,
            refused: tally.refused,
            guarantee_missed_s: tally.guarantee_missed_s,
            lent_token_seconds: tally.lent,
            borrowed_token_seconds: tally.borrowed,
        }
    }
}

impl CountedView {
    fn of(counted: &Counted) -> Self {
        Self {
            asked: counted.asked,
            admitted: counted.admitted,
            denied: counted.denied,
        }
    }
}
