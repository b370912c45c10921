//! Two policies in one: who goes by which, for policies and shares that are drawn.

use super::*;
use crate::{compile, sharing};
use forebay_core::policy::Contract;
use forebay_wire::policy::Contract as Written;
use proptest::prelude::*;
use serde_json::{Value, json};

const NAMES: [&str; 4] = ["gold", "gold.new", "gold.new2", "tin"];

fn document(value: Value) -> PolicyDocument {
    serde_json::from_value(value).unwrap()
}

/// A policy with these rates, and who has which contract, by number of customer.
fn policy(rates: [u32; 4], customers: &[(u16, usize)]) -> PolicyDocument {
    let limits = |rate: u32| json!({"limits": {"requests": {"rate_per_s": rate, "burst": 9, "guarantee_per_s": 1}}});
    let mut contracts = serde_json::Map::new();
    for (name, rate) in NAMES.iter().zip(rates) {
        if rate > 0 {
            contracts.insert((*name).to_owned(), limits(rate));
        }
    }
    contracts.insert(
        "free".to_owned(),
        json!({"limits": {"requests": {"rate_per_s": 1, "burst": 1}}}),
    );
    let customers: Vec<Value> = customers
        .iter()
        .map(|(number, name)| {
            let name = match rates[*name] {
                0 => "free",
                _ => NAMES[*name],
            };
            json!({"key": format!("k{number}"), "contract": name, "exempt": *number % 5 == 0})
        })
        .collect();
    document(json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 100_000}},
        "contracts": contracts,
        "customers": customers,
    }))
}

/// What a customer has by a policy, whatever its contract is called there: none where it is not listed.
fn treated<'a>(policy: &'a PolicyDocument, key: &str) -> Option<(&'a Written, Customer)> {
    let customer = policy
        .customers
        .iter()
        .find(|customer| customer.key == key)?;
    let contract = policy.contracts.get(&customer.contract).unwrap();
    let nameless = Customer {
        contract: String::new(),
        ..customer.clone()
    };
    Some((contract, nameless))
}

fn keys(policies: [&PolicyDocument; 2]) -> BTreeSet<String> {
    let all = policies.iter().flat_map(|policy| &policy.customers);
    all.map(|customer| customer.key.clone()).collect()
}

fn any_policy() -> impl Strategy<Value = PolicyDocument> {
    let customers = prop::collection::btree_map(0_u16..60, 0_usize..4, 0..40);
    let rates = prop::array::uniform4(prop_oneof![Just(0_u32), 1_u32..4]);
    (rates, customers)
        .prop_map(|(rates, customers)| policy(rates, &customers.into_iter().collect::<Vec<_>>()))
}

proptest! {
    #[test]
    fn everybody_is_treated_exactly_as_by_one_of_both_and_never_goes_back_while_the_share_grows(
        older in any_policy(),
        newer in any_policy(),
        salt: u128,
        mut shares in prop::array::uniform2(0_u8..=100),
    ) {
        shares.sort_unstable();
        let [smaller, larger] = shares.map(|percent| CustomerShare::new(percent, salt));
        let merged = [&smaller, &larger].map(|share| merge(&older, &newer, share).unwrap());
        for (share, merged) in [(&smaller, &merged[0]), (&larger, &merged[1])] {
            let compiled = compile(merged).unwrap();
            sharing(merged, &compiled).unwrap();
            prop_assert!(merged.contracts.len() <= older.contracts.len().saturating_add(newer.contracts.len()));
            for key in keys([&older, &newer]) {
                let by = if share.takes(&key) { &newer } else { &older };
                prop_assert_eq!(treated(merged, &key), treated(by, &key), "{}", key);
            }
            prop_assert_eq!(keys([merged, merged]).len(), merged.customers.len(), "nobody stands twice");
        }
        for key in keys([&older, &newer]) {
            prop_assert!(!smaller.takes(&key) || larger.takes(&key));
        }
    }

    #[test]
    fn no_share_is_the_older_policy_and_all_is_the_newer_one(older in any_policy(), newer in any_policy(), salt: u128) {
        let of = |percent| merge(&older, &newer, &CustomerShare::new(percent, salt)).unwrap();
        prop_assert_eq!(of(0), older.clone());
        prop_assert_eq!(of(100), newer.clone());
        prop_assert_eq!(of(255), newer.clone());
    }
}

#[test]
fn a_share_is_about_as_many_customers_as_it_says_and_other_ones_with_another_salt() {
    for percent in [1_u8, 10, 30, 50, 90, 99] {
        let share = CustomerShare::new(percent, 7);
        let taken = (0..20_000).filter(|number| share.takes(&format!("key-{number}")));
        let (found, expected) = (taken.count() as f64, 200.0 * f64::from(percent));
        // Four standard deviations of that many coins.
        let deviation = (expected * (1.0 - f64::from(percent) / 100.0)).sqrt();
        assert!(
            (found - expected).abs() < 4.0 * deviation,
            "{percent} %: {found} of {expected}"
        );
    }
    let both = |key: &str| [1, 2].map(|salt| CustomerShare::new(50, salt).takes(key));
    let differ = (0..1_000).filter(|number| {
        let [one, other] = both(&format!("key-{number}"));
        one != other
    });
    assert!((400..600).contains(&differ.count()));
}

