//! The shipped forecaster as an ordinary filter: several VMs of which one leads, and requests that it lets be.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use forebay_host::{
    Fate, Gate, Gateway, Headers, HttpCall, Plugin, Request, Response, Worker, every_interleaving,
};

const CONFIG: &str = r#"{
    "version": 1,
    "control_plane": {"cluster": "plane", "gateway_id": "gw-1"},
    "ledger": {"max_policy_customers": 4, "max_other_customers": 4}
}"#;

/// More than there are orders of two first ticks, of which only a few host calls are in common.
const MAX_RUNS: usize = 3_000;

/// That a callback at the beginning or at the end of a stream may take: less than the call of it costs the host.
const INSTRUCTIONS_MOST: u64 = 200;

/// Longer than a lease.
const LONG_MS: u64 = 3_100;

fn forecaster() -> Plugin {
    Plugin::shipped("forecaster").unwrap()
}

fn gateway() -> Gateway {
    Gateway::new().with_environment("FOREBAY_GATEWAY_TOKEN", "token-of-a-gateway")
}

/// All tick, and 20 ms pass; who has made how many calls.
fn tick(gateway: &Gateway, workers: &mut [Worker]) -> Vec<Vec<HttpCall>> {
    let calls = workers
        .iter_mut()
        .map(|worker| {
            worker.tick().unwrap();
            worker.take_http_calls()
        })
        .collect();
    gateway.clock.advance_ms(20);
    calls
}

/// Which of them makes the next calls.
fn who_syncs(gateway: &Gateway, workers: &mut [Worker]) -> usize {
    for _ in 0..400 {
        let calls = tick(gateway, workers);
        let made: Vec<usize> = (0..calls.len())
            .filter(|at| !calls[*at].is_empty())
            .collect();
        assert!(made.len() <= 1, "{made:?} sync at once");
        if let Some(first) = made.first() {
            return *first;
        }
    }
    unreachable!("no sync within eight seconds");
}

#[test]
fn the_first_ticks_of_two_in_every_order_give_one_leader() {
    let plugin = forecaster();
    let explored = every_interleaving(MAX_RUNS, || {
        let mut gateway = gateway();
        let workers = [(); 2].map(|()| gateway.worker(&plugin, CONFIG).unwrap());
        let calls = Arc::new(Mutex::new(0));
        let acts: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let calls = Arc::clone(&calls);
                move |gate: Gate| {
                    worker.set_gate(gate);
                    worker.tick().unwrap();
                    *calls.lock().unwrap() += worker.take_http_calls().len();
                }
            })
            .collect();
        (acts, move |order: &[usize]| {
            assert_eq!(*calls.lock().unwrap(), 1, "{order:?}");
        })
    });
    println!("{explored:?}");
    assert!(explored.complete);
}

#[test]
fn a_leader_that_traps_is_followed_when_its_lease_is_over_and_one_that_ends_at_once() {
    let plugin = forecaster();
    let mut gateway = gateway();
    let mut workers: Vec<Worker> = (0..3)
        .map(|_| gateway.worker(&plugin, CONFIG).unwrap())
        .collect();
    let first = who_syncs(&gateway, &mut workers);
    workers[first].set_gate(Gate::new(|call| match call.name {
        "proxy_http_call" => Fate::Trap,
        _ => Fate::Proceed,
    }));
    let mut trapped = workers.swap_remove(first);
    for _ in 0..400 {
        gateway.clock.advance_ms(20);
        if trapped.tick().is_err() {
            break;
        }
    }
    // No other has taken part yet, and all may now.
    gateway.clock.advance_ms(LONG_MS);
    let second = who_syncs(&gateway, &mut workers);
    // The same configuration in another form: the root context before ends with it.
    workers[second]
        .reconfigure(&CONFIG.replace("    ", " "))
        .unwrap();
    let calls = tick(&gateway, &mut workers);
    assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 1, "{calls:?}");
}

#[test]
fn requests_pass_untouched_and_nearly_for_nothing() {
    let mut gateway = gateway();
    let mut worker = gateway.worker(&forecaster(), CONFIG).unwrap();
    worker.tick().unwrap();
    let response = Headers::from_text(&[("x-from", "upstream")]);
    let memory = worker.memory_bytes();
    for _ in 0..2_000 {
        let in_flight = worker.begin(Request::get(&[("x-customer", "a")])).unwrap();
        assert!(worker.instructions().unwrap() < INSTRUCTIONS_MOST);
        assert!(!in_flight.held && in_flight.local_reply.is_none());
        let response = Response {
            headers: response.clone(),
        };
        let outcome = worker.finish(in_flight, response).unwrap();
        assert!(worker.instructions().unwrap() < INSTRUCTIONS_MOST);
        assert_eq!(outcome.headers.0.len(), 2, "{outcome:?}");
        assert!(outcome.set_properties.is_empty());
    }
    assert_eq!(worker.memory_bytes(), memory);
    gateway.clock.advance_ms(1_000);
    worker.tick().unwrap();
}
