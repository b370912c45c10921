//! The ledger's life: seeding, installing, evicting, grants, leases, settling, races, and workers that die.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

mod gateway;

use forebay_core::chunk::Payer;
use forebay_core::draw::Conditions;
use forebay_core::lease::Lease;
use forebay_core::ledger::{LedgerSize, PolicyCustomer, Region, STATE_KEY};
use forebay_core::limits::{CHUNK_LIFE_US, MAX_OTHER_PAGE_ENTRIES};
use forebay_core::policy::{ContractIndex, Limits, Tier, Unknown};
use forebay_core::{
    Chunk, CoreError, Ledger, Micro, PerResource, Policy, Rate, Reason, TimeUs, Verdict,
};
use gateway::{
    FIRST, Gateway, Rival, START, admitted, contract, cost, customer, per_s, policy, tokens,
};

fn plain(rate: u64, burst: i64) -> Policy {
    policy(
        &[None],
        vec![contract(
            "gold",
            Tier::One,
            &[Limits::plain(per_s(rate), tokens(burst))],
        )],
    )
}

fn open_to_strangers(rate: u64, burst: i64) -> Policy {
    Policy {
        unknown: Unknown::DefaultContract(ContractIndex(0)),
        ..plain(rate, burst)
    }
}

fn denial(verdict: Verdict) -> forebay_core::Denial {
    match verdict {
        Verdict::Denied(denial) => denial,
        admitted => panic!("expected a denial, not {admitted:?}"),
    }
}

#[test]
fn a_new_customer_starts_full_and_refills_at_its_rate() {
    let mut gateway = Gateway::new(plain(10, 5), 1, &[0]);
    assert_eq!(admitted(&mut gateway, 0, 0), 5);
    gateway.advance(300_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 3);
}

#[test]
fn a_denial_says_when_the_request_could_succeed_and_then_it_does() {
    let mut gateway = Gateway::new(plain(10, 5), 1, &[0]);
    assert!(gateway.request(0, 0, &cost(5)).unwrap().is_admitted());
    let denied = denial(gateway.request(0, 0, &cost(2)).unwrap());
    assert_eq!(
        (denied.reason, denied.retry_at),
        (Reason::Contract, gateway.now.plus_us(200_000))
    );
    gateway.advance(199_999);
    assert!(!gateway.request(0, 0, &cost(2)).unwrap().is_admitted());
    gateway.advance(1);
    assert!(gateway.request(0, 0, &cost(2)).unwrap().is_admitted());
}

#[test]
fn a_request_larger_than_the_burst_is_told_that_waiting_does_not_help() {
    let mut gateway = Gateway::new(plain(10, 5), 1, &[0]);
    assert_eq!(
        denial(gateway.request(0, 0, &cost(6)).unwrap()).retry_at,
        TimeUs::NEVER
    );
}

#[test]
fn a_flood_of_denied_requests_writes_nothing() {
    let mut gateway = Gateway::new(plain(1, 1), 1, &[0]);
    assert_eq!(admitted(&mut gateway, 0, 0), 1);
    gateway.data.fail_sets = u32::MAX;
    for _ in 0..1_000 {
        assert!(!gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    }
    gateway.data.fail_sets = 0;
    gateway.give_back_all();
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).denied_cum,
        1_001_000_000
    );
}

#[test]
fn a_smaller_request_is_not_denied_for_a_larger_one() {
    let mut gateway = Gateway::new(plain(1, 5), 1, &[0]);
    assert!(gateway.request(0, 0, &cost(3)).unwrap().is_admitted());
    assert!(!gateway.request(0, 0, &cost(3)).unwrap().is_admitted());
    assert!(gateway.request(0, 0, &cost(2)).unwrap().is_admitted());
}

#[test]
fn chunks_grow_with_demand_and_leave_the_other_workers_their_share() {
    let mut gateway = Gateway::new(plain(1_000, 1_000), 4, &[0]);
    for _ in 0..200 {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
        gateway.advance(1_000);
    }
    let held = gateway.workers[0].chunks[&0].holdings.at(FIRST).tokens();
    assert!(held > tokens(5) && held <= tokens(1_000 / 8), "{held:?}");
    assert!(gateway.request(3, 0, &cost(500)).unwrap().is_admitted());
}

