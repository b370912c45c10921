//! The allocation in the control plane: what calls for a cycle, what gateways are told, what outlives the server, and what is lent.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod told;

use axum::body::Body;
use forebay_control_plane::allocation::{CycleView, replays};
use forebay_control_plane::store::{Store, Table};
use forebay_wire::sync::{Allocation, DeviationSignal, SyncReply};
use kit::{OPERATOR_TOKEN, TestServer, VIEWER_TOKEN, hash};
use serde_json::json;
use told::{INTERVAL_MS, NONE, Told, allocations, begun, close, look, part, policy, run};

#[tokio::test]
async fn demand_is_allocated_within_a_cycle_and_told_to_the_gateway_where_it_is() {
    let (server, mut gateway) = begun(policy()).await;
    let cycles = gateway
        .asks(&server, 10, &[("acme", 10), ("bolt", 200)])
        .await;
    assert_eq!(cycles[0].cause, "policy", "at once");
    let cycle = run(&server).await;
    assert_eq!((cycle.cause.as_str(), cycle.customers), ("asked", 4));
    let reply = gateway.sync(&server).await;
    assert!(
        (149_000..=150_000).contains(&reply.allocation_ttl_ms),
        "{}",
        reply.allocation_ttl_ms
    );
    assert_eq!(gateway.applied, cycle.number);
    // Acme keeps what it may need of its 60/s, bolt gets all else.
    let view = allocations(&server, "").await;
    assert!(close(gateway.rate("acme"), 10.0), "{view}");
    assert!(close(gateway.rate("bolt"), 90.0), "{view}");
    assert!(close(part(&view, "acme", "lent_per_s"), 50.0), "{view}");
    assert!(close(
        view["cycle"]["resources"][0]["lent_per_s"]
            .as_f64()
            .unwrap(),
        50.0
    ));
    // What is told of all together is no more than there is.
    assert!(gateway.rates.values().sum::<f64>() <= 100.0);
    // Nothing has changed, so nothing is told again.
    let reply = gateway.sync(&server).await;
    assert_eq!(
        (reply.allocations.len(), reply.allocation_cycle),
        (0, cycle.number)
    );
    // The next cycle gives two of them what they have: of those nothing is told.
    let next = run(&server).await;
    let reply = gateway.sync(&server).await;
    let told: Vec<u64> = reply
        .allocations
        .iter()
        .map(|told| told.hash_high)
        .collect();
    assert_eq!(gateway.applied, next.number);
    for key in ["dune", "echo"] {
        assert!(!told.contains(&hash(key).parts().0), "{key}: {reply:?}");
    }
}

#[tokio::test]
async fn a_lender_has_its_guarantee_back_within_one_cycle_and_that_can_be_seen() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 5, &[("acme", 5), ("bolt", 200)])
        .await;
    run(&server).await;
    let loans = server.ok("GET", "/v1/loans", NONE).await;
    let sums = &loans["resources"][0];
    assert!(close(sums["lent_per_s"].as_f64().unwrap(), 55.0), "{loans}");
    let same = sums["lent_per_s"].as_f64().unwrap() - sums["borrowed_per_s"].as_f64().unwrap();
    assert!(same.abs() < 1e-6, "{loans}");
    gateway
        .asks(&server, 3, &[("acme", 60), ("bolt", 200)])
        .await;
    run(&server).await;
    gateway.sync(&server).await;
    let view = allocations(&server, "").await;
    assert!(close(gateway.rate("acme"), 60.0), "{view}");
    assert!(gateway.rate("bolt") <= 40.0, "{view}");
    assert!(close(part(&view, "acme", "recalled_per_s"), 55.0), "{view}");
    let path = format!("/v1/loans?customer=hash:{}", hash("acme"));
    let loans = server.ok("GET", &path, NONE).await;
    assert_eq!(loans["loans"][0]["side"], "recalled", "{loans}");
    assert_eq!(loans["loans"][0]["reason"], "recall", "{loans}");
}

