//! From the configuration that Envoy hands over to a filter that can decide.
//!
//! Everything that can be wrong is found here, before the first request, and nothing is changed before everything has been checked: when
//! a configuration is refused, the one before goes on as it was.
//!
//! Each worker configures itself with the same document, and so does a VM that was restarted. So each step is idempotent: pages and
//! buckets that exist are kept, and a policy gets a new epoch only when it differs from the one in force.

use core::hash::{BuildHasher, Hasher};
use std::hash::RandomState;

use forebay_core::draw::Conditions;
use forebay_core::error::CoreError;
use forebay_core::lease::Lease;
use forebay_core::ledger::{Install, Installed, Ledger, LedgerSize, PolicyCustomer};
use forebay_core::limits::{MAX_RESOURCES, US_PER_S};
use forebay_core::policy::{Policy, Resource, ShadowRule, Unknown};
use forebay_core::time::TimeUs;
use forebay_policy::CompiledCustomer;
use forebay_wire::config::{AwaitPolicyConfig, ConfigError, PluginConfig};
use forebay_wire::key::{KeySecret, SECRET_ENV};
use thiserror::Error;

use crate::cold_start::ColdStartRule;
use crate::filter::{Filter, Parts};
use crate::host::{Host, LogLevel};
use crate::rule::{self, Rule};
use crate::settings::Settings;

