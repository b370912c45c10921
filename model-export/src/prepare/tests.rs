//! What comes out of an export, and what is said when nothing does.

use std::fs;

use tempfile::TempDir;

use super::*;

pub(super) const HOUR_S: u64 = 3_600;
/// 2025-03-24T00:00:00Z, a Monday. Six days later Zurich puts its clocks forward.
pub(super) const START_S: u64 = 1_742_774_400;
const CUSTOMERS: [&str; 2] = ["anna", "bert"];

/// One folder for what goes in and what comes out.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn out(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Names of what is there, hidden ones included.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

pub(super) fn preparation(inputs: &[&Path], out: &Path) -> Preparation {
    Preparation {
        inputs: inputs.iter().map(|path| path.to_path_buf()).collect(),
        out: out.to_owned(),
        value: None,
        resource: None,
        customer_label: "customer".into(),
        step_s: None,
        join: Join::Mean,
        zone: "Europe/Zurich".into(),
    }
}

/// Demand of a day's shape, a row for each hour and customer.
pub(super) fn rows(hours: u64) -> Vec<String> {
    let row = |hour: u64, customer: &str| {
        let amount = 100 + (hour % 24) * 7 + customer.len() as u64;
        format!("{customer},{},{amount}", START_S + hour * HOUR_S)
    };
    let of_hour = |hour| CUSTOMERS.map(|customer| row(hour, customer));
    (0..hours).flat_map(of_hour).collect()
}

pub(super) fn csv(rows: &[String]) -> String {
    format!("tenant,timestamp_utc,requests\n{}\n", rows.join("\n"))
}

/// Prepares rows; the manifest and the grid of the first customer.
fn prepared(rows: &[String]) -> (Manifest, Vec<f64>) {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(rows));
    let out = place.out("set");
    let manifest = preparation(&[&input], &out).prepare().unwrap();
    let options = forebay_traces::ReadOptions::value("amount");
    let series = forebay_traces::read(&out.join("requests.parquet"), &options).unwrap();
    (manifest, series[0].values.clone())
}

fn refusal(name: &str, text: &str) -> String {
    let place = Place::new();
    let input = place.file(name, text);
    let error = preparation(&[&input], &place.out("set")).prepare();
    assert_eq!(place.names(), [name], "something was written");
    error.unwrap_err().to_string()
}

#[test]
fn the_digest_is_that_of_the_usage_and_not_of_its_rows() {
    let mut rows = rows(400);
    let first = prepared(&rows).0;
    rows.reverse();
    rows.rotate_left(77);
    let again = prepared(&rows).0;
    assert_eq!(first.digest, again.digest);
    let sums = |manifest: &Manifest| {
        let resource = &manifest.resources["requests"];
        (resource.counts, resource.training_end.clone())
    };
    assert_eq!(sums(&first), sums(&again));
    rows[5] = rows[5].replace(",1", ",2");
    assert_ne!(prepared(&rows).0.digest, first.digest);
}

/// On another machine, with another version of any library: the digest of a usage is what it was.
#[test]
fn the_digest_of_a_known_usage_is_the_known_one() {
    let manifest = prepared(&rows(48)).0;
    assert_eq!(manifest.digest, KNOWN_DIGEST);
}
/// Computed by another program, from what is written in `digest`.
const KNOWN_DIGEST: &str = "454e564de616c5638940d4e5bb4a02d373f0f61bbc32ab869194e0594841e0d9";

#[test]
fn one_file_and_two_that_overlap_are_the_same_usage() {
    let rows = rows(300);
    let place = Place::new();
    let whole = place.file("whole.csv", &csv(&rows));
    let early = place.file("early.csv", &csv(&rows[..400]));
    let late = place.file("late.csv", &csv(&rows[350..]));
    let whole = preparation(&[&whole], &place.out("a")).prepare().unwrap();
    let parts = preparation(&[&late, &early], &place.out("b"))
        .prepare()
        .unwrap();
    assert_eq!(whole.digest, parts.digest);
    assert_eq!(whole.resources["requests"].counts.duplicates, 0);
    assert_eq!(parts.resources["requests"].counts.duplicates, 50);
}

