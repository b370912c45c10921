//! Training: a process with limits that never outlives who has started it, and what becomes of what it makes.
//!
//! The trainer of these tests is a script that keeps the trainer's contract; `model-export/tests/retrain.rs` holds the real one to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod process;

use forebay_control_plane::models::{Sandbox, SigningKeyFile, digest_of, generate_key, hex};
use forebay_control_plane::store::MemoryStore;
use forebay_control_plane::training::{Training, TrainingOptions};
use forebay_wire::sync::ModelStatus;
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{ADMIN_TOKEN, Gateway, TestServer, policy};
use process::Process;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");
const EVERY_MS: u64 = 60_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with usage, a trainer and a place for both.
struct Trained {
    folder: tempfile::TempDir,
    server: TestServer,
}

/// What the script does when it is asked to train, and what it then says of the trial.
struct Script<'a> {
    train: &'a str,
    wins: bool,
}

impl Default for Script<'_> {
    fn default() -> Self {
        Self {
            train: "",
            wins: true,
        }
    }
}

// === impl Script ===

impl Script<'_> {
    /// Arguments as the server gives them: `prepare FILE... --out set`, then `train --set set --resource NAME --out trained.onnx --json-progress`.
    fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("trainer.sh");
        let digest = hex(&digest_of(b"a good model"));
        let Self { train, wins } = self;
        let text = format!(
            r#"#!/bin/sh
set -e
echo $$ > {folder}/pid
# The server's environment holds its tokens.
[ -z "$CARGO_MANIFEST_DIR" ] || exit 3
if [ "$1" = prepare ]; then
    cp "$2" {folder}/usage.json
    mkdir set
    exit 0
fi
[ "$*" = "train --set set --resource requests --out trained.onnx --json-progress --end-with-stdin" ] || exit 4
[ -d set ] || exit 5
echo '{{"done":1,"of":4,"message":"epoch 1"}}'
{train}
printf 'a good model' > trained.onnx
cat > trained.card.json <<END
{{"model_sha256": "{digest}", "trial": {{"wins": {wins}, "folds": [
  {{"start": "a", "end": "b", "customers": 3, "points": 9, "wql": 0.1, "wql_without": 0.2, "coverage_90": 0.9}}]}}}}
END
"#,
            folder = folder.display()
        );
        let text = text.replace("HERE", &folder.display().to_string());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

// === impl Trained ===

impl Trained {
    async fn new(script: Script<'_>) -> Self {
        Self::with(script, TrainingOptions::default(), false).await
    }

    async fn with(script: Script<'_>, options: TrainingOptions, signs: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainingOptions {
            trainer: Some(script.write(folder.path())),
            ..options
        };
        let key_path = folder.path().join("signing.key");
        let key: Option<SigningKeyFile> = signs.then(|| {
            generate_key(&key_path).unwrap();
            SigningKeyFile::read(&key_path).unwrap()
        });
        let server = TestServer::training(
            Arc::new(MemoryStore::default()),
            Arc::new(AtomicU64::new(1_000_000)),
            Sandbox::new(&fake_forecaster(folder.path()), LIMITS),
            key,
            Training::new(
                options
                    .choose(1_000, 604_800)
                    .unwrap()
                    .kept_by(FOREBAY.into()),
            ),
        );
        server.ok("POST", "/v1/policies", policy()).await;
        let usage = |key: &str| json!({"key": key, "step_ms": 1_000, "usage": [1, 2, 3, null, 5]});
        // The last one is a stranger: no policy names it, and no gateway has seen it.
        let series = json!({"series": [usage("acme"), usage("bolt"), usage("stranger")]});
        server.ok("PUT", "/v1/history", series).await;
        Self { folder, server }
    }

    async fn begin(&self) {
        self.server.ok("POST", "/v1/training", json!({})).await;
    }

    async fn view(&self) -> Value {
        self.server.ok("GET", "/v1/training", Value::Null).await
    }

    /// Waits for so many trainings to have ended, and gives the newest.
    async fn ended(&self, runs: usize) -> Value {
        let is_over = |view: &Value| {
            view["runs"].as_array().unwrap().len() >= runs && view["running"].is_null()
        };
        self.until(is_over).await["runs"][0].clone()
    }

    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let view = self.view().await;
            if is_so(&view) {
                return view;
            }
            assert!(begun.elapsed() < PATIENCE, "{view:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn deeds(&self) -> Vec<(String, String)> {
        let log = self.server.ok("GET", "/v1/audit", Value::Null).await;
        let records = log["records"].as_array().unwrap();
        let field = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        records
            .iter()
            .map(|record| (field(record, "role"), field(record, "action")))
            .collect()
    }

    /// The process that the script runs in.
    fn process(&self) -> PathBuf {
        noted(self.folder.path(), "pid")
    }
}

