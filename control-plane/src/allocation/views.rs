//! What the API says of allocations, loans and statements.

use super::book::{Book, Entry, Sums};
use super::months::Month;
use super::tuning_views::ChoiceView;
use crate::error::ApiError;
use crate::models::hex;
use forebay_core::resource::ResourceIndex;
use forebay_wire::key::CustomerHash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Customers in one answer.
const MAX_LISTED: usize = 1_000;

/// A cycle in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CycleView {
    /// Counts up from 1.
    pub number: u64,
    /// When it came into force.
    pub at_unix_ms: u64,
    /// Why: `interval`, `policy`, `gateways`, `capacity`, `contention`, `asked`, `anomaly` or `fallback`.
    pub cause: String,
    /// The policy that it goes by.
    pub policy_version: u64,
    /// Customers in it.
    pub customers: usize,
    /// Customers that there was no room for.
    pub left_out: usize,
    /// SHA-256 of what it was made from.
    pub inputs_sha256: String,
    /// SHA-256 of what it gives.
    pub result_sha256: String,
    /// What tuning has chosen it to be made by; absent where it goes by the policy without a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<ChoiceView>,
    /// Resources that it divides.
    pub resources: Vec<PoolView>,
}

/// A resource that is divided, in tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolView {
    /// Name of the resource.
    pub resource: String,
    /// By the policy.
    pub policy_capacity_per_s: f64,
    /// What of that is there: gateways that are cut off work with a part of it.
    pub capacity_per_s: f64,
    /// What is nobody's until it is asked for.
    pub reserve_per_s: f64,
    /// What nobody wants beside that.
    pub idle_per_s: f64,
    /// What customers have.
    pub allocated_per_s: f64,
    /// What of guarantees others have.
    pub lent_per_s: f64,
    /// What customers have beyond the rate that they have bought.
    pub beyond_rate_per_s: f64,
    /// What customers may need and do not have.
    pub unmet_per_s: f64,
}

/// What a customer has of a resource, in tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PartView {
    /// Name of the resource.
    pub resource: String,
    /// All that it has a claim on.
    pub allocated_per_s: f64,
    /// Contract.
    pub guarantee_per_s: f64,
    /// Demand that is expected: the median.
    pub expected_per_s: f64,
    /// The same: the 0.99 quantile.
    pub upper_per_s: f64,
    /// Of its guarantee.
    pub kept_per_s: f64,
    /// Of the guarantees of linked accounts.
    pub shared_per_s: f64,
    /// Extra room before a spike.
    pub headroom_per_s: f64,
    /// Of the pool, up to the rate that it has bought.
    pub bought_per_s: f64,
    /// Of the pool, beyond that rate.
    pub borrowed_per_s: f64,
    /// What it had, does not need, and nobody else does either.
    pub eased_per_s: f64,
    /// What others have of its guarantee.
    pub lent_per_s: f64,
    /// What they had in the cycle before, and it has back.
    pub recalled_per_s: f64,
    /// What it may need and does not have.
    pub unmet_per_s: f64,
}

/// What a customer has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerAllocation {
    /// `hash:` and the customer's hash.
    pub customer: String,
    /// The innermost group of linked accounts that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its tier.
    pub tier: u8,
    /// Its priority within the tier.
    pub priority: u8,
    /// Why that is above the policy's; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<RaiseView>,
    /// What it has earned by lending, in seconds of a whole capacity.
    pub credits: f64,
    /// By resource that is divided.
    pub resources: Vec<PartView>,
}

/// Why a priority is raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RaiseView {
    /// The priority that the policy gives.
    pub priority_of_policy: u8,
    /// By so much it is raised.
    pub steps: u8,
    /// What part of its guarantee was denied in the last five minutes, 0 to 1, fading.
    pub denied_share_5m: f64,
    /// The same in the last hour.
    pub denied_share_1h: f64,
}

/// Allocations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AllocationsView {
    /// The cycle in force; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<CycleView>,
    /// From one cycle to the next, in milliseconds; absent while the policy divides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u32>,
    /// Customers by hash.
    pub customers: Vec<CustomerAllocation>,
    /// The last cycles, newest first.
    pub recent: Vec<CycleView>,
}

