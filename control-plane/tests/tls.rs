//! TLS on the real server: who gets in with which certificate, and what a client that is slow or hostile costs the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod pki;
mod process;

use forebay_wire::key::KeySecret;
use forebay_wire::sync::{PROTOCOL, SyncRequest};
use pki::{Ca, Client, Files, Pair, Wanted, config, connect};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process};
use prost::Message;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATTERNS: [&str; 2] = [
    "spiffe://example.org/ns/*/sa/gateway",
    "spiffe://example.org/gateway/{gateway}",
];

/// What is asked for with each certificate, always as the gateway g1: method, path, token.
const REQUESTS: [(&str, &str, Option<&str>); 9] = [
    ("GET", "/healthz", None),
    ("POST", "/v1/sync", None),
    ("POST", "/v1/sync", Some(GATEWAY_TOKEN)),
    ("POST", "/v1/sync", Some(ADMIN_TOKEN)),
    ("POST", "/v1/sync", Some("nobody's")),
    ("GET", MODEL, None),
    ("GET", "/v1/status", None),
    ("GET", "/v1/status", Some(GATEWAY_TOKEN)),
    ("GET", "/v1/status", Some(ADMIN_TOKEN)),
];

const MODEL: &str = "/v1/models/0000000000000000000000000000000000000000000000000000000000000000";

/// Statuses of a server that has no policy, so that a sync that is let through ends with 409, and no model.
const NOTHING_SHOWN: [u16; 9] = [200, 401, 409, 403, 403, 401, 401, 403, 200];
const NO_GATEWAY: [u16; 9] = [200, 403, 409, 403, 403, 403, 401, 403, 200];
const GATEWAY: [u16; 9] = [200, 409, 409, 403, 403, 404, 401, 403, 200];
/// A gateway, but not g1.
const OTHER_GATEWAY: [u16; 9] = [200, 403, 403, 403, 403, 404, 401, 403, 200];

