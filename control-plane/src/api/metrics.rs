//! `GET /metrics`: the Prometheus text format, written from the state at the moment of the scrape.
//!
//! Counters of a metrics library would be a second set of books beside the state. Aggregates only, no customers: the route is
//! open, so that scrapers need no token.

use super::{Shared, allocations, anomalies, spillover};
use crate::alertmanager::Notified;
use crate::covariates::{Dropped, TakenCounts};
use crate::forecasts::{Book, Tally};
use crate::plane::{ChallengerView, GatewayView, RunningModelView, StatusView};
use crate::prometheus::{Counts, DropReason};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use forebay_alerts::Kind as AlertKind;
use std::fmt::Write;

enum Kind {
    Counter,
    Gauge,
}

type Metric<View> = (&'static str, Kind, &'static str, fn(&View) -> f64);

/// Of the whole server.
#[allow(clippy::cast_precision_loss)] // counts for charts
const METRICS: [Metric<StatusView>; 13] = [
    (
        "forebay_uptime_seconds",
        Kind::Gauge,
        "Seconds since the server started",
        |view| view.uptime_s as f64,
    ),
    (
        "forebay_store_epoch",
        Kind::Gauge,
        "Epoch of the store; grows with each unclean start",
        |view| view.store_epoch as f64,
    ),
    (
        "forebay_policy_version",
        Kind::Gauge,
        "Policy version in force",
        |view| view.policy_version as f64,
    ),
    (
        "forebay_policy_customers",
        Kind::Gauge,
        "Customers of the policy",
        |view| view.customers as f64,
    ),
    (
        "forebay_customers_frozen",
        Kind::Gauge,
        "Customers that were frozen by hand",
        |view| view.customers_frozen as f64,
    ),
    (
        "forebay_customers_banned",
        Kind::Gauge,
        "Customers that were banned by hand",
        |view| view.customers_banned as f64,
    ),
    (
        "forebay_customers_exempt",
        Kind::Gauge,
        "Customers that were exempted by hand",
        |view| view.customers_exempt as f64,
    ),
    (
        "forebay_other_customers",
        Kind::Gauge,
        "Customers outside the policy with an account",
        |view| view.other_customers as f64,
    ),
    (
        "forebay_other_customers_dropped_total",
        Kind::Counter,
        "Reports dropped for want of room",
        |view| view.other_customers_dropped as f64,
    ),
    (
        "forebay_syncs_total",
        Kind::Counter,
        "Syncs answered",
        |view| view.syncs as f64,
    ),
    (
        "forebay_syncs_refused_total",
        Kind::Counter,
        "Syncs refused",
        |view| view.syncs_refused as f64,
    ),
    (
        "forebay_model_epoch",
        Kind::Gauge,
        "Model epoch released",
        |view| view.model_epoch as f64,
    ),
    (
        "forebay_gateways",
        Kind::Gauge,
        "Gateways that may spend what they were granted",
        |view| view.gateways.len() as f64,
    ),
];

/// Of each gateway, under its name.
#[allow(clippy::cast_precision_loss)] // counts for charts
const GATEWAY_METRICS: [Metric<GatewayView>; 8] = [
    (
        "forebay_gateway_live",
        Kind::Gauge,
        "1 while the gateway's lease is live, 0 while it works at the fallback rates",
        |gateway| f64::from(u8::from(gateway.live)),
    ),
    (
        "forebay_gateway_last_sync_seconds",
        Kind::Gauge,
        "Seconds since the gateway's last sync",
        |gateway| gateway.last_sync_ms_ago as f64 / 1e3,
    ),
    (
        "forebay_gateway_policy_version",
        Kind::Gauge,
        "Policy version in force at the gateway",
        |gateway| gateway.policy_version as f64,
    ),
    (
        "forebay_gateway_model_epoch",
        Kind::Gauge,
        "Model epoch that runs at the gateway",
        |gateway| gateway.model_epoch as f64,
    ),
    (
        "forebay_gateway_series_by_network",
        Kind::Gauge,
        "Series forecast by the network",
        |gateway| f64::from(gateway.series_by_network),
    ),
    (
        "forebay_gateway_series_by_fallback",
        Kind::Gauge,
        "Series forecast by the fallback",
        |gateway| f64::from(gateway.series_by_fallback),
    ),
    (
        "forebay_gateway_forecast_pinball",
        Kind::Gauge,
        "Mean pinball loss over mean demand",
        |gateway| gateway.pinball,
    ),
    (
        "forebay_gateway_forecast_coverage",
        Kind::Gauge,
        "Share of demand within the upper quantile",
        |gateway| gateway.coverage,
    ),
];

