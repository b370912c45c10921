//! The JSON Schema of policies in the docs is the one that this build would write.

#![allow(clippy::unwrap_used, reason = "a failed step must stop the test")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_schema_in_the_docs_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/policy.schema.json");
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["policy", "schema"])
        .output()
        .unwrap();
    let fresh = String::from_utf8(output.stdout).unwrap();
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, fresh,
        "write it anew: forebay policy schema > docs/reference/policy.schema.json"
    );
}

#[test]
fn the_policy_in_the_docs_passes_the_door() {
    let page = include_str!("../../docs/reference/policy.md");
    pass_the_door(page, 1);
}

#[test]
fn the_policies_in_the_guide_on_sharing_pass_the_door() {
    pass_the_door(include_str!("../../docs/guide/sharing.md"), 3);
}

#[test]
fn the_policy_in_the_guide_on_unusual_customers_passes_the_door() {
    pass_the_door(include_str!("../../docs/guide/anomalies.md"), 1);
}

/// The first policies of a page.
fn pass_the_door(page: &str, policies: usize) {
    let examples = page.split("```yaml\n").skip(1).take(policies);
    let examples: Vec<&str> = examples
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), policies);
    for example in examples {
        passes_the_door(example);
    }
}

fn passes_the_door(example: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.yaml");
    std::fs::write(&file, example).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["policy", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
