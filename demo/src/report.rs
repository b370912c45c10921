//! The two runs side by side, for people and as `demo.json` for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::outcome::{CustomerOutcome, RunOutcome};
use crate::scenario::{Role, Scenario};

/// The same seed with shadow buckets on and off.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Shadow buckets on.
    pub on: RunOutcome,
    /// Shadow buckets off.
    pub off: RunOutcome,
}

impl Comparison {
    /// Tokens by which some interval of some customer exceeds its contract, in either run.
    pub(crate) fn over_admission(&self) -> f64 {
        self.on.over_admission().max(self.off.over_admission())
    }

    /// Share of the shadow refills that came from the network.
    pub(crate) fn model_share(&self) -> f64 {
        let refills = self.on.refills;
        ratio(refills.network, refills.network + refills.fallback)
    }

    /// In-contract denials of the steady customers, on / off. `None` where none was denied with shadow buckets off: there was
    /// nothing that they could have bettered, so the run shows nothing and does not meet the bar.
    pub(crate) fn predicted_denied_ratio(&self) -> Option<f64> {
        denied_ratio(
            self.on.steady(|c| c.denied_in_contract),
            self.off.steady(|c| c.denied_in_contract),
        )
    }

    /// Requests served, on / off.
    pub(crate) fn goodput_ratio(&self) -> f64 {
        ratio(self.on.total(|c| c.served), self.off.total(|c| c.served))
    }

    /// Writes the flat report.
    pub(crate) fn write(&self, scenario: &Scenario, seconds: f64, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(&self.json(scenario, seconds))
            .context("the report as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    fn json(&self, scenario: &Scenario, seconds: f64) -> Value {
        let (on, off) = (&self.on, &self.off);
        json!({
            "over_admission": self.over_admission(),
            "model_share": self.model_share(),
            "predicted_denied_ratio": self.predicted_denied_ratio(),
            "goodput_ratio": self.goodput_ratio(),
            "seconds": seconds,
            "capacity_per_s": scenario.capacity_per_s,
            "offered": on.total(|c| c.offered),
            "served_on": on.total(|c| c.served),
            "served_off": off.total(|c| c.served),
            "served_within_forecast": on.total(|c| c.shadow),
            "predicted_denied_in_contract_on": on.steady(|c| c.denied_in_contract),
            "predicted_denied_in_contract_off": off.steady(|c| c.denied_in_contract),
            "denied_in_contract_on": on.total(|c| c.denied_in_contract),
            "denied_in_contract_off": off.total(|c| c.denied_in_contract),
            "failed_on": on.total(|c| c.failed),
            "failed_off": off.total(|c| c.failed),
            "upstream_overloaded_on": on.overloaded,
            "upstream_overloaded_off": off.overloaded,
            "latency_p50_ms_on": on.latency_p50_ms,
            "latency_p50_ms_off": off.latency_p50_ms,
            "latency_p99_ms_on": on.latency_p99_ms,
            "latency_p99_ms_off": off.latency_p99_ms,
            "shadow_refills_network": on.refills.network,
            "shadow_refills_fallback": on.refills.fallback,
        })
    }

    /// The table at the end of the demo.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nthe same {} requests, shadow buckets off and on\n",
            self.on.total(|c| c.offered)
        )?;
        writeln!(
            text,
            "{:<16} {:>8} | {:>10} {:>10} | {:>12} {:>12} | {:>14}",
            "customer",
            "requests",
            "served off",
            "served on",
            "denied* off",
            "denied* on",
            "within forecast"
        )?;
        for (on, off) in self.on.customers.iter().zip(&self.off.customers) {
            write_row(
                text,
                &format!(
                    "{}{}",
                    on.name,
                    if on.role == Role::Spiker {
                        " (spikes)"
                    } else {
                        ""
                    }
                ),
                on,
                off,
            )?;
        }
        writeln!(
            text,
            "* denied although the customer's own contract would have admitted it\n"
        )?;
        writeln!(
            text,
            "{:<58} {:>8}   bar: at most 0.5",
            "in-contract denials of predicted customers, on / off",
            self.predicted_denied_ratio()
                .map_or("none off".to_owned(), |ratio| format!("{ratio:.3}"))
        )?;
        writeln!(
            text,
            "{:<58} {:>8.3}   bar: at least 0.995",
            "requests served, on / off",
            self.goodput_ratio()
        )?;
        writeln!(
            text,
            "{:<58} {:>8.3}   bar: at least 0.9",
            "shadow refills from the network",
            self.model_share()
        )?;
        writeln!(
            text,
            "{:<58} {:>8}   bar: 0",
            "tokens admitted above a contract, any interval",
            self.over_admission()
        )?;
        let failed = self.on.total(|c| c.failed) + self.off.total(|c| c.failed);
        if failed > 0 {
            writeln!(
                text,
                "{failed} requests were not answered in time: this machine was too busy for the figures to count"
            )?;
        }
        writeln!(
            text,
            "latency of served requests, p50 / p99 in ms: off {:.1} / {:.1}, on {:.1} / {:.1}",
            self.off.latency_p50_ms,
            self.off.latency_p99_ms,
            self.on.latency_p50_ms,
            self.on.latency_p99_ms
        )
    }
}

fn write_row(
    text: &mut String,
    name: &str,
    on: &CustomerOutcome,
    off: &CustomerOutcome,
) -> std::fmt::Result {
    writeln!(
        text,
        "{name:<16} {:>8} | {:>10} {:>10} | {:>12} {:>12} | {:>14}",
        on.offered, off.served, on.served, off.denied_in_contract, on.denied_in_contract, on.shadow
    )
}

fn denied_ratio(on: u64, off: u64) -> Option<f64> {
    (off > 0).then(|| ratio(on, off))
}

/// `part / whole`; 0 when both are 0, which meets no bar that asks for at least so much.
fn ratio(part: u64, whole: u64) -> f64 {
    match (part, whole) {
        (0, _) => 0.0,
        (part, whole) => part as f64 / whole as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::denied_ratio;

    #[test]
    fn a_run_in_which_nobody_was_denied_without_shadow_buckets_has_no_ratio_of_denials() {
        assert_eq!(denied_ratio(0, 0), None);
        assert_eq!(denied_ratio(3, 0), None);
        assert_eq!(denied_ratio(1, 4), Some(0.25));
        assert_eq!(denied_ratio(0, 4), Some(0.0));
    }
}
