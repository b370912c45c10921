//! What else was measured, and what customers are, in a data set.

use std::collections::BTreeMap;
use std::fs;

use super::tests::{Place, START_S, preparation};
use super::{Manifest, PreparedFolder, Unwritten};

const HOUR_S: u64 = 3_600;
const HOURS: u64 = 300;
const LATENCY: &str = "[[covariates]]\nkind = \"file\"\nname = \"latency_ms\"\npath = \"latency.csv\"\nvalue = \"p99\"\n";

/// Usage of two customers, and a description of it with more to it.
struct Given {
    place: Place,
    usage: String,
}

// === impl Given ===

impl Given {
    fn new() -> Self {
        let mut usage = "tenant,timestamp_utc,amount\n".to_owned();
        for hour in 0..HOURS {
            for customer in ["anna", "bert"] {
                let at_s = START_S + hour * HOUR_S;
                usage += &format!("{customer},{at_s},{}\n", 100 + hour % 24);
            }
        }
        Self {
            place: Place::new(),
            usage,
        }
    }

    /// Latency in each hour, twice within it for anna; not measured in every tenth.
    fn latency(hours: u64, of: impl Fn(u64) -> f64) -> String {
        let mut text = "tenant,timestamp_utc,p99\n".to_owned();
        for hour in (0..hours).filter(|hour| hour % 10 != 9) {
            let at_s = START_S + hour * HOUR_S;
            text += &format!(
                "anna,{at_s},{}\nanna,{},{}\n",
                of(hour),
                at_s + 1_800,
                of(hour)
            );
        }
        text
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        fs::write(self.place.out(name), text).unwrap();
        self
    }

    fn read(&self, head: &str, tail: &str) -> Result<Unwritten, String> {
        let text = format!("{head}\n[[usage]]\nkind = \"file\"\npath = \"usage.csv\"\n{tail}");
        self.file("usage.csv", &self.usage).file("set.toml", &text);
        let input = self.place.out("set.toml");
        let read = preparation(&[&input], &self.place.out("none")).read();
        read.map_err(|error| error.to_string())
    }

    fn prepared(&self, out: &str, head: &str, tail: &str) -> Manifest {
        let unwritten = self.read(head, tail).unwrap();
        unwritten.write(&self.place.out(out)).unwrap()
    }

    fn column(&self, out: &str, column: &str) -> BTreeMap<String, Vec<f64>> {
        let options = forebay_traces::ReadOptions::value(column);
        let file = self.place.out(out).join("requests.parquet");
        let series = forebay_traces::read(&file, &options).unwrap();
        let values = series.into_iter().map(|one| (one.tenant, one.values));
        values.collect()
    }
}

#[test]
fn a_covariate_is_a_column_on_the_grid_of_usage_with_its_gaps() {
    let given = Given::new();
    given.file(
        "latency.csv",
        &Given::latency(HOURS, |hour| 20.0 + (hour % 7) as f64),
    );
    let plain = given.prepared("plain", "", "");
    let manifest = given.prepared("set", "", LATENCY);
    assert_ne!(manifest.digest, plain.digest);
    assert_eq!(
        manifest.resources["requests"].counts,
        plain.resources["requests"].counts
    );
    let found = manifest.resources["requests"].covariates["latency_ms"];
    assert_eq!((found.customers, found.gaps), (1, HOURS / 10 + HOURS));
    let values = given.column("set", "cov_latency_ms");
    assert!(values["bert"].iter().all(|value| value.is_nan()));
    for (hour, value) in values["anna"].iter().enumerate() {
        match hour % 10 {
            9 => assert!(value.is_nan(), "{hour}"),
            _ => assert_eq!(*value, 20.0 + (hour % 7) as f64, "{hour}"),
        }
    }
    // The digest is that of the values, and not of the order of rows or columns.
    let rows = Given::latency(HOURS, |hour| 20.0 + (hour % 7) as f64);
    let (head, rows) = rows.split_once('\n').unwrap();
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.reverse();
    given.file("latency.csv", &format!("{head}\n{}\n", rows.join("\n")));
    assert_eq!(given.prepared("again", "", LATENCY).digest, manifest.digest);
}

