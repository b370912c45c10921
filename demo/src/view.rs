//! What the terminal shows while a run is under way.
//!
//! Plain ANSI, redrawn in place: a full-screen library would have to be told about every way out of the program to
//! leave the terminal as it was. Without a terminal a line is printed every few seconds instead.

use std::fmt::Write;

use crate::control_plane::Insight;
use crate::scenario::{Role, Scenario};
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

/// A moment of a run.
#[derive(Debug)]
pub struct Frame<'a> {
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
pub fn screen(frame: &Frame<'_>) -> String {
    let mut text = String::from(HOME);
    // Writing to a String cannot fail.
    let _ = write_screen(&mut text, frame);
    text
}

/// One line for a log.
pub fn line(frame: &Frame<'_>) -> String {
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
        "upstream and pool {:.0}/s   contracts together {:.0}/s   served {}   turned away by the upstream {}\n",
        scenario.capacity_per_s,
        scenario.customers.iter().map(|c| c.rate_per_s).sum::<f64>(),
        frame.upstream.0,
        frame.upstream.1,
    )?;
    writeln!(
        text,
        "{DIM}{:<9} {:>8} {:>12} {:>9}  {:<width$}  {:>8} {:>9} {:>12} {:>9}  {}{RESET}",
        "customer",
        "demand/s",
        "forecast/s",
        "contract",
        "standard",
        "shadow",
        "standard",
        "denied pool",
        "contract",
        "",
        width = BAR + 5,
    )?;
    for ((customer, tally), insight) in scenario
        .customers
        .iter()
        .zip(frame.tallies)
        .zip(frame.insights)
    {
        let denied = if tally.denied_by_pool > 0 { RED } else { "" };
        writeln!(
            text,
            "{}{:<9}{RESET} {:>8} {:>12} {:>9.0}  {}  {GREEN}{:>8}{RESET} {:>9} {denied}{:>12}{RESET} {:>9}  {}",
            if customer.role == Role::Spiker {
                YELLOW
            } else {
                ""
            },
            customer.name,
            tally.demand,
            insight
                .forecast_per_s
                .map_or_else(|| "-".to_owned(), |high| format!("{high:.0}")),
            customer.rate_per_s,
            bar(insight.standard_tokens, customer.burst),
            tally.shadow,
            tally.standard,
            tally.denied_by_pool,
            tally.denied_by_contract,
            if insight.contended { "contention" } else { "" },
        )?;
    }
    writeln!(
        text,
        "\n{DIM}Ctrl-C ends the demo and everything that it started.{RESET}"
    )
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A bucket's level as a bar and a percentage.
fn bar(tokens: Option<f64>, depth: f64) -> String {
    let Some(tokens) = tokens else {
        return format!("{:<width$}", "-", width = BAR + 5);
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
