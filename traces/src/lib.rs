//! Demand series from files: Parquet or CSV rows of (tenant, timestamp, value) become one [`Series`] per tenant on a
//! regular grid, with missing buckets masked.
//!
//! Why a crate of its own: the trainer and the demo must see exactly the same numbers from the same file, and neither
//! may bend the rules for what counts as missing. Outages that are read as zero demand fake correlation between
//! customers and teach a model that everybody stops at once, so a gap is never a zero here.
//!
//! ```no_run
//! use forebay_traces::{ReadOptions, read};
//!
//! let series = read("servegen_10m.parquet".as_ref(), &ReadOptions::value("requests"))?;
//! println!("{} tenants, step {} s", series.len(), series.first().map_or(0, |s| s.step_s));
//! # Ok::<(), forebay_traces::TraceError>(())
//! ```
#![forbid(unsafe_code)]

mod csv_file;
mod demand;
mod error;
pub mod generator;
mod grid;
mod parquet_file;
mod read;
mod rows;
mod samples;
mod series;

pub use demand::{Demand, Event, Events, read_demand};
pub use error::TraceError;
pub use read::{Join, ReadOptions, read};
pub use samples::{Sample, SampledSeries, Samples};
pub use series::Series;
