//! `forebay simulate --policy NEW --against OLD`: recorded usage against two policies.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A policy with two resources, of which none is what a trace counts.
const TWO_RESOURCES: &str = "version: 1
resources: {a: {}, b: {}}
contracts:
  gold: {limits: {a: {rate_per_s: 1, burst: 1}, b: {rate_per_s: 1, burst: 1}}}
customers:
  - {key: acme, contract: gold}
";

fn forebay(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .output()
        .unwrap();
    let text = match output.status.success() {
        true => output.stdout,
        false => output.stderr,
    };
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn refused(arguments: &[&str], says: &[&str]) {
    let (success, text) = forebay(arguments);
    assert!(!success, "{arguments:?}: {text}");
    for part in says {
        assert!(
            text.contains(part),
            "{arguments:?} does not say {part:?}: {text}"
        );
    }
}

/// Three customers who ask for 60 requests per second each, for half an hour, and one that asks for nothing; a pool of 100.
fn shortage(folder: &Path, guarantees: &[(&str, u32)]) -> (String, impl Fn(&str, u32) -> String) {
    let mut rows = String::from("tenant,timestamp_utc,requests\n");
    for minute in 0..30 {
        for tenant in ["acme", "bolt", "cord"] {
            rows += &format!("{tenant},2026-03-01T10:{minute:02}:00Z,3600\n");
        }
    }
    let trace = folder.join("usage.csv");
    std::fs::write(&trace, rows).unwrap();
    let guarantees: Vec<(String, u32)> = guarantees
        .iter()
        .map(|(key, guarantee)| ((*key).to_owned(), *guarantee))
        .collect();
    let folder = folder.to_owned();
    let policy = move |name: &str, of_acme: u32| {
        let mut text = String::from(
            "version: 1\nsharing: {interval_ms: 60000}\nresources: {requests: {capacity_per_s: 100}}\ncontracts:\n",
        );
        let of = |(key, guarantee): &(String, u32)| match key.as_str() {
            "acme" => of_acme,
            _ => *guarantee,
        };
        for one in &guarantees {
            let guarantee = of(one);
            text += &format!(
                "  {}: {{tier: 2, limits: {{requests: {{rate_per_s: 80, burst: 160, guarantee_per_s: {guarantee}}}}}}}\n",
                one.0
            );
        }
        text += "customers:\n";
        for (key, _) in &guarantees {
            text += &format!("  - {{key: {key}, contract: {key}}}\n");
        }
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    (trace.to_str().unwrap().to_owned(), policy)
}

#[test]
fn what_a_policy_would_have_done_to_recorded_usage_is_said_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, policy) = shortage(folder.path(), &[("acme", 0), ("bolt", 10), ("idle", 20)]);
    let (old, new) = (policy("old.yaml", 10), policy("new.yaml", 55));
    let json = folder.path().join("report.json");
    let compare = |newer: &str, seed: &str| {
        let arguments = [
            "simulate",
            "--trace",
            &trace,
            "--policy",
            newer,
            "--against",
            &old,
            "--seed",
            seed,
            "--json",
            json.to_str().unwrap(),
        ];
        let (success, text) = forebay(&arguments);
        assert!(success, "{text}");
        (text, std::fs::read_to_string(&json).unwrap())
    };
    let (text, report) = compare(&new, "3");
    assert_eq!((text.clone(), report.clone()), compare(&new, "3"));
    assert_ne!(report, compare(&new, "4").1);
    let report: Value = serde_json::from_str(&report).unwrap();
    let of = |key: &str| {
        let customers = report["customers"].as_array().unwrap().iter();
        let mut customers = customers.filter(|customer| customer["customer"] == key);
        customers.next().unwrap().clone()
    };
    let change = |key: &str| {
        let admitted = |side: &str| of(key)[side]["admitted"].as_f64().unwrap();
        admitted("new") - admitted("old")
    };
    assert!((report["asked"].as_f64().unwrap() - 2.0 * 108_000.0 - 108_000.0).abs() < 1.0);
    assert!(change("acme") > 10_000.0, "{text}");
    assert!(change("bolt") < -5_000.0, "{text}");
    assert_eq!(of("cord")["new"]["refused"], of("cord")["asked"], "{text}");
    assert!(text.contains("more is admitted to: acme +"), "{text}");
    assert!(text.contains("less is admitted to: bolt -"), "{text}");
    // Who never asks lends what it is guaranteed.
    let lent = of("idle")["old"]["lent_token_seconds"].as_f64().unwrap();
    assert!(lent > 20.0 * 1_200.0, "{lent}");
    let loans = report["old"]["loans"].as_array().unwrap();
    assert!(
        loans.iter().any(|loan| loan["lender"] == "idle"),
        "{loans:?}"
    );
    assert!(text.contains("lender"), "{text}");

    let (text, report) = compare(&old, "3");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["new"]["total"], report["old"]["total"]);
    assert!(
        text.contains("nothing changes") && !text.contains("->"),
        "{text}"
    );
}

#[test]
fn a_comparison_of_policies_that_makes_no_sense_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, policy) = shortage(folder.path(), &[("acme", 0), ("bolt", 10)]);
    let (old, new) = (policy("old.yaml", 10), policy("new.yaml", 200));
    let refuse = |arguments: &[&str], says: &[&str]| {
        let all = [&["simulate", "--trace", &trace], arguments].concat();
        refused(&all, says);
    };
    refuse(
        &["--policy", &new, "--against", &old],
        &[
            "new.yaml",
            "guarantee_per_s",
            "contracts.acme.limits.requests",
        ],
    );
    refuse(&["--policy", &old, "--against", &new], &["new.yaml"]);
    refuse(&["--against", &old], &["--policy"]);
    refuse(
        &["--policy", &old, &old, "--against", &old],
        &["give one file"],
    );
    refuse(&["--policy", &old], &["there is no policy", "--against"]);
    refuse(
        &["--policy", &old, "--against", &old, "--gateways", "3"],
        &["--gateways", "--against"],
    );
    refuse(
        &["--policy", "/nowhere/new.yaml", "--against", &old],
        &["/nowhere/new.yaml"],
    );
    let two = folder.path().join("two.yaml");
    std::fs::write(&two, TWO_RESOURCES).unwrap();
    refuse(
        &["--policy", two.to_str().unwrap(), "--against", &old],
        &["two.yaml", "`requests`"],
    );
    let long = folder.path().join("long.csv");
    std::fs::write(
        &long,
        "tenant,timestamp_utc\na,2026-01-01T00:00:00Z\na,2026-06-01T00:00:00Z\n",
    )
    .unwrap();
    let arguments = [
        "simulate",
        "--trace",
        long.to_str().unwrap(),
        "--policy",
        &old,
        "--against",
        &old,
    ];
    refused(&arguments, &["seconds", "--seconds"]);
}
