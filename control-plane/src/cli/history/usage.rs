//! From the series of an answer to tokens per step and customer.
//!
//! What cannot be usage is refused with its place: a forecaster that learns from a wrong window is worse off than one without any.

use crate::prometheus::QueriedSeries;
use forebay_wire::key::MAX_KEY_BYTES;
use std::collections::{BTreeMap, HashMap};

/// What the server takes as usage of one step.
const MAX_TOKENS: f64 = 1e12;

/// How an answer is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    /// The label with the customer's key.
    pub(super) label: &'a str,
    /// Length of a step.
    pub(super) step_ms: u32,
    /// What a value is multiplied with.
    pub(super) tokens_per_value: f64,
}

/// Usage of one customer in consecutive steps; `None` is a gap.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CustomerUsage {
    pub(super) key: String,
    pub(super) newest_step: u64,
    pub(super) usage: Vec<Option<f64>>,
}

/// Why an answer is no usage.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum NoUsage {
    /// The label is missing.
    #[error(
        "the series {series} has no label `{label}` to take the customer from: name another with --customer-label, or keep it with `sum by ({label}) (...)`"
    )]
    NoLabel { series: String, label: String },
    /// Their sum may be right, or count everything twice, as with two replicas of Prometheus: only who asks knows.
    #[error(
        "there are two series for the customer {customer}, {first} and {second}: say how they belong together, as with `sum by ({label}) (...)`"
    )]
    Twice {
        customer: String,
        first: String,
        second: String,
        label: String,
    },
    /// No customer has such a key.
    #[error(
        "the series {series} names a customer by {bytes} bytes, at most {MAX_KEY_BYTES} are a key"
    )]
    KeyTooLong { series: String, bytes: usize },
    /// Not an amount of tokens.
    #[error(
        "the customer {customer} has {tokens} tokens in the step that ends at {unix_s} (Unix time in s): usage is from 0 to 1e12 tokens"
    )]
    NotAnAmount {
        customer: String,
        tokens: f64,
        unix_s: f64,
    },
    /// Another server than thought, or one that rounds.
    #[error("the answer has a value at {unix_s} (Unix time in s), for which it was not asked")]
    NotAsked { unix_s: f64 },
}

// === impl Reading ===

impl Reading<'_> {
    /// Reads the answer for the steps from `first` to `last`. Customers without any value are left out.
    pub(super) fn read(
        &self,
        found: Vec<QueriedSeries>,
        first: u64,
        last: u64,
    ) -> Result<Vec<CustomerUsage>, NoUsage> {
        let mut seen: HashMap<String, BTreeMap<String, String>> = HashMap::new();
        let mut read = Vec::with_capacity(found.len());
        for series in found {
            let key = self.customer(&series.labels)?;
            read.extend(self.usage(&key, &series.values, first, last)?);
            if let Some(other) = seen.get(&key) {
                return Err(NoUsage::Twice {
                    first: written(other),
                    second: written(&series.labels),
                    label: self.label.to_owned(),
                    customer: key,
                });
            }
            seen.insert(key, series.labels);
        }
        Ok(read)
    }

    fn customer(&self, labels: &BTreeMap<String, String>) -> Result<String, NoUsage> {
        // To Prometheus an empty label is none.
        let key = labels.get(self.label).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| NoUsage::NoLabel {
            series: written(labels),
            label: self.label.to_owned(),
        })?;
        if key.len() > MAX_KEY_BYTES {
            return Err(NoUsage::KeyTooLong {
                series: written(labels),
                bytes: key.len(),
            });
        }
        Ok(key.clone())
    }

    fn usage(
        &self,
        key: &str,
        values: &[(u64, f64)],
        first: u64,
        last: u64,
    ) -> Result<Option<CustomerUsage>, NoUsage> {
        let known = values.iter().filter(|(_, value)| !value.is_nan());
        let known: BTreeMap<u64, f64> = known
            .map(|(unix_ms, value)| {
                let step = self.step_ended_at(*unix_ms, first, last)?;
                let tokens = value * self.tokens_per_value;
                if !(0.0..=MAX_TOKENS).contains(&tokens) {
                    return Err(NoUsage::NotAnAmount {
                        customer: key.to_owned(),
                        tokens,
                        unix_s: seconds(*unix_ms),
                    });
                }
                Ok((step, tokens))
            })
            .collect::<Result<_, _>>()?;
        let (Some((oldest, _)), Some((newest, _))) =
            (known.first_key_value(), known.last_key_value())
        else {
            return Ok(None);
        };
        Ok(Some(CustomerUsage {
            key: key.to_owned(),
            newest_step: *newest,
            usage: (*oldest..=*newest)
                .map(|step| known.get(&step).copied())
                .collect(),
        }))
    }

    fn step_ended_at(&self, unix_ms: u64, first: u64, last: u64) -> Result<u64, NoUsage> {
        let step_ms = u64::from(self.step_ms);
        let step = unix_ms
            .checked_div(step_ms)
            .and_then(|ended| ended.checked_sub(1));
        let step =
            step.filter(|step| (first..=last).contains(step) && unix_ms.is_multiple_of(step_ms));
        step.ok_or(NoUsage::NotAsked {
            unix_s: seconds(unix_ms),
        })
    }
}

