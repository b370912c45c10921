//! The test kit itself: an Envoy without a filter answers over every protocol.

#![allow(clippy::unwrap_used)]

use forebay_envoy_tests::{Bootstrap, Envoy, Listener, Protocol};

#[tokio::test]
async fn an_envoy_without_a_filter_answers_over_http1_and_http2() {
    let listeners = vec![
        Listener::direct("direct", None),
        Listener::hop("hop_behind", None),
    ];
    let envoy = Envoy::start(&Bootstrap::with(listeners), 1).await.unwrap();
    for listener in ["direct", "hop_behind"] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = envoy.connect(listener, protocol).await.unwrap();
            let reply = client.get("/", &[("x-echo-cost", "7")]).await.unwrap();
            assert_eq!(
                (reply.status, &*reply.body),
                (200, &b"ok"[..]),
                "{listener} {protocol:?}"
            );
            assert_eq!(reply.header("x-cost"), Some("7"));
        }
    }
    assert!(envoy.worker_cpu_ns().unwrap() > 0);
}
