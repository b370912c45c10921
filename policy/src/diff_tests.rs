//! What is a difference and what is none, field by field.

use super::*;
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

fn read(document: &Value) -> PolicyDocument {
    serde_json::from_value(document.clone()).unwrap()
}

/// The text of the difference that an edit makes.
fn edited(edit: impl FnOnce(&mut Value)) -> String {
    let mut after = document();
    edit(&mut after);
    diff(&read(&document()), &read(&after)).to_string()
}

fn set(pointer: &'static str, value: Value) -> impl Fn(&mut Value) {
    move |document| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = document.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value.clone(),
            parent => parent[name] = value.clone(),
        }
    }
}

#[test]
fn each_field_that_changes_is_named_with_its_values() {
    let free = "/contracts/free/limits/requests";
    let gold = "/contracts/gold/limits/requests";
    let cases = [
        ("/dry_run", json!(true), "policy: dry_run false -> true\n"),
        (
            "/unknown",
            json!({"action": "commons", "contract": "free"}),
            "policy: unknown.action default_contract -> commons\n\
             policy: unknown.prefix_len_v4 none -> 24\n\
             policy: unknown.prefix_len_v6 none -> 56\n",
        ),
        (
            "/resources/requests",
            json!({"capacity_per_s": 1000.5, "depth_ms": 500}),
            "policy: resources.requests.capacity_per_s 1000 -> 1000.5\n\
             policy: resources.requests.depth_ms 1000 -> 500\n",
        ),
        (
            "/resources/bytes/capacity_per_s",
            json!(1e9),
            "policy: resources.bytes.capacity_per_s no pool -> 1000000000\n\
             policy: resources.bytes.depth_ms none -> 1000\n",
        ),
        (
            "/shadow",
            json!({"quantile": 0.5, "contention": {"needed": 3}}),
            "policy: shadow.contention.needed 4 -> 3\npolicy: shadow.quantile 0.9 -> 0.5\n",
        ),
        (
            "/contracts/free/tier",
            json!(2),
            "contract free (1 customers): tier 3 -> 2\n",
        ),
        (
            "/contracts/gold/priority",
            json!(2),
            "contract gold (2 customers): priority 0 -> 2\n",
        ),
        (
            "/contracts/gold/weight",
            json!(2),
            "contract gold (2 customers): weight 1 -> 2\n",
        ),
        (
            free,
            json!({"rate_per_s": 0.25, "burst": 5, "debt_limit": 1}),
            "contract free (1 customers): requests.debt_limit 0 -> 1, requests.rate_per_s 0.5 -> 0.25\n",
        ),
        (
            free,
            json!({"rate_per_s": 0.5, "burst": 6, "ceiling_per_s": 2}),
            "contract free (1 customers): requests.borrow_limit none -> 1.5, requests.burst 5 -> 6, \
             requests.ceiling_per_s none -> 2\n",
        ),
        (
            gold,
            json!({"rate_per_s": 500, "burst": 100, "ceiling_per_s": 800}),
            "contract gold (2 customers): requests.guarantee_per_s 400 -> 0\n",
        ),
        (
            "/customers/0/frozen",
            json!(true),
            "customer acme: frozen none -> true\n",
        ),
        (
            "/customers/1/exempt",
            json!(false),
            "customer bolt: exempt true -> none\n",
        ),
        (
            "/customers/2",
            json!({"key": "rogue", "contract": "free", "ban_until_unix_s": 5}),
            "customer rogue: banned without an end -> until 5\n",
        ),
        (
            "/customers/2/key",
            json!("rover"),
            "customer rogue: removed\n\
             customer rover: added, banned none -> without an end, contract none -> free\n",
        ),
    ];
    for (pointer, value, expected) in cases {
        assert_eq!(edited(set(pointer, value)), expected, "{pointer}");
    }
}

#[test]
fn what_takes_effect_alike_is_the_same() {
    let gold = "/contracts/gold/limits/requests";
    let free = "/contracts/free/limits/requests";
    for (pointer, value) in [
        ("/dry_run", json!(false)),
        ("/shadow", json!({"quantile": 0.9, "contention": {}})),
        ("/resources/requests/depth_ms", json!(1000)),
        (
            gold,
            json!({"rate_per_s": 500.0, "burst": 100, "guarantee_per_s": 400, "ceiling_per_s": 800, "borrow_limit": 300}),
        ),
        (
            free,
            json!({"rate_per_s": 0.5, "burst": 5, "ceiling_per_s": 0.5, "debt_limit": 0}),
        ),
        ("/customers/0/banned", json!(false)),
        ("/customers/0/ban_until_unix_s", json!(0)),
    ] {
        assert_eq!(edited(set(pointer, value)), "", "{pointer}");
    }
    let reordered = edited(|document| {
        document["customers"].as_array_mut().unwrap().reverse();
    });
    assert_eq!(reordered, "");
    let same = diff(&read(&document()), &read(&document()));
    assert!(same.is_empty());
}