/// What is shown, and the statuses; `None` if the handshake fails.
type Case = (&'static str, Option<Pair>, Option<[u16; 9]>);

/// Of the gateway g1.
fn sync_body() -> Vec<u8> {
    let request = SyncRequest {
        protocol: PROTOCOL,
        gateway_id: "g1".to_owned(),
        incarnation: 7,
        sequence: 1,
        key_fingerprint: KeySecret::development().fingerprint(),
        ..SyncRequest::default()
    };
    request.encode_to_vec()
}

async fn start(folder: &std::path::Path, options: &[String]) -> Process {
    Process::start_with_options("--data", folder.as_os_str(), options, true).await
}

fn bearer(token: Option<&str>) -> Option<String> {
    token.map(|token| format!("Bearer {token}"))
}

#[tokio::test]
async fn a_certificate_opens_what_its_name_allows_and_nothing_else() {
    let (ca, stranger) = (Ca::new("ours"), Ca::new("another"));
    let files = Files::new(&ca.server(), &ca);
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &files.options_with(&PATTERNS)).await;
    let g1 = "spiffe://example.org/gateway/g1";
    let now = SystemTime::now();
    let hour = Duration::from_secs(3_600);
    let uris = [g1];
    let wanted = Wanted::client(&uris);
    let cases: [Case; 25] = [
        ("nothing", None, Some(NOTHING_SHOWN)),
        ("its own id", Some(ca.client(&[g1])), Some(GATEWAY)),
        (
            "any id",
            Some(ca.client(&["spiffe://example.org/ns/edge/sa/gateway"])),
            Some(GATEWAY),
        ),
        (
            "the id of another one",
            Some(ca.client(&["spiffe://example.org/gateway/g2"])),
            Some(OTHER_GATEWAY),
        ),
        (
            "an id that begins alike",
            Some(ca.client(&["spiffe://example.org/gateway/g11"])),
            Some(OTHER_GATEWAY),
        ),
        (
            "an id in capitals",
            Some(ca.client(&["spiffe://example.org/gateway/G1"])),
            Some(OTHER_GATEWAY),
        ),
        ("no URI", Some(ca.client(&[])), Some(NO_GATEWAY)),
        (
            "two URIs",
            Some(ca.client(&[g1, "spiffe://example.org/gateway/g2"])),
            Some(NO_GATEWAY),
        ),
        (
            "one URI twice",
            Some(ca.client(&[g1, g1])),
            Some(NO_GATEWAY),
        ),
        (
            "a URI beside it that is no name",
            Some(ca.client(&[g1, "https://example.org"])),
            Some(NO_GATEWAY),
        ),
        (
            "another service account",
            Some(ca.client(&["spiffe://example.org/ns/edge/sa/web"])),
            Some(NO_GATEWAY),
        ),
        (
            "another trust domain",
            Some(ca.client(&["spiffe://example.com/gateway/g1"])),
            Some(NO_GATEWAY),
        ),
        (
            "a trust domain in capitals",
            Some(ca.client(&["spiffe://EXAMPLE.org/gateway/g1"])),
            Some(NO_GATEWAY),
        ),
        (
            "another case",
            Some(ca.client(&["spiffe://example.org/Gateway/g1"])),
            Some(NO_GATEWAY),
        ),
        (
            "a longer path",
            Some(ca.client(&["spiffe://example.org/gateway/g1/more"])),
            Some(NO_GATEWAY),
        ),
        (
            "a slash at the end",
            Some(ca.client(&["spiffe://example.org/gateway/g1/"])),
            Some(NO_GATEWAY),
        ),
        (
            "a shorter path",
            Some(ca.client(&["spiffe://example.org/gateway"])),
            Some(NO_GATEWAY),
        ),
        (
            "the pattern itself",
            Some(ca.client(&["spiffe://example.org/gateway/{gateway}"])),
            Some(NO_GATEWAY),
        ),
        (
            "another scheme",
            Some(ca.client(&["https://example.org/gateway/g1"])),
            Some(NO_GATEWAY),
        ),
        ("another CA", Some(stranger.client(&[g1])), None),
        ("no CA", Some(Pair::self_signed(&wanted)), None),
        (
            "expired",
            Some(ca.issue(&Wanted {
                begins: now - 2 * hour,
                ends: now - hour,
                ..wanted.clone()
            })),
            None,
        ),
        (
            "not yet good",
            Some(ca.issue(&Wanted {
                begins: now + hour,
                ends: now + 2 * hour,
                ..wanted.clone()
            })),
            None,
        ),
        (
            "of a server",
            Some(ca.issue(&Wanted {
                usage: ExtendedKeyUsagePurpose::ServerAuth,
                ..wanted.clone()
            })),
            None,
        ),
        (
            "of a CA",
            Some(ca.issue(&Wanted {
                is_ca: true,
                ..wanted.clone()
            })),
            None,
        ),
    ];
    for (what, shown, expected) in &cases {
        for version in [&TLS12, &TLS13] {
            let mut statuses = Vec::new();
            for (method, path, token) in REQUESTS {
                let shown = shown.as_ref();
                let client =
                    Client::connect_by(&server.address, &ca.pem(), shown, &[version]).await;
                let Some(mut client) = client else {
                    continue;
                };
                let bearer = bearer(token);
                let headers: Vec<(&str, &str)> = bearer
                    .iter()
                    .map(|bearer| ("authorization", bearer.as_str()))
                    .collect();
                let answer = client.ask(method, path, &headers, sync_body()).await;
                statuses.extend(answer.map(|(status, _)| status));
            }
            let expected = expected.map(|statuses| statuses.to_vec());
            assert_eq!(
                statuses,
                expected.unwrap_or_default(),
                "{what}, {version:?}"
            );
        }
    }
}

