//! A control plane that is well-formed and absurd: every number at its extreme, in any combination. The gateway may end up with
//! nothing to admit, but it never panics, never hangs, never holds more than a contract allows, and an honest control plane finds it
//! as it was.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use forebay_core::ledger::{CustomerHash, STATE_KEY};
use forebay_core::resource::ResourceIndex;
use forebay_forecaster::host::{Host, Metric};
use forebay_wire::key;
use forebay_wire::sync::{
    Allocation, Grant, ModelRelease, PolicyCustomer, PolicyDelta, PoolGrant, StepUsage, SyncReply,
    Window,
};
use proptest::prelude::*;

use world::World;
use world::plane::{
    BURST, EPOCH, RATE_PER_S, answer, grant, granted, level, next_sync, policy_delta, reply_to,
    start, ticks, use_tokens,
};

const TOKEN: i64 = 1_000_000;
const CUSTOMERS: u8 = 3;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(EPOCH),
        Just(50_000_000),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        Just(i64::MAX.unsigned_abs()),
        Just(u64::MAX - 1),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(3),
        Just(1_000),
        Just(u32::MAX),
        any::<u32>()
    ]
}

fn usage() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(f32::NAN),
        Just(f32::INFINITY),
        Just(f32::NEG_INFINITY),
        Just(f32::MAX),
        Just(-1.0),
        Just(f32::MIN_POSITIVE),
        any::<f32>(),
    ]
}

fn who() -> impl Strategy<Value = CustomerHash> {
    (0..CUSTOMERS + 1).prop_map(|number| CustomerHash([number; 16]))
}

fn parts(customer: CustomerHash) -> (u64, u64) {
    key::CustomerHash(customer.0).parts()
}

prop_compose! {
    fn any_grant()(
        who in who(), resource in small(), numbers in [number(), number(), number(), number(), number(), number()],
    ) -> Grant {
        let (hash_high, hash_low) = parts(who);
        Grant {
            hash_high,
            hash_low,
            resource: if resource > 4 { 0 } else { resource },
            granted_cum_micro: numbers[0],
            adjust_cum_micro: numbers[1].cast_signed(),
            rate_micro_per_s: numbers[2],
            local_cap_micro: numbers[3],
            fallback_rate_micro_per_s: numbers[4],
            base_cum_micro: numbers[5],
        }
    }
}

prop_compose! {
    fn any_pool()(resource in small(), numbers in [number(), number(), number(), number()]) -> PoolGrant {
        PoolGrant {
            resource: if resource > 4 { 0 } else { resource },
            granted_cum_micro: numbers[0],
            rate_micro_per_s: numbers[1],
            local_cap_micro: numbers[2],
            fallback_rate_micro_per_s: numbers[3],
        }
    }
}

prop_compose! {
    fn any_window()(
        who in who(), newest_step in number(), usage in prop::collection::vec(usage(), 0..40),
        mask in prop::collection::vec(any::<u8>(), 0..6),
    ) -> Window {
        let (hash_high, hash_low) = parts(who);
        Window { hash_high, hash_low, resource: 0, step_ms: 1_000, newest_step, usage, mask }
    }
}

prop_compose! {
    fn any_step()(who in who(), step in number(), usage in usage()) -> StepUsage {
        let (hash_high, hash_low) = parts(who);
        StepUsage { hash_high, hash_low, resource: 0, step, usage }
    }
}

prop_compose! {
    fn any_allocation()(who in who(), resource in small(), rate_micro_per_s in number()) -> Allocation {
        let (hash_high, hash_low) = parts(who);
        Allocation { hash_high, hash_low, resource: if resource > 4 { 0 } else { resource }, rate_micro_per_s }
    }
}

/// What a hostile reply says; the request's own numbers are echoed, as it would not be read otherwise.
type Lies = (
    Vec<Grant>,
    Vec<PoolGrant>,
    Vec<Window>,
    Vec<StepUsage>,
    (Vec<Allocation>, u32, u64),
    [u64; 5],
    [u32; 6],
    Option<(bool, bool, u32, bool)>,
);

fn lies() -> impl Strategy<Value = Lies> {
    (
        prop::collection::vec(any_grant(), 0..6),
        prop::collection::vec(any_pool(), 0..3),
        prop::collection::vec(any_window(), 0..4),
        prop::collection::vec(any_step(), 0..4),
        (
            prop::collection::vec(any_allocation(), 0..6),
            small(),
            number(),
        ),
        [number(), number(), number(), number(), number()],
        [small(), small(), small(), small(), small(), small()],
        prop::option::of(any::<(bool, bool, u32, bool)>()),
    )
}