/// Why somebody lends or borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoanReason {
    /// A guarantee that even the upper forecast does not need.
    GuaranteeUnused,
    /// The guarantee of a linked account that does not need it.
    Group,
    /// Extra room before a spike.
    Headroom,
    /// Demand has come back to whom it is guaranteed.
    Recall,
}

/// One side of a loan, in tokens per second. Nobody lends to anybody in particular.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loan {
    /// `hash:` and the customer's hash.
    pub customer: String,
    /// Name of the resource.
    pub resource: String,
    /// `lent`, `borrowed`, or `recalled`: lent in the cycle before, and taken back.
    pub side: String,
    /// Why.
    pub reason: LoanReason,
    /// How much.
    pub per_s: f64,
}

/// Sums of loans of a resource, in tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoanSums {
    /// Name of the resource.
    pub resource: String,
    /// By all customers.
    pub lent_per_s: f64,
    /// The same amount, by the books of those who have it.
    pub borrowed_per_s: f64,
}

/// The loans of a cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoansView {
    /// Number of the cycle; 0 before the first.
    pub cycle: u64,
    /// When it came into force.
    pub at_unix_ms: u64,
    /// Sums by resource that is divided.
    pub resources: Vec<LoanSums>,
    /// Customers by hash.
    pub loans: Vec<Loan>,
}

/// What a customer has lent and borrowed of a resource in a month, in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatementLine {
    /// Name of the resource.
    pub resource: String,
    /// Tokens per second that were lent, times the seconds for which they were.
    pub lent_tokens: f64,
    /// The same of what was borrowed.
    pub borrowed_tokens: f64,
}

/// What a customer has lent and borrowed in a month.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatementView {
    /// `hash:` and the customer's hash.
    pub customer: String,
    /// Calendar month in UTC, as `2026-11`.
    pub month: String,
    /// What is counted ends here: at the cycle in force, or with the month.
    pub until_unix_ms: u64,
    /// By resource that is divided.
    pub resources: Vec<StatementLine>,
    /// Credits that came in the month, less those that went: in seconds of a whole capacity.
    pub credits: f64,
    /// Its credits now; absent where it is in no cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<f64>,
}

/// Which customers are wanted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocationsQuery {
    /// Of this customer only: its key, or `hash:` and its hash.
    #[serde(default)]
    pub customer: Option<String>,
    /// Of this group of linked accounts only, groups within it among them.
    #[serde(default)]
    pub group: Option<String>,
    /// `hash:` and the hash of a customer: those behind it.
    #[serde(default)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// Which loans are wanted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoansQuery {
    /// Of this customer only: its key, or `hash:` and its hash.
    #[serde(default)]
    pub customer: Option<String>,
    /// `hash:` and the hash of a customer: those behind it.
    #[serde(default)]
    pub after: Option<String>,
    /// At most so many customers, 1000 without it.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// The same, understood.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) only: Option<CustomerHash>,
    pub(crate) group: Option<String>,
    pub(crate) after: Option<CustomerHash>,
    pub(crate) limit: Option<usize>,
}

// === impl CycleView ===

impl CycleView {
    pub(super) fn of(book: &Book) -> Self {
        Self {
            number: book.number,
            at_unix_ms: book.at_unix_ms,
            cause: book.cause.name().to_owned(),
            policy_version: book.policy,
            customers: book.entries.len(),
            left_out: book.left_out,
            inputs_sha256: hex(&book.inputs_digest),
            result_sha256: hex(&book.result_digest),
            tuning: ChoiceView::of(book),
            resources: book.pools(),
        }
    }
}

fn name_of(customer: CustomerHash) -> String {
    format!("hash:{customer}")
}

// === impl Book ===

impl Book {
    /// The cycle in a line; none before the first.
    pub(crate) fn line(&self) -> Option<CycleView> {
        (self.number > 0).then(|| CycleView::of(self))
    }

    /// Customers in it.
    pub(crate) fn size(&self) -> usize {
        self.entries.len()
    }

