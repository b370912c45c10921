//! The policy document: who may take how much of what, as an operator writes it.
//!
//! The same document is inline in the plugin configuration (stand-alone), sent to the control plane's API, and checked by
//! `forebay policy check`. It exists apart from the compiled policy of `forebay-core` because the two change for different
//! reasons: this one has names, decimals and defaults for people; the compiled one has indices and micro-tokens for the draw
//! path. One type for both was the worse alternative: either people write micro-tokens or the draw path carries strings.
//!
//! Everything here is syntax only. What the words mean together (guarantees against capacity, unknown contract names) is
//! checked by `forebay-policy`, which names the place of each mistake.

mod decimal;
mod named;
mod read;

pub use decimal::{Decimal, DecimalError, MICRO_PER_TOKEN};
pub use named::Named;

use serde::{Deserialize, Serialize};

/// The only document version there is.
pub const POLICY_VERSION: u32 = 1;

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PolicyDocument {
    /// Version of this format. Always 1.
    pub version: u32,
    /// Decide and count, but never deny.
    #[serde(default)]
    pub dry_run: bool,
    /// What happens to a customer that is not listed under `customers`.
    #[serde(default)]
    pub unknown: Unknown,
    /// What tokens buy, by name: one to four resources.
    pub resources: Named<Resource>,
    /// The soft reservation beside each standard bucket.
    #[serde(default)]
    pub shadow: Shadow,
    /// How a control plane divides the pools among the customers every few minutes. Absent: it does not, and each gateway goes by its own
    /// forecasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// What a control plane does about customers that behave as they never did. Absent: it does not watch them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// Events that are known before: more demand is no anomaly while they last, and what accounts then do together makes no spillover score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<KnownEvent>,
    /// Linked accounts, by name.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub groups: Named<Group>,
    /// The contracts, by name.
    pub contracts: Named<Contract>,
    /// The customers that have a contract of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub customers: Vec<Customer>,
}

/// What happens to a customer that is not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unknown {
    /// The rule itself.
    pub action: UnknownAction,
    /// The contract given to each unknown customer (`default_contract`) or to each source prefix (`commons`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Bits of an IPv4 source address that share a bucket (`commons` only; default 24).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_len_v4: Option<u8>,
    /// Bits of an IPv6 source address that share a bucket (`commons` only; default 56).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_len_v6: Option<u8>,
}

/// The rule for customers that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum UnknownAction {
    /// Each gets a bucket of its own under one contract.
    DefaultContract,
    /// Each source prefix shares one bucket, whatever the keys: keys are cheap to make up, prefixes are not.
    Commons,
    /// They are denied with the reason `unknown`.
    #[default]
    Deny,
}

/// What a token buys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resource {
    /// What the backend can take, in tokens per second. Without it there is no pool: only contracts limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_per_s: Option<Decimal>,
    /// Depth of the pool in milliseconds of capacity. Absent: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth_ms: Option<u32>,
}

/// The soft reservation beside each standard bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shadow {
    /// False: no shadow buckets. Guarantees work all the same.
    pub enabled: bool,
    /// Which quantile of the forecast fills the shadow bucket, 0.001 to 0.999.
    pub quantile: f64,
    /// Depth of the guarantee credit in milliseconds of guarantee, and the unit of the shadow bucket's depth.
    pub span_ms: u32,
    /// Depth of the shadow bucket in units of forecast rate x `span_ms`.
    pub depth_factor: u32,
    /// Upper bound of all protected stock together, as a share of the pool's depth, 0 to 1.
    pub protected_share: f64,
    /// When a customer counts as contended.
    pub contention: Contention,
}

/// How the pools are divided among the customers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sharing {
    /// From one division to the next, in milliseconds, 10 000 to 3 600 000.
    pub interval_ms: u32,
    /// For tiers 1, 2 and 3: which quantile of its forecast a customer is allocated, 0.5 to 0.99.
    pub quantiles: [f64; 3],
    /// The part of a capacity that is nobody's until it is asked for, 0 to 0.9. Guarantees go before it.
    pub reserve_share: f64,
    /// Whether who has lent most goes first among customers of one tier and priority, in place of equal parts by weight.
    pub credits: bool,
    /// Scores whose spike would leave whom short, and room before the spike. Absent: nobody is scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spillover: Option<Spillover>,
    /// Whose guarantee was not kept goes before others of its tier for a while. Absent: priorities stay as they are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prioritize: Option<Prioritize>,
    /// Other values of the knobs above are tried in a few cycles, and told apart by what came of them. Absent: all cycles go by what is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// Within which ranges other values are tried, and what that may cost. A range must hold the value that the policy has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tuning {
    /// Lowest and highest `reserve_share`, 0 to 0.5.
    pub reserve_share: [f64; 2],
    /// Lowest and highest quantile of tiers 1, 2 and 3, 0.5 to 0.99. Absent: they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles: Option<[[f64; 2]; 3]>,
    /// Of the rewards that the policy's own values earn, the part that may be lost at most, 0.001 to 0.5.
    pub loss_most: f64,
}

/// How priorities move with how fast the error budgets of guarantees are used up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Prioritize {
    /// How far a priority is raised at most, 1 to 255. It never reaches another tier.
    pub most: u8,
    /// The part of what is guaranteed that may be denied before a priority is raised, 0.001 to 0.5.
    pub error_budget: f64,
    /// A raise falls by half in this time, in milliseconds, 60 000 to 86 400 000.
    pub half_life_ms: u32,
}