#[tokio::test]
async fn linked_accounts_have_no_more_than_their_cap_together() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 5, &[("dune", 50), ("echo", 50)])
        .await;
    run(&server).await;
    gateway.sync(&server).await;
    let view = allocations(&server, "?group=team").await;
    assert_eq!(view["customers"].as_array().unwrap().len(), 2);
    assert_eq!(view["customers"][0]["group"], "team");
    let both = gateway.rate("dune") + gateway.rate("echo");
    assert!(close(both, 20.0) && both <= 20.0, "{view}");
    let (status, refusal) = server.admin("GET", "/v1/allocations?group=tea", NONE).await;
    assert_eq!(
        (status.as_u16(), &refusal["code"]),
        (404, &json!("no_such_group"))
    );
}

#[tokio::test]
async fn another_policy_a_smaller_capacity_and_time_call_for_a_cycle_but_nothing_more_often_than_once_a_second()
 {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 5, &[("acme", 60), ("bolt", 90)])
        .await;
    let before = run(&server).await;
    let mut smaller = policy();
    smaller["resources"]["requests"]["capacity_per_s"] = json!(70);
    server.ok("POST", "/v1/policies", smaller).await;
    assert_eq!(look(&server).await, None, "too soon");
    server.advance_ms(1_000);
    let cycle = look(&server).await.unwrap();
    assert_eq!(
        (cycle.number, cycle.cause.as_str()),
        (before.number + 1, "policy")
    );
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    assert!(close(gateway.rate("bolt"), 10.0), "{:?}", gateway.rates);
    assert_eq!(look(&server).await, None);
    let cycles = gateway
        .asks(&server, INTERVAL_MS / 1_000, &[("acme", 60), ("bolt", 90)])
        .await;
    let causes: Vec<&str> = cycles.iter().map(|cycle| cycle.cause.as_str()).collect();
    assert_eq!(causes, ["interval"]);
}

#[tokio::test]
async fn a_gateway_that_is_lost_and_comes_back_calls_for_cycles_and_what_it_may_spend_meanwhile_is_nobody_elses()
 {
    let (server, mut gateway) = begun(policy()).await;
    let mut lost = Told::new("g2");
    for _ in 0..8 {
        lost.gateway.spend("bolt", 20);
        lost.sync(&server).await;
        gateway.asks(&server, 1, &[("acme", 20)]).await;
    }
    let cycle = run(&server).await;
    let whole = allocations(&server, "").await["cycle"]["resources"][0]["capacity_per_s"].clone();
    assert_eq!(whole, json!(100.0));
    let cycles = gateway.asks(&server, 15, &[("acme", 20)]).await;
    assert_eq!(cycles[0].number, cycle.number + 1);
    assert_eq!(cycles[0].cause, "gateways");
    let view = allocations(&server, "").await;
    let left = view["cycle"]["resources"][0]["capacity_per_s"]
        .as_f64()
        .unwrap();
    assert!(left < 100.0, "{view}");
    lost.sync(&server).await;
    let cycles = gateway.asks(&server, 3, &[("acme", 20)]).await;
    assert_eq!(cycles[0].cause, "gateways");
    lost.sync(&server).await;
    gateway.asks(&server, 2, &[("acme", 20)]).await;
    let view = allocations(&server, "").await;
    assert_eq!(
        view["cycle"]["resources"][0]["capacity_per_s"],
        json!(100.0),
        "it heals itself"
    );
}