/// Of each model of the registry that runs somewhere, under its digest. Sums over the gateways that are present: they fall when one leaves.
#[allow(clippy::cast_precision_loss)] // counts for charts
const MODEL_METRICS: [Metric<RunningModelView>; 4] = [
    (
        "forebay_model_gateways",
        Kind::Gauge,
        "Gateways that run the model",
        |model| model.gateways as f64,
    ),
    (
        "forebay_model_forecasts_matured",
        Kind::Gauge,
        "Forecasts of the model that have matured, at the gateways that run it now",
        |model| {
            model
                .score
                .as_ref()
                .map_or(0.0, |score| score.matured as f64)
        },
    ),
    (
        "forebay_model_forecast_pinball",
        Kind::Gauge,
        "Pinball loss of the 0.9 quantile over usage, since the model runs there",
        |model| model.score.as_ref().map_or(0.0, |score| score.loss),
    ),
    (
        "forebay_model_forecast_coverage",
        Kind::Gauge,
        "Share of the forecasts whose 0.9 quantile covered the usage, since the model runs there",
        |model| model.score.as_ref().map_or(0.0, |score| score.coverage),
    ),
];

/// Of the canary; 0 while there is none.
#[allow(clippy::cast_precision_loss)] // counts for charts
const CANARY_METRICS: [Metric<StatusView>; 2] = [
    (
        "forebay_canary_epoch",
        Kind::Gauge,
        "Model epoch that runs at a share of the gateways; 0: none",
        |view| {
            view.canary
                .as_ref()
                .map_or(0.0, |canary| canary.epoch as f64)
        },
    ),
    (
        "forebay_canary_pairs",
        Kind::Gauge,
        "Steps in which the canary was compared with the model before",
        |view| {
            let canary = view.canary.as_ref();
            canary.map_or(0.0, |canary| canary.evidence.pairs as f64)
        },
    ),
];

/// Of the challenger; 0 while there is none.
#[allow(clippy::cast_precision_loss)] // counts for charts
const CHALLENGER_METRICS: [Metric<StatusView>; 4] = [
    (
        "forebay_challenger_epoch",
        Kind::Gauge,
        "Model epoch that is compared with the one in force, without effect; 0: none",
        |view| of_challenger(view, |challenger| challenger.epoch as f64),
    ),
    (
        "forebay_challenger_pairs",
        Kind::Gauge,
        "Steps in which the challenger was compared with the model in force",
        |view| of_challenger(view, |challenger| challenger.evidence.pairs as f64),
    ),
    (
        "forebay_challenger_loss",
        Kind::Gauge,
        "Mean pinball loss of the challenger's 0.9 quantile over usage, in the compared steps",
        |view| of_challenger(view, |challenger| challenger.evidence.challenger_loss),
    ),
    (
        "forebay_challenger_champion_loss",
        Kind::Gauge,
        "The same of the model in force, for the same customers and steps",
        |view| of_challenger(view, |challenger| challenger.evidence.champion_loss),
    ),
];

fn of_challenger(view: &StatusView, value: impl Fn(&ChallengerView) -> f64) -> f64 {
    view.challenger.as_ref().map_or(0.0, value)
}