/// When a pair of customers is worth room before the spike, how much, and for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Spillover {
    /// Pairs with a score above this are given headroom, 0.001 to 1: by which part of its rate a spike of the one is expected to leave the other short.
    pub threshold_score: f64,
    /// The largest part of a capacity that is given as headroom, 0 to 0.5. With 0 pairs are scored, and nothing is given.
    pub headroom_share: f64,
    /// For how long headroom is given, in milliseconds, 60 000 to 3 600 000. A risk that is still there is found again.
    pub ttl_ms: u32,
    /// For whom it is.
    pub protect: Protect,
}

/// Whom headroom is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Protect {
    /// Who would be short.
    #[default]
    Hit,
    /// Whose spike it is: what it has of its own it does not take from the common rest.
    Spiker,
}

/// What is done about customers that behave as they never did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Anomaly {
    /// What follows for whoever is flagged.
    pub action: AnomalyAction,
    /// From which score on a flagged customer is capped, 1 to 100; below it is only flagged. Absent: 1, whoever is flagged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_from_score: Option<f64>,
}

/// What follows for a customer that behaves as it never did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AnomalyAction {
    /// It is not watched.
    Off,
    /// People are told.
    #[default]
    Flag,
    /// And it is allocated nothing beyond its contract's rate for as long as it is flagged. Needs `sharing`.
    CapAtContract,
}

/// Something that is known before, and that changes how much is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KnownEvent {
    /// Its name.
    pub name: String,
    /// When it begins, seconds since 1970-01-01 UTC.
    pub from_unix_s: u64,
    /// When it is over, seconds since 1970-01-01 UTC.
    pub until_unix_s: u64,
    /// How many times the usual demand is expected, above 1 to 100.
    pub factor: f64,
    /// Whom it moves: customers with one of these contracts. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<String>,
}

/// Linked accounts: their sum may be capped, and what one does not need of its guarantee is the others' first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Group {
    /// The group that this one is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Upper bound of what all members are allocated together, in tokens per second, by resource.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub cap_per_s: Named<Decimal>,
}

/// When a customer counts as contended: `needed` of the last `windows` windows showed a deviation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Contention {
    /// Length of a window in milliseconds.
    pub window_ms: u32,
    /// Windows with a deviation that raise the flag.
    pub needed: u8,
    /// Windows looked at, 1 to 8.
    pub windows: u8,
}

/// What a class of customers has bought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Contract {
    /// 1, 2 or 3. Tier 2 leaves the last 10 % of a pool to tier 1, tier 3 the last 25 % to tiers 1 and 2.
    #[serde(default = "one_u8")]
    pub tier: u8,
    /// Higher goes first when protected stock has to be scaled down.
    #[serde(default)]
    pub priority: u8,
    /// Share among equals when something has to be divided.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// What follows for its customers that behave as they never did, in place of what `anomaly` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<AnomalyAction>,
    /// The limits, by resource. Each resource of the policy must be named: a missing limit is an error, not "no limit".
    pub limits: Named<Limit>,
}

/// The limits of a contract on one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limit {
    /// Refill of the standard bucket, tokens per second.
    pub rate_per_s: Decimal,
    /// Depth of the standard bucket, tokens.
    pub burst: Decimal,
    /// Rate that the pool keeps for the customer whatever others do. At most `rate_per_s`.
    #[serde(default, skip_serializing_if = "Decimal::is_zero")]
    pub guarantee_per_s: Decimal,
    /// Rate up to which the customer may borrow idle capacity. At least `rate_per_s`; absent: no borrowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_per_s: Option<Decimal>,
    /// How far settled costs may take the standard bucket below zero before admission stops.
    #[serde(default, skip_serializing_if = "Decimal::is_zero")]
    pub debt_limit: Decimal,
    /// Depth of the borrow allowance, tokens. Absent with a ceiling: one second of (ceiling - rate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrow_limit: Option<Decimal>,
    /// How much of the guarantee others may use while even the upper forecast does not need it, in tokens per second. 0: nothing is lent;
    /// absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend_limit_per_s: Option<Decimal>,
}

/// A customer with a contract of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Customer {
    /// The key exactly as the rule of the plugin configuration extracts it.
    pub key: String,
    /// Name of the customer's contract.
    pub contract: String,
    /// Name of the innermost group of linked accounts that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Deny everything with the reason `banned`, without an end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub banned: bool,
    /// Deny everything with the reason `banned` until this time, seconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban_until_unix_s: Option<u64>,
    /// Admit always, count only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exempt: bool,
    /// Deny everything until it is thawed, and leave the buckets as they are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub frozen: bool,
}

// === impl defaults ===

impl Default for Unknown {
    fn default() -> Self {
        Self {
            action: UnknownAction::Deny,
            contract: None,
            prefix_len_v4: None,
            prefix_len_v6: None,
        }
    }
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            enabled: true,
            quantile: 0.9,
            span_ms: 250,
            depth_factor: 2,
            protected_share: 0.5,
            contention: Contention::default(),
        }
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            interval_ms: 300_000,
            quantiles: [0.99, 0.9, 0.5],
            reserve_share: 0.25,
            credits: false,
            spillover: None,
            prioritize: None,
            tuning: None,
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            reserve_share: [0.1, 0.4],
            quantiles: None,
            loss_most: 0.01,
        }
    }
}

impl Default for Prioritize {
    fn default() -> Self {
        Self {
            most: 2,
            error_budget: 0.001,
            half_life_ms: 900_000,
        }
    }
}

impl Default for Spillover {
    fn default() -> Self {
        Self {
            threshold_score: 0.02,
            headroom_share: 0.1,
            ttl_ms: 900_000,
            protect: Protect::default(),
        }
    }
}

impl Default for Contention {
    fn default() -> Self {
        Self {
            window_ms: 1000,
            needed: 4,
            windows: 5,
        }
    }
}

fn one_u8() -> u8 {
    1
}

fn one_u32() -> u32 {
    1
}

// serde's `skip_serializing_if` hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
