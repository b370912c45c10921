//! Series as a sender writes them, and what the server knows of them afterwards.

#![allow(dead_code, reason = "each test file uses its own part")]

use super::kit::{self, SENDER_TOKEN, TestServer, policy};
use super::timeseries::{Label, Sample, TimeSeries, WriteRequest};
use forebay_control_plane::covariates::{Chosen, CovariateOptions, Dropped};
use forebay_control_plane::store::MemoryStore;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub(crate) const WRITE: &str = "/api/v1/write";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Prometheus' word for the end of a series.
pub(crate) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

pub(crate) fn chosen(rules: &[&str]) -> Chosen {
    let options = CovariateOptions {
        covariates: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        covariate_customer_label: "customer".to_owned(),
        covariate_replica_label: "__replica__".to_owned(),
    };
    options.choose().unwrap().unwrap()
}

pub(crate) fn latency() -> Chosen {
    chosen(&[
        r#"latency_s=app_latency_seconds{quantile="0.9"}"#,
        "cpu=app_cpu",
    ])
}

pub(crate) fn on(store: Arc<MemoryStore>, clock: Arc<AtomicU64>, chosen: Chosen) -> TestServer {
    TestServer::measuring(store, clock, chosen, kit::nowhere(), kit::no_training())
}

pub(crate) async fn server() -> TestServer {
    let server = on(
        Arc::default(),
        Arc::new(AtomicU64::new(100_000_000)),
        latency(),
    );
    server.ok("POST", "/v1/policies", policy()).await;
    server
}

pub(crate) fn series(labels: &[(&str, &str)], samples: &[(u64, f64)]) -> TimeSeries {
    let label = |(name, value): &(&str, &str)| Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let sample = |(unix_ms, value): &(u64, f64)| Sample {
        value: *value,
        timestamp: unix_ms.cast_signed(),
    };
    TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
    }
}

pub(crate) fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    compressed(&WriteRequest { timeseries }.encode_to_vec())
}

pub(crate) fn compressed(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

/// The 0.9 quantile of a customer's latency in a pod.
pub(crate) fn of(customer: &str, pod: &str, samples: &[(u64, f64)]) -> TimeSeries {
    let labels = [
        ("__name__", "app_latency_seconds"),
        ("customer", customer),
        ("pod", pod),
        ("quantile", "0.9"),
    ];
    series(&labels, samples)
}

pub(crate) async fn write(server: &TestServer, timeseries: Vec<TimeSeries>) {
    let (status, said) = server
        .request("POST", WRITE, SENDER_TOKEN, body(timeseries))
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&said));
}

/// What is known of a covariate, by step.
pub(crate) fn known(view: &Value) -> BTreeMap<u64, f64> {
    let usage = view["usage"].as_array().unwrap();
    let newest = view["newest_step"].as_u64().unwrap();
    let steps = newest + 1 - usage.len() as u64..=newest;
    steps
        .zip(usage)
        .filter_map(|(step, value)| Some((step, value.as_f64()?)))
        .collect()
}

pub(crate) async fn history(server: &TestServer, key: &str, covariate: &str) -> BTreeMap<u64, f64> {
    let path = format!("/v1/history?key={key}&covariate={covariate}");
    known(&server.ok("GET", &path, Value::Null).await)
}

pub(crate) fn now_ms(server: &TestServer) -> u64 {
    server.server.plane.now().unix_ms
}

/// Reasons for which samples were dropped.
pub(crate) fn dropped(server: &TestServer) -> BTreeMap<&'static str, u64> {
    let counts = server.server.plane.measured().unwrap().dropped;
    let counts = Dropped::ALL.iter().map(|reason| reason.name()).zip(counts);
    counts.filter(|(_, count)| *count > 0).collect()
}
