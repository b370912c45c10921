//! What a customer is expected to ask for in the next cycle: its forecast, or what was measured.

use super::book::Book;
use super::cycle::Seen;
use super::gathered::Candidate;
use crate::history::Series;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_sharing::Outlook;

/// What a customer is expected to ask for: by the forecast of the first horizon that is not shorter than a cycle, unless more is asked for at this moment than
/// its 0.99 quantile, or there is none; then by what was measured.
pub(super) fn outlook_of(
    candidate: &Candidate,
    before: &Book,
    seen: &Seen<'_>,
    (resources, interval_ms): (&[String], u32),
) -> PerResource<Outlook> {
    let mut outlooks = PerResource::default();
    if candidate.is_denied {
        return outlooks;
    }
    for (resource, index) in ResourceIndex::first(resources.len()).zip(0_u8..) {
        let now_per_s = *candidate.now_per_s.at(resource);
        let forecast = seen.forecasts.mean_of(
            candidate.hash,
            index,
            u64::from(interval_ms),
            (seen.step_ms, seen.now_unix_ms),
        );
        let series = Series::new(candidate.hash, index);
        *outlooks.at_mut(resource) = match forecast {
            Some(quantiles_per_s) if quantiles_per_s.last() >= Some(&now_per_s) => {
                Outlook { quantiles_per_s }
            }
            _ => seen.trails.outlook(series, now_per_s),
        };
        // A server that has just started knows no steps yet; the cycle before did.
        if seen.trails.is_new()
            && forecast.is_none()
            && let Some(entry) = before.entry(candidate.hash)
        {
            let expected = entry.customer.outlook.at(resource).quantiles_per_s;
            let outlook = outlooks.at_mut(resource);
            for (quantile, before) in outlook.quantiles_per_s.iter_mut().zip(expected) {
                *quantile = quantile.max(before);
            }
        }
    }
    outlooks
}
