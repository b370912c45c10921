//! Reading policy documents: JSON or YAML, with line and field of every mistake.
//!
//! YAML is read by serde-saphyr: it is maintained, written without unsafe code, knows where each value stands, refuses
//! duplicate keys, and has budgets against alias bombs. (serde_yaml is archived; serde_yaml_ng wraps a translated C library
//! and cannot tell where a value stands.) JSON has no budget and is the format for very long customer lists.

use crate::objects::Objects;
use forebay_policy::{Anomaly, Compiled, PolicyError, Sharing, anomaly, compile, sharing};
use forebay_wire::policy::PolicyDocument;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// Text that is searched for the places of mistakes, over all of them: each place takes a pass from the start, and a pass over a
/// megabyte takes a third of a second in which the server does nothing else. Behind that, mistakes are named by their path alone.
const MAX_SEARCHED_BYTES: usize = 2 << 20;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// A document that may be put in force.
#[derive(Clone, Debug)]
pub struct CheckedPolicy {
    /// As it was written.
    pub document: PolicyDocument,
    /// As it is used at gateways.
    pub compiled: Compiled,
    /// How the pools are divided among the customers.
    pub sharing: Option<Sharing>,
    /// What is done about customers that behave as they never did.
    pub anomaly: Option<Anomaly>,
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, empty for the whole document.
    pub path: String,
    /// Line and column, from 1, where they are known.
    pub position: Option<(u64, u64)>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that is wrong with a document; at least one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

enum Step<'a> {
    Name(&'a str),
    Position(usize),
}

/// Walks to one value and notes where it stands.
struct Finder<'a> {
    steps: &'a [Step<'a>],
    found: &'a mut Option<Location>,
}

// === impl Format ===

impl Format {
    /// The format of a file by its name: `.json` is JSON, all else YAML.
    #[must_use]
    pub fn of_path(path: &std::path::Path) -> Self {
        let is_json = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json { Self::Json } else { Self::Yaml }
    }
}

/// Reads and compiles a document.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(text: &str, format: Format) -> Result<CheckedPolicy, Faults> {
    let document = read(text, format).map_err(|fault| Faults(vec![fault]))?;
    let compiled = compile(&document).and_then(|compiled| {
        let sharing = sharing(&document, &compiled)?;
        Ok((sharing, anomaly(&document)?, compiled))
    });
    match compiled {
        Ok((sharing, anomaly, compiled)) => Ok(CheckedPolicy {
            document,
            compiled,
            sharing,
            anomaly,
        }),
        Err(error) => Err(faults_of(&error, text)),
    }
}

fn read(text: &str, format: Format) -> Result<PolicyDocument, Fault> {
    match format {
        Format::Json => read_json(text),
        Format::Yaml => read_yaml(text),
    }
}

fn read_json(text: &str) -> Result<PolicyDocument, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(Objects(&mut deserializer));
    let document = read.map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| Fault {
            path: plain_path(error.path()),
            position: Some((error.inner().line() as u64, error.inner().column() as u64)),
            message: without_position(&error.inner().to_string()),
        },
    )?;
    deserializer.end().map_err(|error| Fault {
        path: String::new(),
        position: Some((error.line() as u64, error.column() as u64)),
        message: "something follows the end of the document".to_owned(),
    })?;
    Ok(document)
}

fn read_yaml(text: &str) -> Result<PolicyDocument, Fault> {
    let mut path = String::new();
    let options = serde_saphyr::options! { with_snippet: false };
    let result =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            serde_path_to_error::deserialize(Objects(deserializer)).map_err(|error| {
                path = plain_path(error.path());
                error.into_inner()
            })
        });
    result.map_err(|error| Fault {
        path,
        position: error
            .location()
            .map(|location| (location.line(), location.column())),
        message: without_position(&error.without_snippet().to_string()),
    })
}

fn plain_path(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." { String::new() } else { path }
}

/// Both parsers append the position to the message; it is given apart.
fn without_position(message: &str) -> String {
    let cut = message.rfind(" at line ").or_else(|| message.find("\n"));
    cut.and_then(|cut| message.get(..cut))
        .unwrap_or(message)
        .to_owned()
}

fn faults_of(error: &PolicyError, text: &str) -> Faults {
    let mut passes = MAX_SEARCHED_BYTES.checked_div(text.len()).unwrap_or(0);
    let faults = error.mistakes.iter().map(|mistake| {
        let may_search = passes > 0;
        passes = passes.saturating_sub(1);
        Fault {
            path: mistake.path.clone(),
            position: may_search.then(|| locate(text, &mistake.path)).flatten(),
            message: mistake.problem.to_string(),
        }
    });
    let mut faults: Vec<Fault> = faults.collect();
    if error.unlisted > 0 {
        faults.push(Fault {
            path: String::new(),
            position: None,
            message: format!("{} more mistakes", error.unlisted),
        });
    }
    Faults(faults)
}

