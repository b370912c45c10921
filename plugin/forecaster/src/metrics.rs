//! Every metric of the forecaster, defined once when the plugin is configured.
//!
//! Defining a metric takes Envoy's symbol-table lock, and a metric per customer would grow without bound: so the list is closed, and
//! numbers of one customer go to the control plane with the sync instead. The host adds no labels: a label is written into the name
//! (`..._source=network`) and `envoy/stats-tags.yaml` takes it out again.

/// What a metric measures; the discriminant is its place in [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    /// Syncs answered and applied.
    SyncOk,
    /// Syncs that failed: no answer, refused, or not understood.
    SyncFailed,
    /// Time from sending a sync to its answer.
    SyncLatencyUs,
    /// Grants of which at least one token reached the ledger.
    GrantsApplied,
    /// Items of replies that were refused as malformed.
    ReplyItemsRefused,
    /// Epoch of the policy in the ledger.
    PolicyEpoch,
    /// Epoch of the model in use; 0 without a model.
    ModelEpoch,
    /// Models refused.
    ModelRefused,
    /// Time a model took to load and check.
    ModelSwapUs,
    /// Usage series kept.
    Series,
    /// Series evicted because the bound was reached.
    SeriesEvicted,
    /// CPU-bound time of a tick, model swaps left out.
    TickUs,
    /// Time of one batch in the network, whether all of its rows are used or not.
    BatchUs,
    /// Forecasts computed by the network.
    ForecastsNetwork,
    /// Shadow refills written that came from the network.
    ShadowRefillsNetwork,
    /// Shadow refills written that came from the fallback.
    ShadowRefillsFallback,
    /// Shadow refills raised because of a deviation.
    ShadowRefillsRaised,
    /// Mean pinball loss of matured forecasts, relative to usage, in millionths.
    PinballPpm,
    /// Share of matured windows at or below the forecast quantile, in millionths.
    CoveragePpm,
    /// Writes to the ledger given up after repeated conflicts.
    LedgerConflicts,
    /// Times that a VM of this gateway began to forecast.
    Elected,
    /// Epoch of the model that is compared with the one in use; 0 without one.
    ChallengerEpoch,
    /// Challengers that were refused, or failed.
    ChallengerRefused,
    /// Time of one batch in the challenger's network.
    ChallengerBatchUs,
    /// Shadow refills written that came from an allocation of the control plane.
    ShadowRefillsAllocation,
    /// Allocations in force; 0 while claims are made from forecasts alone.
    Allocations,
}

/// What a host needs to know to define a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Last value.
    Gauge,
    /// Distribution.
    Histogram,
}

/// All metrics in the order of [`Metric`]: kind and name.
pub const METRICS: [(Metric, MetricKind, &str); 26] = [
    (
        Metric::SyncOk,
        MetricKind::Counter,
        "forebay.sync_result=ok",
    ),
    (
        Metric::SyncFailed,
        MetricKind::Counter,
        "forebay.sync_result=failed",
    ),
    (
        Metric::SyncLatencyUs,
        MetricKind::Histogram,
        "forebay.sync_latency_us",
    ),
    (
        Metric::GrantsApplied,
        MetricKind::Counter,
        "forebay.grants_applied",
    ),
    (
        Metric::ReplyItemsRefused,
        MetricKind::Counter,
        "forebay.reply_items_refused",
    ),
    (
        Metric::PolicyEpoch,
        MetricKind::Gauge,
        "forebay.policy_epoch",
    ),
    (Metric::ModelEpoch, MetricKind::Gauge, "forebay.model_epoch"),
    (
        Metric::ModelRefused,
        MetricKind::Counter,
        "forebay.model_refused",
    ),
    (
        Metric::ModelSwapUs,
        MetricKind::Histogram,
        "forebay.model_swap_us",
    ),
    (Metric::Series, MetricKind::Gauge, "forebay.series"),
    (
        Metric::SeriesEvicted,
        MetricKind::Counter,
        "forebay.series_evicted",
    ),
    (
        Metric::TickUs,
        MetricKind::Histogram,
        "forebay.forecaster_tick_us",
    ),
    (
        Metric::BatchUs,
        MetricKind::Histogram,
        "forebay.forecast_batch_us",
    ),
    (
        Metric::ForecastsNetwork,
        MetricKind::Counter,
        "forebay.forecasts_network",
    ),
    (
        Metric::ShadowRefillsNetwork,
        MetricKind::Counter,
        "forebay.shadow_refills_source=network",
    ),
    (
        Metric::ShadowRefillsFallback,
        MetricKind::Counter,
        "forebay.shadow_refills_source=fallback",
    ),
    (
        Metric::ShadowRefillsRaised,
        MetricKind::Counter,
        "forebay.shadow_refills_raised",
    ),
    (
        Metric::PinballPpm,
        MetricKind::Gauge,
        "forebay.forecast_pinball_ppm",
    ),
    (
        Metric::CoveragePpm,
        MetricKind::Gauge,
        "forebay.forecast_coverage_ppm",
    ),
    (
        Metric::LedgerConflicts,
        MetricKind::Counter,
        "forebay.ledger_conflicts",
    ),
    (
        Metric::Elected,
        MetricKind::Counter,
        "forebay.forecaster_elected",
    ),
    (
        Metric::ChallengerEpoch,
        MetricKind::Gauge,
        "forebay.challenger_epoch",
    ),
    (
        Metric::ChallengerRefused,
        MetricKind::Counter,
        "forebay.challenger_refused",
    ),
    (
        Metric::ChallengerBatchUs,
        MetricKind::Histogram,
        "forebay.challenger_batch_us",
    ),
    (
        Metric::ShadowRefillsAllocation,
        MetricKind::Counter,
        "forebay.shadow_refills_source=allocation",
    ),
    (
        Metric::Allocations,
        MetricKind::Gauge,
        "forebay.allocations",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_stands_at_its_own_place() {
        for (place, (metric, _, name)) in METRICS.iter().enumerate() {
            assert_eq!(*metric as usize, place, "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = METRICS.iter().map(|(_, _, name)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
