//! The model registry, and a sandbox that nothing a model does gets out of.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::http::StatusCode;
use forebay_control_plane::models::{
    Sandbox, SandboxError, SandboxLimits, SigningKeyFile, digest_of, from_hex, generate_key, hex,
    sign, verify,
};
use forebay_control_plane::store::MemoryStore;
use forebay_wire::model::{ModelStatement, ReleaseKind};
use kit::forecaster::{LIMITS, fake_forecaster};
use kit::{ADMIN_TOKEN, GATEWAY_TOKEN, Gateway, TestServer, policy};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

fn server(forecaster: &Path, signing_key: Option<SigningKeyFile>) -> TestServer {
    let sandbox = Sandbox::new(forecaster, LIMITS);
    TestServer::with(
        Arc::new(MemoryStore::default()),
        Arc::new(AtomicU64::new(0)),
        sandbox,
        signing_key,
    )
}

async fn upload(server: &TestServer, model: &[u8]) -> (StatusCode, Value) {
    let (status, bytes) = server
        .request("POST", "/v1/models", ADMIN_TOKEN, model.to_vec())
        .await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn whatever_a_model_does_the_sandbox_ends_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), LIMITS);
    assert!(sandbox.check(b"a good model").unwrap().ok);
    assert!(!sandbox.check(b"refuse me").unwrap().ok);
    assert!(matches!(sandbox.check(b"trap"), Err(SandboxError::Trap(_))));
    assert!(matches!(
        sandbox.check(b"loop"),
        Err(SandboxError::TooLong {
            limit: "the instructions allowed"
        })
    ));
    assert!(matches!(
        sandbox.check(b"memory"),
        Err(SandboxError::Trap(_))
    ));
    assert!(matches!(
        sandbox.check(b"garbage"),
        Err(SandboxError::Unreadable(_))
    ));
    assert!(matches!(
        sandbox.check(b"points away"),
        Err(SandboxError::Unreadable(_))
    ));
    let exit = sandbox.check(b"exit").unwrap_err().to_string();
    assert!(exit.contains("exits with code 1"), "{exit}");
    let verdict = sandbox.check(b"and still works").unwrap();
    assert_eq!(verdict.facts["step_s"], 60);
}

#[test]
fn time_ends_what_fuel_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let limits = SandboxLimits {
        fuel: u64::MAX,
        time: Duration::from_millis(50),
        ..LIMITS
    };
    let sandbox = Sandbox::new(&fake_forecaster(directory.path()), limits);
    assert_eq!(
        sandbox.check(b"loop"),
        Err(SandboxError::TooLong {
            limit: "the time allowed"
        })
    );
    assert!(
        sandbox.check(b"a good model").unwrap().ok,
        "a stopped model stops no other"
    );
}

#[test]
fn what_is_no_forecaster_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forecaster.wasm");
    let sandbox = |wat: &str| {
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        Sandbox::new(&path, LIMITS)
            .check(b"model")
            .unwrap_err()
            .to_string()
    };
    assert!(sandbox("(module)").contains("exports no memory"));
    assert!(
        sandbox("(module (memory (export \"memory\") 1))").contains("no way to give it memory")
    );
    std::fs::write(&path, b"not wasm").unwrap();
    assert!(Sandbox::new(&path, LIMITS).check(b"model").is_err());
    let missing = Sandbox::new(Path::new("/nonexistent/f.wasm"), LIMITS)
        .check(b"model")
        .unwrap_err();
    assert!(
        missing.to_string().contains("--forecaster-wasm"),
        "{missing}"
    );
}

#[tokio::test]
async fn a_hostile_model_is_refused_and_the_running_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let key = generate_key(&directory.path().join("key")).unwrap();
    let server = server(&fake_forecaster(directory.path()), Some(key));
    let (_, good) = upload(&server, b"a good model").await;
    let digest = good["digest"].as_str().unwrap();
    server
        .ok(
            "POST",
            &format!("/v1/models/{digest}/activate"),
            Value::Null,
        )
        .await;
    for (model, says) in [
        (&b"trap"[..], "trap"),
        (b"loop", "more than the instructions allowed"),
        (b"memory", "trap"),
        (b"refuse", "output `quantiles` is missing"),
        (b"garbage", "no readable verdict"),
    ] {
        let (status, error) = upload(&server, model).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, Some("model_refused"))
        );
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
    }
    let (status, error) = upload(&server, &vec![0; (16 << 20) + 1]).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"))
    );
    let models = server.ok("GET", "/v1/models", Value::Null).await["models"].clone();
    assert_eq!(
        (models.as_array().unwrap().len(), &models[0]["active_epoch"]),
        (1, &json!(1))
    );
}

