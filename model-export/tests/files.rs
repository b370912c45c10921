//! What commands do to files: those that they read stay what they were, and those that they cannot write are said before any work.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step must stop the test"
)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A command that waits for somebody who never comes is found to hang after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command has said, and whether it was content.
struct Said {
    out: String,
    err: String,
    is_success: bool,
}

fn run(folder: &Path, arguments: &[&str]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay-train"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut out = String::new();
        stdout.read_to_string(&mut out).unwrap();
        out
    });
    let until = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > until => {
                child.kill().unwrap();
                panic!("{arguments:?} hangs");
            }
            None => thread::yield_now(),
        }
    };
    let mut err = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut err).unwrap();
    Said {
        out: reader.join().unwrap(),
        err,
        is_success: status.success(),
    }
}

/// What a command says that is refused before it has done anything.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let said = run(folder, arguments);
    assert!(!said.is_success, "{arguments:?} is not refused");
    assert_eq!(
        said.out, "",
        "{arguments:?} has begun before it was refused"
    );
    said.err
}

/// Ten days of hours, settings, a calendar, and the committed model for gateways.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |hour: u64| format!("a,{},{}\n", 1_700_000_000 + 3_600 * hour, 5 + hour % 24);
    let rows: String = (0..240).map(row).collect();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("trace.csv", &format!("tenant,timestamp,requests\n{rows}"));
    write(
        "sales.events.csv",
        "kind,starts,duration_s\nsale,1700003600,60\n",
    );
    write(
        "settings.toml",
        "[trace]\nhorizons = [1]\norigins = 2\n[trace.events]\nfile = \"sales.events.csv\"\n",
    );
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    for name in ["edge.onnx", "edge.card.json"] {
        fs::copy(models.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().is_file());
    let mut all: Vec<_> = files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
}

#[test]
fn no_command_writes_over_what_it_reads_by_whatever_name() {
    let folder = folder();
    let place = folder.path();
    fs::create_dir(place.join("sub")).unwrap();
    symlink("trace.csv", place.join("link")).unwrap();
    symlink(".", place.join("here")).unwrap();
    fs::hard_link(place.join("trace.csv"), place.join("other")).unwrap();
    let prepared = run(place, &["prepare", "trace.csv", "--out", "set"]);
    assert!(prepared.is_success, "{}", prepared.err);
    fs::copy(
        place.join("set/requests.parquet"),
        place.join("servegen_10m.parquet"),
    )
    .unwrap();
    let (before, set) = (contents(place), contents(&place.join("set")));
    let evaluate = ["evaluate", ".", "--settings", "settings.toml"];
    for output in ["--json", "--report"] {
        for name in [
            "trace.csv",
            "./trace.csv",
            "sub/../trace.csv",
            "here/trace.csv",
            "link",
            "other",
            "settings.toml",
            "sales.events.csv",
        ] {
            let said = refusal(place, &[&evaluate[..], &[output, name]].concat());
            assert!(said.contains(name) && said.contains("is read"), "{said}");
        }
    }
    for arguments in [
        &["evaluate", "trace.csv", "--json", "other"][..],
        &["evaluate", "set", "--json", "set/manifest.json"],
        &[
            "evaluate",
            "set/requests.parquet",
            "--json",
            "set/manifest.json",
        ],
        &["train", "--set", "set", "--out", "set/requests.parquet"],
        &["train", "--data", ".", "--out", "servegen_10m.parquet"],
        &["export", "edge.onnx", "--out", "here/edge.onnx"],
        &[
            "replay",
            "--data",
            ".",
            "--models",
            ".",
            "--out",
            "edge.onnx",
        ],
        &[
            "replay",
            "--data",
            ".",
            "--models",
            ".",
            "--out",
            "edge.card.json",
        ],
    ] {
        let said = refusal(place, arguments);
        assert!(said.contains("is read"), "{arguments:?}: {said}");
    }
    assert_eq!(before, contents(place));
    assert_eq!(set, contents(&place.join("set")));
}

#[test]
fn two_outputs_are_two_files() {
    let folder = folder();
    fs::write(folder.path().join("old"), "").unwrap();
    symlink("old", folder.path().join("link")).unwrap();
    symlink(".", folder.path().join("here")).unwrap();
    for (json, page) in [
        ("new", "new"),
        ("new", "./new"),
        ("new", "here/new"),
        ("new/a", "here/new/a"),
        ("old", "link"),
    ] {
        let arguments = ["evaluate", "trace.csv", "--json", json, "--report", page];
        let said = refusal(folder.path(), &arguments);
        assert!(said.contains("the same file"), "{said}");
    }
}