/// Line and column of the value at a path, or of the nearest value around it that exists. JSON is read as YAML here: for
/// finding a place that is near enough.
fn locate(text: &str, path: &str) -> Option<(u64, u64)> {
    let steps = steps_of(path);
    (0..=steps.len()).rev().find_map(|depth| {
        let mut found = None;
        let finder = Finder {
            steps: steps.get(..depth)?,
            found: &mut found,
        };
        serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            finder.deserialize(deserializer)
        })
        .ok()?;
        found.map(|location| (location.line(), location.column()))
    })
}

fn steps_of(path: &str) -> Vec<Step<'_>> {
    let parts = path.split('.').filter(|part| !part.is_empty());
    parts
        .flat_map(|part| {
            let (name, position) = match part.split_once('[') {
                Some((name, rest)) => (name, rest.trim_end_matches(']').parse().ok()),
                None => (part, None),
            };
            [Some(Step::Name(name)), position.map(Step::Position)]
                .into_iter()
                .flatten()
        })
        .collect()
}

// === impl Finder ===

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.steps.first() {
            None => {
                let spanned =
                    <Spanned<IgnoredAny> as serde::Deserialize>::deserialize(deserializer)?;
                *self.found = Some(spanned.referenced);
                Ok(())
            }
            Some(Step::Name(_)) => deserializer.deserialize_map(self),
            Some(Step::Position(_)) => deserializer.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a field")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((Step::Name(wanted), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        while let Some(name) = entries.next_key::<String>()? {
            if name == *wanted {
                entries.next_value_seed(Finder {
                    steps: rest,
                    found: &mut *self.found,
                })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Some((Step::Position(wanted), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        elements.next_element_seed(Finder {
            steps: rest,
            found: &mut *self.found,
        })?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "version: 1
resources:
  requests:
    capacity_per_s: 100
contracts:
  gold:
    limits:
      requests: {rate_per_s: 50, burst: 10, guarantee_per_s: 60}
customers:
  - key: acme
    contract: gold
  - key: acme
    contract: glod
";

    #[test]
    fn mistakes_of_meaning_have_line_and_field() {
        let faults = check(YAML, Format::Yaml).unwrap_err();
        let lines: Vec<(&str, u64)> = faults
            .0
            .iter()
            .map(|fault| (fault.path.as_str(), fault.position.unwrap().0))
            .collect();
        assert_eq!(
            lines,
            [
                ("contracts.gold.limits.requests.guarantee_per_s", 8),
                ("customers[1].contract", 13),
                ("customers[1].key", 12),
            ]
        );
    }

    #[test]
    fn mistakes_of_form_have_line_and_field() {
        for (from, to, line, path, says) in [
            (
                "burst: 10",
                "burst: .nan",
                8,
                "contracts.gold.limits.requests.burst",
                "non-finite",
            ),
            (
                "burst: 10",
                "burst: -10",
                8,
                "contracts.gold.limits.requests.burst",
                "negative",
            ),
            (
                "burst: 10",
                "brust: 10",
                8,
                "contracts.gold.limits.requests",
                "brust",
            ),
            ("version: 1", "version: one", 1, "version", "invalid u32"),
            ("resources:", "resources: [", 0, "", ""),
        ] {
            let faults = check(&YAML.replace(from, to), Format::Yaml).unwrap_err();
            let fault = &faults.0[0];
            assert!(fault.path.starts_with(path), "{to}: {fault}");
            assert!(fault.message.contains(says), "{to}: {fault}");
            assert!(
                line == 0 || fault.position.unwrap().0 == line,
                "{to}: {fault}"
            );
        }
    }

    #[test]
    fn json_has_lines_as_well() {
        let faults =
            check("{\n  \"version\": 1,\n  \"resurces\": {}\n}", Format::Json).unwrap_err();
        assert_eq!(faults.0[0].position.unwrap().0, 3);
        assert!(faults.0[0].message.contains("resurces"), "{faults}");
    }

    #[test]
    fn a_long_document_is_not_searched_again_for_every_mistake() {
        let comment = format!("# {}\n", "x".repeat(MAX_SEARCHED_BYTES / 2));
        let faults = check(&format!("{comment}{YAML}"), Format::Yaml).unwrap_err();
        let lines: Vec<Option<u64>> = faults
            .0
            .iter()
            .map(|fault| fault.position.map(|(line, _)| line))
            .collect();
        assert_eq!(lines, [Some(9), None, None]);
        assert_eq!(faults.0[2].path, "customers[1].key");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let last = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last}]\n"));
        }
        assert!(check(&bomb, Format::Yaml).is_err());
    }
}