#[test]
fn what_is_missing_doubled_or_negative_is_counted_and_never_made_up() {
    let mut all = rows(200);
    let clean = prepared(&all).1;
    let time = |hour: u64| START_S + hour * HOUR_S;
    all.retain(|row| *row != format!("anna,{},{}", time(30), 100 + 6 * 7 + 4));
    all.push(all[10].clone());
    all.push(format!("anna,{},-5", time(200)));
    all.push(format!("anna,{},", time(201)));
    all.push(format!("anna,{},1000", time(40) + 60));
    let (manifest, values) = prepared(&all);
    let counts = manifest.resources["requests"].counts;
    let expected = Counts {
        steps: 202 + 200,
        gaps: 3,
        outliers: 0,
        duplicates: 1,
        joined: 1,
        negatives: 1,
    };
    assert_eq!(counts, expected);
    let row = all.iter().position(|row| row.ends_with(",-5")).unwrap() + 1;
    let place = manifest.resources["requests"].first_negative.as_deref();
    assert!(place.unwrap().ends_with(&format!(".csv, row {row}")));
    let gaps: Vec<usize> = (0..202).filter(|step| values[*step].is_nan()).collect();
    assert_eq!(gaps, [30, 200, 201]);
    assert_eq!(values[40], (clean[40] + 1_000.0) / 2.0);
}

/// Two functions of one customer are called as often as each other by chance, and both are its usage.
#[test]
fn what_is_added_up_has_no_duplicates() {
    let place = Place::new();
    let text = csv(&["anna,0,5", "anna,0,5", "anna,60,3", "anna,60,4"].map(str::to_owned));
    let input = place.file("usage.csv", &text);
    let sum = Preparation {
        join: Join::Sum,
        ..preparation(&[&input], &place.out("set"))
    };
    let Unwritten {
        manifest, grids, ..
    } = sum.read().unwrap();
    assert_eq!(grids[0].customers[0].amounts, [10.0, 7.0]);
    let counts = manifest.resources["requests"].counts;
    assert_eq!((counts.duplicates, counts.joined), (0, 2));
}

#[test]
fn an_outlier_is_clipped_and_the_future_does_not_change_which() {
    let mut all = rows(300);
    let at = all
        .iter()
        .position(|row| row.starts_with(&format!("anna,{}", START_S + 250 * HOUR_S)));
    let at = at.unwrap();
    all[at] = format!("anna,{},1000000", START_S + 250 * HOUR_S);
    let (short, before) = prepared(&all);
    assert_eq!(short.resources["requests"].counts.outliers, 1);
    assert!((1_000.0..5_000.0).contains(&before[250]), "{}", before[250]);
    // What follows is of another size altogether, and ends in a flood.
    let more = (300..500).map(|hour| {
        let amount = if hour < 400 { 900_000 } else { 0 };
        format!("anna,{},{amount}", START_S + hour * HOUR_S)
    });
    all.extend(more);
    let (_, after) = prepared(&all);
    assert_eq!(before[..], after[..300]);
}

#[test]
fn the_scale_is_that_of_the_training_span() {
    let text = |manifest: &Manifest| serde_json::to_value(manifest).unwrap();
    let mut all = rows(400);
    let before = text(&prepared(&all).0);
    let scale = |manifest: &serde_json::Value| manifest["resources"]["requests"]["scale"].clone();
    assert!(scale(&before)["median"].as_f64().unwrap() > 100.0);
    let end_s = START_S + 300 * HOUR_S;
    assert_eq!(
        before["resources"]["requests"]["training_end"],
        crate::stamp::rfc3339(end_s as i64)
    );
    for row in &mut all {
        let cells: Vec<&str> = row.split(',').collect();
        if cells[1].parse::<u64>().unwrap() >= end_s {
            *row = format!("{},{},0", cells[0], cells[1]);
        }
    }
    assert_eq!(scale(&text(&prepared(&all).0)), scale(&before));
}

