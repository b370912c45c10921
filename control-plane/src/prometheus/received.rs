//! Remote write 1.0 as it comes in: one Snappy block, and in it a `WriteRequest`, of which one series at a time is decoded.
//!
//! To decode the whole message at once was the worse alternative: two bytes on the wire are an empty series or label, which takes 48 in memory, so a
//! small body could take all there is.

use super::message::TimeSeries;
use prost::{Message, decode_length_delimiter};

/// Largest body. Senders put some thousands of samples into one request, which are some 100 kB.
pub(crate) const COMPRESSED_BYTES_MOST: usize = 4 << 20;
/// Largest message in it.
const BYTES_MOST: usize = 16 << 20;
/// Largest series in the message, which is decoded as a whole.
const SERIES_BYTES_MOST: usize = 1 << 20;
/// Samples in one request.
pub(crate) const SAMPLES_MOST: usize = 100_000;

/// Number of `timeseries` in `WriteRequest`.
const TIMESERIES: usize = 1;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWrite {
    /// It cannot be decompressed.
    #[error("the body is not one block of Snappy: {0}")]
    NotSnappy(String),
    /// It is too large when it is decompressed.
    #[error(
        "the body is {0} bytes long when it is decompressed, and {BYTES_MOST} are read at most"
    )]
    TooLarge(usize),
    /// It cannot be decoded.
    #[error("the body is not a prometheus.WriteRequest in protobuf: {0}")]
    NotProtobuf(String),
    /// One series is too large.
    #[error("a series is {0} bytes long, and {SERIES_BYTES_MOST} are read at most")]
    LongSeries(usize),
    /// It has too many samples.
    #[error("the request has more than {SAMPLES_MOST} samples")]
    TooManySamples,
    /// Its samples are of too many covariates.
    #[error(
        "the request has more than {SAMPLES_MOST} samples, if each counts once for every covariate that it is of"
    )]
    TooManyMeasurements,
}

// === impl BadWrite ===

impl BadWrite {
    /// What the sender's configuration needs.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotSnappy(_) => {
                "nothing of the request is kept: compress the message as one raw block of Snappy, neither framed nor by gzip or zstd"
            }
            Self::NotProtobuf(_) => {
                "nothing of the request is kept: send the message prometheus.WriteRequest of remote write 1.0, neither 2.0 nor JSON nor OTLP"
            }
            Self::LongSeries(_) => {
                "nothing of the request is kept: drop long labels by write_relabel_configs, or send fewer samples at once (queue_config.max_samples_per_send)"
            }
            Self::TooLarge(_) | Self::TooManySamples | Self::TooManyMeasurements => {
                "nothing of the request is kept: send fewer samples at once (queue_config.max_samples_per_send of Prometheus)"
            }
        }
    }
}

/// Visits each series of a body that has samples: so there are no more of them than samples, however many there are without any.
///
/// # Errors
/// At the first thing that is wrong with it, or that the visitor refuses; the series before that have been visited.
pub(crate) fn each_series(
    body: &[u8],
    visit: &mut dyn FnMut(TimeSeries) -> Result<(), BadWrite>,
) -> Result<(), BadWrite> {
    let not_snappy = |error: snap::Error| BadWrite::NotSnappy(error.to_string());
    // As the body says itself: nothing is decompressed to find out.
    let length = snap::raw::decompress_len(body).map_err(not_snappy)?;
    if length > BYTES_MOST {
        return Err(BadWrite::TooLarge(length));
    }
    let message = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(not_snappy)?;
    let mut rest = message.as_slice();
    let mut samples = 0_usize;
    while let Some(series) = next_series(&mut rest)? {
        samples = samples.saturating_add(series.samples.len());
        if samples > SAMPLES_MOST {
            return Err(BadWrite::TooManySamples);
        }
        if !series.samples.is_empty() {
            visit(series)?;
        }
    }
    Ok(())
}

/// Decodes the next series, and passes by what else there is: metadata, and what later versions may add.
fn next_series(rest: &mut &[u8]) -> Result<Option<TimeSeries>, BadWrite> {
    while !rest.is_empty() {
        let key = number(rest)?;
        let bytes = match key & 7 {
            0 => {
                number(rest)?;
                continue;
            }
            1 => 8,
            2 => number(rest)?,
            5 => 4,
            kind => {
                let reason = format!("a field is of the kind {kind}, which it has not");
                return Err(BadWrite::NotProtobuf(reason));
            }
        };
        let Some((field, after)) = rest.split_at_checked(bytes) else {
            let reason = format!("a field of {bytes} bytes where {} are left", rest.len());
            return Err(BadWrite::NotProtobuf(reason));
        };
        *rest = after;
        if key >> 3 != TIMESERIES || key & 7 != 2 {
            continue;
        }
        if bytes > SERIES_BYTES_MOST {
            return Err(BadWrite::LongSeries(bytes));
        }
        return TimeSeries::decode(field).map(Some).map_err(not_protobuf);
    }
    Ok(None)
}

