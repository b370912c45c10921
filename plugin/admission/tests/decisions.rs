//! Verdicts and what the client sees of them, by table.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a failed step must stop the test

mod gateway;

use gateway::{BY_KEY, Gateway, Request, SECOND_US, TEN_PER_S, config};

const ALL_HEADERS: &str = r#""headers": {"limit": true, "remaining": true, "reset": true},"#;
const ACCESS_LOG: &str = r#""access_log": {"verdict": true, "customer": true},"#;

fn burst_of(gateway: &mut Gateway, request: &Request) -> usize {
    (0..1_000)
        .take_while(|_| gateway.send(0, request).admitted())
        .count()
}

#[test]
fn a_burst_is_admitted_and_then_the_rate() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let acme = Request::of("acme");
    assert_eq!(burst_of(&mut gateway, &acme), 5);
    for _ in 0..50 {
        gateway.advance_ms(100);
        gateway.tick_all();
        assert_eq!(burst_of(&mut gateway, &acme), 1);
    }
    assert_eq!(burst_of(&mut gateway, &Request::of("globex")), 5);
}

#[test]
fn a_request_that_the_chunk_can_pay_makes_one_host_call() {
    let policy = TEN_PER_S.replace("10, \"burst\": 5", "100000, \"burst\": 100000");
    let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 1);
    let acme = Request::of("acme");
    for _ in 0..100 {
        gateway.advance_ms(1);
        assert!(gateway.send(0, &acme).admitted());
    }
    let before = gateway.world.calls;
    assert!(gateway.send(0, &acme).admitted());
    assert_eq!(gateway.world.calls - before, 1);
    // And one for the clock now and then.
    gateway.advance_ms(1_000);
    gateway.tick(0);
    for _ in 0..3 {
        assert!(gateway.send(0, &acme).admitted());
    }
    let before = gateway.world.calls;
    for _ in 0..100 {
        assert!(gateway.send(0, &acme).admitted());
    }
    assert!((101..=104).contains(&(gateway.world.calls - before)));
}

#[test]
fn a_flood_of_denials_changes_nothing_in_shared_data() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let acme = Request::of("acme");
    burst_of(&mut gateway, &acme);
    let before = gateway.world.sets;
    for _ in 0..1_000 {
        assert!(!gateway.send(0, &acme).admitted());
    }
    assert!(gateway.world.sets - before <= 1);
}

#[test]
fn a_denial_says_when_to_come_back_and_that_is_true() {
    for (rate, burst, wait_s) in [("10", 5, 1), ("0.5", 1, 2), ("0.1", 3, 10)] {
        let policy = TEN_PER_S.replace("10, \"burst\": 5", &format!("{rate}, \"burst\": {burst}"));
        let mut gateway = Gateway::new(&config(BY_KEY, "", &policy), 1);
        let acme = Request::of("acme");
        assert_eq!(burst_of(&mut gateway, &acme), burst);
        let denied = gateway.send(0, &acme);
        assert_eq!(
            denied.header("retry-after"),
            Some(wait_s.to_string().as_str()),
            "{rate}/s"
        );
        gateway.advance_ms(wait_s * 1_000);
        assert!(gateway.send(0, &acme).admitted(), "{rate}/s");
    }
}

#[test]
fn headers_and_denial_are_as_configured() {
    let more = r#""headers": {"limit": true, "remaining": true, "reset": true},
        "denial": {"status": 503, "body": "{}", "content_type": "application/json", "grpc_status": 14},"#;
    let mut gateway = Gateway::new(&config(BY_KEY, more, TEN_PER_S), 1);
    let acme = Request::of("acme");
    let first = gateway.send(0, &acme);
    assert_eq!(first.header("x-ratelimit-limit"), Some("5, 5;w=1"));
    assert_eq!(first.header("x-ratelimit-remaining"), Some("4"));
    assert_eq!(first.header("x-ratelimit-reset"), Some("1"));
    assert_eq!(first.header("retry-after"), None);
    burst_of(&mut gateway, &acme);
    let denied = gateway.send(0, &acme);
    assert_eq!(
        (denied.status, denied.grpc_status, denied.details.as_str()),
        (503, Some(14), "forebay_denied_contract")
    );
    assert_eq!(
        (denied.body.as_slice(), denied.header("content-type")),
        (&b"{}"[..], Some("application/json"))
    );
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
}

