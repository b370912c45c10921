//! A gateway that syncs in a tight loop is told to wait, and nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use forebay_control_plane::api::Throttle;
use forebay_core::time::TimeUs;
use forebay_wire::sync::{SyncErrorCode, SyncReply};
use kit::{GATEWAY_TOKEN, Gateway, TestServer, policy};
use proptest::prelude::*;
use prost::Message;

const SECOND: u64 = 1_000_000;

/// Syncs that pass of so many that come at one moment.
fn passing(throttle: &Throttle, gateway: &str, count: usize, at_us: u64) -> usize {
    (0..count)
        .filter(|_| throttle.admit(gateway, TimeUs(at_us)).is_ok())
        .count()
}

#[test]
fn twice_the_rate_passes_at_once_and_then_the_rate() {
    let throttle = Throttle::new(40);
    assert_eq!(passing(&throttle, "g1", 100, 5 * SECOND), 80);
    assert_eq!(throttle.refused(), 20);
    assert_eq!(throttle.admit("g1", TimeUs(5 * SECOND)), Err(SECOND / 40));
    assert_eq!(
        passing(&throttle, "g1", 100, 5 * SECOND + SECOND / 40 - 1),
        0
    );
    assert_eq!(passing(&throttle, "g1", 100, 5 * SECOND + SECOND / 40), 1);
    assert_eq!(
        passing(&throttle, "g2", 100, 5 * SECOND),
        80,
        "each has its own"
    );
    assert_eq!(passing(&throttle, "g1", 100, 60 * SECOND), 80);
    assert_eq!(
        passing(&throttle, "g1", 100, 0),
        80,
        "a clock that goes back locks nobody out"
    );
}

#[test]
fn names_that_are_made_up_are_bounded_and_those_at_rest_are_forgotten() {
    let throttle = Throttle::new(1);
    let admit = |name: usize, at_us| throttle.admit(&name.to_string(), TimeUs(at_us)).is_ok();
    assert!((0..4_096).all(|name| admit(name, 0)));
    assert!(!admit(5_000, 0), "there is no room for another name");
    assert!(admit(7, 0), "but for one that is known");
    assert!(
        admit(5_000, SECOND),
        "all but one are forgotten, because their burst is whole again"
    );
}

proptest! {
    #[test]
    fn no_schedule_passes_more_than_the_rate_and_one_burst(
        most_per_s in 1..200_u32,
        gaps_us in prop::collection::vec(0..50_000_u64, 1..400),
    ) {
        let throttle = Throttle::new(most_per_s);
        let mut now_us = 0;
        let mut passed = 0_u64;
        for gap_us in gaps_us {
            now_us += gap_us;
            passed += u64::from(throttle.admit("g1", TimeUs(now_us)).is_ok());
        }
        // One more than the rate, for the rounding of the interval.
        let most = u64::from(most_per_s) * 2 + now_us * (u64::from(most_per_s) + 1) / SECOND + 1;
        prop_assert!(passed <= most, "{passed} of at most {most}");
    }
}

#[tokio::test]
async fn too_many_syncs_are_answered_with_the_time_to_wait_and_change_nothing() {
    let server = TestServer::throttled(2);
    server.ok("POST", "/v1/policies", policy()).await;
    let (mut eager, mut other) = (Gateway::new("eager", 1), Gateway::new("other", 1));
    for _ in 0..4 {
        eager.sync(&server).await;
    }
    let refused = eager.request();
    let response = server
        .respond(
            "POST",
            "/v1/sync",
            GATEWAY_TOKEN,
            Body::from(refused.encode_to_vec()),
        )
        .await;
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    let reply = SyncReply::decode(kit::bytes_of(response).await.as_slice()).unwrap();
    let error = reply.error.unwrap();
    assert_eq!(
        (error.code(), reply.sequence),
        (SyncErrorCode::TooManySyncs, refused.sequence)
    );
    assert!(error.message.contains("500 ms"), "{}", error.message);
    other.sync(&server).await;
    let (_, metrics) = server.request("GET", "/metrics", "", Body::empty()).await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("\nforebay_syncs_throttled_total 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nforebay_syncs_total 5\n"), "{metrics}");
    server.advance_ms(500);
    eager.sync(&server).await;
}
