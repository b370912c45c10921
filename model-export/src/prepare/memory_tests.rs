//! What a JSON file of the largest size takes, by the kernel's word. Each document has a process of its own, since other tests' memory would count.

use std::fs::{self, File};
use std::process::Command;

use super::source::JSON_BYTES_MAX;
use super::tests::{Place, preparation};

/// Names the document to a process that reads nothing else.
const DOCUMENT: &str = "FOREBAY_TEST_DOCUMENT";
const TEST: &str = "json_of_the_largest_size_takes_less_than_a_gibibyte";
const MEMORY_MAX: u64 = 1 << 30;
/// Its samples have more bytes; as a tree they took three times this.
const ANSWER_MEMORY_MAX: u64 = 1 << 28;
/// The document is smaller by that, and so is what it may take: a test has not the time for a whole one.
const SHARE: u64 = 8;

/// Samples of as few bytes as can be.
fn document(kind: &str) -> String {
    let bytes = (JSON_BYTES_MAX / SHARE) as usize;
    match kind {
        "history" => {
            let usage = "0,".repeat(bytes / 2);
            format!(
                r#"{{"key":"a","resource":"r","step_ms":900000,"newest_step":9000000,"usage":[{usage}0]}}"#
            )
        }
        _ => {
            let values: Vec<String> = (0..bytes / 15)
                .map(|step| format!(r#"[{},"4"]"#, 10_000_000 + step * 900))
                .collect();
            format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"customer":"a"}},"values":[{}]}}]}}}}"#,
                values.join(",")
            )
        }
    }
}

/// A figure of this process, in bytes.
fn status(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.unwrap().trim_matches([':', ' ', '\t', 'k', 'B']);
    kib.parse::<u64>().unwrap() * 1_024
}

fn read_alone(kind: &str) {
    let place = Place::new();
    let input = place.out("usage.json");
    fs::write(&input, document(kind)).unwrap();
    // What writing it took is no part of what reading it takes.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    preparation(&[&input], &place.out("set")).read().unwrap();
    let taken = status("VmHWM") - before;
    let whole = taken * SHARE;
    println!("{kind}: {} MiB for the largest file", whole >> 20);
    let most = match kind {
        "history" => MEMORY_MAX,
        _ => ANSWER_MEMORY_MAX,
    };
    assert!(whole < most, "{kind}: {whole} bytes");
}

#[test]
fn json_of_the_largest_size_takes_less_than_a_gibibyte() {
    if let Ok(kind) = std::env::var(DOCUMENT) {
        return read_alone(&kind);
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    for kind in ["history", "answer"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{TEST}"), "--nocapture"])
            .env(DOCUMENT, kind)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{errors}");
        assert!(said.contains("for the largest file"), "{said}");
        println!("{said}");
    }
}

#[test]
fn json_of_more_is_refused_before_it_is_read() {
    let place = Place::new();
    let input = place.out("usage.json");
    let file = File::create(&input).unwrap();
    file.set_len(JSON_BYTES_MAX + 1).unwrap();
    let error = preparation(&[&input], &place.out("set")).prepare();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("bytes of JSON"), "{error}");
}
