//! A server that is asked: a real Prometheus, and one that plays whatever a real one says on a bad day.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prost::Message;

use super::Manifest;
use super::source::JSON_BYTES_MAX;
use super::tests::{Place, START_S, preparation};
use crate::stamp::rfc3339;

/// It answers after half a second, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a free port before Prometheus does.
const PORTS_TRIED: usize = 5;
const STEP_S: u64 = 10;
/// More than Prometheus answers at once, twice over.
const STEPS: u64 = 22_500;
const CUSTOMERS: [&str; 2] = ["anna", "bert"];
/// Half an hour: Prometheus takes nothing that is an hour older than the newest it has.
const WRITTEN_STEPS: u64 = 180;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A running Prometheus. Dropping it kills the process.
struct Prometheus {
    process: Child,
    url: String,
}

// === impl Prometheus ===

impl Prometheus {
    fn start(folder: &Path) -> Self {
        for attempt in 0..PORTS_TRIED {
            let mut prometheus = Self::spawn(folder, attempt);
            let deadline = Instant::now() + PATIENCE;
            let ready = format!("{}/-/ready", prometheus.url);
            while prometheus.process.try_wait().unwrap().is_none() {
                if ureq::get(&ready).call().is_ok() {
                    return prometheus;
                }
                assert!(Instant::now() < deadline, "Prometheus does not answer");
                std::thread::sleep(POLL);
            }
        }
        panic!("Prometheus does not come up");
    }

    fn spawn(folder: &Path, attempt: usize) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let program: PathBuf = root.join(".tools/bin/prometheus");
        assert!(
            program.exists(),
            "{} is missing: run `make setup`",
            program.display()
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let configuration = folder.join("prometheus.yml");
        fs::write(&configuration, "global: {}\n").unwrap();
        let data = folder.join(format!("tsdb-{attempt}"));
        let process = Command::new(program)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            url: format!("http://{address}"),
        }
    }

    fn write(&self, timeseries: Vec<TimeSeries>) {
        let body = WriteRequest { timeseries }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        ureq::post(format!("{}/api/v1/write", self.url))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .send(&body)
            .unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Usage of a customer in a step; a step in a hundred is missing.
fn usage(customer: &str, step: u64) -> Option<f64> {
    let amount = 10 + step % 7 + customer.len() as u64 * (step / 1_000);
    (step % 100 != 37).then_some(amount as f64 + 0.25)
}

fn written(customer: &str, steps: std::ops::Range<u64>) -> TimeSeries {
    let labels = [
        ("__name__", "forebay_usage_tokens"),
        ("customer", customer),
        ("resource", "llm_tokens"),
        ("step_ms", "10000"),
    ];
    let sample = |step: u64| {
        Some(Sample {
            value: usage(customer, step)?,
            timestamp: ((START_S + (step + 1) * STEP_S) * 1_000) as i64,
        })
    };
    TimeSeries {
        labels: labels
            .map(|(name, value)| Label {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .to_vec(),
        samples: steps.filter_map(sample).collect(),
    }
}

/// The description of one source.
fn described(url: &str, steps: u64, more: &str) -> String {
    format!(
        r#"[[usage]]
kind = "prometheus"
url = "{url}"
query = 'sum by (customer, resource) (sum_over_time(forebay_usage_tokens{{step_ms="10000"}}[9s]))'
from = "{}"
until = "{}"
step_s = {STEP_S}
{more}
"#,
        rfc3339(START_S as i64),
        rfc3339((START_S + steps * STEP_S) as i64)
    )
}

/// The same usage as a table.
fn table(steps: u64) -> String {
    let mut text = "tenant,timestamp_utc,amount,resource\n".to_owned();
    for customer in CUSTOMERS {
        for step in 0..steps {
            if let Some(amount) = usage(customer, step) {
                let at_s = START_S + step * STEP_S;
                text += &format!("{customer},{at_s},{amount},llm_tokens\n");
            }
        }
    }
    text
}

fn prepared(place: &Place, name: &str, text: &str) -> Result<Manifest, String> {
    let input = place.out(name);
    fs::write(&input, text).unwrap();
    let out = place.out(&format!("set-of-{name}"));
    let prepared = preparation(&[&input], &out).prepare();
    prepared.map_err(|error| error.to_string())
}

#[test]
fn what_a_real_prometheus_has_is_the_usage_that_was_written_to_it() {
    let place = Place::new();
    let prometheus = Prometheus::start(place.path());
    for first in (0..STEPS).step_by(WRITTEN_STEPS as usize) {
        let steps = first..(first + WRITTEN_STEPS).min(STEPS);
        let both = CUSTOMERS.map(|customer| written(customer, steps.clone()));
        prometheus.write(both.to_vec());
    }
    let from_table = prepared(&place, "usage.csv", &table(STEPS)).unwrap();
    let text = described(&prometheus.url, STEPS, "");
    let asked = prepared(&place, "usage.toml", &text).unwrap();
    assert_eq!(asked.digest, from_table.digest);
    assert_eq!(asked.resources["llm_tokens"].counts.gaps, 2 * STEPS / 100);
    // And again, in other pieces of time.
    let half = described(&prometheus.url, STEPS / 2, "");
    let rest = described(&prometheus.url, STEPS, "");
    let starts = |step: u64| format!("from = \"{}\"", rfc3339((START_S + step * STEP_S) as i64));
    let rest = rest.replace(&starts(0), &starts(STEPS / 2));
    let again = prepared(&place, "parts.toml", &(half + &rest)).unwrap();
    assert_eq!(again.digest, asked.digest);
    assert_eq!(again.resources["llm_tokens"].counts.duplicates, 0);
    let wrong = text.replace("sum by", "sum bye");
    let error = prepared(&place, "wrong.toml", &wrong).unwrap_err();
    assert!(error.contains("refuses the query (400)"), "{error}");
    assert!(error.contains("parse error"), "{error}");
    let none = text.replace("forebay_usage_tokens", "forebay_used");
    let error = prepared(&place, "none.toml", &none).unwrap_err();
    assert!(error.contains("finds nothing"), "{error}");
}

/// First and last step that were asked for, and the authorization.
struct Request {
    steps: std::ops::Range<u64>,
    authorization: String,
}

/// Answers each request as it is told; `None` closes the connection without a word.
struct Played {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

// === impl Played ===

impl Played {
    fn start(answer: impl Fn(usize, &Request) -> Option<(u16, String)> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let request = Request::read(&mut stream);
                let mut seen = seen.lock().unwrap();
                let answer = answer(seen.len(), &request);
                seen.push(request);
                let Some((status, body)) = answer else {
                    continue;
                };
                let head = format!(
                    "HTTP/1.1 {status} Played\r\nlocation: http://elsewhere/\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                // Who has read enough may go.
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(body.as_bytes());
            }
        });
        Self { url, requests }
    }
}

// === impl Request ===

impl Request {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let of = |name: &str| {
                    let line = head.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                if body.len() >= of("content-length:").parse().unwrap() {
                    let step = |name: &str| {
                        let mut fields = body.split('&').filter_map(|field| field.split_once('='));
                        let found = fields.find(|(field, _)| *field == name).unwrap().1;
                        (found.parse::<u64>().unwrap() - START_S) / STEP_S
                    };
                    return Self {
                        steps: step("start") - 1..step("end"),
                        authorization: of("authorization:"),
                    };
                }
            }
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "half a request: {text}");
            bytes.extend(&buffer[..read]);
        }
    }
}

