//! Options of `forebay serve` that say which series are kept, and under which name.
//!
//! A metric's name and labels that must be equal, and no more: who wants rates, ratios or sums has a recording rule made of them and sends that. A query
//! language was the worse alternative, since it would need the samples of minutes before and of other series.

use crate::prometheus::{Label, TimeSeries};
use clap::Args;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;

/// Covariates that are kept at most.
const COVARIATES_MOST: usize = 8;
const NAME_BYTES_MOST: usize = 64;
const METRIC: &str = "__name__";
const CUSTOMER_LABEL: &str = "--covariate-customer-label";
const REPLICA_LABEL: &str = "--covariate-replica-label";

/// Options of covariates.
#[derive(Clone, Debug, Args)]
pub struct CovariateOptions {
    /// Keep what senders of Prometheus' remote write (POST /api/v1/write) have measured of customers, like latency_s=app_latency_seconds{quantile="0.9"}; can
    /// be given eight times
    #[arg(
        long = "covariate",
        value_name = "NAME=METRIC",
        requires = "sender_token"
    )]
    pub covariates: Vec<CovariateRule>,
    /// The label that holds a customer's key, or `hash:` and its hash
    #[arg(long, value_name = "LABEL", default_value = "customer")]
    pub covariate_customer_label: String,
    /// The label by which replicas of one sender differ: what both have sent counts once
    #[arg(long, value_name = "LABEL", default_value = "__replica__")]
    pub covariate_replica_label: String,
}

/// `NAME=METRIC` or `NAME=METRIC{LABEL="VALUE",...}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CovariateRule {
    name: String,
    metric: String,
    /// Labels and their values; one that is empty need not be there.
    equal: Vec<(String, String)>,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// It has no name.
    #[error("not of the form NAME=METRIC or NAME=METRIC{{LABEL=\"VALUE\"}}")]
    Form,
    /// No column could have that name.
    #[error("`{0}` cannot be a covariate's name: 1 to {NAME_BYTES_MOST} letters, digits and `_`")]
    Name(String),
    /// No metric could have that name.
    #[error("`{0}` cannot be a metric's name")]
    Metric(String),
    /// Labels are written otherwise.
    #[error("`{0}` is not LABEL=\"VALUE\": labels can only be equal to something in quotes")]
    Label(String),
}

/// What cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CovariateOptionsError {
    /// There are too many.
    #[error("{0} options --covariate, and there may be {COVARIATES_MOST}")]
    TooMany(usize),
    /// Two have one name.
    #[error("two options --covariate have the name {0}: give one another name")]
    SameName(String),
    /// No series could have that label, or all of them have it for something else.
    #[error(
        "{0} {1:?} cannot be the name of a label that says who it is: letters, digits and `_`, not beginning with a digit, and not {METRIC}"
    )]
    Label(&'static str, String),
    /// Customers would be taken for replicas of one.
    #[error(
        "{CUSTOMER_LABEL} and {REPLICA_LABEL} are both {0}: then all customers would count as replicas of one sender, and only the first would be kept; name the label by which replicas differ"
    )]
    SameLabel(String),
}

/// What the options say, checked.
#[derive(Clone, Debug)]
pub struct Chosen {
    rules: Vec<CovariateRule>,
    customer_label: String,
    replica_label: String,
}

// === impl CovariateOptions ===

impl CovariateOptions {
    /// Checks them; `None` if nothing is kept.
    ///
    /// # Errors
    /// When there are too many, or two of one name, or labels tell no customers apart.
    pub fn choose(&self) -> Result<Option<Chosen>, CovariateOptionsError> {
        let rules = self.covariates.clone();
        if rules.len() > COVARIATES_MOST {
            return Err(CovariateOptionsError::TooMany(rules.len()));
        }
        let mut names = BTreeSet::new();
        if let Some(rule) = rules.iter().find(|rule| !names.insert(&rule.name)) {
            return Err(CovariateOptionsError::SameName(rule.name.clone()));
        }
        for (option, label) in [
            (CUSTOMER_LABEL, &self.covariate_customer_label),
            (REPLICA_LABEL, &self.covariate_replica_label),
        ] {
            if !is_identifier(label, b"_") || label == METRIC {
                return Err(CovariateOptionsError::Label(option, label.clone()));
            }
        }
        if self.covariate_customer_label == self.covariate_replica_label {
            let label = self.covariate_customer_label.clone();
            return Err(CovariateOptionsError::SameLabel(label));
        }
        Ok((!rules.is_empty()).then(|| Chosen {
            rules,
            customer_label: self.covariate_customer_label.clone(),
            replica_label: self.covariate_replica_label.clone(),
        }))
    }
}

