//! Rules of the tree that no other tool knows: what a checkout must not say, and what each file must say.
//!
//! They are a check and not a page in CONTRIBUTING.md because a page is read once and a check at every commit.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{program, read, root};

/// Paths of somebody's machine, private registries, and notes that belong in an issue. Written in two halves so
/// that this file passes its own check.
const BANNED: &[(&str, &str)] = &[
    (concat!("/work", "/"), "a path of one machine"),
    (concat!("/home", "/"), "a path of one machine"),
    (concat!("/root", "/"), "a path of one machine"),
    (concat!("TO", "DO"), "open work belongs in an issue"),
    (concat!("FIX", "ME"), "open work belongs in an issue"),
    (concat!("XX", "X"), "open work belongs in an issue"),
    (
        concat!("index.", "crates.io"),
        "a registry host: the environment decides where packages come from",
    ),
    (
        concat!("pypi", ".org"),
        "a registry host: the environment decides where packages come from",
    ),
    (
        concat!("registry.", "npmjs"),
        "a registry host: the environment decides where packages come from",
    ),
];

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "misc"];

/// Files whose text is not ours to choose.
const FOREIGN: &[&str] = &["Cargo.lock", "LICENSE"];

/// Above this a file holds more than one idea.
const MAX_LINES: usize = 750;

/// The chore `tidy`.
pub(crate) fn run() -> Result<()> {
    let listed =
        read(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut wrong = Vec::new();
    for file in listed.lines() {
        // Listed but deleted, or not text: nothing to read.
        let Ok(text) = fs::read_to_string(root().join(file)) else {
            continue;
        };
        if !FOREIGN.contains(&file) {
            check_words(file, &text, &mut wrong);
        }
        if file.ends_with(".rs") {
            check_source(file, &text, &mut wrong)
                .with_context(|| format!("cannot check {file}"))?;
        }
    }
    if !wrong.is_empty() {
        bail!("the tree is not tidy:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn check_words(file: &str, text: &str, wrong: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for (word, reason) in BANNED {
            if line.contains(word) {
                wrong.push(format!(
                    "{file}:{}: `{word}`: {reason}",
                    number.saturating_add(1)
                ));
            }
        }
    }
}

fn check_source(file: &str, text: &str, wrong: &mut Vec<String>) -> Result<()> {
    let stem = Path::new(file)
        .file_stem()
        .context("a path without a name")?
        .to_string_lossy();
    if EMPTY_NAMES.contains(&stem.as_ref()) {
        wrong.push(format!(
            "{file}: the name says nothing: name the file after what it is for"
        ));
    }
    // The tests of a module say by their name what they are for.
    let is_unit_test = stem == "tests" || stem.ends_with("_tests");
    let opening = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    if !is_unit_test && !opening.is_some_and(|line| line.starts_with("//!")) {
        wrong.push(format!(
            "{file}: no module documentation (//!) that says why the file exists"
        ));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        wrong.push(format!(
            "{file}: {lines} lines: more than {MAX_LINES} hold more than one idea"
        ));
    }
    Ok(())
}