#[test]
fn a_customer_that_moves_shows_its_limits_before_and_after() {
    let mut moved = document();
    moved["customers"][0]["contract"] = json!("free");
    let difference = diff(&read(&document()), &read(&moved));
    assert_eq!(difference.contracts, []);
    let [acme] = difference.customers.as_slice() else {
        panic!("{difference}");
    };
    assert_eq!(
        (acme.name.as_str(), acme.kind),
        ("acme", DifferenceKind::Changed)
    );
    let change = |field: &str| {
        let change = acme.changes.iter().find(|change| change.field == field);
        change.map(|change| (change.before.as_deref(), change.after.as_deref()))
    };
    assert_eq!(change("contract"), Some((Some("gold"), Some("free"))));
    assert_eq!(
        change("requests.rate_per_s"),
        Some((Some("500"), Some("0.5")))
    );
    assert_eq!(change("requests.ceiling_per_s"), Some((Some("800"), None)));
    assert_eq!(change("tier"), Some((Some("1"), Some("3"))));
    assert_eq!(change("weight"), None, "it is the same in both");
}

#[test]
fn contracts_that_come_and_go_say_so_with_their_limits() {
    let renamed = edited(|document| {
        let gold = document["contracts"]
            .as_object_mut()
            .unwrap()
            .remove("gold")
            .unwrap();
        document["contracts"]["silver"] = gold;
        document["customers"].as_array_mut().unwrap().truncate(2);
        for customer in document["customers"].as_array_mut().unwrap() {
            customer["contract"] = json!("silver");
        }
    });
    let lines: Vec<&str> = renamed.lines().collect();
    assert_eq!(lines[0], "contract gold (0 customers): removed");
    assert!(
        lines[1].starts_with("contract silver (2 customers): added, bytes.burst none -> 2000000, "),
        "{renamed}"
    );
    assert_eq!(
        &lines[2..],
        [
            "customer acme: contract gold -> silver",
            "customer bolt: contract gold -> silver",
            "customer rogue: removed",
        ]
    );
}

#[test]
fn the_way_back_is_the_same_with_before_and_after_exchanged() {
    let mut other = document();
    other["dry_run"] = json!(true);
    other["contracts"]["gold"]["tier"] = json!(2);
    other["customers"][0]["contract"] = json!("free");
    other["customers"][2]["key"] = json!("rover");
    let there = diff(&read(&document()), &read(&other));
    let mut back = diff(&read(&other), &read(&document()));
    let exchange = |changes: &mut Vec<Change>| {
        for change in changes {
            std::mem::swap(&mut change.before, &mut change.after);
        }
    };
    exchange(&mut back.settings);
    for difference in back.contracts.iter_mut().chain(&mut back.customers) {
        exchange(&mut difference.changes);
        difference.kind = match difference.kind {
            DifferenceKind::Added => DifferenceKind::Removed,
            DifferenceKind::Removed => DifferenceKind::Added,
            DifferenceKind::Changed => DifferenceKind::Changed,
        };
        difference.customers = None;
    }
    let mut there = there;
    for difference in &mut there.contracts {
        difference.customers = None;
    }
    assert_eq!(there, back);
}

#[test]
fn a_long_list_ends_with_how_many_more_there_are() {
    let mut many = document();
    let customers = many["customers"].as_array_mut().unwrap();
    customers.extend(
        (0..MAX_LISTED + 7)
            .map(|number| json!({"key": format!("{number:09}"), "contract": "free"})),
    );
    let difference = diff(&read(&document()), &read(&many));
    assert_eq!(
        (difference.customers.len(), difference.customers_unlisted),
        (MAX_LISTED, 7)
    );
    assert!(difference.to_string().ends_with("\n7 more customers\n"));
}

#[test]
fn sharing_groups_and_lending_are_named() {
    let mut after = document();
    after["sharing"] = json!({"reserve_share": 0.1, "spillover": {"protect": "spiker"}});
    after["groups"] = json!({"emea": {"cap_per_s": {"requests": 400}}});
    after["customers"][0]["group"] = json!("emea");
    let text = diff(&read(&document()), &read(&after)).to_string();
    for expected in [
        "policy: sharing.reserve_share none -> 0.1",
        "policy: sharing.spillover.ttl_ms none -> 900000",
        "policy: sharing.spillover.protect none -> spiker",
        "policy: groups.emea.cap_per_s.requests none -> 400",
        "group none -> emea",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}
