//! The configurations in README and guide are run as they stand: what a reader pastes must work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::client::CUSTOMER_HEADER;
use crate::http::Endpoint;
use crate::places::{root, target};
use crate::processes::Process;
use crate::upstream::Upstream;

/// The first block of this language in a document.
fn block(document: &str, language: &str) -> String {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let (_, after) = text.split_once(&format!("```{language}\n")).unwrap();
    after.split_once("```").unwrap().0.to_owned()
}

async fn status(address: std::net::SocketAddr, customer: &str) -> Option<StatusCode> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "readme")
        .header(CUSTOMER_HEADER, customer);
    let response = sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await
        .ok()?;
    let (parts, body) = response.into_parts();
    body.collect().await.ok()?;
    if parts.status == StatusCode::TOO_MANY_REQUESTS {
        assert!(
            parts.headers.contains_key("retry-after"),
            "a denial says when to come back"
        );
    }
    Some(parts.status)
}

/// Envoy's listeners, once it is ready.
async fn ready(process: &mut Process, admin_file: &Path) -> std::net::SocketAddr {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        process.check().unwrap();
        assert!(
            Instant::now() < deadline,
            "Envoy is not ready:\n{}",
            process.log_tail()
        );
        if let Some(address) = fs::read_to_string(admin_file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
        {
            let admin = Endpoint {
                address,
                token: None,
            };
            if admin.get("/ready").await.is_ok() {
                let listeners = admin.get_json("/listeners?format=json").await.unwrap();
                let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
                return (
                    [127, 0, 0, 1],
                    u16::try_from(port.as_u64().unwrap()).unwrap(),
                )
                    .into();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_configuration_of_the_readme_limits_each_customer_to_its_contract() {
    let upstream = Upstream::start(1_000.0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let module = target().join("wasm/admission.wasm");
    assert!(
        module.exists(),
        "{} is missing: run `make wasm`",
        module.display()
    );
    // Only what belongs to the reader's machine is replaced: ports, and the folder that Envoy is started in.
    let configuration = block("README.md", "yaml")
        .replace("port_value: 10000", "port_value: 0")
        .replace(
            "port_value: 8080",
            &format!("port_value: {}", upstream.address.port()),
        )
        .replace("target/wasm/admission.wasm", &module.display().to_string());
    let (file, admin_file) = (
        folder.path().join("envoy.yaml"),
        folder.path().join("admin.txt"),
    );
    fs::write(&file, format!("admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}\n{configuration}")).unwrap();
    let envoy = root().join(".tools/bin/envoy");
    let mut process = Process::start(
        "envoy",
        &envoy,
        &folder.path().join("envoy.log"),
        |command| {
            command
                .arg("-c")
                .arg(&file)
                .arg("--disable-hot-restart")
                .arg("--admin-address-path")
                .arg(&admin_file);
        },
    )
    .unwrap();
    let address = ready(&mut process, &admin_file).await;
    let mut admitted = [0, 0];
    for _ in 0..20 {
        for (customer, admitted) in ["acme", "somebody"].iter().zip(&mut admitted) {
            match status(address, customer).await {
                Some(StatusCode::OK) => *admitted += 1,
                Some(StatusCode::TOO_MANY_REQUESTS) => {}
                other => panic!("{customer}: {other:?}\n{}", process.log_tail()),
            }
        }
    }
    assert_eq!(admitted[0], 20, "within the burst of 200");
    assert!(
        (5..15).contains(&admitted[1]),
        "a burst of 5 and 1 per second: {}",
        admitted[1]
    );
}

#[test]
fn the_policy_of_the_guide_is_a_good_policy() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("policy.yaml");
    fs::write(&file, block("docs/guide/policy.md", "yaml")).unwrap();
    let forebay = target().join("debug/forebay");
    let output = Command::new(&forebay)
        .args(["policy", "check"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
