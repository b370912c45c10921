//! CSV rows. The heading names the columns; stamps are RFC 3339, `2025-04-01 00:00:00+00:00`, or Unix seconds.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use csv::{Position, StringRecord};

use crate::read::named_twice;
use crate::rows::{Cells, Rows};
use crate::{ReadOptions, TraceError};

/// So much of a cell is said again.
const SHOWN_CHARS: usize = 60;

struct Columns {
    tenant: usize,
    at: usize,
    at_name: String,
    values: Vec<(usize, String)>,
    gap: Option<usize>,
    resource: Option<usize>,
}

pub(crate) fn read(path: &Path, options: &ReadOptions, rows: &mut Rows) -> Result<(), TraceError> {
    let damaged = |error: csv::Error| damaged(path, error);
    let mut file = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(damaged)?;
    let heading = file.headers().map_err(damaged)?;
    if heading.is_empty() {
        return Err(TraceError::NoHeading {
            path: path.to_owned(),
        });
    }
    let columns = Columns::find(path, heading, options)?;
    let value_columns = options.value_columns.join("+");
    let mut record = StringRecord::new();
    while file.read_record(&mut record).map_err(damaged)? {
        let pushed = push(&record, &columns, &value_columns, options, rows);
        pushed.map_err(|error| with_line(error, path, record.position()))?;
    }
    Ok(())
}

fn push(
    record: &StringRecord,
    columns: &Columns,
    value_columns: &str,
    options: &ReadOptions,
    rows: &mut Rows,
) -> Result<(), TraceError> {
    let cell = |index: usize| record.get(index).unwrap_or_default();
    let at_ns = stamp_ns(cell(columns.at)).ok_or_else(|| {
        rows.bad_cell(
            &columns.at_name,
            format!(
                "`{}` is no time; write 2025-04-01T00:00:00Z or Unix seconds",
                shown(cell(columns.at))
            ),
        )
    })?;
    let tenant = cell(columns.tenant);
    if tenant.is_empty() {
        return Err(rows.bad_cell("tenant", "the tenant is empty"));
    }
    let mut value = Some(0.0);
    for (index, name) in &columns.values {
        let text = cell(*index);
        let part = match text {
            "" => None,
            _ => Some(amount(text).map_err(|reason| rows.bad_cell(name, reason))?),
        };
        value = value.zip(part).map(|(sum, part)| sum + part);
    }
    let gap = match columns.gap.map(cell) {
        None => false,
        Some(text) => flag(text).ok_or_else(|| {
            rows.bad_cell(
                "gap",
                format!("`{}` is neither true nor false", shown(text)),
            )
        })?,
    };
    let resource = match columns.resource.map(cell) {
        Some("") => return Err(rows.bad_cell("resource", "the resource is empty")),
        resource => resource.or(options.resource.as_deref()),
    };
    let cells = Cells {
        tenant,
        resource,
        at_ns,
        value,
        is_gap: gap,
    };
    rows.push(cells, value_columns)
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_infinite() => Err(format!(
            "`{}` is no amount; amounts are finite and not negative",
            shown(text)
        )),
        Ok(value) => Ok(value),
        Err(_) => Err(format!("`{}` is no number", shown(text))),
    }
}

/// As much of a cell as can be shown.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn damaged(path: &Path, error: csv::Error) -> TraceError {
    let line = |at: &Option<Position>| match at.as_ref().and_then(|at| line_of(path, at.byte())) {
        Some(line) => format!("line {line}"),
        None => "a line".to_owned(),
    };
    let said = error.to_string();
    let reason = match error.into_kind() {
        csv::ErrorKind::Io(source) => {
            return TraceError::Io {
                path: path.to_owned(),
                source,
            };
        }
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => format!(
            "{} has {len} cells, and the heading has {expected_len}: put cells that hold commas into quotes",
            line(&pos)
        ),
        csv::ErrorKind::Utf8 { pos, err } => {
            format!("{} is no UTF-8 ({err}): save the file as UTF-8", line(&pos))
        }
        _ => said,
    };
    TraceError::Damaged {
        path: path.to_owned(),
        kind: "CSV",
        reason,
    }
}

fn with_line(error: TraceError, path: &Path, at: Option<&Position>) -> TraceError {
    match error {
        TraceError::BadCell {
            path: file,
            row,
            column,
            reason,
            ..
        } => TraceError::BadCell {
            path: file,
            row,
            line: at.and_then(|at| line_of(path, at.byte())),
            column,
            reason,
        },
        error => error,
    }
}

/// The line in which the row begins whose search began at this byte. The reader's own count is one less where lines end with CR LF, and does not know of
/// empty lines.
fn line_of(path: &Path, byte: u64) -> Option<u64> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let is_end = |byte: &u8| *byte == b'\n';
    let mut line = 1_u64;
    let mut before = (&mut file).take(byte);
    loop {
        let chunk = before.fill_buf().ok()?;
        let read = chunk.len();
        if read == 0 {
            break;
        }
        line = line.saturating_add(chunk.iter().filter(|byte| is_end(byte)).count() as u64);
        before.consume(read);
    }
    for byte in file.bytes() {
        match byte.ok()? {
            b'\n' => line = line.saturating_add(1),
            b'\r' => {}
            _ => break,
        }
    }
    Some(line)
}

impl Columns {
    fn find(
        path: &Path,
        heading: &StringRecord,
        options: &ReadOptions,
    ) -> Result<Self, TraceError> {
        let position = |name: &str| heading.iter().position(|column| column == name);
        let missing = |column: &str| TraceError::MissingColumn {
            path: path.to_owned(),
            column: column.to_owned(),
            present: heading.iter().collect::<Vec<_>>().join(", "),
        };
        let either = |names: [&'static str; 2]| {
            names
                .iter()
                .find_map(|name| position(name).map(|index| (index, (*name).to_owned())))
                .ok_or_else(|| missing(names.first().copied().unwrap_or_default()))
        };
        let (tenant, _) = either(["tenant", "customer"])?;
        let (at, at_name) = either(["timestamp_utc", "timestamp"])?;
        if let Some(column) = named_twice(heading.iter()) {
            return Err(TraceError::DuplicateColumn {
                path: path.to_owned(),
                column: column.to_owned(),
            });
        }
        let values = options
            .value_columns
            .iter()
            .map(|name| {
                let index = position(name).ok_or_else(|| missing(name))?;
                Ok((index, name.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            tenant,
            at,
            at_name,
            values,
            gap: position("gap"),
            resource: position("resource").filter(|_| options.resource.is_some()),
        })
    }
}

fn stamp_ns(text: &str) -> Option<i64> {
    match text.parse::<f64>() {
        // Beyond year 2262 nanoseconds do not fit 64 bits; the bound also refuses infinities and NaN.
        Ok(seconds) if seconds.abs() < 9.2e9 => Some((seconds * 1e9).round() as i64),
        Ok(_) => None,
        Err(_) => string_to_timestamp_nanos(text).ok(),
    }
}

fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "1.0" => Some(true),
        "false" | "0" | "0.0" | "" => Some(false),
        _ => None,
    }
}
