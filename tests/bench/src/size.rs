//! `bench-size`: what the plugins weigh, and what the forecaster costs an Envoy that starts with it.
//!
//! V8 compiles a whole module before Envoy is ready, so bytes are time and memory. Both Envoys are otherwise the same
//! and take turns, because a machine that gets slower must slow both.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use forebay_envoy_tests::{Bootstrap, Envoy, Listener, artefact};

use crate::report::{Report, median};
use crate::singleton;

const ROUNDS: usize = 5;

/// Compiling leaves memory that V8 gives back a little later; what stays is what counts.
const SETTLE: Duration = Duration::from_secs(2);

/// One start.
#[derive(Clone, Copy, Debug)]
struct Start {
    ready_s: f64,
    rss_mb: f64,
}

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let mut report = Report::default();
    for (plugin, field, bar) in [
        (
            "forecaster",
            "forecaster_bytes",
            "bytes as shipped (bar: 3 500 000)",
        ),
        (
            "admission",
            "admission_bytes",
            "bytes as shipped (bar: 300 000)",
        ),
    ] {
        let path = artefact(plugin)?;
        let bytes = fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        report.add(field, bytes as f64, bar);
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        without.push(start(false).await?);
        with.push(start(true).await?);
        eprintln!("round {} of {ROUNDS}", round + 1);
    }
    let added = |figure: fn(&Start) -> f64| {
        let differences: Vec<f64> = with
            .iter()
            .zip(&without)
            .map(|(with, without)| figure(with) - figure(without))
            .collect();
        median(&differences)
    };
    report.add(
        "ready_s",
        added(|start| start.ready_s),
        "Envoy's time to ready, added, s (bar: 3)",
    );
    report.add(
        "rss_mb",
        added(|start| start.rss_mb),
        "resident memory, added, MB (bar: 140)",
    );
    let alone: Vec<f64> = without.iter().map(|start| start.ready_s).collect();
    report.add(
        "ready_s_envoy_alone",
        median(&alone),
        "Envoy's time to ready without it, s",
    );
    report.publish("bench-size")
}

async fn start(forecaster: bool) -> Result<Start> {
    let mut bootstrap = Bootstrap::with(vec![Listener::direct("direct", None)]);
    if forecaster {
        bootstrap
            .extensions
            .push(singleton::extension(&singleton::stand_alone())?);
    }
    let envoy = Envoy::start(&bootstrap, 1).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(Start {
        ready_s: envoy.ready_after.as_secs_f64(),
        rss_mb: envoy.resident_bytes()? as f64 / 1e6,
    })
}
