//! A model beside the one that runs: what is told of it, and that nothing else comes of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

#[path = "../../../forecast/tests/fixture/mod.rs"]
mod fixture;
mod world;

use std::collections::BTreeMap;

use forebay_core::resource::ResourceIndex;
use forebay_forecaster::Forecaster;
use forebay_forecaster::host::{HttpAnswer, Metric};
use forebay_wire::model::ReleaseKind;
use forebay_wire::sync::{ChallengerStatus, ForecastScore, ModelRelease, ModelState, ModelStatus};

use world::World;
use world::models::{config, release};
use world::plane::{answer, customer, entry, environment, granted, reply_to, use_tokens};

/// One gateway, a control plane that offers a model and perhaps a challenger, and customers with a steady rhythm.
struct Scene {
    world: World,
    forecaster: Forecaster<World>,
    /// By path; an empty one cannot be fetched yet.
    files: BTreeMap<String, Vec<u8>>,
    model: ModelRelease,
    challenger: Option<ModelRelease>,
    status: ModelStatus,
    seconds: u64,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        drop(granted(&world, 2, 30));
        let forecaster =
            Forecaster::configure(world.clone(), config().as_bytes(), &environment()).unwrap();
        let file = fixture::bytes(&fixture::good());
        let model = at(release(1, ReleaseKind::Release, &file), "/model");
        Self {
            world,
            forecaster,
            files: BTreeMap::from([("/model".to_owned(), file)]),
            model,
            challenger: None,
            status: ModelStatus::default(),
            seconds: 0,
        }
    }

    /// Offers this file as a challenger from now on.
    fn offer(&mut self, epoch: u64, file: &[u8]) {
        let path = format!("/challenger-{epoch}");
        let offer = release(epoch, ReleaseKind::Challenger, file);
        self.challenger = Some(at(offer, &path));
        self.files.insert(path, file.to_vec());
    }

    /// Lets so many seconds pass, each a step of the calendar.
    fn live(&mut self, seconds: u32) {
        for _ in 0..seconds {
            let phase = self.seconds % 8;
            self.seconds += 1;
            use_tokens(&self.world, 0, 20 + 3 * phase, 0);
            use_tokens(&self.world, 1, 10 + phase * phase % 5, 0);
            for _ in 0..50 {
                self.world.advance_ms(20);
                self.forecaster.on_tick();
                for sent in self.world.take_sent() {
                    let path = &sent
                        .headers
                        .iter()
                        .find(|(name, _)| name == ":path")
                        .unwrap()
                        .1;
                    let reply = match self.files.get(path) {
                        Some(file) if file.is_empty() => HttpAnswer {
                            status: 503,
                            body: Vec::new(),
                        },
                        Some(file) => HttpAnswer {
                            status: 200,
                            body: file.clone(),
                        },
                        None => {
                            let (request, mut reply) = reply_to(&sent);
                            self.status = request.model_status.unwrap();
                            reply.model = Some(self.model.clone());
                            reply.challenger = self.challenger.clone();
                            answer(&reply)
                        }
                    };
                    self.forecaster.on_http_response(sent.call, reply);
                }
            }
        }
    }

    fn challenger(&self) -> &ChallengerStatus {
        let log = self.world.log();
        self.status
            .challenger
            .as_ref()
            .unwrap_or_else(|| panic!("nothing is told of a challenger; log: {log:?}"))
    }

    /// Refill of the customer's shadow bucket.
    fn shadow_rate(&self, number: u8) -> u64 {
        entry(&self.world, &customer(number)).map_or(0, |entry| {
            entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get()
        })
    }
}

/// Those of the challenger, and of the model in force.
fn scores(told: &ChallengerStatus) -> (&ForecastScore, &ForecastScore) {
    (
        told.challenger_score.as_ref().unwrap(),
        told.champion_score.as_ref().unwrap(),
    )
}

fn at(offer: ModelRelease, path: &str) -> ModelRelease {
    ModelRelease {
        path: path.to_owned(),
        ..offer
    }
}

/// A model whose upper quantiles are far too high.
fn generous() -> Vec<u8> {
    let mut model = fixture::good();
    let offsets = ["3.0"; fixture::HORIZONS * fixture::QUANTILES].join(",");
    fixture::set_metadata(&mut model, "conformal_offsets", &format!("[{offsets}]"));
    fixture::bytes(&model)
}

fn other(key: &str, value: &str) -> Vec<u8> {
    let mut model = fixture::good();
    fixture::set_metadata(&mut model, key, value);
    fixture::bytes(&model)
}

#[test]
fn both_models_are_judged_by_the_same_steps_and_claims_stay_as_they_would_be() {
    let (mut alone, mut beside) = (Scene::new(), Scene::new());
    alone.live(12);
    beside.live(12);
    assert_eq!(beside.status.epoch, 1);
    beside.offer(2, &generous());
    for _ in 0..30 {
        alone.live(1);
        beside.live(1);
        for number in 0..2 {
            assert_eq!(alone.shadow_rate(number), beside.shadow_rate(number));
        }
    }
    assert!(alone.shadow_rate(0) > 0);
    let told = beside.challenger();
    assert_eq!((told.state(), told.epoch), (ModelState::Running, 2));
    let (challenger, champion) = scores(told);
    // Two customers, and all steps but those that it took to come and to be judged.
    assert!((40..=58).contains(&challenger.matured), "{challenger:?}");
    assert_eq!(challenger.matured, champion.matured);
    assert_eq!(challenger.usage, champion.usage);
    assert!(
        challenger.loss > champion.loss,
        "{challenger:?}, {champion:?}"
    );
    assert_eq!(beside.status.epoch, 1);
    assert_eq!(
        beside.status.score, alone.status.score,
        "the champion's own"
    );
    assert_eq!(alone.status.challenger, None);
    assert_eq!(beside.world.metric(Metric::ChallengerEpoch), 2);
}

