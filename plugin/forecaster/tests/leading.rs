//! Several VMs of one gateway, as Envoy makes them of an ordinary filter: one forecasts, and whoever follows it is the same gateway.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod world;

use forebay_core::ledger::LEADER_KEY;
use forebay_core::limits::LEADER_LEASE_US;
use forebay_forecaster::host::{Host, Metric};
use forebay_forecaster::{Candidate, Environment, Forecaster};
use proptest::prelude::*;

use world::plane::{
    BURST, CONFIG, EPOCH, answer, environment, grant, level, policy_delta, reply_to, take_tokens,
    use_tokens,
};
use world::{Sent, World};

const TOKEN: i64 = 1_000_000;
const TICK_MS: u64 = 20;
const LEASE_MS: u64 = LEADER_LEASE_US / 1_000;

/// The VMs of a gateway.
struct Vms {
    world: World,
    vms: Vec<Option<Candidate<World>>>,
    started: u64,
}

// === impl Vms ===

impl Vms {
    fn start(vms: usize) -> Self {
        let world = World::new();
        let mut gateway = Self {
            world,
            vms: Vec::new(),
            started: 0,
        };
        for _ in 0..vms {
            gateway.add(CONFIG);
        }
        gateway
    }

    fn add(&mut self, config: &str) -> usize {
        self.started += 1;
        let environment = Environment {
            random: self.started * 1_000,
            ..environment()
        };
        let vm = Candidate::configure(self.world.clone(), config.as_bytes(), &environment).unwrap();
        self.vms.push(Some(vm));
        self.vms.len() - 1
    }

    fn vm(&mut self, vm: usize) -> &mut Candidate<World> {
        self.vms[vm].as_mut().unwrap()
    }

    /// All of them tick; what the one that leads has sent.
    fn tick(&mut self) -> Vec<(usize, Sent)> {
        let mut sent = Vec::new();
        for vm in 0..self.vms.len() {
            if let Some(candidate) = &mut self.vms[vm] {
                candidate.on_tick();
                let calls = self.world.take_sent();
                sent.extend(calls.into_iter().map(|call| (vm, call)));
            }
        }
        self.world.advance_ms(TICK_MS);
        sent
    }

    fn next_sync(&mut self) -> (usize, Sent) {
        for _ in 0..500 {
            if let Some(sent) = self.tick().pop() {
                return sent;
            }
        }
        panic!("no sync within ten seconds; log: {:?}", self.world.log());
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |vm: &usize| self.vms[*vm].as_ref().is_some_and(Candidate::leads);
        (0..self.vms.len()).filter(leads).collect()
    }

    /// A policy and 30 tokens for each of two customers. Returns who leads.
    fn granted(&mut self) -> usize {
        let (leader, sent) = self.next_sync();
        let (_, mut reply) = reply_to(&sent);
        reply.policy = Some(policy_delta(2));
        self.vm(leader).on_http_response(sent.call, answer(&reply));
        let (_, sent) = self.next_sync();
        let (_, mut reply) = reply_to(&sent);
        reply.grants = vec![grant(0, 30), grant(1, 30)];
        self.vm(leader).on_http_response(sent.call, answer(&reply));
        for _ in 0..5 {
            assert!(self.tick().is_empty());
        }
        assert_eq!(self.levels(), (30 * TOKEN, 30 * TOKEN));
        leader
    }

    fn levels(&self) -> (i64, i64) {
        (level(&self.world, 0), level(&self.world, 1))
    }
}

#[test]
fn one_of_several_vms_syncs_at_the_pace_of_one() {
    let mut gateway = Vms::start(5);
    let leader = gateway.granted();
    let mut syncs = 0;
    for _ in 0..1_000 / TICK_MS * 30 {
        for (vm, sent) in gateway.tick() {
            assert_eq!(vm, leader);
            syncs += 1;
            let (_, reply) = reply_to(&sent);
            gateway.vm(vm).on_http_response(sent.call, answer(&reply));
        }
    }
    assert_eq!(gateway.leaders(), [leader]);
    // Four a second for thirty seconds, and a tick's delay for each.
    assert!((105..=122).contains(&syncs), "{syncs} syncs");
    assert_eq!(gateway.world.metric(Metric::Elected), 1);
}

#[test]
fn the_only_vm_syncs_at_its_first_tick() {
    let mut gateway = Vms::start(1);
    assert_eq!(gateway.tick().len(), 1);
}

#[test]
fn a_vm_that_is_only_configured_touches_nothing() {
    let mut gateway = Vms::start(3);
    assert!(gateway.world.shared_data(LEADER_KEY).is_none());
    assert!(gateway.world.shared_data("fb/1/gateway").is_none());
    gateway.vms = Vec::new();
    gateway.add(CONFIG);
    assert_eq!(gateway.tick().len(), 1, "nobody has left a lease behind");
}

