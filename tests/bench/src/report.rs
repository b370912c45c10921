//! A bench's figures: a table for people, a flat object of numbers for programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The figures of one bench, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    field: String,
    value: f64,
    meaning: String,
}

// === impl Report ===

impl Report {
    /// Adds a figure.
    pub(crate) fn add(&mut self, field: &str, value: f64, meaning: &str) {
        self.0.push(Figure {
            field: field.to_owned(),
            value,
            meaning: meaning.to_owned(),
        });
    }

    /// Prints the table and writes `target/report/NAME.json`. Fields that another run of the same report wrote
    /// stay, so that two halves of a bench can write one report.
    pub(crate) fn publish(&self, name: &str) -> Result<()> {
        println!("{name}");
        for Figure {
            field,
            value,
            meaning,
        } in &self.0
        {
            println!("  {field:24} {value:>14.3}  {meaning}");
        }
        let path = folder()?.join(format!("{name}.json"));
        let mut fields: Map<String, Value> = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for figure in &self.0 {
            fields.insert(figure.field.clone(), figure.value.into());
        }
        fs::write(&path, serde_json::to_string_pretty(&fields)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }
}

/// Where reports are, made if missing.
pub(crate) fn folder() -> Result<PathBuf> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = crate_dir
        .ancestors()
        .nth(2)
        .unwrap_or(crate_dir)
        .join("target/report");
    fs::create_dir_all(&folder).context("cannot create target/report")?;
    Ok(folder)
}

/// The middle value; the mean of the two middle ones when there is an even number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// The value that so large a part of the values does not exceed; 0 of none.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}