#[tokio::test]
async fn demand_that_leaves_its_forecast_calls_for_a_cycle_only_when_it_lasts() {
    let (server, mut gateway) = begun(policy()).await;
    gateway.asks(&server, 2, &[("acme", 5)]).await;
    run(&server).await;
    let mut contended = async |seconds: u64| {
        gateway.contends = true;
        let cycles = gateway.asks(&server, seconds, &[("acme", 200)]).await;
        gateway.contends = false;
        cycles
            .into_iter()
            .map(|cycle| cycle.cause)
            .collect::<Vec<_>>()
    };
    assert_eq!(contended(2).await, [""; 0]);
    server.advance_ms(5_000);
    assert_eq!(contended(3).await, [""; 0], "what is over does not count");
    // It lasts, and then not more than one in a tenth of the interval.
    assert_eq!(contended(7).await, ["contention", "contention"]);
}

#[tokio::test]
async fn contention_is_not_believed_of_who_asks_for_no_more_than_it_is_allocated() {
    let (server, mut gateway) = begun(policy()).await;
    gateway.asks(&server, 5, &[("acme", 5)]).await;
    let mut stranger = Told::new("g2");
    stranger.gateway.spend("bolt", 1);
    stranger.sync(&server).await;
    stranger.sync(&server).await;
    run(&server).await;
    gateway.contends = true;
    let mut causes = Vec::new();
    for _ in 0..40 {
        // It has a part of bolt, whom nobody asks anything of any more, and none of acme.
        stranger.contends = true;
        let mut request = stranger.request();
        for key in ["acme", "bolt"] {
            let (hash_high, hash_low) = hash(key).parts();
            request.deviations.push(DeviationSignal {
                hash_high,
                hash_low,
                resource: 0,
                rate_micro_per_s: 500_000_000,
            });
        }
        let (_, reply) = server.sync(&request).await;
        stranger.apply(&reply);
        // Acme is allocated what it asks for.
        let cycles = gateway.asks(&server, 1, &[("acme", 4)]).await;
        causes.extend(cycles.into_iter().map(|cycle| cycle.cause));
    }
    assert!(!causes.contains(&"contention".to_owned()), "{causes:?}");
}

#[tokio::test]
async fn cycles_for_gateways_that_come_and_go_wait_twice_as_long_each_time() {
    let (server, _) = begun(policy()).await;
    run(&server).await;
    let mut number = 0;
    let mut joins = async |seconds: u64| {
        let mut passed_ms = Vec::new();
        let mut since_ms = 0;
        for _ in 0..seconds * 4 {
            number += 1;
            Told::new(&format!("g{}", number + 1)).sync(&server).await;
            server.advance_ms(250);
            since_ms += 250;
            if let Some(cycle) = look(&server).await {
                assert!(["gateways", "capacity"].contains(&cycle.cause.as_str()));
                passed_ms.push(since_ms);
                since_ms = 0;
            }
        }
        passed_ms
    };
    assert_eq!(joins(20).await, [1_000, 1_000, 2_000, 4_000, 6_000, 6_000]);
    // One of another kind, and the next is made at once again.
    run(&server).await;
    assert_eq!(joins(2).await, [1_000, 1_000]);
}

#[tokio::test]
async fn replies_say_what_is_left_of_the_time_for_which_allocations_hold() {
    let (server, mut gateway) = begun(policy()).await;
    gateway.asks(&server, 2, &[("acme", 5)]).await;
    run(&server).await;
    for (passed_ms, left_ms) in [
        (0, 150_000),
        (40_000, 110_000),
        (100_000, 10_000),
        (9_999, 1),
        (1, 0),
        (60_000, 0),
    ] {
        server.advance_ms(passed_ms);
        let reply = gateway.sync(&server).await;
        assert_eq!(reply.allocation_ttl_ms, left_ms, "after {passed_ms} more");
    }
    let reply = gateway.sync(&server).await;
    assert_eq!((reply.allocations.len(), reply.allocation_cycle), (0, 0));
}

