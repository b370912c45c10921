use super::*;
use serde_json::Value;
use std::fs;

/// What is said of a folder, while the reports that are asked for are written.
fn run(
    folder: &Path,
    settings: Option<&Path>,
    report: Option<&Path>,
    json: Option<&Path>,
) -> Result<String, TrainError> {
    let mut said = Vec::new();
    super::run(folder, settings, report, json, &mut Output::new(&mut said))?;
    Ok(String::from_utf8(said).unwrap())
}

/// What `score.py` prints with the settings of its own documentation, largest horizon: name of the file, method, wQL, WAPE, MASE.
const REFERENCE: [(&str, &str, [f64; 3]); 12] = [
    ("ms_purchase_1h", "last", [0.398, 0.919, 1.193]),
    ("ms_purchase_1h", "ewma0.3", [0.371, 0.842, 1.090]),
    ("ms_purchase_1h", "snaive", [0.172, 0.268, 0.554]),
    ("ms_purchase_1h", "snaive-2", [0.106, 0.170, 0.439]),
    ("ms_purchase_1h", "sn*level", [0.194, 0.327, 0.713]),
    ("ms_api_1h", "last", [0.192, 0.391, 2.221]),
    ("ms_api_1h", "snaive", [0.101, 0.163, 0.928]),
    ("ms_api_1h", "sn*level", [0.103, 0.169, 0.962]),
    ("azfunc_1m", "last", [0.070, 0.129, 10.981]),
    ("azfunc_1m", "ewma0.3", [0.066, 0.125, 10.221]),
    ("azfunc_1m", "snaive", [0.087, 0.155, 1.381]),
    ("azfunc_1m", "sn*level", [0.089, 0.163, 1.798]),
];

#[test]
fn simple_methods_agree_with_the_reference_scorer() {
    let Some(folder) = std::env::var_os("FOREBAY_DATA") else {
        eprintln!("SKIPPED: set FOREBAY_DATA to compare with the reference scorer");
        return;
    };
    let entries = Entries::load(None).unwrap();
    for file in ["ms_purchase_1h", "ms_api_1h", "azfunc_1m"] {
        let path = Path::new(&folder).join(file).with_extension("parquet");
        let Found::DataSet(mut data_set) = entries.read(&path).unwrap() else {
            panic!("{file} is no data set");
        };
        let scored = scoring::select(&data_set.cut, std::mem::take(&mut data_set.series));
        let histories: Vec<History> = scored
            .iter()
            .map(|one| {
                History::new(
                    one.series.start_s,
                    one.series.step_s,
                    one.series.values.clone(),
                )
            })
            .collect();
        let starts: Vec<usize> = scored.iter().map(|one| one.test_start).collect();
        let race = race(
            &histories,
            &data_set.frame,
            &starts,
            &[],
            &MixtureSettings::default(),
        );
        let table = table(&data_set, &scored, &race, data_set.cut.horizons);
        for (_, method, expected) in REFERENCE.iter().filter(|(of, ..)| *of == file) {
            let found = table.of(method).unwrap();
            for (ours, theirs) in [found.wql, found.wape, found.mase].iter().zip(expected) {
                // The reference prints three digits.
                assert!(
                    (ours - theirs).abs() < 0.000_51,
                    "{file}, {method}: {ours} instead of {theirs}"
                );
            }
        }
    }
}

/// Ten days of hours of three customers, one of them with a name that a page must not take for a tag.
fn trace() -> String {
    let mut csv = String::from("tenant,timestamp,calls\n");
    for (customer, name) in ["a", "b", "<c>"].iter().enumerate() {
        for hour in 0..240_u64 {
            let noise = (hour.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as f64;
            let shape = 10.0 + (hour % 24) as f64 * (customer + 1) as f64;
            csv += &format!(
                "{name},{},{}\n",
                1_700_000_000 + 3_600 * hour,
                shape + noise
            );
        }
    }
    csv
}

#[test]
fn a_file_that_nobody_has_described_is_scored_and_tables_that_are_no_traces_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.csv"), trace()).unwrap();
    fs::write(
        folder.path().join("holidays.csv"),
        "day,name\n2025-01-01,x\n",
    )
    .unwrap();
    fs::write(folder.path().join("notes.txt"), "no trace").unwrap();
    let (html, json) = (
        folder.path().join("out/r.html"),
        folder.path().join("out/r.json"),
    );
    run(folder.path(), None, Some(&html), Some(&json)).unwrap();
    let found: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let files: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(files, ["mine"]);
    for steps in ["1", "24"] {
        let cell = &found["mine"][steps];
        assert_eq!(cell["deployed"], "mixture");
        let wql = |name: &str| cell["methods"][name]["wql"].as_f64().unwrap();
        let best = ["last", "ewma0.3", "snaive", "sn*level"]
            .map(wql)
            .into_iter()
            .fold(f64::MAX, f64::min);
        let ratio = cell["ratio_best_simple"].as_f64().unwrap();
        assert!((ratio - wql("mixture") / best).abs() < 1e-9, "{cell}");
    }
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("&lt;c&gt;") && !page.contains("<c>"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("class=\"usage\"").count() >= 2);
}

#[test]
fn figures_of_a_constant_series_that_cannot_be_said_are_dashes() {
    let folder = tempfile::tempdir().unwrap();
    for (file, amount) in [("same", 5), ("none", 0)] {
        let mut csv = String::from("tenant,timestamp,requests\n");
        for tenant in ["a", "b"] {
            for hour in 0..240_u64 {
                csv += &format!("{tenant},{},{amount}\n", 1_700_000_000 + 3_600 * hour);
            }
        }
        fs::write(folder.path().join(file).with_extension("csv"), csv).unwrap();
    }
    let page = folder.path().join("report.html");
    let said = run(folder.path(), None, Some(&page), None).unwrap();
    let page = fs::read_to_string(page).unwrap();
    assert!(said.contains("| snaive | - | 0.000 |"), "{said}");
    assert!(
        said.contains("## none") && page.contains("<td>-</td>"),
        "{said}"
    );
    for text in [said, page] {
        assert!(!text.contains("NaN"), "{text}");
    }
}

