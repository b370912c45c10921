//! Forecasts of a real server: of what was imported, over HTTP and in the terminal, and again after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a failed step must stop the test"
)]

mod process;

use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, VIEWER_TOKEN, send};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

const STEP_MS: u32 = 60_000;

/// `forebay serve` with minutes, as it is by default.
async fn serve(data: &Path) -> Process {
    let mut program = Command::new(env!("CARGO_BIN_EXE_forebay"));
    program
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)
        .env("FOREBAY_VIEWER_TOKEN", VIEWER_TOKEN)
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .stderr(Stdio::null());
    Process::spawned(program, false).await
}

/// Asks until there is a forecast of this.
async fn forecast_of(server: &Process, query: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let path = format!("/v1/forecasts?{query}");
        let answer = send(&server.address, "GET", &path, VIEWER_TOKEN, Vec::new()).await;
        let (status, body) = answer.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        if status == 200 {
            return answer;
        }
        assert_eq!(answer["code"], "no_forecast");
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_forecasts_what_was_imported_and_does_so_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut server = serve(&data).await;
    let policy = json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 10, "burst": 20}}}},
        "customers": [{"key": "acme", "contract": "gold"}],
    });
    // Ten a second, more or less.
    let usage: Vec<f64> = (0..3_000_u64)
        .map(|step| 300.0 + (step * 7_919 % 601) as f64)
        .collect();
    let series = json!([{"key": "acme", "step_ms": STEP_MS, "usage": usage}]);
    let history = json!({ "series": series });
    for (method, path, body) in [
        ("POST", "/v1/policies", policy),
        ("PUT", "/v1/history", history),
    ] {
        let body = body.to_string().into_bytes();
        let (status, answer) = send(&server.address, method, path, ADMIN_TOKEN, body)
            .await
            .unwrap();
        assert_eq!(status, 200, "{path}: {answer:?}");
    }
    for _ in 0..2 {
        let view = forecast_of(&server, "customer=acme").await;
        let median = view["forecasts"][0]["horizons"][3]["mean_per_s"]["p50"]
            .as_f64()
            .unwrap();
        assert!((9.0..11.0).contains(&median), "{view}");
        let of_group = forecast_of(&server, "group=contract:gold&resource=requests").await;
        assert_eq!(of_group["forecasts"].as_array().unwrap().len(), 1);
        let said = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["forecasts", "--group", "all", "--resource", "requests"])
            .env("FOREBAY_SERVER", format!("http://{}", server.address))
            .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .await
            .unwrap();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(said["forecasts"][0]["group"], "all");
        let metrics = send(&server.address, "GET", "/metrics", "", Vec::new()).await;
        let metrics = String::from_utf8(metrics.unwrap().1.to_vec()).unwrap();
        assert!(
            metrics.contains("\nforebay_forecast_series 1\n"),
            "{metrics}"
        );
        server.terminate().await;
        server = serve(&data).await;
    }
}