#[allow(clippy::cast_precision_loss)] // for people
fn seconds(unix_ms: u64) -> f64 {
    unix_ms as f64 / 1e3
}

/// As Prometheus writes it.
fn written(labels: &BTreeMap<String, String>) -> String {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"));
    format!("{{{}}}", labels.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading<'static> = Reading {
        label: "customer",
        step_ms: 60_000,
        tokens_per_value: 60.0,
    };

    fn series(labels: &[(&str, &str)], values: &[(u64, f64)]) -> QueriedSeries {
        let labels = labels.iter();
        let at_end_of = |(step, value): &(u64, f64)| ((step + 1) * 60_000, *value);
        QueriedSeries {
            labels: labels
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            values: values.iter().map(at_end_of).collect(),
        }
    }

    fn refusal(found: Vec<QueriedSeries>) -> String {
        READING.read(found, 10, 19).unwrap_err().to_string()
    }

    #[test]
    fn values_become_tokens_of_the_step_that_ends_then_and_gaps_stay_gaps() {
        let values = [
            (12, 0.5),
            (13, f64::NAN),
            (14, 0.0),
            (16, 2.0),
            (17, f64::NAN),
        ];
        let found = vec![
            series(&[("customer", "acme")], &values),
            series(&[("customer", "bolt")], &[(11, f64::NAN)]),
            series(&[("customer", "coin")], &[]),
            series(&[("customer", "hash:00")], &[(10, 1.0), (19, 1.0)]),
        ];
        let read = READING.read(found, 10, 19).unwrap();
        let [acme, hash] = read.as_slice() else {
            panic!("{read:?}");
        };
        let usage = vec![Some(30.0), None, Some(0.0), None, Some(120.0)];
        let expected = CustomerUsage {
            key: "acme".to_owned(),
            newest_step: 16,
            usage,
        };
        assert_eq!(*acme, expected);
        assert_eq!((hash.key.as_str(), hash.usage.len()), ("hash:00", 10));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_customer_and_time() {
        for (value, says) in [
            (-0.5, "has -30 tokens"),
            (f64::INFINITY, "has inf tokens"),
            (f64::NEG_INFINITY, "has -inf tokens"),
            (1e12, "tokens in the step"),
        ] {
            let error = refusal(vec![series(
                &[("customer", "acme")],
                &[(12, 1.0), (13, value)],
            )]);
            assert!(
                error.contains("customer acme") && error.contains(says),
                "{error}"
            );
            assert!(error.contains("ends at 840 "), "{error}");
        }
    }

    #[test]
    fn a_customer_must_be_named_and_only_once() {
        let one = [(12, 1.0)];
        for labels in [&[("job", "api")][..], &[("job", "api"), ("customer", "")]] {
            let error = refusal(vec![series(labels, &one)]);
            assert!(error.contains("no label `customer`"), "{error}");
            assert!(error.contains(r#"job="api""#), "{error}");
        }
        let first = series(&[("customer", "acme"), ("pod", "1")], &one);
        let second = series(&[("customer", "acme"), ("pod", "2")], &one);
        let error = refusal(vec![first, second]);
        assert!(
            error.contains(r#"pod="1"} and {customer="acme", pod="2"}"#),
            "{error}"
        );
        assert!(error.contains("sum by (customer)"), "{error}");
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        let error = refusal(vec![series(&[("customer", &long)], &one)]);
        assert!(error.contains("at most"), "{error}");
    }

    #[test]
    fn a_value_at_another_time_than_asked_for_is_refused() {
        for unix_ms in [60_000 * 10, 60_000 * 21, 60_000 * 12 + 1, 0, u64::MAX] {
            let mut found = series(&[("customer", "acme")], &[]);
            found.values.push((unix_ms, 1.0));
            let error = refusal(vec![found]);
            assert!(error.contains("for which it was not asked"), "{error}");
        }
    }
}
