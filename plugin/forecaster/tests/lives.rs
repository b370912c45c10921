//! A customer's entry is dropped and made anew, on this page or on another: what it counts and what it claims goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use forebay_core::chunk::{Amounts, Chunk};
use forebay_core::draw::Conditions;
use forebay_core::ledger::{Entry, Ledger, Region};
use forebay_core::policy::{ContractIndex, Policy, Unknown};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::{Micro, TimeUs};
use forebay_forecaster::Forecaster;
use forebay_forecaster::host::Host;
use forebay_forecaster::ledger::Shared;
use forebay_wire::key;
use forebay_wire::sync::{CustomerReport, PolicyDelta, PoolGrant};

use world::World;
use world::plane::{
    EPOCH, answer, customer, entry, grant, next_sync, policy, policy_delta, reply_to, start, ticks,
};

const NUMBER: u8 = 5;

/// A policy that serves strangers by its contract, and lists the first `customers`.
fn open_delta(epoch: u64, customers: u8) -> PolicyDelta {
    let policy = Policy {
        epoch,
        unknown: Unknown::DefaultContract(ContractIndex(0)),
        ..policy()
    };
    PolicyDelta {
        epoch,
        compiled: policy.encode(),
        ..policy_delta(customers)
    }
}

/// Puts the policy in force, and grants what its customers need.
fn apply(world: &World, forecaster: &mut Forecaster<World>, epoch: u64, customers: u8) {
    let sent = next_sync(world, forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(open_delta(epoch, customers));
    // Sooner than a step, in which a forecast changes, and its claim with it.
    reply.sync_interval_ms = 50;
    reply.grants = (0..customers).map(|number| grant(number, 50)).collect();
    for grant in &mut reply.grants {
        grant.rate_micro_per_s = 100_000_000;
    }
    reply.pools = vec![PoolGrant {
        granted_cum_micro: 1_000_000_000,
        local_cap_micro: 1_000_000_000,
        rate_micro_per_s: 1_000_000_000,
        ..PoolGrant::default()
    }];
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(world, forecaster, 3);
}

/// A request of the customer, as a worker decides it.
fn request(world: &World, number: u8) {
    let mut data = Shared(world);
    let mut ledger = Ledger::open(&mut data).unwrap();
    let policy = ledger.read_policy(&mut data).unwrap().unwrap();
    let conditions = Conditions {
        policy: &policy,
        lease: ledger.state().lease,
        now: TimeUs(world.monotonic_us()),
        workers: 1,
    };
    let cost: Amounts = PerResource::only_first(Micro::from_tokens(1));
    let (customer, mut chunk) = (customer(number), Chunk::default());
    let verdict = ledger
        .draw(&mut data, &conditions, &customer, &cost, &mut chunk)
        .unwrap();
    assert!(verdict.is_admitted(), "{verdict:?}");
    ledger
        .give_back(&mut data, &conditions, &customer, &mut chunk)
        .unwrap();
}

/// Lets so many seconds pass in which the customer uses 50 tokens each. Returns what was reported of it.
fn live(
    world: &World,
    forecaster: &mut Forecaster<World>,
    seconds: u32,
    reports_all: bool,
) -> Vec<CustomerReport> {
    let mut reports = Vec::new();
    for _ in 0..seconds {
        for _ in 0..50 {
            world.advance_ms(20);
            request(world, NUMBER);
            forecaster.on_tick();
            for sent in world.take_sent() {
                let (request, mut reply) = reply_to(&sent);
                reports.extend(request.customers.into_iter().filter(is_ours));
                reply.report_all = reports_all;
                forecaster.on_http_response(sent.call, answer(&reply));
            }
        }
    }
    reports
}

fn is_ours(report: &CustomerReport) -> bool {
    key::CustomerHash::from_parts(report.hash_high, report.hash_low).0[0] == NUMBER
}

/// The customer's entry among the others.
fn stranger(world: &World) -> Option<Entry> {
    let mut data = Shared(world);
    let mut ledger = Ledger::open(&mut data).unwrap();
    let customer = customer(NUMBER);
    let page = ledger.state().layout.page_of(Region::Other, &customer);
    let view = ledger.view_page(&mut data, Region::Other, page).unwrap();
    view.entries()
        .flatten()
        .find(|entry| entry.customer == customer)
}

fn shadow_rate(entry: Option<Entry>) -> u64 {
    let rate = |entry: Entry| entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get();
    entry.map_or(0, rate) / 1_000_000
}

#[test]
fn the_claim_of_a_stranger_goes_with_it_into_the_policy_and_out_again() {
    let world = World::new();
    let mut forecaster = start(&world);
    apply(&world, &mut forecaster, EPOCH, 1);
    live(&world, &mut forecaster, 20, false);
    assert!((45..=75).contains(&shadow_rate(stranger(&world))));
    apply(&world, &mut forecaster, EPOCH + 1, NUMBER + 1);
    live(&world, &mut forecaster, 2, false);
    let listed = shadow_rate(entry(&world, &customer(NUMBER)));
    assert!((45..=75).contains(&listed), "{listed}");
    // Dropped and listed again at once: the entry is another one on the same page.
    let since = |world: &World| entry(world, &customer(NUMBER)).unwrap().counted_since;
    let before = since(&world);
    apply(&world, &mut forecaster, EPOCH + 2, 1);
    apply(&world, &mut forecaster, EPOCH + 3, NUMBER + 1);
    assert!(since(&world) > before);
    ticks(&world, &mut forecaster, 5);
    let again = shadow_rate(entry(&world, &customer(NUMBER)));
    assert!((45..=75).contains(&again), "{again}");
}

#[test]
fn an_entry_that_was_made_anew_says_since_when_it_counts() {
    let world = World::new();
    let mut forecaster = start(&world);
    apply(&world, &mut forecaster, EPOCH, 1);
    let before = live(&world, &mut forecaster, 3, false);
    apply(&world, &mut forecaster, EPOCH + 1, NUMBER + 1);
    let listed_at_us = world.now_us();
    let after = live(&world, &mut forecaster, 3, true);
    let (before, last) = (before.last().unwrap(), after.last().unwrap());
    assert!(before.demand_micro > 130_000_000 && before.demand_micro <= 150_000_000);
    assert!(
        last.demand_micro > 130_000_000 && last.demand_micro <= 150_000_000,
        "it counts from zero"
    );
    assert!(before.counted_since_us < last.counted_since_us);
    assert!(last.counted_since_us <= listed_at_us);
    assert!(
        after
            .iter()
            .all(|report| report.counted_since_us == last.counted_since_us),
        "what it counted as a stranger is not reported any more: {after:?}"
    );
    assert!(stranger(&world).is_some(), "although it is still there");
}
