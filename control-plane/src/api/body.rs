//! Reading bodies: bounded, and with the place of each mistake.

use crate::error::ApiError;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use std::error::Error;

/// Largest JSON body of a small request.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// Reads a body of at most so many bytes.
pub(super) async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit_bytes).await.map_err(|error| {
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
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
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
