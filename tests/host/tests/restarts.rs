//! What survives: the ledger outlives VMs and configurations, and no clock but the steady one refills it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use forebay_host::{Gateway, Request};
use scene::{BURST, admission, config, requests, settle};
use serde_json::json;

#[test]
fn a_new_vm_over_the_same_ledger_starts_without_a_refill() {
    let mut gateway = Gateway::new();
    let mut admitted = 0;
    for _ in 0..10 {
        let mut worker = gateway.worker(&admission(), &config().to_string()).unwrap();
        admitted += requests(&mut worker, "a", 1);
    }
    assert!(admitted <= BURST, "{admitted} of {BURST} over ten VMs");
    assert!(admitted >= 1);
}

#[test]
fn a_worker_that_ends_well_hands_its_chunk_back() {
    let mut gateway = Gateway::new();
    let mut first = gateway.worker(&admission(), &config().to_string()).unwrap();
    let mut admitted = requests(&mut first, "a", 1);
    settle(&gateway, std::slice::from_mut(&mut first));
    drop(first);
    let mut second = gateway.worker(&admission(), &config().to_string()).unwrap();
    for _ in 0..30 {
        admitted += requests(&mut second, "a", 1);
        gateway.clock.advance_ms(100);
        second.tick().unwrap();
    }
    assert_eq!(admitted, BURST);
}

#[test]
fn the_same_configuration_again_does_not_refill() {
    let mut gateway = Gateway::new();
    let mut worker = gateway.worker(&admission(), &config().to_string()).unwrap();
    assert_eq!(requests(&mut worker, "a", 6), BURST);
    let mut renamed = config();
    renamed["rules"][0]["name"] = json!("renamed");
    worker.reconfigure(&renamed.to_string()).unwrap();
    assert_eq!(requests(&mut worker, "a", 6), 0);
}

#[test]
fn a_refused_configuration_leaves_the_last_good_one_in_force() {
    let mut gateway = Gateway::new();
    let mut worker = gateway.worker(&admission(), &config().to_string()).unwrap();
    assert_eq!(requests(&mut worker, "a", 1), 1);
    let mut bad = config();
    bad["rules"] = json!([]);
    let error = worker.reconfigure(&bad.to_string()).unwrap_err();
    assert!(format!("{error:#}").contains("rules"), "{error:#}");
    assert_eq!(requests(&mut worker, "a", 6), BURST - 1);
    let denied = worker
        .request(Request::get(&[("x-customer", "a")]))
        .unwrap();
    assert_eq!(denied.status(), 429);
}

#[test]
fn a_wall_clock_that_jumps_refills_nothing() {
    let mut gateway = Gateway::new();
    let mut slow = config();
    slow["policy"]["contracts"]["standard"]["limits"]["requests"]["rate_per_s"] = json!(1);
    let mut worker = gateway.worker(&admission(), &slow.to_string()).unwrap();
    assert_eq!(requests(&mut worker, "a", 6), BURST);
    gateway.clock.jump_wall_ms(3_600_000);
    assert_eq!(requests(&mut worker, "a", 6), 0);
    gateway.clock.jump_wall_ms(-7_200_000);
    assert_eq!(requests(&mut worker, "a", 6), 0);
}

#[test]
fn a_night_without_requests_fills_a_bucket_once() {
    let mut gateway = Gateway::new();
    let mut slow = config();
    slow["policy"]["contracts"]["standard"]["limits"]["requests"]["rate_per_s"] = json!(1);
    let mut worker = gateway.worker(&admission(), &slow.to_string()).unwrap();
    assert_eq!(requests(&mut worker, "a", 6), BURST);
    gateway.clock.advance_ms(12 * 3_600_000);
    worker.tick().unwrap();
    assert_eq!(requests(&mut worker, "a", 9), BURST);
}

#[test]
fn shared_data_that_was_corrupted_never_admits_more_than_a_burst() {
    for fill in [0x00, 0xff, 0x5a] {
        let mut gateway = Gateway::new();
        let mut worker = gateway.worker(&admission(), &config().to_string()).unwrap();
        let mut admitted = requests(&mut worker, "a", 1);
        for key in gateway.shared.keys() {
            let length = gateway.shared.get(&key).map_or(0, |(value, _)| value.len());
            gateway.shared.set(&key, &vec![fill; length], 0);
        }
        for _ in 0..20 {
            admitted += requests(&mut worker, "a", 2);
            gateway.clock.advance_ms(100);
            worker.tick().unwrap();
        }
        assert!(admitted <= BURST, "{admitted} of {BURST} after {fill:#x}");
    }
}
