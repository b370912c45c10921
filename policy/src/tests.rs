//! What a policy document compiles to, and where each mistake is said to be: one place, because a mistake crosses modules.

use super::*;
use forebay_core::amount::{Micro, Rate};
use forebay_core::policy::{ContractIndex, Unknown};
use forebay_core::resource::ResourceIndex;
use forebay_wire::policy::PolicyDocument;
use proptest::prelude::*;
use serde_json::{Value, json};

fn document() -> Value {
    json!({
        "version": 1,
        "unknown": {"action": "default_contract", "contract": "free"},
        "resources": {"requests": {"capacity_per_s": 1000}, "bytes": {}},
        "contracts": {
            "gold": {"limits": {
                "requests": {"rate_per_s": 500, "burst": 100, "guarantee_per_s": 400, "ceiling_per_s": 800},
                "bytes": {"rate_per_s": 1e6, "burst": 2e6}
            }},
            "free": {"tier": 3, "limits": {
                "requests": {"rate_per_s": 0.5, "burst": 5},
                "bytes": {"rate_per_s": 1000, "burst": 1000}
            }}
        },
        "customers": [
            {"key": "acme", "contract": "gold"},
            {"key": "bolt", "contract": "gold", "exempt": true},
            {"key": "rogue", "contract": "free", "banned": true}
        ]
    })
}

fn compiled(document: Value) -> Result<Compiled, PolicyError> {
    compile(&serde_json::from_value::<PolicyDocument>(document).unwrap())
}

#[test]
fn numbers_resources_and_contracts_by_name_and_keeps_amounts_exact() {
    let compiled = compiled(document()).unwrap();
    let policy = &compiled.policy;
    assert_eq!(
        policy
            .resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect::<Vec<_>>(),
        ["bytes", "requests"]
    );
    assert_eq!(policy.unknown, Unknown::DefaultContract(ContractIndex(0)));
    let requests = ResourceIndex::new(1).unwrap();
    let gold = policy
        .contract(ContractIndex(1))
        .unwrap()
        .limits
        .at(requests);
    assert_eq!(gold.guarantee, Rate::from_tokens_per_s(400));
    assert_eq!(
        gold.borrow_limit,
        Micro::from_tokens(300),
        "one second of ceiling - rate"
    );
    let free = policy
        .contract(ContractIndex(0))
        .unwrap()
        .limits
        .at(requests);
    assert_eq!(free.rate, Rate::new(500_000));
    assert_eq!(compiled.customers[2].ban_until_unix_ms, u64::MAX);
    assert!(compiled.customers[1].exempt);
}