#[test]
fn headers_that_are_off_are_not_sent() {
    let more = r#""headers": {"retry_after": false},"#;
    let mut gateway = Gateway::new(&config(BY_KEY, more, TEN_PER_S), 1);
    let acme = Request::of("acme");
    assert!(gateway.send(0, &acme).headers.is_empty());
    burst_of(&mut gateway, &acme);
    let denied = gateway.send(0, &acme);
    assert_eq!(denied.headers.keys().collect::<Vec<_>>(), ["content-type"]);
}

#[test]
fn a_key_is_found_or_its_absence_decides() {
    let header = r#"{"header": {"name": "x-key", "trusted": true}}"#;
    let skipping = r#"{"header": {"name": "x-key", "trusted": true, "missing": "skip"}}"#;
    let property = r#"{"property": {"path": ["metadata", "jwt", "sub"]}}"#;
    let address = r#"{"source_address": {"prefix_len_v4": 24}}"#;
    let long = "k".repeat(1_025);
    let longest = "k".repeat(1_024);
    let megabyte = vec![b'k'; 1 << 20];
    let none = Request::default();
    for (name, key, request, admitted, reason) in [
        ("header", header, Request::of("acme"), true, ""),
        (
            "header that is not UTF-8",
            header,
            none.clone().header("x-key", b"\xff\xfe"),
            true,
            "",
        ),
        ("the longest key", header, Request::of(&longest), true, ""),
        (
            "a key too long",
            header,
            Request::of(&long),
            false,
            "key_too_long",
        ),
        (
            "a key of 1 MB",
            header,
            none.clone().header("x-key", &megabyte),
            false,
            "key_too_long",
        ),
        ("no header", header, none.clone(), false, "key_missing"),
        (
            "an empty header",
            header,
            Request::of(""),
            false,
            "key_missing",
        ),
        ("no header, skipped", skipping, none.clone(), true, ""),
        (
            "property",
            property,
            none.clone().property("metadata.jwt.sub", "acme"),
            true,
            "",
        ),
        (
            "property too long",
            property,
            none.clone().property("metadata.jwt.sub", &megabyte),
            false,
            "key_too_long",
        ),
        (
            "no property",
            property,
            Request::of("acme"),
            false,
            "key_missing",
        ),
        (
            "address",
            address,
            none.clone().property("source.address", "10.1.2.3:80"),
            true,
            "",
        ),
        ("no address", address, none.clone(), false, "key_missing"),
        (
            "no IP address",
            address,
            none.clone().property("source.address", "/a.sock"),
            false,
            "key_missing",
        ),
        ("constant", r#"{"constant": "all"}"#, none.clone(), true, ""),
    ] {
        let rule = BY_KEY.replace(header, key);
        let mut gateway = Gateway::new(&config(&rule, ACCESS_LOG, TEN_PER_S), 1);
        let answer = gateway.send(0, &request);
        assert_eq!(answer.admitted(), admitted, "{name}");
        if !admitted {
            assert_eq!(answer.details, "forebay_denied_unknown", "{name}");
            assert_eq!(answer.state["forebay.verdict"], "denied:unknown", "{name}");
            assert_eq!(
                gateway.metric(&format!("forebay.bad_inputs.kind={reason}")),
                1,
                "{name}"
            );
        }
    }
}

#[test]
fn clients_of_one_network_share_a_bucket() {
    let rule = BY_KEY.replace(
        r#"{"header": {"name": "x-key", "trusted": true}}"#,
        r#"{"source_address": {"prefix_len_v4": 24}}"#,
    );
    let mut gateway = Gateway::new(&config(&rule, "", TEN_PER_S), 1);
    let from = |address: &str| Request::default().property("source.address", address);
    assert_eq!(burst_of(&mut gateway, &from("10.1.2.3:80")), 5);
    assert!(!gateway.send(0, &from("10.1.2.200:4000")).admitted());
    assert!(gateway.send(0, &from("10.1.3.3:80")).admitted());
}

#[test]
fn a_cost_is_what_the_trusted_header_says_within_bounds() {
    let rule = BY_KEY.replace(
        r#"{"resource": "requests"}"#,
        r#"{"resource": "requests", "cost": {"header": {"name": "x-cost", "trusted": true, "default": 2, "max": 4}}}"#,
    );
    for (cost, taken, counted) in [
        (None, 2, None),
        (Some(&b"0"[..]), 0, None),
        (Some(b"3"), 3, None),
        (Some(b"2.5"), 3, None),
        (Some(b"99999999999999999999"), 4, Some("cost_above_max")),
        (Some(b"-1"), 2, Some("cost_negative")),
        (Some(b"many"), 2, Some("cost_not_a_number")),
        (Some(b"\xff"), 2, Some("cost_not_a_number")),
        (Some(b""), 2, Some("cost_not_a_number")),
    ] {
        let mut gateway = Gateway::new(&config(&rule, ALL_HEADERS, TEN_PER_S), 1);
        let mut request = Request::of("acme");
        if let Some(cost) = cost {
            request = request.header("x-cost", cost);
        }
        let answer = gateway.send(0, &request);
        assert!(answer.admitted());
        assert_eq!(
            answer.header("x-ratelimit-remaining"),
            Some((5 - taken).to_string().as_str()),
            "{cost:?}"
        );
        if let Some(counted) = counted {
            assert_eq!(
                gateway.metric(&format!("forebay.bad_inputs.kind={counted}")),
                1,
                "{cost:?}"
            );
        }
    }
}

const SETTLING: &str = r#"{"name": "api", "key": {"header": {"name": "x-key", "trusted": true}}, "charges":
    [{"resource": "requests", "cost": {"settle": {"estimate": 2, "response_header": "x-used", "max": 4}}}]}"#;

