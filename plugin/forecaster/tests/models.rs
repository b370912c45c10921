//! The life of a model in the gateway: offered, verified, fetched, checked, run, replaced, refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

#[path = "../../../forecast/tests/fixture/mod.rs"]
mod fixture;
mod world;

use forebay_forecaster::Forecaster;
use forebay_forecaster::host::{HttpAnswer, Metric};
use forebay_wire::key;
use forebay_wire::model::ReleaseKind;
use forebay_wire::sync::{ForecastScore, ModelRelease, ModelState, StepUsage, SyncRequest, Window};

use world::World;
use world::models::{config, release};
use world::plane::{answer, environment, granted, next_sync, reply_to, ticks, use_tokens};

/// Answers syncs with `release` and downloads with `file` until the forecaster says how the offer fared.
fn offer(
    world: &World,
    forecaster: &mut Forecaster<World>,
    release: &ModelRelease,
    file: &[u8],
) -> SyncRequest {
    let mut offered = false;
    for _ in 0..50 {
        let sent = next_sync(world, forecaster);
        if sent.body.is_empty() {
            forecaster.on_http_response(
                sent.call,
                HttpAnswer {
                    status: 200,
                    body: file.to_vec(),
                },
            );
            continue;
        }
        let (request, mut reply) = reply_to(&sent);
        let status = request.model_status.clone().unwrap();
        if offered && status.state() != ModelState::Fetching {
            forecaster.on_http_response(sent.call, answer(&reply));
            return request;
        }
        offered = true;
        reply.model = Some(release.clone());
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    panic!("the offer was never decided; log: {:?}", world.log());
}

fn gateway(world: &World) -> Forecaster<World> {
    drop(granted(world, 2, 30));
    Forecaster::configure(world.clone(), config().as_bytes(), &environment()).unwrap()
}

#[test]
fn a_signed_model_runs_and_a_roll_back_needs_no_second_download() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let first = fixture::bytes(&fixture::good());
    let mut changed = fixture::good();
    fixture::set_metadata(&mut changed, "family", "\"another\"");
    let second = fixture::bytes(&changed);
    let status = offer(
        &world,
        &mut forecaster,
        &release(1, ReleaseKind::Release, &first),
        &first,
    )
    .model_status
    .unwrap();
    assert_eq!(
        (status.state(), status.epoch),
        (ModelState::Running, 1),
        "{}",
        status.message
    );
    let status = offer(
        &world,
        &mut forecaster,
        &release(2, ReleaseKind::Release, &second),
        &second,
    )
    .model_status
    .unwrap();
    assert_eq!(
        (status.state(), status.epoch),
        (ModelState::Running, 2),
        "{}",
        status.message
    );
    let back = release(3, ReleaseKind::RollBack, &first);
    let status = offer(&world, &mut forecaster, &back, b"never asked for")
        .model_status
        .unwrap();
    assert_eq!(
        (status.state(), status.epoch),
        (ModelState::Running, 3),
        "{}",
        status.message
    );
    assert_eq!(status.digest, back.digest);
}

#[test]
fn whatever_is_wrong_with_an_offer_the_last_good_model_runs_on_and_the_reason_is_told() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let good = fixture::bytes(&fixture::good());
    let mut running = fixture::good();
    fixture::set_metadata(&mut running, "family", "\"another\"");
    let running = fixture::bytes(&running);
    offer(
        &world,
        &mut forecaster,
        &release(5, ReleaseKind::Release, &running),
        &running,
    );
    let mut golden = fixture::good();
    fixture::set_metadata(&mut golden, "golden_output", "[1.0]");
    let wrong_golden = fixture::bytes(&golden);
    let truncated = &good[..good.len() / 2];
    let unsigned = ModelRelease {
        signature: vec![7; 64],
        ..release(9, ReleaseKind::Release, &good)
    };
    let huge = ModelRelease {
        bytes: 1 << 40,
        ..release(10, ReleaseKind::Release, &good)
    };
    for (number, (offered, file, reason)) in [
        (
            release(4, ReleaseKind::Release, &good),
            good.as_slice(),
            "not above epoch 5",
        ),
        (
            release(6, ReleaseKind::Release, &good),
            b"other bytes".as_slice(),
            "SHA-256",
        ),
        (release(7, ReleaseKind::Release, truncated), truncated, ""),
        (
            release(8, ReleaseKind::Release, &wrong_golden),
            wrong_golden.as_slice(),
            "golden",
        ),
        (unsigned, good.as_slice(), "signature"),
        (huge, good.as_slice(), "max_bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let status = offer(&world, &mut forecaster, &offered, file)
            .model_status
            .unwrap();
        assert_eq!(status.state(), ModelState::Refused, "offer {number}");
        assert!(
            status.message.contains(reason),
            "offer {number}: {}",
            status.message
        );
        assert_eq!(
            (status.epoch, status.offered_epoch),
            (5, offered.epoch),
            "offer {number}"
        );
        assert_eq!(
            world.metric(Metric::ModelRefused),
            u64::try_from(number).unwrap() + 1
        );
    }
}

