//! The compiled policy: what the tests of a draw need, and nothing else.
//!
//! The policy document (JSON, names, comments, defaults) belongs to `wire`; compiling it belongs to `policy`. The core sees
//! tables with indexes only, because a draw must not compare names. A compiled policy has a fixed binary form (see
//! `codec`), since it lies in shared data for all workers and goes to gateways in a sync reply.

mod align;
mod codec;

use std::collections::BTreeMap;

use crate::amount::{Micro, Rate};
use crate::deviation::ContentionRule;
use crate::error::CoreError;
use crate::grant::GrantTerms;
use crate::limits::{
    MAX_CONTRACTS, MAX_DEVIATION_WINDOWS, MAX_MICRO, MAX_NAME_BYTES, MAX_RESOURCES,
    MAX_SHADOW_DEPTH_FACTOR, MAX_SHADOW_SPAN_US,
};
use crate::resource::{PerResource, ResourceIndex};

/// A policy, ready for draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Grows with each policy that a gateway gets.
    pub epoch: u64,
    /// Decide and count, but let every request pass. The core decides as always; the caller does not enforce.
    pub dry_run: bool,
    /// One to four resources.
    pub resources: Vec<Resource>,
    /// The contract table; ledger entries point into it.
    pub contracts: Vec<Contract>,
    /// What to do with customers that are in no policy.
    pub unknown: Unknown,
    /// How shadow buckets are sized.
    pub shadow: ShadowRule,
}

/// What a token buys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the policy document.
    pub name: String,
    /// The pool, if a capacity is configured.
    pub pool: Option<PoolRule>,
}

/// The size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRule {
    /// Refill: the capacity of the backend.
    pub capacity: Rate,
    /// Depth: capacity x h.
    pub depth: Micro,
}

/// A row of the contract table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Its name in the policy document.
    pub name: String,
    /// Decides the floor of the pool that the customer must leave.
    pub tier: Tier,
    /// Among customers of a tier: a higher priority keeps its shadow bucket longer.
    pub priority: u8,
    /// Among customers of a priority: shares in proportion.
    pub weight: u32,
    /// Limits per resource.
    pub limits: PerResource<Limits>,
}

/// The limits of a contract for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Refill of the standard bucket.
    pub rate: Rate,
    /// Depth of the standard bucket.
    pub burst: Micro,
    /// Part of the rate that has a claim on the pool without a forecast; 0 is none.
    pub guarantee: Rate,
    /// The rate up to which the customer may borrow; equal to `rate` is no borrowing.
    pub ceiling: Rate,
    /// How far a foreseen request may overdraw the standard bucket.
    pub debt_limit: Micro,
    /// Depth of the borrow allowance.
    pub borrow_limit: Micro,
}

/// A row of the contract table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContractIndex(pub u16);

/// The class of a contract when the pool is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// May take the pool to the bottom.
    #[default]
    One,
    /// Leaves 10 % of the depth.
    Two,
    /// Leaves 25 % of the depth.
    Three,
}

/// What to do with customers that are in no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Deny them.
    Deny,
    /// Give each key this contract.
    DefaultContract(ContractIndex),
    /// Give each source prefix this contract, whatever the key: keys are cheap to make up, prefixes are not.
    Commons {
        /// The contract of a prefix.
        contract: ContractIndex,
        /// Bits of an IPv4 source address.
        prefix_len_v4: u8,
        /// Bits of an IPv6 source address.
        prefix_len_v6: u8,
    },
}

/// How claims on the pool are sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowRule {
    /// Without it there are no shadow buckets; guarantees work all the same.
    pub enabled: bool,
    /// The quantile q of the forecast that refills the shadow bucket, in thousandths.
    pub quantile_permille: u16,
    /// s: depth of the guarantee credit in microseconds of guarantee.
    pub span_us: u32,
    /// k: depth of the shadow bucket is k x s of its refill.
    pub depth_factor: u32,
    /// Largest part of the pool's depth that all protected stock together may be, in thousandths.
    pub protected_permille: u16,
    /// When the contention flag is raised.
    pub contention: ContentionRule,
}

// === impl Policy ===

impl Policy {
    /// The contract at `index`, if the table has it.
    #[must_use]
    pub fn contract(&self, index: ContractIndex) -> Option<&Contract> {
        self.contracts.get(usize::from(index.0))
    }