#[test]
fn clocks_that_change_leave_the_grid_alone_and_move_the_hours() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(240)));
    let out = place.out("set");
    let manifest = preparation(&[&input], &out).prepare().unwrap();
    assert_eq!(manifest.resources["requests"].counts.gaps, 0);
    let text = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(text.contains("2025-03-30T01:00:00Z"), "{text}");
    let column = |value: &str| {
        let options = forebay_traces::ReadOptions::value(value);
        let path = out.join("requests.parquet");
        forebay_traces::read(&path, &options).unwrap()[0]
            .values
            .clone()
    };
    // 144 hours after the start it is Sunday the 30th, 0 o'clock UTC.
    assert_eq!(column("local_hour")[143..148], [0.0, 1.0, 3.0, 4.0, 5.0]);
    assert_eq!(column("local_weekday")[142..144], [6.0, 7.0]);
}

#[test]
fn less_than_a_week_is_degraded_and_a_week_is_not() {
    let week = prepared(&rows(7 * 24)).0;
    assert!(!week.degraded, "{week:?}");
    let less = prepared(&rows(7 * 24 - 1)).0;
    assert!(less.degraded);
    let said = said_of(&less, Path::new("set"));
    assert!(
        said.contains("requests is degraded: no customer has 7 days"),
        "{said}"
    );
    assert!(!said_of(&week, Path::new("set")).contains("degraded"));
}

#[test]
fn resources_are_told_apart_each_with_its_step() {
    let mut text = "tenant,timestamp_utc,amount,resource\n".to_owned();
    for step in 0..50 {
        text += &format!("anna,{},5,requests\n", START_S + step * 60);
        text += &format!("anna,{},700,llm_tokens\n", START_S + step * 600);
    }
    let place = Place::new();
    let out = place.out("set");
    let input = place.file("usage.csv", &text);
    let manifest = preparation(&[&input], &out).prepare().unwrap();
    let steps = manifest
        .resources
        .iter()
        .map(|(name, one)| (name.as_str(), one.step_s));
    let steps: Vec<_> = steps.collect();
    assert_eq!(steps, [("llm_tokens", 600), ("requests", 60)]);
    let options = forebay_traces::ReadOptions::value("amount");
    let tokens = forebay_traces::read(&out.join("llm_tokens.parquet"), &options).unwrap();
    assert_eq!(tokens[0].values, vec![700.0; 50]);
}

#[test]
fn the_history_of_the_control_plane_is_usage() {
    let step = START_S / 60;
    let one = |key: &str| {
        format!(
            r#"{{"key":"{key}","resource":"llm_tokens","step_ms":60000,"newest_step":{step},"usage":[1.5,null,3.0]}}"#
        )
    };
    let place = Place::new();
    let out = place.out("set");
    // Two answers behind one another, and what may be imported.
    let answers = place.file(
        "answers.json",
        &format!("{}\n{}\n", one("hash:1"), one("hash:2")),
    );
    let import = place.file("import.json", &format!(r#"{{"series":[{}]}}"#, one("carl")));
    let manifest = preparation(&[&answers, &import], &out).prepare().unwrap();
    let resource = &manifest.resources["llm_tokens"];
    assert_eq!((resource.customers, resource.counts.gaps), (3, 3));
    let options = forebay_traces::ReadOptions::value("amount");
    let series = forebay_traces::read(&out.join("llm_tokens.parquet"), &options).unwrap();
    assert_eq!(series[0].tenant, "carl");
    assert_eq!(series[0].start_s, (START_S - 120) as i64);
    assert_eq!(series[0].values[2], 3.0);
}

#[test]
fn an_answer_of_prometheus_is_usage_of_the_steps_that_end_at_its_times() {
    let at = |step: u64| START_S + step * 60;
    let text = format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[
        {{"metric":{{"customer":"anna"}},"values":[[{},"4"],[{},"NaN"],[{},"6.5"]]}},
        {{"metric":{{"customer":"anna","resource":"bytes"}},"values":[[{},"9"],[{},"-1"],[{},"9"]]}}]}}}}"#,
        at(1),
        at(2),
        at(3),
        at(1),
        at(2),
        at(3)
    );
    let place = Place::new();
    let out = place.out("set");
    let input = place.file("answer.json", &text);
    let manifest = preparation(&[&input], &out).prepare().unwrap();
    assert_eq!(manifest.resources["bytes"].counts.negatives, 1);
    let options = forebay_traces::ReadOptions::value("amount");
    let series = forebay_traces::read(&out.join("requests.parquet"), &options).unwrap();
    assert_eq!((series[0].start_s, series[0].step_s), (START_S as i64, 60));
    assert_eq!((series[0].values[0], series[0].values[2]), (4.0, 6.5));
    assert!(series[0].values[1].is_nan());
}