#[test]
fn an_estimate_is_settled_by_the_response_and_the_client_does_not_see_how() {
    for (used, charged, counted) in [
        (None, 2, Some("settle_missing")),
        (Some(&b"2"[..]), 2, None),
        (Some(b"0"), 0, None),
        (Some(b"1"), 1, None),
        (Some(b"4"), 4, None),
        (Some(b"1000"), 4, Some("settle_above_max")),
        (Some(b"-3"), 2, Some("settle_negative")),
        (Some(b"\xff"), 2, Some("settle_not_a_number")),
    ] {
        let policy = TEN_PER_S.replace("10, \"burst\": 5", "0, \"burst\": 10");
        let mut gateway = Gateway::new(&config(SETTLING, ALL_HEADERS, &policy), 1);
        let mut request = Request::of("acme");
        if let Some(used) = used {
            request = request.response("x-used", used);
        }
        let answer = gateway.send(0, &request);
        assert!(answer.admitted());
        assert_eq!(answer.header("x-used"), None, "{used:?}");
        // Whatever lies in the chunk goes back, and then the balance is what was not charged.
        gateway.advance_ms(3_000);
        gateway.tick_all();
        let next = gateway.send(0, &Request::of("acme").response("x-used", "2"));
        assert_eq!(
            next.header("x-ratelimit-remaining"),
            Some((10 - charged - 2).to_string().as_str()),
            "{used:?}"
        );
        if let Some(counted) = counted {
            assert_eq!(
                gateway.metric(&format!("forebay.bad_inputs.kind={counted}")),
                1,
                "{used:?}"
            );
        }
    }
}

#[test]
fn a_difference_is_charged_into_debt_and_admission_stops_until_it_is_repaid() {
    let policy = TEN_PER_S.replace("10, \"burst\": 5", "1, \"burst\": 2");
    let mut gateway = Gateway::new(&config(SETTLING, "", &policy), 1);
    let request = Request::of("acme").response("x-used", "4");
    assert!(gateway.send(0, &request).admitted());
    // Level 2 - 4 = -2: the next estimate of 2 fits after four seconds.
    let denied = gateway.send(0, &request);
    assert_eq!(denied.header("retry-after"), Some("4"));
    gateway.advance_ms(3_900);
    gateway.tick_all();
    assert!(!gateway.send(0, &request).admitted());
    gateway.advance_ms(200);
    gateway.tick_all();
    assert!(gateway.send(0, &request).admitted());
}

#[test]
fn a_response_settles_once_and_only_its_own_request() {
    let policy = TEN_PER_S.replace("10, \"burst\": 5", "0, \"burst\": 10");
    let mut gateway = Gateway::new(&config(SETTLING, ALL_HEADERS, &policy), 1);
    let request = Request::of("acme").response("x-used", "0");
    let (first, mut answer) = gateway.open(0, &request);
    let (second, mut other) = gateway.open(0, &request);
    gateway.close(0, second, &request, &mut other);
    gateway.close(0, second, &request, &mut other);
    gateway.close(0, 999, &request, &mut other);
    gateway.close(0, first, &request, &mut answer);
    gateway.advance_ms(3_000);
    gateway.tick_all();
    assert_eq!(
        gateway.send(0, &request).header("x-ratelimit-remaining"),
        Some("8")
    );
}

