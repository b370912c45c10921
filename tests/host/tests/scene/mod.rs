//! The small world of these tests: one customer, one contract, a burst that never comes back.

// Each test file uses its part of the scene.
#![allow(dead_code)]
// Indexing builds the JSON of the scene; a wrong name must stop the test.
#![allow(clippy::indexing_slicing)]

use forebay_host::{Fate, Gate, Gateway, Plugin, Request, Worker};
use serde_json::{Value, json};

/// Tokens of the customer `a`, of which none ever comes back: every admission can be counted.
pub(crate) const BURST: u64 = 4;

/// A filter with two customers and a small ledger, so that a scene is set up quickly.
pub(crate) fn config() -> Value {
    json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": "x-customer", "trusted": true } },
            "charges": [{ "resource": "requests" }],
        }],
        "ledger": { "max_policy_customers": 4, "max_other_customers": 4 },
        "policy": {
            "version": 1,
            "resources": { "requests": {} },
            "contracts": { "standard": { "limits": { "requests": { "rate_per_s": 0, "burst": BURST } } } },
            "customers": [{ "key": "a", "contract": "standard" }, { "key": "b", "contract": "standard" }],
        },
    })
}

/// The same with a pool of `BURST` tokens that both customers draw from.
pub(crate) fn config_with_pool() -> Value {
    let mut config = config();
    config["policy"]["resources"]["requests"] = json!({ "capacity_per_s": BURST });
    config
}

pub(crate) fn admission() -> Plugin {
    Plugin::shipped("admission").unwrap()
}

/// So many requests of a customer; how many were admitted.
pub(crate) fn requests(worker: &mut Worker, customer: &str, count: usize) -> u64 {
    let outcomes = (0..count).map(|_| {
        worker
            .request(Request::get(&[("x-customer", customer)]))
            .unwrap()
    });
    outcomes.filter(|outcome| outcome.admitted()).count() as u64
}

/// Lets chunks go back, then takes all that is left through a worker that starts now.
pub(crate) fn take_the_rest(gateway: &mut Gateway, workers: &mut [Worker], config: &Value) -> u64 {
    settle(gateway, workers);
    let mut last = gateway.worker(&admission(), &config.to_string()).unwrap();
    (0..20)
        .map(|_| {
            let admitted = requests(&mut last, "a", 1);
            gateway.clock.advance_ms(100);
            last.tick().unwrap();
            admitted
        })
        .sum()
}

/// Three seconds without a request.
pub(crate) fn settle(gateway: &Gateway, workers: &mut [Worker]) {
    for _ in 0..30 {
        gateway.clock.advance_ms(100);
        for worker in workers.iter_mut() {
            worker.tick().unwrap();
        }
    }
}

/// A gate that does `fate` to the call with this number (from 0) and lets all others pass.
pub(crate) fn once(number: usize, fate: Fate) -> Gate {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Gate::new(move |call| {
        let this = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if this == number {
            eprintln!("CALL {this} {call:?}");
            fate
        } else {
            Fate::Proceed
        }
    })
}
