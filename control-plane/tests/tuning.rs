//! Tuning in the control plane: off unless the policy asks for it, bounded where it does, ended by a missed guarantee, and the same after
//! a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;
mod told;

use forebay_control_plane::allocation::{CycleView, TuningView, replays};
use forebay_control_plane::store::{Batch, Store, Table};
use kit::{TestServer, hash};
use serde_json::{Value, json};
use told::{NONE, Told, begun, look, policy};

const CYCLE_S: u64 = 10;
const HOUR_MS: u64 = 3_600_000;
/// The policy's own reserve, and the ends of its range.
const OWN: f64 = 0.25;
const ENDS: [f64; 2] = [0.1, 0.4];
/// Of any so many decisions in a row, so many explore at most.
const WINDOW: usize = 100;
const MOST: usize = 5;
/// Cycles by which something must have been explored.
const PATIENCE: u64 = 400;

fn tuned(tuning: Option<Value>) -> Value {
    let mut policy = policy();
    policy["sharing"] = json!({"interval_ms": CYCLE_S * 1_000, "reserve_share": OWN});
    if let Some(tuning) = tuning {
        policy["sharing"]["tuning"] = tuning;
    }
    policy
}

/// What may be lost is much, so that it is not what holds exploring back.
fn generous() -> Value {
    tuned(Some(json!({"loss_most": 0.5})))
}

/// Demand within the guarantee and the capacity, for the time of so many cycles.
async fn goes_on(server: &TestServer, gateway: &mut Told, cycles: u64) -> Vec<CycleView> {
    let mut made = Vec::new();
    for _ in 0..cycles * CYCLE_S * 2 {
        *gateway.gateway.demand.entry(hash("acme")).or_default() += 15_000_000;
        *gateway.gateway.demand.entry(hash("bolt")).or_default() += 5_000_000;
        server.advance_ms(500);
        gateway.sync(server).await;
        made.extend(look(server).await);
    }
    made
}

/// Goes on until a cycle explores; all cycles that were made.
async fn explores(server: &TestServer, gateway: &mut Told) -> Vec<CycleView> {
    let mut made = Vec::new();
    for _ in 0..PATIENCE * CYCLE_S * 2 {
        *gateway.gateway.demand.entry(hash("acme")).or_default() += 15_000_000;
        server.advance_ms(500);
        gateway.sync(server).await;
        if let Some(cycle) = look(server).await {
            let is_found = arm(&cycle).is_some_and(|arm| arm > 0);
            made.push(cycle);
            if is_found {
                return made;
            }
        }
    }
    panic!("nothing was explored in {} cycles", made.len());
}

fn arm(cycle: &CycleView) -> Option<usize> {
    cycle.tuning.as_ref().map(|tuning| tuning.arm)
}

/// Which decisions have explored.
fn explored(cycles: &[CycleView]) -> Vec<bool> {
    let arms = cycles.iter().filter_map(arm);
    arms.map(|arm| arm > 0).collect()
}

fn is_bounded(explored: &[bool]) -> bool {
    let count = |window: &[bool]| window.iter().filter(|explores| **explores).count();
    count(&explored[..explored.len().min(WINDOW)]) <= MOST
        && explored.windows(WINDOW).all(|window| count(window) <= MOST)
}

async fn tuning(server: &TestServer) -> TuningView {
    let view = server.ok("GET", "/v1/tuning", NONE).await;
    serde_json::from_value(view).unwrap()
}

fn kept(server: &TestServer) -> Option<Vec<u8>> {
    server.store.get(Table::Sharing, &[6]).unwrap()
}

#[tokio::test]
async fn without_tuning_in_the_policy_nothing_is_chosen_and_with_it_cycles_by_the_policy_are_the_same()
 {
    let (off, mut gateway) = begun(tuned(None)).await;
    let plain = goes_on(&off, &mut gateway, 20).await;
    assert!(plain.len() >= 19, "{}", plain.len());
    assert!(plain.iter().all(|cycle| cycle.tuning.is_none()));
    assert_eq!(tuning(&off).await, TuningView::default());
    assert_eq!(kept(&off), None);
    let (on, mut gateway) = begun(generous()).await;
    let chosen = goes_on(&on, &mut gateway, 20).await;
    assert_eq!(plain.len(), chosen.len());
    let own = chosen
        .iter()
        .take_while(|cycle| arm(cycle).unwrap_or(0) == 0);
    let own: Vec<&CycleView> = own.collect();
    assert!(!own.is_empty());
    for (one, other) in plain.iter().zip(own) {
        assert_eq!(
            (&one.inputs_sha256, &one.result_sha256),
            (&other.inputs_sha256, &other.result_sha256)
        );
    }
}

