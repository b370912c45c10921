//! A policy version that is put in force again, after a restart or because a newer one is taken back.
//!
//! Its document was checked when it came. A build that checks more strictly may refuse it today, and that must not keep anybody from
//! going back to it: the store has its tables
//! as well, and they say what was in force. To compile the document with its mistakes overlooked was the worse alternative: an amount
//! that is refused would be another one.

use super::policies::VersionRecord;
use crate::document::CheckedPolicy;
use forebay_core::policy::{ContractIndex, Policy, Unknown};
use forebay_policy::{Compiled, CompiledCustomer, anomaly, compile, sharing};
use forebay_wire::policy::{Customer, PolicyDocument};
use forebay_wire::sync::BAN_FOREVER;
use std::collections::HashMap;

/// Why a version cannot be put in force again.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    /// Its row in the store.
    #[error("its document or its tables cannot be read: {0}")]
    Damaged(String),
    /// What is kept of it does not belong together.
    #[error("its tables lack the contract `{0}` of its document")]
    Lacks(String),
    /// It can be compiled no more, and no tables are kept of what is refused.
    #[error("this build refuses {0}")]
    Refused(String),
}

/// The version as it was put in force.
pub(super) fn kept(record: &VersionRecord) -> Result<CheckedPolicy, KeptError> {
    let document: PolicyDocument = serde_json::from_str(&record.document)
        .map_err(|error| KeptError::Damaged(error.to_string()))?;
    let compiled = match compile(&document) {
        Ok(compiled) => compiled,
        Err(error) => {
            let compiled = from_tables(&document, &record.compiled)?;
            tracing::warn!(%error, "this build refuses a policy that was in force: it is in force again as it was");
            compiled
        }
    };
    let refused = |error: forebay_policy::PolicyError| KeptError::Refused(error.to_string());
    Ok(CheckedPolicy {
        sharing: sharing(&document, &compiled).map_err(refused)?,
        anomaly: anomaly(&document).map_err(refused)?,
        compiled,
        document,
    })
}

/// What [`compile`] would have made of it. Tables may have rows of contracts that had gone before; here they are those of the document
/// alone, in its order.
fn from_tables(document: &PolicyDocument, tables: &[u8]) -> Result<Compiled, KeptError> {
    let damaged = |error: &dyn std::fmt::Display| KeptError::Damaged(error.to_string());
    let kept = Policy::decode(tables).map_err(|error| damaged(&error))?;
    let rows: HashMap<&str, ContractIndex> = document
        .contracts
        .names()
        .zip((0..=u16::MAX).map(ContractIndex))
        .collect();
    let row_of = |name: &str| {
        let row = rows.get(name).copied();
        row.ok_or_else(|| KeptError::Lacks(name.to_owned()))
    };
    let by_name: HashMap<&str, _> = kept
        .contracts
        .iter()
        .map(|contract| (contract.name.as_str(), contract))
        .collect();
    let contracts = document.contracts.names().map(|name| {
        let contract = by_name.get(name).map(|contract| (*contract).clone());
        contract.ok_or_else(|| KeptError::Lacks(name.to_owned()))
    });
    let moved = |row: ContractIndex| {
        let contract = kept.contract(row);
        row_of(contract.map_or("", |contract| contract.name.as_str()))
    };
    let unknown = match kept.unknown {
        Unknown::Deny => Unknown::Deny,
        Unknown::DefaultContract(row) => Unknown::DefaultContract(moved(row)?),
        Unknown::Commons {
            contract,
            prefix_len_v4,
            prefix_len_v6,
        } => Unknown::Commons {
            contract: moved(contract)?,
            prefix_len_v4,
            prefix_len_v6,
        },
    };
    let customers = document.customers.iter().map(|customer| {
        Ok(CompiledCustomer {
            key: customer.key.clone(),
            contract: row_of(&customer.contract)?,
            ban_until_unix_ms: ban_until_unix_ms(customer),
            exempt: customer.exempt,
            frozen: customer.frozen,
        })
    });
    let customers = customers.collect::<Result<_, KeptError>>()?;
    let policy = Policy {
        epoch: 0,
        contracts: contracts.collect::<Result<_, _>>()?,
        unknown,
        ..kept.clone()
    };
    policy.check().map_err(|error| damaged(&error))?;
    Ok(Compiled { policy, customers })
}

fn ban_until_unix_ms(customer: &Customer) -> u64 {
    if customer.banned {
        return BAN_FOREVER;
    }
    let until = customer.ban_until_unix_s;
    until.map_or(0, |seconds| seconds.saturating_mul(1_000))
}