#[test]
fn an_idle_chunk_goes_back_and_another_worker_finds_its_tokens() {
    let mut gateway = Gateway::new(plain(100, 100), 2, &[0]);
    for _ in 0..40 {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    }
    gateway.advance(CHUNK_LIFE_US);
    assert_eq!(
        gateway.workers[0].chunks[&0].holdings.at(FIRST).tokens(),
        Micro::ZERO
    );
    assert_eq!(admitted(&mut gateway, 1, 0), 100);
}

#[test]
fn tokens_in_chunks_count_against_the_burst() {
    let mut gateway = Gateway::new(plain(100, 100), 2, &[0]);
    let mut held = 0;
    while held < 5 {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
        gateway.advance(5_000);
        held = gateway.workers[0].chunks[&0]
            .holdings
            .at(FIRST)
            .tokens()
            .whole_tokens();
    }
    // Long enough to fill the bucket, too short for the chunk to count as idle.
    gateway.advance(450_000);
    assert_eq!(
        gateway.workers[0].chunks[&0]
            .holdings
            .at(FIRST)
            .tokens()
            .whole_tokens(),
        held
    );
    let level = gateway.entry(0).holdings.at(FIRST).contract.level;
    assert!(
        level.whole_tokens() <= 100 - held,
        "{level:?} beside {held} in a chunk"
    );
    let (one, other) = (admitted(&mut gateway, 1, 0), admitted(&mut gateway, 0, 0));
    assert!(one + other <= 100, "{one} + {other}");
}

#[test]
fn a_lost_chunk_is_forgotten_and_the_bucket_fills_again() {
    let mut gateway = Gateway::new(plain(100, 100), 1, &[0]);
    for _ in 0..60 {
        assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    }
    gateway.restart(0);
    gateway.advance(3 * CHUNK_LIFE_US);
    assert_eq!(admitted(&mut gateway, 0, 0), 100);
}

#[test]
fn an_evicted_customer_never_comes_back_to_a_free_refill() {
    let mut gateway = Gateway::new(open_to_strangers(1, 10), 1, &[]);
    let page_of = |gateway: &Gateway, number| {
        gateway
            .ledger
            .state()
            .layout
            .page_of(Region::Other, &customer(number))
    };
    assert_eq!(
        gateway.ledger.state().layout.pages(Region::Other),
        1,
        "all strangers share a page"
    );
    assert_eq!(page_of(&gateway, 0), 0);
    assert_eq!(admitted(&mut gateway, 0, 0), 10);
    // Others push it out of the page.
    for number in 1..=u64::from(MAX_OTHER_PAGE_ENTRIES) {
        gateway.advance(1_000);
        assert!(gateway.request(0, number, &cost(1)).unwrap().is_admitted());
    }
    gateway.restart(0);
    gateway.advance(3_000_000);
    let again = admitted(&mut gateway, 0, 0);
    assert!((2..=3).contains(&again), "3 s at 1/s, not {again}");
    gateway.give_back_all();
    let entry = gateway.entry(0);
    assert_eq!(
        (
            entry.counted_since.0 / 256,
            entry.holdings.at(FIRST).admitted_cum / 1_000_000
        ),
        (gateway.now.0 / 256, again as u64),
        "a reader sees that the counters began anew"
    );
}

#[test]
fn debts_bans_and_chunks_keep_an_entry_from_being_evicted() {
    let mut gateway = Gateway::new(open_to_strangers(1, 10), 1, &[]);
    assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    gateway.settle(0, 0, FIRST, tokens(30), Payer::Contract);
    for number in 1..=40 {
        gateway.advance(1_000);
        gateway.request(0, number, &cost(1)).unwrap();
    }
    let level = gateway.entry(0).holdings.at(FIRST).contract.level;
    assert!(level < tokens(-20), "the debt is still there: {level:?}");
}