    /// Resources that are divided.
    pub(crate) fn pools(&self) -> Vec<PoolView> {
        let pools = self.divided().map(|resource| {
            let parts = || self.entries.iter().map(|entry| entry.parts.at(resource));
            PoolView {
                resource: self.name_of(resource).to_owned(),
                policy_capacity_per_s: *self.policy_capacity_per_s.at(resource),
                capacity_per_s: *self.capacity_per_s.at(resource),
                reserve_per_s: *self.reserve_per_s.at(resource),
                idle_per_s: *self.idle_per_s.at(resource),
                allocated_per_s: parts().map(|part| part.allocated_per_s()).sum(),
                lent_per_s: self.lending(resource).lent_per_s,
                beyond_rate_per_s: parts().map(|part| part.borrowed_per_s).sum(),
                unmet_per_s: parts().map(|part| part.unmet_per_s).sum(),
            }
        });
        pools.collect()
    }

    /// Customers that are wanted.
    ///
    /// # Errors
    /// When there is no such group, or the customer is in no cycle.
    pub(crate) fn customers(&self, wanted: &Wanted) -> Result<Vec<CustomerAllocation>, ApiError> {
        let group = match &wanted.group {
            Some(name) => Some(self.group_named(name)?),
            None => None,
        };
        let chosen = self.chosen(wanted);
        let in_group = |entry: &&Entry| {
            group.is_none_or(|group| self.groups_around(entry).any(|around| around == group))
        };
        let limit = wanted.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
        let found: Vec<CustomerAllocation> = chosen
            .filter(in_group)
            .take(limit)
            .map(|entry| self.customer_view(entry))
            .collect();
        match wanted.only {
            Some(customer) if found.is_empty() => {
                let message = format!("customer {customer} is allocated nothing");
                let hint = "it is not in the policy and has asked for nothing lately, or there was no cycle yet, or it is in another group";
                Err(ApiError::not_found("no_allocation", message, hint).at("customer"))
            }
            _ => Ok(found),
        }
    }

    fn chosen(&self, wanted: &Wanted) -> impl Iterator<Item = &Entry> {
        let first = wanted.only.or(wanted.after);
        let (only, after) = (wanted.only, wanted.after);
        let from = first.map_or(0, |first| {
            self.entries.partition_point(|entry| entry.hash < first)
        });
        let entries = self.entries.get(from..).unwrap_or_default().iter();
        entries
            .take_while(move |entry| only.is_none_or(|only| entry.hash == only))
            .filter(move |entry| after.is_none_or(|after| entry.hash > after))
    }

    fn group_named(&self, name: &str) -> Result<usize, ApiError> {
        let place = self.group_names.iter().position(|known| known == name);
        place.ok_or_else(|| {
            let known: String = name.chars().take(64).collect();
            let message = format!("the policy has no group `{known}`");
            let hint = "groups of linked accounts are in the policy under `groups`";
            ApiError::not_found("no_such_group", message, hint).at("group")
        })
    }

    /// The groups that a customer belongs to, innermost first.
    fn groups_around(&self, entry: &Entry) -> impl Iterator<Item = usize> {
        std::iter::successors(entry.customer.group, |group| {
            let parent = self.groups.get(*group)?.parent?;
            (parent < *group).then_some(parent)
        })
    }