    /// The indexes of the resources.
    pub fn resource_indexes(&self) -> impl Iterator<Item = ResourceIndex> + Clone + use<> {
        ResourceIndex::first(self.resources.len())
    }

    /// The pool of a resource, if it has one.
    #[must_use]
    pub fn pool(&self, resource: ResourceIndex) -> Option<&PoolRule> {
        self.resources
            .get(resource.position())
            .and_then(|resource| resource.pool.as_ref())
    }

    /// The contract of a customer that is in no policy; `None` if such customers are denied.
    #[must_use]
    pub const fn unknown_contract(&self) -> Option<ContractIndex> {
        match self.unknown {
            Unknown::Deny => None,
            Unknown::DefaultContract(contract) | Unknown::Commons { contract, .. } => {
                Some(contract)
            }
        }
    }

    /// Depth of the guarantee credit for a guarantee.
    #[must_use]
    pub const fn credit_depth(&self, guarantee: Rate) -> Micro {
        guarantee.amount_in(self.shadow.span_us as u64)
    }

    /// Depth of a shadow bucket in microseconds of its refill, before it is scaled down.
    #[must_use]
    pub const fn shadow_span_us(&self) -> u32 {
        self.shadow.span_us.saturating_mul(self.shadow.depth_factor)
    }

    /// Checks every bound of the tables. A compiled policy that passes cannot make a draw overflow or point nowhere.
    pub fn check(&self) -> Result<(), CoreError> {
        check_len(
            "policy resources",
            self.resources.len(),
            1,
            MAX_RESOURCES,
            "1 to 4",
        )?;
        check_len(
            "policy contracts",
            self.contracts.len(),
            0,
            MAX_CONTRACTS,
            "at most 65536",
        )?;
        check_names(
            "resource",
            self.resources.iter().map(|resource| resource.name.as_str()),
        )?;
        check_names(
            "contract",
            self.contracts.iter().map(|contract| contract.name.as_str()),
        )?;
        for resource in &self.resources {
            if let Some(pool) = &resource.pool {
                check_micro("resource", "pool depth", pool.depth)?;
            }
        }
        for contract in &self.contracts {
            for limits in contract.limits.iter() {
                limits.check()?;
            }
        }
        self.check_unknown()?;
        self.shadow.check()
    }

    fn check_unknown(&self) -> Result<(), CoreError> {
        if let Some(contract) = self.unknown_contract()
            && self.contract(contract).is_none()
        {
            return Err(out_of_bounds(
                "unknown",
                "contract",
                u64::from(contract.0),
                "a row of the contract table",
            ));
        }
        if let Unknown::Commons {
            prefix_len_v4,
            prefix_len_v6,
            ..
        } = self.unknown
            && (prefix_len_v4 > 32 || prefix_len_v6 > 128)
        {
            let longest = prefix_len_v4.max(prefix_len_v6);
            return Err(out_of_bounds(
                "unknown",
                "prefix length",
                u64::from(longest),
                "at most 32 (IPv4), 128 (IPv6)",
            ));
        }
        Ok(())
    }
}

// === impl Limits ===

impl Limits {
    /// A plain contract: rate and burst, nothing else.
    #[must_use]
    pub const fn plain(rate: Rate, burst: Micro) -> Limits {
        Limits {
            rate,
            burst,
            guarantee: Rate::ZERO,
            ceiling: rate,
            debt_limit: Micro::ZERO,
            borrow_limit: Micro::ZERO,
        }
    }

    /// The part of the limits that belongs to a gateway with these terms. Everything that has a rate is divided as the rate
    /// is, everything that has a depth as the depth: so the parts of all gateways never add up to more than the whole.
    #[must_use]
    pub fn part(&self, terms: &GrantTerms) -> Limits {
        if terms.rate == self.rate && terms.cap == self.burst {
            return *self;
        }
        let of_rate = |rate: Rate| rate.share(terms.rate.get(), self.rate.get());
        let of_depth = |depth: Micro| {
            let (cap, burst) = (terms.cap.at_least_zero(), self.burst.at_least_zero());
            depth.share(cap.get().unsigned_abs(), burst.get().unsigned_abs())
        };
        Limits {
            rate: terms.rate,
            burst: terms.cap,
            guarantee: of_rate(self.guarantee),
            ceiling: terms.rate.plus(of_rate(self.ceiling.minus(self.rate))),
            debt_limit: of_depth(self.debt_limit),
            borrow_limit: of_depth(self.borrow_limit),
        }
    }