#[test]
fn the_vm_after_one_that_trapped_is_the_same_gateway_restarted() {
    let mut gateway = Vms::start(3);
    let leader = gateway.granted();
    use_tokens(&gateway.world, 1, 12, 0);
    let (_, sent) = gateway.next_sync();
    let before = reply_to(&sent).0;
    gateway.vms[leader] = None;
    let gone_ms = gateway.world.wall_now_ms();
    let (next, sent) = gateway.next_sync();
    assert!(gateway.world.wall_now_ms() - gone_ms <= LEASE_MS + 2 * TICK_MS);
    assert_ne!(next, leader);
    let (request, mut reply) = reply_to(&sent);
    assert_eq!(request.incarnation, before.incarnation);
    assert!(request.sequence > before.sequence);
    assert_eq!(
        (request.policy_epoch_applied, request.reply_applied),
        (EPOCH, 0)
    );
    // What it has not heard was granted is granted again, and counts once.
    reply.grants = vec![grant(0, 30), grant(1, 30)];
    gateway.vm(next).on_http_response(sent.call, answer(&reply));
    (0..5).for_each(|_| {
        gateway.tick();
    });
    assert_eq!(gateway.levels(), (30 * TOKEN, 30 * TOKEN));
    let (_, sent) = gateway.next_sync();
    let reports = reply_to(&sent).0.customers;
    let demand = reports.iter().map(|report| report.demand_micro).max();
    assert_eq!(demand, Some(12_000_000), "the counters are the ledger's");
}

#[test]
fn a_vm_that_stood_still_drops_its_outstanding_sync_and_sends_no_other() {
    let mut gateway = Vms::start(2);
    let old = gateway.granted();
    let (_, outstanding) = gateway.next_sync();
    let mut stopped = gateway.vms[old].take().unwrap();
    let (new, _) = gateway.next_sync();
    assert_ne!(old, new);
    let (_, mut reply) = reply_to(&outstanding);
    reply.grants = vec![grant(0, 49)];
    stopped.on_http_response(outstanding.call, answer(&reply));
    for _ in 0..500 {
        stopped.on_tick();
        assert!(gateway.world.take_sent().is_empty());
        assert!(!stopped.leads());
        gateway.tick();
    }
    assert_eq!(
        level(&gateway.world, 0),
        30 * TOKEN,
        "the answer came too late"
    );
    assert_eq!(gateway.leaders(), [new]);
}

#[test]
fn an_answer_that_finds_the_lease_over_and_nobody_in_its_place_is_taken() {
    let mut gateway = Vms::start(1);
    let leader = gateway.granted();
    let (_, sent) = gateway.next_sync();
    let (_, mut reply) = reply_to(&sent);
    reply.grants = vec![grant(0, 40)];
    gateway.world.advance_ms(LEASE_MS + 1);
    gateway
        .vm(leader)
        .on_http_response(sent.call, answer(&reply));
    (0..5).for_each(|_| {
        gateway.tick();
    });
    assert_eq!(gateway.world.metric(Metric::GrantsApplied), 3);
}

/// In the middle of a tick no lease is looked at: this is what holds back the sync of one that was stopped there.
#[test]
fn a_forecaster_that_another_one_has_followed_takes_no_number_and_sends_nothing() {
    let world = World::new();
    let start = |random| {
        let environment = Environment {
            random,
            ..environment()
        };
        Forecaster::configure(world.clone(), CONFIG.as_bytes(), &environment).unwrap()
    };
    let mut old = start(1);
    old.on_tick();
    assert_eq!(world.take_sent().len(), 1);
    let mut new = start(2);
    for _ in 0..1_000 {
        old.on_tick();
        assert!(world.take_sent().is_empty());
        world.advance_ms(TICK_MS);
    }
    new.on_tick();
    let sent = world.take_sent().pop().unwrap();
    assert_eq!(reply_to(&sent).0.sequence, 2);
}

#[test]
fn a_conflict_is_tried_again_and_costs_no_sync_and_no_lease() {
    for key in ["fb/1/gateway", LEADER_KEY] {
        let mut gateway = Vms::start(1);
        let leader = gateway.granted();
        // Longer than until the lease and the sync are due.
        gateway.world.advance_ms(1_000);
        gateway.world.conflicts_to_come(key, 3);
        let (_, sent) = gateway.next_sync();
        assert_eq!(reply_to(&sent).0.sequence, 3, "{key}");
        (0..200).for_each(|_| {
            gateway.tick();
        });
        assert_eq!(gateway.leaders(), [leader], "{key}");
        assert_eq!(gateway.world.metric(Metric::Elected), 1, "{key}");
    }
}

