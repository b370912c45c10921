//! Properties: whatever the schedule, a gateway admits no more than it may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a failed step must stop the test

mod gateway;

use gateway::{BY_KEY, Gateway, Request, TEN_PER_S, config};
use proptest::prelude::*;

/// What can happen to a gateway with four workers.
#[derive(Clone, Debug)]
enum Step {
    Send { worker: usize, count: u8 },
    Wait { ms: u64 },
    Tick { worker: usize },
    Restart { worker: usize },
    LoseRaces { count: u32 },
}

const WORKERS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..WORKERS, 1..60_u8).prop_map(|(worker, count)| Step::Send { worker, count }),
        4 => (1..700_u64).prop_map(|ms| Step::Wait { ms }),
        4 => (0..WORKERS).prop_map(|worker| Step::Tick { worker }),
        1 => (0..WORKERS).prop_map(|worker| Step::Restart { worker }),
        1 => (1..6_u32).prop_map(|count| Step::LoseRaces { count }),
    ]
}

/// Runs the steps. Time only passes in pieces after which every worker ticks, as Envoy's timers do.
fn run(
    gateway: &mut Gateway,
    document: &str,
    steps: &[Step],
    request: &Request,
    mut admitted: impl FnMut(&Gateway),
) {
    for step in steps {
        match step {
            Step::Send { worker, count } => {
                for _ in 0..*count {
                    if gateway.send(*worker, request).admitted() {
                        admitted(gateway);
                    }
                }
            }
            Step::Wait { ms } => {
                let mut left = *ms;
                while left > 0 {
                    let part = left.min(100);
                    gateway.advance_ms(part);
                    gateway.tick_all();
                    left -= part;
                }
            }
            Step::Tick { worker } => gateway.tick(*worker),
            Step::Restart { worker } => {
                gateway.workers[*worker] = gateway.configure(document).unwrap()
            }
            Step::LoseRaces { count } => gateway.world.lost_races = *count,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_customer_gets_no_more_than_burst_and_rate_over_any_time_whatever_worker_it_meets(
        steps in prop::collection::vec(step(), 1..60),
        rate in 1..200_u64,
        burst in 1..100_u64,
    ) {
        let policy = TEN_PER_S.replace("10, \"burst\": 5", &format!("{rate}, \"burst\": {burst}"));
        let document = config(BY_KEY, r#""ledger": {"max_policy_customers": 8, "max_other_customers": 8},"#, &policy);
        let mut gateway = Gateway::new(&document, WORKERS);
        let mut times_us = Vec::new();
        run(&mut gateway, &document, &steps, &Request::of("acme"), |gateway| times_us.push(gateway.world.now_us));
        for (start, from_us) in times_us.iter().enumerate() {
            for (end, to_us) in times_us.iter().enumerate().skip(start) {
                let count = (end - start + 1) as u64;
                let most = burst * 1_000_000 + rate * (to_us - from_us);
                prop_assert!(count * 1_000_000 <= most, "{count} in {} us", to_us - from_us);
            }
        }
    }

    #[test]
    fn customers_together_get_no_more_than_the_pool(
        steps in prop::collection::vec((step(), 0..5_u8), 1..60),
        capacity in 10..100_u64,
    ) {
        let policy = TEN_PER_S
            .replace("\"requests\": {}}", &format!("\"requests\": {{\"capacity_per_s\": {capacity}}}}}"))
            .replace("10, \"burst\": 5", "1000, \"burst\": 1000");
        let document = config(BY_KEY, r#""ledger": {"max_policy_customers": 8, "max_other_customers": 8},"#, &policy);
        let mut gateway = Gateway::new(&document, WORKERS);
        let start_us = gateway.world.now_us;
        let mut admitted = 0_u64;
        for (step, customer) in &steps {
            let request = Request::of(&format!("customer-{customer}"));
            run(&mut gateway, &document, std::slice::from_ref(step), &request, |_| admitted += 1);
            let most = capacity * 1_000_000 + capacity * (gateway.world.now_us - start_us);
            prop_assert!(admitted * 1_000_000 <= most, "{admitted} of {most}");
        }
    }

    #[test]
    fn settled_costs_stay_within_the_bound_of_what_is_in_flight(
        steps in prop::collection::vec((step(), 0..9_u8), 1..50),
    ) {
        let rule = r#"{"name": "api", "key": {"header": {"name": "x-key", "trusted": true}}, "charges":
            [{"resource": "requests", "cost": {"settle": {"estimate": 3, "response_header": "x-used", "max": 8}}}]}"#;
        let policy = TEN_PER_S.replace("10, \"burst\": 5", "50, \"burst\": 40");
        let document = config(rule, "", &policy);
        let mut gateway = Gateway::new(&document, WORKERS);
        let start_us = gateway.world.now_us;
        let mut spent = 0_u64;
        for (step, used) in &steps {
            let request = Request::of("acme").response("x-used", used.to_string());
            let charged = u64::from(*used).min(8);
            let mut count = 0_u64;
            run(&mut gateway, &document, std::slice::from_ref(step), &request, |_| count += 1);
            spent += count * charged;
            // Requests are answered one by one, so one of them at most is settled above its estimate before that binds.
            let most = 40 * 1_000_000 + 50 * (gateway.world.now_us - start_us) + WORKERS as u64 * (8 - 3) * 1_000_000;
            prop_assert!(spent * 1_000_000 <= most, "{spent} of {most}");
        }
    }

    #[test]
    fn no_header_bytes_whatever_make_it_fail(
        key in prop::collection::vec(any::<u8>(), 0..80),
        cost in prop::collection::vec(any::<u8>(), 0..30),
        used in prop::collection::vec(any::<u8>(), 0..30),
        address in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let rule = r#"{"name": "api", "match": {"path_prefix": "/"}, "key": {"header": {"name": "x-key", "trusted": true, "missing": "skip"}}, "charges":
            [{"resource": "requests", "cost": {"header": {"name": "x-cost", "trusted": true, "max": 8}}}]},
            {"name": "net", "key": {"source_address": {}}, "charges":
            [{"resource": "requests", "cost": {"settle": {"estimate": 3, "response_header": "x-used", "max": 8}}}]}"#;
        let more = r#""headers": {"limit": true, "remaining": true, "reset": true}, "access_log": {"verdict": true, "customer": true},"#;
        let mut gateway = Gateway::new(&config(rule, more, TEN_PER_S), 1);
        let request = Request::default()
            .header(":path", &key)
            .header("x-key", &key)
            .header("x-cost", &cost)
            .property("source.address", &address)
            .response("x-used", &used);
        for _ in 0..3 {
            let answer = gateway.send(0, &request);
            prop_assert!([200, 429].contains(&answer.status));
        }
    }
}