#[tokio::test]
async fn whoever_has_left_while_a_gateway_was_away_is_told_to_it_although_the_server_was_killed() {
    let (server, mut gateway) = begun(policy()).await;
    gateway.asks(&server, 5, &[("who", 3), ("acme", 5)]).await;
    run(&server).await;
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    assert!(gateway.rate("who") > 0.0, "{:?}", gateway.rates);
    // More cycles than gateways were once told of, and a gateway that hears of none of them.
    server.advance_ms(30_000);
    for _ in 0..20 {
        server.advance_ms(1_000);
        assert_eq!(run(&server).await.customers, 4);
    }
    let server = server.killed();
    let reply = gateway.sync(&server).await;
    assert!(!reply.allocations_anew, "it is known who has left");
    assert_eq!(gateway.rate("who"), 0.0, "{:?}", gateway.rates);
}

#[tokio::test]
async fn a_gateway_of_whose_cycle_nothing_is_known_forgets_what_it_had() {
    let (other, mut gateway) = begun(policy()).await;
    gateway.asks(&other, 5, &[("who", 3), ("acme", 5)]).await;
    for _ in 0..5 {
        run(&other).await;
    }
    gateway.sync(&other).await;
    gateway.sync(&other).await;
    assert!(gateway.rate("who") > 0.0, "{:?}", gateway.rates);
    // The server has lost its store: its cycles count from 1 again, and the stranger was in none of them.
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", policy()).await;
    assert_eq!(look(&server).await.unwrap().number, 1);
    gateway.gateway.demand.remove(&hash("who"));
    let request = gateway.request();
    let (_, lost) = server.sync(&request).await;
    assert!(lost.allocations_anew);
    let reply = gateway.sync(&server).await;
    assert!(reply.allocations_anew, "a reply that is lost is told again");
    for _ in 0..3 {
        let reply = gateway.sync(&server).await;
        assert!(!reply.allocations_anew, "and one that has arrived is not");
    }
    assert_eq!(gateway.rate("who"), -1.0, "{:?}", gateway.rates);
    assert!(gateway.rate("acme") >= 0.0, "{:?}", gateway.rates);
}

#[tokio::test]
async fn a_priority_rises_while_a_guarantee_is_not_kept_survives_a_kill_and_comes_back() {
    let mut moving = policy();
    moving["sharing"]["prioritize"] = json!({"most": 3, "half_life_ms": 60_000});
    let (server, mut gateway) = begun(moving).await;
    let of_acme = async |server: &TestServer| {
        let path = format!("?customer=hash:{}", hash("acme"));
        allocations(server, &path).await["customers"][0].clone()
    };
    gateway.asks(&server, 3, &[("acme", 30)]).await;
    run(&server).await;
    let before = of_acme(&server).await;
    assert_eq!(
        (&before["priority"], before.get("raise")),
        (&json!(0), None)
    );
    // Of 30/s, all of it guaranteed, half is denied; of bolt's, nothing of which is guaranteed, all.
    gateway.denies = [(hash("acme"), 50), (hash("bolt"), 100)].into();
    gateway
        .asks(&server, 20, &[("acme", 30), ("bolt", 50)])
        .await;
    run(&server).await;
    let raised = of_acme(&server).await;
    assert_eq!(raised["raise"]["priority_of_policy"], json!(0), "{raised}");
    let steps = raised["raise"]["steps"].as_u64().unwrap();
    assert!((1..=3).contains(&steps), "{raised}");
    assert_eq!(raised["priority"], json!(steps));
    let share = raised["raise"]["denied_share_5m"].as_f64().unwrap();
    assert!(
        (0.01..0.1).contains(&share),
        "20 s of 300 s, by half: {raised}"
    );
    let all = allocations(&server, "").await;
    let kept = all["customers"].as_array().unwrap().iter();
    assert_eq!(
        kept.filter(|customer| customer.get("raise").is_some())
            .count(),
        1
    );
    assert_eq!(replays(&*server.store), Ok(Some(true)));
    let server = server.killed();
    assert_eq!(of_acme(&server).await, raised);
    gateway.denies.clear();
    gateway.asks(&server, 6, &[("acme", 30)]).await;
    run(&server).await;
    let still = of_acme(&server).await;
    assert!(still["priority"].as_u64() >= Some(1), "{still}");
    // It is kept again, and forgotten.
    server.advance_ms(86_400_000);
    gateway.asks(&server, 3, &[("acme", 30)]).await;
    run(&server).await;
    let after = of_acme(&server).await;
    assert_eq!((&after["priority"], after.get("raise")), (&json!(0), None));
}

