//! envoy/control-plane-mtls.yaml in a real Envoy: it shows its certificate to a real server and takes it for the control plane
//! only if its certificate says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod pki;
mod process;

use pki::{Ca, Files};
use process::{Process, send};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

/// A proxy to the cluster of the example, which in place of a forecaster passes on what it is sent.
fn bootstrap(server: &str, files: &Files, folder: &Path) -> String {
    let example = pki::text(&root().join("envoy/control-plane-mtls.yaml"));
    assert!(example.contains("/etc/forebay/tls/tls.crt"));
    let tls = files.path("").to_str().unwrap().to_owned();
    let example = example
        .replace("/etc/forebay/tls/tls.crt", &format!("{tls}client.pem"))
        .replace("/etc/forebay/tls/tls.key", &format!("{tls}client.key"))
        .replace("/etc/forebay/tls/ca.crt", &format!("{tls}ca.pem"))
        .replace("/etc/forebay/tls", &tls);
    let (_, port) = server.rsplit_once(':').unwrap();
    let example = example.replace("port_value: 7430", &format!("port_value: {port}"));
    let loopback = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let listener = json!([{
        "name": "proxy",
        "address": loopback,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": HCM,
                "stat_prefix": "proxy",
                "route_config": {"virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "control_plane"}}],
                }]},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
            },
        }]}],
    }]);
    let admin = json!({"address": loopback});
    // The example is the last part of a document of which JSON is the first.
    let path = folder.join("envoy.yaml");
    let text = format!("admin: {admin}\n{example}\n  listeners: {listener}\n");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Envoy {
    _process: Child,
    address: String,
    admin: String,
}

impl Envoy {
    async fn start(bootstrap: &str, folder: &Path) -> Self {
        let addresses = folder.join("admin");
        let log = std::fs::File::create(folder.join("envoy.log")).unwrap();
        let process = Command::new(root().join(".tools/bin/envoy"))
            .args(["--config-path", bootstrap, "--use-dynamic-base-id"])
            .args(["--concurrency", "1", "--admin-address-path"])
            .arg(&addresses)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy is there after `make setup`");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let admin = std::fs::read_to_string(&addresses).unwrap_or_default();
            if let Some((200, body)) = get(&admin, "/listeners?format=json").await
                && let Ok(listeners) = serde_json::from_slice::<Value>(&body)
                && let Some(port) = listeners["listener_statuses"][0]["local_address"]
                    ["socket_address"]["port_value"]
                    .as_u64()
            {
                return Self {
                    _process: process,
                    address: format!("127.0.0.1:{port}"),
                    admin,
                };
            }
            let said = || pki::text(&folder.join("envoy.log"));
            assert!(Instant::now() < deadline, "{}", said());
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn get(address: &str, path: &str) -> Option<(u16, bytes::Bytes)> {
    send(address, "GET", path, "none", Vec::new()).await
}

/// A body that is no sync: it is refused as such by a server that takes the sender for a gateway.
async fn status_of_a_sync(envoy: &Envoy) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect(&envoy.address).await;
    let stream = hyper_util::rt::TokioIo::new(stream.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::post("/v1/sync")
        .header("host", "forebay-control-plane")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(
            b"no sync",
        )))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    let body = body.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Status, body, and how often Envoy found that the server has another name.
async fn through_envoy(name: &str, is_control_plane: bool) -> (u16, String, u64) {
    let ca = Ca::new("ours");
    let server = if is_control_plane {
        ca.server()
    } else {
        ca.issue(&pki::Wanted {
            uris: &["spiffe://example.org/web"],
            is_on_loopback: false,
            ..pki::Wanted::server()
        })
    };
    let files = Files::new(&server, &ca);
    let gateway = ca.client(&[name]);
    files.put("client.pem", &gateway.certificate);
    files.put("client.key", &gateway.key);
    let folder = tempfile::tempdir().unwrap();
    let options = files.options_with(&["spiffe://example.org/gateway/{gateway}"]);
    let store = folder.path().join("store");
    let server = Process::start_with_options("--data", store.as_os_str(), &options, false).await;
    let bootstrap = bootstrap(&server.address, &files, folder.path());
    let envoy = Envoy::start(&bootstrap, folder.path()).await;
    let (status, said) = status_of_a_sync(&envoy).await;
    let stats = get(&envoy.admin, "/stats?filter=fail_verify_san").await;
    let stats = String::from_utf8(stats.unwrap().1.to_vec()).unwrap();
    let of_cluster = "cluster.control_plane.ssl.fail_verify_san: ";
    let others = stats
        .lines()
        .find_map(|line| line.strip_prefix(of_cluster))
        .unwrap();
    (status, said, others.parse().unwrap())
}

#[tokio::test]
async fn envoy_with_the_configuration_of_the_example_is_a_gateway_by_its_certificate() {
    let (status, said, _) = through_envoy("spiffe://example.org/gateway/g1", true).await;
    assert_eq!(status, 400, "{said}");
    let (status, said, _) = through_envoy("spiffe://example.org/web", true).await;
    assert_eq!(status, 403, "{said}");
}

#[tokio::test]
async fn envoy_with_the_configuration_of_the_example_tells_the_control_plane_from_others() {
    let (status, said, others) = through_envoy("spiffe://example.org/gateway/g1", false).await;
    assert_eq!(status, 503, "{said}");
    assert!(others > 0, "{said}");
}
