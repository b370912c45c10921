//! `POST /api/v1/write`: covariates, by Prometheus' remote write 1.0.
//!
//! What a sender may send again is answered with 5xx, and everything else with 4xx, which it drops: 429 and 408 would be the better words for some, but
//! senders drop what is answered with them unless they are told otherwise.

use super::Shared;
use super::body::read;
use crate::error::ApiError;
use crate::prometheus::COMPRESSED_BYTES_MOST;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use std::sync::Arc;
use tokio::task::spawn_blocking;

const PROTOBUF: &str = "application/x-protobuf";
/// What a message of version 1.0 is, where the content type says which one it is.
const MESSAGE: &str = "prometheus.WriteRequest";
const SNAPPY: &str = "snappy";
const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");

pub(super) async fn write(
    State(server): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<&'static str, ApiError> {
    let written = take(&server, &headers, body).await;
    if written.is_err() {
        server.plane.refuse_measurements();
    }
    written.map(|()| "ok\n")
}

async fn take(
    server: &Arc<super::Server>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), ApiError> {
    // Before anything is read: each may take as much memory as a body when it is decompressed.
    let _turn = server.plane.turn_to_measure().await?;
    check_media(headers)?;
    let body = read(body, COMPRESSED_BYTES_MOST).await.map_err(again)?;
    let reader = Arc::clone(server);
    let read = spawn_blocking(move || reader.plane.read_measurements(&body)).await;
    let measured = read.map_err(|error| {
        let message = format!("the body could not be read: {error}");
        ApiError::malformed(message, "look at the log of the server")
    })??;
    server.plane.keep_measurements(&measured).await
}

/// A body that was too slow may come again.
fn again(error: ApiError) -> ApiError {
    match error.status == StatusCode::REQUEST_TIMEOUT {
        true => ApiError {
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            ..error
        },
        false => error,
    }
}

/// Refuses what is not remote write 1.0. A sender of 2.0 takes that for the word to speak 1.0. Headers may be missing, as those of the first senders are.
fn check_media(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &HeaderName| match headers.get(name) {
        Some(value) => value.to_str().map(str::trim).unwrap_or("?"),
        None => "",
    };
    let mut parts = text(&CONTENT_TYPE).split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let is_message = |part: &str| match part.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("proto") => {
            value.trim_matches('"') == MESSAGE
        }
        _ => true,
    };
    let encoding = text(&CONTENT_ENCODING);
    let is_known = (media.is_empty() || media.eq_ignore_ascii_case(PROTOBUF))
        && parts.all(is_message)
        && (encoding.is_empty() || encoding.eq_ignore_ascii_case(SNAPPY))
        && !text(&VERSION).starts_with("2.");
    match is_known {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_remote_write_1",
            format!("only {MESSAGE} of remote write 1.0 is read here, compressed with {SNAPPY}"),
            "let the sender speak version 1.0: `protobuf_message: prometheus.WriteRequest` of Prometheus",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_version_1_is_spoken_and_others_are_told_so() {
        let status =
            |media: &[&'static str], encoding: &[&'static str], version: &[&'static str]| {
                let mut headers = HeaderMap::new();
                for (name, values) in [
                    (CONTENT_TYPE, media),
                    (CONTENT_ENCODING, encoding),
                    (VERSION, version),
                ] {
                    for value in values {
                        headers.insert(&name, HeaderValue::from_static(value));
                    }
                }
                check_media(&headers).map_err(|error| error.status)
            };
        let (protobuf, snappy, first) = ([PROTOBUF], [SNAPPY], ["0.1.0"]);
        assert_eq!(status(&protobuf, &snappy, &first), Ok(()));
        assert_eq!(status(&[], &[], &[]), Ok(()));
        let named = ["application/x-protobuf;proto=prometheus.WriteRequest"];
        assert_eq!(status(&named, &snappy, &first), Ok(()));
        let second = ["application/x-protobuf;proto=io.prometheus.write.v2.Request"];
        assert_eq!(status(&second, &snappy, &["2.0.0"]), Err(415));
        assert_eq!(status(&second, &snappy, &[]), Err(415));
        assert_eq!(status(&protobuf, &snappy, &["2.0.0"]), Err(415));
        assert_eq!(status(&["application/json"], &snappy, &first), Err(415));
        assert_eq!(status(&protobuf, &["zstd"], &first), Err(415));
        assert_eq!(status(&protobuf, &["gzip"], &first), Err(415));
    }
}
