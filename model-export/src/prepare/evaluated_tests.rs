//! Prepared folders as `evaluate` takes them.

use std::fs;
use std::path::Path;

use super::tests::{HOUR_S, Place, START_S, csv, preparation, rows};
use super::{Output, PreparedFolder};
use crate::dataset::{Entries, Found};
use crate::evaluate;

#[test]
fn evaluate_takes_a_prepared_folder_or_its_file_with_what_the_manifest_says() {
    let place = Place::new();
    let [short, long] = [6, 20].map(|days| {
        let input = place.file("usage.csv", &csv(&rows(24 * days)));
        let out = place.out(&format!("set-{days}"));
        preparation(&[&input], &out).prepare().unwrap();
        out
    });
    for (path, json) in [
        (short.clone(), "a.json"),
        (short.join("requests.parquet"), "b.json"),
    ] {
        let json = place.out(json);
        let mut said = Vec::new();
        let out = &mut Output::new(&mut said);
        evaluate::run(&path, None, None, Some(&json), out).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert!(report["requests"]["24"]["deployed"].is_string(), "{report}");
    }
    let mut entries = Entries::load(None).unwrap();
    entries.add(&PreparedFolder::open(&long).unwrap().unwrap());
    let Found::DataSet(data_set) = entries.read(&long.join("requests.parquet")).unwrap() else {
        panic!("not a data set");
    };
    assert_eq!(
        (data_set.frame.season, data_set.frame.long_season),
        (24, Some(168))
    );
}

#[test]
fn a_data_set_that_was_changed_is_no_longer_evaluated() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(100)));
    let other = place.file("other.csv", &csv(&rows(101)));
    let [out, another] = ["set", "another"].map(|name| place.out(name));
    preparation(&[&input], &out).prepare().unwrap();
    preparation(&[&other], &another).prepare().unwrap();
    let file = "requests.parquet";
    fs::copy(another.join(file), out.join(file)).unwrap();
    let error = PreparedFolder::open(&out).unwrap_err().to_string();
    assert!(error.contains("changed or damaged"), "{error}");
    let manifest = another.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to, says) in [
        (
            "\"format_version\": 2",
            "\"format_version\": 1",
            "has version 1",
        ),
        ("\"requests\":", "\"../requests\":", "no name of a resource"),
        ("\"digest\"", "\"digestion\"", "not a manifest"),
        ("\"digest\"", "", "damaged"),
    ] {
        fs::write(&manifest, text.replace(from, to)).unwrap();
        let error = PreparedFolder::open(&another).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    fs::write(&manifest, "{\"name\": \"a web page\"}").unwrap();
    assert!(PreparedFolder::open(&another).unwrap().is_none());
}

/// A gap is not made up either way; which amounts were clipped changes nothing of what is scored.
#[test]
fn a_launch_is_scored_as_it_was_and_clipped_for_those_who_learn_from_amount() {
    const LAUNCH: usize = 450;
    let place = Place::new();
    let launched = |times: u64| {
        let mut all = rows(24 * 20);
        let time = START_S + LAUNCH as u64 * HOUR_S;
        let usual = all
            .iter()
            .position(|row| row.starts_with(&format!("anna,{time}")));
        all[usual.unwrap()] = format!("anna,{time},{}", 200 * times);
        let input = place.file("usage.csv", &csv(&all));
        let out = place.out(&format!("set-{times}"));
        let manifest = preparation(&[&input], &out).prepare().unwrap();
        assert_eq!(manifest.resources["requests"].counts.outliers, 1);
        (out, manifest)
    };
    let (out, manifest) = launched(20);
    let file = out.join("requests.parquet");
    let options = forebay_traces::ReadOptions::value("amount");
    let clipped = forebay_traces::read(&file, &options).unwrap()[0].values[LAUNCH];
    assert!((1_000.0..3_000.0).contains(&clipped), "{clipped}");

    let alone = place.out("alone.parquet");
    fs::copy(&file, &alone).unwrap();
    let settings = place.file("settings.toml", "[requests]\norigins = 10\n");
    let scored = |settings: Option<&Path>, file: &Path| {
        let mut entries = Entries::load(settings).unwrap();
        entries.add(&PreparedFolder::open(&out).unwrap().unwrap());
        let Found::DataSet(data_set) = entries.read(file).unwrap() else {
            panic!("not a data set");
        };
        assert!(LAUNCH > data_set.cut.test_start(24 * 20));
        data_set.series[0].values[LAUNCH]
    };
    assert_eq!(scored(None, &file), 4_000.0);
    assert_eq!(scored(Some(&settings), &file), 4_000.0);
    assert_eq!(scored(None, &alone), 4_000.0, "without its manifest");

    let (_, larger) = launched(30);
    assert_ne!(
        larger.digest, manifest.digest,
        "clipped to the same, and not the same usage"
    );
}