    fn customer_view(&self, entry: &Entry) -> CustomerAllocation {
        let name = |group: usize| self.group_names.get(group).cloned();
        let resources = self.divided().map(|resource| {
            let part = entry.parts.at(resource);
            let [expected_per_s, _, upper_per_s] =
                entry.customer.outlook.at(resource).quantiles_per_s;
            PartView {
                resource: self.name_of(resource).to_owned(),
                allocated_per_s: part.allocated_per_s(),
                guarantee_per_s: entry.customer.terms.at(resource).guarantee_per_s,
                expected_per_s,
                upper_per_s,
                kept_per_s: part.kept_per_s,
                shared_per_s: part.shared_per_s,
                headroom_per_s: part.headroom_per_s,
                bought_per_s: part.bought_per_s,
                borrowed_per_s: part.borrowed_per_s,
                eased_per_s: part.eased_per_s,
                lent_per_s: part.lent_per_s,
                recalled_per_s: *entry.recalled_per_s.at(resource),
                unmet_per_s: part.unmet_per_s,
            }
        });
        CustomerAllocation {
            customer: name_of(entry.hash),
            group: entry.customer.group.and_then(name),
            tier: entry.customer.tier.number(),
            priority: entry.customer.priority,
            raise: (entry.raise.steps > 0).then_some(RaiseView {
                priority_of_policy: entry.priority_of_policy,
                steps: entry.raise.steps,
                denied_share_5m: entry.raise.burn.short,
                denied_share_1h: entry.raise.burn.long,
            }),
            credits: entry.customer.credits,
            resources: resources.collect(),
        }
    }

    /// Sums of loans by resource.
    pub(crate) fn loan_sums(&self) -> Vec<LoanSums> {
        let sums = self.divided().map(|resource| {
            let lending = self.lending(resource);
            let borrowed = self.entries.iter().map(|entry| {
                let borrowed = lending.borrowed_per_s(entry.parts.at(resource));
                borrowed.iter().sum::<f64>()
            });
            LoanSums {
                resource: self.name_of(resource).to_owned(),
                lent_per_s: lending.lent_per_s,
                borrowed_per_s: borrowed.sum(),
            }
        });
        sums.collect()
    }

    /// Loans of the customers that are wanted; of those who neither lend nor borrow there are none.
    pub(crate) fn loans(&self, wanted: &Wanted) -> Vec<Loan> {
        let lendings: Vec<_> = self
            .divided()
            .map(|resource| (resource, self.lending(resource)))
            .collect();
        let of_customer = |entry: &Entry| -> Vec<Loan> {
            let sides = lendings.iter().flat_map(|(resource, lending)| {
                let part = entry.parts.at(*resource);
                let [group, headroom, demand] = lending.borrowed_per_s(part);
                let recalled = *entry.recalled_per_s.at(*resource);
                [
                    ("lent", LoanReason::GuaranteeUnused, part.lent_per_s),
                    ("borrowed", LoanReason::Group, group),
                    ("borrowed", LoanReason::Headroom, headroom),
                    ("borrowed", LoanReason::GuaranteeUnused, demand),
                    ("recalled", LoanReason::Recall, recalled),
                ]
                .map(|(side, reason, per_s)| Loan {
                    customer: name_of(entry.hash),
                    resource: self.name_of(*resource).to_owned(),
                    side: side.to_owned(),
                    reason,
                    per_s,
                })
            });
            sides.filter(|loan| loan.per_s > 0.0).collect()
        };
        let limit = wanted.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
        self.chosen(wanted)
            .map(of_customer)
            .filter(|loans| !loans.is_empty())
            .take(limit)
            .flatten()
            .collect()
    }

    /// A statement of sums.
    pub(crate) fn statement(&self, customer: CustomerHash, sums: &Sums) -> StatementView {
        let lines = self.divided().map(|resource: ResourceIndex| StatementLine {
            resource: self.name_of(resource).to_owned(),
            lent_tokens: *sums.lent.at(resource),
            borrowed_tokens: *sums.borrowed.at(resource),
        });
        StatementView {
            customer: name_of(customer),
            month: sums.month.to_string(),
            until_unix_ms: self.at_unix_ms.min(sums.month.ends_unix_ms()),
            resources: lines.collect(),
            credits: sums.credits,
            balance: self.entry(customer).map(|entry| entry.customer.credits),
        }
    }
}

/// The month that is asked for, or the one of a time.
///
/// # Errors
/// When the text is no month.
pub(crate) fn month_of(text: Option<&str>, unix_ms: u64) -> Result<Month, ApiError> {
    let Some(text) = text else {
        return Ok(Month::at(unix_ms));
    };
    let message = "this is no month";
    let hint = "write year and month, as in 2026-11";
    let month = text.parse();
    month.map_err(|()| ApiError::malformed(message, hint).at("month"))
}