/// A step's value is of what was measured within it, whatever is measured later.
#[test]
fn what_is_measured_later_changes_no_step_before() {
    let given = Given::new();
    let before = |hours: u64, factor: f64| {
        let of = |hour: u64| {
            if hour < 200 {
                5.0 + (hour % 3) as f64
            } else {
                factor
            }
        };
        given.file("latency.csv", &Given::latency(hours, of));
        let grids = given.read("", LATENCY).unwrap().grids;
        let values = &grids[0].customers[0].covariates[0][..200];
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<_>>()
    };
    let short = before(200, 0.0);
    assert_eq!(short, before(HOURS, 7e9));
    // Longer than usage, and with it no longer.
    assert_eq!(short, before(HOURS + 50, 1.0));
}

#[test]
fn what_is_for_all_is_every_customers() {
    let given = Given::new();
    given.file(
        "latency.csv",
        &Given::latency(HOURS, |_| 3.0).replace("anna", "cluster"),
    );
    let found = given.prepared("set", "", &format!("{LATENCY}for_all = true\n"));
    assert_eq!(
        found.resources["requests"].covariates["latency_ms"].customers,
        2
    );
    let values = given.column("set", "cov_latency_ms");
    assert_eq!(values["anna"][..9], [3.0; 9]);
    assert_eq!(values["bert"][..9], [3.0; 9]);
}

#[test]
fn covariates_that_make_no_sense_are_refused_with_their_place() {
    let given = Given::new();
    let two = Given::latency(9, |_| 3.0) + &Given::latency(9, |_| 3.0).replace("anna", "carl");
    let two: String = two
        .lines()
        .enumerate()
        .filter(|(nth, line)| *nth == 0 || !line.starts_with("tenant"))
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    given.file("latency.csv", &two);
    let other = format!("{LATENCY}{LATENCY}");
    for (tail, says) in [
        (format!("{LATENCY}for_all = true\n"), "2 series"),
        (other, "a covariate latency_ms already"),
        (LATENCY.replace("latency_ms", "../up"), "`name`"),
        (
            LATENCY.replace("name = \"latency_ms\"\n", ""),
            "`name` is missing",
        ),
        (
            format!("{LATENCY}resource = \"requests\"\n"),
            "`resource` means nothing",
        ),
        (LATENCY.replace("p99", "p50"), "p50"),
        (
            "name = \"usage\"\n".to_owned(),
            "`name` means nothing with usage",
        ),
    ] {
        let error = given.read("", &tail).err().unwrap();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[test]
fn roles_are_in_the_digest_and_geography_is_not_and_may_be_deleted() {
    let given = Given::new();
    given.file(
        "roles.csv",
        "customer,role\nanna,batch\nbert,interactive\ncarl,batch\n",
    );
    given.file("places.csv", "customer,geography\nanna,CH\nbert,\n");
    let plain = given.prepared("plain", "", "");
    let roles = given.prepared("roles", "roles = \"roles.csv\"", "");
    assert_ne!(roles.digest, plain.digest);
    let both = "roles = \"roles.csv\"\ngeography = \"places.csv\"\ngeography_consent = true";
    let set = given.prepared("set", both, "");
    assert_eq!(set.digest, roles.digest);
    let out = given.place.out("set");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert!(read("roles.json").contains("interactive"));
    assert!(
        !read("roles.json").contains("carl"),
        "who is not in the data set"
    );
    assert!(read("geography.json").contains("\"anna\": \"CH\""));
    assert!(!read("manifest.json").contains("places.csv"));
    fs::remove_file(out.join("geography.json")).unwrap();
    let folder = PreparedFolder::open(&out).unwrap().unwrap();
    assert_eq!(folder.digest(), roles.digest);
    fs::write(out.join("roles.json"), "{}").unwrap();
    let error = PreparedFolder::open(&out).unwrap_err().to_string();
    assert!(error.contains("roles.json"), "{error}");
}

#[test]
fn geography_is_not_read_without_consent_and_never_finer_than_a_country() {
    let given = Given::new();
    given.file("places.csv", "customer,geography\nanna,Zurich 8004\n");
    let error = given.read("geography = \"places.csv\"", "").err().unwrap();
    assert!(error.contains("geography_consent = true"), "{error}");
    let consent = "geography = \"places.csv\"\ngeography_consent = true";
    let error = given.read(consent, "").err().unwrap();
    assert!(error.contains("row 1"), "{error}");
    assert!(error.contains("what is finer is not taken"), "{error}");
    given.file("places.csv", "customer,country\nanna,CH\n");
    let error = given.read(consent, "").err().unwrap();
    assert!(error.contains("no column `geography`"), "{error}");
    given.file("places.csv", "customer,geography\nanna,CH\nanna,DE\n");
    let error = given.read(consent, "").err().unwrap();
    assert!(error.contains("another geography"), "{error}");
}