#[test]
fn a_new_release_of_the_file_that_runs_needs_no_download_and_closes_the_door_behind_it() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let good = fixture::bytes(&fixture::good());
    let first = release(5, ReleaseKind::Release, &good);
    offer(&world, &mut forecaster, &first, &good);
    let again = release(7, ReleaseKind::RollBack, &good);
    let status = offer(&world, &mut forecaster, &again, b"never asked for")
        .model_status
        .unwrap();
    assert_eq!(
        (status.state(), status.epoch, status.offered_epoch),
        (ModelState::Running, 7, 7),
        "{}",
        status.message
    );
    assert_eq!(world.metric(Metric::ModelEpoch), 7);
    let stale = release(6, ReleaseKind::Release, &good);
    let status = offer(&world, &mut forecaster, &stale, &good)
        .model_status
        .unwrap();
    assert_eq!(status.state(), ModelState::Refused);
    assert!(
        status.message.contains("not above epoch 7"),
        "{}",
        status.message
    );
}

#[test]
fn a_trap_does_not_open_the_door_to_older_models() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let good = fixture::bytes(&fixture::good());
    offer(
        &world,
        &mut forecaster,
        &release(5, ReleaseKind::Release, &good),
        &good,
    );
    let mut forecaster =
        Forecaster::configure(world.clone(), config().as_bytes(), &environment()).unwrap();
    let status = offer(
        &world,
        &mut forecaster,
        &release(4, ReleaseKind::Release, &good),
        &good,
    )
    .model_status
    .unwrap();
    assert_eq!(status.state(), ModelState::Refused);
    let status = offer(
        &world,
        &mut forecaster,
        &release(5, ReleaseKind::Release, &good),
        &good,
    )
    .model_status
    .unwrap();
    assert_eq!(
        (status.state(), status.epoch),
        (ModelState::Running, 5),
        "{}",
        status.message
    );
}

#[test]
fn the_network_forecasts_from_the_start_when_the_window_comes_with_the_sync() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let good = fixture::bytes(&fixture::good());
    offer(
        &world,
        &mut forecaster,
        &release(1, ReleaseKind::Release, &good),
        &good,
    );
    for _ in 0..10 {
        let sent = next_sync(&world, &mut forecaster);
        let (request, mut reply) = reply_to(&sent);
        reply.step_now = 500;
        reply.windows = request
            .windows_wanted
            .iter()
            .map(|wish| Window {
                hash_high: wish.hash_high,
                hash_low: wish.hash_low,
                resource: 0,
                step_ms: 1_000,
                newest_step: 499,
                usage: vec![30.0; 400],
                mask: vec![0xff; 50],
            })
            .collect();
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    let (high, low) = key::CustomerHash([1; 16]).parts();
    let mut seen = Vec::new();
    for _ in 0..20 {
        use_tokens(&world, 1, 30, 0);
        ticks(&world, &mut forecaster, 25);
        for sent in world.take_sent() {
            let (request, reply) = reply_to(&sent);
            seen.extend(
                request
                    .forecasts
                    .iter()
                    .filter(|of| (of.hash_high, of.hash_low) == (high, low))
                    .copied(),
            );
            forecaster.on_http_response(sent.call, answer(&reply));
        }
    }
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|forecast| forecast.by_network), "{seen:?}");
    assert!(
        seen.iter()
            .all(|of| of.low_per_s <= of.median_per_s && of.median_per_s <= of.high_per_s),
        "{seen:?}"
    );
    assert!(world.metric(Metric::ShadowRefillsNetwork) > 0);
    assert_eq!(world.metric(Metric::ShadowRefillsFallback), 0);
}

