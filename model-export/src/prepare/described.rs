//! Sources that are too much for a command line, described in a TOML file: which server, which query, which time.
//!
//! A file and not more options: it lies beside the program that trains and is reviewed as that is, and whoever runs it again gets the same data set.

use std::path::{Path, PathBuf};

use forebay_traces::Samples;
use serde::Deserialize;

use super::covariates::{COVARIATES_MAX, Covariate};
use super::labels::{CustomerLabels, Label};
use super::manifest::is_file_name;
use super::server::RangeQuery;
use super::source::{Source, Taking};
use crate::card::sha256;
use crate::error::TrainError;
use crate::regular_file::read_text;

/// Descriptions are written by people.
const BYTES_MAX: u64 = 1 << 20;
const ENTRIES_MAX: usize = 64;

/// What a file describes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    #[serde(default)]
    usage: Vec<Entry>,
    /// What else was measured.
    #[serde(default)]
    covariates: Vec<Entry>,
    /// Tables of what customers are, from the folder of the description.
    roles: Option<PathBuf>,
    geography: Option<PathBuf>,
    /// Somebody has made sure that geography may be kept.
    #[serde(default)]
    geography_consent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    File,
    Prometheus,
}

/// A source. What belongs to the other kind is refused: a field that does nothing was meant to do something.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    /// Of a file, from the folder of the description.
    path: Option<PathBuf>,
    value: Option<String>,
    /// Of a server.
    url: Option<String>,
    query: Option<String>,
    from: Option<String>,
    until: Option<String>,
    token_env: Option<String>,
    /// Of both.
    step_s: Option<u32>,
    customer_label: Option<String>,
    resource: Option<String>,
    /// Of a covariate.
    name: Option<String>,
    for_all: Option<bool>,
}

/// What descriptions have brought beside usage.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) covariates: Vec<Covariate>,
    pub(super) labels: CustomerLabels,
}

/// Where something is described.
struct Place<'a> {
    file: &'a Path,
    entry: String,
}

/// Reads what a file describes, and gives all sources, itself among them.
pub(super) fn read(
    file: &Path,
    taking: &Taking,
    samples: &mut Samples,
    extras: &mut Extras,
) -> Result<Vec<Source>, TrainError> {
    let (described, own) = Described::read(file)?;
    let mut sources = vec![own];
    for (entry, number) in described.usage.iter().zip(1..) {
        let place = Place {
            file,
            entry: format!("usage {number}"),
        };
        entry.refuse(
            &place,
            &[
                ("name", entry.name.is_some()),
                ("for_all", entry.for_all.is_some()),
            ],
            "usage",
        )?;
        sources.push(entry.take(&place, taking, samples)?);
    }
    for (entry, number) in described.covariates.iter().zip(1..) {
        let place = Place {
            file,
            entry: format!("covariates {number}"),
        };
        let (covariate, source) = entry.measured(&place, taking)?;
        if extras.covariates.len() >= COVARIATES_MAX {
            return Err(place.refused(format!(
                "a data set has {COVARIATES_MAX} covariates at most"
            )));
        }
        if extras
            .covariates
            .iter()
            .any(|one| one.name == covariate.name)
        {
            return Err(place.refused(format!("there is a covariate {} already", covariate.name)));
        }
        extras.covariates.push(covariate);
        sources.push(source);
    }
    sources.extend(described.labels(file, &mut extras.labels)?);
    Ok(sources)
}

/// Of sources that are no list, for which the parser has no word that helps.
fn wrong_shape(text: &str) -> Option<String> {
    let all: toml::Table = text.parse().ok()?;
    let is_wrong = |name: &&str| all.get(*name).is_some_and(|value| !value.is_array());
    let name = ["usage", "covariates"].iter().copied().find(is_wrong)?;
    Some(format!(
        "`{name}` is one thing, and there may be several: write [[{name}]], with two brackets, before each"
    ))
}

// === impl Described ===

impl Described {
    fn read(file: &Path) -> Result<(Self, Source), TrainError> {
        let refused = |reason: String| TrainError::Settings {
            path: file.to_owned(),
            reason,
        };
        let text = read_text(file, BYTES_MAX)?;
        let described: Self = toml::from_str(&text)
            .map_err(|error| refused(wrong_shape(&text).unwrap_or_else(|| error.to_string())))?;
        if described.usage.is_empty() || described.usage.len() > ENTRIES_MAX {
            return Err(refused(format!(
                "{} tables [[usage]]; there must be 1 to {ENTRIES_MAX}, each with `kind`",
                described.usage.len()
            )));
        }
        let name = file.file_name().unwrap_or_default();
        let own = Source {
            name: name.to_string_lossy().into_owned(),
            sha256: sha256(text.as_bytes()),
        };
        Ok((described, own))
    }
}

impl Described {
    /// Reads what customers are. Only the table of roles is a source: the sum of that of geography would outlive it.
    fn labels(
        &self,
        file: &Path,
        labels: &mut CustomerLabels,
    ) -> Result<Option<Source>, TrainError> {
        let folder = file.parent().unwrap_or(Path::new(""));
        if let Some(path) = &self.geography {
            if !self.geography_consent {
                return Err(TrainError::Settings {
                    path: file.to_owned(),
                    reason: "`geography` is only read with `geography_consent = true`: make sure that customers have agreed or that the law lets you, or leave it out".into(),
                });
            }
            labels
                .geography
                .extend(Label::Geography.read(&folder.join(path))?);
        }
        let Some(path) = &self.roles else {
            return Ok(None);
        };
        let path = folder.join(path);
        labels.roles.extend(Label::Role.read(&path)?);
        Source::of_file(&path).map(Some)
    }
}

// === impl Place ===

