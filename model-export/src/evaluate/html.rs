//! The report for people: one page that needs no server and no network.

use std::fmt::Write;

use super::{DEPLOYED, Evaluated, Table, said_of, svg};
use crate::output::figure;

const STYLE: &str = "body{font:14px sans-serif;margin:2em auto;max-width:60em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}tr.deployed{font-weight:bold}\
svg{background:#fafafa;border:1px solid #ddd;margin:.3em 0}svg polyline{fill:none;stroke-width:1.2}\
.usage{stroke:#222}.median{stroke:#0868ac}.upper{stroke:#0868ac;stroke-dasharray:2 3}.band{fill:#a8ddb5;stroke:none;opacity:.7}\
.promise{stroke:#999}circle{fill:#0868ac}";

pub(super) fn page(evaluated: &[Evaluated]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Forecasts</title><style>{STYLE}</style></head><body>\n<h1>Forecasts, by rolling origin</h1>\n\
         <p>wQL is the pinball loss over the quantiles 0.1, 0.5, 0.9 and 0.99, as a part of demand; less is better. The ratio is that of what would be deployed to the simple \
         method that turned out to be best. Drawings show demand (black), the median, the band from the 0.1 to the 0.9 quantile and the 0.99 quantile (dotted).</p>\n"
    );
    for one in evaluated {
        section(&mut page, one);
    }
    page.push_str("</body></html>\n");
    page
}

// Writing to a string cannot fail.
fn section(page: &mut String, one: &Evaluated) {
    let _ = writeln!(
        page,
        "<h2>{}</h2>\n<p>{}</p>",
        escaped(&one.name),
        escaped(&one.settings)
    );
    for entrant in &one.entrants {
        let _ = writeln!(page, "<p>{}</p>", escaped(&said_of(entrant)));
    }
    for table in &one.tables {
        scores(page, table);
    }
    for remark in &one.remarks {
        let _ = writeln!(page, "<p>{}</p>", escaped(remark));
    }
    for fan in &one.fans {
        let _ = writeln!(page, "<h3>{}</h3>\n{}", escaped(&fan.tenant), fan.draw());
    }
}

fn scores(page: &mut String, table: &Table) {
    let _ = writeln!(
        page,
        "<h3>Steps 1 to {}: ratio {}, median tenant {}</h3>\n<table><tr><th>method</th><th>MASE</th><th>WAPE</th><th>wQL</th><th>wQL, median tenant</th><th>coverage of q0.9, %</th><th>of q0.99, %</th></tr>",
        table.steps,
        figure(table.ratio(), 3),
        figure(table.median_ratio(), 3)
    );
    for (name, s) in &table.rows {
        let class = if *name == DEPLOYED {
            " class=\"deployed\""
        } else {
            ""
        };
        let _ = writeln!(
            page,
            "<tr{class}><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            figure(s.mase, 3),
            figure(s.wape, 3),
            figure(s.wql, 4),
            figure(s.wql_median, 4),
            figure(100.0 * s.coverage_90(), 1),
            figure(100.0 * s.coverage_99(), 1)
        );
    }
    page.push_str("</table>\n");
    if let Some(ratio) = table.events_ratio {
        let _ = writeln!(
            page,
            "<p>wQL with events known / unknown: {}</p>",
            figure(ratio, 3)
        );
    }
    if let Some(odds) = &table.odds {
        let _ = writeln!(page, "<p>{}</p>", odds.said());
    }
    if let Some(deployed) = table.of(DEPLOYED) {
        page.push_str(&svg::calibration(&deployed.coverage));
    }
}

/// Names come out of files.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