/// Whether acme, that is guaranteed 60/s and was lending it, has it back before the next cycle would have come by itself; and why.
async fn has_its_guarantee_back(server: &TestServer, gateway: &mut Told) -> Vec<String> {
    let began_ms = server.clock.load(std::sync::atomic::Ordering::SeqCst) / 1_000;
    gateway.contends = true;
    let mut causes = Vec::new();
    while gateway.rate("acme") < 57.0 {
        let cycles = gateway
            .asks(server, 1, &[("acme", 60), ("bolt", 200)])
            .await;
        causes.extend(cycles.into_iter().map(|cycle| cycle.cause));
        let passed_ms = server.clock.load(std::sync::atomic::Ordering::SeqCst) / 1_000 - began_ms;
        assert!(
            passed_ms < INTERVAL_MS / 2,
            "{causes:?} {:?}",
            gateway.rates
        );
    }
    causes
}

#[tokio::test]
async fn guarantees_are_back_in_less_than_a_cycle_after_a_gateway_or_the_leader_was_lost() {
    // A gateway that has a part of the pool is gone, and a lender asks for its own at the others.
    let (server, mut gateway) = begun(policy()).await;
    let mut lost = Told::new("g2");
    for _ in 0..5 {
        lost.gateway.spend("bolt", 20);
        lost.sync(&server).await;
        gateway
            .asks(&server, 1, &[("acme", 2), ("bolt", 200)])
            .await;
    }
    run(&server).await;
    gateway
        .asks(&server, 9, &[("acme", 2), ("bolt", 200)])
        .await;
    assert!(gateway.rate("acme") < 10.0, "{:?}", gateway.rates);
    let causes = has_its_guarantee_back(&server, &mut gateway).await;
    assert!(causes.contains(&"gateways".to_owned()), "{causes:?}");
    // The leader is gone, and another one goes on with its store.
    gateway.contends = false;
    gateway
        .asks(&server, 90, &[("acme", 2), ("bolt", 200)])
        .await;
    assert!(gateway.rate("acme") < 10.0, "{:?}", gateway.rates);
    let server = server.killed();
    let causes = has_its_guarantee_back(&server, &mut gateway).await;
    assert_eq!(causes, ["contention"]);
}

#[tokio::test]
async fn a_capacity_that_is_lost_calls_for_a_cycle_and_takes_from_no_guarantee() {
    let (server, mut gateway) = begun(policy()).await;
    let mut lost = Told::new("g2");
    for _ in 0..8 {
        lost.gateway.spend("bolt", 20);
        lost.sync(&server).await;
        gateway
            .asks(&server, 1, &[("acme", 60), ("bolt", 200)])
            .await;
    }
    run(&server).await;
    gateway.sync(&server).await;
    assert!(close(gateway.rate("acme"), 60.0), "{:?}", gateway.rates);
    // It is cut off with its part of the pool, and its fallback ends later: there is less, and then all of it again.
    let mut causes = Vec::new();
    let mut least_per_s = f64::INFINITY;
    for _ in 0..100 {
        let cycles = gateway
            .asks(&server, 1, &[("acme", 60), ("bolt", 200)])
            .await;
        gateway.sync(&server).await;
        for cycle in cycles {
            least_per_s = least_per_s.min(cycle.resources[0].capacity_per_s);
            causes.push(cycle.cause);
        }
        assert!(
            close(gateway.rate("acme"), 60.0),
            "{causes:?} {:?}",
            gateway.rates
        );
    }
    assert!(least_per_s < 100.0, "{causes:?}");
    for cause in ["gateways", "capacity"] {
        assert!(causes.contains(&cause.to_owned()), "{causes:?}");
    }
    let view = allocations(&server, "").await;
    let whole = &view["cycle"]["resources"][0]["capacity_per_s"];
    assert_eq!(whole, &json!(100.0));
}

