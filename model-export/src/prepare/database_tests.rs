//! A real database's answer, as `curl` would save it. What Prometheus itself answers has the same form: `control-plane/tests/prometheus.rs` reads
//! both.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::{Place, START_S, preparation};

/// It answers after half a second, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a free port before the database does.
const PORTS_TRIED: usize = 5;
/// As the reference says it, with the form's escapes.
const QUERY: &str = "sum+by+(customer,+resource)+(sum_over_time(forebay_usage_tokens%7Bstep_ms=%2260000%22%7D%5B1m%5D))";

/// A running VictoriaMetrics. Dropping it kills the process.
struct Database {
    process: Child,
    port: u16,
}

// === impl Database ===

impl Database {
    fn start(folder: &Path) -> Self {
        for attempt in 0..PORTS_TRIED {
            let mut database = Self::spawn(&folder.join(format!("data-{attempt}")));
            let deadline = Instant::now() + PATIENCE;
            while database.process.try_wait().unwrap().is_none() {
                if database.http("GET", "/health", "").is_some() {
                    return database;
                }
                assert!(Instant::now() < deadline, "the database does not answer");
                std::thread::sleep(POLL);
            }
        }
        panic!("the database does not come up");
    }

    fn spawn(data: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let program: PathBuf = root.join(".tools/bin/victoria-metrics");
        assert!(
            program.exists(),
            "{} is missing: run `make setup`",
            program.display()
        );
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(program)
            .arg(format!("-storageDataPath={}", data.display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args(["-retentionPeriod=100y", "-memory.allowedPercent=10"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    /// The body of a good answer. Of HTTP 1.0, whose answers end with the connection.
    fn http(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let is_good = head.split(' ').nth(1)?.starts_with('2');
        is_good.then(|| body.to_owned())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn what_a_real_database_answers_is_the_usage_that_was_written_to_it() {
    let place = Place::new();
    let database = Database::start(place.path());
    let amount = |step: u64| 10 + step % 7;
    let mut written = String::new();
    // Step 20 is missing. A value is at the end of its step.
    for step in (0..60).filter(|step| *step != 20) {
        let end_ms = (START_S + (step + 1) * 60) * 1_000;
        written += &format!(
            "forebay_usage_tokens{{customer=\"anna\",resource=\"llm_tokens\",step_ms=\"60000\"}} {} {end_ms}\n",
            amount(step)
        );
    }
    database
        .http("POST", "/api/v1/import/prometheus", &written)
        .unwrap();
    let (start, end) = (START_S + 60, START_S + 60 * 60);
    let path =
        format!("/api/v1/query_range?query={QUERY}&start={start}&end={end}&step=60&nocache=1");
    let deadline = Instant::now() + PATIENCE;
    let input = place.out("answer.json");
    let mut attempt = 0;
    let manifest = loop {
        // It takes a moment until what was written is seen.
        fs::write(&input, database.http("GET", &path, "").unwrap()).unwrap();
        attempt += 1;
        let out = place.out(&format!("set-{attempt}"));
        match preparation(&[&input], &out).prepare() {
            Ok(manifest) if manifest.resources["llm_tokens"].counts.steps == 60 => break manifest,
            found => assert!(Instant::now() < deadline, "{found:?}"),
        }
        std::thread::sleep(POLL);
    };
    assert_eq!(manifest.resources["llm_tokens"].counts.gaps, 1);
    let file = place
        .out(&format!("set-{attempt}"))
        .join("llm_tokens.parquet");
    let series =
        forebay_traces::read(&file, &forebay_traces::ReadOptions::value("amount")).unwrap();
    assert_eq!(series[0].start_s, START_S as i64);
    for step in (0..60).filter(|step| *step != 20) {
        assert_eq!(series[0].values[step], amount(step as u64) as f64, "{step}");
    }
}
