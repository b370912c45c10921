//! Parquet rows, read in batches through Arrow. Every column is first cast to the one type that is used here, so that
//! dictionaries, 32-bit floats and microsecond stamps need no code of their own.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, SchemaRef, TimeUnit, TimestampNanosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::read::named_twice;
use crate::rows::{Cells, Rows};
use crate::{ReadOptions, TraceError};

const BATCH_ROWS: usize = 65_536;

struct Columns {
    tenant: String,
    at: String,
    gap: Option<String>,
    resource: Option<String>,
}

pub(crate) fn read(path: &Path, options: &ReadOptions, rows: &mut Rows) -> Result<(), TraceError> {
    // The decoder returns errors for most damage, but a damaged page can also make it panic (index arithmetic on
    // lengths of the file). A training program must answer that with the file's name, not with a stack trace.
    catch_unwind(AssertUnwindSafe(|| read_unguarded(path, options, rows)))
        .unwrap_or_else(|panic| Err(damaged(path, panic_text(panic.as_ref()))))
}

fn read_unguarded(path: &Path, options: &ReadOptions, rows: &mut Rows) -> Result<(), TraceError> {
    let file = File::open(path).map_err(|source| TraceError::Io {
        path: path.to_owned(),
        source,
    })?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, error))?;
    let columns = Columns::find(path, builder.schema(), options)?;
    let wanted = options
        .value_columns
        .iter()
        .map(String::as_str)
        .chain([columns.tenant.as_str(), columns.at.as_str()])
        .chain(columns.gap.as_deref())
        .chain(columns.resource.as_deref());
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    let batches = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| damaged(path, error))?;
    for batch in batches {
        let batch = batch.map_err(|error| damaged(path, error))?;
        push_batch(path, rows, &batch, &columns, options)?;
    }
    Ok(())
}

fn push_batch(
    path: &Path,
    rows: &mut Rows,
    batch: &RecordBatch,
    columns: &Columns,
    options: &ReadOptions,
) -> Result<(), TraceError> {
    let stamp = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let tenants = typed(path, batch, &columns.tenant, &DataType::Utf8, "text")?;
    let tenants = tenants.as_string::<i32>();
    let stamps = typed(path, batch, &columns.at, &stamp, "a time")?;
    let stamps = stamps.as_primitive::<TimestampNanosecondType>();
    let values = options
        .value_columns
        .iter()
        .map(|name| typed(path, batch, name, &DataType::Float64, "a number"))
        .collect::<Result<Vec<_>, _>>()?;
    let gaps = match &columns.gap {
        Some(name) => Some(typed(
            path,
            batch,
            name,
            &DataType::Boolean,
            "true or false",
        )?),
        None => None,
    };
    let resources = match &columns.resource {
        Some(name) => Some(typed(path, batch, name, &DataType::Utf8, "text")?),
        None => None,
    };
    let value_columns = options.value_columns.join("+");
    for index in 0..batch.num_rows() {
        if tenants.is_null(index) {
            return Err(rows.bad_cell(&columns.tenant, "the tenant is missing"));
        }
        if stamps.is_null(index) {
            return Err(rows.bad_cell(
                &columns.at,
                "no time, or one outside the years 1678 to 2261",
            ));
        }
        let value = values.iter().try_fold(0.0, |sum, column| {
            let column = column.as_primitive::<Float64Type>();
            column.is_valid(index).then(|| sum + column.value(index))
        });
        let gap = gaps
            .as_ref()
            .map(|gaps| gaps.as_boolean())
            .is_some_and(|gaps| gaps.is_valid(index) && gaps.value(index));
        let resource = match resources.as_ref().map(|column| column.as_string::<i32>()) {
            Some(column) if column.is_null(index) || column.value(index).is_empty() => {
                return Err(rows.bad_cell("resource", "the resource is missing"));
            }
            Some(column) => Some(column.value(index)),
            None => options.resource.as_deref(),
        };
        let cells = Cells {
            tenant: tenants.value(index),
            resource,
            at_ns: stamps.value(index),
            value,
            is_gap: gap,
        };
        rows.push(cells, &value_columns)?;
    }
    Ok(())
}

/// A column of the batch, cast to the type used here. What does not fit becomes null and is reported with its row.
fn typed(
    path: &Path,
    batch: &RecordBatch,
    name: &str,
    wanted: &DataType,
    expected: &'static str,
) -> Result<ArrayRef, TraceError> {
    let wrong = |found: &DataType| TraceError::WrongType {
        path: path.to_owned(),
        column: name.to_owned(),
        found: found.to_string(),
        expected,
    };
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| missing(path, name, &batch.schema()))?;
    // Numbers cast to times (and times to numbers) without an error; both would be nonsense with a straight face.
    let stored = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let fits = match wanted {
        DataType::Timestamp(..) => stored.is_temporal() || is_text(stored),
        DataType::Float64 => stored.is_numeric(),
        DataType::Boolean => *stored == DataType::Boolean || stored.is_numeric(),
        _ => is_text(stored) || stored.is_integer(),
    };
    if !fits {
        return Err(wrong(column.data_type()));
    }
    cast(column, wanted).map_err(|_| wrong(column.data_type()))
}

fn is_text(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

impl Columns {
    fn find(path: &Path, schema: &SchemaRef, options: &ReadOptions) -> Result<Self, TraceError> {
        let has = |name: &str| schema.column_with_name(name).is_some();
        let either = |first: &str, second: &str| {
            [first, second]
                .into_iter()
                .find(|name| has(name))
                .map(str::to_owned)
                .ok_or_else(|| missing(path, first, schema))
        };
        if let Some(absent) = options.value_columns.iter().find(|name| !has(name)) {
            return Err(missing(path, absent, schema));
        }
        let (tenant, at) = (
            either("tenant", "customer")?,
            either("timestamp_utc", "timestamp")?,
        );
        if let Some(column) = named_twice(schema.fields().iter().map(|field| field.name().as_str()))
        {
            return Err(TraceError::DuplicateColumn {
                path: path.to_owned(),
                column: column.to_owned(),
            });
        }
        Ok(Self {
            tenant,
            at,
            gap: has("gap").then(|| "gap".to_owned()),
            resource: (options.resource.is_some() && has("resource"))
                .then(|| "resource".to_owned()),
        })
    }
}

fn missing(path: &Path, column: &str, schema: &SchemaRef) -> TraceError {
    TraceError::MissingColumn {
        path: path.to_owned(),
        column: column.to_owned(),
        present: schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn damaged(path: &Path, reason: impl ToString) -> TraceError {
    TraceError::Damaged {
        path: path.to_owned(),
        kind: "Parquet",
        reason: reason.to_string(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the decoder gave up: {}", text.unwrap_or("no reason given"))
}