pub(super) async fn metrics(State(server): Shared) -> impl IntoResponse {
    let view = server.plane.status();
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, kind, help, value) in METRICS
        .into_iter()
        .chain(CANARY_METRICS)
        .chain(CHALLENGER_METRICS)
    {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n{name} {}\n",
            kind.name(),
            value(&view)
        );
    }
    for (name, kind, help, value) in GATEWAY_METRICS {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.name()
        );
        for gateway in &view.gateways {
            let id = label(&gateway.id);
            let _ = writeln!(text, "{name}{{gateway=\"{id}\"}} {}", value(gateway));
        }
    }
    for (name, kind, help, value) in MODEL_METRICS {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n",
            kind.name()
        );
        for model in &view.models {
            let _ = writeln!(
                text,
                "{name}{{model=\"{}\"}} {}",
                model.digest,
                value(model)
            );
        }
    }
    let name = "forebay_alerts_firing";
    let _ = write!(
        text,
        "# HELP {name} Alerts about forecasts and models that fire\n# TYPE {name} gauge\n"
    );
    for kind in AlertKind::ALL {
        let count = view.alerts_firing.get(kind.name()).copied().unwrap_or(0);
        let _ = writeln!(text, "{name}{{alertname=\"{}\"}} {count}", kind.name());
    }
    if let Some(notified) = server.plane.notified() {
        write_notified(&mut text, &notified);
    }
    let name = "forebay_syncs_throttled_total";
    let _ = write!(
        text,
        "# HELP {name} Syncs refused because one gateway sent too many\n# TYPE {name} counter\n{name} {}\n",
        server.throttle.refused()
    );
    if let Some(tls) = &server.tls {
        let name = "forebay_tls_certificate_expires_seconds";
        let _ = write!(
            text,
            "# HELP {name} When the certificate of the server expires, seconds since 1970\n# TYPE {name} gauge\n{name} {}\n",
            tls.expires_unix_s()
        );
        let name = "forebay_tls_reload_failures_total";
        let _ = write!(
            text,
            "# HELP {name} Looks at the files of TLS that found something broken; it grows until that is repaired\n# TYPE {name} counter\n{name} {}\n",
            tls.reload_failures()
        );
        let name = "forebay_tls_handshakes_failed_total";
        let _ = write!(
            text,
            "# HELP {name} Connections that ended before TLS was spoken, for a certificate that is not believed or want of time\n# TYPE {name} counter\n{name} {}\n",
            tls.failed_handshakes()
        );
    }
    for (name, help, tokens) in [
        (
            "forebay_over_admitted_tokens_total",
            "Tokens that gateways have admitted beyond contracts",
            view.over_admitted_tokens,
        ),
        (
            "forebay_stranded_tokens_total",
            "Tokens that nobody could spend any more; they flow again at the rate of the contract",
            view.stranded_tokens,
        ),
    ] {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for (cause, tokens) in tokens.each() {
            let _ = writeln!(text, "{name}{{cause=\"{}\"}} {tokens}", cause.name());
        }
    }
    let name = "forebay_requests_refused_total";
    let _ = write!(
        text,
        "# HELP {name} Requests refused for their token or certificate\n# TYPE {name} counter\n"
    );
    for (code, count) in server.tokens.refused() {
        let _ = writeln!(text, "{name}{{code=\"{code}\"}} {count}");
    }
    if let Some(counts) = server.plane.exported() {
        write_exported(&mut text, &counts);
    }
    if let Some(counts) = server.plane.measured() {
        write_measured(&mut text, &counts);
    }
    write_forecasts(&mut text, &server.plane.forecast_book());
    allocations::write_metrics(&mut text, &server.plane.cycle_counts());
    spillover::write_metrics(&mut text, &server.plane);
    anomalies::write_metrics(&mut text, &server.plane.anomaly_book());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Of remote write, where there is one.
fn write_exported(text: &mut String, counts: &Counts) {
    let metrics = [
        (
            "forebay_remote_write_samples_sent_total",
            Kind::Counter,
            "Values of finished steps that the other side has taken",
            counts.sent,
        ),
        (
            "forebay_remote_write_requests_failed_total",
            Kind::Counter,
            "Requests that failed and were tried again",
            counts.failed_requests,
        ),
        (
            "forebay_remote_write_queue_samples",
            Kind::Gauge,
            "Values that wait to be sent",
            counts.waiting as u64,
        ),
    ];
    for (name, kind, help, value) in metrics {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}\n",
            kind.name()
        );
    }
    let name = "forebay_remote_write_samples_dropped_total";
    let _ = write!(
        text,
        "# HELP {name} Values that will never be sent\n# TYPE {name} counter\n"
    );
    for (reason, count) in DropReason::ALL.iter().zip(counts.dropped) {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {count}", reason.name());
    }
}