#[tokio::test]
async fn at_most_five_of_a_hundred_explore_within_the_ranges_and_a_restart_goes_on() {
    let (server, mut gateway) = begun(generous()).await;
    let mut cycles = goes_on(&server, &mut gateway, 90).await;
    let before = tuning(&server).await;
    let words = kept(&server);
    let server = server.killed();
    assert_eq!(kept(&server), words);
    assert_eq!(tuning(&server).await, before);
    assert_eq!(replays(&*server.store), Ok(Some(true)));
    cycles.extend(goes_on(&server, &mut gateway, 150).await);
    let explored = explored(&cycles);
    assert!(explored.len() > 200, "{}", explored.len());
    assert!(is_bounded(&explored), "{explored:?}");
    let count = explored.iter().filter(|explores| **explores).count();
    assert!(count >= 3, "{count} of {}", explored.len());
    let mut decision = 0;
    for cycle in &cycles {
        let Some(choice) = &cycle.tuning else {
            assert_ne!(cycle.cause, "interval");
            continue;
        };
        assert_eq!(cycle.cause, "interval");
        decision += 1;
        assert_eq!(
            choice.decision, decision,
            "none is lost, and none made twice"
        );
        assert_eq!(choice.quantiles, [0.99, 0.9, 0.5]);
        match choice.arm {
            0 => assert_eq!(choice.reserve_share, OWN),
            arm => {
                assert_eq!(choice.reserve_share, ENDS[arm - 1]);
                assert!(choice.propensity > 0.0 && choice.propensity < 0.05);
            }
        }
        // The cycle was made by it.
        let reserve_per_s = cycle.resources[0].reserve_per_s;
        assert!(
            reserve_per_s <= choice.reserve_share * 100.0 + 1e-9,
            "{cycle:?}"
        );
    }
    let view = tuning(&server).await;
    assert!(view.is_on);
    assert_eq!(
        (view.decisions, view.explored, view.fallbacks),
        (decision, count as u64, 0)
    );
    let by_arm: Vec<u64> = view.arms.iter().map(|arm| arm.cycles).collect();
    assert_eq!(by_arm.iter().sum::<u64>(), decision);
    assert_eq!(by_arm[1..].iter().sum::<u64>(), count as u64);
    let compared = view.arms.iter().filter_map(|arm| arm.effect.as_ref());
    assert!(compared.map(|effect| effect.compared).sum::<u32>() > 0);
    // All earned the same, so none is called better.
    assert_eq!(view.better, None);
}

#[tokio::test]
async fn a_missed_guarantee_ends_a_cycle_that_explores_at_once_and_pauses_also_after_a_kill() {
    let (server, mut gateway) = begun(generous()).await;
    // In a cycle by the policy's own values it ends nothing.
    goes_on(&server, &mut gateway, 3).await;
    gateway.denies = [(hash("acme"), 50)].into();
    let missed = goes_on(&server, &mut gateway, 2).await;
    gateway.denies.clear();
    assert!(explored(&missed).iter().all(|explores| !explores));
    assert_eq!(tuning(&server).await.fallbacks, 0);
    let last = explores(&server, &mut gateway).await.pop().unwrap();
    gateway.denies = [(hash("acme"), 50)].into();
    let after = goes_on(&server, &mut gateway, 1).await;
    gateway.denies.clear();
    let first = &after[0];
    assert_eq!((first.cause.as_str(), &first.tuning), ("fallback", &None));
    let passed_ms = first.at_unix_ms - last.at_unix_ms;
    assert!(passed_ms <= 4_000, "{passed_ms}");
    let view = tuning(&server).await;
    let fallback = view.fallback.clone().unwrap();
    assert_eq!((view.fallbacks, fallback.cycle), (1, last.number));
    assert_eq!(fallback.until_unix_ms, first.at_unix_ms + HOUR_MS);
    assert_eq!(view.hold.clone().unwrap().why, "paused");
    let server = server.killed();
    assert_eq!(tuning(&server).await, view);
    let paused = goes_on(&server, &mut gateway, 150).await;
    assert!(paused.len() > 140, "{}", paused.len());
    assert!(explored(&paused).iter().all(|explores| !explores));
    // And goes on when the pause is over.
    server.advance_ms(HOUR_MS);
    let later = explores(&server, &mut gateway).await.pop().unwrap();
    assert!(later.at_unix_ms > fallback.until_unix_ms);
}

#[tokio::test]
async fn what_was_learned_and_is_damaged_is_dropped_and_nothing_else_with_it() {
    let (server, mut gateway) = begun(generous()).await;
    goes_on(&server, &mut gateway, 30).await;
    let before = server.ok("GET", "/v1/allocations", NONE).await;
    let mut row = kept(&server).unwrap();
    row.truncate(row.len() / 2);
    let mut batch = Batch::default();
    batch.put(Table::Sharing, [6], row);
    server.store.commit(&batch).unwrap();
    let server = server.killed();
    assert_eq!(replays(&*server.store), Ok(Some(true)));
    let after = server.ok("GET", "/v1/allocations", NONE).await;
    assert_eq!(after["customers"], before["customers"]);
    let view = tuning(&server).await;
    assert_eq!((view.is_on, view.decisions), (true, 0));
    assert_eq!(
        view.hold.unwrap().why,
        "window",
        "as if much had been explored"
    );
    let cycles = goes_on(&server, &mut gateway, 90).await;
    let explored = explored(&cycles);
    assert!(explored.len() > 80);
    assert!(explored.iter().all(|explores| !explores));
}