/// What stands before a field and before its bytes are written alike.
fn number(rest: &mut &[u8]) -> Result<usize, BadWrite> {
    decode_length_delimiter(rest).map_err(not_protobuf)
}

fn not_protobuf(error: prost::DecodeError) -> BadWrite {
    BadWrite::NotProtobuf(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::message::{Label, TimedValue, WriteRequest};
    use super::*;
    use proptest::prelude::*;

    fn series(name: &str, samples: usize) -> TimeSeries {
        TimeSeries {
            labels: vec![Label {
                name: "__name__".to_owned(),
                value: name.to_owned(),
            }],
            samples: (0..samples)
                .map(|at| TimedValue {
                    value: 1.5,
                    timestamp: i64::try_from(at).unwrap(),
                })
                .collect(),
        }
    }

    fn compressed(message: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(message).unwrap()
    }

    fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
        compressed(&WriteRequest { timeseries }.encode_to_vec())
    }

    fn read(body: &[u8]) -> Result<Vec<TimeSeries>, BadWrite> {
        let mut all = Vec::new();
        let mut push = |series| {
            all.push(series);
            Ok(())
        };
        each_series(body, &mut push).map(|()| all)
    }

    #[test]
    fn series_come_as_they_were_written_and_what_is_none_is_passed_by() {
        let mut sent = vec![series("a", 3), series("b", 0), series("c", 1)];
        let mut message = WriteRequest {
            timeseries: sent.clone(),
        }
        .encode_to_vec();
        // Metadata (field 3), and a varint and fixed numbers that no version has.
        for field in [
            &b"\x1a\x02\x08\x01"[..],
            b"\x38\x96\x01",
            b"\x41\0\0\0\0\0\0\0\0",
            b"\x4d\0\0\0\0",
        ] {
            message.extend_from_slice(field);
        }
        sent.remove(1);
        assert_eq!(
            read(&compressed(&message)),
            Ok(sent),
            "but for the empty one"
        );
    }

    #[test]
    fn what_would_take_too_much_is_refused_before_it_does() {
        // Six bytes that promise 4 GiB.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert_eq!(read(&bomb), Err(BadWrite::TooLarge(0xffff_ffff)));
        let zeros = compressed(&vec![0; BYTES_MOST + 1]);
        assert!(zeros.len() < COMPRESSED_BYTES_MOST);
        assert_eq!(read(&zeros), Err(BadWrite::TooLarge(BYTES_MOST + 1)));
        let name = "x".repeat(SERIES_BYTES_MOST);
        let long = read(&body(vec![series(&name, 1)]));
        assert!(matches!(long, Err(BadWrite::LongSeries(_))), "{long:?}");
        let many = (0..SAMPLES_MOST / 10_000 + 1).map(|_| series("a", 10_000));
        assert_eq!(read(&body(many.collect())), Err(BadWrite::TooManySamples));
    }

    #[test]
    fn what_is_no_write_request_is_refused() {
        let not_snappy = read(b"{\"not\": \"snappy\"}");
        assert!(matches!(
            not_snappy,
            Err(BadWrite::NotSnappy(_) | BadWrite::TooLarge(_))
        ));
        for message in [
            // A group; bytes that are not there; a name that is no UTF-8; a number without an end.
            &b"\x0b"[..],
            b"\x0a\x05\x0a",
            b"\x0a\x06\x0a\x04\x0a\x02\xff\xfe",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let refused = read(&compressed(message));
            assert!(
                matches!(refused, Err(BadWrite::NotProtobuf(_))),
                "{message:?}: {refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn bytes_that_nobody_wrote_do_no_harm(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), inside in any::<bool>(),
        ) {
            let mut message = WriteRequest { timeseries: vec![series("a", 2), series("b", 1)] }.encode_to_vec();
            let mut bytes = compressed(&message);
            let changed = if inside { &mut message } else { &mut bytes };
            for (at, byte) in changes {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            let _whatever = read(&if inside { compressed(&message) } else { bytes });
        }
    }
}
