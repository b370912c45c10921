//! Remote write 1.0 on the wire: a `WriteRequest` in protobuf, compressed as one Snappy block.
//!
//! The five messages are written by hand: code generated from Prometheus' files would bring its build tools for 20 lines.

use super::outbox::Batch;
use hashbrown::HashSet;

/// The name of the series.
const NAME: &str = "forebay_usage_tokens";

/// What a write request says of itself.
pub(super) const HEADERS: [(&str, &str); 3] = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) timeseries: Vec<TimeSeries>,
}

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TimeSeries {
    /// Sorted by name, as the protocol demands.
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<TimedValue>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Label {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `prometheus.Sample`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TimedValue {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

// === impl TimeSeries ===

impl TimeSeries {
    /// A label that it has twice, which the protocol forbids.
    pub(crate) fn repeats(&self) -> Option<&str> {
        let names = || self.labels.iter().map(|label| label.name.as_str());
        // As nearly all come: each behind the one before.
        if names().zip(names().skip(1)).all(|(one, next)| one < next) {
            return None;
        }
        let mut seen = HashSet::new();
        names().find(|name| !seen.insert(*name))
    }
}

/// The body of a request.
///
/// # Errors
/// When Snappy cannot take it, which has a bound of 4 GiB.
pub(super) fn encode(batch: &Batch) -> Result<Vec<u8>, snap::Error> {
    let bytes = prost::Message::encode_to_vec(&request(batch));
    snap::raw::Encoder::new().compress_vec(&bytes)
}

fn request(batch: &Batch) -> WriteRequest {
    let step_ms = batch.step_ms.to_string();
    let series = batch.samples.iter().map(|sample| {
        let resource = batch.resources.get(usize::from(sample.resource));
        let resource = resource.map_or("", String::as_str);
        TimeSeries {
            labels: vec![
                label("__name__", NAME),
                // As the API shows it: a customer's key never leaves the gateways' memory and ours.
                label("customer", format!("hash:{}", sample.customer)),
                label("resource", resource),
                label("step_ms", step_ms.as_str()),
            ],
            samples: vec![TimedValue {
                value: sample.tokens,
                timestamp: batch.ended_unix_ms,
            }],
        }
    });
    WriteRequest {
        timeseries: series.collect(),
    }
}

fn label(name: &str, value: impl Into<String>) -> Label {
    Label {
        name: name.to_owned(),
        value: value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Sample;
    use super::*;
    use forebay_wire::key::CustomerHash;
    use prost::Message;
    use std::sync::Arc;

    /// What Prometheus' own client writes for one sample of a series `a{b="c"}`: field numbers and wire types by the letter.
    #[test]
    fn the_messages_have_the_field_numbers_of_the_protocol() {
        let request = WriteRequest {
            timeseries: vec![TimeSeries {
                labels: vec![label("__name__", "a"), label("b", "c")],
                samples: vec![TimedValue {
                    value: 1.0,
                    timestamp: 1,
                }],
            }],
        };
        let mut expected = vec![0x0a, 0x24];
        expected.extend_from_slice(b"\x0a\x0d\x0a\x08__name__\x12\x01a");
        expected.extend_from_slice(b"\x0a\x06\x0a\x01b\x12\x01c");
        expected.extend_from_slice(b"\x12\x0b\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x01");
        assert_eq!(request.encode_to_vec(), expected);
    }

    #[test]
    fn a_batch_names_customers_by_hash_and_sorts_its_labels() {
        let batch = Batch {
            ended_unix_ms: 60_000,
            step_ms: 60_000,
            resources: Arc::from(["requests".to_owned(), "bytes".to_owned()]),
            samples: vec![Sample {
                customer: CustomerHash([0xab; 16]),
                resource: 1,
                tokens: 12.5,
            }],
        };
        let body = encode(&batch).unwrap();
        let bytes = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let request = WriteRequest::decode(bytes.as_slice()).unwrap();
        let [series] = request.timeseries.as_slice() else {
            panic!("{request:?}");
        };
        let labels: Vec<(&str, &str)> = series
            .labels
            .iter()
            .map(|label| (label.name.as_str(), label.value.as_str()))
            .collect();
        let customer = format!("hash:{}", "ab".repeat(16));
        let expected = [
            ("__name__", NAME),
            ("customer", customer.as_str()),
            ("resource", "bytes"),
            ("step_ms", "60000"),
        ];
        assert_eq!(labels, expected);
        assert!(labels.is_sorted());
        let sample = TimedValue {
            value: 12.5,
            timestamp: 60_000,
        };
        assert_eq!(series.samples, [sample]);
    }
}
