//! Configurations that can never work: refused, with the place and the reason.

use serde_json::{Value, json};

use crate::case::{Case, minimal};

/// A name, where the mistake is put, the mistake, and words of the error.
type Mistake = (&'static str, &'static str, Value, &'static [&'static str]);

pub(super) fn cases() -> Vec<Case> {
    let whole = vec![
        Case::refused("no configuration is refused", "", &["empty"]),
        Case::refused("text that is no JSON is refused", "rules: []", &["line 1"]),
        Case::refused(
            "JSON that ends early is refused",
            "{\"version\": 1",
            &["line 1"],
        ),
    ];
    let mistakes: Vec<Mistake> = vec![
        (
            "an unknown version is refused",
            "/version",
            json!(2),
            &["version", "2"],
        ),
        (
            "an unknown field is refused with its place",
            "/headers",
            json!({ "retry": true }),
            &["headers", "retry"],
        ),
        ("no rule is refused", "/rules", json!([]), &["rules"]),
        (
            "an untrusted key header is refused",
            "/rules/0/key/header/trusted",
            json!(false),
            &["rules[0].key.header.trusted"],
        ),
        (
            "a negative cost is refused",
            "/rules/0/charges/0/cost",
            json!({ "constant": -1 }),
            &["rules[0].charges[0]"],
        ),
        (
            "a charge of an unknown resource is refused",
            "/rules/0/charges/0/resource",
            json!("gold"),
            &["rules[0].charges[0].resource", "requests"],
        ),
        (
            "a rule name with a space is refused",
            "/rules/0/name",
            json!("a b"),
            &["rules[0].name"],
        ),
        (
            "a prefix longer than an address is refused",
            "/rules/0/key",
            json!({ "source_address": { "prefix_len_v4": 33 } }),
            &["prefix_len_v4", "33"],
        ),
        (
            "a denial that is no error is refused",
            "/denial",
            json!({ "status": 200 }),
            &["denial.status"],
        ),
        (
            "a customer with an unknown contract is refused",
            "/policy/customers/0/contract",
            json!("standrad"),
            &["customers[0].contract", "standrad"],
        ),
        (
            "the same customer twice is refused",
            "/policy/customers/1/key",
            json!("a"),
            &["customers[1].key"],
        ),
        (
            "a contract without a limit is refused",
            "/policy/contracts/standard/limits",
            json!({}),
            &["contracts.standard.limits", "requests"],
        ),
        (
            "a rate below zero is refused",
            "/policy/contracts/standard/limits/requests/rate_per_s",
            json!(-1),
            &["rate_per_s"],
        ),
        (
            "an empty bucket that refills is refused",
            "/policy/contracts/standard/limits/requests/burst",
            json!(0),
            &["burst"],
        ),
        (
            "no resource is refused",
            "/policy/resources",
            json!({}),
            &["resources"],
        ),
        (
            "a tier that does not exist is refused",
            "/policy/contracts/standard/tier",
            json!(4),
            &["contracts.standard.tier"],
        ),
        (
            "a guarantee above the rate is refused",
            "/policy/contracts/standard/limits/requests/guarantee_per_s",
            json!(6),
            &["guarantee_per_s"],
        ),
        (
            "a policy of another version is refused",
            "/policy/version",
            json!(9),
            &["policy", "version"],
        ),
    ];
    let mut overcommitted = minimal(5.0, 10.0);
    overcommitted["policy"]["resources"]["requests"] = json!({ "capacity_per_s": 10 });
    overcommitted["policy"]["contracts"]["standard"]["limits"]["requests"]["guarantee_per_s"] =
        json!(5);
    let mut two_sources = minimal(1.0, 1.0);
    two_sources["control_plane"] = json!({});
    let mut no_source = minimal(1.0, 1.0);
    if let Some(fields) = no_source.as_object_mut() {
        fields.remove("policy");
    }
    let sums = vec![
        Case::refused(
            "guarantees above the capacity are refused",
            overcommitted,
            &["capacity", "15"],
        ),
        Case::refused(
            "a policy beside a control plane is refused",
            two_sources,
            &["control_plane"],
        ),
        Case::refused(
            "neither policy nor control plane is refused",
            no_source,
            &["policy", "control_plane"],
        ),
    ];
    let placed = mistakes.into_iter().map(|(name, place, mistake, words)| {
        let mut config = minimal(5.0, 10.0);
        put(&mut config, place, mistake);
        Case::refused(name, config, words)
    });
    whole.into_iter().chain(placed).chain(sums).collect()
}

/// Puts a value at a JSON pointer, making the last field if it is not there.
fn put(config: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let Some(parent) = config.pointer_mut(parent) else {
        return;
    };
    match parent {
        Value::Object(fields) => {
            fields.insert(field.to_owned(), value);
        }
        Value::Array(items) => {
            if let Some(item) = field
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index))
            {
                *item = value;
            }
        }
        _ => {}
    }
}
