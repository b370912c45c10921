//! `forebay history import`: usage from Prometheus into the server's history.
//!
//! The team that installs Forebay often has months of usage there, and a forecaster that begins without any is no better than its
//! simple methods for days. The server asked by itself was the worse alternative: it would hold a second address and secret for good,
//! for what is done once.
//!
//! Page by page: what was read is posted before more is read, so that memory is bounded whatever the query finds. An import that
//! ends half-way is repeated as a whole, since values replace those of the same step.

mod usage;

use super::client::encode;
use super::output::print;
use super::{Client, Connection, ImportOptions};
use crate::plane::SeriesView;
use crate::prometheus::{Endpoint, QueriedSeries, Query, QueryError, query_range};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use usage::{CustomerUsage, Reading};

/// Steps that are asked for at once; fewer where the answer is too long. Prometheus answers 11 000 at most.
const PAGE_STEPS: u64 = 1_000;

/// Values in one request to the server, which changes them all under its lock: that takes about 2 ms.
const BATCH_VALUES: usize = 50_000;

/// Measurements arrive late: scrapes by their interval, and VictoriaMetrics shows what came in the last 30 s not yet.
const SETTLED_AFTER_MS: u64 = 60_000;

const DAY_S: u64 = 86_400;

/// What the server says about its history.
struct Kept {
    resource: String,
    step_ms: u32,
    /// The last finished one.
    newest_step: u64,
    steps: u64,
}

/// Steps to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

/// An import that is under way.
struct Import<'a> {
    client: &'a Client,
    kept: &'a Kept,
    endpoint: Endpoint,
    promql: String,
    reading: Reading<'a>,
    runtime: Runtime,
    customers: BTreeSet<String>,
    values: u64,
    tokens: f64,
}

pub(super) fn import(options: ImportOptions, connection: &Connection) -> Result<(), String> {
    let client = Client::new(connection)?;
    let token = options.prometheus_token.as_deref();
    let endpoint = options.prometheus.parse::<Endpoint>();
    let endpoint = endpoint.and_then(|endpoint| endpoint.with_token(token));
    let endpoint = endpoint.map_err(|error| format!("--prometheus: {error}"))?;
    let kept = Kept::ask(&client, options.resource.as_deref())?;
    let span = Span::wanted(&kept, options.from_unix_s, options.to_unix_s, options.days)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let per_value = if options.per_second {
        f64::from(kept.step_ms) / 1e3
    } else {
        1.0
    };
    let mut import = Import {
        client: &client,
        kept: &kept,
        endpoint,
        promql: options
            .query
            .replace("$__interval", &format!("{}ms", kept.step_ms)),
        reading: Reading {
            label: &options.customer_label,
            step_ms: kept.step_ms,
            tokens_per_value: per_value,
        },
        runtime,
        customers: BTreeSet::new(),
        values: 0,
        tokens: 0.0,
    };
    import.run(span).map_err(|error| {
        if import.values == 0 {
            format!("{error}; nothing was imported")
        } else {
            format!(
                "{error}; {} values of earlier steps were imported, and an import that is repeated replaces them",
                import.values
            )
        }
    })?;
    print(&import.summary(span))
}

// === impl Kept ===

impl Kept {
    /// The export of a customer that nobody has says all of it: one request, and a wrong resource is refused before anything is read.
    fn ask(client: &Client, resource: Option<&str>) -> Result<Self, String> {
        let nobody = "hash:00000000000000000000000000000000";
        let mut path = format!("/v1/history?key={nobody}");
        if let Some(resource) = resource {
            path = format!("{path}&resource={}", encode(resource));
        }
        let view: SeriesView = serde_json::from_value(client.get(&path)?)
            .map_err(|error| format!("the server's answer is not usage history: {error}"))?;
        Ok(Self {
            resource: view.resource,
            step_ms: view.step_ms.max(1),
            newest_step: view.newest_step,
            steps: view.usage.len() as u64,
        })
    }

    /// The time at which a step ends.
    fn end_ms(&self, step: u64) -> u64 {
        step.saturating_add(1)
            .saturating_mul(u64::from(self.step_ms))
    }

    /// The last step that has ended at a time.
    fn ended_at(&self, unix_ms: u64) -> Option<u64> {
        (unix_ms / u64::from(self.step_ms)).checked_sub(1)
    }
}

// === impl Span ===

