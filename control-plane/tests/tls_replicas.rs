//! Two real replicas that speak TLS: what one has verified counts at the other, and nobody else can say so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod pki;
mod process;

use forebay_redis_tests::Node;
use forebay_wire::key::KeySecret;
use forebay_wire::sync::{PROTOCOL, SyncRequest};
use pki::{Ca, Client, Files, Pair};
use process::{ADMIN_TOKEN, Process};
use prost::Message;
use std::time::{Duration, Instant};

/// A lease lasts 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

struct Replica {
    process: Process,
    ca: String,
}

impl Replica {
    async fn start(node: &Node, files: &Files, ca: &Ca) -> Self {
        let mut options = files.options_with(&["spiffe://example.org/gateway/{gateway}"]);
        options.extend(files.options(&[("--tls-replica-ca", "replica-ca.pem")]));
        let url = node.url();
        Self {
            process: Process::start_with_options("--store", url.as_ref(), &options, false).await,
            ca: ca.pem(),
        }
    }

    async fn ask(
        &self,
        shown: Option<&Pair>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Option<(u16, String)> {
        let client = Client::connect(&self.process.address, &self.ca, shown);
        let (status, body) = client
            .await?
            .ask(method, path, headers, sync_body())
            .await?;
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn sync(&self, shown: Option<&Pair>, headers: &[(&str, &str)]) -> u16 {
        let answer = self.ask(shown, "POST", "/v1/sync", headers).await;
        answer.unwrap().0
    }

    async fn until(&self, path: &str, expected: u16) -> String {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let headers = [("authorization", bearer.as_str())];
            let answer = self.ask(None, "GET", path, &headers).await;
            if let Some((status, text)) = &answer
                && *status == expected
            {
                return text.clone();
            }
            assert!(Instant::now() < deadline, "{path}: {answer:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Of the gateway g1. Without a policy it is answered with 409 when it is let through.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_the_same_by_way_of_a_replica_that_stands_by_and_nobody_else_is() {
    let node = Node::start().unwrap();
    let ca = Ca::new("ours");
    let files = Files::new(&ca.server(), &ca);
    files.put("replica-ca.pem", &ca.pem());
    let leader = Replica::start(&node, &files, &ca).await;
    leader.until("/readyz", 200).await;
    let other = Replica::start(&node, &files, &ca).await;
    other.until("/v1/status", 200).await;
    other.until("/readyz", 503).await;
    let g1 = ca.client(&["spiffe://example.org/gateway/g1"]);
    let g2 = ca.client(&["spiffe://example.org/gateway/g2"]);
    let web = ca.client(&["spiffe://example.org/web"]);
    let forged = [
        (
            "forebay-vouched",
            "1790000000000 g1 spiffe://example.org/gateway/g1 00",
        ),
        ("forebay-forwarded", "1"),
    ];
    for replica in [&leader, &other] {
        assert_eq!(replica.sync(Some(&g1), &[]).await, 409, "it is let through");
        assert_eq!(replica.sync(Some(&g2), &[]).await, 403);
        assert!(matches!(replica.sync(Some(&web), &[]).await, 401 | 403));
        assert_eq!(replica.sync(None, &[]).await, 401);
        let (status, _) = replica
            .ask(Some(&g1), "GET", "/v1/status", &[])
            .await
            .unwrap();
        assert_eq!(status, 401, "a certificate opens nothing for people");
        for shown in [None, Some(&g2)] {
            let status = replica.sync(shown, &forged[..1]).await;
            assert!(matches!(status, 401 | 403), "{status}");
        }
    }
    assert_eq!(leader.sync(None, &forged).await, 403);
    assert_eq!(
        leader.sync(Some(&g1), &forged[1..]).await,
        401,
        "it is taken for a replica"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_passed_on_to_a_leader_that_does_not_prove_who_it_is() {
    let node = Node::start().unwrap();
    let (ca, stranger) = (Ca::new("ours"), Ca::new("another"));
    let files = Files::new(&ca.server(), &ca);
    files.put("replica-ca.pem", &ca.pem());
    let leader = Replica::start(&node, &files, &ca).await;
    leader.until("/readyz", 200).await;
    let wary = Files::new(&ca.server(), &ca);
    wary.put("replica-ca.pem", &stranger.pem());
    let other = Replica::start(&node, &wary, &ca).await;
    other.until("/readyz", 503).await;
    let said = other.until("/v1/status", 503).await;
    let is_told = async || {
        other
            .until("/v1/status", 503)
            .await
            .contains("its certificate")
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_told().await {
        assert!(Instant::now() < deadline, "{said}");
        tokio::time::sleep(POLL).await;
    }
    // The CA is read again when it changes, as all files are.
    wary.put("replica-ca.pem", &ca.pem());
    other.until("/v1/status", 200).await;
}
