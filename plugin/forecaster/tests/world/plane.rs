//! A control plane of a few lines: it answers what a test tells it to, so that a test can lie.

use forebay_core::amount::{Micro, Rate};
use forebay_core::ledger::{CustomerHash, Entry, Holding, Ledger, Region};
use forebay_core::policy::{
    Contract, Limits, Policy, PoolRule, Resource, ShadowRule, Tier, Unknown,
};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_forecaster::host::{Host, HttpAnswer};
use forebay_forecaster::ledger::Shared;
use forebay_forecaster::{Environment, Forecaster};
use forebay_wire::key;
use forebay_wire::sync::{Grant, PolicyCustomer, PolicyDelta, SyncReply, SyncRequest};
use prost::Message;

use super::{Sent, World};

pub const CONFIG: &str = r#"{
    "version": 1,
    "control_plane": {"cluster": "plane", "gateway_id": "gw-1"},
    "series": {"step_s": 1, "max_series": 1000},
    "ledger": {"max_policy_customers": 64, "max_other_customers": 64}
}"#;

pub const EPOCH: u64 = 7;
pub const BURST: u64 = 50;
pub const RATE_PER_S: u64 = 100;

pub fn environment() -> Environment {
    Environment {
        gateway_token: Some("secret-token".to_owned()),
        random: 42,
        ..Environment::default()
    }
}

pub fn start(world: &World) -> Forecaster<World> {
    Forecaster::configure(world.clone(), CONFIG.as_bytes(), &environment()).unwrap()
}

pub fn customer(number: u8) -> CustomerHash {
    CustomerHash([number; 16])
}

pub fn policy() -> Policy {
    let limits = Limits::plain(
        Rate::from_tokens_per_s(RATE_PER_S),
        Micro::from_tokens(BURST),
    );
    Policy {
        epoch: EPOCH,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".to_owned(),
            pool: Some(PoolRule {
                capacity: Rate::from_tokens_per_s(1_000),
                depth: Micro::from_tokens(1_000),
            }),
        }],
        contracts: vec![Contract {
            name: "gold".to_owned(),
            tier: Tier::One,
            priority: 0,
            weight: 1,
            limits: PerResource::only_first(limits),
        }],
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    }
}

pub fn policy_delta(customers: u8) -> PolicyDelta {
    PolicyDelta {
        epoch: EPOCH,
        full: true,
        compiled: policy().encode(),
        customers: (0..customers)
            .map(|number| {
                let (hash_high, hash_low) = key::CustomerHash([number; 16]).parts();
                PolicyCustomer {
                    hash_high,
                    hash_low,
                    ..PolicyCustomer::default()
                }
            })
            .collect(),
        cursor: 1,
        complete: true,
        customers_total: u64::from(customers),
    }
}

pub fn grant(number: u8, granted_tokens: u64) -> Grant {
    let (hash_high, hash_low) = key::CustomerHash([number; 16]).parts();
    Grant {
        hash_high,
        hash_low,
        resource: 0,
        granted_cum_micro: granted_tokens * 1_000_000,
        adjust_cum_micro: 0,
        rate_micro_per_s: 0,
        local_cap_micro: BURST * 1_000_000,
        fallback_rate_micro_per_s: 0,
        base_cum_micro: 0,
    }
}

/// A reply to this request, with a lease and nothing else.
pub fn reply_to(sent: &Sent) -> (SyncRequest, SyncReply) {
    let request = SyncRequest::decode(sent.body.as_slice()).unwrap();
    let reply = SyncReply {
        sequence: request.sequence,
        sent_at_us: request.sent_at_us,
        lease_ttl_ms: 5_000,
        fallback_ttl_ms: 10_000,
        step_ms: 1_000,
        ..SyncReply::default()
    };
    (request, reply)
}

pub fn answer(reply: &SyncReply) -> HttpAnswer {
    HttpAnswer {
        status: 200,
        body: reply.encode_to_vec(),
    }
}

