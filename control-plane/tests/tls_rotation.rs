//! Certificates that change, break or expire while the real server runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod pki;
mod process;

use pki::{Ca, Client, Files, Pair, Wanted, config, connect};
use process::Process;
use std::time::{Duration, Instant, SystemTime};

/// The server looks at its files each 2 s.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

const PATTERN: &str = "spiffe://example.org/gateway/{gateway}";
const G1: &str = "spiffe://example.org/gateway/g1";

struct Server {
    process: Process,
    files: Files,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start(server: &Pair, ca: &Ca) -> Self {
        let files = Files::new(server, ca);
        let data = tempfile::tempdir().unwrap();
        let options = files.options_with(&[PATTERN]);
        Self {
            process: Process::start_with_options("--data", data.path().as_os_str(), &options, true)
                .await,
            files,
            _data: data,
        }
    }

    /// The certificate that new connections are shown.
    async fn shows(&self, ca: &Ca) -> Option<Vec<u8>> {
        let all = rustls::ALL_VERSIONS;
        let stream = connect(&self.process.address, config(&ca.pem(), None, all)).await;
        let stream = stream.ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?;
        Some(shown.to_vec())
    }

    async fn client(&self, ca: &Ca, shown: Option<&Pair>) -> Option<Client> {
        let mut client = Client::connect(&self.process.address, &ca.pem(), shown).await?;
        client.is_answered().await.then_some(client)
    }

    async fn metric(&self, ca: &Ca, name: &str) -> u64 {
        let mut client = self.client(ca, None).await.unwrap();
        let metrics = client.ask("GET", "/metrics", &[], Vec::new()).await;
        let text = String::from_utf8(metrics.unwrap().1.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

const FAILURES: &str = "forebay_tls_reload_failures_total ";
const EXPIRES: &str = "forebay_tls_certificate_expires_seconds ";

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_ends_no_old_one() {
    let ca = Ca::new("ours");
    let server = Server::start(&ca.server(), &ca).await;
    let g1 = ca.client(&[G1]);
    let mut old = server.client(&ca, Some(&g1)).await.unwrap();
    let before = server.shows(&ca).await.unwrap();
    let expired_first = server.metric(&ca, EXPIRES).await;
    let next = ca.issue(&Wanted {
        ends: SystemTime::now() + Duration::from_secs(7_200),
        ..Wanted::server()
    });
    server.files.put_server(&next);
    until("the new certificate is shown", async || {
        server.shows(&ca).await.unwrap() != before
    })
    .await;
    assert!(server.metric(&ca, EXPIRES).await > expired_first);
    assert!(old.is_answered().await, "the connection goes on");
}

#[tokio::test]
async fn files_that_are_broken_change_nothing_and_are_counted_until_they_are_repaired() {
    let ca = Ca::new("ours");
    let server = Server::start(&ca.server(), &ca).await;
    let before = server.shows(&ca).await.unwrap();
    let g1 = ca.client(&[G1]);
    let mut old = server.client(&ca, Some(&g1)).await.unwrap();
    let good = |name: &str| pki::text(&server.files.path(name));
    let (certificate, key, ca_pem) = (good("server.pem"), good("server.key"), good("ca.pem"));
    let other = ca.server();
    for (name, broken, repaired) in [
        (
            "server.pem",
            certificate[..certificate.len() / 2].to_owned(),
            &certificate,
        ),
        ("server.pem", String::new(), &certificate),
        ("server.pem", other.certificate, &certificate),
        ("server.key", other.key, &key),
        ("server.key", "x".repeat(1_000), &key),
        ("ca.pem", String::new(), &ca_pem),
        ("ca.pem", key.clone(), &ca_pem),
    ] {
        let failures = server.metric(&ca, FAILURES).await;
        server.files.put(name, &broken);
        until("it is noticed", async || {
            server.metric(&ca, FAILURES).await > failures
        })
        .await;
        assert_eq!(server.shows(&ca).await.as_ref(), Some(&before));
        assert!(server.client(&ca, Some(&g1)).await.is_some());
        assert!(old.is_answered().await);
        server.files.put(name, repaired);
    }
    std::fs::remove_file(server.files.path("server.key")).unwrap();
    let failures = server.metric(&ca, FAILURES).await;
    until("it is noticed", async || {
        server.metric(&ca, FAILURES).await > failures
    })
    .await;
    server.files.put_server(&ca.server());
    until("the repaired files are in force", async || {
        server.shows(&ca).await.unwrap() != before
    })
    .await;
    let failures = server.metric(&ca, FAILURES).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.metric(&ca, FAILURES).await, failures);
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_expires() {
    let ca = Ca::new("ours");
    let server = Server::start(&ca.server(), &ca).await;
    let ends = SystemTime::now() + Duration::from_secs(10);
    let short = ca.issue(&Wanted {
        ends,
        ..Wanted::client(&[G1])
    });
    let mut with_short = server.client(&ca, Some(&short)).await.unwrap();
    let mut with_long = server.client(&ca, Some(&ca.client(&[G1]))).await.unwrap();
    let mut with_none = server.client(&ca, None).await.unwrap();
    until("the connection is closed", async || {
        !with_short.is_answered().await
    })
    .await;
    let now = SystemTime::now();
    // Certificates know whole seconds only.
    assert!(
        now > ends - Duration::from_secs(1),
        "it was good until then"
    );
    assert!(now < ends + Duration::from_secs(15));
    assert!(with_long.is_answered().await && with_none.is_answered().await);
    assert!(server.client(&ca, Some(&short)).await.is_none());
}

#[tokio::test]
async fn a_ca_that_is_taken_out_ends_the_connections_of_its_certificates_and_one_that_is_added_none()
 {
    let (ca, new_ca) = (Ca::new("ours"), Ca::new("the next"));
    let server = Server::start(&ca.server(), &ca).await;
    let (of_old, of_new) = (ca.client(&[G1]), new_ca.client(&[G1]));
    let mut old = server.client(&ca, Some(&of_old)).await.unwrap();
    assert!(server.client(&ca, Some(&of_new)).await.is_none());
    let both = format!("{}{}", ca.pem(), new_ca.pem());
    server.files.put("ca.pem", &both);
    until("the new CA is believed", async || {
        server.client(&ca, Some(&of_new)).await.is_some()
    })
    .await;
    assert!(old.is_answered().await);
    let mut new = server.client(&ca, Some(&of_new)).await.unwrap();
    server.files.put("ca.pem", &new_ca.pem());
    until("the old connection is closed", async || {
        !old.is_answered().await
    })
    .await;
    assert!(new.is_answered().await);
    assert!(server.client(&ca, Some(&of_old)).await.is_none());
}
