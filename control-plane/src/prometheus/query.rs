//! `query_range`: what a query of PromQL says at evenly spaced times.
//!
//! Asked by POST with a form, since a query may be longer than a proxy lets a URL be.

use super::endpoint::{Answer, Bounds, Connection, Endpoint, Unreachable};
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use url::form_urlencoded;

/// What one question may take. Servers give up after two minutes by default.
const BOUNDS: Bounds = Bounds {
    answer_within: Duration::from_secs(150),
    answer_bytes: 64 << 20,
};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// In PromQL.
    pub promql: &'a str,
    /// The first time.
    pub first_unix_ms: u64,
    /// The last time.
    pub last_unix_ms: u64,
    /// Between one time and the next.
    pub step_ms: u32,
}

/// One series of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct QueriedSeries {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Times (Unix, in ms) and values; times at which it has none are left out.
    pub values: Vec<(u64, f64)>,
}

/// Why there is no answer to a question.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nobody answers.
    #[error(
        "cannot ask {endpoint}: {reason}; is Prometheus there? Its API is looked for below the path of the URL"
    )]
    Unreachable {
        /// Who was asked.
        endpoint: String,
        /// Why it failed.
        reason: Unreachable,
    },
    /// The answer is more than is read at once.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The server does not answer the query.
    #[error("{endpoint} refuses the query ({kind}): {message}")]
    Refused {
        /// Who was asked.
        endpoint: String,
        /// `errorType` of its answer.
        kind: String,
        /// What it says.
        message: String,
    },
    /// The server is another one, or wants to know who asks.
    #[error("{endpoint} answers {status}, which is not what Prometheus' API says: {excerpt}")]
    Foreign {
        /// Who was asked.
        endpoint: String,
        /// Status of the answer.
        status: StatusCode,
        /// Its beginning.
        excerpt: String,
    },
    /// Some of it is missing.
    #[error(
        "{endpoint} says that a part of its storage did not answer: nothing is imported; try again when it is whole"
    )]
    Partial {
        /// Who was asked.
        endpoint: String,
    },
    /// A value or time that is no number.
    #[error("{endpoint} says {text:?} where a number must be")]
    NoNumber {
        /// Who was asked.
        endpoint: String,
        /// What it says.
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Said {
    Success {
        data: Data,
        /// VictoriaMetrics: a part of its storage did not answer.
        #[serde(rename = "isPartial", default)]
        is_partial: bool,
    },
    Error {
        #[serde(rename = "errorType", default)]
        kind: String,
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    /// Native histograms have none.
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Asks once.
///
/// # Errors
/// Why there is no answer.
pub async fn query_range(
    endpoint: &Endpoint,
    query: &Query<'_>,
) -> Result<Vec<QueriedSeries>, QueryError> {
    let endpoint = endpoint.below("api/v1/query_range");
    let form = Bytes::from(query.form());
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let mut connection = Connection::default();
    let answer = endpoint.post(&mut connection, &headers, form, BOUNDS).await;
    let answer = answer.map_err(|reason| match reason {
        Unreachable::TooLong(bytes) => QueryError::TooLong(bytes),
        reason => QueryError::Unreachable {
            endpoint: endpoint.to_string(),
            reason,
        },
    })?;
    read(&endpoint.to_string(), &answer)
}

// === impl Query ===

impl Query<'_> {
    fn form(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("query", self.promql)
            .append_pair("start", &seconds(self.first_unix_ms))
            .append_pair("end", &seconds(self.last_unix_ms))
            .append_pair("step", &seconds(u64::from(self.step_ms)))
            // VictoriaMetrics: an answer from its cache may lack what was written late.
            .append_pair("nocache", "1")
            .finish()
    }
}

fn read(endpoint: &str, answer: &Answer) -> Result<Vec<QueriedSeries>, QueryError> {
    let endpoint = || endpoint.to_owned();
    let found = match serde_json::from_slice(&answer.body) {
        Ok(Said::Success {
            is_partial: true, ..
        }) => {
            return Err(QueryError::Partial {
                endpoint: endpoint(),
            });
        }
        Ok(Said::Success { data, .. }) => data.result,
        Ok(Said::Error { kind, error }) => {
            return Err(QueryError::Refused {
                endpoint: endpoint(),
                kind,
                message: error,
            });
        }
        Err(_) => {
            return Err(QueryError::Foreign {
                endpoint: endpoint(),
                status: answer.status,
                excerpt: answer.excerpt(),
            });
        }
    };
    let series = found.into_iter().map(|found| {
        let values = found.values.into_iter().map(|(time_s, text)| {
            let value: f64 = text.parse().map_err(|_| QueryError::NoNumber {
                endpoint: endpoint(),
                text,
            })?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates
            Ok(((time_s * 1e3).round() as u64, value))
        });
        Ok(QueriedSeries {
            labels: found.metric,
            values: values.collect::<Result<_, _>>()?,
        })
    });
    series.collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &'static str) -> Result<Vec<QueriedSeries>, QueryError> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body: Bytes::from_static(body.as_bytes()),
        };
        read("http://there/", &answer)
    }

    #[test]
    fn a_question_is_a_form_with_times_in_seconds() {
        let query = Query {
            promql: "rate(a{b=\"c\"}[1m]) + 1 & 2",
            first_unix_ms: 1_790_000_000_050,
            last_unix_ms: 1_790_000_060_000,
            step_ms: 50,
        };
        let form = query.form();
        let pairs: Vec<_> = form_urlencoded::parse(form.as_bytes())
            .into_owned()
            .collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [
            pair("query", query.promql),
            pair("start", "1790000000.050"),
            pair("end", "1790000060.000"),
            pair("step", "0.050"),
            pair("nocache", "1"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn an_answer_is_read_to_the_millisecond_with_all_that_a_float_can_be() {
        let read = answered(
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"customer":"a"},
            "values":[[1790000000.05,"1.5"],[1790000000.1,"NaN"],[1790000001,"+Inf"],[1790000002,"-Inf"]]}]}}"#,
        );
        let read = read.unwrap();
        let labels = BTreeMap::from([("customer".to_owned(), "a".to_owned())]);
        assert_eq!(read[0].labels, labels);
        let times: Vec<u64> = read[0].values.iter().map(|(time, _)| *time).collect();
        let expected = [
            1_790_000_000_050,
            1_790_000_000_100,
            1_790_000_001_000,
            1_790_000_002_000,
        ];
        assert_eq!(times, expected);
        assert_eq!(read[0].values[0].1, 1.5);
        assert!(read[0].values[1].1.is_nan());
        assert_eq!(read[0].values[2].1, f64::INFINITY);
        assert_eq!(read[0].values[3].1, f64::NEG_INFINITY);
    }

    #[test]
    fn what_is_not_an_answer_says_what_the_server_said() {
        for (status, body, says) in [
            (
                400,
                r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: unclosed left parenthesis"}"#,
                "refuses the query (bad_data): 1:5: parse error: unclosed left parenthesis",
            ),
            (
                401,
                "who are you?\n",
                "answers 401 Unauthorized, which is not what Prometheus' API says: who are you?",
            ),
            (200, "<html>", "answers 200 OK"),
            (
                200,
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"x"]]}]}}"#,
                r#"says "x" where a number must be"#,
            ),
        ] {
            let error = answered(status, body).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