#[test]
fn a_page_full_of_debtors_turns_strangers_away_without_an_error() {
    let mut gateway = Gateway::new(open_to_strangers(1, 10), 1, &[]);
    for number in 0..u64::from(MAX_OTHER_PAGE_ENTRIES) {
        assert!(gateway.request(0, number, &cost(1)).unwrap().is_admitted());
        gateway.settle(0, number, FIRST, tokens(30), Payer::Contract);
    }
    assert_eq!(
        denial(gateway.request(0, 99, &cost(1)).unwrap()).reason,
        Reason::Unknown
    );
}

#[test]
fn an_unknown_customer_is_denied_where_the_policy_says_so() {
    let mut gateway = Gateway::new(plain(10, 5), 1, &[0]);
    let denied = denial(gateway.request(0, 7, &cost(1)).unwrap());
    assert_eq!(
        (denied.reason, denied.retry_at),
        (Reason::Unknown, TimeUs::NEVER)
    );
}

#[test]
fn bans_freezes_and_exemptions_decide_before_any_bucket() {
    let mut gateway = Gateway::new(plain(1, 2), 1, &[0, 0, 0, 0]);
    let until = TimeUs(START.0 + 5_000_000);
    let with = |number, change: fn(&mut PolicyCustomer)| {
        let mut wanted = PolicyCustomer::plain(customer(number), ContractIndex(0));
        change(&mut wanted);
        wanted
    };
    let mut banned = with(0, |_| {});
    banned.ban_until = Some(until);
    let list = vec![
        banned,
        with(1, |wanted| wanted.ban_until = Some(TimeUs::NEVER)),
        with(2, |wanted| wanted.frozen = true),
        with(3, |wanted| wanted.exempt = true),
    ];
    gateway.install(list);
    for (number, retry_at) in [(0, until), (1, TimeUs::NEVER), (2, TimeUs::NEVER)] {
        let denied = denial(gateway.request(0, number, &cost(1)).unwrap());
        assert_eq!(
            (denied.reason, denied.retry_at),
            (Reason::Banned, retry_at),
            "customer {number}"
        );
        let free = gateway.request(0, number, &cost(0)).unwrap();
        assert!(
            !free.is_admitted(),
            "a free request of banned customer {number}"
        );
    }
    for _ in 0..100 {
        assert_eq!(gateway.request(0, 3, &cost(1)).unwrap(), Verdict::Standard);
    }
    gateway.give_back_all();
    assert_eq!(
        gateway.entry(3).holdings.at(FIRST).admitted_cum,
        100_000_000
    );
    gateway.advance(5_000_000);
    assert!(
        gateway.request(0, 0, &cost(1)).unwrap().is_admitted(),
        "the ban has ended"
    );
}

#[test]
fn installing_again_keeps_every_bucket_and_removes_who_has_gone() {
    let mut gateway = Gateway::new(plain(1, 10), 1, &[0, 0]);
    assert_eq!(admitted(&mut gateway, 0, 0), 10);
    gateway.install(vec![PolicyCustomer::plain(customer(0), ContractIndex(0))]);
    gateway.restart(0);
    assert_eq!(admitted(&mut gateway, 0, 0), 0);
    assert_eq!(
        denial(gateway.request(0, 1, &cost(1)).unwrap()).reason,
        Reason::Unknown
    );
    // Coming back to the policy is no refill either.
    gateway.install(
        (0..2)
            .map(|number| PolicyCustomer::plain(customer(number), ContractIndex(0)))
            .collect(),
    );
    gateway.restart(0);
    assert_eq!(admitted(&mut gateway, 0, 1), 0);
}

#[test]
fn a_second_seed_of_the_same_shape_changes_nothing_and_another_shape_starts_empty() {
    let mut gateway = Gateway::new(plain(1, 10), 1, &[0]);
    assert_eq!(admitted(&mut gateway, 0, 0), 10);
    let size = LedgerSize {
        max_policy_customers: 32,
        max_other_customers: 4,
    };
    gateway.ledger = Ledger::seed(
        &mut gateway.data,
        size,
        &gateway.policy,
        Lease::StandAlone,
        gateway.now,
    )
    .unwrap();
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        Micro::ZERO
    );
    let larger = LedgerSize {
        max_policy_customers: 320,
        max_other_customers: 4,
    };
    gateway.ledger = Ledger::seed(
        &mut gateway.data,
        larger,
        &gateway.policy,
        Lease::StandAlone,
        gateway.now,
    )
    .unwrap();
    gateway.install(vec![PolicyCustomer::plain(customer(0), ContractIndex(0))]);
    gateway.restart(0);
    assert_eq!(admitted(&mut gateway, 0, 0), 0);
    gateway.advance(4_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 4);
}