const TWO_RESOURCES: &str = r#""unknown": {"action": "default_contract", "contract": "basic"},
    "resources": {"requests": {}, "units": {}},
    "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 0, "burst": 10}, "units": {"rate_per_s": 0, "burst": 3}}}}"#;

#[test]
fn a_request_on_two_resources_takes_from_both_or_from_none() {
    let rule = BY_KEY.replace(
        r#"[{"resource": "requests"}]"#,
        r#"[{"resource": "requests"}, {"resource": "units"}]"#,
    );
    let mut gateway = Gateway::new(&config(&rule, ALL_HEADERS, TWO_RESOURCES), 1);
    let acme = Request::of("acme");
    assert_eq!(burst_of(&mut gateway, &acme), 3);
    let denied = gateway.send(0, &acme);
    assert_eq!(
        denied.header("x-ratelimit-limit"),
        Some("3"),
        "no window: it never refills"
    );
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(
        gateway.metric("forebay.tokens.kind=admitted.resource=requests"),
        3
    );
}

#[test]
fn two_customers_of_one_request_pay_both_or_none() {
    let by_tenant = BY_KEY
        .replace("api", "tenant")
        .replace("x-key", "x-tenant")
        .replace("requests", "units");
    let rules = format!("{BY_KEY},{by_tenant}");
    let mut gateway = Gateway::new(&config(&rules, ALL_HEADERS, TWO_RESOURCES), 1);
    let request = Request::of("acme").header("x-tenant", "t1");
    for _ in 0..3 {
        assert!(gateway.send(0, &request).admitted());
    }
    for _ in 0..20 {
        assert!(!gateway.send(0, &request).admitted());
    }
    gateway.advance_ms(3_000);
    gateway.tick_all();
    // Seven requests are left, none of which the refused ones have taken.
    let other = Request::of("acme").header("x-tenant", "t2");
    assert_eq!(
        gateway.send(0, &other).header("x-ratelimit-remaining"),
        Some("2")
    );
    let third = Request::of("acme").header("x-tenant", "t3");
    for _ in 0..2 {
        assert!(gateway.send(0, &other).admitted());
    }
    for _ in 0..3 {
        assert!(gateway.send(0, &third).admitted());
    }
    assert!(
        gateway
            .send(0, &Request::of("acme").header("x-tenant", "t4"))
            .admitted()
    );
    assert!(
        !gateway
            .send(0, &Request::of("acme").header("x-tenant", "t5"))
            .admitted()
    );
}

#[test]
fn what_was_borrowed_for_an_estimate_does_not_come_back_as_contract_tokens() {
    let policy = TEN_PER_S.replace(
        "10, \"burst\": 5",
        "0, \"burst\": 64, \"ceiling_per_s\": 0.001, \"borrow_limit\": 4",
    );
    let mut gateway = Gateway::new(&config(SETTLING, ACCESS_LOG, &policy), 1);
    let mut verdict = |key, used| {
        let answer = gateway.send(0, &Request::of(key).response("x-used", used));
        gateway.advance_ms(1);
        answer.state["forebay.verdict"].clone()
    };
    for _ in 0..32 {
        assert_eq!(verdict("acme", "2"), "standard");
    }
    for _ in 0..10 {
        assert_eq!(verdict("acme", "0"), "borrowed");
        for _ in 0..10 {
            assert_eq!(verdict("globex", "0"), "standard");
        }
    }
    // What the contract has paid is with the contract.
    for _ in 0..32 {
        assert_eq!(verdict("globex", "2"), "standard");
    }
    for expected in ["borrowed", "borrowed", "denied:contract"] {
        assert_eq!(verdict("acme", "2"), expected);
    }
}

