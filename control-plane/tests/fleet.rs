//! Many gateways and one server: the contract is divided, moves with the traffic, and is never exceeded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use forebay_core::policy::Limits;
use forebay_core::{Micro, Rate, TimeUs};
use forebay_wire::sync::{SyncErrorCode, SyncRequest};
use kit::ledger_gateway::{Ideal, LedgerGateway};
use kit::{STEP_MS, TestServer, settings};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const RATE_PER_S: u64 = 100;
const BURST: i64 = 50;
/// The pace of the server's settings.
const SYNC_MS: u64 = 250;
/// A gateway looks at its ledger every tenth of a second.
const EARLY_MS: u64 = 100;
const CUSTOMERS: [&str; 2] = ["acme", "bolt"];

fn limits() -> Limits {
    Limits {
        guarantee: Rate::from_tokens_per_s(20),
        ..Limits::plain(Rate::from_tokens_per_s(RATE_PER_S), tokens(BURST))
    }
}

const fn tokens(tokens: i64) -> Micro {
    Micro::new(tokens * 1_000_000)
}

fn policy() -> Value {
    json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {"capacity_per_s": 1000}},
        "contracts": {
            "gold": {"limits": {"requests": {"rate_per_s": RATE_PER_S, "burst": BURST, "guarantee_per_s": 20}}}
        },
        "customers": [{"key": "acme", "contract": "gold"}, {"key": "bolt", "contract": "gold"}]
    })
}

/// A server, gateways, and the ideal bucket.
struct World {
    server: TestServer,
    gateways: Vec<LedgerGateway>,
    ideal: Ideal,
    incarnations: u64,
}

impl World {
    async fn new(gateways: usize) -> Self {
        let server = TestServer::new();
        server.ok("POST", "/v1/policies", policy()).await;
        let now = TimeUs(server.clock.load(Ordering::SeqCst));
        let mut world = Self {
            server,
            gateways: Vec::new(),
            ideal: Ideal::new(limits(), &CUSTOMERS, now),
            incarnations: 0,
        };
        for number in 0..gateways {
            let gateway = world.born(number);
            world.gateways.push(gateway);
        }
        world
    }

    fn now(&self) -> TimeUs {
        TimeUs(self.server.clock.load(Ordering::SeqCst))
    }

    fn born(&mut self, number: usize) -> LedgerGateway {
        self.incarnations += 1;
        let id = format!("g{number}");
        LedgerGateway::new(&id, self.incarnations, limits(), &CUSTOMERS, self.now())
    }

    /// Each gateway syncs once, a moment after the one before it.
    async fn round(&mut self) {
        for number in 0..self.gateways.len() {
            self.server.advance_ms(1);
            self.sync(number).await;
        }
    }

    async fn sync(&mut self, number: usize) {
        let now = self.now();
        self.gateways[number].sync(&self.server, now).await;
    }

    /// Time passes while `per_s` requests a second come to one gateway. Gateways sync as often as they are asked to, and one that has to
    /// deny something soon after. Returns for each millisecond with a request whether it was admitted.
    async fn traffic(&mut self, customer: &str, number: usize, per_s: u64, ms: u64) -> Admitted {
        let mut admitted = Admitted(Vec::new());
        // All gateways sync at the same pace, each at a moment of its own.
        let gateways = self.gateways.len();
        let mut due_ms: Vec<u64> = (0..gateways as u64)
            .map(|gateway| SYNC_MS * (gateway + 1) / gateways as u64)
            .collect();
        for at_ms in 0..ms {
            for (gateway, due_ms) in due_ms.iter_mut().enumerate() {
                if *due_ms <= at_ms {
                    self.sync(gateway).await;
                    *due_ms = at_ms + u64::from(self.gateways[gateway].interval_ms);
                }
            }
            self.server.advance_ms(1);
            if at_ms % (1_000 / per_s) == 0 {
                let now = self.now();
                let is_admitted =
                    self.gateways[number].request(customer, tokens(1), &mut self.ideal, now);
                admitted.0.push((at_ms, is_admitted));
                if !is_admitted {
                    due_ms[number] = due_ms[number].min(at_ms + EARLY_MS);
                }
            }
        }
        admitted
    }
}