#[test]
fn what_is_no_usage_is_refused_with_its_place_and_leaves_nothing_behind() {
    let answer = |rest: &str| format!(r#"{{"status":"success","data":{{{rest}}}}}"#);
    let series =
        |metric: &str| format!(r#"{{"metric":{{{metric}}},"values":[[60,"1"],[120,"1"]]}}"#);
    let anna = series(r#""customer":"anna""#);
    let matrix = |all: &str| answer(&format!(r#""resultType":"matrix","result":[{all}]"#));
    let history = |step_ms: u64, newest: u64| {
        format!(
            r#"{{"key":"a","resource":"r","step_ms":{step_ms},"newest_step":{newest},"usage":[1,2]}}"#
        )
    };
    let cells = |cells: &str| format!("tenant,timestamp_utc,requests\n{cells}\n");
    for (name, text, says) in [
        (
            "u.csv",
            "tenant,timestamp_utc,watts\na,0,1\n".into(),
            "name the column with --value",
        ),
        (
            "u.csv",
            cells("a,0,1\na,yesterday,1"),
            "row 2 (line 3), column `timestamp_utc`",
        ),
        (
            "u.csv",
            cells("a,0,1\na,60,inf"),
            "row 2 (line 3), column `requests`",
        ),
        ("u.csv", cells("a,0,1\na,60,1e300"), "above 1e30"),
        ("u.csv", cells("a,0,1"), "--step-s"),
        (
            "u.csv",
            cells("a,0,-1\na,60,-1"),
            "all amounts of the resource requests are negative, the first in row 1",
        ),
        (
            "u.csv",
            cells("a,0,1\na,60,1e400"),
            "row 2 (line 3), column `requests`: `1e400`",
        ),
        (
            "u.csv",
            cells("a,0,1\na,60,-inf"),
            "row 2 (line 3), column `requests`: `-inf`",
        ),
        (
            "u.csv",
            cells("a,0,1\n\na,60,1e31"),
            "row 2 (line 4), column `requests`",
        ),
        (
            "u.csv",
            cells("a,0,1\na,60"),
            "line 3 has 2 cells, and the heading has 3",
        ),
        ("u.csv", String::new(), "empty, without even a heading"),
        (
            "u.csv",
            "tenant,timestamp_utc,requests,requests\na,0,1,2\n".into(),
            "two columns `requests`",
        ),
        ("u.json", history(0, 9), "`step_ms` is 0"),
        ("u.csv", cells("a,0,nan\na,60,NaN"), "empty or NaN"),
        (
            "u.toml",
            "[usage]\nkind = \"file\"\n".into(),
            "write [[usage]], with two brackets",
        ),
        (
            "u.toml",
            "[[usage]]\nkind = \"file\"\npath = \"u.toml\"\nstep_s = 0\n".into(),
            "`step_s` is 0",
        ),
        (
            "u.csv",
            cells("a,0,1\na,60,1\na,9100000000,1"),
            "is a time wrong",
        ),
        (
            "u.csv",
            cells("a,0.25,1\na,0.5,1\na,0.75,1"),
            "added up to steps first",
        ),
        (
            "u.csv",
            "tenant,timestamp_utc,requests\n".into(),
            "no row of usage",
        ),
        (
            "u.csv",
            "tenant,timestamp_utc,amount,resource\na,0,1,../../etc\na,60,1,../../etc\n".into(),
            "cannot be the name of a file",
        ),
        (
            "u.csv",
            "tenant,timestamp_utc,amount,resource\na,0,1,\n".into(),
            "the resource is empty",
        ),
        (
            "u.parquet",
            "PAR1 and nothing else".into(),
            "not a readable Parquet file",
        ),
        (
            "u.txt",
            "?".into(),
            "must end in .parquet, .csv, .json or .toml",
        ),
        ("u.json", String::new(), "the file is empty"),
        ("u.json", "{\"a\": 1}".into(), "begins at byte 0"),
        ("u.json", "[".repeat(100_000), "begins at byte 0"),
        ("u.json", history(60_000, u64::MAX), "beyond the year 2262"),
        ("u.json", history(60_000, 0), "before 1970"),
        ("u.json", history(250, 9_000), "added up to steps first"),
        (
            "u.json",
            r#"{"status":"error","errorType":"bad_data","error":"parse error at char 5"}"#.into(),
            "parse error at char 5",
        ),
        (
            "u.json",
            answer(r#""resultType":"vector","result":[{"metric":{},"value":[60,"1"]}]"#),
            "query_range",
        ),
        (
            "u.json",
            matrix(&anna.replace("values", "histograms")),
            "histograms are not read",
        ),
        (
            "u.json",
            history(60_000, 9).replace("\"key\":\"a\",", ""),
            "fields are missing",
        ),
        (
            "u.json",
            matrix(&format!("{anna},{anna}")),
            "two series for the customer anna",
        ),
        (
            "u.json",
            matrix(&series(r#""pod":"x""#)),
            "--customer-label",
        ),
        (
            "u.json",
            matrix(&anna.replace("\"1\"", "\"one\"")),
            "\"one\" where a number must be",
        ),
        (
            "u.json",
            matrix(&anna.replace("\"1\"", "\"+Inf\"")),
            "inf is no amount",
        ),
        (
            "u.json",
            matrix(&anna.replace("120", "1e300")),
            "is no time",
        ),
        (
            "u.json",
            matrix(&anna).replace("\"data\"", "\"isPartial\":true,\"data\""),
            "isPartial",
        ),
    ] {
        let error = refusal(name, &text);
        assert!(error.contains(says), "{says}: {error}");
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_folder_that_is_there_is_not_written_over() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(100)));
    let out = place.out("set");
    fs::create_dir(&out).unwrap();
    let error = preparation(&[&input], &out)
        .prepare()
        .unwrap_err()
        .to_string();
    assert!(error.contains("name another folder"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

/// Somebody else makes a folder of that name after it was looked for.
#[test]
fn a_folder_that_cannot_take_its_place_is_gone() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(100)));
    let out = place.out("set");
    let unwritten = preparation(&[&input], &out).read().unwrap();
    fs::create_dir(&out).unwrap();
    assert!(unwritten.write(&out).is_err());
    assert_eq!(place.names(), ["set", "usage.csv"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

/// A file in the place of the parent folder: writing fails when all is read.
#[test]
fn a_place_that_cannot_be_written_is_said_and_left_as_it_is() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(100)));
    let out = input.join("set");
    assert!(preparation(&[&input], &out).prepare().is_err());
    assert_eq!(place.names(), ["usage.csv"]);
}

#[test]
fn a_manifest_that_is_too_large_is_neither_written_nor_passed_over() {
    let place = Place::new();
    let input = place.file(&format!("{}.csv", "long".repeat(60)), &csv(&rows(2)));
    let out = place.out("set");
    let error = preparation(&vec![input.as_path(); 3_400], &out)
        .prepare()
        .map(|manifest| manifest.digest)
        .unwrap_err()
        .to_string();
    assert!(error.contains("3400 sources"), "{error}");
    assert_eq!(place.names().len(), 1, "something was written");

    preparation(&[&input], &out).prepare().unwrap();
    let manifest = out.join("manifest.json");
    let mut text = fs::read_to_string(&manifest).unwrap();
    text += &" ".repeat(1 << 20);
    fs::write(&manifest, text).unwrap();
    let error = PreparedFolder::open(&out).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
}

#[test]
fn the_step_of_a_data_set_moves_no_answer_of_prometheus_to_another_time() {
    let minute = |at: u64| format!(r#"[{},"{at}"]"#, START_S + at * 60);
    let values: Vec<String> = (1..=10).map(minute).collect();
    let text = format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"customer":"anna"}},"values":[{}]}}]}}}}"#,
        values.join(",")
    );
    let place = Place::new();
    let out = place.out("set");
    let input = place.file("answer.json", &text);
    let summed = Preparation {
        step_s: Some(300),
        join: Join::Sum,
        ..preparation(&[&input], &out)
    };
    summed.prepare().unwrap();
    let options = forebay_traces::ReadOptions::value("amount");
    let series = forebay_traces::read(&out.join("requests.parquet"), &options).unwrap();
    assert_eq!(series[0].start_s, START_S as i64);
    assert_eq!(series[0].values, [15.0, 40.0]);
}