#[test]
fn what_was_borrowed_for_a_request_that_another_customer_refused_comes_back_to_the_allowance() {
    let by_tenant = BY_KEY
        .replace("api", "tenant")
        .replace("x-key", "x-tenant")
        .replace("requests", "units");
    let rules = format!("{BY_KEY},{by_tenant}");
    let policy = TWO_RESOURCES
        .replace(
            "\"burst\": 10",
            "\"burst\": 1, \"ceiling_per_s\": 0.001, \"borrow_limit\": 2",
        )
        .replace("\"burst\": 3", "\"burst\": 1");
    let mut gateway = Gateway::new(&config(&rules, ACCESS_LOG, &policy), 1);
    let request = |tenant| Request::of("acme").header("x-tenant", tenant);
    assert!(gateway.send(0, &request("t1")).admitted());
    for _ in 0..20 {
        assert!(!gateway.send(0, &request("t1")).admitted());
    }
    for (tenant, verdict) in [
        ("t2", "borrowed"),
        ("t3", "borrowed"),
        ("t4", "denied:contract"),
    ] {
        gateway.advance_ms(3_000);
        gateway.tick_all();
        let answer = gateway.send(0, &request(tenant));
        assert_eq!(answer.state["forebay.verdict"], verdict, "{tenant}");
    }
}

#[test]
fn the_first_matching_rule_charges_a_resource_and_unmatched_requests_pass() {
    let special = r#"{"name": "special", "match": {"path_prefix": "/v1/", "methods": ["POST", "PUT"], "headers":
        [{"name": "x-kind", "prefix": "bulk"}, {"name": "x-debug", "present": false}]},
        "key": {"constant": "special"}, "charges": [{"resource": "requests", "cost": {"constant": 5}}]}"#;
    let general = BY_KEY.replace(r#""key""#, r#""match": {"path_prefix": "/v1/"}, "key""#);
    let mut gateway = Gateway::new(
        &config(&format!("{special},{general}"), ALL_HEADERS, TEN_PER_S),
        1,
    );
    let request = |method: &str, path: &str| {
        Request::of("acme")
            .header(":method", method)
            .header(":path", path)
    };
    for (request, remaining) in [
        (
            request("POST", "/v1/a").header("x-kind", "bulk-9"),
            Some("0"),
        ),
        (
            request("GET", "/v1/a").header("x-kind", "bulk-9"),
            Some("4"),
        ),
        (request("POST", "/v1/a").header("x-kind", "b"), Some("3")),
        (
            request("PUT", "/v1/a")
                .header("x-kind", "bulk")
                .header("x-debug", ""),
            Some("2"),
        ),
        (request("POST", "/v2/a").header("x-kind", "bulk"), None),
        (request("POST", "/v1/a"), Some("1")),
    ] {
        assert_eq!(
            gateway.send(0, &request).header("x-ratelimit-remaining"),
            remaining
        );
    }
    assert_eq!(gateway.metric("forebay.events.kind=unmatched"), 1);
    assert_eq!(
        gateway.metric("forebay.decisions.rule=special.verdict=standard"),
        1
    );
    assert_eq!(
        gateway.metric("forebay.decisions.rule=api.verdict=standard"),
        4
    );
}