// === impl Chosen ===

impl Chosen {
    /// Names of the covariates.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    /// Which covariates a series measures, by their positions.
    pub(crate) fn of<'a>(&'a self, series: &'a TimeSeries) -> impl Iterator<Item = usize> + 'a {
        let rules = self.rules.iter().enumerate();
        rules.filter_map(|(position, rule)| rule.matches(&series.labels).then_some(position))
    }

    /// What a series says of its customer.
    pub(crate) fn customer<'a>(&self, series: &'a TimeSeries) -> Option<&'a str> {
        let value = value_of(&series.labels, &self.customer_label);
        (!value.is_empty()).then_some(value)
    }

    /// A number for what a series measures, the same for all replicas of a sender.
    pub(crate) fn source(
        &self,
        series: &TimeSeries,
        covariate: usize,
        hashes: &impl BuildHasher,
    ) -> u64 {
        let mut hash = hashes.build_hasher();
        covariate.hash(&mut hash);
        let labels = series.labels.iter();
        for label in labels.filter(|label| label.name != self.replica_label) {
            (&label.name, &label.value).hash(&mut hash);
        }
        hash.finish()
    }
}

// === impl CovariateRule ===

impl CovariateRule {
    fn matches(&self, labels: &[Label]) -> bool {
        value_of(labels, METRIC) == self.metric
            && self
                .equal
                .iter()
                .all(|(name, value)| value_of(labels, name) == value)
    }
}

/// As in Prometheus' selectors a label that is not there is empty.
fn value_of<'a>(labels: &'a [Label], name: &str) -> &'a str {
    let label = labels.iter().find(|label| label.name == name);
    label.map_or("", |label| label.value.as_str())
}

impl FromStr for CovariateRule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let (name, selector) = text.split_once('=').ok_or(BadRule::Form)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=NAME_BYTES_MOST).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(BadRule::Name(name.to_owned()));
        }
        let (metric, labels) = match selector.split_once('{') {
            Some((metric, labels)) => (metric, labels.strip_suffix('}').ok_or(BadRule::Form)?),
            None => (selector, ""),
        };
        if !is_identifier(metric, b"_:") {
            return Err(BadRule::Metric(metric.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            metric: metric.to_owned(),
            equal: equal_labels(labels)?,
        })
    }
}

fn is_identifier(text: &str, more: &[u8]) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(is_of_it)
}