/// As Prometheus answers.
fn answer(steps: std::ops::Range<u64>) -> String {
    let series = |customer: &str| {
        let value = |step: u64| {
            let end_s = START_S + (step + 1) * STEP_S;
            Some(format!(r#"[{end_s},"{}"]"#, usage(customer, step)?))
        };
        let values: Vec<String> = steps.clone().filter_map(value).collect();
        let values = values.join(",");
        // A series without a value in a piece is not in its answer.
        (!values.is_empty()).then(|| {
            format!(
                r#"{{"metric":{{"customer":"{customer}","resource":"llm_tokens"}},"values":[{values}]}}"#
            )
        })
    };
    let all: Vec<String> = CUSTOMERS.into_iter().filter_map(series).collect();
    format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#,
        all.join(",")
    )
}

fn refused(error: &str) -> String {
    format!(r#"{{"status":"error","errorType":"any","error":"{error}"}}"#)
}

#[test]
fn a_piece_that_is_too_much_is_asked_for_in_halves_and_is_the_same_usage() {
    const ASKED: u64 = 3_000;
    let place = Place::new();
    let whole = Played::start(|_, request| Some((200, answer(request.steps.clone()))));
    let whole_manifest = prepared(&place, "usage.toml", &described(&whole.url, ASKED, "")).unwrap();
    assert_eq!(whole.requests.lock().unwrap().len(), 1);
    let samples = "query processing would load too many samples into memory in query execution";
    let large = " ".repeat(JSON_BYTES_MAX as usize + 1);
    let halves = Played::start(move |_, request| {
        Some(match request.steps.end - request.steps.start {
            2_000.. => (422, refused(samples)),
            1_000.. => (200, large.clone()),
            _ => (200, answer(request.steps.clone())),
        })
    });
    let text = described(&halves.url, ASKED, "");
    let manifest = prepared(&place, "halves.toml", &text).unwrap();
    assert_eq!(manifest.digest, whole_manifest.digest);
    let lengths = |played: &Played| {
        let requests = played.requests.lock().unwrap();
        let length = |one: &Request| one.steps.end - one.steps.start;
        requests.iter().map(length).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&halves), [3_000, 1_500, 750, 750, 750, 750]);
    let sums = |manifest: &Manifest| {
        let last = manifest.sources.iter().rfind(|one| one.name.contains('('));
        last.unwrap().sha256.clone()
    };
    assert_eq!(sums(&manifest), sums(&whole_manifest));

    let never = Played::start(move |_, _| Some((422, refused(samples))));
    let error = prepared(&place, "never.toml", &described(&never.url, 8, "")).unwrap_err();
    assert!(error.contains("ask for fewer customers"), "{error}");
    assert_eq!(lengths(&never), [8, 4, 2, 1]);
}

#[test]
fn a_server_that_is_away_for_a_moment_is_asked_again() {
    let place = Place::new();
    let played = Played::start(|nth, request| match nth {
        0 => None,
        1 => Some((503, "<p>starting</p>".into())),
        _ => Some((200, answer(request.steps.clone()))),
    });
    let manifest = prepared(&place, "usage.toml", &described(&played.url, 500, "")).unwrap();
    assert_eq!(manifest.resources["llm_tokens"].counts.steps, 1_000);
    assert_eq!(played.requests.lock().unwrap().len(), 3);

    let away = Played::start(|_, _| Some((502, "no upstream".into())));
    let error = prepared(&place, "away.toml", &described(&away.url, 500, "")).unwrap_err();
    assert!(error.contains("502 (no upstream), 3 times"), "{error}");
    assert_eq!(away.requests.lock().unwrap().len(), 3);
}

/// The variable is one that is always there; what it holds is sent and never said.
#[test]
fn a_token_of_the_environment_is_sent_and_not_said() {
    let place = Place::new();
    let token = format!("bearer {}", env!("CARGO_PKG_NAME"));
    let played = Played::start(move |_, request| match request.authorization == token {
        true => Some((200, answer(request.steps.clone()))),
        false => Some((401, "who are you".into())),
    });
    let asked = |name: &str, more: &str| prepared(&place, name, &described(&played.url, 500, more));
    asked("right.toml", "token_env = \"CARGO_PKG_NAME\"").unwrap();
    let error = asked("wrong.toml", "token_env = \"CARGO_PKG_VERSION\"").unwrap_err();
    assert!(
        error.contains("is the token in CARGO_PKG_VERSION"),
        "{error}"
    );
    assert!(!error.contains(env!("CARGO_PKG_VERSION")), "{error}");
    let error = asked("without.toml", "").unwrap_err();
    assert!(error.contains("as `token_env`"), "{error}");
    let error = asked("none.toml", "token_env = \"FOREBAY_NO_SUCH_TOKEN\"").unwrap_err();
    assert!(error.contains("FOREBAY_NO_SUCH_TOKEN"), "{error}");
}

#[test]
fn what_is_no_answer_is_refused_with_its_place() {
    for (status, body, says) in [
        (200, "<html>Sign in</html>".to_owned(), "Sign in"),
        (302, String::new(), "http://elsewhere/"),
        (404, "404 page not found".into(), "404 page not found"),
        (
            200,
            answer(0..9).replace("\"data\"", "\"isPartial\":true,\"data\""),
            "isPartial",
        ),
        (
            200,
            answer(0..9).replace("bert", "anna"),
            "two series for the customer anna",
        ),
        (
            200,
            answer(0..9).replace("\"matrix\"", "\"vector\""),
            "query_range",
        ),
    ] {
        let place = Place::new();
        let played = Played::start(move |_, _| Some((status, body.clone())));
        let error = prepared(&place, "usage.toml", &described(&played.url, 9, "")).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains("usage.toml (usage 1)"), "{error}");
        assert!(!place.out("set-of-usage.toml").exists());
    }
}

