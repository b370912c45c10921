//! Reading bodies: bounded, and with the place of each mistake.

use crate::error::ApiError;
use crate::objects::Objects;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::time::Duration;

/// Largest JSON body of a small request.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// How long a body may take to arrive: 64 MB over 10 Mbit/s.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Reads a body of at most so many bytes, and waits for it only so long: a client that falls silent within a body would hold its
/// connection and what it has sent for ever.
pub(super) async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let Ok(read) = tokio::time::timeout(BODY_WITHIN, to_bytes(body, limit_bytes)).await else {
        let message = format!("the body did not arrive within {} s", BODY_WITHIN.as_secs());
        let hint = "send less at once, or over a faster network";
        return Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            message,
            hint,
        ));
    };
    read.map_err(|error| {
        let is_too_long = error
            .source()
            .is_some_and(|source| source.is::<LengthLimitError>());
        if is_too_long {
            return ApiError::too_large(limit_bytes);
        }
        ApiError::malformed(format!("the body broke off: {error}"), "send it again")
    })
}

/// Reads a JSON body; an empty one counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(
    body: Body,
    limit_bytes: usize,
) -> Result<T, ApiError> {
    let bytes = read(body, limit_bytes).await?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize(Objects(&mut deserializer));
    let value = read.map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        let place = error.path().to_string();
        let message = format!(
            "the body is not the JSON that is expected here: {}",
            error.inner()
        );
        ApiError::malformed(message, "docs/reference/api.md shows the body").at(place)
    })?;
    deserializer.end().map_err(|error| {
        ApiError::malformed(
            format!("something follows the JSON: {error}"),
            "send one JSON value",
        )
    })?;
    Ok(value)
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::malformed(
            rejection.body_text(),
            "write the part of the path in percent-encoded UTF-8",
        )
        .at("path")
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::malformed(
            rejection.body_text(),
            "docs/reference/api.md lists the parameters",
        )
        .at("query")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A body of which no byte ever comes.
    struct Silent;

    impl axum::body::HttpBody for Silent {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_refused() {
        let reading = read(Body::new(Silent), SMALL_BYTES);
        let error = tokio::time::timeout(Duration::from_secs(3_600), reading)
            .await
            .expect("reading ends")
            .unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (408, "body_too_slow"));
    }
}
