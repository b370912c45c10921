//! The contract between the control plane and the trainer: its arguments, the lines that say how far it is, and the card with its trial.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

use forebay_traces::ReadOptions;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const STEPS_OF_A_DAY: usize = 144;
const DAYS: usize = 8;

/// A step in which customer 0 launches something and asks for far more than ever.
const LAUNCH: usize = 5 * STEPS_OF_A_DAY;
const LAUNCHED: f64 = 50_000.0;

/// Usage as the control plane hands it out: a wave of a day, by ten minutes, and some noise.
fn usage(customer: usize) -> Value {
    let value = |step: usize| {
        if (customer, step) == (0, LAUNCH) {
            return LAUNCHED;
        }
        let angle = step as f64 / STEPS_OF_A_DAY as f64 * std::f64::consts::TAU;
        let noise = (step * 7_919 + customer * 104_729) % 101;
        (customer + 1) as f64 * (50.0 + 40.0 * angle.sin() + noise as f64 / 10.0)
    };
    let usage: Vec<f64> = (0..DAYS * STEPS_OF_A_DAY).map(value).collect();
    json!({
        "key": format!("hash:{customer:032x}"), "resource": "requests", "step_ms": 600_000, "newest_step": 3_000_000, "usage": usage,
    })
}

fn trainer(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-train"));
    command.args(arguments).current_dir(folder).env_clear();
    command
}

fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text: Vec<String> = (0..4).map(|customer| usage(customer).to_string()).collect();
    fs::write(folder.path().join("usage-0.json"), text.join("\n")).unwrap();
    let done = trainer(folder.path(), &["prepare", "usage-0.json", "--out", "set"]);
    says_nothing_wrong(&{ done }.output().unwrap());
    folder
}

fn says_nothing_wrong(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

const TRAIN: [&str; 10] = [
    "train",
    "--set",
    "set",
    "--resource",
    "requests",
    "--out",
    "trained.onnx",
    "--json-progress",
    "--epochs",
    "1",
];

#[test]
fn a_prepared_set_becomes_a_model_with_a_trial_on_time_that_it_has_not_seen() {
    let folder = prepared();
    let output = trainer(folder.path(), &TRAIN).output().unwrap();
    says_nothing_wrong(&output);
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["done"], last["of"], "{last}");
    assert!(lines.len() > 10, "{lines:?}");
    let card = fs::read_to_string(folder.path().join("trained.card.json")).unwrap();
    let card: Value = serde_json::from_str(&card).unwrap();
    let manifest = fs::read_to_string(folder.path().join("set/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(card["data_sha256"], manifest["digest"]);
    let folds = card["trial"]["folds"].as_array().unwrap();
    assert_eq!(folds.len(), 2, "{card:#}");
    assert_eq!(
        folds[0]["start"], card["training_end"],
        "the trial begins where training ends"
    );
    assert_eq!(folds[0]["end"], folds[1]["start"], "disjoint");
    assert!(
        folds
            .iter()
            .all(|fold| fold["wql_without"].as_f64() > Some(0.0))
    );
    let better =
        |fold: &Value| fold["wql"].as_f64() <= fold["wql_without"].as_f64().map(|wql| 0.98 * wql);
    assert_eq!(
        card["trial"]["wins"],
        json!(folds.iter().all(better)),
        "{card:#}"
    );
}

/// The trial scores what was recorded, and what is learned from is clipped: the other way round, a model would be praised for the launches
/// that it has missed.
#[test]
fn the_set_has_what_was_recorded_beside_what_is_learned_from_and_each_under_its_name() {
    let folder = prepared();
    let file = folder.path().join("set/requests.parquet");
    let of_the_launch = |column: &str| {
        let series = forebay_traces::read(&file, &ReadOptions::value(column)).unwrap();
        let launches = series.iter().find(|one| one.tenant.ends_with("00000000"));
        launches.unwrap().values[LAUNCH]
    };
    assert_eq!(of_the_launch("recorded"), LAUNCHED);
    let clipped = of_the_launch("amount");
    assert!((100.0..2_000.0).contains(&clipped), "{clipped}");
}

/// As `control-plane/src/training/covariate_files.rs` writes them.
#[test]
fn covariates_of_the_control_plane_are_columns_of_the_set_and_hinder_no_training() {
    let folder = tempfile::tempdir().unwrap();
    let text: Vec<String> = (0..4).map(|customer| usage(customer).to_string()).collect();
    fs::write(folder.path().join("usage-0.json"), text.join("\n")).unwrap();
    let latency = json!({
        "key": format!("hash:{:032x}", 2), "resource": "latency_s", "step_ms": 600_000, "newest_step": 2_999_999, "usage": [0.25, null, 0.5],
    });
    fs::write(
        folder.path().join("covariate-latency_s.json"),
        format!("{latency}\n"),
    )
    .unwrap();
    let sources = "[[usage]]\nkind = \"file\"\npath = \"usage-0.json\"\n[[covariates]]\nname = \"latency_s\"\nkind = \"file\"\npath = \"covariate-latency_s.json\"\n";
    let description = folder.path().join("sources.toml");
    fs::write(&description, sources).unwrap();
    let arguments = ["prepare", description.to_str().unwrap(), "--out", "set"];
    says_nothing_wrong(&trainer(folder.path(), &arguments).output().unwrap());
    let manifest = fs::read_to_string(folder.path().join("set/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let gaps = 4 * DAYS * STEPS_OF_A_DAY - 2;
    assert_eq!(
        manifest["resources"]["requests"]["covariates"],
        json!({"latency_s": {"customers": 1, "gaps": gaps, "negatives": 0}})
    );
    says_nothing_wrong(&trainer(folder.path(), &TRAIN).output().unwrap());
}

#[test]
fn a_trainer_that_nobody_listens_to_ends() {
    let folder = prepared();
    let mut child = trainer(folder.path(), &TRAIN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("standard output"), "{said}");
    assert!(!folder.path().join("trained.onnx").exists());
}

#[test]
fn what_cannot_be_learned_from_is_refused_with_its_reason() {
    let folder = prepared();
    let refused = |arguments: &[&str]| {
        let output = trainer(folder.path(), arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["train", "--set", "nowhere"]);
    assert!(said.contains("no prepared data set"), "{said}");
    let said = refused(&["train", "--set", "set", "--resource", "bytes"]);
    assert!(said.contains("--resource: requests"), "{said}");
    let said = refused(&["train", "--set", "set", "--generate", "1"]);
    assert!(said.contains("--generate"), "{said}");
}

#[test]
fn whose_server_is_gone_ends() {
    let folder = prepared();
    // More than anybody waits for, so that its end is not that of its work.
    let arguments = [&TRAIN[..TRAIN.len() - 1], &["100000", "--end-with-stdin"]].concat();
    let mut child = trainer(folder.path(), &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("standard input has ended"), "{said}");
}