/// The refusal of a request with a certificate.
async fn refusal(server: &Process, ca: &Ca, shown: Option<&Pair>, path: &str) -> String {
    let mut client = Client::connect(&server.address, &ca.pem(), shown)
        .await
        .unwrap();
    let (_, body) = client.ask("POST", path, &[], sync_body()).await.unwrap();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn a_gateway_that_is_refused_is_told_which_name_it_has_and_which_it_should_have() {
    let ca = Ca::new("ours");
    let files = Files::new(&ca.server(), &ca);
    let data = tempfile::tempdir().unwrap();
    let options = files.options_with(&PATTERNS);
    let server =
        Process::start_with_options("--data", data.path().as_os_str(), &options, false).await;
    let web = ca.client(&["spiffe://example.org/ns/edge/sa/web"]);
    let g2 = ca.client(&["spiffe://example.org/gateway/g2"]);
    for (shown, says) in [
        (None, vec!["no_token"]),
        (
            Some(&web),
            vec![
                "wrong_certificate",
                "spiffe://example.org/ns/edge/sa/web",
                PATTERNS[0],
                PATTERNS[1],
            ],
        ),
        (Some(&g2), vec!["spiffe://example.org/gateway/g2", "`g2`"]),
    ] {
        let said = refusal(&server, &ca, shown, "/v1/sync").await;
        for part in says {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let mut client = Client::connect(&server.address, &ca.pem(), None)
        .await
        .unwrap();
    let (_, metrics) = client
        .ask("GET", "/metrics", &[], Vec::new())
        .await
        .unwrap();
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let counted = "forebay_requests_refused_total{code=\"wrong_certificate\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn without_a_token_for_gateways_only_certificates_let_them_in() {
    let ca = Ca::new("ours");
    let files = Files::new(&ca.server(), &ca);
    let data = tempfile::tempdir().unwrap();
    let options = files.options_with(&PATTERNS);
    let server =
        Process::start_with_options("--data", data.path().as_os_str(), &options, false).await;
    let g1 = ca.client(&["spiffe://example.org/gateway/g1"]);
    for (shown, token, expected) in [
        (None, None, 401),
        (None, Some(GATEWAY_TOKEN), 403),
        (Some(&g1), Some(GATEWAY_TOKEN), 403),
        (Some(&g1), None, 409),
    ] {
        let mut client = Client::connect(&server.address, &ca.pem(), shown)
            .await
            .unwrap();
        let bearer = bearer(token);
        let headers: Vec<(&str, &str)> = bearer
            .iter()
            .map(|bearer| ("authorization", bearer.as_str()))
            .collect();
        let (status, said) = client
            .ask("POST", "/v1/sync", &headers, sync_body())
            .await
            .unwrap();
        assert_eq!(status, expected, "{token:?} {said:?}");
    }
}

#[tokio::test]
async fn no_session_is_taken_up_again_without_its_certificate_being_verified() {
    let ca = Ca::new("ours");
    let files = Files::new(&ca.server(), &ca);
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &files.options_with(&PATTERNS)).await;
    let g1 = ca.client(&["spiffe://example.org/gateway/g1"]);
    for version in [&TLS12, &TLS13] {
        let config = config(&ca.pem(), Some(&g1), &[version]);
        for _ in 0..3 {
            let mut stream = connect(&server.address, config.clone()).await.unwrap();
            // Tickets come with the first answer.
            let request = b"GET /healthz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        }
    }
}

/// A connection, which a server that is busy with others would not take in.
async fn open(address: &str) -> TcpStream {
    let stream = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address));
    stream
        .await
        .expect("others are taken in meanwhile")
        .unwrap()
}

#[tokio::test]
async fn half_open_and_garbled_handshakes_end_by_themselves_and_keep_nobody_waiting() {
    let ca = Ca::new("ours");
    let files = Files::new(&ca.server(), &ca);
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &files.server_options()).await;
    let mut half_open = Vec::new();
    // A first part of a ClientHello, or nothing.
    for beginning in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b""].repeat(150) {
        let mut stream = open(&server.address).await;
        stream.write_all(beginning).await.unwrap();
        half_open.push(stream);
    }
    for garbage in [
        b"GET / HTTP/1.1\r\nhost: here\r\n\r\n".as_slice(),
        &[0; 4_096],
        &[0x16; 70_000],
    ] {
        let mut stream = open(&server.address).await;
        // The server may have closed it before all is written.
        drop(stream.write_all(garbage).await);
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
        drop(closed.expect("the server closes the connection at once"));
        let said = answer.escape_ascii().to_string();
        assert!(!said.contains("HTTP"), "{said}");
    }
    let ca_pem = ca.pem();
    let served = async {
        let client = Client::connect(&server.address, &ca_pem, None).await;
        assert!(client.unwrap().is_answered().await);
    };
    let served = tokio::time::timeout(Duration::from_secs(5), served).await;
    served.expect("others are served meanwhile");
    for mut stream in half_open {
        let mut end = Vec::new();
        let closed = stream.read_to_end(&mut end);
        let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
        drop(closed.expect("the server closes the connection"));
    }
    let mut client = Client::connect(&server.address, &ca.pem(), None)
        .await
        .unwrap();
    let metrics = client.ask("GET", "/metrics", &[], Vec::new()).await;
    let metrics = String::from_utf8(metrics.unwrap().1.to_vec()).unwrap();
    let failed = metrics
        .lines()
        .find_map(|line| line.strip_prefix("forebay_tls_handshakes_failed_total "));
    let failed: u64 = failed.unwrap().parse().unwrap();
    // On a busy machine one that meant well may have been too slow as well.
    assert!(failed >= 303, "{metrics}");
}

/// What `forebay` prints, and whether it succeeds.
async fn forebay(arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(arguments)
        .env_clear()
        .env("FOREBAY_ADMIN_TOKEN", ADMIN_TOKEN)
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output).await;
    let output = output
        .unwrap_or_else(|_| panic!("{arguments:?} does not end"))
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.success(), said)
}