#[test]
fn a_newer_configuration_forecasts_within_two_ticks_while_the_older_one_drains() {
    let mut gateway = Vms::start(2);
    let old = gateway.granted();
    let newer = CONFIG.replace(r#""cluster": "plane""#, r#""cluster": "elsewhere""#);
    let first = gateway.add(&newer);
    gateway.add(&newer);
    (0..2).for_each(|_| {
        gateway.tick();
    });
    let leaders = gateway.leaders();
    assert!(
        leaders.len() == 1 && leaders[0] >= first,
        "{leaders:?}, before {old}"
    );
    for _ in 0..20 {
        let (vm, sent) = gateway.next_sync();
        assert_eq!((vm, sent.cluster.as_str()), (leaders[0], "elsewhere"));
        let (_, reply) = reply_to(&sent);
        gateway.vm(vm).on_http_response(sent.call, answer(&reply));
    }
}

#[test]
fn a_vm_whose_configuration_envoy_drops_is_followed_at_once() {
    let mut gateway = Vms::start(2);
    let leader = gateway.granted();
    gateway.vm(leader).retire();
    gateway.vms[leader] = None;
    assert_eq!(gateway.tick().len(), 1);
    assert_eq!(gateway.leaders(), [1 - leader]);
    // One that does not lead takes nothing away.
    gateway.add(CONFIG);
    gateway.vm(2).retire();
    gateway.vms[2] = None;
    gateway.tick();
    assert_eq!(gateway.leaders(), [1 - leader]);
}

/// What can happen to the VMs of a gateway.
#[derive(Clone, Debug)]
enum Event {
    Tick(usize),
    Wait {
        ms: u64,
    },
    Trap(usize),
    Update(usize),
    Drop(usize),
    /// The answer to one of the calls that are out, in any order, or once more.
    Answer {
        call: usize,
        tokens: u64,
    },
    Spend {
        tokens: i64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let vm = 0..3_usize;
    prop_oneof![
        16 => vm.clone().prop_map(Event::Tick),
        4 => prop_oneof![Just(TICK_MS), 0..400_u64, LEASE_MS - 30..LEASE_MS + 30].prop_map(|ms| Event::Wait { ms }),
        1 => vm.clone().prop_map(Event::Trap),
        1 => vm.clone().prop_map(Event::Update),
        1 => vm.prop_map(Event::Drop),
        8 => (0..4_usize, 0..60_u64).prop_map(|(call, tokens)| Event::Answer { call, tokens }),
        2 => (1..9_i64).prop_map(|tokens| Event::Spend { tokens }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The control plane sees one gateway that never says a number twice, and no schedule of leaders makes a token.
    #[test]
    fn whoever_leads_numbers_grow_and_grants_count_once(events in prop::collection::vec(event(), 1..160)) {
        let mut gateway = Vms::start(3);
        gateway.granted();
        let (mut last, mut out) = (None, Vec::new());
        let (mut spent, mut most) = (0_i64, 30_i64);
        for event in events {
            match event {
                Event::Tick(vm) => {
                    gateway.vm(vm).on_tick();
                    for sent in gateway.world.take_sent() {
                        prop_assert_eq!(gateway.leaders(), vec![vm]);
                        let request = reply_to(&sent).0;
                        let number = (request.incarnation, request.sequence);
                        prop_assert!(last.is_none_or(|(incarnation, sequence)| number.0 == incarnation && number.1 > sequence));
                        last = Some(number);
                        out.push((vm, sent));
                    }
                }
                Event::Wait { ms } => gateway.world.advance_ms(ms),
                Event::Trap(vm) | Event::Update(vm) | Event::Drop(vm) => {
                    if matches!(event, Event::Drop(_)) {
                        gateway.vm(vm).retire();
                    }
                    let config = match event {
                        Event::Update(_) => format!("{CONFIG}{}", " ".repeat(usize::try_from(gateway.started).unwrap())),
                        _ => CONFIG.to_owned(),
                    };
                    gateway.add(&config);
                    gateway.vms.swap_remove(vm);
                    // The calls of a VM that is gone are answered to nobody.
                    out.retain(|(of, _)| *of != vm);
                }
                Event::Answer { call, tokens } if !out.is_empty() => {
                    let (vm, sent) = out[call % out.len()].clone();
                    let (_, mut reply) = reply_to(&sent);
                    reply.grants = vec![grant(0, tokens)];
                    most = most.max(i64::try_from(tokens).unwrap());
                    gateway.vm(vm).on_http_response(sent.call, answer(&reply));
                }
                Event::Answer { .. } => {}
                Event::Spend { tokens } => {
                    let affordable = (level(&gateway.world, 0).max(0) / TOKEN).min(tokens);
                    take_tokens(&gateway.world, 0, affordable);
                    spent += affordable;
                }
            }
            let leaders = gateway.leaders();
            prop_assert!(leaders.len() <= 1, "{leaders:?}");
            let level = level(&gateway.world, 0).max(0);
            prop_assert!(spent * TOKEN + level <= most * TOKEN, "spent {spent}, level {level}, granted {most}");
            prop_assert!(level <= i64::try_from(BURST).unwrap() * TOKEN);
        }
    }
}