fn tell(reply: &mut SyncReply, lies: Lies) {
    let (grants, pools, windows, step_usage, allocations, numbers, small, policy) = lies;
    (
        reply.allocations,
        reply.allocation_ttl_ms,
        reply.allocation_cycle,
    ) = allocations;
    reply.grants = grants;
    reply.pools = pools;
    reply.windows = windows;
    reply.step_usage = step_usage;
    reply.server_time_ms = numbers[0];
    reply.policy_epoch = numbers[1];
    reply.step_now = numbers[2];
    reply.lease_ttl_ms = small[0];
    reply.fallback_ttl_ms = small[1];
    reply.sync_interval_ms = small[2];
    reply.early_sync_ms = small[3];
    reply.grants_left = small[0] % 2 == 1;
    reply.step_elapsed_ms = small[3];
    reply.windows_left = small[4] % 2 == 1;
    reply.model = Some(ModelRelease {
        epoch: numbers[3],
        digest: vec![7; usize::try_from(small[5] % 40).unwrap()],
        kind: small[4],
        signature: vec![1; 64],
        path: "/v1/models/x".to_owned(),
        bytes: numbers[4],
    });
    reply.policy = policy.map(|(full, complete, flags, keeps_tables)| {
        let mut delta = policy_delta(CUSTOMERS);
        delta.epoch = numbers[1];
        delta.cursor = numbers[2];
        delta.customers_total = numbers[3];
        (delta.full, delta.complete) = (full, complete);
        if !keeps_tables {
            delta.compiled.truncate(9);
        }
        delta.customers.push(PolicyCustomer {
            flags,
            ban_until_unix_ms: numbers[4],
            contract: small[5],
            ..delta.customers[0]
        });
        delta
    });
}

#[test]
fn a_policy_of_an_absurd_number_of_customers_seeds_no_ledger() {
    let world = World::new();
    let mut forecaster = start(&world);
    for total in [u64::MAX, 1 << 32, 3_000_000] {
        let sent = next_sync(&world, &mut forecaster);
        let (_, mut reply) = reply_to(&sent);
        reply.policy = Some(PolicyDelta {
            customers_total: total,
            ..policy_delta(CUSTOMERS)
        });
        forecaster.on_http_response(sent.call, answer(&reply));
        ticks(&world, &mut forecaster, 5);
        assert!(world.shared_data(STATE_KEY).is_none(), "{total}");
    }
    assert_eq!(world.metric(Metric::ReplyItemsRefused), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn absurd_replies_neither_panic_nor_overfill_nor_last(rounds in prop::collection::vec(lies(), 1..5)) {
        let world = World::new();
        let mut forecaster = granted(&world, CUSTOMERS, 10);
        let most = i64::try_from(BURST).unwrap() * TOKEN;
        for lies in rounds {
            for number in 0..CUSTOMERS {
                if world::plane::entry(&world, &world::plane::customer(number)).is_some() {
                    use_tokens(&world, number, 3, 1);
                }
            }
            let sent = next_sync(&world, &mut forecaster);
            let (_, mut reply) = reply_to(&sent);
            tell(&mut reply, lies);
            forecaster.on_http_response(sent.call, answer(&reply));
            ticks(&world, &mut forecaster, 60);
            for number in 0..CUSTOMERS {
                prop_assert!(level(&world, number) <= most, "customer {number}: {}", level(&world, number));
                let claim = world::plane::entry(&world, &world::plane::customer(number))
                    .map_or(0, |entry| entry.holdings.at(ResourceIndex::FIRST).shadow_rate.get());
                prop_assert!(claim <= RATE_PER_S * TOKEN.unsigned_abs(), "customer {number} claims {claim}");
            }
        }
        // An honest control plane: it sends the policy again, and 20 tokens on top of what each entry says it has.
        let mut honest = 0;
        while honest < 12 {
            let sent = next_sync(&world, &mut forecaster);
            let (request, mut reply) = reply_to(&sent);
            reply.policy = (honest < 4).then(|| policy_delta(CUSTOMERS));
            if honest >= 4 {
                prop_assert_eq!(request.policy_epoch_applied, EPOCH, "log: {:?}", world.log());
            }
            reply.grants = (0..CUSTOMERS).map(|number| grant(number, 50 + honest)).collect();
            for grant in &mut reply.grants {
                grant.rate_micro_per_s = 100 * 1_000_000;
            }
            forecaster.on_http_response(sent.call, answer(&reply));
            ticks(&world, &mut forecaster, 10);
            honest += 1;
        }
        for number in 0..CUSTOMERS {
            prop_assert!(world::plane::entry(&world, &world::plane::customer(number)).is_some(), "log: {:?}", world.log());
            prop_assert!(level(&world, number) <= most);
        }
    }
}
