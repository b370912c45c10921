//! `POST /v1/sync`: protobuf in, protobuf out.

use super::body::read;
use super::{Server, Shared};
use crate::error::ApiError;
use crate::tls::Certified;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use forebay_wire::sync::{
    self, MAX_REQUEST_BYTES, SyncError, SyncErrorCode, SyncReply, SyncRequest,
};
use prost::Message;

/// What the certificate of the connection says, if it has shown one.
type Shown = Option<Extension<Certified>>;

pub(super) async fn sync(State(server): Shared, shown: Shown, body: Body) -> Response {
    match answer(&server, shown, body).await {
        Ok(response) => response,
        Err(error) => {
            let text = format!("{}; {}", error.message, error.hint);
            let code = SyncErrorCode::Malformed.into();
            let reply = SyncReply {
                error: Some(SyncError {
                    code,
                    message: text,
                }),
                ..SyncReply::default()
            };
            protobuf(error.status, &reply)
        }
    }
}

async fn answer(server: &Server, shown: Shown, body: Body) -> Result<Response, ApiError> {
    let bytes = read(body, MAX_REQUEST_BYTES).await?;
    let request = SyncRequest::decode(bytes).map_err(|error| {
        let message = format!("the body is not a SyncRequest in protobuf: {error}");
        ApiError::malformed(message, "wire/sync.proto is the schema")
    })?;
    // Before it is counted: nobody must use up the syncs of another one.
    let certified = shown.as_ref().map(|Extension(certified)| certified);
    server
        .tokens
        .require_own_name(certified, &request.gateway_id)?;
    if let Err(wait_us) = server
        .throttle
        .admit(&request.gateway_id, server.plane.now().mono)
    {
        return Ok(throttled(&request, wait_us));
    }
    let answer = server.plane.sync(request).await;
    Ok(protobuf(answer.status, &answer.reply))
}

/// The gateway's own back-off is longer than what it is told to wait here.
fn throttled(request: &SyncRequest, wait_us: u64) -> Response {
    let wait_ms = wait_us.div_ceil(1_000);
    let message = format!(
        "gateway `{}` syncs more often than --max-syncs-per-s allows: wait {wait_ms} ms; do two gateways have one name?",
        request.gateway_id.chars().take(64).collect::<String>()
    );
    let error = Some(SyncError {
        code: SyncErrorCode::TooManySyncs.into(),
        message,
    });
    let reply = SyncReply {
        sequence: request.sequence,
        sent_at_us: request.sent_at_us,
        error,
        ..SyncReply::default()
    };
    let status = StatusCode::TOO_MANY_REQUESTS.as_u16();
    let retry_after = [(header::RETRY_AFTER, wait_ms.div_ceil(1_000).to_string())];
    (retry_after, protobuf(status, &reply)).into_response()
}

/// Refusals are protobuf as well: a gateway reads one format only.
fn protobuf(status: u16, reply: &SyncReply) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (CONTENT_TYPE, sync::CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, reply.encode_to_vec()).into_response()
}
