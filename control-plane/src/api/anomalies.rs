//! Customers that behave as they never did, and the metrics of the watch.

use super::{Answer, Shared};
use crate::anomaly::{AnomaliesQuery, AnomaliesView, Book};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use forebay_anomaly::Kind;
use std::fmt::Write;

pub(super) async fn list(
    State(server): Shared,
    query: Result<Query<AnomaliesQuery>, QueryRejection>,
) -> Answer<AnomaliesView> {
    let Query(query) = query?;
    server.plane.anomalies(&query).map(Json)
}

/// Aggregates only: who it is, is for whoever may ask.
pub(super) fn write_metrics(text: &mut String, book: &Book) {
    let counts = &book.counts;
    let kinds = [("unusual", Kind::Unusual), ("crowd", Kind::Crowd)];
    let name = "forebay_anomaly_flags";
    let _ = write!(
        text,
        "# HELP {name} Series (of a customer and a resource) that are flagged\n# TYPE {name} gauge\n"
    );
    for (label, kind) in kinds {
        let flags = book.flags.iter().filter(|flag| flag.kind == kind).count();
        let _ = writeln!(text, "{name}{{kind=\"{label}\"}} {flags}");
    }
    let name = "forebay_anomaly_flags_total";
    let _ = write!(
        text,
        "# HELP {name} Flags that began\n# TYPE {name} counter\n"
    );
    for ((label, _), begun) in kinds.iter().zip(counts.begun) {
        let _ = writeln!(text, "{name}{{kind=\"{label}\"}} {begun}");
    }
    for (name, help, value) in [
        (
            "forebay_anomaly_capped_customers",
            "Customers that are allocated nothing beyond their contract's rate",
            book.capped().len() as f64,
        ),
        (
            "forebay_anomaly_watched_series",
            "Series that are watched for unusual behaviour",
            counts.watched as f64,
        ),
        (
            "forebay_anomaly_learning_series",
            "Those among them that are not judged yet",
            counts.learning as f64,
        ),
        (
            "forebay_anomaly_left_out_series",
            "Series that there was no room for in the last step",
            counts.left_out as f64,
        ),
        (
            "forebay_anomaly_step_seconds",
            "How long the last step took to judge",
            counts.took_s,
        ),
    ] {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    }
}