const US_PER_MS: u64 = US_PER_S / 1_000;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigureError {
    /// The document is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The inline policy is wrong.
    #[error("policy.{0}")]
    Policy(#[from] forebay_policy::PolicyError),
    /// The secret for hashing keys is wrong.
    #[error("environment variable {SECRET_ENV}: {0}")]
    Secret(#[from] forebay_wire::key::NotHex),
    /// The ledger could not be set up.
    #[error("the ledger could not be set up: {0}")]
    Ledger(#[from] CoreError),
}

/// A policy that is ready to be put in force.
struct Prepared {
    policy: Policy,
    customers: Vec<CompiledCustomer>,
}

/// Configures a worker. `secret` is the value of [`SECRET_ENV`], if it is set.
pub fn configure<H: Host>(
    host: &mut H,
    json: &[u8],
    secret: Option<&str>,
) -> Result<Filter, ConfigureError> {
    let config = PluginConfig::parse(json)?;
    let mut rules: Vec<Rule> = config.rules.iter().map(Rule::compile).collect();
    let resources = charged_resources(&rules);
    if resources.len() > MAX_RESOURCES {
        let message = format!(
            "the rules charge {} resources, a deployment has at most {MAX_RESOURCES}",
            resources.len()
        );
        return Err(ConfigError::at("rules", message).into());
    }
    let prepared = config
        .policy
        .as_ref()
        .map(forebay_policy::compile)
        .transpose()?;
    if let Some(compiled) = &prepared
        && let Some(path) = rule::bind(&mut rules, &compiled.policy)
    {
        let known: Vec<&str> = compiled
            .policy
            .resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect();
        let message = format!(
            "is no resource of the policy, which has {}",
            known.join(", ")
        );
        return Err(ConfigError::at(path, message).into());
    }
    let secret = match secret {
        Some(hex) => KeySecret::from_hex(hex)?,
        None => {
            host.log(LogLevel::Warn, &format!("{SECRET_ENV} is not set: customer keys are hashed with the development secret, which is public"));
            KeySecret::development()
        }
    };
    let size = LedgerSize {
        max_policy_customers: u64::from(config.ledger.max_policy_customers),
        max_other_customers: u64::from(config.ledger.max_other_customers),
    };
    let now = host.now();
    let (ledger, policy, cold_start) = match prepared {
        Some(compiled) => {
            let prepared = Prepared {
                policy: compiled.policy,
                customers: compiled.customers,
            };
            let (ledger, policy) = stand_alone(host, prepared, size, &secret, now)?;
            (ledger, policy, ColdStartRule::Deny)
        }
        None => {
            let control_plane = config.control_plane.clone().unwrap_or_default();
            await_policy(host, &control_plane, &resources, size, now)?
        }
    };
    let names: Vec<String> = config.rules.iter().map(|rule| rule.name.clone()).collect();
    let parts = Parts {
        settings: Settings::compile(&config),
        rules,
        rule_names: names,
        resources,
        secret,
        policy,
        ledger,
        cold_start,
        worker: random_number(),
        cache_seed: random_number(),
    };
    Ok(Filter::new(host, parts))
}

/// Puts the inline policy in force, with its customers.
fn stand_alone<H: Host>(
    host: &mut H,
    prepared: Prepared,
    size: LedgerSize,
    secret: &KeySecret,
    now: TimeUs,
) -> Result<(Ledger, Policy), CoreError> {
    let Prepared {
        mut policy,
        customers,
    } = prepared;
    let mut ledger = Ledger::seed(host, size, &policy, Lease::StandAlone, now)?;
    // A blob of another layout is no policy to continue.
    let previous = ledger.read_policy(host).ok().flatten();
    let moved = previous
        .as_ref()
        .map(|previous| policy.keep_indexes_of(previous));
    policy.epoch = previous.as_ref().map_or(0, |previous| previous.epoch);
    let is_same = previous.as_ref() == Some(&policy);
    if !is_same {
        policy.epoch = policy.epoch.saturating_add(1);
        ledger.write_policy(host, &policy)?;
    }
    let unix_ms = host.unix_ms();
    let installable = customers.iter().map(|customer| {
        let contract = match &moved {
            Some(moved) => moved
                .get(usize::from(customer.contract.0))
                .copied()
                .unwrap_or(customer.contract),
            None => customer.contract,
        };
        PolicyCustomer {
            customer: forebay_core::CustomerHash(secret.hash(customer.key.as_bytes()).0),
            contract,
            exempt: customer.exempt,
            frozen: customer.frozen,
            ban_until: ban_until(customer.ban_until_unix_ms, unix_ms, now),
        }
    });
    let mut install = Install::new(&ledger, installable.collect(), true);
    let conditions = Conditions {
        policy: &policy,
        lease: Lease::StandAlone,
        now,
        workers: 1,
    };
    install.step(&mut ledger, host, &conditions, u32::MAX)?;
    let customers_changed = install.done() != Installed::default();
    if is_same && customers_changed {
        policy.epoch = policy.epoch.saturating_add(1);
        ledger.write_policy(host, &policy)?;
    }
    if ledger.state().policy_epoch != policy.epoch {
        let epoch = policy.epoch;
        ledger.edit_state(host, |state| state.policy_epoch = epoch)?;
    }
    Ok((ledger, policy))
}

/// Joins the ledger that the forecaster fills, or seeds one that waits for it.
fn await_policy<H: Host>(
    host: &mut H,
    config: &AwaitPolicyConfig,
    resources: &[String],
    size: LedgerSize,
    now: TimeUs,
) -> Result<(Ledger, Policy, ColdStartRule), CoreError> {
    let cold_start = ColdStartRule::compile(&config.cold_start);
    cold_start.seed(host, now)?;
    let waiting = Policy {
        epoch: 0,
        dry_run: false,
        resources: resources
            .iter()
            .map(|name| Resource {
                name: name.clone(),
                pool: None,
            })
            .collect(),
        contracts: Vec::new(),
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    };
    // A ledger with a policy in force has the resources of that policy, which need not be those that these rules charge.
    if let Ok(mut ledger) = Ledger::open(host)
        && let Ok(Some(policy)) = ledger.read_policy(host)
        && ledger.state().lease != Lease::StandAlone
    {
        return Ok((ledger, policy, cold_start));
    }
    let ledger = Ledger::seed(host, size, &waiting, Lease::Waiting, now)?;
    Ok((ledger, waiting, cold_start))
}

/// The resources that the rules charge, in the order in which they first occur.
fn charged_resources(rules: &[Rule]) -> Vec<String> {
    let mut resources: Vec<String> = Vec::new();
    for charge in rules.iter().flat_map(|rule| &rule.charges) {
        if !resources.contains(&charge.name) {
            resources.push(charge.name.clone());
        }
    }
    resources
}

/// A date on the monotonic clock, on which the ledger runs.
fn ban_until(until_unix_ms: u64, unix_ms: u64, now: TimeUs) -> Option<TimeUs> {
    match until_unix_ms {
        0 => None,
        u64::MAX => Some(TimeUs::NEVER),
        until => {
            let left_ms = until.checked_sub(unix_ms).filter(|left_ms| *left_ms > 0)?;
            Some(now.plus_us(left_ms.saturating_mul(US_PER_MS)))
        }
    }
}

/// A number that nobody outside can know, from the seed of the standard library's hash maps (WASI `random_get`).
fn random_number() -> u64 {
    RandomState::new().build_hasher().finish()
}