#[tokio::test]
async fn epochs_only_grow_and_a_roll_back_is_a_signed_release_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let key = generate_key(&directory.path().join("key")).unwrap();
    let public_key = key.public_key();
    let server = server(&fake_forecaster(directory.path()), Some(key));
    let mut digests = Vec::new();
    for model in [&b"first"[..], b"second"] {
        let (_, view) = upload(&server, model).await;
        digests.push(view["digest"].as_str().unwrap().to_owned());
    }
    assert_eq!(digests[0], hex(&digest_of(b"first")));
    let activate = |digest: &str| format!("/v1/models/{digest}/activate");
    let (_, error) = server
        .admin("POST", "/v1/models/rollback", Value::Null)
        .await;
    assert_eq!(error["code"], "nothing_to_roll_back_to");
    server.ok("POST", &activate(&digests[0]), Value::Null).await;
    let (_, error) = server
        .admin("POST", "/v1/models/rollback", json!({"digest": digests[1]}))
        .await;
    assert_eq!(error["code"], "never_ran");
    server.ok("POST", &activate(&digests[1]), Value::Null).await;
    let back = server.ok("POST", "/v1/models/rollback", Value::Null).await;
    assert_eq!(
        (&back["epoch"], &back["digest"], &back["roll_back"]),
        (&json!(3), &json!(digests[0]), &json!(true))
    );
    let log = server.ok("GET", "/v1/audit", Value::Null).await;
    let records = log["records"].as_array().unwrap().iter();
    let done = records.map(|record| {
        let field = |name: &str| record[name].as_str().unwrap().to_owned();
        (field("action"), field("object"), field("outcome"))
    });
    let model =
        |digest: usize, epoch: u64| format!("model {} under epoch {epoch}", digests[digest]);
    let record = |action: &str, object: &str, outcome: String| {
        (action.to_owned(), object.to_owned(), outcome)
    };
    assert_eq!(
        done.collect::<Vec<_>>(),
        [
            record("model.upload", &digests[0], "in the registry".to_owned()),
            record("model.upload", &digests[1], "in the registry".to_owned()),
            record("model.activate", &digests[0], model(0, 1)),
            record("model.activate", &digests[1], model(1, 2)),
            record("model.rollback", "the model before", model(0, 3)),
        ]
    );
    let server = server.killed();
    server.ok("POST", "/v1/policies", policy()).await;
    let release = Gateway::new("g", 1).sync(&server).await.model.unwrap();
    let statement = ModelStatement {
        digest: digest_of(b"first"),
        epoch: 3,
        kind: ReleaseKind::RollBack,
    };
    assert_eq!(
        (release.epoch, ReleaseKind::from_code(release.kind)),
        (3, Some(ReleaseKind::RollBack))
    );
    assert!(verify(
        &public_key,
        &statement,
        &release.signature.as_slice().try_into().unwrap()
    ));
    let (status, file) = server
        .request("GET", &release.path, GATEWAY_TOKEN, Vec::new())
        .await;
    assert_eq!(
        (status, file.as_slice(), release.bytes),
        (StatusCode::OK, &b"first"[..], 5)
    );
    let (_, error) = server
        .admin("POST", &activate(&"0".repeat(64)), Value::Null)
        .await;
    assert_eq!(error["code"], "no_such_model");
    let (_, error) = server.admin("POST", &activate("xyz"), Value::Null).await;
    assert_eq!(error["where"], "digest");
}

#[tokio::test]
async fn a_signature_made_elsewhere_must_fit() {
    let directory = tempfile::tempdir().unwrap();
    let key = generate_key(&directory.path().join("key")).unwrap();
    let server = server(&fake_forecaster(directory.path()), None);
    let (_, view) = upload(&server, b"a model").await;
    let digest = view["digest"].as_str().unwrap().to_owned();
    let path = format!("/v1/models/{digest}/activate");
    let (_, error) = server.admin("POST", &path, Value::Null).await;
    assert_eq!(error["code"], "not_signed");
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains(&format!("--digest {digest} --epoch 1")),
        "{error}"
    );
    let signed = |key: &SigningKeyFile, epoch: u64| {
        let statement = ModelStatement {
            digest: from_hex(&digest).unwrap(),
            epoch,
            kind: ReleaseKind::Release,
        };
        json!({"epoch": epoch, "signature": hex(&sign(key, &statement))})
    };
    server.ok("POST", &path, signed(&key, 5)).await;
    let (_, error) = server.admin("POST", &path, signed(&key, 5)).await;
    assert_eq!(
        (error["code"].as_str(), error["where"].as_str()),
        (Some("stale_epoch"), Some("epoch"))
    );
    let (status, error) = server.admin("POST", &path, signed(&key, u64::MAX)).await;
    assert_eq!(
        (status.as_u16(), error["code"].as_str()),
        (422, Some("bad_epoch"))
    );
    let (_, error) = server.admin("POST", &path, json!({"epoch": 9})).await;
    assert_eq!(error["where"], "signature");
    let with_key = self::server(&fake_forecaster(directory.path()), Some(key.clone()));
    upload(&with_key, b"a model").await;
    let other = generate_key(&directory.path().join("other")).unwrap();
    let (status, error) = with_key.admin("POST", &path, signed(&other, 1)).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("bad_signature"))
    );
}

/// The real forecaster judges. `make test` builds it first; alone, this test says loudly that it did nothing.
#[test]
fn the_real_forecaster_refuses_what_is_no_model() {
    let path = std::env::var_os("FOREBAY_FORECASTER_WASM").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/wasm/forecaster.wasm"),
        PathBuf::from,
    );
    if !path.exists() {
        eprintln!(
            "\n*** SKIPPED: {} is missing, so the real sandbox was NOT tested; run `cargo xtask wasm` ***\n",
            path.display()
        );
        return;
    }
    let sandbox = Sandbox::new(&path, SandboxLimits::default());
    for garbage in [&b""[..], b"not a model", &[0x08; 1000], &[0xff; 100_000]] {
        let verdict = sandbox.check(garbage);
        assert!(
            verdict
                .as_ref()
                .is_ok_and(|verdict| !verdict.ok && !verdict.message.is_empty()),
            "{verdict:?}"
        );
    }
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let committed = std::fs::read_dir(models)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for model in committed.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "onnx")
    }) {
        let verdict = sandbox.check(&std::fs::read(&model).unwrap()).unwrap();
        assert!(verdict.ok, "{}: {verdict:?}", model.display());
    }
}
