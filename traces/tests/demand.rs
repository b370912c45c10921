//! When a file has single requests, and when it counts them.
#![allow(clippy::unwrap_used, clippy::panic)] // A step of a test that fails must stop the test.

use std::fs;

use forebay_traces::{Demand, Event, TraceError, read_demand};

fn demand(name: &str, text: &str) -> Result<Demand, TraceError> {
    let folder = std::env::temp_dir().join(format!("forebay-demand-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("trace.csv");
    fs::write(&path, text).unwrap();
    let demand = read_demand(&path);
    fs::remove_dir_all(&folder).unwrap();
    demand
}

#[test]
fn a_row_is_a_request_where_nothing_counts_them() {
    let text = "tenant,timestamp_utc,tokens_in\n\
        b,2025-04-02T02:00:01.000250Z,5\n\
        a,2025-04-02T02:00:00.5Z,9\n\
        b,2025-04-02T02:00:00Z,1\n";
    let Demand::Events(events) = demand("rows", text).unwrap() else {
        panic!("steps");
    };
    assert_eq!(events.tenants, ["b", "a"]);
    let starts_ns = 1_743_559_200_000_000_000;
    let at = |ns: i64, tenant| Event {
        at_ns: starts_ns + ns,
        tenant,
    };
    assert_eq!(
        events.events,
        [at(0, 0), at(500_000_000, 1), at(1_000_250_000, 0)]
    );
}

#[test]
fn a_row_is_a_request_where_each_is_counted_as_one() {
    let text = "tenant,timestamp_utc,requests\na,10,1\na,10,1\na,11,1\n";
    let Demand::Events(events) = demand("ones", text).unwrap() else {
        panic!("steps");
    };
    assert_eq!(events.events.len(), 3);
}

#[test]
fn rows_of_a_step_are_added_up_where_there_is_a_count() {
    let text = "tenant,timestamp_utc,requests\na,60,1\na,120,2\na,120,3\nb,180,4\na,180,0\n";
    let Demand::Steps(series) = demand("counts", text).unwrap() else {
        panic!("requests");
    };
    let values: Vec<_> = series
        .iter()
        .map(|one| (one.tenant.as_str(), one.start_s, one.values.clone()))
        .collect();
    assert_eq!(
        values,
        [("a", 60, vec![1.0, 5.0, 0.0]), ("b", 180, vec![4.0])]
    );
}

#[test]
fn a_file_without_rows_is_named() {
    let error = demand("empty", "tenant,timestamp_utc\n").unwrap_err();
    assert!(error.to_string().contains("has no rows"), "{error}");
}