/// A process whose number the script has written into a file.
fn noted(folder: &Path, name: &str) -> PathBuf {
    let pid = fs::read_to_string(folder.join(name)).unwrap();
    Path::new("/proc").join(pid.trim())
}

/// A child of the script's that holds its pipes, and another one that takes no notice of being asked to end.
const CHILDREN: &str = r#"tail -f /dev/null & echo $! > HERE/child
(trap '' TERM; echo started > HERE/is_deaf; while :; do sleep 1; done) & echo $! > HERE/deaf
until [ -f HERE/is_deaf ]; do sleep 0.01; done
"#;

/// And a trainer that does so itself, and does not look at its standard input.
const DEAF: &str = r#"trap '' TERM
echo '{"done":2,"of":4,"message":"deaf"}'
while :; do sleep 1; done
"#;

/// Not one that is over and for which nobody has waited: that of whoever is an orphan may not.
fn is_alive(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn is_gone(process: &Path) {
    let begun = Instant::now();
    while is_alive(process) {
        assert!(
            begun.elapsed() < PATIENCE,
            "{} still runs",
            process.display()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_a_training_makes_is_in_the_registry_with_its_card_and_every_step_on_record() {
    let trained = Trained::new(Script::default()).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "won", "{run:#}");
    assert_eq!(run["cause"], "asked");
    assert_eq!(run["trial"]["folds"][0]["wql"], 0.1);
    let models = trained.server.ok("GET", "/v1/models", Value::Null).await;
    assert_eq!(models["models"][0]["digest"], run["digest"]);
    assert_eq!(models["models"][0]["card"]["trial"]["wins"], true);
    let deeds = trained.deeds().await;
    let of_training = |(role, action): &(String, String)| match action.as_str() {
        "training.ask" | "training.begin" | "model.upload" | "training.end" => {
            Some(format!("{role} {action}"))
        }
        _ => None,
    };
    let deeds: Vec<String> = deeds.iter().filter_map(of_training).collect();
    assert_eq!(
        deeds,
        [
            "admin training.ask",
            "server training.begin",
            "server model.upload",
            "server training.end"
        ]
    );
    let usage = fs::read_to_string(trained.folder.path().join("usage.json")).unwrap();
    assert_eq!(usage.lines().count(), 3, "{usage}");
    assert!(!usage.contains("acme"), "customers are hashes: {usage}");
    let first: Value = serde_json::from_str(usage.lines().next().unwrap()).unwrap();
    let newest = first["usage"].as_array().unwrap().iter().rev().take(5);
    let newest: Vec<Value> = newest.cloned().collect();
    assert_eq!(json!(newest), json!([5.0, null, 3.0, 2.0, 1.0]));
}

#[tokio::test]
async fn a_model_that_has_not_won_its_trial_waits_in_the_registry() {
    let script = Script {
        wins: false,
        ..Script::default()
    };
    let options = TrainingOptions {
        train_canary: Some(10),
        ..TrainingOptions::default()
    };
    let trained = Trained::with(script, options, true).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "lost");
    let status = trained.server.ok("GET", "/v1/status", Value::Null).await;
    assert_eq!(status["model_epoch"], 0);
    assert_eq!(status["canary"], Value::Null);
}

#[tokio::test]
async fn a_model_that_has_won_runs_as_a_canary_where_that_was_asked_for() {
    let options = TrainingOptions {
        train_canary: Some(10),
        ..TrainingOptions::default()
    };
    let trained = Trained::with(Script::default(), options, true).await;
    let server = &trained.server;
    let (status, champion) = server
        .request("POST", "/v1/models", ADMIN_TOKEN, b"first".to_vec())
        .await;
    assert_eq!(status, 200);
    let champion: Value = serde_json::from_slice(&champion).unwrap();
    let digest = champion["digest"].as_str().unwrap();
    let path = format!("/v1/models/{digest}/activate");
    server.ok("POST", &path, json!({})).await;
    for name in ["gw-0", "gw-1"] {
        let mut request = Gateway::new(name, 1).request();
        request.model_status = Some(ModelStatus::default());
        assert_eq!(server.sync(&request).await.0, 200);
    }
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "canary", "{run:#}");
    let status = server.ok("GET", "/v1/status", Value::Null).await;
    assert_eq!(status["canary"]["digest"], run["digest"]);
    assert_eq!(status["canary"]["promote"], "auto");
    let deeds = trained.deeds().await;
    assert!(
        deeds.contains(&("server".to_owned(), "model.activate".to_owned())),
        "{deeds:?}"
    );
}

#[tokio::test]
async fn somebody_ends_a_training_and_its_process_goes_with_it() {
    let script = Script {
        train: "exec tail -f /dev/null",
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    let view = trained
        .until(|view| view["running"]["message"] == "epoch 1")
        .await;
    assert_eq!(view["running"]["stage"], "training");
    assert_eq!(
        (&view["running"]["done"], &view["running"]["of"]),
        (&json!(1), &json!(4))
    );
    let process = trained.process();
    assert!(process.exists());
    let (status, body) = trained
        .server
        .request("POST", "/v1/training", ADMIN_TOKEN, "{}")
        .await;
    let said = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 409, "one at a time: {said}");
    trained
        .server
        .ok("POST", "/v1/training/stop", Value::Null)
        .await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "stopped", "{run:#}");
    let deeds = trained.deeds().await;
    let stop = ("admin".to_owned(), "training.stop".to_owned());
    assert!(deeds.contains(&stop), "{deeds:?}");
    is_gone(&process).await;
    // And the next one may begin.
    trained.begin().await;
    trained
        .until(|view| view["running"]["message"] == "epoch 1")
        .await;
}