#[test]
fn a_page_that_vanishes_comes_back_empty() {
    let mut gateway = Gateway::new(plain(1, 10), 1, &[0]);
    let layout = gateway.ledger.state().layout;
    for page in 0..layout.pages(Region::Policy) {
        gateway
            .data
            .inner
            .remove(layout.key(Region::Policy, page).as_str());
    }
    gateway.install(vec![PolicyCustomer::plain(customer(0), ContractIndex(0))]);
    assert_eq!(admitted(&mut gateway, 0, 0), 0);
    gateway.advance(2_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 2);
}

#[test]
fn damaged_values_are_errors_that_name_the_blob() {
    let mut gateway = Gateway::new(plain(1, 10), 1, &[0]);
    gateway.data.inner.put(STATE_KEY, b"FBS\x07rest".to_vec());
    let error = Ledger::open(&mut gateway.data).unwrap_err();
    assert_eq!(
        error,
        CoreError::WrongVersion {
            what: "ledger state",
            found: 7,
            known: 3
        }
    );
    let key = gateway.ledger.state().layout.key(Region::Policy, 0);
    for page in 0..gateway.ledger.state().layout.pages(Region::Policy) {
        gateway.data.inner.put(
            gateway
                .ledger
                .state()
                .layout
                .key(Region::Policy, page)
                .as_str(),
            vec![1, 2, 3],
        );
    }
    assert!(matches!(
        gateway.request(0, 0, &cost(1)),
        Err(CoreError::Truncated { .. } | CoreError::WrongMark { .. })
    ));
    gateway.data.inner.remove(key.as_str());
}

#[test]
fn a_settlement_is_charged_into_debt_and_admission_stops_until_it_is_repaid() {
    let mut gateway = Gateway::new(plain(10, 10), 2, &[0]);
    assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
    gateway.settle(0, 0, FIRST, tokens(29), Payer::Contract);
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(-20)
    );
    let denied = denial(gateway.request(1, 0, &cost(1)).unwrap());
    assert_eq!(denied.retry_at, gateway.now.plus_us(2_100_000));
    gateway.advance(2_100_000);
    assert!(gateway.request(1, 0, &cost(1)).unwrap().is_admitted());
}

#[test]
fn a_give_back_restores_contract_and_pool_but_only_up_to_their_depth() {
    let limits = Limits::plain(per_s(1), tokens(10));
    let mut gateway = Gateway::new(
        policy(&[Some(20)], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0],
    );
    assert!(gateway.request(0, 0, &cost(8)).unwrap().is_admitted());
    gateway.settle(0, 0, FIRST, tokens(-6), Payer::Contract);
    gateway.give_back_all();
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(8)
    );
    assert_eq!(gateway.pools().pools.at(FIRST).bucket.level, tokens(18));
    gateway.settle(0, 0, FIRST, tokens(-1_000), Payer::Contract);
    gateway.give_back_all();
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(10)
    );
    assert_eq!(gateway.pools().pools.at(FIRST).bucket.level, tokens(20));
}

#[test]
fn a_rival_between_pool_and_page_costs_nobody_a_token() {
    let limits = Limits::plain(Rate::ZERO, tokens(100));
    let mut gateway = Gateway::new(
        policy(&[Some(1_000)], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0],
    );
    gateway.data.rules = Some((gateway.policy.clone(), gateway.now));
    // The rival comes after the pool was written and before the page is.
    gateway.data.rivals = [
        None,
        Some(Rival {
            customer: 0,
            cost: cost(7),
        }),
    ]
    .into();
    assert!(gateway.request(0, 0, &cost(5)).unwrap().is_admitted());
    assert_eq!(gateway.data.admitted_by_rivals.len(), 1);
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(88)
    );
    assert_eq!(gateway.pools().pools.at(FIRST).bucket.level, tokens(988));
}