#[tokio::test]
async fn the_command_line_speaks_tls_with_a_server_that_proves_who_it_is_and_with_no_other() {
    let (ca, stranger) = (Ca::new("ours"), Ca::new("another"));
    let files = Files::new(&ca.server(), &ca);
    files.put("stranger.pem", &stranger.pem());
    files.put("empty.pem", "");
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path(), &files.server_options()).await;
    let url = format!("https://{}", server.address);
    let port = server.address.rsplit_once(':').unwrap().1;
    let by_name = format!("https://localhost:{port}");
    let plain = format!("http://{}", server.address);
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (ca_pem, stranger_pem) = (path("ca.pem"), path("stranger.pem"));
    for (url, ca, says) in [
        (&url, Some(&ca_pem), None),
        (&url, Some(&stranger_pem), Some("does not prove who it is")),
        (&by_name, Some(&ca_pem), Some("does not prove who it is")),
        (&url, None, Some("--tls-ca FILE")),
        (&url, Some(&path("empty.pem")), Some("there is none in it")),
        (&url, Some(&path("missing")), Some("cannot read")),
        (&plain, None, Some("cannot reach the server")),
        (&"ftp://here".to_owned(), None, Some("http:// or https://")),
    ] {
        let mut arguments = vec!["--server", url, "status"];
        if let Some(ca) = ca {
            arguments.extend(["--tls-ca", ca]);
        }
        let (is_well, said) = forebay(&arguments, &[]).await;
        assert_eq!(is_well, says.is_none(), "{url} {ca:?}: {said}");
        assert!(said.contains(says.unwrap_or("uptime_s")), "{said}");
    }
    let environment = [
        ("FOREBAY_SERVER", url.as_str()),
        ("FOREBAY_TLS_CA", &ca_pem),
    ];
    let (is_well, said) = forebay(&["status"], &environment).await;
    assert!(is_well, "{said}");
}

#[tokio::test]
async fn options_that_contradict_each_other_or_files_that_do_are_refused_before_a_store_is_opened()
{
    let (ca, stranger) = (Ca::new("ours"), Ca::new("another"));
    let files = Files::new(&ca.server(), &ca);
    files.put("other.key", &stranger.server().key);
    files.put(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n",
    );
    files.put("empty.pem", "");
    let now = SystemTime::now();
    let expired = ca.issue(&Wanted {
        begins: now - Duration::from_secs(7_200),
        ends: now - Duration::from_secs(3_600),
        ..Wanted::server()
    });
    files.put("expired.pem", &expired.certificate);
    files.put("expired.key", &expired.key);
    let (cert, key) = (("--tls-cert", "server.pem"), ("--tls-key", "server.key"));
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("store");
    let redis = ["--store", "redis://127.0.0.1:1"];
    let embedded = ["--data", folder.to_str().unwrap()];
    let name = ["--tls-gateway-name", PATTERNS[0]];
    let none: [&str; 0] = [];
    for (named, more, store, says) in [
        (vec![cert], &none[..], embedded, "--tls-key"),
        (vec![key], &none, embedded, "--tls-cert"),
        (
            vec![("--tls-client-ca", "ca.pem")],
            &name,
            embedded,
            "--tls-cert",
        ),
        (
            vec![cert, key, ("--tls-client-ca", "ca.pem")],
            &none,
            embedded,
            "--tls-gateway-name",
        ),
        (vec![cert, key], &name, embedded, "--tls-client-ca"),
        (
            vec![cert, key, ("--tls-replica-ca", "ca.pem")],
            &none,
            embedded,
            "--data",
        ),
        (vec![cert, key], &none, redis, "--tls-replica-ca FILE"),
        (
            vec![cert, key, ("--tls-client-ca", "ca.pem")],
            &["--tls-gateway-name", "spiffe://example.org/gate*"],
            embedded,
            "looks like spiffe://",
        ),
        (
            vec![cert, ("--tls-key", "other.key")],
            &none,
            embedded,
            "is not that of the first certificate",
        ),
        (
            vec![cert, ("--tls-key", "server.pem")],
            &none,
            embedded,
            "unencrypted private key",
        ),
        (
            vec![cert, ("--tls-key", "missing")],
            &none,
            embedded,
            "cannot read",
        ),
        (
            vec![("--tls-cert", "server.key"), key],
            &none,
            embedded,
            "there is none in it",
        ),
        (
            vec![("--tls-cert", "broken.pem"), key],
            &none,
            embedded,
            "is broken",
        ),
        (
            vec![("--tls-cert", "expired.pem"), ("--tls-key", "expired.key")],
            &none,
            embedded,
            "has expired",
        ),
        (
            vec![cert, key, ("--tls-client-ca", "empty.pem")],
            &name,
            embedded,
            "there is none in it",
        ),
    ] {
        let options = files.options(&named);
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
        arguments.extend(options.iter().map(String::as_str));
        arguments.extend(more.iter().copied().chain(store));
        let (is_well, said) =
            forebay(&arguments, &[("FOREBAY_GATEWAY_TOKEN", GATEWAY_TOKEN)]).await;
        assert!(!is_well && said.contains(says), "{says}: {said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
        assert!(!folder.exists(), "{says}");
    }
    // Neither token nor names: nobody could sync.
    let (is_well, said) = forebay(&["serve", "--data", embedded[1]], &[]).await;
    assert!(!is_well && said.contains("--gateway-token"), "{said}");
}