/// `a="b",c="d"`.
fn equal_labels(mut text: &str) -> Result<Vec<(String, String)>, BadRule> {
    let mut equal = Vec::new();
    while !text.trim().is_empty() {
        let wrong = || BadRule::Label(text.to_owned());
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        let rest = rest.trim_start();
        if !is_identifier(name, b"_") || !rest.starts_with('"') {
            return Err(wrong());
        }
        // Quoted as in JSON, whose escapes are those that anybody needs here.
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let value = values.next().and_then(Result::ok).ok_or_else(wrong)?;
        let rest = rest
            .get(values.byte_offset()..)
            .unwrap_or_default()
            .trim_start();
        text = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.is_empty() => "",
            None => return Err(wrong()),
        };
        equal.push((name.to_owned(), value));
    }
    Ok(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    fn series(labels: &[(&str, &str)]) -> TimeSeries {
        let label = |(name, value): &(&str, &str)| Label {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        TimeSeries {
            labels: labels.iter().map(label).collect(),
            samples: Vec::new(),
        }
    }

    fn options(rules: &[&str]) -> CovariateOptions {
        CovariateOptions {
            covariates: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            covariate_customer_label: "tenant".to_owned(),
            covariate_replica_label: "__replica__".to_owned(),
        }
    }

    #[test]
    fn a_rule_keeps_the_series_of_its_metric_whose_labels_are_equal() {
        let rules = [
            r#"p90=lat{quantile="0.9", job="a,\"b\"}"}"#,
            "all=lat",
            r#"bare=lat{job=""}"#,
        ];
        let chosen = options(&rules).choose().unwrap().unwrap();
        assert_eq!(chosen.names().collect::<Vec<_>>(), ["p90", "all", "bare"]);
        let of = |labels: &[(&str, &str)]| chosen.of(&series(labels)).collect::<Vec<_>>();
        let job = ("job", "a,\"b\"}");
        assert_eq!(of(&[("__name__", "lat"), job, ("quantile", "0.9")]), [0, 1]);
        assert_eq!(of(&[("__name__", "lat"), ("quantile", "0.9")]), [1, 2]);
        assert_eq!(of(&[("__name__", "lat"), job, ("quantile", "0.5")]), [1]);
        assert_eq!(of(&[("__name__", "late")]), [0; 0]);
        assert_eq!(of(&[]), [0; 0]);
    }

    #[test]
    fn replicas_have_one_series_and_everything_else_makes_another() {
        let chosen = options(&["all=lat"]).choose().unwrap().unwrap();
        let hashes = RandomState::new();
        let source =
            |covariate, labels: &[(&str, &str)]| chosen.source(&series(labels), covariate, &hashes);
        let one = source(0, &[("__replica__", "1"), ("pod", "a"), ("tenant", "acme")]);
        assert_eq!(
            one,
            source(0, &[("__replica__", "2"), ("pod", "a"), ("tenant", "acme")])
        );
        assert_ne!(one, source(0, &[("pod", "b"), ("tenant", "acme")]));
        assert_ne!(one, source(1, &[("pod", "a"), ("tenant", "acme")]));
        assert_eq!(
            chosen.customer(&series(&[("tenant", "acme")])),
            Some("acme")
        );
        assert_eq!(chosen.customer(&series(&[("customer", "acme")])), None);
    }

    #[test]
    fn labels_that_tell_no_customers_apart_are_refused() {
        let with = |customer: &str, replica: &str| CovariateOptions {
            covariate_customer_label: customer.to_owned(),
            covariate_replica_label: replica.to_owned(),
            ..options(&["a=m"])
        };
        assert!(with("tenant", "__replica__").choose().is_ok());
        let same = with("tenant", "tenant").choose().unwrap_err();
        assert_eq!(same, CovariateOptionsError::SameLabel("tenant".to_owned()));
        for wrong in ["", " ", "1a", "a b", "a-b", "__name__"] {
            let label = |option| CovariateOptionsError::Label(option, wrong.to_owned());
            let of_customer = with(wrong, "replica").choose().unwrap_err();
            assert_eq!(of_customer, label(CUSTOMER_LABEL), "{wrong:?}");
            let of_replica = with("tenant", wrong).choose().unwrap_err();
            assert_eq!(of_replica, label(REPLICA_LABEL), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, expected) in [
            ("latency", BadRule::Form),
            ("a=m{b=\"c\"", BadRule::Form),
            ("a-b=m", BadRule::Name("a-b".to_owned())),
            ("=m", BadRule::Name(String::new())),
            ("a=1m", BadRule::Metric("1m".to_owned())),
            ("a=rate(m)", BadRule::Metric("rate(m)".to_owned())),
            ("a=m{b=~\"c\"}", BadRule::Label("b=~\"c\"".to_owned())),
            ("a=m{b!=\"c\"}", BadRule::Label("b!=\"c\"".to_owned())),
            ("a=m{b=c}", BadRule::Label("b=c".to_owned())),
            (
                "a=m{b=\"c\" d=\"e\"}",
                BadRule::Label("b=\"c\" d=\"e\"".to_owned()),
            ),
        ] {
            assert_eq!(text.parse::<CovariateRule>(), Err(expected), "{text}");
        }
        let names: Vec<String> = (0..9).map(|number| format!("c{number}=m")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            options(&names).choose().unwrap_err(),
            CovariateOptionsError::TooMany(9)
        );
        let same = CovariateOptionsError::SameName("a".to_owned());
        assert_eq!(options(&["a=m", "b=m", "a=n"]).choose().unwrap_err(), same);
        assert!(options(&[]).choose().unwrap().is_none());
    }
}