#[test]
fn a_host_that_refuses_between_pool_and_page_loses_tokens_but_makes_none() {
    let limits = Limits::plain(Rate::ZERO, tokens(100));
    let mut gateway = Gateway::new(
        policy(&[Some(1_000)], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0],
    );
    gateway.data.fail_after = Some(1);
    assert!(gateway.request(0, 0, &cost(5)).is_err());
    gateway.data.fail_after = None;
    assert_eq!(
        gateway.entry(0).holdings.at(FIRST).contract.level,
        tokens(100)
    );
    assert_eq!(gateway.pools().pools.at(FIRST).bucket.level, tokens(995));
}

#[test]
fn too_many_rivals_are_an_error_and_not_an_endless_loop() {
    let mut gateway = Gateway::new(plain(1, 1_000), 1, &[0]);
    gateway.data.rules = Some((gateway.policy.clone(), gateway.now));
    gateway.data.rivals = vec![
        Some(Rival {
            customer: 0,
            cost: cost(1)
        });
        1_000
    ]
    .into();
    assert!(matches!(
        gateway.request(0, 0, &cost(1)),
        Err(CoreError::Contended { .. })
    ));
}

#[test]
fn a_lap_of_the_scan_leaves_newcomers_protected_whose_pages_it_has_passed() {
    let guaranteed = Limits {
        guarantee: per_s(40),
        ..Limits::plain(per_s(50), tokens(50))
    };
    let rows = vec![
        contract("gold", Tier::One, &[guaranteed]),
        contract(
            "bronze",
            Tier::One,
            &[Limits::plain(per_s(1_000), tokens(1_000))],
        ),
    ];
    let mut gateway = Gateway::new(policy(&[Some(100)], rows), 1, &[1]);
    let conditions = gateway.conditions();
    let pages = gateway.ledger.state().layout.pages(Region::Policy);
    let step = |gateway: &mut Gateway| {
        let Gateway {
            scan, ledger, data, ..
        } = gateway;
        scan.step(ledger, data, &conditions, pages).unwrap()
    };
    assert!(
        !step(&mut gateway),
        "the pages of strangers are still to come"
    );
    let list = [1, 0, 0].iter().enumerate();
    let list = list.map(|(number, index)| {
        PolicyCustomer::plain(customer(number as u64), ContractIndex(*index))
    });
    gateway.install(list.collect());
    assert!(!step(&mut gateway), "the lap was of no use");
    assert_eq!(
        gateway.pools().pools.at(FIRST).credit.bucket.level,
        tokens(20)
    );
    gateway.scan_all();
    assert_eq!(
        gateway.pools().pools.at(FIRST).credit.bucket.level,
        tokens(20)
    );
}

#[test]
fn a_lowered_limit_binds_at_the_next_draw() {
    let mut gateway = Gateway::new(plain(10, 50), 1, &[0]);
    gateway.policy.contracts[0].limits =
        PerResource::only_first(Limits::plain(per_s(10), tokens(3)));
    gateway.restart(0);
    assert_eq!(admitted(&mut gateway, 0, 0), 3);
}

#[test]
fn sustained_deviation_raises_the_contention_flag_for_a_predicted_customer_only() {
    let mut gateway = Gateway::new(plain(100, 100), 1, &[0, 0]);
    gateway.edit(0, |entry| entry.set_shadow(FIRST, per_s(1), 500_000));
    let mut raised_after = None;
    for second in 0..6 {
        for _ in 0..20 {
            assert!(gateway.request(0, 0, &cost(1)).unwrap().is_admitted());
            assert!(gateway.request(0, 1, &cost(1)).unwrap().is_admitted());
        }
        gateway.give_back_all();
        let policy = gateway.policy.clone();
        assert!(!gateway.entry(1).is_contended(&policy));
        if gateway.entry(0).is_contended(&policy) {
            raised_after = raised_after.or(Some(second));
        }
        gateway.advance(1_000_000);
    }
    assert_eq!(raised_after, Some(3), "four of the last five windows");
    gateway.advance(5_000_000);
    let policy = gateway.policy.clone();
    assert!(!gateway.entry(0).is_contended(&policy));
}

