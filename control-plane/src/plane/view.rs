//! A customer as the operator sees it: policy, account and forecast side by side, in tokens.

use super::Now;
use super::directory::InForce;
use super::state::State;
use crate::buckets::{Account, Contract, Part, Roster};
use crate::error::ApiError;
use crate::history::Series;
use forebay_wire::key::CustomerHash;
use forebay_wire::policy::Decimal;
use forebay_wire::sync::{BAN_FOREVER, FLAG_CONTENDED};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A customer as the operator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CustomerView {
    /// The hash under which it is filed everywhere.
    pub hash: String,
    /// True if the policy lists it.
    pub in_policy: bool,
    /// Name of its contract.
    pub contract: String,
    /// Denied until this wall-clock time in ms; absent: not banned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banned_until_unix_ms: Option<u64>,
    /// Never admitted until it is thawed.
    pub frozen: bool,
    /// Always admitted.
    pub exempt: bool,
    /// True while a gateway holds its tokens.
    pub held_by_gateway: bool,
    /// By resource.
    pub resources: Vec<ResourceView>,
}

/// One resource of a customer; tokens and tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceView {
    /// Name of the resource.
    pub resource: String,
    /// Contract: refill.
    pub rate_per_s: f64,
    /// Contract: depth.
    pub burst: f64,
    /// Tokens here.
    pub central_tokens: f64,
    /// Tokens at the gateways when they last reported.
    pub gateway_tokens: f64,
    /// Refill of its shadow buckets when the gateways last reported.
    pub shadow_rate_per_s: f64,
    /// Claims in its shadow buckets when the gateways last reported.
    pub shadow_tokens: f64,
    /// Depth of its shadow buckets when the gateways last reported.
    pub shadow_depth: f64,
    /// Forecast of the gateway for the coming step: lower quantile. Absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_low_per_s: Option<f32>,
    /// The same: median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_median_per_s: Option<f32>,
    /// The same: upper quantile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_high_per_s: Option<f32>,
    /// True if the network made it, false if the fallback did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_by_network: Option<bool>,
    /// The contention flag.
    pub contended: bool,
    /// Tokens ever asked for.
    pub demand: f64,
    /// Tokens ever admitted.
    pub admitted: f64,
    /// Tokens ever denied.
    pub denied: f64,
    /// Demand that the shadow bucket did not foresee.
    pub deviation: f64,
}

// === impl CustomerView ===

impl CustomerView {
    /// What a change has come to, for the audit log.
    pub(super) fn outcome(&self) -> String {
        let ban = self.banned_until_unix_ms.map(|until| {
            let end = (until != BAN_FOREVER).then(|| format!(" until {until}"));
            format!("banned{}", end.unwrap_or_default())
        });
        let states = [
            ban,
            self.frozen.then(|| "frozen".to_owned()),
            self.exempt.then(|| "exempt".to_owned()),
        ];
        let states: Vec<String> = states.into_iter().flatten().collect();
        if states.is_empty() {
            return "as the contract says".to_owned();
        }
        states.join(", ")
    }
}

