//! The folder of a data set, there as a whole or not at all: it is written beside its place and renamed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt8Array,
};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::ResourceGrid;
use super::covariates::column_of;
use super::grid::UsageGrid;
use super::labels::{CustomerLabels, GEOGRAPHY, Labels, ROLES};
use super::local_clock::LocalClock;
use super::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest, file_of};
use crate::destination::try_to_create;
use crate::error::TrainError;
use crate::unfinished::Unfinished;

/// Steps of a customer that are written at once.
const BATCH_STEPS: usize = 65_536;

pub(super) fn refuse_taken(out: &Path) -> Result<(), TrainError> {
    match out.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => Err(TrainError::Data {
            path: out.to_owned(),
            reason: "there is something of that name already: a data set is not written over; name another folder with --out".into(),
        }),
    }
}

/// Before anything is read.
pub(super) fn refuse_unwritable(out: &Path) -> Result<(), TrainError> {
    if out.file_name().is_none() {
        return Err(TrainError::Options(format!(
            "--out: {} is no name of a new folder",
            out.display()
        )));
    }
    try_to_create(out).map_err(|error| TrainError::Destination {
        path: out.to_owned(),
        reason: error.to_string(),
    })
}

/// What belongs to a data set, if the folder is one.
pub(crate) fn files_of(set: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(set).into_iter().flatten().flatten();
    let tables = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    let others = [MANIFEST, ROLES, GEOGRAPHY].map(|name| set.join(name));
    tables.chain(others).collect()
}

/// Writes the data set, and gives the manifest back as it was written.
pub(super) fn write(
    out: &Path,
    mut manifest: Manifest,
    grids: &[ResourceGrid],
    clock: &LocalClock,
    labels: &CustomerLabels,
) -> Result<Manifest, TrainError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TrainError::Io { path, source }
    };
    let refused = |error: io::Error| TrainError::Destination {
        path: out.to_owned(),
        reason: error.to_string(),
    };
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(refused)?;
    }
    let begun = Unfinished::folder(out)?;
    let unfinished = begun.path().to_owned();
    for grid in grids {
        write_resource(&file_of(&unfinished, &grid.name), grid, clock)?;
    }
    for (name, labels) in [(ROLES, &labels.roles), (GEOGRAPHY, &labels.geography)] {
        write_labels(&unfinished.join(name), labels)?;
    }
    manifest.sum(&unfinished)?;
    let path = unfinished.join(MANIFEST);
    let text = serde_json::to_string_pretty(&manifest).map_err(|source| TrainError::Json {
        path: path.clone(),
        source,
    })?;
    let text = text + "\n";
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(TrainError::Data {
            path: out.to_owned(),
            reason: format!(
                "its {MANIFEST} would have {} bytes, and {MANIFEST_BYTES_MAX} are read at most: join some of the {} sources first",
                text.len(),
                manifest.sources()
            ),
        });
    }
    fs::write(&path, text).map_err(failed(&path))?;
    for entry in fs::read_dir(&unfinished).map_err(failed(&unfinished))? {
        let path = entry.map_err(failed(&unfinished))?.path();
        let file = File::open(&path).map_err(failed(&path))?;
        file.sync_all().map_err(failed(&path))?;
    }
    // Somebody may have been there meanwhile, and an empty folder would be replaced.
    refuse_taken(out)?;
    begun.finish(out).map_err(refused)?;
    Ok(manifest)
}

/// Nothing where nobody has a label.
fn write_labels(path: &Path, labels: &Labels) -> Result<(), TrainError> {
    if labels.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string_pretty(labels).map_err(|source| TrainError::Json {
        path: path.to_owned(),
        source,
    })?;
    fs::write(path, text + "\n").map_err(|source| TrainError::Io {
        path: path.to_owned(),
        source,
    })
}

fn write_resource(path: &Path, grid: &ResourceGrid, clock: &LocalClock) -> Result<(), TrainError> {
    let io = |source| TrainError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::create_new(path).map_err(io)?;
    write_batches(file, grid, clock).map_err(|error| io(std::io::Error::other(error)))
}

fn write_batches(file: File, grid: &ResourceGrid, clock: &LocalClock) -> Result<(), ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let names: Vec<String> = grid.covariates.keys().map(|name| column_of(name)).collect();
    let nobody = UsageGrid::empty(names.len());
    let schema = batch(&nobody, 0, clock, &names)?.schema();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
    for customer in &grid.customers {
        for from in (0..customer.len()).step_by(BATCH_STEPS) {
            writer.write(&batch(customer, from, clock, &names)?)?;
        }
    }
    writer.close().map(|_| ())
}

/// Steps of a customer as rows, covariates by these names behind them.
fn batch(
    one: &UsageGrid,
    from: usize,
    clock: &LocalClock,
    covariates: &[String],
) -> Result<RecordBatch, ArrowError> {
    let steps = from..one.len().min(from + BATCH_STEPS);
    let locals: Vec<_> = steps
        .clone()
        .map(|step| clock.local(one.stamp_s(step)))
        .collect();
    let customers = StringArray::from_iter_values(steps.clone().map(|_| &one.customer));
    let stamps = steps.clone().map(|step| one.stamp_s(step) * 1_000);
    let stamps = TimestampMillisecondArray::from_iter_values(stamps).with_timezone("UTC");
    let known = |amount: f64| (!amount.is_nan()).then_some(amount);
    let recorded = steps.clone().map(|step| known(one.recorded(step)));
    let amounts = steps.clone().map(|step| known(one.amounts[step]));
    let is_outlier = steps
        .clone()
        .map(|step| Some(one.outliers.contains_key(&step)));
    let column = |name: &'static str, values: ArrayRef, is_nullable: bool| {
        (name.to_owned(), values, is_nullable)
    };
    let measured = covariates.iter().zip(&one.covariates);
    let measured = measured.map(|(name, values)| {
        let values = steps.clone().map(|step| known(values[step]));
        let values: ArrayRef = Arc::new(Float64Array::from_iter(values));
        (name.clone(), values, true)
    });
    let usage = [
        column("tenant", Arc::new(customers), false),
        column("timestamp_utc", Arc::new(stamps), false),
        // Before what is clipped: of a file without its manifest, the first number is what is scored.
        column(
            "recorded",
            Arc::new(Float64Array::from_iter(recorded)),
            true,
        ),
        column("amount", Arc::new(Float64Array::from_iter(amounts)), true),
        column(
            "outlier",
            Arc::new(BooleanArray::from_iter(is_outlier)),
            false,
        ),
        column(
            "local_hour",
            Arc::new(UInt8Array::from_iter_values(
                locals.iter().map(|local| local.hour),
            )),
            false,
        ),
        column(
            "local_weekday",
            Arc::new(UInt8Array::from_iter_values(
                locals.iter().map(|local| local.weekday),
            )),
            false,
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(usage.into_iter().chain(measured))
}