impl Span {
    /// The steps that lie in the given time as a whole, and that the server keeps.
    fn wanted(
        kept: &Kept,
        from_unix_s: Option<u64>,
        to_unix_s: Option<u64>,
        days: Option<u32>,
    ) -> Result<Self, String> {
        let to_ms = match to_unix_s {
            Some(to_s) => to_s.saturating_mul(1_000),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now_ms = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
                now_ms.saturating_sub(SETTLED_AFTER_MS)
            }
        };
        let none = || {
            format!(
                "there is no whole step of {} ms to import: the server keeps those from {} to {} (Unix time in s)",
                kept.step_ms,
                kept.end_ms(kept.newest_step.saturating_sub(kept.steps)) / 1_000,
                kept.end_ms(kept.newest_step) / 1_000,
            )
        };
        let last = kept.ended_at(to_ms).ok_or_else(none)?.min(kept.newest_step);
        let from_ms = match days {
            Some(days) => {
                let before_ms = u64::from(days).saturating_mul(DAY_S).saturating_mul(1_000);
                kept.end_ms(last).saturating_sub(before_ms)
            }
            None => from_unix_s.unwrap_or(0).saturating_mul(1_000),
        };
        let oldest = kept
            .newest_step
            .saturating_sub(kept.steps.saturating_sub(1));
        let first = from_ms.div_ceil(u64::from(kept.step_ms)).max(oldest);
        if first > last {
            return Err(none());
        }
        Ok(Self { first, last })
    }

    fn steps(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

// === impl Import ===

impl Import<'_> {
    fn run(&mut self, span: Span) -> Result<(), String> {
        let mut page_steps = PAGE_STEPS;
        let mut first = span.first;
        while first <= span.last {
            let last = first.saturating_add(page_steps.saturating_sub(1));
            let last = last.min(span.last);
            let page = Span { first, last };
            match self.ask(page) {
                Ok(found) => {
                    let usage = self.reading.read(found, page.first, page.last);
                    self.post(usage.map_err(|error| error.to_string())?)?;
                    first = last.saturating_add(1);
                }
                Err(QueryError::TooLong(_)) if page.steps() > 1 => page_steps = page.steps() / 2,
                Err(error) => return Err(error.to_string()),
            }
        }
        if self.values == 0 {
            return Err(format!(
                "the query has no values from {} to {} (Unix time in s): look at it in Prometheus",
                self.kept.end_ms(span.first) / 1_000,
                self.kept.end_ms(span.last) / 1_000
            ));
        }
        Ok(())
    }

    /// A step's value is that of the time at which it ends.
    fn ask(&self, page: Span) -> Result<Vec<QueriedSeries>, QueryError> {
        let query = Query {
            promql: &self.promql,
            first_unix_ms: self.kept.end_ms(page.first),
            last_unix_ms: self.kept.end_ms(page.last),
            step_ms: self.kept.step_ms,
        };
        self.runtime.block_on(query_range(&self.endpoint, &query))
    }

    fn post(&mut self, usage: Vec<CustomerUsage>) -> Result<(), String> {
        let mut batch: Vec<CustomerUsage> = Vec::new();
        let mut values = 0_usize;
        for customer in usage {
            let more = customer.usage.len();
            if values.saturating_add(more) > BATCH_VALUES {
                self.put(&std::mem::take(&mut batch))?;
                values = 0;
            }
            values = values.saturating_add(more);
            batch.push(customer);
        }
        self.put(&batch)
    }

    fn put(&mut self, batch: &[CustomerUsage]) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let series = batch.iter().map(|customer| {
            json!({
                "key": customer.key,
                "resource": self.kept.resource,
                "step_ms": self.kept.step_ms,
                "newest_step": customer.newest_step,
                "usage": customer.usage,
            })
        });
        let series: Vec<Value> = series.collect();
        self.client.put("/v1/history", &json!({"series": series}))?;
        for customer in batch {
            let values = customer.usage.iter().flatten();
            self.values = self.values.saturating_add(values.clone().count() as u64);
            self.tokens += values.sum::<f64>();
            if !self.customers.contains(&customer.key) {
                self.customers.insert(customer.key.clone());
            }
        }
        Ok(())
    }

    /// What was imported. The mean is there because a wrong unit shows in nothing else.
    fn summary(&self, span: Span) -> Value {
        let customers = self.customers.len() as u64;
        #[allow(clippy::cast_precision_loss)] // for people
        let mean = self.tokens / self.values as f64;
        json!({
            "resource": self.kept.resource,
            "step_ms": self.kept.step_ms,
            "from_unix_s": self.kept.end_ms(span.first.saturating_sub(1)) / 1_000,
            "to_unix_s": self.kept.end_ms(span.last) / 1_000,
            "customers": customers,
            "values": self.values,
            "gaps": customers.saturating_mul(span.steps()).saturating_sub(self.values),
            "mean_tokens_per_step": mean,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept {
        resource: String::new(),
        step_ms: 60_000,
        newest_step: 999,
        steps: 100,
    };

    fn span(from_s: Option<u64>, to_s: Option<u64>, days: Option<u32>) -> Option<(u64, u64)> {
        let span = Span::wanted(&KEPT, from_s, to_s, days).ok()?;
        Some((span.first, span.last))
    }

    #[test]
    fn only_whole_steps_that_the_server_keeps_are_wanted() {
        assert_eq!(span(None, None, None), Some((900, 999)));
        assert_eq!(span(None, None, Some(1)), Some((900, 999)));
        assert_eq!(span(Some(0), Some(u64::MAX), None), Some((900, 999)));
        // Step 950 is from 57 000 s to 57 060 s.
        assert_eq!(span(Some(57_000), Some(57_060), None), Some((950, 950)));
        assert_eq!(span(Some(57_001), Some(57_180), None), Some((951, 952)));
        assert_eq!(span(Some(57_001), Some(57_119), None), None);
        assert_eq!(span(Some(60_000), None, None), None, "still to come");
        assert_eq!(span(None, Some(53_000), None), None, "no longer kept");
        assert_eq!(span(None, Some(10), None), None);
        let error = Span::wanted(&KEPT, Some(60_000), None, None).unwrap_err();
        assert!(error.contains("from 54000 to 60000"), "{error}");
    }
}
