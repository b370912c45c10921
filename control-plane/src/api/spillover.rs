//! Spillover, page by page, and its metrics.

use super::{Answer, Shared};
use crate::plane::Plane;
use crate::risk::{LinksQuery, LinksView, PoolCounts, SpilloverQuery, SpilloverView};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use std::fmt::Write;

pub(super) async fn list(
    State(server): Shared,
    query: Result<Query<SpilloverQuery>, QueryRejection>,
) -> Answer<SpilloverView> {
    let Query(query) = query?;
    server.plane.spillover(&query).map(Json)
}

pub(super) async fn links(
    State(server): Shared,
    query: Result<Query<LinksQuery>, QueryRejection>,
) -> Answer<LinksView> {
    let Query(query) = query?;
    server.plane.spillover_links(&query).map(Json)
}

/// Of studies and scores. Names of resources have no quotes.
pub(super) fn write_metrics(text: &mut String, plane: &Plane) {
    type Value = fn(&PoolCounts) -> f64;
    let counts = plane.spillover_counts();
    for (name, help, value) in [
        (
            "forebay_spillover_study_seconds",
            "How long the last study of the usage history took",
            counts.study_s,
        ),
        (
            "forebay_spillover_series",
            "Series in that study",
            counts.series as f64,
        ),
        (
            "forebay_spillover_score_seconds",
            "How long the last scores of pairs took to make",
            counts.score_s,
        ),
    ] {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    }
    let gauges: [(&str, &str, Value); 4] = [
        (
            "forebay_spillover_links",
            "Ordered pairs of customers that rise together, or one after the other, beyond chance",
            |pool| pool.links as f64,
        ),
        (
            "forebay_spillover_pairs",
            "Pairs of customers with a score above 0, at most 1000",
            |pool| pool.pairs as f64,
        ),
        (
            "forebay_spillover_score_max",
            "The largest score of a pair",
            |pool| pool.score_max,
        ),
        (
            "forebay_spillover_headroom_per_s",
            "What cycles are asked to give as headroom, in tokens per second",
            |pool| pool.headroom_per_s,
        ),
    ];
    for (name, help, value) in gauges {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        for pool in &counts.pools {
            let resource = &pool.resource;
            let _ = writeln!(text, "{name}{{resource=\"{resource}\"}} {}", value(pool));
        }
    }
}