#[test]
fn what_cannot_be_written_is_said_with_its_reason_before_any_work() {
    let folder = folder();
    fs::create_dir(folder.path().join("sub")).unwrap();
    symlink("nowhere", folder.path().join("broken")).unwrap();
    fifo(&folder.path().join("pipe"));
    let before = contents(folder.path());
    let mut places = vec![
        ("sub", "it is a folder"),
        ("trace.csv/report", "Not a directory"),
        ("broken", "a file that is not there"),
        ("new/", "no name of a file"),
        ("new/../report", "leads through a folder that is not there"),
        // Nobody reads from it.
        ("pipe", "No such device"),
    ];
    if cfg!(target_os = "linux") {
        places.push(("/dev/full", "No space left"));
        places.push(("/proc/report", "No such file"));
        places.push(("/proc/sub/report", "No such file"));
    }
    for (place, reason) in places {
        for arguments in [
            &["evaluate", "trace.csv", "--json", place][..],
            &["evaluate", "trace.csv", "--report", place],
            &["replay", "--data", ".", "--models", ".", "--out", place],
            &["export", "edge.onnx", "--out", place],
            &["train", "--generate", "1", "--out", place],
        ] {
            let said = refusal(folder.path(), arguments);
            let is_clear = said.contains(place) && said.contains(reason);
            assert!(is_clear, "{arguments:?}: {said}");
        }
    }
    for (place, reason) in [
        ("trace.csv/set", "Not a directory"),
        ("/proc/set", "No such file"),
    ] {
        // Found out before the input is, which is no usage.
        let said = refusal(folder.path(), &["prepare", "settings.toml", "--out", place]);
        assert!(said.contains(place) && said.contains(reason), "{said}");
    }
    assert_eq!(before, contents(folder.path()));
}

#[test]
fn a_report_takes_the_place_of_the_one_before_and_is_what_that_was() {
    let folder = folder();
    let place = folder.path();
    let old = place.join("old.json");
    fs::write(&old, "before").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("old.json", place.join("link.json")).unwrap();
    let evaluate = ["evaluate", "trace.csv", "--settings", "settings.toml"];
    let json = |name: &'static str| [&evaluate[..], &["--json", name]].concat();
    for name in ["link.json", "deep/er/new.json"] {
        let said = run(place, &json(name));
        assert!(said.is_success, "{}", said.err);
    }
    assert!(place.join("link.json").is_symlink());
    assert_eq!(old.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    let new = fs::read_to_string(place.join("deep/er/new.json")).unwrap();
    assert!(new.contains("ratio_best_simple"), "{new}");
    assert_eq!(fs::read_to_string(&old).unwrap(), new);
    if cfg!(target_os = "linux") {
        let said = run(place, &json("/dev/stdout"));
        assert!(said.is_success && said.out.ends_with(&new), "{}", said.err);
    }
    let hidden = fs::read_dir(place)
        .unwrap()
        .map(|one| one.unwrap().file_name());
    assert!(
        !hidden
            .into_iter()
            .any(|name| name.to_string_lossy().starts_with('.'))
    );
}

#[test]
fn what_is_no_file_among_traces_is_an_error_and_nobody_waits_for_a_pipe() {
    for ending in ["csv", "parquet"] {
        let name = format!("odd.{ending}");
        let makers: [&dyn Fn(&Path); 3] = [
            &fifo,
            &|path| drop(UnixListener::bind(path).unwrap()),
            &|path| symlink("nowhere", path).unwrap(),
        ];
        for make in makers {
            let folder = folder();
            make(&folder.path().join(&name));
            let said = refusal(folder.path(), &["evaluate", "."]);
            assert!(said.contains(&name) && said.contains("it is "), "{said}");
        }
    }
    let folder = folder();
    for name in ["pipe.csv", "pipe.toml", "pipe.onnx", "servegen_10m.parquet"] {
        fifo(&folder.path().join(name));
    }
    for arguments in [
        &["evaluate", "pipe.csv"][..],
        &["evaluate", "trace.csv", "--settings", "pipe.toml"],
        &["prepare", "pipe.csv", "--out", "set"],
        &["prepare", "pipe.toml", "--out", "set"],
        &["train", "--data", ".", "--out", "new.onnx"],
        &["card", "pipe.onnx"],
        &["export", "pipe.onnx", "--out", "new.onnx"],
    ] {
        let said = refusal(folder.path(), arguments);
        assert!(said.contains("a pipe"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_folder_that_is_named_as_a_trace_is_skipped_and_named() {
    let folder = folder();
    fs::create_dir(folder.path().join("many.parquet")).unwrap();
    let said = run(
        folder.path(),
        &["evaluate", ".", "--settings", "settings.toml"],
    );
    assert!(said.is_success, "{}", said.err);
    assert!(
        said.out.contains("many: not scored, it is a folder"),
        "{}",
        said.out
    );
}

#[test]
fn settings_of_another_shape_are_refused_with_what_they_should_be() {
    let folder = folder();
    for (text, says) in [
        ("value = \"requests\"\n", "such as [checkout_5m]"),
        ("[[trace]]\nvalue = \"requests\"\n", "such as [checkout_5m]"),
        (
            "[trace]\nevents = \"sales.events.csv\"\n",
            "such as [checkout_5m.events]",
        ),
        (
            "[events]\nfile = \"sales.events.csv\"\n",
            "unknown field `file`",
        ),
    ] {
        fs::write(folder.path().join("settings.toml"), text).unwrap();
        let arguments = ["evaluate", "trace.csv", "--settings", "settings.toml"];
        let said = refusal(folder.path(), &arguments);
        assert!(
            said.contains("settings.toml") && said.contains(says),
            "{said}"
        );
    }
}