#[test]
fn prepared_sets_are_prepared_again_as_what_they_are() {
    let place = Place::new();
    let table = format!(
        "tenant,timestamp_utc,resource,amount\n{}",
        [("requests", 5), ("llm_tokens", 900)]
            .map(|(resource, amount)| format!(
                "anna,{START_S},{resource},{amount}\nanna,{},{resource},7\n",
                START_S + 60
            ))
            .concat()
    );
    let first = place.out("first");
    preparation(&[&place.file("usage.csv", &table)], &first)
        .prepare()
        .unwrap();
    let files = ["requests.parquet", "llm_tokens.parquet"].map(|name| first.join(name));
    let again = preparation(&[&files[0], &files[1]], &place.out("again"))
        .prepare()
        .unwrap();
    let names: Vec<&String> = again.resources.keys().collect();
    assert_eq!(names, ["llm_tokens", "requests"]);
    assert_eq!(again.resources["requests"].counts.joined, 0);
}

/// The first process of each of two containers that share a folder has the same number.
#[test]
fn what_a_process_of_the_same_number_writes_is_in_nobodys_way_and_what_it_has_left_is_swept() {
    let place = Place::new();
    let input = place.file("usage.csv", &csv(&rows(48)));
    let left = place.out(&format!(".set.unfinished-{}-0", std::process::id()));
    fs::create_dir(&left).unwrap();
    let alive = fs::File::open(&left).unwrap();
    alive.lock().unwrap();
    let run = || {
        let mut said = Vec::new();
        let out = &mut Output::new(&mut said);
        preparation(&[&input], &place.out("set")).run(out).unwrap();
        fs::remove_dir_all(place.out("set")).unwrap();
        String::from_utf8(said).unwrap()
    };
    assert!(!run().contains("removed"));
    assert!(left.exists(), "it is not ours");
    drop(alive);
    let said = run();
    assert!(said.contains(".unfinished-") && !left.exists(), "{said}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let place = Place::new();
    let error = preparation(&[Path::new("/dev/zero")], &place.out("set")).prepare();
    let said = error.unwrap_err().to_string();
    assert!(said.contains("no file"), "{said}");
}