impl Place<'_> {
    fn refused(&self, reason: String) -> TrainError {
        TrainError::Settings {
            path: self.file.to_owned(),
            reason: format!("{}: {reason}", self.entry),
        }
    }

    /// For errors of what is read there.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("{} ({})", self.file.display(), self.entry))
    }

    /// Among the sources of a manifest. An address is not in it: data sets are given away, and the names of machines are not.
    fn name(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        format!("{} ({})", name.to_string_lossy(), self.entry)
    }
}

// === impl Entry ===

impl Entry {
    fn take(
        &self,
        place: &Place<'_>,
        common: &Taking,
        samples: &mut Samples,
    ) -> Result<Source, TrainError> {
        let of_other_kind: &[(&str, bool)] = match self.kind {
            Kind::File => &[
                ("url", self.url.is_some()),
                ("query", self.query.is_some()),
                ("from", self.from.is_some()),
                ("until", self.until.is_some()),
                ("token_env", self.token_env.is_some()),
            ],
            Kind::Prometheus => &[
                ("path", self.path.is_some()),
                ("value", self.value.is_some()),
            ],
        };
        let kind = match self.kind {
            Kind::File => "kind = \"file\"",
            Kind::Prometheus => "kind = \"prometheus\"",
        };
        self.refuse(place, of_other_kind, kind)?;
        let or = |own: &Option<String>, common: &Option<String>| own.clone().or(common.clone());
        let mut taking = Taking {
            value: or(&self.value, &common.value),
            resource: or(&self.resource, &common.resource),
            step_s: self.step_s.or(common.step_s),
            ..common.clone()
        };
        if taking.step_s == Some(0) {
            return Err(place.refused("`step_s` is 0; it must be at least 1".into()));
        }
        if let Some(label) = &self.customer_label {
            taking.customer_label.clone_from(label);
        }
        match self.kind {
            Kind::File => {
                let path = self.needed(place, "path", &self.path)?;
                let folder = place.file.parent().unwrap_or(Path::new(""));
                Source::read(&folder.join(path), &taking, samples)
            }
            Kind::Prometheus => {
                let query = self.range_query(place, &taking)?;
                taking.step_s = Some(query.step_s);
                Ok(Source {
                    name: place.name(),
                    sha256: query.take(&place.path(), &taking, samples)?,
                })
            }
        }
    }

    /// Reads what was measured into samples of its own.
    fn measured(
        &self,
        place: &Place<'_>,
        common: &Taking,
    ) -> Result<(Covariate, Source), TrainError> {
        let name = self.needed(place, "name", &self.name)?;
        if !is_file_name(name) {
            return Err(place.refused(format!(
                "`name` is {name:?}; it must be letters, digits, `_`, `-` and `.`, 64 at most"
            )));
        }
        self.refuse(
            place,
            &[("resource", self.resource.is_some())],
            "a covariate, which is of all resources",
        )?;
        let taking = Taking {
            value: (self.kind == Kind::File).then(|| self.value.clone().unwrap_or(name.clone())),
            resource: Some(name.clone()),
            is_covariate: true,
            is_for_all: self.for_all.unwrap_or(false),
            ..common.clone()
        };
        let mut samples = Samples::new();
        let source = Self {
            resource: Some(name.clone()),
            value: taking.value.clone(),
            ..self.clone()
        };
        let source = source.take(place, &taking, &mut samples)?;
        samples.sort();
        if samples.resources().any(|(found, _)| found != name) {
            return Err(place.refused(
                "its rows are of several resources, and a covariate has one value for each customer and step: leave out the column `resource`".into(),
            ));
        }
        if taking.is_for_all && samples.series(name).count() != 1 {
            return Err(place.refused(format!(
                "{} series, and what is `for_all` must have one",
                samples.series(name).count()
            )));
        }
        let covariate = Covariate {
            name: name.clone(),
            is_for_all: taking.is_for_all,
            samples,
        };
        Ok((covariate, source))
    }

    /// Fails if any of these fields is there, which mean nothing with what is named.
    fn refuse(
        &self,
        place: &Place<'_>,
        fields: &[(&str, bool)],
        with: &str,
    ) -> Result<(), TrainError> {
        match fields.iter().find(|(_, is_there)| *is_there) {
            Some((name, _)) => {
                Err(place.refused(format!("`{name}` means nothing with {with}; leave it out")))
            }
            None => Ok(()),
        }
    }

    fn needed<'e, T>(
        &self,
        place: &Place<'_>,
        name: &str,
        value: &'e Option<T>,
    ) -> Result<&'e T, TrainError> {
        value
            .as_ref()
            .ok_or_else(|| place.refused(format!("`{name}` is missing")))
    }

    fn range_query(&self, place: &Place<'_>, taking: &Taking) -> Result<RangeQuery, TrainError> {
        let stamp = |name: &str, value: &Option<String>| {
            let text = self.needed(place, name, value)?;
            match text.parse::<jiff::Timestamp>() {
                Ok(at) if at.subsec_nanosecond() == 0 => Ok(at.as_second()),
                _ => Err(place.refused(format!(
                    "`{name}` is {text:?}; it must be a time like 2026-10-01T00:00:00Z, of whole seconds"
                ))),
            }
        };
        let query = RangeQuery {
            url: self.needed(place, "url", &self.url)?.clone(),
            query: self.needed(place, "query", &self.query)?.clone(),
            from_s: stamp("from", &self.from)?,
            until_s: stamp("until", &self.until)?,
            step_s: *self.needed(place, "step_s", &taking.step_s)?,
            token_env: self.token_env.clone(),
        };
        query.check().map_err(|reason| place.refused(reason))?;
        Ok(query)
    }
}