#[test]
fn a_bad_amount_in_a_column_that_nobody_has_named_is_an_error_and_no_reason_to_take_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = String::from("tenant,timestamp,region,calls,latency\n");
    for hour in 0..240_u64 {
        let calls = if hour == 100 { -1 } else { 5 };
        csv += &format!("a,{},eu,{calls},7\n", 1_700_000_000 + 3_600 * hour);
    }
    fs::write(folder.path().join("mine.csv"), csv).unwrap();
    let error = run(folder.path(), None, None, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("calls") && error.contains("101"), "{error}");
}

#[test]
fn a_trace_whose_test_span_is_shorter_than_the_horizon_is_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = String::from("tenant,timestamp,requests\n");
    for hour in 0..96_u64 {
        csv += &format!("a,{},{}\n", 1_700_000_000 + 3_600 * hour, 5 + hour % 24);
    }
    fs::write(folder.path().join("short.csv"), csv).unwrap();
    let error = run(folder.path(), None, None, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no trace in this folder can be scored"),
        "{error}"
    );
}

#[test]
fn a_folder_without_traces_and_a_damaged_one_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(folder.path(), None, None, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no trace in this folder"), "{error}");
    fs::write(folder.path().join("bad.parquet"), "no parquet").unwrap();
    let error = run(folder.path(), None, None, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("bad.parquet"), "{error}");
}

#[test]
fn a_calendar_beside_a_trace_lowers_the_loss_and_odds_and_the_group_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let mixed = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let sales: Vec<u64> = (1..20).map(|nth| 48 * nth + mixed(nth) % 30).collect();
    let mut csv = String::from("tenant,timestamp,requests\n");
    for customer in 0..3_u64 {
        for hour in 0..960_u64 {
            let is_sale = sales
                .iter()
                .any(|start| (*start..start + 4).contains(&hour));
            let usual = 100 + 5 * (hour % 24) + mixed(1_000 * customer + hour) % 20;
            let stamp = 1_700_000_000 + 3_600 * hour;
            csv += &format!(
                "{customer},{stamp},{}\n",
                if is_sale { 3 * usual } else { usual }
            );
        }
    }
    fs::write(folder.path().join("shop.csv"), csv).unwrap();
    let mut calendar = String::from("begin,duration_s\n");
    for start in sales {
        calendar += &format!("{},14400\n", 1_700_000_000 + 3_600 * start);
    }
    fs::write(folder.path().join("sales.csv"), calendar).unwrap();
    let settings = folder.path().join("settings.toml");
    let text =
        "[shop.events]\nfile = \"sales.csv\"\ncolumns = { starts = \"begin\", kind = \"sale\" }\n";
    fs::write(&settings, text).unwrap();
    let json = folder.path().join("out.json");
    run(folder.path(), Some(&settings), None, Some(&json)).unwrap();
    let found: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let figure = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap();
    assert!(figure("/shop/24/events_ratio") < 0.8, "{found:#}");
    assert!(
        figure("/shop/24/odds/rps") < figure("/shop/24/odds/rps_usual"),
        "{found:#}"
    );
    assert!(figure("/shop/24/group/incoherence") < 1e-4, "{found:#}");

    fs::write(&settings, text.replace("sales.csv", "gone.csv")).unwrap();
    let error = run(folder.path(), Some(&settings), None, None).unwrap_err();
    assert!(error.to_string().contains("gone.csv"), "{error}");
}

#[test]
fn tenants_without_events_of_their_own_share_those_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.csv");
    fs::write(&path, trace()).unwrap();
    let events = "kind,starts,duration_s,customer\nsale,1700003600,60,\nsale,1700007200,60,b\n";
    fs::write(folder.path().join("sales.csv"), events).unwrap();
    let settings = folder.path().join("settings.toml");
    fs::write(&settings, "[mine.events]\nfile = \"sales.csv\"\n").unwrap();
    let entries = Entries::load(Some(&settings)).unwrap();
    let Found::DataSet(data_set) = entries.read(&path).unwrap() else {
        panic!("no data set");
    };
    let agendas = data_set.agendas(["a", "b", "<c>"].into_iter());
    let counts: Vec<usize> = agendas.iter().map(|one| one.events().len()).collect();
    assert_eq!(counts, [1, 2, 1]);
    assert!(Arc::ptr_eq(&agendas[0], &agendas[2]));
}

#[test]
fn a_tenant_whose_own_forecasts_are_too_many_is_not_scored_and_the_others_are() {
    let cut = Cut {
        season_steps: 24,
        horizons: 1_000,
        test_share: 0.25,
        origins: 5,
        min_active: 0.0,
        min_seasons: 1.0,
    };
    let series = |tenant: &str, steps: usize| Series {
        tenant: tenant.into(),
        start_s: 0,
        step_s: 3_600,
        values: vec![1.0; steps],
    };
    let scored = scoring::select(&cut, vec![series("long", 40_000), series("short", 8_000)]);
    assert_eq!(scored.len(), 2);
    let mut said = Vec::new();
    let left = as_many_as_fit(scored, &cut, &mut Output::new(&mut said)).unwrap();
    let left: Vec<&str> = left.iter().map(|one| one.series.tenant.as_str()).collect();
    assert_eq!(left, ["short"]);
}