#[test]
fn a_model_is_as_good_as_itself() {
    let mut scene = Scene::new();
    scene.live(12);
    // Other bytes, the same forecasts; its tracks have as much to learn from as the champion's had.
    scene.offer(2, &other("family", "\"another\""));
    scene.live(60);
    let told = scene.challenger();
    let (challenger, champion) = scores(told);
    let ratio = challenger.loss / champion.loss;
    assert!(
        (0.8..=1.25).contains(&ratio),
        "{challenger:?}, {champion:?}"
    );
}

#[test]
fn whatever_is_wrong_with_a_challenger_is_told_and_the_model_runs_on() {
    let mut scene = Scene::new();
    scene.live(12);
    let good = fixture::bytes(&fixture::good());
    let short = &good[..good.len() / 2];
    let refused = [
        (other("golden_output", "[1.0]"), "golden"),
        (short.to_vec(), ""),
        (other("step_s", "60"), "60 s"),
    ];
    for (number, (file, reason)) in (2..).zip(refused) {
        scene.offer(number, &file);
        scene.live(6);
        let told = scene.challenger();
        assert_eq!(
            (told.state(), told.epoch),
            (ModelState::Refused, 0),
            "{number}"
        );
        assert_eq!(told.offered_epoch, number);
        assert!(told.message.contains(reason), "{number}: {}", told.message);
        assert_eq!(scene.world.metric(Metric::ChallengerRefused), number - 1);
    }
    // A release's statement is none for a challenger, nor the other way round.
    let mut release = at(release(9, ReleaseKind::Release, &generous()), "/model");
    scene.challenger = Some(release.clone());
    scene.live(4);
    assert_eq!(scene.challenger().state(), ModelState::Refused);
    scene.challenger = None;
    release.kind = u32::from(ReleaseKind::Challenger.code());
    scene.model = release;
    scene.live(4);
    assert_eq!(scene.status.state(), ModelState::Refused);
    assert_eq!(scene.status.epoch, 1, "{}", scene.status.message);
    assert_eq!(scene.status.challenger, None, "none is offered any more");
    assert!(scene.shadow_rate(0) > 0);
}

#[test]
fn a_challenger_that_is_not_offered_any_more_is_gone_and_one_of_a_new_model_begins_anew() {
    let mut scene = Scene::new();
    scene.live(12);
    scene.offer(2, &generous());
    scene.live(20);
    let before = scores(scene.challenger()).0.matured;
    assert!(before > 20, "{before}");
    // Another model is released: what both have done so far says nothing about it.
    let file = other("family", "\"another\"");
    scene.model = at(release(2, ReleaseKind::Release, &file), "/other");
    scene.files.insert("/other".to_owned(), file);
    scene.offer(3, &generous());
    scene.live(10);
    assert_eq!(scene.status.epoch, 2);
    let told = scene.challenger();
    assert_eq!(told.epoch, 3, "{}", told.message);
    assert!(scores(told).0.matured < before);
    scene.challenger = None;
    scene.live(2);
    assert_eq!(scene.status.challenger, None);
    assert_eq!(scene.world.metric(Metric::ChallengerEpoch), 0);
}

#[test]
fn a_challenger_that_comes_before_the_model_that_it_is_compared_with_waits_for_it() {
    let mut scene = Scene::new();
    scene.live(12);
    // Both are offered at once, and the model's file takes longer: beside the one before, the challenger's steps do not fit.
    let file = other("step_s", "60");
    scene.model = at(release(2, ReleaseKind::Release, &file), "/other");
    scene.files.insert("/other".to_owned(), Vec::new());
    let mut challenger = fixture::good();
    fixture::set_metadata(&mut challenger, "step_s", "60");
    fixture::set_metadata(&mut challenger, "family", "\"another\"");
    scene.offer(3, &fixture::bytes(&challenger));
    scene.live(4);
    assert_eq!(scene.challenger().state(), ModelState::Refused);
    scene.files.insert("/other".to_owned(), file);
    scene.live(20);
    assert_eq!(scene.status.epoch, 2, "{}", scene.status.message);
    let told = scene.challenger();
    assert_eq!(
        (told.state(), told.epoch),
        (ModelState::Running, 3),
        "{}",
        told.message
    );
}

#[test]
fn a_tick_that_has_nothing_left_is_not_spent_on_a_challenger() {
    let mut scene = Scene::new();
    scene.live(12);
    scene.offer(2, &generous());
    scene.live(4);
    assert_eq!(scene.challenger().state(), ModelState::Running);
    let told = |scene: &Scene| {
        scene
            .challenger()
            .challenger_score
            .as_ref()
            .map(|score| score.matured)
    };
    // The machine is so slow that the tick is over before a row could be pushed.
    scene.world.price_of_a_look_at_the_clock_us(700);
    scene.live(3);
    let before = told(&scene);
    scene.live(8);
    assert_eq!(told(&scene), before);
    scene.world.price_of_a_look_at_the_clock_us(0);
    scene.live(8);
    assert!(told(&scene) > before, "{before:?}");
}