/// The rows that gateways read say the same as the documents.
#[test]
fn a_changed_contract_stands_there_twice_under_the_names_of_both() {
    let event = json!([{"name": "sale", "from_unix_s": 1, "until_unix_s": 2, "factor": 2, "contracts": ["gold", "tin"]}]);
    let [older, newer] = [2, 3].map(|rate| PolicyDocument {
        events: serde_json::from_value(event.clone()).unwrap(),
        ..policy([rate, 0, 0, 3], &[(1, 0), (2, 0)])
    });
    let salt = (0..).find(|salt| {
        let share = CustomerShare::new(50, *salt);
        share.takes("k1") && !share.takes("k2")
    });
    let merged = merge(&older, &newer, &CustomerShare::new(50, salt.unwrap())).unwrap();
    let names: Vec<&str> = merged.contracts.names().collect();
    assert_eq!(names, ["free", "gold", "gold.new", "tin"]);
    assert_eq!(merged.events[0].contracts, ["gold", "tin", "gold.new"]);
    let compiled = compile(&merged).unwrap();
    let row = |position: usize| -> &Contract {
        let customer = &compiled.customers[position];
        &compiled.policy.contracts[usize::from(customer.contract.0)]
    };
    assert_eq!(
        (row(0).name.as_str(), row(1).name.as_str()),
        ("gold.new", "gold")
    );
}

#[test]
fn names_stay_free_and_short() {
    let long = "g".repeat(64);
    let mut older = policy([0, 1, 1, 0], &[]);
    let limits = |rate: u32| {
        let limits = json!({"limits": {"requests": {"rate_per_s": rate, "burst": 9}}});
        serde_json::from_value::<Written>(limits).unwrap()
    };
    let mut newer = older.clone();
    for (name, rate) in [(long.as_str(), 1), ("gold", 1)] {
        older.contracts.insert(name, limits(rate));
        newer.contracts.insert(name, limits(rate + 1));
    }
    let merged = merge(&older, &newer, &CustomerShare::new(1, 0)).unwrap();
    compile(&merged).unwrap();
    assert_eq!(merged.contracts.get("gold.new3"), Some(&limits(2)));
    let cut = format!("{}.new", "g".repeat(60));
    assert_eq!(merged.contracts.get(&cut), Some(&limits(2)));
}

#[test]
fn what_holds_for_all_customers_must_be_the_same() {
    let base = json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 100}},
        "sharing": {},
        "groups": {"team": {"cap_per_s": {"requests": 50}}},
        "contracts": {
            "free": {"limits": {"requests": {"rate_per_s": 1, "burst": 1}}},
            "gold": {"limits": {"requests": {"rate_per_s": 9, "burst": 9}}}
        }
    });
    let share = CustomerShare::new(10, 1);
    let event = json!({"name": "sale", "from_unix_s": 1, "until_unix_s": 2, "factor": 2});
    let changed = |pointer: &str, value: Value| {
        let mut other = base.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        other.pointer_mut(parent).unwrap()[name] = value;
        merge(&document(base.clone()), &document(other), &share).map_err(|error| error.paths)
    };
    for (pointer, value, path) in [
        ("/dry_run", json!(true), "dry_run"),
        ("/unknown", json!({"action": "deny"}), "unknown"),
        (
            "/resources/requests/capacity_per_s",
            json!(200),
            "resources.requests",
        ),
        ("/resources/bytes", json!({}), "resources.bytes"),
        ("/shadow", json!({"quantile": 0.5}), "shadow"),
        ("/sharing/credits", json!(true), "sharing"),
        ("/anomaly", json!({}), "anomaly"),
        ("/events", json!([event]), "events"),
        ("/groups/team/cap_per_s/requests", json!(60), "groups.team"),
        ("/contracts/free/tier", json!(2), "contracts.free"),
    ] {
        assert_eq!(
            changed(pointer, value),
            Err(vec![path.to_owned()]),
            "{pointer}"
        );
    }
    for (pointer, value) in [
        ("/contracts/gold/tier", json!(2)),
        ("/groups/other", json!({"parent": "team"})),
        (
            "/customers",
            json!([{"key": "acme", "contract": "gold", "group": "team"}]),
        ),
    ] {
        changed(pointer, value).unwrap();
    }
    let error = NotForAShare {
        paths: vec!["shadow".to_owned(); 22],
    };
    assert!(
        error
            .to_string()
            .contains(", shadow and 2 more are not the same")
    );
}