/// When requests came, in ms, and whether they were admitted.
#[derive(Debug)]
struct Admitted(Vec<(u64, bool)>);

impl Admitted {
    /// Of those that came from `from_ms` on, the part that was admitted, in percent.
    fn percent_from(&self, from_ms: u64) -> f64 {
        let late = self.0.iter().filter(|(at_ms, _)| *at_ms >= from_ms);
        let all = late.clone().count();
        let admitted = late.filter(|(_, is_admitted)| *is_admitted).count();
        100.0 * admitted as f64 / all as f64
    }
}

async fn customer(server: &TestServer, key: &str) -> Value {
    server
        .ok("GET", &format!("/v1/customers/{key}"), Value::Null)
        .await
}

#[tokio::test]
async fn one_gateway_holds_the_whole_contract_and_a_second_one_its_starter_after_a_round() {
    let mut world = World::new(2).await;
    world.sync(0).await;
    world.sync(0).await;
    let now = world.now();
    assert_eq!(world.gateways[0].level("acme", now), 50.0);
    assert_eq!(world.gateways[0].rate_per_s("acme"), 100.0);
    for _ in 0..4 {
        world.round().await;
    }
    let now = world.now();
    let starter = world.gateways[1].level("acme", now);
    assert!(
        (1.0..=25.0).contains(&starter),
        "a first request is served there from {starter} tokens"
    );
}

