//! Walks the document and builds the tables.
//!
//! Resources and contracts get their indexes in the order of their names, because the order in a document means nothing
//! (Envoy's `Struct` loses it). Keeping contract indexes stable from one policy to the next is `Policy::keep_indexes_of`.

use crate::error::{Mistakes, PolicyError, Problem};
use crate::{check, contract, customers};
use forebay_core::amount::{Micro, Rate};
use forebay_core::deviation::ContentionRule;
use forebay_core::limits::MAX_SHADOW_SPAN_US;
use forebay_core::limits::{
    MAX_CONTRACTS, MAX_DEVIATION_WINDOWS, MAX_RESOURCES, MAX_SHADOW_DEPTH_FACTOR,
};
use forebay_core::policy::{
    Contract, ContractIndex, Policy, PoolRule, Resource, ShadowRule, Unknown,
};
use forebay_wire::policy::{POLICY_VERSION, PolicyDocument, Shadow, UnknownAction};

/// Depth of a pool where the document says nothing, in milliseconds of its capacity.
pub(crate) const DEFAULT_POOL_DEPTH_MS: u32 = 1_000;
/// Longest depth of a pool: more than a minute of capacity is not a limit any more.
const MAX_POOL_DEPTH_MS: u32 = 60_000;
/// Source prefixes of the commons where the document says nothing.
pub(crate) const DEFAULT_PREFIX_LEN_V4: u8 = 24;
pub(crate) const DEFAULT_PREFIX_LEN_V6: u8 = 56;
/// Longest window of the contention flag.
const MAX_CONTENTION_WINDOW_MS: u32 = 60_000;
const US_PER_MS: u32 = 1_000;

/// A policy that may be put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The tables; `epoch` is 0 and the caller's to set.
    pub policy: Policy,
    /// The customers in the order of the document.
    pub customers: Vec<CompiledCustomer>,
}

/// A customer with a contract of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledCustomer {
    /// The raw key, to be hashed.
    pub key: String,
    /// Row of the contract table.
    pub contract: ContractIndex,
    /// Denied until this wall-clock time in ms; 0: not banned; `u64::MAX`: without an end.
    pub ban_until_unix_ms: u64,
    /// Admit always, count only.
    pub exempt: bool,
    /// Never admitted until thawed.
    pub frozen: bool,
}

/// Compiles a policy document.
///
/// # Errors
/// Everything that is wrong with the document, each with its place.
pub fn compile(document: &PolicyDocument) -> Result<Compiled, PolicyError> {
    let mut mistakes = Mistakes::default();
    if document.version != POLICY_VERSION {
        mistakes.add(
            "version",
            Problem::Version {
                found: document.version,
            },
        );
    }
    let resources = resources(&mut mistakes, document);
    let shadow = shadow(&mut mistakes, &document.shadow);
    let contracts = contracts(&mut mistakes, document);
    let unknown = unknown(&mut mistakes, document, &contracts);
    let customers = customers::compile(&mut mistakes, document);
    guarantees(&mut mistakes, &resources, &contracts, &customers);
    let policy = Policy {
        epoch: 0,
        dry_run: document.dry_run,
        resources,
        contracts,
        unknown,
        shadow,
    };
    let compiled = mistakes.into_result(Compiled { policy, customers })?;
    let mut mistakes = Mistakes::default();
    if let Err(error) = compiled.policy.check() {
        mistakes.add("policy", Problem::Core(error.to_string()));
    }
    mistakes.into_result(compiled)
}

fn resources(mistakes: &mut Mistakes, document: &PolicyDocument) -> Vec<Resource> {
    let count = document.resources.len();
    if count == 0 || count > MAX_RESOURCES {
        mistakes.add(
            "resources",
            Problem::Count {
                found: count,
                allowed: "1 to 4",
            },
        );
    }
    let mut resources = Vec::new();
    for (name, resource) in document.resources.iter() {
        let path = format!("resources.{name}");
        check::name(mistakes, &path, name);
        if resource.capacity_per_s.is_none() && resource.depth_ms.is_some() {
            mistakes.add(
                format!("{path}.depth_ms"),
                Problem::NoEffect {
                    because: "without a capacity_per_s",
                },
            );
        }
        let pool = resource.capacity_per_s.map(|capacity| {
            let capacity_path = format!("{path}.capacity_per_s");
            if capacity.is_zero() {
                let allowed = "above 0 (leave it out for no pool)".to_owned();
                mistakes.add(
                    &capacity_path,
                    Problem::Range {
                        found: "0".to_owned(),
                        allowed,
                    },
                );
            }
            let capacity = check::capacity(mistakes, &capacity_path, capacity);
            let depth_ms = resource.depth_ms.unwrap_or(DEFAULT_POOL_DEPTH_MS);
            let most = u64::from(MAX_POOL_DEPTH_MS);
            check::range(
                mistakes,
                &format!("{path}.depth_ms"),
                u64::from(depth_ms),
                1,
                most,
            );
            let depth_us = u64::from(depth_ms).saturating_mul(u64::from(US_PER_MS));
            PoolRule {
                capacity,
                depth: capacity.amount_in(depth_us),
            }
        });
        resources.push(Resource {
            name: name.to_owned(),
            pool,
        });
    }
    resources
}

fn contracts(mistakes: &mut Mistakes, document: &PolicyDocument) -> Vec<Contract> {
    if document.contracts.len() > MAX_CONTRACTS {
        let found = document.contracts.len();
        mistakes.add(
            "contracts",
            Problem::Count {
                found,
                allowed: "at most 65536",
            },
        );
    }
    document
        .contracts
        .iter()
        .map(|(name, written)| contract::compile(mistakes, document, name, written))
        .collect()
}