#[test]
fn dry_run_counts_and_tells_but_admits() {
    let mut gateway = Gateway::new(
        &config(
            BY_KEY,
            ACCESS_LOG,
            &format!(r#""dry_run": true, {TEN_PER_S}"#),
        ),
        1,
    );
    let acme = Request::of("acme");
    for _ in 0..5 {
        assert_eq!(gateway.send(0, &acme).state["forebay.verdict"], "standard");
    }
    for _ in 0..3 {
        let answer = gateway.send(0, &acme);
        assert!(answer.admitted());
        assert_eq!(answer.state["forebay.verdict"], "dry_run:contract");
    }
    assert!(gateway.send(0, &Request::default()).admitted());
    assert_eq!(
        gateway.metric("forebay.decisions.rule=api.verdict=dry_run.reason=contract"),
        3
    );
    assert_eq!(
        gateway.metric("forebay.decisions.rule=api.verdict=dry_run.reason=unknown"),
        1
    );
}

#[test]
fn listed_customers_get_what_the_policy_says() {
    let policy = r#""resources": {"requests": {}}, "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 10, "burst": 5}}}},
        "customers": [{"key": "acme", "contract": "basic"}, {"key": "free", "contract": "basic", "exempt": true},
            {"key": "bad", "contract": "basic", "banned": true}, {"key": "late", "contract": "basic", "ban_until_unix_s": 1700001060},
            {"key": "cold", "contract": "basic", "frozen": true}]"#;
    let mut gateway = Gateway::new(&config(BY_KEY, ACCESS_LOG, policy), 1);
    let send = |gateway: &mut Gateway, key: &str| gateway.send(0, &Request::of(key));
    assert_eq!(burst_of(&mut gateway, &Request::of("acme")), 5);
    assert_eq!(burst_of(&mut gateway, &Request::of("free")), 1_000);
    assert_eq!(
        send(&mut gateway, "bad").state["forebay.verdict"],
        "denied:banned"
    );
    assert_eq!(send(&mut gateway, "bad").header("retry-after"), None);
    assert_eq!(
        send(&mut gateway, "cold").state["forebay.verdict"],
        "denied:banned"
    );
    assert_eq!(
        send(&mut gateway, "stranger").state["forebay.verdict"],
        "denied:unknown"
    );
    // The clock stood at 1 700 001 000 s when the gateway started.
    assert_eq!(send(&mut gateway, "late").header("retry-after"), Some("60"));
    gateway.advance_ms(60_000);
    gateway.tick_all();
    assert!(send(&mut gateway, "late").admitted());
}

#[test]
fn strangers_share_a_bucket_by_network_when_the_policy_says_commons() {
    let policy = r#""unknown": {"action": "commons", "contract": "basic", "prefix_len_v4": 24}, "resources": {"requests": {}},
        "contracts": {"basic": {"limits": {"requests": {"rate_per_s": 10, "burst": 5}}}}, "customers": [{"key": "acme", "contract": "basic"}]"#;
    let mut gateway = Gateway::new(&config(BY_KEY, ALL_HEADERS, policy), 1);
    let from = |key: &str, address: &str| Request::of(key).property("source.address", address);
    let admitted = (0..100)
        .filter(|n| {
            gateway
                .send(0, &from(&format!("made-up-{n}"), "10.0.0.9:1"))
                .admitted()
        })
        .count();
    assert_eq!(admitted, 5);
    assert!(gateway.send(0, &from("made-up", "10.0.1.9:1")).admitted());
    assert_eq!(
        gateway
            .send(0, &from("acme", "10.0.0.9:1"))
            .header("x-ratelimit-remaining"),
        Some("4")
    );
    // Those without an address share one as well.
    let admitted = (0..100)
        .filter(|n| {
            gateway
                .send(0, &Request::of(&format!("made-up-{n}")))
                .admitted()
        })
        .count();
    assert_eq!(admitted, 5);
}

#[test]
fn raw_keys_are_neither_logged_nor_left_for_others() {
    let mut gateway = Gateway::new(&config(BY_KEY, ACCESS_LOG, TEN_PER_S), 1);
    let key = "a-very-secret-key";
    let mut texts = Vec::new();
    for _ in 0..7 {
        let answer = gateway.send(0, &Request::of(key));
        assert_eq!(answer.state["forebay.customer"].len(), 32);
        texts.extend(answer.state.into_values());
        texts.extend(answer.headers.into_values());
        texts.push(String::from_utf8_lossy(&answer.body).into_owned());
    }
    texts.append(&mut gateway.world.logs);
    texts.extend(gateway.world.metrics.keys().cloned());
    assert!(!texts.iter().any(|text| text.contains(key)), "{texts:?}");
    assert!(
        !gateway
            .world
            .data
            .values()
            .any(|(_, value)| value.windows(key.len()).any(|part| part == key.as_bytes()))
    );
}

#[test]
fn a_ledger_that_cannot_be_reached_denies_and_recovers() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    gateway.world.data_fails = true;
    assert_eq!(
        gateway.send(0, &Request::of("acme")).header("retry-after"),
        Some("1")
    );
    gateway.tick_all();
    gateway.world.data_fails = false;
    assert!(gateway.send(0, &Request::of("acme")).admitted());
    gateway.world.lost_races = 1_000;
    assert!(!gateway.send(0, &Request::of("globex")).admitted());
    gateway.world.lost_races = 3;
    assert!(gateway.send(0, &Request::of("globex")).admitted());
    assert_eq!(gateway.metric("forebay.events.kind=draw_failed"), 2);
}

#[test]
fn a_clock_that_goes_back_or_jumps_gives_no_tokens_away() {
    let mut gateway = Gateway::new(&config(BY_KEY, "", TEN_PER_S), 1);
    let acme = Request::of("acme");
    burst_of(&mut gateway, &acme);
    gateway.world.now_us -= 100 * SECOND_US;
    gateway.tick_all();
    assert_eq!(burst_of(&mut gateway, &acme), 0);
    gateway.world.now_us += 1_000_000 * SECOND_US;
    gateway.tick_all();
    assert_eq!(burst_of(&mut gateway, &acme), 5);
}
