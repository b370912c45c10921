//! What the terminal shows while a run is under way.
//!
//! Plain ANSI, redrawn in place: a full-screen library would have to be told about every way out of the program to
//! leave the terminal as it was. Without a terminal a line is printed every few seconds instead.

use std::fmt::Write;

use crate::control_plane::Insight;
use crate::scenario::{Customer, Role, Scenario};
use crate::tally::Tally;

/// Moves the cursor to the top left corner and clears what is below it.
const HOME: &str = "\x1b[H\x1b[J";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";
/// Width of a bucket's bar in characters.
const BAR: usize = 10;
/// Width of a bucket's column: bar and percentage.
const BUCKET: usize = BAR + 5;

/// A moment of a run.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// What is being replayed.
    pub scenario: &'a Scenario,
    /// Whether shadow buckets are on.
    pub shadow_on: bool,
    /// Seconds replayed, and in total.
    pub seconds: (f64, f64),
    /// The last second of traffic, per customer.
    pub tallies: &'a [Tally],
    /// What the control plane knows, per customer.
    pub insights: &'a [Insight],
    /// Requests answered by the upstream, and turned away.
    pub upstream: (u64, u64),
}

/// The whole screen.
pub(crate) fn screen(frame: &Frame<'_>) -> String {
    let mut text = String::from(HOME);
    // Writing to a String cannot fail.
    let _ = write_screen(&mut text, frame);
    text
}

/// One line for a log.
pub(crate) fn line(frame: &Frame<'_>) -> String {
    let sum = |of: fn(&Tally) -> u64| frame.tallies.iter().map(of).sum::<u64>();
    format!(
        "{:>4.0} s  shadow buckets {:>3}  demand {:>5}/s  admitted {:>5}/s ({} within forecast)  denied: pool {:>4}/s, contract {:>4}/s",
        frame.seconds.0,
        on_off(frame.shadow_on),
        sum(|t| t.demand),
        sum(|t| t.shadow + t.standard),
        sum(|t| t.shadow),
        sum(|t| t.denied_by_pool),
        sum(|t| t.denied_by_contract),
    )
}

fn write_screen(text: &mut String, frame: &Frame<'_>) -> std::fmt::Result {
    let scenario = frame.scenario;
    writeln!(
        text,
        "{BOLD}forebay demo{RESET}   shadow buckets {BOLD}{}{RESET}   {:.0} of {:.0} s   {} x faster than life   {DIM}{}{RESET}",
        on_off(frame.shadow_on),
        frame.seconds.0,
        frame.seconds.1,
        scenario.speed_up(),
        scenario.source,
    )?;
    writeln!(
        text,
        "pool {:.0}/s   contracts together {:.0}/s   served {}   turned away by the upstream {}\n",
        scenario.capacity_per_s,
        scenario.customers.iter().map(|c| c.rate_per_s).sum::<f64>(),
        frame.upstream.0,
        frame.upstream.1,
    )?;
    writeln!(
        text,
        "{DIM}{:<9}{:>7}{:>12}{:>9}   {:<BUCKET$}   {:<BUCKET$}{:>10}{:>10}{:>10}{:>10}{RESET}",
        "customer",
        "demand",
        "forecast",
        "contract",
        "standard bucket",
        "shadow bucket",
        "shadow",
        "standard",
        "no pool",
        "no contr."
    )?;
    for ((customer, tally), insight) in scenario
        .customers
        .iter()
        .zip(frame.tallies)
        .zip(frame.insights)
    {
        write_customer(text, customer, tally, insight)?;
    }
    writeln!(
        text,
        "\n{DIM}All rates per second. forecast: quantiles 0.1 to 0.9. shadow, standard: verdicts of admitted requests.\n\
         no pool, no contr.: denials and what was short. contention: sustained deviation from the forecast.\n\
         Ctrl-C ends the demo and everything that it started.{RESET}"
    )
}

fn write_customer(
    text: &mut String,
    customer: &Customer,
    tally: &Tally,
    insight: &Insight,
) -> std::fmt::Result {
    let colour = if customer.role == Role::Spiker {
        YELLOW
    } else {
        ""
    };
    let denied = if tally.denied_by_pool > 0 { RED } else { "" };
    let band = insight.band_per_s.map_or_else(
        || "-".to_owned(),
        |(low, high)| format!("{low:.0}..{high:.0}"),
    );
    writeln!(
        text,
        "{colour}{:<9}{RESET}{:>7}{band:>12}{:>9.0}   {}   {}{GREEN}{:>10}{RESET}{:>10}{denied}{:>10}{RESET}{:>10}   {}",
        customer.name,
        tally.demand,
        customer.rate_per_s,
        bar(insight
            .standard_tokens
            .map(|tokens| (tokens, customer.burst))),
        bar(insight.shadow_tokens),
        tally.shadow,
        tally.standard,
        tally.denied_by_pool,
        tally.denied_by_contract,
        if insight.contended { "contention" } else { "" },
    )
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Level and depth of a bucket as a bar and a percentage.
fn bar(bucket: Option<(f64, f64)>) -> String {
    let Some((tokens, depth)) = bucket.filter(|(_, depth)| *depth > 0.0) else {
        return format!("{:<BUCKET$}", "-");
    };
    let share = (tokens / depth).clamp(0.0, 1.0);
    let full = (share * BAR as f64).round() as usize;
    format!(
        "{}{} {:>3.0}%",
        "█".repeat(full),
        "░".repeat(BAR - full),
        share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::{Frame, bar, line, screen};
    use crate::control_plane::Insight;
    use crate::scenario::{Scenario, Size};
    use crate::tally::Tally;

    #[test]
    fn a_bar_has_the_same_width_whatever_it_shows() {
        for bucket in [
            None,
            Some((0.0, 10.0)),
            Some((3.0, 10.0)),
            Some((11.0, 10.0)),
            Some((-1.0, 10.0)),
            Some((0.0, 0.0)),
        ] {
            assert_eq!(bar(bucket).chars().count(), 15, "{bucket:?}");
        }
    }

    #[test]
    fn the_screen_names_every_customer_and_what_it_was_denied() {
        let size = Size {
            capacity_per_s: 500.0,
            steps: 10,
            step_ms: 1_000,
            seed: 1,
        };
        let scenario = Scenario::new(None, size).unwrap();
        let tallies = vec![
            Tally {
                demand: 100,
                shadow: 60,
                standard: 3,
                denied_by_pool: 37,
                denied_by_contract: 0
            };
            6
        ];
        let insights = vec![
            Insight {
                band_per_s: Some((90.0, 110.0)),
                contended: true,
                ..Insight::default()
            };
            6
        ];
        let frame = Frame {
            scenario: &scenario,
            shadow_on: true,
            seconds: (1.0, 10.0),
            tallies: &tallies,
            insights: &insights,
            upstream: (600, 0),
        };
        let shown = screen(&frame);
        for word in ["acorn", "flare", "90..110", "contention", "37"] {
            assert!(shown.contains(word), "{word} is missing in\n{shown}");
        }
        assert!(line(&frame).contains("pool  222/s"), "{}", line(&frame));
    }
}
