//! The figures of all trials, as a table and as JSON, and what of them is held against a bar.
//!
//! A machine that others use, a sender that was late and two quiet runs that are far apart each say that nothing can be told from this
//! run. A wide
//! interval would keep the bar whatever the flood did, so it is refused and not reported as kept.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::judge::{Interval, against_itself, denied_added, percentile_ms};
use super::scene::{Arrangement, Condition};
use super::window::Window;
use crate::report::folder;
use crate::sharing::headline::{Bar, Found, Headline};

/// What is allowed to have been denied more, and what of the first tier must be admitted.
const DENIED_ADDED: f64 = 0.02;
const TIER1_ADMITTED: f64 = 0.999;
/// Beyond these nothing can be told.
const LATE_P99_MS: f64 = 2.0;
const OTHERS_CPU: f64 = 0.1;
const INTERVAL_WIDTH: f64 = 0.2;

/// One arrangement, and the windows of each condition in the order of rounds.
pub(super) struct Measured {
    pub(super) arrangement: Arrangement,
    pub(super) windows: BTreeMap<Condition, Vec<Window>>,
}

/// What of an arrangement is held against bars.
struct Verdict {
    headlines: Vec<Headline>,
    refused: Vec<String>,
}

/// Prints and writes all of it. An error if no verdict could be given.
pub(super) fn publish(all: &[Measured], seconds: f64) -> Result<()> {
    println!(
        "bench-neighbour: the others' requests, times in ms; the neighbour in contracts of it"
    );
    println!(
        "{:<34} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>7} {:>7}",
        "",
        "p50",
        "p99",
        "p99.9",
        "denied %",
        "tier 1 %",
        "tier 2 %",
        "tier 3 %",
        "neighbour",
        "busy",
        "wait",
        "late",
        "cpu"
    );
    for measured in all {
        measured.print();
    }
    let mut report = Map::new();
    let mut refused = Vec::new();
    for measured in all.iter().filter(|measured| measured.has_bars()) {
        let name = measured.arrangement.name;
        let verdict = Verdict::of(measured);
        println!("\n{name}:");
        let mut figures = Map::new();
        for headline in &verdict.headlines {
            headline.print();
            figures.insert(headline.field.to_owned(), headline.found.json());
        }
        let named = |reason: &String| format!("{name}, {reason}");
        refused.extend(verdict.refused.iter().map(named));
        if report.is_empty() {
            report.clone_from(&figures);
        }
        report.insert(name.to_owned(), figures.into());
    }
    report.insert("seconds".to_owned(), seconds.into());
    report.insert("refused".to_owned(), json!(refused));
    let arrangements: Map<String, Value> = all
        .iter()
        .map(|measured| (measured.arrangement.name.to_owned(), measured.json()))
        .collect();
    report.insert("arrangements".to_owned(), arrangements.into());
    let path = folder()?.join("bench-neighbour.json");
    fs::write(&path, serde_json::to_string_pretty(&Value::Object(report))?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{seconds:.0} s; all figures are in {}", path.display());
    ensure!(refused.is_empty(), "no verdict: {}", refused.join("; "));
    Ok(())
}

// === impl Measured ===

impl Measured {
    fn has_bars(&self) -> bool {
        self.windows.contains_key(&Condition::QuietAgain)
    }

    fn sum(&self, condition: Condition) -> Window {
        Window::sum(self.windows.get(&condition).map_or(&[], Vec::as_slice))
    }

    fn percentile_ms(&self, condition: Condition, part: f64) -> f64 {
        percentile_ms(&mut self.sum(condition).took_us, part)
    }

    fn print(&self) {
        for condition in self.windows.keys() {
            let mut sum = self.sum(*condition);
            let [one, two, three] = sum.tiers.map(|tier| 100.0 * tier.denied_share());
            println!(
                "{:<34} {:>7.2} {:>7.2} {:>7.2} {:>9.3} {one:>9.3} {two:>9.3} {three:>9.3} {:>9.2} {:>7.3} {:>9.1} {:>7.2} {:>7.2}",
                format!("{} {}", self.arrangement.name, condition.name()),
                percentile_ms(&mut sum.took_us, 0.5),
                percentile_ms(&mut sum.took_us, 0.99),
                percentile_ms(&mut sum.took_us, 0.999),
                100.0 * sum.others.denied_share(),
                sum.neighbour_contracts(),
                self.busy(&sum),
                1e3 * sum.longest_wait.as_secs_f64(),
                percentile_ms(&mut sum.late_us, 0.99),
                sum.others_cpu(),
            );
        }
    }

    /// The part of its time that the backend worked.
    fn busy(&self, sum: &Window) -> f64 {
        sum.served / sum.seconds / f64::from(self.arrangement.backend_per_s)
    }

    fn json(&self) -> Value {
        let of = |condition: &Condition| {
            let mut sum = self.sum(*condition);
            let [one, two, three] = sum.tiers.map(|tier| tier.denied_share());
            json!({
                "p50_ms": percentile_ms(&mut sum.took_us, 0.5),
                "p99_ms": percentile_ms(&mut sum.took_us, 0.99),
                "p999_ms": percentile_ms(&mut sum.took_us, 0.999),
                "requests": sum.others.sent,
                "denied": sum.others.denied_share(),
                "denied_tier_1": one,
                "denied_tier_2": two,
                "denied_tier_3": three,
                "neighbour_contracts": sum.neighbour_contracts(),
                "neighbour_sent_per_s": sum.neighbour.sent as f64 / sum.seconds,
                "backend_busy": self.busy(&sum),
                "backend_longest_wait_ms": 1e3 * sum.longest_wait.as_secs_f64(),
                "late_p99_ms": percentile_ms(&mut sum.late_us, 0.99),
                "others_cpu": sum.others_cpu(),
            })
        };
        self.windows
            .keys()
            .map(|condition| (condition.name().to_owned(), of(condition)))
            .collect::<Map<String, Value>>()
            .into()
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(measured: &Measured) -> Self {
        let windows = |condition| {
            let windows = measured.windows.get(&condition);
            windows.map_or(&[][..], Vec::as_slice)
        };
        let quiet: Vec<[Window; 2]> = windows(Condition::Quiet)
            .iter()
            .zip(windows(Condition::QuietAgain))
            .map(|(first, second)| [first.clone(), second.clone()])
            .collect();
        let (added, of_added) = denied_added(&quiet, windows(Condition::Flood));
        let p99 = |condition| measured.percentile_ms(condition, 0.99);
        let itself = against_itself(&quiet, 0.99, p99(Condition::Quiet));
        let refused = refused(measured, itself);
        let flood = measured.sum(Condition::Flood);
        let figure = |value: f64| Found::most([value].into_iter());
        let held = |value: f64| match refused.is_empty() {
            true => figure(value),
            false => Found::NotMeasured,
        };
        let line = |field, found, bar, meaning| Headline {
            field,
            found,
            bar,
            meaning,
        };
        let mut headlines = vec![
            line(
                "others_denied_added_high",
                held(of_added.high),
                Bar::AtMost(DENIED_ADDED),
                "the others' part that is denied in the flood and not without: upper end of the interval",
            ),
            line(
                "others_p99_ms_flood",
                held(p99(Condition::Flood)),
                Bar::AtMost(itself.high),
                "the others' p99 in the flood, against the interval of a quiet run against itself",
            ),
            line(
                "tier1_admitted_flood",
                held(1.0 - flood.tiers[0].denied_share()),
                Bar::AtLeast(TIER1_ADMITTED),
                "of the first tier's requests in the flood",
            ),
            line(
                "others_denied_added",
                figure(added),
                Bar::None,
                "the same, measured",
            ),
            line(
                "others_denied_added_low",
                figure(of_added.low),
                Bar::None,
                "lower end",
            ),
            line(
                "others_p99_ms_quiet",
                figure(p99(Condition::Quiet)),
                Bar::None,
                "without the flood",
            ),
            line(
                "others_p99_ms_quiet_again",
                figure(p99(Condition::QuietAgain)),
                Bar::None,
                "and once more",
            ),
            line(
                "p99_against_itself_ms_low",
                figure(itself.low),
                Bar::None,
                "the interval",
            ),
            line(
                "p99_against_itself_ms_high",
                figure(itself.high),
                Bar::None,
                "the interval",
            ),
            line(
                "neighbour_contracts",
                figure(flood.neighbour_contracts()),
                Bar::None,
                "what the neighbour is admitted in the flood, in contracts of it",
            ),
        ];
        if measured.windows.contains_key(&Condition::Machine) {
            headlines.push(line(
                "others_p99_ms_machine",
                figure(p99(Condition::Machine)),
                Bar::None,
                "while Envoy itself answers the flood, without the plugin",
            ));
        }
        Self { headlines, refused }
    }
}

/// Why nothing can be told from this run.
fn refused(measured: &Measured, itself: Interval) -> Vec<String> {
    let mut reasons = Vec::new();
    for condition in [Condition::Quiet, Condition::QuietAgain, Condition::Flood] {
        let mut sum = measured.sum(condition);
        let name = condition.name();
        let late_ms = percentile_ms(&mut sum.late_us, 0.99);
        // What is no number is not passed over.
        if late_ms.is_nan() || late_ms > LATE_P99_MS {
            reasons.push(format!(
                "{name}: 1 of 100 requests was sent {late_ms:.1} ms late or more, and {LATE_P99_MS} are allowed"
            ));
        }
        let others_cpu = sum.others_cpu();
        if others_cpu.is_nan() || others_cpu > OTHERS_CPU {
            reasons.push(format!(
                "{name}: others used {:.0} % of the machine, and {:.0} % are allowed",
                100.0 * others_cpu,
                100.0 * OTHERS_CPU
            ));
        }
    }
    let width = (itself.high - itself.low) / measured.percentile_ms(Condition::Quiet, 0.99);
    if width.is_nan() || width > INTERVAL_WIDTH {
        reasons.push(format!(
            "two quiet runs are {:.0} % of their p99 apart, and {:.0} % are allowed",
            100.0 * width,
            100.0 * INTERVAL_WIDTH
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::window::Count;
    use super::*;

    fn window(took_us: u32, late_us: u32, others_cpu: f64) -> Window {
        Window {
            seconds: 3.0,
            took_us: (0..600).map(|number| took_us + number).collect(),
            late_us: vec![late_us; 600],
            others: Count {
                sent: 600,
                admitted: 600,
            },
            others_cpu_s: 3.0 * others_cpu,
            ..Window::default()
        }
    }

    fn measured(quiet: [u32; 2], late_us: u32, others_cpu: f64) -> Measured {
        let [first, second] = quiet.map(|took_us| vec![window(took_us, late_us, others_cpu); 4]);
        Measured {
            arrangement: super::super::TRIALS[0].arrangement,
            windows: BTreeMap::from([
                (Condition::Quiet, first),
                (Condition::QuietAgain, second),
                (
                    Condition::Flood,
                    vec![window(20_000, late_us, others_cpu); 4],
                ),
            ]),
        }
    }

    #[test]
    fn a_busy_machine_a_late_sender_and_quiet_runs_that_differ_get_no_verdict() {
        for (measured, reasons) in [
            (measured([20_000, 20_100], 500, 0.02), 0),
            (measured([20_000, 20_100], 2_500, 0.02), 3),
            (measured([20_000, 20_100], 500, 0.3), 3),
            (measured([20_000, 30_000], 500, 0.02), 1),
        ] {
            let verdict = Verdict::of(&measured);
            assert_eq!(verdict.refused.len(), reasons, "{:?}", verdict.refused);
            let of_bars = verdict.headlines.iter().take(3);
            for headline in of_bars {
                let is_measured = headline.found != Found::NotMeasured;
                assert_eq!(is_measured, reasons == 0, "{}", headline.field);
            }
        }
    }
}
