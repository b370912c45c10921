//! Allocations, loans and statements, and the metrics of their cycles.

use super::{Answer, By, Shared};
use crate::allocation::{
    AllocationsQuery, AllocationsView, CycleView, LoansQuery, LoansView, PoolView, StatementView,
    TuningView,
};
use crate::plane::CycleCounts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt::Write;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    /// Calendar month in UTC, as `2026-11`; the running one without it.
    #[serde(default)]
    month: Option<String>,
}

pub(super) async fn list(
    State(server): Shared,
    query: Result<Query<AllocationsQuery>, QueryRejection>,
) -> Answer<AllocationsView> {
    let Query(query) = query?;
    server.plane.allocations(&query).map(Json)
}

pub(super) async fn loans(
    State(server): Shared,
    query: Result<Query<LoansQuery>, QueryRejection>,
) -> Answer<LoansView> {
    let Query(query) = query?;
    server.plane.loans(&query).map(Json)
}

pub(super) async fn statement(
    State(server): Shared,
    key: Result<Path<String>, PathRejection>,
    period: Result<Query<Period>, QueryRejection>,
) -> Answer<StatementView> {
    let (Path(key), Query(period)) = (key?, period?);
    let statement = server.plane.statement(&key, period.month.as_deref());
    statement.map(Json)
}

pub(super) async fn tuning(State(server): Shared) -> Answer<TuningView> {
    Ok(Json(server.plane.tuning()))
}

pub(super) async fn run(State(server): Shared, Extension(by): By) -> Answer<CycleView> {
    server.plane.allocate_now(&by).await.map(Json)
}

/// Of cycles. Names of resources have no quotes.
pub(super) fn write_metrics(text: &mut String, counts: &CycleCounts) {
    let name = "forebay_sharing_cycles_total";
    let _ = write!(
        text,
        "# HELP {name} Allocations that were made, by why\n# TYPE {name} counter\n"
    );
    for (cause, count) in &counts.by_cause {
        let _ = writeln!(text, "{name}{{cause=\"{cause}\"}} {count}");
    }
    for (name, help, value) in [
        (
            "forebay_sharing_cycle_seconds",
            "How long the last allocation took to make",
            counts.took_s,
        ),
        (
            "forebay_sharing_customers",
            "Customers in the allocation in force",
            counts.book.size() as f64,
        ),
    ] {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    }
    let tuned = counts.book.tuned();
    for (name, kind, help, value) in [
        (
            "forebay_sharing_tuning_decisions_total",
            "counter",
            "Cycles whose values tuning has chosen, ever",
            tuned.decisions as f64,
        ),
        (
            "forebay_sharing_tuning_explored_total",
            "counter",
            "Those of them that went by other values than the policy's",
            tuned.explored as f64,
        ),
        (
            "forebay_sharing_tuning_fallbacks_total",
            "counter",
            "Those of them in which a guarantee was missed",
            tuned.fallbacks as f64,
        ),
        (
            "forebay_sharing_tuning_paused_until_seconds",
            "gauge",
            "Until when nothing is explored for it, in Unix seconds; 0 before the first time",
            tuned.paused_until_unix_ms as f64 / 1e3,
        ),
    ] {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    type Value = fn(&PoolView) -> f64;
    let pools = counts.book.pools();
    let gauges: [(&str, &str, Value); 6] = [
        (
            "forebay_sharing_capacity_per_s",
            "What of a capacity is there, in tokens per second",
            |pool| pool.capacity_per_s,
        ),
        (
            "forebay_sharing_allocated_per_s",
            "What customers have a claim on",
            |pool| pool.allocated_per_s,
        ),
        (
            "forebay_sharing_reserve_per_s",
            "What is nobody's until it is asked for",
            |pool| pool.reserve_per_s,
        ),
        (
            "forebay_sharing_lent_per_s",
            "What of guarantees is lent",
            |pool| pool.lent_per_s,
        ),
        (
            "forebay_sharing_borrowed_per_s",
            "What customers have beyond the rate that they have bought",
            |pool| pool.beyond_rate_per_s,
        ),
        (
            "forebay_sharing_unmet_per_s",
            "What customers may need and do not have",
            |pool| pool.unmet_per_s,
        ),
    ];
    for (name, help, value) in gauges {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for pool in &pools {
            let _ = writeln!(
                text,
                "{name}{{resource=\"{}\"}} {}",
                pool.resource,
                value(pool)
            );
        }
    }
}