fn unknown(mistakes: &mut Mistakes, document: &PolicyDocument, contracts: &[Contract]) -> Unknown {
    let rule = &document.unknown;
    let is_commons = rule.action == UnknownAction::Commons;
    for (field, given) in [
        ("prefix_len_v4", rule.prefix_len_v4),
        ("prefix_len_v6", rule.prefix_len_v6),
    ] {
        if given.is_some() && !is_commons {
            mistakes.add(
                format!("unknown.{field}"),
                Problem::NoEffect {
                    because: "unless the action is commons",
                },
            );
        }
    }
    let prefix_len_v4 = rule.prefix_len_v4.unwrap_or(DEFAULT_PREFIX_LEN_V4);
    let prefix_len_v6 = rule.prefix_len_v6.unwrap_or(DEFAULT_PREFIX_LEN_V6);
    check::range(
        mistakes,
        "unknown.prefix_len_v4",
        u64::from(prefix_len_v4),
        0,
        32,
    );
    check::range(
        mistakes,
        "unknown.prefix_len_v6",
        u64::from(prefix_len_v6),
        0,
        128,
    );
    let contract = match (rule.action, rule.contract.as_deref()) {
        (UnknownAction::Deny, None) => return Unknown::Deny,
        (UnknownAction::Deny, Some(_)) => {
            mistakes.add(
                "unknown.contract",
                Problem::NoEffect {
                    because: "when the action is deny",
                },
            );
            return Unknown::Deny;
        }
        (_, None) => {
            let needed = "name the contract that unknown customers get";
            mistakes.add("unknown.contract", Problem::Missing { needed });
            return Unknown::Deny;
        }
        (_, Some(name)) => {
            let names: Vec<&str> = document.contracts.names().collect();
            customers::contract_index(mistakes, &names, "unknown.contract", name)
        }
    };
    let Some(index) = contract else {
        return Unknown::Deny;
    };
    let limits = contracts
        .get(usize::from(index.0))
        .map(|contract| contract.limits);
    if limits.is_some_and(|limits| limits.iter().any(|limits| limits.guarantee > Rate::ZERO)) {
        mistakes.add("unknown.contract", Problem::UnboundedGuarantee);
    }
    if is_commons {
        Unknown::Commons {
            contract: index,
            prefix_len_v4,
            prefix_len_v6,
        }
    } else {
        Unknown::DefaultContract(index)
    }
}

fn shadow(mistakes: &mut Mistakes, written: &Shadow) -> ShadowRule {
    let contention = &written.contention;
    let most_windows = u64::from(MAX_DEVIATION_WINDOWS);
    let bounds = [
        (
            "span_ms",
            written.span_ms,
            u64::from(MAX_SHADOW_SPAN_US / US_PER_MS),
        ),
        (
            "depth_factor",
            written.depth_factor,
            u64::from(MAX_SHADOW_DEPTH_FACTOR),
        ),
        (
            "contention.window_ms",
            contention.window_ms,
            u64::from(MAX_CONTENTION_WINDOW_MS),
        ),
        (
            "contention.windows",
            u32::from(contention.windows),
            most_windows,
        ),
        (
            "contention.needed",
            u32::from(contention.needed),
            u64::from(contention.windows).min(most_windows),
        ),
    ];
    for (field, found, most) in bounds {
        check::range(
            mistakes,
            &format!("shadow.{field}"),
            u64::from(found),
            1,
            most,
        );
    }
    ShadowRule {
        enabled: written.enabled,
        quantile_permille: check::permille(mistakes, "shadow.quantile", written.quantile, 1, 999),
        span_us: written.span_ms.saturating_mul(US_PER_MS),
        depth_factor: written.depth_factor,
        protected_permille: check::permille(
            mistakes,
            "shadow.protected_share",
            written.protected_share,
            0,
            1000,
        ),
        contention: ContentionRule {
            window_us: contention.window_ms.saturating_mul(US_PER_MS),
            windows_needed: contention.needed,
            windows: contention.windows,
        },
    }
}

/// What is promised to the listed customers together must fit into the pool: otherwise the promise is broken by design.
fn guarantees(
    mistakes: &mut Mistakes,
    resources: &[Resource],
    contracts: &[Contract],
    customers: &[CompiledCustomer],
) {
    for (position, resource) in resources.iter().enumerate() {
        let Some(pool) = resource.pool else { continue };
        let guarantee_of = |customer: &CompiledCustomer| {
            let contract = contracts.get(usize::from(customer.contract.0));
            contract
                .and_then(|contract| contract.limits.iter().nth(position))
                .map_or(0, |limits| limits.guarantee.get())
        };
        let sum = customers
            .iter()
            .map(guarantee_of)
            .fold(0_u64, u64::saturating_add);
        if sum > pool.capacity.get() {
            let guaranteed = tokens(sum);
            let capacity = tokens(pool.capacity.get());
            let path = format!("resources.{}.capacity_per_s", resource.name);
            mistakes.add(
                path,
                Problem::Overcommitted {
                    guaranteed,
                    capacity,
                },
            );
        }
    }
}

pub(crate) fn tokens(micro: u64) -> String {
    let amount = Micro::new(i64::try_from(micro).unwrap_or(i64::MAX));
    forebay_wire::policy::Decimal::from_micro(amount.get())
        .unwrap_or_default()
        .to_string()
}
