//! What a trace file may look like, and what is said when it does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A step of a test that fails must stop the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int32Array, RecordBatch, StringArray};
use arrow::array::{Float64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use forebay_traces::{Join, ReadOptions, Series, TraceError, read};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;

/// A file in a folder of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("forebay-traces-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn read(&self, options: &ReadOptions) -> Result<Vec<Series>, TraceError> {
        read(&self.0, options)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = self.0.parent() {
            // A folder left behind in the system's temporary place harms no later run.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn csv(text: &str) -> Result<Vec<Series>, TraceError> {
    Scratch::new("trace.csv", text.as_bytes()).read(&ReadOptions::value("requests"))
}

fn error(text: &str) -> String {
    csv(text).unwrap_err().to_string()
}

/// Values with NaN written as -1, so that they can be compared.
fn values(series: &Series) -> Vec<f64> {
    series
        .values
        .iter()
        .map(|v| if v.is_nan() { -1.0 } else { *v })
        .collect()
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn small_parquet() -> Vec<u8> {
    let minute_us = 60_000_000;
    parquet(vec![
        (
            "tenant",
            Arc::new(StringArray::from(vec!["b", "b", "b", "a", "a"])),
        ),
        (
            "timestamp_utc",
            Arc::new(
                TimestampMicrosecondArray::from(vec![
                    0,
                    minute_us,
                    2 * minute_us,
                    0,
                    3 * minute_us,
                ])
                .with_timezone("UTC"),
            ),
        ),
        (
            "requests",
            Arc::new(Float32Array::from(vec![
                Some(1.0),
                Some(2.0),
                None,
                Some(4.0),
                Some(5.0),
            ])),
        ),
        (
            "gap",
            Arc::new(BooleanArray::from(vec![false, true, false, false, false])),
        ),
    ])
}

#[test]
fn rows_in_any_order_become_sorted_series_with_gaps_masked() {
    let series = csv("timestamp_utc,tenant,requests,gap\n\
         1970-01-01T00:03:00Z,b,4,false\n\
         1970-01-01 00:00:00+00:00,b,1,false\n\
         60,b,2,true\n\
         0,a,7,false\n\
         60,a,,false\n\
         120,a,9,false\n")
    .unwrap();
    assert_eq!(
        series.iter().map(|s| s.tenant.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(series[0].step_s, 60);
    // An empty cell is missing; a marked gap is missing; minute 2 of b has no row and is missing.
    assert_eq!(values(&series[0]), [7.0, -1.0, 9.0]);
    assert_eq!(values(&series[1]), [1.0, -1.0, -1.0, 4.0]);
}

#[test]
fn odd_stamps_are_floored_to_the_usual_step_and_duplicates_are_joined() {
    let text = "tenant,timestamp,requests\na,5,1\na,65,2\na,125,3\na,185,4\na,119,6\n";
    let series = csv(text).unwrap();
    // 65 and 119 fall into the same minute: their mean.
    assert_eq!((series[0].start_s, series[0].step_s), (0, 60));
    assert_eq!(values(&series[0]), [1.0, 4.0, 3.0, 4.0]);
    let sum = ReadOptions {
        join: Join::Sum,
        ..ReadOptions::value("requests")
    };
    let series = Scratch::new("trace.csv", text.as_bytes())
        .read(&sum)
        .unwrap();
    assert_eq!(values(&series[0]), [1.0, 8.0, 3.0, 4.0]);
}

#[test]
fn events_become_counts_per_second_with_zero_where_nothing_happened() {
    let options = ReadOptions {
        step_s: Some(1),
        join: Join::Sum,
        fill_zero: true,
        ..ReadOptions::value("tokens_in+tokens_out")
    };
    let text = "tenant,timestamp_utc,tokens_in,tokens_out\na,0.1,1,1\na,0.2,2,0\na,3.9,5,5\n";
    let series = Scratch::new("events.csv", text.as_bytes())
        .read(&options)
        .unwrap();
    assert_eq!(values(&series[0]), [4.0, 0.0, 0.0, 10.0]);
}

#[test]
fn parquet_reads_the_same_way_as_csv() {
    let series = Scratch::new("trace.parquet", &small_parquet())
        .read(&ReadOptions::value("requests"))
        .unwrap();
    assert_eq!(
        series.iter().map(|s| s.tenant.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(values(&series[0]), [4.0, -1.0, -1.0, 5.0]);
    assert_eq!(values(&series[1]), [1.0, -1.0, -1.0]);
}

#[test]
fn a_missing_column_is_named_with_those_that_are_there() {
    let message = error("tenant,timestamp_utc,hits\na,0,1\n");
    assert!(
        message.contains("no column `requests`") && message.contains("tenant, timestamp_utc, hits"),
        "{message}"
    );
    let message = error("who,timestamp_utc,requests\na,0,1\n");
    assert!(message.contains("no column `tenant`"), "{message}");
    let bytes = parquet(vec![("tenant", Arc::new(StringArray::from(vec!["a"])))]);
    let message = Scratch::new("t.parquet", &bytes)
        .read(&ReadOptions::value("requests"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("no column `requests`"), "{message}");
}

#[test]
fn a_bad_cell_is_named_with_row_and_column() {
    let head = "tenant,timestamp_utc,requests\na,0,1\n";
    for (row, column, reason) in [
        ("a,60,many\n", "requests", "`many` is no number"),
        ("a,60,-3\n", "requests", "not negative"),
        ("a,60,inf\n", "requests", "finite"),
        ("a,60,1e400\n", "requests", "`1e400` is no amount"),
        ("a,60,1e31\n", "requests", "above 1e30"),
        ("a,yesterday,1\n", "timestamp_utc", "`yesterday` is no time"),
        ("a,1e300,1\n", "timestamp_utc", "is no time"),
        (",60,1\n", "tenant", "empty"),
    ] {
        let message = error(&format!("{head}{row}"));
        assert!(
            message.contains("row 2") && message.contains(column) && message.contains(reason),
            "{message}"
        );
    }
    let message = error("tenant,timestamp_utc,requests,gap\na,0,1,perhaps\n");
    assert!(
        message.contains("column `gap`") && message.contains("`perhaps`"),
        "{message}"
    );
}

#[test]
fn the_line_of_a_bad_row_is_said_however_lines_end() {
    for (text, place) in [
        (
            "tenant,timestamp_utc,requests\na,0,1\na,60,x\n",
            "row 2 (line 3)",
        ),
        (
            "tenant,timestamp_utc,requests\r\na,0,1\r\na,60,x\r\n",
            "row 2 (line 3)",
        ),
        (
            "tenant,timestamp_utc,requests\r\n\r\na,0,1\r\n\r\na,60,x\r\n",
            "row 2 (line 5)",
        ),
        (
            "tenant,timestamp_utc,requests\n\"a\nb\",0,1\na,60,x\n",
            "row 2 (line 4)",
        ),
        (
            "\u{feff}tenant,timestamp_utc,requests\na,0,x\n",
            "row 1 (line 2)",
        ),
        (
            "tenant,timestamp_utc,requests\r\na,0,1\r\na,60\r\n",
            "line 3 has 2 cells",
        ),
    ] {
        let message = error(text);
        assert!(message.contains(place), "{text:?}: {message}");
    }
    let message = error(&format!(
        "tenant,timestamp_utc,requests\na,0,{}\n",
        "x".repeat(1_000)
    ));
    assert!(message.len() < 300, "{message}");
    let bytes = b"tenant,timestamp_utc,requests\na,0,1\n\xff,60,1\n";
    let message = Scratch::new("trace.csv", bytes)
        .read(&ReadOptions::value("requests"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("line 3 is no UTF-8"), "{message}");
}

#[test]
fn two_columns_of_one_name_are_refused_and_empty_names_are_none() {
    let message = error("tenant,timestamp_utc,requests,requests\na,0,1,2\n");
    assert!(message.contains("two columns `requests`"), "{message}");
    // Not only columns that are read: which one another program has meant is as unknown.
    let message = error("tenant,timestamp_utc,requests,note,note\na,0,1,x,y\n");
    assert!(message.contains("two columns `note`"), "{message}");
    assert!(csv("tenant,timestamp_utc,requests,,\na,0,1,,\na,60,1,,\n").is_ok());
    // It is no trace, and so nobody minds.
    let message = error("day,name,name\n2025-01-01,x,y\n");
    assert!(message.contains("no column `tenant`"), "{message}");

    let column = |name: &str, kind| Field::new(name, kind, false);
    let schema = Arc::new(Schema::new(vec![
        column("tenant", DataType::Utf8),
        column("timestamp_utc", DataType::Utf8),
        column("requests", DataType::Float64),
        column("requests", DataType::Float64),
    ]));
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let number = |number: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![number])) };
    let columns = vec![
        text("a"),
        text("1970-01-01T00:00:00"),
        number(1.0),
        number(2.0),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let message = Scratch::new("t.parquet", &bytes)
        .read(&ReadOptions::value("requests"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("two columns `requests`"), "{message}");
}

#[test]
fn a_parquet_column_of_the_wrong_type_is_refused() {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 60_000_000]));
    let tenants: ArrayRef = Arc::new(StringArray::from(vec!["a", "a"]));
    let read_with = |at: ArrayRef, value: ArrayRef| {
        let bytes = parquet(vec![
            ("tenant", tenants.clone()),
            ("timestamp_utc", at),
            ("requests", value),
        ]);
        Scratch::new("t.parquet", &bytes)
            .read(&ReadOptions::value("requests"))
            .unwrap_err()
            .to_string()
    };
    let message = read_with(times.clone(), Arc::new(StringArray::from(vec!["1", "2"])));
    assert!(
        message.contains("`requests` is Utf8, expected a number"),
        "{message}"
    );
    let message = read_with(
        Arc::new(Int32Array::from(vec![0, 60])),
        Arc::new(Float64Array::from(vec![1.0, 2.0])),
    );
    assert!(
        message.contains("`timestamp_utc` is Int32, expected a time"),
        "{message}"
    );
    let message = read_with(
        Arc::new(StringArray::from(vec!["1970-01-01T00:00:00", "soon"])),
        Arc::new(Float64Array::from(vec![1.0, 2.0])),
    );
    assert!(
        message.contains("row 2, column `timestamp_utc`"),
        "{message}"
    );
}

#[test]
fn a_file_of_another_kind_or_without_content_is_refused() {
    let options = ReadOptions::value("requests");
    let missing = read(Path::new("/nonexistent/trace.csv"), &options).unwrap_err();
    assert!(matches!(missing, TraceError::Io { .. }), "{missing}");
    let kind = Scratch::new("trace.txt", b"").read(&options).unwrap_err();
    assert!(matches!(kind, TraceError::UnknownKind { .. }), "{kind}");
    for empty in ["", "\n\n", "\u{feff}"] {
        assert!(
            matches!(csv(empty), Err(TraceError::NoHeading { .. })),
            "{empty:?}"
        );
    }
    let folder = Scratch::new("trace.csv", b"");
    fs::remove_file(&folder.0).unwrap();
    fs::create_dir(&folder.0).unwrap();
    let folder = folder.read(&options).unwrap_err();
    assert!(matches!(folder, TraceError::NoFile { .. }), "{folder}");
    assert!(matches!(
        csv("tenant,timestamp_utc,requests\n"),
        Err(TraceError::Empty { .. })
    ));
    assert!(matches!(
        csv("tenant,timestamp_utc,requests\na,0,1\nb,60,1\n"),
        Err(TraceError::NoStep { .. })
    ));
    assert!(matches!(
        csv("tenant,timestamp_utc,requests\na,0,1,9\n"),
        Err(TraceError::Damaged { .. })
    ));
    let text = Scratch::new("trace.parquet", b"tenant,timestamp_utc,requests\n")
        .read(&options)
        .unwrap_err();
    assert!(matches!(text, TraceError::Damaged { .. }), "{text}");
    let none = ReadOptions {
        value_columns: vec![],
        ..ReadOptions::value("requests")
    };
    assert!(matches!(
        Scratch::new("t.csv", b"").read(&none),
        Err(TraceError::Options { .. })
    ));
}

#[test]
fn stamps_that_would_make_an_endless_series_are_refused() {
    let message = error("tenant,timestamp_utc,requests\na,0,1\na,1,1\na,2,1\na,2000000000,1\n");
    assert!(
        message.contains("tenant `a`") && message.contains("limit"),
        "{message}"
    );
}

#[test]
fn events_without_a_step_are_refused_with_the_way_out() {
    let message = error("tenant,timestamp_utc,requests\na,0.25,1\na,0.5,1\n");
    assert!(message.contains("--step-s"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a damaged file holds, the reader answers; it never panics.
    #[test]
    fn a_damaged_parquet_file_is_an_error_or_a_series(at in 0_usize..4096, byte: u8, cut in 0_usize..4096) {
        let mut bytes = small_parquet();
        let len = bytes.len();
        bytes[at % len] = byte;
        let kept = if cut % 4 == 0 { cut % len } else { len };
        bytes.truncate(kept);
        let _ = Scratch::new("t.parquet", &bytes).read(&ReadOptions::value("requests"));
    }

    #[test]
    fn any_text_is_an_error_or_a_series(text in "(tenant,timestamp_utc,requests\n)?[a-z0-9,.\"\\n:TZ-]{0,200}") {
        let _ = csv(&text);
    }

    /// Every known value comes back at its place, whatever the order of the rows.
    #[test]
    fn every_value_is_found_on_the_grid(
        points in proptest::collection::btree_map(0_i64..500, 0_u32..1000, 3..60),
        seed: u64,
    ) {
        let mut rows: Vec<_> = points.iter().collect();
        let len = rows.len();
        for i in 0..len {
            rows.swap(i, (seed as usize).wrapping_mul(i + 7) % len);
        }
        let text: String = rows.iter().map(|(at, value)| format!("t,{},{value}\n", *at * 60)).collect();
        let options = ReadOptions { step_s: Some(60), ..ReadOptions::value("requests") };
        let text = format!("tenant,timestamp_utc,requests\n{text}");
        let series = Scratch::new("t.csv", text.as_bytes()).read(&options).unwrap().remove(0);
        let first = *points.keys().next().unwrap();
        prop_assert_eq!(series.values.iter().filter(|v| !v.is_nan()).count(), points.len());
        for (at, value) in points {
            prop_assert_eq!(series.values[usize::try_from(at - first).unwrap()], f64::from(value));
        }
    }
}