/// Score of a gateway that uses 30 tokens in each of so many steps, while the others have used `others` of a step's number, of which
/// `None` is not named.
fn scored_beside(others: impl Fn(u64) -> Option<f32>, says_all: bool) -> ForecastScore {
    let world = World::new();
    let mut forecaster = granted(&world, 1, 30);
    let (hash_high, hash_low) = key::CustomerHash([0; 16]).parts();
    let mut score = None;
    for _ in 0..40 {
        use_tokens(&world, 0, 30, 0);
        for _ in 0..5 {
            ticks(&world, &mut forecaster, 10);
            for sent in world.take_sent() {
                let (request, mut reply) = reply_to(&sent);
                score = request.model_status.unwrap().score;
                reply.step_now = world.wall_now_ms() / 1_000;
                reply.step_elapsed_ms = u32::try_from(world.wall_now_ms() % 1_000).unwrap();
                let step = reply.step_now - 1;
                reply.step_usage = others(step)
                    .map(|usage| StepUsage {
                        hash_high,
                        hash_low,
                        resource: 0,
                        step,
                        usage,
                    })
                    .into_iter()
                    .collect();
                reply.step_usage_whole = if says_all { step } else { 0 };
                forecaster.on_http_response(sent.call, answer(&reply));
            }
        }
    }
    score.unwrap()
}

#[test]
fn forecasts_are_scored_by_what_the_whole_fleet_used() {
    let score = scored_beside(|_| Some(70.0), false);
    let mean = score.usage / score.matured as f64;
    assert!(score.matured >= 20, "{score:?}");
    assert!((95.0..=105.0).contains(&mean), "{mean} of {score:?}");
    assert!(
        score.loss > 0.0 && score.covered <= score.matured,
        "{score:?}"
    );
}

#[test]
fn others_that_are_not_named_have_used_nothing_only_if_the_reply_tells_all() {
    let every_other = |step: u64| step.is_multiple_of(2).then_some(70.0);
    let told = scored_beside(every_other, true);
    let mean = told.usage / told.matured as f64;
    assert!(told.matured >= 30, "{told:?}");
    assert!((55.0..=75.0).contains(&mean), "{mean} of {told:?}");
    // Nobody can know: a step that is not named may be told of later.
    let untold = scored_beside(every_other, false);
    let mean = untold.usage / untold.matured as f64;
    assert!(untold.matured <= 25, "{untold:?}");
    assert!(mean > 95.0, "{mean} of {untold:?}");
}

#[test]
fn a_download_that_the_host_loses_is_tried_again_and_its_late_answer_is_ignored() {
    let world = World::new();
    let mut forecaster = gateway(&world);
    let good = fixture::bytes(&fixture::good());
    let mut lost = None;
    let offered = release(1, ReleaseKind::Release, &good);
    for _ in 0..50 {
        let sent = next_sync(&world, &mut forecaster);
        if sent.body.is_empty() {
            if let Some(lost) = lost {
                let late = HttpAnswer {
                    status: 200,
                    body: b"other bytes".to_vec(),
                };
                forecaster.on_http_response(lost, late);
                let body = good.clone();
                forecaster.on_http_response(sent.call, HttpAnswer { status: 200, body });
                let status = offer(&world, &mut forecaster, &offered, &good)
                    .model_status
                    .unwrap();
                assert_eq!(
                    (status.state(), status.epoch),
                    (ModelState::Running, 1),
                    "{}",
                    status.message
                );
                return;
            }
            lost = Some(sent.call);
            continue;
        }
        let (_, mut reply) = reply_to(&sent);
        reply.model = Some(offered.clone());
        forecaster.on_http_response(sent.call, answer(&reply));
    }
    panic!("the download was not tried again; log: {:?}", world.log());
}