    fn check(&self) -> Result<(), CoreError> {
        check_micro("contract", "burst", self.burst)?;
        check_micro("contract", "debt limit", self.debt_limit)?;
        check_micro("contract", "borrow limit", self.borrow_limit)?;
        if self.guarantee > self.rate {
            return Err(out_of_bounds(
                "contract",
                "guarantee",
                self.guarantee.get(),
                "at most the rate",
            ));
        }
        if self.ceiling < self.rate {
            return Err(out_of_bounds(
                "contract",
                "ceiling",
                self.ceiling.get(),
                "at least the rate",
            ));
        }
        Ok(())
    }
}

// === impl Tier ===

impl Tier {
    /// The tier with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Tier> {
        match number {
            1 => Some(Tier::One),
            2 => Some(Tier::Two),
            3 => Some(Tier::Three),
            _ => None,
        }
    }

    /// Its number, 1 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Tier::One => 1,
            Tier::Two => 2,
            Tier::Three => 3,
        }
    }

    /// What a customer of this tier must leave in a pool of `depth`.
    #[must_use]
    pub const fn floor(self, depth: Micro) -> Micro {
        let permille = match self {
            Tier::One => return Micro::ZERO,
            Tier::Two => 100,
            Tier::Three => 250,
        };
        depth.share(permille, 1_000)
    }
}

// === impl ShadowRule ===

impl Default for ShadowRule {
    fn default() -> ShadowRule {
        ShadowRule {
            enabled: true,
            quantile_permille: 900,
            span_us: 250_000,
            depth_factor: 2,
            protected_permille: 500,
            contention: ContentionRule {
                window_us: 1_000_000,
                windows_needed: 4,
                windows: 5,
            },
        }
    }
}

impl ShadowRule {
    fn check(&self) -> Result<(), CoreError> {
        let ContentionRule {
            window_us,
            windows_needed,
            windows,
        } = self.contention;
        let checks = [
            (
                "quantile",
                u64::from(self.quantile_permille),
                1,
                999,
                "1 to 999 thousandths",
            ),
            (
                "span",
                u64::from(self.span_us),
                1,
                u64::from(MAX_SHADOW_SPAN_US),
                "1 us to 60 s",
            ),
            (
                "depth factor",
                u64::from(self.depth_factor),
                1,
                u64::from(MAX_SHADOW_DEPTH_FACTOR),
                "1 to 100",
            ),
            (
                "protected part",
                u64::from(self.protected_permille),
                0,
                1_000,
                "0 to 1000 thousandths",
            ),
            (
                "contention window",
                u64::from(window_us),
                1,
                u64::from(u32::MAX),
                "at least 1 us",
            ),
            (
                "contention windows",
                u64::from(windows),
                1,
                u64::from(MAX_DEVIATION_WINDOWS),
                "1 to 8",
            ),
            (
                "contention windows needed",
                u64::from(windows_needed),
                1,
                u64::from(windows),
                "1 to the windows looked at",
            ),
        ];
        for (field, found, least, most, allowed) in checks {
            if found < least || found > most {
                return Err(out_of_bounds("shadow", field, found, allowed));
            }
        }
        Ok(())
    }
}

fn out_of_bounds(
    what: &'static str,
    field: &'static str,
    found: u64,
    allowed: &'static str,
) -> CoreError {
    CoreError::OutOfBounds {
        what,
        field,
        found,
        allowed,
    }
}

fn check_len(
    what: &'static str,
    len: usize,
    least: usize,
    most: usize,
    allowed: &'static str,
) -> Result<(), CoreError> {
    if len < least || len > most {
        Err(out_of_bounds(what, "rows", len as u64, allowed))
    } else {
        Ok(())
    }
}

fn check_micro(what: &'static str, field: &'static str, amount: Micro) -> Result<(), CoreError> {
    if (0..=MAX_MICRO).contains(&amount.get()) {
        Ok(())
    } else {
        Err(out_of_bounds(
            what,
            field,
            amount.get().unsigned_abs(),
            "0 to 10^18 micro-tokens",
        ))
    }
}

fn check_names<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), CoreError> {
    // A map from names to rows, as in `align` and for the customers of a document: the plugin then has one way to order names.
    let mut rows = BTreeMap::new();
    for (row, name) in names.enumerate() {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(CoreError::BadName { what, row });
        }
        if rows.insert(name, row).is_some() {
            return Err(CoreError::DuplicateName {
                what,
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}