pub(super) fn view(
    state: &State,
    roster: &Roster,
    customer: CustomerHash,
    now: Now,
) -> Result<CustomerView, ApiError> {
    let unknown = || {
        let message = format!("nothing is known of customer {customer}");
        let hint = "it is not in the policy and no gateway has reported it: check the key and FOREBAY_KEY_HASH_SECRET";
        ApiError::not_found("no_such_customer", message, hint).at("key")
    };
    let member = state.directory.get(customer);
    let account = state.accounts.get(&customer);
    if member.is_none()
        && account.is_none()
        && state
            .policies
            .compiled()
            .is_none_or(|policy| policy.unknown_contract().is_none())
    {
        return Err(unknown());
    }
    let policy = state.policies.compiled().ok_or_else(unknown)?;
    let limits = state.limits_of(customer).ok_or_else(unknown)?;
    let contract = member
        .map(|member| member.contract)
        .or(policy.unknown_contract());
    let in_force = member.map_or_else(InForce::default, |member| {
        state.directory.in_force(customer, member)
    });
    let resources = policy.resources.iter().zip(limits.iter()).enumerate();
    let contract_of = Contract {
        customer,
        limits: &limits,
        expected_per_s: &[],
        roster,
    };
    Ok(CustomerView {
        hash: customer.to_string(),
        in_policy: member.is_some_and(|member| member.in_policy),
        contract: contract
            .and_then(|row| policy.contract(row))
            .map_or(String::new(), |row| row.name.clone()),
        banned_until_unix_ms: Some(in_force.ban_until_unix_ms).filter(|until| *until > now.unix_ms),
        frozen: in_force.frozen,
        exempt: in_force.exempt,
        held_by_gateway: account.is_some_and(|account| {
            let parts = account.parts.iter();
            parts
                .filter(|part| roster.presence(part.session()).is_some())
                .any(Part::was_moved)
        }),
        resources: resources
            .map(|(position, (resource, _))| {
                resource_view(state, &contract_of, position, &resource.name, now)
            })
            .collect(),
    })
}

fn resource_view(
    state: &State,
    contract: &Contract<'_>,
    position: usize,
    name: &str,
    now: Now,
) -> ResourceView {
    let customer = contract.customer;
    let limits = contract.limits.get(position).copied().unwrap_or_default();
    let fresh;
    let account = match state.accounts.get(&customer) {
        Some(account) => account,
        None => {
            fresh = Account::new(contract.limits, now.mono, state.newcomers_since);
            &fresh
        }
    };
    let held = Held::of(account, position, contract.roster);
    let totals = account.totals(position);
    let forecast = u8::try_from(position)
        .ok()
        .and_then(|index| state.forecasts.get(&Series::new(customer, index)));
    ResourceView {
        resource: name.to_owned(),
        rate_per_s: unsigned(limits.rate.get()),
        burst: signed(limits.burst.get()),
        central_tokens: signed(account.central_level(contract, position).get()),
        gateway_tokens: signed(held.balance),
        shadow_rate_per_s: unsigned(held.shadow_rate),
        shadow_tokens: signed(held.shadow),
        shadow_depth: unsigned(held.shadow_depth),
        forecast_low_per_s: forecast.map(|forecast| forecast.low_per_s),
        forecast_median_per_s: forecast.map(|forecast| forecast.median_per_s),
        forecast_high_per_s: forecast.map(|forecast| forecast.high_per_s),
        forecast_by_network: forecast.map(|forecast| forecast.by_network),
        contended: held.is_contended,
        demand: unsigned(totals.demand),
        admitted: unsigned(totals.admitted),
        denied: unsigned(totals.denied),
        deviation: unsigned(totals.deviation),
    }
}

/// The sums over the gateways that are present.
#[derive(Default)]
struct Held {
    balance: i64,
    shadow_rate: u64,
    shadow: i64,
    shadow_depth: u64,
    is_contended: bool,
}

// === impl Held ===

impl Held {
    fn of(account: &Account, resource: usize, roster: &Roster) -> Self {
        let present = account
            .parts
            .iter()
            .filter(|part| roster.presence(part.session()).is_some());
        let holdings = present.filter_map(|part| part.holdings.get(resource));
        holdings.fold(Self::default(), |sum, holding| Self {
            balance: sum.balance.saturating_add(holding.balance),
            shadow_rate: sum.shadow_rate.saturating_add(holding.shadow_rate),
            shadow: sum.shadow.saturating_add(holding.shadow.0),
            shadow_depth: sum.shadow_depth.saturating_add(holding.shadow.1),
            is_contended: sum.is_contended || holding.flags & FLAG_CONTENDED != 0,
        })
    }
}

fn signed(micro: i64) -> f64 {
    let sign = if micro < 0 { -1.0 } else { 1.0 };
    sign * Decimal::from_micro(micro.saturating_abs())
        .unwrap_or_default()
        .to_f64()
}

fn unsigned(micro: u64) -> f64 {
    signed(i64::try_from(micro).unwrap_or(i64::MAX))
}
