//! The list of customers: each once, each with a contract that exists.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::compile::CompiledCustomer;
use crate::error::{Mistakes, Problem};
use crate::{MAX_CUSTOMERS, check};
use forebay_core::policy::ContractIndex;
use forebay_wire::key::MAX_KEY_BYTES;
use forebay_wire::policy::{Customer, PolicyDocument};
use forebay_wire::sync::BAN_FOREVER;

pub(crate) fn compile(mistakes: &mut Mistakes, document: &PolicyDocument) -> Vec<CompiledCustomer> {
    let found = document.customers.len();
    let names: Vec<&str> = document.contracts.names().collect();
    if found > MAX_CUSTOMERS {
        mistakes.add(
            "customers",
            Problem::Count {
                found,
                allowed: "at most 4000000",
            },
        );
        return Vec::new();
    }
    let mut compiled = Vec::with_capacity(found);
    for (position, customer) in document.customers.iter().enumerate() {
        let length = customer.key.len();
        if length == 0 || length > MAX_KEY_BYTES {
            let problem = Problem::KeyLength {
                found: length,
                most: MAX_KEY_BYTES,
            };
            mistakes.add(format!("customers[{position}].key"), problem);
            continue;
        }
        if customer.banned && customer.ban_until_unix_s.is_some() {
            let because = "beside banned: true, which has no end";
            mistakes.add(
                format!("customers[{position}].ban_until_unix_s"),
                Problem::NoEffect { because },
            );
        }
        let path = format!("customers[{position}].contract");
        if let Some(contract) = contract_index(mistakes, &names, &path, &customer.contract) {
            compiled.push(CompiledCustomer {
                key: customer.key.clone(),
                contract,
                ban_until_unix_ms: ban_until_unix_ms(customer),
                exempt: customer.exempt,
                frozen: customer.frozen,
            });
        }
    }
    duplicates(mistakes, &document.customers);
    compiled
}

/// The row of a contract. `names` are sorted, and rows are numbered in that order.
pub(crate) fn contract_index(
    mistakes: &mut Mistakes,
    names: &[&str],
    path: &str,
    name: &str,
) -> Option<ContractIndex> {
    let index = names
        .binary_search(&name)
        .ok()
        .and_then(|position| u16::try_from(position).ok());
    if index.is_none() {
        mistakes.add_with(path, || Problem::NoSuchContract {
            name: name.chars().take(64).collect(),
            suggestion: check::suggestion(name, names.iter().copied()),
        });
    }
    index.map(ContractIndex)
}

fn ban_until_unix_ms(customer: &Customer) -> u64 {
    if customer.banned {
        return BAN_FOREVER;
    }
    customer
        .ban_until_unix_s
        .map_or(0, |seconds| seconds.saturating_mul(1_000))
}

fn duplicates(mistakes: &mut Mistakes, customers: &[Customer]) {
    let mut first_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, customer) in customers.iter().enumerate() {
        match first_of.entry(customer.key.as_str()) {
            Entry::Vacant(place) => {
                place.insert(position);
            }
            Entry::Occupied(first) => {
                let first = *first.get();
                mistakes.add(
                    format!("customers[{position}].key"),
                    Problem::DuplicateCustomer { first },
                );
            }
        }
    }
}