/// (what is replaced, by what, place of the mistake, part of the message)
type Row = (&'static str, Value, &'static str, &'static str);

#[test]
fn a_capacity_that_is_too_large_is_one_mistake_and_no_lack_of_capacity() {
    let mut wrong = document();
    wrong["resources"]["requests"]["capacity_per_s"] = json!(1_000_000_000_001_u64);
    let found = compiled(wrong).unwrap_err().to_string();
    assert_eq!(
        found,
        "resources.requests.capacity_per_s is 1000000000001, allowed is 0 to 1000000000000"
    );
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let limit = "/contracts/gold/limits/requests";
    let rows: Vec<Row> = vec![
        ("/version", json!(2), "version", "write `version: 1`"),
        (
            "/resources",
            json!({}),
            "resources",
            "has 0 entries, allowed are 1 to 4",
        ),
        (
            "/resources/requests/capacity_per_s",
            json!(0),
            "resources.requests.capacity_per_s",
            "above 0",
        ),
        (
            "/resources/requests/capacity_per_s",
            json!(799),
            "resources.requests.capacity_per_s",
            "add up to 800",
        ),
        (
            "/resources/requests/capacity_per_s",
            json!(2e12),
            "resources.requests.capacity_per_s",
            "0 to 1000000000000",
        ),
        (
            "/resources/requests",
            json!({"capacity_per_s": 900, "depth_ms": 0}),
            "resources.requests.depth_ms",
            "1 to 60000",
        ),
        (
            "/resources/bytes",
            json!({"depth_ms": 10}),
            "resources.bytes.depth_ms",
            "no effect without a capacity",
        ),
        (
            "/resources/requests",
            json!({}),
            "contracts.gold.limits.requests.guarantee_per_s",
            "without a capacity",
        ),
        (
            "/contracts/gold/tier",
            json!(4),
            "contracts.gold.tier",
            "allowed is 1 to 3",
        ),
        (
            "/contracts/gold/weight",
            json!(0),
            "contracts.gold.weight",
            "1 to 1000000",
        ),
        (
            "/contracts/gold/limits/bytes",
            Value::Null,
            "contracts.gold.limits",
            "no limit for the resource `bytes`",
        ),
        (
            "/contracts/gold/limits/bites",
            json!({"rate_per_s": 1, "burst": 1}),
            "contracts.gold.limits.bites",
            "bytes, requests",
        ),
        (
            limit,
            json!({"rate_per_s": 1, "burst": 0}),
            "contracts.gold.limits.requests.burst",
            "is 0 while the rate",
        ),
        (
            limit,
            json!({"rate_per_s": 1, "burst": 1, "guarantee_per_s": 2}),
            "contracts.gold.limits.requests.guarantee_per_s",
            "0 to the rate",
        ),
        (
            limit,
            json!({"rate_per_s": 2, "burst": 1, "ceiling_per_s": 1}),
            "contracts.gold.limits.requests.ceiling_per_s",
            "or more",
        ),
        (
            limit,
            json!({"rate_per_s": 2, "burst": 1, "borrow_limit": 1}),
            "contracts.gold.limits.requests.borrow_limit",
            "without a ceiling_per_s",
        ),
        (
            "/unknown",
            json!({"action": "deny", "contract": "free"}),
            "unknown.contract",
            "when the action is deny",
        ),
        (
            "/unknown",
            json!({"action": "commons"}),
            "unknown.contract",
            "is missing",
        ),
        (
            "/unknown",
            json!({"action": "commons", "contract": "gold"}),
            "unknown.contract",
            "unlimited number",
        ),
        (
            "/unknown",
            json!({"action": "default_contract", "contract": "fre"}),
            "unknown.contract",
            "did you mean `free`",
        ),
        (
            "/unknown",
            json!({"action": "commons", "contract": "free", "prefix_len_v4": 33}),
            "unknown.prefix_len_v4",
            "0 to 32",
        ),
        (
            "/unknown",
            json!({"action": "deny", "prefix_len_v6": 64}),
            "unknown.prefix_len_v6",
            "unless the action is commons",
        ),
        (
            "/shadow",
            json!({"quantile": 1.0}),
            "shadow.quantile",
            "0.001 to 0.999",
        ),
        (
            "/shadow",
            json!({"protected_share": 1.1}),
            "shadow.protected_share",
            "0 to 1",
        ),
        (
            "/shadow",
            json!({"span_ms": 0}),
            "shadow.span_ms",
            "1 to 60000",
        ),
        (
            "/shadow",
            json!({"contention": {"windows": 9}}),
            "shadow.contention.windows",
            "1 to 8",
        ),
        (
            "/shadow",
            json!({"contention": {"needed": 6}}),
            "shadow.contention.needed",
            "1 to 5",
        ),
        (
            "/customers/0/key",
            json!(""),
            "customers[0].key",
            "1 to 1024",
        ),
        (
            "/customers/0/key",
            json!("k".repeat(1 << 20)),
            "customers[0].key",
            "1048576 bytes long",
        ),
        (
            "/customers/2/key",
            json!("acme"),
            "customers[2].key",
            "same key as that of customers[0]",
        ),
        (
            "/customers/0/contract",
            json!("glod"),
            "customers[0].contract",
            "did you mean `gold`",
        ),
        (
            "/customers/2/ban_until_unix_s",
            json!(5),
            "customers[2].ban_until_unix_s",
            "beside banned",
        ),
    ];
    for (pointer, value, path, says) in rows {
        let mut changed = document();
        set(&mut changed, pointer, value);
        let error = compiled(changed).unwrap_err();
        assert_eq!(error.path(), path, "{pointer}: {error}");
        assert!(error.to_string().contains(says), "{pointer}: {error}");
        assert!(
            !error.to_string().contains("acme"),
            "a raw key in a message: {error}"
        );
    }
}

#[test]
fn all_mistakes_are_listed_up_to_a_bound() {
    let mut changed = document();
    set(&mut changed, "/version", json!(7));
    let nobody: Vec<Value> = (0..100)
        .map(|n| json!({"key": format!("c{n}"), "contract": "none"}))
        .collect();
    set(&mut changed, "/customers", json!(nobody));
    let error = compiled(changed).unwrap_err();
    assert_eq!((error.mistakes.len(), error.unlisted), (20, 81));
}

/// Sets the value at a JSON pointer; `null` removes it.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).or(None).expect(pointer);
    match (parent, value) {
        (Value::Object(map), Value::Null) => {
            map.remove(field);
        }
        (Value::Object(map), value) => {
            map.insert(field.to_owned(), value);
        }
        (parent, value) => parent[field.parse::<usize>().unwrap()] = value,
    }
}

proptest! {
    /// What the door lets through, the core accepts; and the sum of guarantees never exceeds a capacity.
    #[test]
    fn whatever_compiles_is_sound(
        capacity in 0_u64..2_000,
        rate in 0_u64..2_000,
        burst in 0_u64..2_000,
        guarantee in 0_u64..2_000,
        ceiling in proptest::option::of(0_u64..2_000),
        customers in 0_usize..6,
        tier in 0_u8..5,
        quantile in -0.5_f64..1.5,
    ) {
        let mut limit = json!({"rate_per_s": rate, "burst": burst, "guarantee_per_s": guarantee});
        if let Some(ceiling) = ceiling {
            limit["ceiling_per_s"] = json!(ceiling);
        }
        let listed: Vec<Value> = (0..customers).map(|n| json!({"key": n.to_string(), "contract": "a"})).collect();
        let document = json!({
            "version": 1,
            "resources": {"r": {"capacity_per_s": capacity}},
            "shadow": {"quantile": quantile},
            "contracts": {"a": {"tier": tier, "limits": {"r": limit}}},
            "customers": listed
        });
        if let Ok(compiled) = compiled(document) {
            prop_assert_eq!(compiled.policy.check(), Ok(()));
            prop_assert!(guarantee.saturating_mul(customers as u64) <= capacity);
            prop_assert_eq!(compiled.customers.len(), customers);
            let decoded = forebay_core::policy::Policy::decode(&compiled.policy.encode());
            prop_assert_eq!(decoded, Ok(compiled.policy));
        }
    }
}