#[tokio::test]
async fn a_server_that_ends_takes_the_trainer_with_it() {
    let script = Script {
        train: "exec tail -f /dev/null",
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    trained
        .until(|view| view["running"]["message"] == "epoch 1")
        .await;
    let process = trained.process();
    let Trained { folder, server } = trained;
    drop(server);
    is_gone(&process).await;
    drop(folder);
}

#[tokio::test]
async fn a_run_is_over_with_its_trainer_and_whoever_that_has_started_goes_with_it() {
    let script = Script {
        train: CHILDREN,
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "won", "{run:#}");
    for name in ["child", "deaf"] {
        let process = noted(trained.folder.path(), name);
        assert!(!is_alive(&process), "{name} still runs");
    }
}

#[tokio::test]
async fn whoever_is_stopped_and_takes_no_notice_is_killed_with_all_that_it_has_started() {
    let train = format!("{CHILDREN}{DEAF}");
    let script = Script {
        train: &train,
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    trained
        .until(|view| view["running"]["message"] == "deaf")
        .await;
    trained
        .server
        .ok("POST", "/v1/training/stop", Value::Null)
        .await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "stopped", "{run:#}");
    for name in ["pid", "child", "deaf"] {
        let process = noted(trained.folder.path(), name);
        assert!(!is_alive(&process), "{name} still runs");
    }
}

#[tokio::test]
async fn a_server_that_is_killed_takes_all_of_a_training_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let train = format!("{CHILDREN}{DEAF}");
    let script = Script {
        train: &train,
        ..Script::default()
    };
    script.write(folder.path());
    let mut serve = tokio::process::Command::new(FOREBAY);
    // A trainer whose path begins here, where the server is, runs in another folder.
    serve
        .current_dir(folder.path())
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "data"])
        .args(["--step-ms", "1000", "--trainer", "./trainer.sh"])
        .env("TMPDIR", folder.path())
        .env("FOREBAY_GATEWAY_TOKEN", process::GATEWAY_TOKEN)
        .env("FOREBAY_ADMIN_TOKEN", process::ADMIN_TOKEN)
        .env_remove("CARGO_MANIFEST_DIR");
    let mut server = Process::spawned(serve, false).await;
    let address = server.address.clone();
    let ask = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = process::send(
            &address,
            method,
            path,
            process::ADMIN_TOKEN,
            body.into_bytes(),
        );
        let (status, said) = answer.await.unwrap();
        assert_eq!(
            status,
            200,
            "{method} {path}: {}",
            String::from_utf8_lossy(&said)
        );
        serde_json::from_slice::<Value>(&said).unwrap()
    };
    ask("POST", "/v1/policies", policy()).await;
    let series = json!({"key": "acme", "step_ms": 1_000, "usage": [1, 2, 3]});
    ask("PUT", "/v1/history", json!({"series": [series]})).await;
    ask("POST", "/v1/training", json!({})).await;
    let begun = Instant::now();
    loop {
        let view = ask("GET", "/v1/training", Value::Null).await;
        if view["running"]["message"] == "deaf" {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE && view["runs"] == json!([]),
            "{view:#}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let of_run = ["pid", "child", "deaf"].map(|name| noted(folder.path(), name));
    assert!(of_run.iter().all(|process| is_alive(process)));
    server.kill().await;
    for process in of_run {
        is_gone(&process).await;
    }
}

#[tokio::test]
async fn what_a_card_says_of_a_trial_is_checked_before_it_counts() {
    let script = Script {
        // In the place of what follows.
        train: r#"printf 'a good model' > trained.onnx
echo '{"trial": {"wins": true, "folds": []}}' > trained.card.json
exit 0"#,
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "failed", "{run:#}");
    let message = run["message"].as_str().unwrap();
    assert!(message.contains("names no fold"), "{message}");
    let models = trained.server.ok("GET", "/v1/models", Value::Null).await;
    assert_eq!(models["models"], json!([]));
}

#[tokio::test]
async fn a_trainer_that_fails_says_why_and_what_was_there_stays() {
    let script = Script {
        train: "echo 'requests is too short to learn from' >&2; exit 1",
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "failed");
    let message = run["message"].as_str().unwrap();
    assert!(
        message.contains("requests is too short to learn from"),
        "{message}"
    );
    let models = trained.server.ok("GET", "/v1/models", Value::Null).await;
    assert_eq!(models["models"], json!([]));
    // It is remembered by whoever comes next.
    let Trained { folder, server } = trained;
    let server = server.killed();
    let view = server.ok("GET", "/v1/training", Value::Null).await;
    assert_eq!(view["runs"][0]["message"], message);
    drop(folder);
}

#[tokio::test]
async fn the_trainer_is_last_in_the_queue_and_its_memory_is_bounded() {
    // The limits come just after the start.
    let script = Script {
        train: r#"n=0
until [ "$(ulimit -d)" = 4194304 ] && [ "$(nice)" = 19 ]; do
    n=$((n + 1)); [ $n -lt 200 ] || exit 6; sleep 0.05
done"#,
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    let run = trained.ended(1).await;
    assert_eq!(run["outcome"], "won", "{run:#}");
}

#[tokio::test]
async fn the_clock_begins_a_training_without_anybody() {
    let options = TrainingOptions {
        train_every: Some(EVERY_MS),
        ..TrainingOptions::default()
    };
    let trained = Trained::with(Script::default(), options, false).await;
    // The schedule begins with the first look at it, and says no time before.
    let view = trained.until(|view| !view["next_unix_ms"].is_null()).await;
    let now_ms = trained.server.server.plane.now().unix_ms;
    assert_eq!(view["next_unix_ms"], json!(now_ms + EVERY_MS));
    assert_eq!(view["running"], Value::Null);
    trained
        .server
        .clock
        .fetch_add(EVERY_MS * 1_000, Ordering::Relaxed);
    let run = trained.ended(1).await;
    assert_eq!(
        (&run["cause"], &run["outcome"]),
        (&json!("schedule"), &json!("won"))
    );
    let deeds = trained.deeds().await;
    assert!(
        deeds.contains(&("server".to_owned(), "training.begin".to_owned())),
        "{deeds:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_trained_is_said_before_anything_begins() {
    let server = TestServer::new();
    let refused = async |server: &TestServer, body: Value| {
        let (status, said) = server
            .request("POST", "/v1/training", ADMIN_TOKEN, body.to_string())
            .await;
        let said: Value = serde_json::from_slice(&said).unwrap();
        (status.as_u16(), said["code"].as_str().unwrap().to_owned())
    };
    let no_trainer = (503, "no_trainer".to_owned());
    assert_eq!(refused(&server, json!({})).await, no_trainer);
    let trained = Trained::new(Script::default()).await;
    let (status, _) = refused(&trained.server, json!({"resource": "nothing"})).await;
    assert_eq!(status, 422);
    let nobody = trained
        .server
        .request("POST", "/v1/training/stop", ADMIN_TOKEN, "")
        .await;
    assert_eq!(nobody.0, 409);
}

#[tokio::test]
async fn a_training_with_which_the_server_has_ended_counts_as_one_that_failed() {
    let script = Script {
        train: "exec tail -f /dev/null",
        ..Script::default()
    };
    let trained = Trained::new(script).await;
    trained.begin().await;
    trained
        .until(|view| view["running"]["message"] == "epoch 1")
        .await;
    let view = trained.view().await;
    assert_eq!(view["runs"], json!([]), "it has not ended");
    let Trained { folder, server } = trained;
    let server = server.killed();
    let view = server.ok("GET", "/v1/training", Value::Null).await;
    assert_eq!(view["runs"][0]["outcome"], "failed");
    let message = view["runs"][0]["message"].as_str().unwrap();
    assert!(message.contains("the server ended"), "{message}");
    drop(folder);
}
