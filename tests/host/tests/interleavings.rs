//! Two workers draw from one ledger in every order of their shared-data calls: nothing is created, nothing is lost.

#![allow(clippy::unwrap_used)]

mod scene;

use std::sync::{Arc, Mutex};

use forebay_host::{Gate, Gateway, Worker, every_interleaving};
use scene::{BURST, admission, config, config_with_pool, requests, take_the_rest};
use serde_json::Value;

/// Enough for all orders of one draw each, with room for the retries; longer scenes are cut off here.
const MAX_RUNS: usize = 1_500;

/// What one order left behind.
struct Left {
    gateway: Gateway,
    workers: Mutex<Vec<Worker>>,
    admitted: Mutex<u64>,
}

#[test]
fn one_draw_each_in_every_order_keeps_every_token() {
    let runs = explore(&config(), [("a", 1), ("a", 1)], |left| {
        let admitted = *left.admitted.lock().unwrap();
        assert_eq!(admitted, 2, "both could be served");
        let config = config();
        let mut gateway = left.gateway.clone();
        let rest = take_the_rest(&mut gateway, &mut left.workers.lock().unwrap(), &config);
        assert_eq!(admitted + rest, BURST, "what was not spent is still there");
    });
    assert!(runs < MAX_RUNS, "not all orders were run");
    println!("{runs} orders");
}

#[test]
fn more_requests_than_tokens_in_many_orders_never_admit_too_many() {
    explore(&config(), [("a", 3), ("a", 3)], |left| {
        let admitted = *left.admitted.lock().unwrap();
        assert!(admitted <= BURST, "{admitted} of {BURST}");
        assert!(
            admitted >= BURST / 2,
            "a race costs little: {admitted} of {BURST}"
        );
    });
}

#[test]
fn two_customers_on_one_pool_never_take_more_than_it_holds() {
    explore(&config_with_pool(), [("a", 3), ("b", 3)], |left| {
        let admitted = *left.admitted.lock().unwrap();
        assert!(admitted <= BURST, "{admitted} of {BURST} pool tokens");
    });
}

fn explore(config: &Value, actors: [(&'static str, usize); 2], check: impl Fn(&Left)) -> usize {
    let plugin = admission();
    let check = &check;
    let explored = every_interleaving(MAX_RUNS, || {
        let mut gateway = Gateway::new();
        let config = config.to_string();
        let workers = [(); 2].map(|()| gateway.worker(&plugin, &config).unwrap());
        // Each worker must know that it is not alone.
        let left = Arc::new(Left {
            gateway,
            workers: Mutex::default(),
            admitted: Mutex::default(),
        });
        let acts: Vec<_> = workers
            .into_iter()
            .zip(actors)
            .map(|(mut worker, (customer, count))| {
                let left = Arc::clone(&left);
                move |gate: Gate| {
                    worker.set_gate(gate);
                    let admitted = requests(&mut worker, customer, count);
                    worker.set_gate(Gate::open());
                    *left.admitted.lock().unwrap() += admitted;
                    left.workers.lock().unwrap().push(worker);
                }
            })
            .collect();
        (acts, move |_: &[usize]| check(&left))
    });
    assert!(explored.runs > 1, "the workers never met");
    explored.runs
}
