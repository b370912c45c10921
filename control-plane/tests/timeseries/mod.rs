//! A real Prometheus or VictoriaMetrics, as a process of its own: written to by remote write, asked by its API.

#![allow(dead_code, reason = "each test file uses its own part")]

use super::process::http;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use url::form_urlencoded::Serializer;

/// They answer after half a second, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Another process may take a free port before the database does.
const PORTS_TRIED: usize = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Prometheus,
    VictoriaMetrics,
}

/// A running database. Dropping it kills the process.
pub(crate) struct Database {
    process: Child,
    folder: TempDir,
    /// What `prometheus.yml` says.
    config: String,
    kind: Kind,
    port: u16,
}

/// `prometheus.WriteRequest`, once more: what the server writes is not judged by its own code.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

// === impl Database ===

impl Database {
    pub(crate) async fn start(kind: Kind) -> Self {
        Self::start_by(kind, "global: {}\n".to_owned()).await
    }

    /// A Prometheus that sends what it is sent on by remote write.
    pub(crate) async fn start_sending(url: &str, token: &str) -> Self {
        let config = format!(
            "global: {{}}\nremote_write:\n  - url: {url}\n    authorization: {{credentials: {token}}}\n    queue_config: {{batch_send_deadline: 100ms}}\n"
        );
        Self::start_by(Kind::Prometheus, config).await
    }

    async fn start_by(kind: Kind, config: String) -> Self {
        for _ in 0..PORTS_TRIED {
            let port = free_port();
            let folder = tempfile::tempdir().unwrap();
            let process = spawn(kind, folder.path(), &config, port);
            let mut database = Self {
                process,
                folder,
                config: config.clone(),
                kind,
                port,
            };
            if database.answers().await {
                return database;
            }
        }
        panic!("{kind:?} does not come up");
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) {
        self.process.start_kill().unwrap();
        self.process.wait().await.unwrap();
    }

    /// Starts it again on the same port and folder.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(self.kind, self.folder.path(), &self.config, self.port);
        assert!(
            self.answers().await,
            "{:?} does not come up again",
            self.kind
        );
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.url())
    }

    /// Writes a series. Times are Unix times in ms.
    pub(crate) async fn write(&self, labels: &[(&str, &str)], samples: &[(u64, f64)]) {
        let label = |(name, value): &(&str, &str)| Label {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let sample = |(unix_ms, value): &(u64, f64)| Sample {
            value: *value,
            timestamp: i64::try_from(*unix_ms).unwrap(),
        };
        let request = WriteRequest {
            timeseries: vec![TimeSeries {
                labels: labels.iter().map(label).collect(),
                samples: samples.iter().map(sample).collect(),
            }],
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap();
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let address = format!("127.0.0.1:{}", self.port);
        let answer = http(&address, "POST", "/api/v1/write", &headers, body).await;
        let (status, body) = answer.unwrap();
        assert!(status < 300, "{status} {body:?}");
    }

    /// Waits until it shows so many samples of the last hour, of all series.
    pub(crate) async fn until_it_counts(&self, expected: usize) {
        let query = r#"sum(count_over_time({__name__!=""}[1h]))"#;
        let form = Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("nocache", "1")
            .finish();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&format!("/api/v1/query?{form}")).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let count = answer["data"]["result"][0]["value"][1].as_str();
            if count.is_some_and(|count| count == expected.to_string()) {
                return;
            }
            assert!(Instant::now() < deadline, "{answer} instead of {expected}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// All samples of the last hour by the label `customer`, as they were written.
    pub(crate) async fn samples(&self, selector: &str) -> BTreeMap<String, BTreeMap<u64, f64>> {
        let form = Serializer::new(String::new())
            .append_pair("query", &format!("{selector}[1h]"))
            .append_pair("nocache", "1")
            .finish();
        let answer = self.ask(&format!("/api/v1/query?{form}")).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let found = answer["data"]["result"].as_array();
        let found = found.unwrap_or_else(|| panic!("{answer}"));
        let by_customer = found.iter().map(|series| {
            let customer = series["metric"]["customer"].as_str().unwrap().to_owned();
            let values = series["values"].as_array().unwrap().iter().map(|value| {
                let unix_ms = (value[0].as_f64().unwrap() * 1e3).round() as u64;
                (unix_ms, value[1].as_str().unwrap().parse().unwrap())
            });
            (customer, values.collect())
        });
        let count = by_customer.clone().count();
        let by_customer: BTreeMap<_, _> = by_customer.collect();
        assert_eq!(by_customer.len(), count, "one series for each customer");
        by_customer
    }

    /// Looks at its samples until a condition holds.
    pub(crate) async fn until(
        &self,
        selector: &str,
        mut holds: impl FnMut(&BTreeMap<String, BTreeMap<u64, f64>>) -> bool,
    ) -> BTreeMap<String, BTreeMap<u64, f64>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let samples = self.samples(selector).await;
            if holds(&samples) {
                return samples;
            }
            assert!(Instant::now() < deadline, "{:?} has {samples:?}", self.kind);
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ask(&self, path: &str) -> Option<Vec<u8>> {
        let address = format!("127.0.0.1:{}", self.port);
        let (status, body) = http(&address, "GET", path, &[], Vec::new()).await?;
        (status == 200).then(|| body.to_vec())
    }

    /// False when it has ended instead.
    async fn answers(&mut self) -> bool {
        let path = match self.kind {
            Kind::Prometheus => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        };
        let deadline = Instant::now() + PATIENCE;
        while self.ask(path).await.is_none() {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "{:?} does not answer", self.kind);
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

fn spawn(kind: Kind, folder: &Path, config: &str, port: u16) -> Child {
    let address = format!("127.0.0.1:{port}");
    let data = folder.join("data").display().to_string();
    let (name, options) = match kind {
        Kind::Prometheus => {
            let file = folder.join("prometheus.yml");
            std::fs::write(&file, config).unwrap();
            let options = vec![
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={data}"),
                format!("--web.listen-address={address}"),
                "--web.enable-remote-write-receiver".to_owned(),
            ];
            ("prometheus", options)
        }
        Kind::VictoriaMetrics => {
            let options = vec![
                format!("-storageDataPath={data}"),
                format!("-httpListenAddr={address}"),
                // It takes most of the machine's by default, and tests run beside each other.
                "-memory.allowedPercent=10".to_owned(),
            ];
            ("victoria-metrics", options)
        }
    };
    Command::new(tool(name))
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// An installed tool, `.tools/bin/NAME`.
fn tool(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = here.parent().unwrap().join(".tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make setup`, which says why if it cannot fetch the Debian package `{name}`",
        path.display()
    );
    path
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
