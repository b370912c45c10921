//! `bench-simulate`: our policy beside others in a simulated fleet, ten seeds each.
//!
//! `forebay simulate` does the work and writes all figures; here stand what it is asked for and the bars. With FOREBAY_DATA the
//! demand is a part of the semi-synthetic requests there, and that of the generator is a second report beside it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use forebay_envoy_tests::binary;
use serde_json::{Map, Value};

use crate::report::{Report, folder};

const TRACE: &str = "servegen_semisynth_events.parquet";

/// The first ten minutes of the two hours, which take about four: all of them would take an hour.
const SECONDS: &str = "600";
/// Generated demand has about five times as many requests in a second.
const SECONDS_GENERATED: &str = "120";

/// Runs it and publishes its reports.
pub(crate) fn run() -> Result<()> {
    let data = std::env::var_os("FOREBAY_DATA").filter(|folder| !folder.is_empty());
    if let Some(data) = &data {
        let trace = Path::new(data).join(TRACE);
        ensure!(
            trace.exists(),
            "{} is missing: unset FOREBAY_DATA for generated demand only",
            trace.display()
        );
        println!("the first {SECONDS} s of {TRACE}");
        let demand = [
            "--trace".into(),
            trace.into(),
            "--seconds".into(),
            SECONDS.into(),
        ];
        publish("bench-simulate", &simulate(demand, "bench-simulate")?)?;
    }
    let name = match data {
        Some(_) => "bench-simulate-generated",
        None => "bench-simulate",
    };
    println!("{SECONDS_GENERATED} s of generated demand");
    let demand = [
        "--generate".into(),
        "1".into(),
        "--seconds".into(),
        SECONDS_GENERATED.into(),
    ];
    publish(name, &simulate(demand, name)?)
}

/// Runs `forebay simulate` and returns the figures that it wrote.
fn simulate(demand: [OsString; 4], name: &str) -> Result<Map<String, Value>> {
    let out: PathBuf = folder()?.join(format!("{name}.json"));
    let status = Command::new(binary("forebay")?)
        .arg("simulate")
        .args(demand)
        .args(["--gateways", "10", "--seeds", "10", "--json"])
        .arg(&out)
        .status()
        .context("cannot run forebay")?;
    ensure!(status.success(), "forebay simulate failed");
    let text = fs::read(&out).with_context(|| format!("cannot read {}", out.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Shows the figures that have a bar.
fn publish(name: &str, fields: &Map<String, Value>) -> Result<()> {
    let mut report = Report::default();
    for (field, meaning) in [
        (
            "forebay_over_admitted",
            "requests above the contracts in a run (bar: 0)",
        ),
        (
            "forebay_messages_per_request",
            "both ways (bar: reactive_messages_per_request)",
        ),
        (
            "reactive_messages_per_request",
            "the same protocol, divided by the last demand alone",
        ),
        ("forebay_goodput", "part of the requests that was admitted"),
        (
            "oracle_goodput",
            "what nobody can exceed within the contracts",
        ),
    ] {
        let value = fields.get(field).and_then(Value::as_f64);
        report.add(
            field,
            value.with_context(|| format!("no {field}"))?,
            meaning,
        );
    }
    report.publish(name)
}