#[tokio::test]
async fn a_contract_follows_its_traffic_within_three_syncs() {
    let mut world = World::new(3).await;
    for _ in 0..4 {
        world.round().await;
    }
    let settled = world.traffic("acme", 0, 100, 3_000).await;
    let percent = settled.percent_from(2 * SYNC_MS);
    assert!(
        percent >= 99.0,
        "{percent} % where the traffic began: {settled:?}"
    );
    for gateway in [1, 2, 0] {
        let moved = world.traffic("acme", gateway, 100, 3_000).await;
        let percent = moved.percent_from(3 * SYNC_MS + EARLY_MS);
        assert!(percent >= 99.0, "{percent} % at g{gateway}: {moved:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_waits_for_another_is_told_when_to_come() {
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    world.traffic("acme", 0, 100, 3_000).await;
    world.sync(0).await;
    // A third of the way to the next sync of the other, traffic has come here.
    world.server.advance_ms(SYNC_MS / 3);
    let now = world.now();
    for _ in 0..60 {
        world.gateways[1].request("acme", tokens(1), &mut world.ideal, now);
    }
    world.sync(1).await;
    let before_per_s = world.gateways[1].rate_per_s("acme");
    let wait_ms = u64::from(world.gateways[1].interval_ms);
    let told_after_ms = SYNC_MS - SYNC_MS / 3;
    assert!(
        (told_after_ms + 50..SYNC_MS).contains(&wait_ms),
        "after {wait_ms} ms, when the other has given something up"
    );
    world.server.advance_ms(told_after_ms);
    world.sync(0).await;
    let confirms_ms = u64::from(world.gateways[0].interval_ms);
    assert!(told_after_ms + confirms_ms < wait_ms);
    world.server.advance_ms(confirms_ms);
    world.sync(0).await;
    world
        .server
        .advance_ms(wait_ms - told_after_ms - confirms_ms);
    world.sync(1).await;
    let after_per_s = world.gateways[1].rate_per_s("acme");
    assert!(
        after_per_s > before_per_s + 20.0,
        "{before_per_s} and {after_per_s} a second"
    );
}

#[tokio::test]
async fn a_gateway_that_dies_leaves_its_rate_with_the_lease_and_the_rest_with_the_fallback() {
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    world.traffic("acme", 0, 100, 2_000).await;
    assert!(world.gateways[0].rate_per_s("acme") > 80.0);
    world.gateways.remove(0);
    let settings = settings();
    world.traffic("acme", 0, 100, 1_000).await;
    let while_leased = world.gateways[0].rate_per_s("acme");
    assert!(
        while_leased < 20.0,
        "{while_leased}/s while the dead one may still spend"
    );
    world
        .server
        .advance_ms(u64::from(settings.lease_ttl_ms) + 3_000);
    world.traffic("acme", 0, 100, 1_000).await;
    let after_lease = world.gateways[0].rate_per_s("acme");
    assert!(
        (85.0..=90.0).contains(&after_lease),
        "all but half of the guarantee, not {after_lease}/s"
    );
    world.server.advance_ms(u64::from(settings.fallback_ttl_ms));
    world.traffic("acme", 0, 100, 1_000).await;
    assert_eq!(world.gateways[0].rate_per_s("acme"), 100.0);
}

#[tokio::test]
async fn a_gateway_that_was_given_up_is_served_again_when_it_returns() {
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    world.traffic("acme", 0, 100, 1_000).await;
    world.sync(0).await;
    let settings = settings();
    let gone_ms = u64::from(settings.lease_ttl_ms) + u64::from(settings.fallback_ttl_ms) + 4_000;
    for _ in 0..gone_ms / 1_000 {
        world.server.advance_ms(1_000);
        world.sync(1).await;
    }
    let demand = customer(&world.server, "acme").await["resources"][0]["demand"].clone();
    let back = world.traffic("acme", 0, 100, 2_000).await;
    // It is asked for its sums first.
    let percent = back.percent_from(3 * SYNC_MS);
    assert!(percent >= 99.0, "{percent} %: {back:?}");
    world.sync(0).await;
    let after = customer(&world.server, "acme").await["resources"][0]["demand"].clone();
    assert_eq!(
        after.as_f64().unwrap() - demand.as_f64().unwrap(),
        200.0,
        "what it asked for is counted once"
    );
}

#[tokio::test]
async fn a_restarted_server_renews_no_lease_before_the_gateway_knows_the_rates_that_are_left_to_it()
{
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    world.traffic("acme", 0, 100, 1_000).await;
    // The first one is cut off, and when its lease has ended the other one has its rate.
    let mut cut_off = world.gateways.remove(0);
    assert!(cut_off.rate_per_s("acme") > 80.0);
    world.traffic("acme", 0, 100, 14_000).await;
    assert!(world.gateways[0].rate_per_s("acme") > 80.0);
    world.server = world.server.killed();
    // Its policy is behind when it comes back, so that it cannot be told any rates yet.
    world.server.ok("POST", "/v1/policies", policy()).await;
    let now = world.now();
    let behind = cut_off.sync(&world.server, now).await;
    assert_eq!((behind.lease_ttl_ms, behind.grants.len()), (0, 0));
    let told = cut_off.sync(&world.server, now).await;
    assert_eq!(told.grants.len(), CUSTOMERS.len());
    assert!(told.lease_ttl_ms > 0);
    assert!(cut_off.rate_per_s("acme") < 20.0);
}

#[tokio::test]
async fn a_credit_reaches_a_customer_whose_contract_is_spread_over_gateways() {
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    for _ in 0..4 {
        for gateway in 0..2 {
            world.traffic("acme", gateway, 100, 500).await;
        }
    }
    let now = world.now();
    for gateway in 0..2 {
        world.gateways[gateway].drain("acme", &mut world.ideal, now);
    }
    world.round().await;
    let levels = |world: &mut World| -> f64 {
        let now = world.now();
        let levels = world.gateways.iter_mut();
        levels.map(|gateway| gateway.level("acme", now)).sum()
    };
    let before = levels(&mut world);
    let credit = json!({"tokens": 10});
    world
        .server
        .ok("POST", "/v1/customers/acme/credit", credit)
        .await;
    // What does not fit where it was sent comes back, and goes on.
    for _ in 0..3 {
        world.round().await;
    }
    let gained = levels(&mut world) - before;
    let left = customer(&world.server, "acme").await["resources"][0]["central_tokens"].clone();
    let all = gained + left.as_f64().unwrap();
    let expected = 9.9..12.0;
    assert!(expected.contains(&all), "{gained} tokens, and {left} left");
}

#[tokio::test]
async fn a_gateway_is_told_once_what_the_others_have_used_in_a_step() {
    let mut world = World::new(2).await;
    for _ in 0..4 {
        world.round().await;
    }
    // Into the middle of a step, so that what follows is in one.
    world.server.advance_ms(u64::from(STEP_MS) * 3 / 2 - 4 - 4);
    world.round().await;
    let now = world.now();
    for _ in 0..40 {
        world.gateways[0].request("acme", tokens(1), &mut world.ideal, now);
    }
    world.round().await;
    world.server.advance_ms(u64::from(STEP_MS));
    let now = world.now();
    let mut told = Vec::new();
    for gateway in [0, 1, 1] {
        let reply = world.gateways[gateway].sync(&world.server, now).await;
        told.push(
            reply
                .step_usage
                .iter()
                .map(|usage| usage.usage)
                .sum::<f32>(),
        );
    }
    assert_eq!(told, [0.0, 40.0, 0.0]);
}

#[tokio::test]
async fn a_request_of_a_process_that_died_does_not_fence_off_its_successor() {
    let mut world = World::new(1).await;
    let now = world.now();
    // It is on its way for so long that the next process is served before it.
    let delayed = world.gateways[0].next_request(now);
    world.gateways[0] = world.born(0);
    world.sync(0).await;
    world.sync(0).await;
    assert_eq!(world.gateways[0].rate_per_s("acme"), 100.0);
    let (status, reply) = world.server.sync(&delayed).await;
    assert_eq!(status, 409);
    assert_eq!(reply.error.unwrap().code(), SyncErrorCode::StaleIncarnation);
    world.sync(0).await;
    assert_eq!(world.gateways[0].rate_per_s("acme"), 100.0);
}

#[tokio::test]
async fn a_gateway_whose_clock_was_set_back_is_served_when_the_one_before_it_is_gone() {
    let mut world = World::new(1).await;
    let now = world.now();
    let mut set_back = world.born(0);
    world.gateways[0] = world.born(0);
    world.sync(0).await;
    let early = set_back.next_request(now);
    assert_eq!(world.server.sync(&early).await.0, 409);
    let settings = settings();
    let gone_ms = u64::from(settings.lease_ttl_ms) + u64::from(settings.fallback_ttl_ms) + 4_000;
    world.server.advance_ms(gone_ms);
    let now = world.now();
    set_back.sync(&world.server, now).await;
    set_back.sync(&world.server, now).await;
    assert_eq!(set_back.rate_per_s("acme"), 100.0);
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    RequestLost,
    ReplyLost,
    CutShort,
}

#[derive(Clone, Debug)]
enum Step {
    Advance {
        ms: u64,
    },
    Request {
        gateway: usize,
        customer: usize,
        milli: i64,
    },
    Drain {
        gateway: usize,
        customer: usize,
    },
    Lend {
        gateway: usize,
        customer: usize,
        milli: i64,
    },
    SpendChunk {
        gateway: usize,
        customer: usize,
        milli: i64,
    },
    Sync {
        gateway: usize,
        fate: Fate,
    },
    /// A request of before arrives again.
    Again {
        pick: usize,
    },
    Restart {
        gateway: usize,
    },
    RetireAndRestart {
        gateway: usize,
    },
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..3_usize;
    let customer = || 0..CUSTOMERS.len();
    let milli = || 0..60_000_i64;
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::CutShort),
    ];
    let ms = prop_oneof![
        6 => 0..300_u64,
        2 => 300..5_000_u64,
        1 => 5_000..100_000_u64,
    ];
    prop_oneof![
        5 => ms.prop_map(|ms| Step::Advance { ms }),
        4 => (gateway(), customer(), milli()).prop_map(|(gateway, customer, milli)| Step::Request { gateway, customer, milli }),
        6 => (gateway(), customer()).prop_map(|(gateway, customer)| Step::Drain { gateway, customer }),
        2 => (gateway(), customer(), milli()).prop_map(|(gateway, customer, milli)| Step::Lend { gateway, customer, milli }),
        2 => (gateway(), customer(), milli()).prop_map(|(gateway, customer, milli)| Step::SpendChunk { gateway, customer, milli }),
        14 => (gateway(), fate).prop_map(|(gateway, fate)| Step::Sync { gateway, fate }),
        1 => (0..64_usize).prop_map(|pick| Step::Again { pick }),
        1 => gateway().prop_map(|gateway| Step::Restart { gateway }),
        1 => gateway().prop_map(|gateway| Step::RetireAndRestart { gateway }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

async fn take(world: &mut World, sent: &mut Vec<SyncRequest>, step: &Step) {
    let now = world.now();
    match *step {
        Step::Advance { ms } => world.server.advance_ms(ms),
        Step::Request {
            gateway,
            customer,
            milli,
        } => {
            let amount = Micro::new(milli * 1_000);
            world.gateways[gateway].request(CUSTOMERS[customer], amount, &mut world.ideal, now);
        }
        Step::Drain { gateway, customer } => {
            world.gateways[gateway].drain(CUSTOMERS[customer], &mut world.ideal, now);
        }
        Step::Lend {
            gateway,
            customer,
            milli,
        } => {
            world.gateways[gateway].lend(CUSTOMERS[customer], Micro::new(milli * 1_000), now);
        }
        Step::SpendChunk {
            gateway,
            customer,
            milli,
        } => {
            let amount = Micro::new(milli * 1_000);
            world.gateways[gateway].spend_chunk(CUSTOMERS[customer], amount, &mut world.ideal, now);
        }
        Step::Sync { gateway, fate } => {
            let request = world.gateways[gateway].next_request(now);
            sent.push(request.clone());
            if !matches!(fate, Fate::RequestLost) {
                let (_, reply) = world.server.sync(&request).await;
                match fate {
                    Fate::Arrives => world.gateways[gateway].apply(&reply, true, now),
                    Fate::CutShort => world.gateways[gateway].apply(&reply, false, now),
                    Fate::RequestLost | Fate::ReplyLost => {}
                }
            }
        }
        Step::Again { pick } => {
            if !sent.is_empty() {
                let request = sent[pick % sent.len()].clone();
                // Its reply finds nobody.
                world.server.sync(&request).await;
            }
        }
        Step::Restart { gateway } => world.gateways[gateway] = world.born(gateway),
        Step::RetireAndRestart { gateway } => {
            let path = format!("/v1/gateways/g{gateway}/retire");
            world.server.admin("POST", &path, Value::Null).await;
            world.gateways[gateway] = world.born(gateway);
        }
        Step::Kill | Step::Stop => unreachable!("these take the server"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_of_faults_admits_more_than_the_contract(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(3).await;
            let mut sent = Vec::new();
            for step in &steps {
                match step {
                    Step::Kill => world.server = world.server.killed(),
                    Step::Stop => world.server = world.server.restarted().await,
                    _ => take(&mut world, &mut sent, step).await,
                }
            }
            let status = world.server.ok("GET", "/v1/status", Value::Null).await;
            for (cause, tokens) in status["over_admitted_tokens"].as_object().unwrap() {
                assert_eq!(tokens.as_f64(), Some(0.0), "nobody is to blame: {cause}");
            }
        });
    }
}