#[tokio::test]
async fn a_server_that_is_killed_goes_on_where_it_was_and_its_inputs_give_the_same_again() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 20, &[("acme", 10), ("bolt", 200), ("dune", 9)])
        .await;
    let cycle = run(&server).await;
    let before = allocations(&server, "").await;
    gateway.sync(&server).await;
    assert_eq!(replays(&*server.store), Ok(Some(true)));
    let server = server.killed();
    let after = allocations(&server, "").await;
    assert_eq!(before, after);
    gateway.sync(&server).await;
    assert_eq!(look(&server).await, None, "nothing has happened");
    let next = run(&server).await;
    assert_eq!(next.number, cycle.number + 1);
    // Nobody has asked for anything since the start, and yet nobody has lost what the cycle before expected.
    gateway.sync(&server).await;
    gateway.sync(&server).await;
    let view = allocations(&server, "").await;
    for key in ["acme", "bolt", "dune"] {
        let had = part(&before, key, "allocated_per_s");
        assert!(close(gateway.rate(key), had), "{key}: {before} {view}");
    }
    assert_eq!(replays(&*server.store), Ok(Some(true)));
}

#[tokio::test]
async fn a_reply_that_is_lost_is_told_again_and_a_gateway_that_has_forgotten_is_told_everything() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 5, &[("acme", 10), ("bolt", 50)])
        .await;
    let cycle = run(&server).await;
    let told = |reply: &SyncReply| reply.allocations.clone();
    let request = gateway.request();
    let (_, lost) = server.sync(&request).await;
    assert!(!told(&lost).is_empty());
    assert_eq!(lost.allocation_cycle, cycle.number);
    let again = gateway.sync(&server).await;
    assert_eq!(told(&again), told(&lost));
    assert_eq!(again.allocation_cycle, cycle.number);
    assert_eq!(told(&gateway.sync(&server).await), []);
    // Its forecaster was started anew.
    gateway.applied = 0;
    let everything = told(&gateway.sync(&server).await);
    let of = |all: &[Allocation]| all.iter().map(|told| told.hash_high).collect::<Vec<_>>();
    for key in ["acme", "bolt"] {
        assert!(of(&everything).contains(&hash(key).parts().0), "{key}");
    }
    // So was the whole gateway, and the server.
    let mut another = Told::new("g1");
    another.gateway.incarnation = 8;
    another.gateway.spend("bolt", 1);
    another.sync(&server).await;
    another.sync(&server).await;
    assert!(another.rate("bolt") > 0.0, "{:?}", another.rates);
    let server = server.killed();
    let everything = told(&another.sync(&server).await);
    assert!(of(&everything).contains(&hash("bolt").parts().0));
}

#[tokio::test]
async fn a_large_allocation_comes_in_pages_and_is_complete_with_the_last() {
    let customers = 9_000_u64;
    let mut many = policy();
    many["groups"] = json!({});
    let listed =
        (0..customers).map(|number| json!({"key": format!("c{number}"), "contract": "free"}));
    many["customers"] = listed.collect();
    let server = TestServer::new();
    server.ok("POST", "/v1/policies", many).await;
    let mut gateway = Told::new("g1");
    // The policy comes in parts, which this gateway takes one after the other.
    for _ in 0..3 {
        let request = gateway.request();
        let (_, reply) = server.sync(&request).await;
        let policy = reply.policy.unwrap();
        gateway.gateway.reply_applied = reply.sequence;
        (gateway.gateway.cursor, gateway.gateway.epoch) = (policy.cursor, policy.epoch);
    }
    for number in 0..customers {
        gateway.gateway.spend(&format!("c{number}"), 1);
    }
    server.advance_ms(250);
    let cycle = look(&server).await.unwrap();
    let mut pages = Vec::new();
    for _ in 0..4 {
        let reply = gateway.sync(&server).await;
        pages.push((reply.allocations.len(), reply.allocation_cycle));
    }
    let complete = pages
        .iter()
        .position(|(_, complete)| *complete != 0)
        .unwrap();
    assert!(
        pages[..complete].iter().any(|(told, _)| *told == 8_192),
        "{pages:?}"
    );
    assert_eq!(pages[complete].1, cycle.number);
    let all: usize = pages[..=complete].iter().map(|(told, _)| told).sum();
    assert_eq!(all as u64, customers, "each once: {pages:?}");
}