/// Of forecasts of the control plane. Names of resources have no quotes.
fn write_forecasts(text: &mut String, book: &Book) {
    type Count = fn(&Tally) -> f64;
    let gauges = [
        (
            "forebay_forecast_series",
            "Series that the control plane forecasts by themselves",
            book.series as f64,
        ),
        (
            "forebay_forecast_rest_series",
            "Series that are forecast together, at the last survey of the history",
            book.rest_series as f64,
        ),
        (
            "forebay_forecast_damaged_chunks",
            "Chunks of usage that cannot be read and are gaps, at the last survey of the history",
            book.damaged_chunks as f64,
        ),
        (
            "forebay_forecast_pass_seconds",
            "How long the last pass of forecasts took",
            book.pass_ms as f64 / 1e3,
        ),
    ];
    for (name, help, value) in gauges {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    }
    let counts: [(&str, &str, Count); 5] = [
        (
            "forebay_forecast_matured_total",
            "Forecasts of the control plane whose time is over",
            |tally| tally.score.matured as f64,
        ),
        (
            "forebay_forecast_covered_total",
            "Those whose 0.9 quantile of the mean rate was not exceeded",
            |tally| tally.score.covered as f64,
        ),
        (
            "forebay_forecast_peaks_covered_total",
            "Those whose 0.9 quantile of the peak step was not exceeded",
            |tally| tally.score.peaks_covered as f64,
        ),
        (
            "forebay_forecast_loss_total",
            "Pinball losses of the 0.9 quantile of the mean rate, in tokens per second",
            |tally| tally.score.loss,
        ),
        (
            "forebay_forecast_usage_total",
            "Mean rates that came, in tokens per second",
            |tally| tally.score.usage,
        ),
    ];
    for (name, help, value) in counts {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for tally in &book.tallies {
            let (resource, horizon, of) = (&tally.resource, tally.horizon, tally.of);
            let _ = writeln!(
                text,
                "{name}{{resource=\"{resource}\",horizon=\"{horizon}\",of=\"{of}\"}} {}",
                value(tally)
            );
        }
    }
}

/// Of covariates, where there are any.
fn write_measured(text: &mut String, counts: &TakenCounts) {
    let metrics = [
        (
            "forebay_covariate_samples_total",
            Kind::Counter,
            "Samples of covariates that are in the mean of their step",
            counts.kept,
        ),
        (
            "forebay_covariate_requests_refused_total",
            Kind::Counter,
            "Requests of senders that were refused",
            counts.refused,
        ),
        (
            "forebay_covariate_series",
            Kind::Gauge,
            "Series of senders that are remembered",
            counts.series as u64,
        ),
    ];
    for (name, kind, help, value) in metrics {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}\n",
            kind.name()
        );
    }
    let name = "forebay_covariate_samples_dropped_total";
    let _ = write!(
        text,
        "# HELP {name} Samples of senders that are in no step\n# TYPE {name} counter\n"
    );
    for (reason, count) in Dropped::ALL.iter().zip(counts.dropped) {
        let _ = writeln!(text, "{name}{{reason=\"{}\"}} {count}", reason.name());
    }
}

/// Of Alertmanagers, where there are any.
fn write_notified(text: &mut String, notified: &[Notified]) {
    type Count = fn(&Notified) -> u64;
    let metrics: [(&str, &str, Count); 2] = [
        (
            "forebay_alertmanager_alerts_sent_total",
            "Alerts that the Alertmanager has taken, again each time that they were sent again",
            |notified| notified.sent,
        ),
        (
            "forebay_alertmanager_requests_failed_total",
            "Requests that the Alertmanager did not answer, or refused",
            |notified| notified.failed,
        ),
    ];
    for (name, help, count) in metrics {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
        for one in notified {
            let to = label(&one.to);
            let _ = writeln!(text, "{name}{{alertmanager=\"{to}\"}} {}", count(one));
        }
    }
}

impl Kind {
    const fn name(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A label's value: the text format escapes backslash, quote and line feed. Names of gateways have no control characters.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}