/// Ticks until a sync is sent; panics when none comes within ten seconds.
pub fn next_sync(world: &World, forecaster: &mut Forecaster<World>) -> Sent {
    for _ in 0..500 {
        forecaster.on_tick();
        if let Some(sent) = world.take_sent().pop() {
            return sent;
        }
        world.advance_ms(20);
    }
    panic!("no sync within ten seconds; log: {:?}", world.log());
}

pub fn ticks(world: &World, forecaster: &mut Forecaster<World>, count: u32) {
    for _ in 0..count {
        world.advance_ms(20);
        forecaster.on_tick();
    }
}

/// A gateway with policy, lease and `customers` that were granted `tokens` each.
pub fn granted(world: &World, customers: u8, tokens: u64) -> Forecaster<World> {
    listed(world, customers, customers, tokens)
}

/// A gateway with policy, lease and `customers`, the first of which were granted `tokens` each.
pub fn listed(world: &World, customers: u8, granted: u8, tokens: u64) -> Forecaster<World> {
    let mut forecaster = start(world);
    let sent = next_sync(world, &mut forecaster);
    let (_, mut reply) = reply_to(&sent);
    reply.policy = Some(policy_delta(customers));
    forecaster.on_http_response(sent.call, answer(&reply));
    let sent = next_sync(world, &mut forecaster);
    let (request, mut reply) = reply_to(&sent);
    assert_eq!(
        request.policy_epoch_applied,
        EPOCH,
        "the policy is in force; log: {:?}",
        world.log()
    );
    reply.grants = (0..granted).map(|number| grant(number, tokens)).collect();
    forecaster.on_http_response(sent.call, answer(&reply));
    ticks(world, &mut forecaster, 5);
    forecaster
}

/// The entry of a customer, brought up to date.
pub fn entry(world: &World, customer: &CustomerHash) -> Option<Entry> {
    let mut data = Shared(world);
    let mut ledger = Ledger::open(&mut data).ok()?;
    let policy = ledger.read_policy(&mut data).unwrap()?;
    let (layout, lease) = (ledger.state().layout, ledger.state().lease);
    let page = layout.page_of(Region::Policy, customer);
    let view = ledger.view_page(&mut data, Region::Policy, page).unwrap();
    let mut entry = view
        .entries()
        .flatten()
        .find(|entry| entry.customer == *customer)?;
    entry.refill(&policy, &lease, TimeUs(world.now_us()));
    Some(entry)
}

/// Tokens in the standard bucket.
pub fn level(world: &World, number: u8) -> i64 {
    entry(world, &customer(number)).map_or(0, |entry| {
        entry.holdings.at(ResourceIndex::FIRST).contract.level.get()
    })
}

/// Counts demand of so many tokens on the customer's entry, as a worker does when it settles a chunk.
pub fn use_tokens(world: &World, number: u8, tokens: u64, unforeseen: u64) {
    edit(world, number, |holding| {
        holding.admitted_cum += tokens * 1_000_000;
        holding.deviation_cum += unforeseen * 1_000_000;
    });
}

/// Counts a denial of so many tokens on the customer's entry.
pub fn deny_tokens(world: &World, number: u8, tokens: u64) {
    edit(world, number, |holding| {
        holding.denied_cum += tokens * 1_000_000;
    });
}

/// Takes tokens out of the customer's standard bucket.
pub fn take_tokens(world: &World, number: u8, tokens: i64) {
    edit(world, number, |holding| {
        holding.contract.take(Micro::new(tokens * 1_000_000))
    });
}

fn edit(world: &World, number: u8, change: impl Fn(&mut Holding)) {
    let mut data = Shared(world);
    let mut ledger = Ledger::open(&mut data).unwrap();
    let policy = ledger.read_policy(&mut data).unwrap().unwrap();
    let (lease, now) = (ledger.state().lease, TimeUs(world.monotonic_us()));
    let customer = customer(number);
    let page = ledger.state().layout.page_of(Region::Policy, &customer);
    ledger
        .edit_page(&mut data, Region::Policy, page, now, |page| {
            let position = page.view().find(&customer).unwrap();
            let mut entry = page.get(position)?;
            entry.refill(&policy, &lease, now);
            change(entry.holdings.at_mut(ResourceIndex::FIRST));
            page.put(position, &entry);
            Ok(true)
        })
        .unwrap();
}
