//! One ledger behind every protocol and every worker: what is spent over one is not there for another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use forebay_envoy_tests::{Admission, Bootstrap, Envoy, Listener, Protocol, minimal_config, until};
use serde_json::json;

const BURST: u64 = 30;
const CUSTOMER: &[(&str, &str)] = &[("x-customer", "acme")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_http2_and_grpc_spend_from_one_bucket_on_one_worker() {
    every_protocol_spends_from_one_bucket(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_http2_and_grpc_spend_from_one_bucket_on_four_workers() {
    every_protocol_spends_from_one_bucket(4).await;
}

async fn every_protocol_spends_from_one_bucket(workers: u32) {
    let mut config = minimal_config(0, BURST, &["acme"]);
    config["access_log"] = json!({ "verdict": true, "customer": true });
    let filter = Admission::new("protocols", config).filter().unwrap();
    let listener = logging(Listener::hop("front", Some(filter)));
    let envoy = Envoy::start(&Bootstrap::with(vec![listener]), workers)
        .await
        .unwrap();
    let mut admitted = 0;
    for _ in 0..BURST {
        // A connection each: Envoy deals them out to its workers.
        let mut http1 = envoy.connect("front", Protocol::Http1).await.unwrap();
        let mut http2 = envoy.connect("front", Protocol::Http2).await.unwrap();
        let plain = [
            http1.get("/", CUSTOMER).await.unwrap(),
            http2.get("/", CUSTOMER).await.unwrap(),
        ];
        for reply in plain {
            assert!(matches!(reply.status, 200 | 429), "{reply:?}");
            admitted += u64::from(reply.status == 200);
        }
        let call = http2.grpc("/shop.Orders/List", CUSTOMER).await.unwrap();
        assert_eq!(
            call.status, 200,
            "a gRPC client sees its own status, not HTTP's: {call:?}"
        );
        // 8 is the filter's RESOURCE_EXHAUSTED; the upstream, which speaks no gRPC, is answered for with another one.
        admitted += u64::from(call.grpc_status() != Some(8));
    }
    assert!(admitted <= BURST, "{admitted} of {BURST} admitted");
    // Chunks that lie with a worker whose turn never comes are the only ones that may be missing.
    assert!(
        admitted >= BURST * 2 / 3,
        "only {admitted} of {BURST} admitted"
    );
    let log = envoy.access_log("front").join("\n");
    assert!(!log.contains("acme"), "a raw key in the access log:\n{log}");
}

#[tokio::test]
async fn the_access_log_shows_verdict_and_hash_of_each_request() {
    let mut config = minimal_config(0, 1, &["acme"]);
    config["access_log"] = json!({ "verdict": true, "customer": true });
    let filter = Admission::new("access-log", config).filter().unwrap();
    let listener = logging(Listener::hop("front", Some(filter)));
    let envoy = Envoy::start(&Bootstrap::with(vec![listener]), 1)
        .await
        .unwrap();
    let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
    for status in [200, 429] {
        assert_eq!(client.get("/", CUSTOMER).await.unwrap().status, status);
    }
    let lines = until("two lines are logged", Duration::from_secs(30), || async {
        let lines = envoy.access_log("front");
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let [admitted, denied] = &words[..] else {
        panic!("{lines:?}")
    };
    assert!(matches!(admitted[1], "standard" | "shadow"), "{lines:?}");
    assert!(denied[1].contains("contract"), "{lines:?}");
    assert_eq!(denied[3], "forebay_denied_contract", "{lines:?}");
    assert_eq!(admitted[2], denied[2], "the same customer: {lines:?}");
    assert!(
        admitted[2].len() >= 16 && admitted[2].bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{lines:?}"
    );
}

/// Status, verdict, customer and details, a line for each request.
fn logging(mut listener: Listener) -> Listener {
    let state = |name: &str| format!("%FILTER_STATE(wasm.forebay.{name}:PLAIN)%");
    listener.access_log = Some(format!(
        "%RESPONSE_CODE% {} {} %RESPONSE_CODE_DETAILS%",
        state("verdict"),
        state("customer")
    ));
    listener
}
