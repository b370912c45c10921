//! Refusals of the API: what, where, and what to do, as JSON.

use crate::store::StoreError;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A refusal, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status; not part of the body.
    #[serde(skip)]
    pub status: u16,
    /// For programs: does not change when the message does.
    pub code: String,
    /// For people.
    pub message: String,
    /// Place in the body, or the thing the request is about; empty where neither makes sense.
    #[serde(rename = "where")]
    pub place: String,
    /// What to do.
    pub hint: String,
    /// After how many seconds the same request may be taken, for the header `Retry-After`; 0 where that is not known.
    #[serde(skip)]
    pub retry_after_s: u32,
}

// === impl ApiError ===

impl ApiError {
    /// A refusal without a place.
    #[must_use]
    pub fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status: status.as_u16(),
            code: code.to_owned(),
            message: message.into(),
            place: String::new(),
            hint: hint.into(),
            retry_after_s: 0,
        }
    }

    /// The same refusal, with when to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = seconds;
        self
    }

    /// The same refusal with a place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn malformed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message, hint)
    }

    /// 404: the thing does not exist.
    #[must_use]
    pub fn not_found(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message, hint)
    }

    /// 409: the thing is not in a state for this.
    #[must_use]
    pub fn conflict(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message, hint)
    }

    /// 422: understood, but wrong.
    #[must_use]
    pub fn invalid(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, hint)
    }

    /// 413: more than is read.
    #[must_use]
    pub fn too_large(limit_bytes: usize) -> Self {
        let message =
            format!("the body is larger than {limit_bytes} bytes, the most that is read here");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            message,
            "send less at once",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::NoRoom { .. }) {
            return Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "no_room",
                error.to_string(),
                "nothing has changed: give the store more room, then send the request again",
            );
        }
        let hint = "the change may or may not become durable later: look at the log and the disk of the server, then repeat it";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            error.to_string(),
            hint,
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after_s = self.retry_after_s;
        let mut response = (status, axum::Json(self)).into_response();
        if retry_after_s > 0 {
            response
                .headers_mut()
                .insert(RETRY_AFTER, retry_after_s.into());
        }
        response
    }
}
