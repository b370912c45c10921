//! What becomes of a command when nobody takes what it says.

#![allow(clippy::unwrap_used, reason = "a failed step must stop the test")]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What shells say of a program that a broken pipe has ended.
const BROKEN_PIPE: i32 = 141;

/// Ten days of hours.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |hour: u64| format!("a,{},{}\n", 1_700_000_000 + 3_600 * hour, 5 + hour % 24);
    let rows: String = (0..240).map(row).collect();
    let text = format!("tenant,timestamp,requests\n{rows}");
    fs::write(folder.path().join("trace.csv"), text).unwrap();
    folder
}

fn run(folder: &Path, arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-train"));
    command.args(arguments).current_dir(folder).env_clear();
    command.stdout(stdout).output().unwrap()
}

const PREPARE: [&str; 4] = ["prepare", "trace.csv", "--out", "set"];
const EVALUATE: [&str; 2] = ["evaluate", "trace.csv"];

#[test]
fn a_command_whose_reader_has_gone_ends_without_a_word() {
    for arguments in [PREPARE.as_slice(), EVALUATE.as_slice()] {
        let folder = folder();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = run(folder.path(), arguments, writer);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(BROKEN_PIPE), "{arguments:?}");
        // A data set is written before anything is said of it.
        let set = folder.path().join("set/manifest.json");
        assert_eq!(set.exists(), arguments == PREPARE);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_command_that_cannot_say_what_it_has_found_says_why() {
    for arguments in [PREPARE.as_slice(), EVALUATE.as_slice()] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = run(folder().path(), arguments, full);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cannot write to standard output"), "{said}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}