#[tokio::test]
async fn a_customer_that_is_frozen_or_banned_has_a_claim_on_nothing() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 5, &[("acme", 50), ("bolt", 90)])
        .await;
    server.ok("POST", "/v1/customers/acme/freeze", NONE).await;
    run(&server).await;
    gateway.sync(&server).await;
    assert_eq!(gateway.rate("acme"), 0.0);
    assert!(gateway.rate("bolt") > 80.0, "{:?}", gateway.rates);
}

#[tokio::test]
async fn strangers_that_ask_for_something_take_part_and_leave_again() {
    let (server, mut gateway) = begun(policy()).await;
    gateway.asks(&server, 5, &[("who", 3)]).await;
    assert_eq!(run(&server).await.customers, 5);
    gateway.sync(&server).await;
    assert!(gateway.rate("who") > 0.0, "{:?}", gateway.rates);
    gateway.asks(&server, 30, &[]).await;
    assert_eq!(run(&server).await.customers, 4);
    gateway.sync(&server).await;
    assert_eq!(gateway.rate("who"), 0.0, "the gateway is told");
}

#[tokio::test]
async fn a_month_of_lending_is_a_statement_that_outlives_the_server_and_the_month() {
    let (server, mut gateway) = begun(policy()).await;
    gateway
        .asks(&server, 10, &[("acme", 10), ("bolt", 200)])
        .await;
    run(&server).await;
    gateway
        .asks(&server, 20, &[("acme", 10), ("bolt", 200)])
        .await;
    run(&server).await;
    let statement = async |server: &TestServer, key: &str, month: &str| {
        let path = format!("/v1/statements/{key}?month={month}");
        server.ok("GET", &path, NONE).await
    };
    // The clock of the tests stands in September 2026.
    let lent = statement(&server, "acme", "2026-09").await;
    let tokens = lent["resources"][0]["lent_tokens"].as_f64().unwrap();
    assert!(
        (900.0..1_700.0).contains(&tokens),
        "50/s for 20 s and more: {lent}"
    );
    let borrowed = statement(&server, "bolt", "2026-09").await;
    let same = borrowed["resources"][0]["borrowed_tokens"]
        .as_f64()
        .unwrap();
    assert!((tokens - same).abs() < 1e-3, "{borrowed}");
    assert!(lent["credits"].as_f64().unwrap() > 0.0 && borrowed["credits"].as_f64().unwrap() < 0.0);
    let server = server.killed();
    assert_eq!(statement(&server, "acme", "2026-09").await, lent);
    // A fortnight later it is October. What was in force ended by itself after two and a half intervals.
    server.advance_ms(14 * 86_400_000);
    run(&server).await;
    let whole = statement(&server, "acme", "2026-09").await;
    let most = tokens + 51.0 * 2.5 * INTERVAL_MS as f64 / 1e3;
    let all = whole["resources"][0]["lent_tokens"].as_f64().unwrap();
    assert!(all > tokens && all < most, "{whole}");
    // It says no more than the month, and the running one goes up to the cycle in force.
    assert_eq!(whole["until_unix_ms"], json!(1_790_812_800_000_u64));
    let fresh = statement(&server, "acme", "2026-10").await;
    assert!(
        fresh["until_unix_ms"].as_u64().unwrap() > 1_790_812_800_000,
        "{fresh}"
    );
    assert_eq!(fresh["resources"][0]["lent_tokens"], json!(0.0), "{fresh}");
    for (month, code) in [
        ("2026-11", "no_statement"),
        ("2025-08", "no_statement"),
        ("sep", "malformed"),
    ] {
        let path = format!("/v1/statements/acme?month={month}");
        let (_, refusal) = server.admin("GET", &path, NONE).await;
        assert_eq!(refusal["code"], code, "{month}");
    }
    // More than a year later nobody keeps it.
    let rows = || {
        server
            .store
            .range(Table::Sharing, &[4], &[5])
            .unwrap()
            .len()
    };
    assert!(rows() > 0);
    server.advance_ms(430 * 86_400_000);
    run(&server).await;
    assert_eq!(rows(), 0);
}