#[test]
fn the_clock_going_back_refills_nothing() {
    let mut gateway = Gateway::new(plain(10, 5), 1, &[0]);
    assert_eq!(admitted(&mut gateway, 0, 0), 5);
    gateway.advance(1_000_000);
    assert_eq!(admitted(&mut gateway, 0, 0), 5);
    let hash = customer(0);
    let early = Conditions {
        now: TimeUs(gateway.now.0 - 900_000),
        ..gateway.conditions()
    };
    let Gateway { data, ledger, .. } = &mut gateway;
    let verdict = ledger
        .draw(data, &early, &hash, &cost(1), &mut Chunk::default())
        .unwrap();
    assert!(!verdict.is_admitted());
    gateway.advance(100_000);
    gateway.restart(0);
    assert_eq!(admitted(&mut gateway, 0, 0), 1);
}

#[test]
fn a_ceiling_lets_a_customer_borrow_above_its_rate_and_no_further() {
    let limits = Limits {
        ceiling: per_s(3),
        borrow_limit: tokens(4),
        ..Limits::plain(per_s(1), tokens(2))
    };
    let mut gateway = Gateway::new(
        policy(&[None], vec![contract("gold", Tier::One, &[limits])]),
        1,
        &[0],
    );
    let words = |gateway: &mut Gateway, requests| -> Vec<&'static str> {
        (0..requests)
            .map(|_| gateway.request(0, 0, &cost(1)).unwrap().word())
            .collect()
    };
    let all = [
        "standard", "standard", "borrowed", "borrowed", "borrowed", "borrowed", "contract",
    ];
    assert_eq!(words(&mut gateway, 7), all);
    gateway.advance(1_000_000);
    assert_eq!(
        words(&mut gateway, 4),
        ["standard", "borrowed", "borrowed", "contract"]
    );
}

#[test]
fn a_guarantee_is_there_when_others_have_drained_the_pool() {
    let guaranteed = Limits {
        guarantee: per_s(40),
        ..Limits::plain(per_s(50), tokens(50))
    };
    let greedy = Limits::plain(per_s(1_000), tokens(1_000));
    let contracts = vec![
        contract("gold", Tier::One, &[guaranteed]),
        contract("bronze", Tier::One, &[greedy]),
    ];
    let mut gateway = Gateway::new(policy(&[Some(100)], contracts), 1, &[0, 1]);
    // A quarter of a second of the guarantee is credit, and stays in the pool.
    assert_eq!(admitted(&mut gateway, 0, 1), 90);
    assert_eq!(
        denial(gateway.request(0, 1, &cost(1)).unwrap()).reason,
        Reason::Pool
    );
    assert_eq!(admitted(&mut gateway, 0, 0), 10);
}

#[test]
fn a_page_newer_than_the_workers_policy_asks_for_patience_of_a_tick() {
    let mut gateway = Gateway::new(plain(1, 10), 1, &[0]);
    gateway.edit(0, |entry| entry.contract = ContractIndex(7));
    let denied = denial(gateway.request(0, 0, &cost(1)).unwrap());
    assert_eq!(
        (denied.reason, denied.retry_at),
        (Reason::Unknown, gateway.now.plus_us(100_000))
    );
}

#[test]
fn a_guarantee_counts_on_the_pool_as_soon_as_its_customer_is_installed() {
    let guaranteed = Limits {
        guarantee: per_s(40),
        ..Limits::plain(per_s(50), tokens(50))
    };
    let contracts = vec![
        contract("gold", Tier::One, &[guaranteed]),
        contract(
            "bronze",
            Tier::One,
            &[Limits::plain(per_s(1_000), tokens(1_000))],
        ),
    ];
    let mut gateway = Gateway::new(policy(&[Some(100)], contracts), 1, &[1]);
    gateway.scans = false;
    let list = [1, 0, 0].iter().enumerate();
    let list = list.map(|(number, index)| {
        PolicyCustomer::plain(customer(number as u64), ContractIndex(*index))
    });
    let list: Vec<PolicyCustomer> = list.collect();
    gateway.install(list.clone());
    // Installing again protects nobody twice.
    gateway.install(list);
    assert_eq!(admitted(&mut gateway, 0, 0), 80);
}