#[test]
fn descriptions_that_make_no_sense_are_refused_before_anybody_is_asked() {
    let place = Place::new();
    let played = Played::start(|_, _| None);
    let good = described(&played.url, 500, "");
    let from = rfc3339(START_S as i64);
    for (text, says) in [
        (String::new(), "1 to 64"),
        ("[[usage]]\nkind = \"carrier pigeon\"\n".into(), "pigeon"),
        (good.replace("step_s = 10", "step = 10"), "step"),
        (good.replace("step_s = 10", "step_s = 0"), "step_s"),
        (good.replace("step_s = 10", "step_s = 7"), "whole steps"),
        (good.replace(&from, "yesterday"), "2026-10-01T00:00:00Z"),
        (good.replace(&from, "2031-01-01T00:00:00Z"), "later than"),
        (good.replace(&from, "1931-01-01T00:00:00Z"), "at most"),
        (good.replace("http:", "https:"), "https"),
        (good.replace("http://", "http://me:secret@"), "token_env"),
        (good.replace("query = ", "path = "), "`path` means nothing"),
        ("[[usage]]\nkind = \"file\"\n".into(), "`path` is missing"),
        (
            good.lines()
                .filter(|l| !l.starts_with("url"))
                .map(|l| format!("{l}\n"))
                .collect(),
            "`url` is missing",
        ),
    ] {
        let error = prepared(&place, "usage.toml", &text).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains("usage.toml"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(played.requests.lock().unwrap().len(), 0);
}

#[test]
fn a_description_may_name_files_beside_it() {
    let place = Place::new();
    fs::write(place.out("table.csv"), table(500)).unwrap();
    let text = "[[usage]]\nkind = \"file\"\npath = \"table.csv\"\n";
    let named = prepared(&place, "usage.toml", text).unwrap();
    let itself = prepared(&place, "usage.csv", &table(500)).unwrap();
    assert_eq!(named.digest, itself.digest);
}
