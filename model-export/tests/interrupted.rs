//! What becomes of a data set whose making is interrupted.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(120);
/// Steps between two rows are gaps that are written: much work for a small file.
const STEPS: u64 = 2_000_000;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "tenant,timestamp,requests\na,0,1\na,60,2\na,120,3\na,{},4\n",
        60 * STEPS
    );
    fs::write(folder.path().join("long.csv"), text).unwrap();
    let short = "tenant,timestamp,requests\na,0,1\na,60,2\na,120,3\n";
    fs::write(folder.path().join("short.csv"), short).unwrap();
    folder
}

fn prepare(folder: &Path, input: &str, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-train"));
    command
        .args(["prepare", input, "--out", "set"])
        .args(options);
    command.current_dir(folder).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Names of what is unfinished.
fn unfinished(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".set")).collect()
}

/// A run that writes.
fn writing(folder: &Path, options: &[&str]) -> Child {
    let mut child = prepare(folder, "long.csv", options).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    let writes = |name: &String| folder.join(name).join("requests.parquet").exists();
    while !unfinished(folder).iter().any(writes) {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before");
        assert!(Instant::now() < until, "it does not begin to write");
        thread::yield_now();
    }
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_run_that_is_told_to_end_leaves_nothing_and_says_that_a_signal_has_ended_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = folder();
        let mut child = writing(folder.path(), &[]);
        send(&child, signal);
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert!(unfinished(folder.path()).is_empty(), "{signal:?}");
        assert!(!folder.path().join("set").exists());
    }
}

#[test]
fn a_run_whose_parent_has_ended_leaves_nothing() {
    let folder = folder();
    // A global option, which may stand behind the command.
    let mut child = writing(folder.path(), &["--end-with-stdin"]);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(unfinished(folder.path()).is_empty());
}

#[test]
fn what_a_killed_run_has_left_is_swept_by_the_next_and_what_a_live_one_writes_is_not() {
    let folder = folder();
    let mut killed = writing(folder.path(), &[]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = unfinished(folder.path());
    assert_eq!(left.len(), 1, "{left:?}");

    let second = prepare(folder.path(), "short.csv", &[]).output().unwrap();
    assert!(second.status.success());
    let said = String::from_utf8(second.stdout).unwrap();
    assert!(said.contains(&left.concat()), "{said}");
    assert!(unfinished(folder.path()).is_empty());
    fs::remove_dir_all(folder.path().join("set")).unwrap();

    let mut live = writing(folder.path(), &[]);
    let third = prepare(folder.path(), "short.csv", &[]).output().unwrap();
    assert!(third.status.success());
    assert_eq!(unfinished(folder.path()).len(), 1, "it was not dead");
    live.kill().unwrap();
    live.wait().unwrap();
}