#[tokio::test]
async fn lines_of_cycles_are_bounded() {
    let (server, _) = begun(policy()).await;
    for _ in 0..300 {
        run(&server).await;
    }
    let lines = server.store.range(Table::Sharing, &[3], &[4]).unwrap();
    assert_eq!(lines.len(), 288);
    let view = allocations(&server, "?limit=1").await;
    assert_eq!(view["recent"].as_array().unwrap().len(), 20);
    assert_eq!(view["customers"].as_array().unwrap().len(), 1);
    let after = view["customers"][0]["customer"].as_str().unwrap();
    let rest = allocations(&server, &format!("?after={after}")).await;
    assert_eq!(rest["customers"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_policy_that_divides_nothing_allocates_nothing() {
    let (server, mut gateway) = begun(kit::policy()).await;
    gateway.asks(&server, 2, &[("acme", 5)]).await;
    let reply = gateway.sync(&server).await;
    assert_eq!((reply.allocation_ttl_ms, reply.allocation_cycle), (0, 0));
    let (status, refusal) = server.admin("POST", "/v1/allocations/run", NONE).await;
    assert_eq!(
        (status.as_u16(), &refusal["code"]),
        (409, &json!("no_sharing"))
    );
    let view = allocations(&server, "").await;
    assert_eq!((view.get("cycle"), view.get("interval_ms")), (None, None));
    // It begins with a policy that does, and ends with one that does not.
    server
        .ok("POST", "/v1/policies", {
            let mut divided = kit::policy();
            divided["sharing"] = json!({});
            divided
        })
        .await;
    assert!(look(&server).await.is_some());
    gateway.sync(&server).await;
    let ttl_ms = gateway.sync(&server).await.allocation_ttl_ms;
    assert!((740_000..=750_000).contains(&ttl_ms), "{ttl_ms}");
    server.ok("POST", "/v1/policies", kit::policy()).await;
    gateway.sync(&server).await;
    assert_eq!(gateway.sync(&server).await.allocation_ttl_ms, 0);
    let view = allocations(&server, "").await;
    assert_eq!((view.get("cycle"), view.get("interval_ms")), (None, None));
}

#[tokio::test]
async fn whoever_asks_for_a_cycle_is_in_the_audit_log() {
    let (server, _) = begun(policy()).await;
    let path = "/v1/allocations/run";
    let (status, _) = server
        .request("POST", path, VIEWER_TOKEN, Body::empty())
        .await;
    assert_eq!(status, 403);
    let (status, made) = server
        .request("POST", path, OPERATOR_TOKEN, Body::empty())
        .await;
    assert_eq!(status, 200);
    let made: CycleView = serde_json::from_slice(&made).unwrap();
    let log = server.ok("GET", "/v1/audit", NONE).await;
    let last = log["records"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["action"], &last["role"]),
        (&json!("allocation.run"), &json!("operator"))
    );
    assert_eq!(last["outcome"], json!(format!("cycle {}", made.number)));
}
