//! The contract is exact whatever worker a connection lands on.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use forebay_envoy_tests::{Admission, Bootstrap, Envoy, Listener, Protocol, minimal_config};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const RATE_PER_S: u64 = 100;
const BURST: u64 = 50;
const CONNECTIONS: u64 = 40;
const OFFERED_PER_S: u64 = 1000;
const SPAN: Duration = Duration::from_secs(20);

/// When an admitted request was sent and answered, both from the start of the load.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    sent: Duration,
    answered: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_admit_what_the_contract_says_and_no_more() {
    let config = minimal_config(RATE_PER_S, BURST, &["acme"]);
    let filter = Admission::new("exactness", config).filter().unwrap();
    let envoy = Envoy::start(
        &Bootstrap::with(vec![Listener::direct("front", Some(filter))]),
        4,
    )
    .await
    .unwrap();
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut client = envoy.connect("front", Protocol::Http1).await.unwrap();
        connections.spawn(async move {
            let mut admitted = Vec::new();
            let mut ticks = interval(Duration::from_millis(1000 * CONNECTIONS / OFFERED_PER_S));
            // On a busy machine late requests are made up for: the load stays what it says.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while start.elapsed() < SPAN {
                ticks.tick().await;
                let sent = start.elapsed();
                let reply = client.get("/", &[("x-customer", "acme")]).await.unwrap();
                match reply.status {
                    200 => admitted.push(Admitted {
                        sent,
                        answered: start.elapsed(),
                    }),
                    429 => assert!(
                        reply.header("retry-after").is_some(),
                        "a denial says when to come back"
                    ),
                    other => panic!("connection {number}: status {other}"),
                }
            }
            admitted
        });
    }
    let admitted: Vec<Admitted> = connections.join_all().await.into_iter().flatten().collect();
    never_above_the_contract(&admitted);
    let allowance = BURST as f64 + RATE_PER_S as f64 * SPAN.as_secs_f64();
    let share = admitted.len() as f64 / allowance;
    assert!(
        share >= 0.99,
        "only {} of {allowance} were admitted",
        admitted.len()
    );
}

/// Over every span from one admission to another: at most burst + rate x span. What was decided between `sent` of
/// the first and `answered` of the last lies within that span, so the check has no tolerance.
fn never_above_the_contract(admitted: &[Admitted]) {
    let mut by_answer = admitted.to_vec();
    by_answer.sort_by_key(|one| one.answered);
    let mut by_sending: Vec<Duration> = admitted.iter().map(|one| one.sent).collect();
    by_sending.sort();
    for (count, last) in (1_u32..).zip(&by_answer) {
        let allowed = BURST as f64 + RATE_PER_S as f64 * last.answered.as_secs_f64();
        assert!(
            f64::from(count) <= allowed + 1e-6,
            "{count} admitted within {:?}, allowed {allowed}",
            last.answered
        );
    }
    // Every later start as well: those sent at or after it and answered by the end of the span.
    for first in by_sending.iter().step_by(50) {
        let inside: Vec<&Admitted> = by_answer.iter().filter(|one| one.sent >= *first).collect();
        for (count, last) in (1_u32..).zip(inside) {
            let allowed = BURST as f64 + RATE_PER_S as f64 * (last.answered - *first).as_secs_f64();
            assert!(
                f64::from(count) <= allowed + 1e-6,
                "{count} admitted between {first:?} and {:?}",
                last.answered
            );
        }
    }
}
