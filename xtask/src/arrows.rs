//! Which crate may know which: ARCHITECTURE.md draws the arrows, this check refuses any other.
//!
//! A wrong arrow is cheap to add and expensive to remove, and a reviewer sees only one manifest at a time.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cargo, read};

/// (crate, all the crates of this workspace that it may depend on, tests included).
const ALLOWED: &[(&str, &[&str])] = &[
    ("forebay-core", &[]),
    ("forebay-wire", &[]),
    ("forebay-forecast", &[]),
    ("forebay-traces", &[]),
    ("forebay-families", &[]),
    ("forebay-calendar", &["forebay-families"]),
    ("forebay-alerts", &["forebay-forecast"]),
    // Traces only for the example over them, by a feature.
    ("forebay-anomaly", &["forebay-traces"]),
    ("forebay-policy", &["forebay-core", "forebay-wire"]),
    ("forebay-sharing", &["forebay-core"]),
    (
        "forebay-simulator",
        &["forebay-core", "forebay-sharing", "forebay-wire"],
    ),
    (
        "forebay-admission",
        &["forebay-core", "forebay-wire", "forebay-policy"],
    ),
    (
        "forebay-forecaster",
        &[
            "forebay-core",
            "forebay-wire",
            "forebay-policy",
            "forebay-forecast",
        ],
    ),
    (
        "forebay-quota",
        &["forebay-core", "forebay-wire", "forebay-forecaster"],
    ),
    (
        "forebay-control-plane",
        &[
            "forebay-alerts",
            "forebay-anomaly",
            "forebay-core",
            "forebay-families",
            "forebay-wire",
            "forebay-policy",
            "forebay-quota",
            "forebay-sharing",
            "forebay-simulator",
            "forebay-traces",
            "forebay-redis-tests",
        ],
    ),
    (
        "forebay-model-export",
        &[
            "forebay-calendar",
            "forebay-families",
            "forebay-forecast",
            "forebay-traces",
        ],
    ),
    ("forebay-demo", &["forebay-traces", "forebay-wire"]),
    ("forebay-host", &["forebay-wire", "forebay-core"]),
    (
        "forebay-conformance",
        &[
            "forebay-admission",
            "forebay-core",
            "forebay-wire",
            "forebay-host",
            "forebay-envoy-tests",
        ],
    ),
    ("forebay-envoy-tests", &["forebay-wire"]),
    ("forebay-redis-tests", &[]),
    (
        "forebay-bench",
        &[
            "forebay-envoy-tests",
            "forebay-redis-tests",
            "forebay-core",
            "forebay-families",
            "forebay-sharing",
            "forebay-simulator",
            "forebay-traces",
            "forebay-wire",
        ],
    ),
    ("forebay-noop", &[]),
    // Takes the place of the crate of this name: see its manifest.
    ("inventory", &[]),
    ("xtask", &[]),
];

/// (crate, what it must never reach directly, why).
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "forebay-core",
        &["proxy-wasm", "tokio", "serde_json", "wasmtime", "log"],
        "core is pure: no host, no clock, no I/O",
    ),
    (
        "forebay-forecast",
        &["proxy-wasm", "tokio", "wasmtime"],
        "forecast runs in the plugin and in the trainer alike",
    ),
    (
        "forebay-alerts",
        &["proxy-wasm", "tokio", "wasmtime", "log"],
        "what is wrong follows from what was observed: no clock, no I/O",
    ),
    (
        "forebay-anomaly",
        &["proxy-wasm", "tokio", "wasmtime", "log"],
        "what is unusual follows from what was observed: no clock, no I/O",
    ),
    (
        "forebay-wire",
        &["proxy-wasm", "tokio", "wasmtime"],
        "wire holds messages, not transport",
    ),
    (
        "forebay-policy",
        &["proxy-wasm", "tokio", "wasmtime"],
        "policy is compiled by the plugin and the control plane alike",
    ),
    (
        "forebay-sharing",
        &[
            "proxy-wasm",
            "tokio",
            "wasmtime",
            "rand",
            "getrandom",
            "log",
        ],
        "a division follows from its claims: no host, no I/O, no chance",
    ),
];

/// The chore `arrows`.
pub(crate) fn run() -> Result<()> {
    let text = read(cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
        "--offline",
    ]))
    .or_else(|_| read(cargo().args(["metadata", "--format-version", "1", "--no-deps"])))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata printed no JSON")?;
    let mut wrong = Vec::new();
    for package in array(&metadata, "packages") {
        check(package, &mut wrong);
    }
    if !wrong.is_empty() {
        bail!(
            "arrows that ARCHITECTURE.md does not draw:\n  {}",
            wrong.join("\n  ")
        );
    }
    Ok(())
}

fn check(package: &Value, wrong: &mut Vec<String>) {
    let name = text(package, "name");
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
        wrong.push(format!(
            "{name} is not in xtask/src/arrows.rs: say there whom it may know"
        ));
        return;
    };
    for dependency in array(package, "dependencies") {
        let other = text(dependency, "name");
        let ours = dependency.get("path").is_some_and(Value::is_string);
        if ours && !allowed.contains(&other) {
            wrong.push(format!("{name} -> {other}"));
        }
        let ban = FORBIDDEN
            .iter()
            .find(|(banned_in, crates, _)| *banned_in == name && crates.contains(&other));
        // Tests may use what the crate itself must not.
        if let Some((_, _, reason)) = ban
            && text(dependency, "kind") != "dev"
        {
            wrong.push(format!("{name} -> {other}: {reason}"));
        }
    }
}

fn array<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
