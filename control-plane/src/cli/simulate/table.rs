//! What people read: a line for each policy, means over the seeds with half of their interval.

use super::super::commands::SimulateOptions;
use forebay_simulator::{Comparison, Figures, Mean, Trace};
use std::fmt::Write;

/// How a figure is shown: its heading, what it is multiplied by, and decimals.
type Column = (&'static str, f64, usize);

/// In the order of [`Figures::NAMES`].
const COLUMNS: [Column; Figures::NAMES.len()] = [
    ("goodput %", 100.0, 2),
    ("false rej. %", 100.0, 2),
    ("over-adm.", 1.0, 1),
    ("worst 1 s", 1.0, 1),
    ("worst 10 s", 1.0, 1),
    ("guar. missed %", 100.0, 2),
    ("msgs/request", 1.0, 3),
    ("bytes/request", 1.0, 1),
    ("stale ms", 1.0, 0),
    ("Jain", 1.0, 4),
    ("waited %", 100.0, 1),
    ("wait ms", 1.0, 2),
];

/// The heading and the table.
pub(super) fn text(trace: &Trace, options: &SimulateOptions, comparison: &Comparison) -> String {
    let mut rows = vec![heading()];
    for (policy, means) in comparison.means() {
        let cells = COLUMNS.iter().zip(means);
        let mut row = vec![policy.to_string()];
        row.extend(cells.map(|(column, mean)| cell(*column, mean)));
        rows.push(row);
    }
    let mut text = summary(trace, options, comparison);
    text.push_str(&lines(&rows));
    text
}

/// Rows of cells under one another, each on a line of its own: names to the left, figures to the right.
pub(super) fn lines(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<0$}", *width),
                _ => format!("{cell:>0$}", *width),
            })
            .collect();
        text.push('\n');
        text.push_str(&line.join("  "));
    }
    text
}

fn summary(trace: &Trace, options: &SimulateOptions, comparison: &Comparison) -> String {
    let mut seeds: Vec<u64> = comparison.runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let mut text = format!(
        "{} customers for {} s at {} gateways; contracts within {} mean loads; reserve {}; faults {}; ",
        trace.tenants.len(),
        trace.length_us / 1_000_000,
        options.gateways,
        options.capacity,
        options.reserve,
        if options.faults { "on" } else { "off" },
    );
    // Writing to a string cannot fail.
    let _ = match seeds.as_slice() {
        [seed] => write!(text, "seed {seed}"),
        _ => write!(
            text,
            "means over {} seeds and half of their 95 % intervals",
            seeds.len()
        ),
    };
    text
}

fn heading() -> Vec<String> {
    let names = COLUMNS.iter().map(|(name, ..)| (*name).to_owned());
    std::iter::once("policy".to_owned()).chain(names).collect()
}

fn cell((_, factor, decimals): Column, mean: Mean) -> String {
    let value = mean.mean * factor;
    let interval = mean.ci95 * factor;
    if !value.is_finite() {
        return "-".to_owned();
    }
    // An interval that would be shown as nothing only makes the table wider.
    if interval.is_finite() && interval * 10_f64.powi(decimals as i32) >= 0.5 {
        format!("{value:.decimals$} ±{interval:.decimals$}")
    } else {
        format!("{value:.decimals$}")
    }
}
