//! Every host call fails once, and every host call is once the last of its VM: no token is created.

#![allow(clippy::unwrap_used)]

mod scene;

use forebay_host::{Fate, Gate, Gateway, Request, Status};
use scene::{BURST, admission, config, config_with_pool, once, requests, settle, take_the_rest};
use serde_json::Value;

/// No scene makes more host calls than this.
const MAX_CALLS: usize = 2_000;

/// `NotFound` is none of them: of a key that is there it would be a lie, which Envoy's shared data cannot tell while
/// a VM lives.
const FAILURES: [Status; 3] = [
    Status::BadArgument,
    Status::CasMismatch,
    Status::InternalFailure,
];

#[test]
fn a_host_call_that_fails_once_admits_no_more_and_traps_nothing() {
    for config in [config(), config_with_pool()] {
        for failure in FAILURES {
            let calls = each_call(|number| {
                let mut gateway = Gateway::new();
                let mut worker = gateway.worker(&admission(), &config.to_string()).unwrap();
                worker.set_gate(once(number, Fate::Fail(failure)));
                let mut admitted = requests(&mut worker, "a", 3);
                gateway.clock.advance_ms(100);
                worker.tick().unwrap();
                admitted += requests(&mut worker, "a", 3);
                worker.set_gate(Gate::open());
                admitted += take_the_rest(&mut gateway, &mut [worker], &config);
                assert!(
                    admitted <= BURST,
                    "call {number} failed with {failure:?}: {admitted} of {BURST} admitted"
                );
            });
            println!("{calls} calls failed once with {failure:?}");
        }
    }
}

#[test]
fn a_worker_that_traps_anywhere_loses_tokens_at_most() {
    for config in [config(), config_with_pool()] {
        each_call(|number| {
            let mut gateway = Gateway::new();
            let mut worker = gateway.worker(&admission(), &config.to_string()).unwrap();
            worker.set_gate(once(number, Fate::Trap));
            let admitted = until_it_traps(&mut worker);
            // Envoy drops the VM and starts another over the same shared data.
            drop(worker);
            let rest = take_the_rest(&mut gateway, &mut [], &config);
            assert!(
                admitted + rest <= BURST,
                "trapped at call {number}: {admitted} + {rest} of {BURST}"
            );
        });
    }
}

#[test]
fn a_host_call_that_fails_while_configuring_creates_nothing() {
    each_call(|number| {
        let mut gateway = Gateway::new();
        let mut first = gateway.worker(&admission(), &config().to_string()).unwrap();
        let mut admitted = requests(&mut first, "a", 2);
        settle(&gateway, std::slice::from_mut(&mut first));
        let fate = Fate::Fail(Status::InternalFailure);
        // The second worker may be refused, or start and work; it must not fill the buckets again.
        if let Ok(mut second) =
            gateway.worker_behind(&admission(), &config().to_string(), once(number, fate))
        {
            second.set_gate(Gate::open());
            admitted += requests(&mut second, "a", 6);
        }
        admitted += requests(&mut first, "a", 6);
        assert!(
            admitted <= BURST,
            "call {number} failed while configuring: {admitted} of {BURST} admitted"
        );
    });
}

/// Requests until one traps or six were sent; how many were admitted.
fn until_it_traps(worker: &mut forebay_host::Worker) -> u64 {
    let mut admitted = 0;
    for _ in 0..6 {
        match worker.request(Request::get(&[("x-customer", "a")])) {
            Ok(outcome) => admitted += u64::from(outcome.admitted()),
            // What trapped was not admitted: Envoy answers 503.
            Err(_) => return admitted,
        }
    }
    admitted
}

/// Runs the scene for the first call, the second and so on, as far as a scene makes calls.
fn each_call(scene: impl Fn(usize)) -> usize {
    let calls = calls_of(&config());
    assert!(calls < MAX_CALLS, "{calls} host calls in one scene");
    (0..calls).for_each(scene);
    calls
}

/// How many host calls a scene makes at most.
fn calls_of(config: &Value) -> usize {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&count);
    let gate = Gate::new(move |_| {
        seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Fate::Proceed
    });
    let mut gateway = Gateway::new();
    let mut worker = gateway
        .worker_behind(&admission(), &config.to_string(), gate)
        .unwrap();
    requests(&mut worker, "a", 6);
    worker.tick().unwrap();
    count.load(std::sync::atomic::Ordering::SeqCst)
}
