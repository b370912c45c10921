//! `POST /v1/sync`: protobuf in, protobuf out.

use super::body::read;
use super::{Server, Shared};
use crate::error::ApiError;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use forebay_wire::sync::{
    self, MAX_REQUEST_BYTES, SyncError, SyncErrorCode, SyncReply, SyncRequest,
};
use prost::Message;

pub(super) async fn sync(State(server): Shared, body: Body) -> Response {
    match answer(&server, body).await {
        Ok((status, reply)) => protobuf(status, &reply),
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

async fn answer(server: &Server, body: Body) -> Result<(u16, SyncReply), ApiError> {
    let bytes = read(body, MAX_REQUEST_BYTES).await?;
    let request = SyncRequest::decode(bytes).map_err(|error| {
        let message = format!("the body is not a SyncRequest in protobuf: {error}");
        ApiError::malformed(message, "wire/sync.proto is the schema")
    })?;
    let answer = server.plane.sync(request).await;
    Ok((answer.status, answer.reply))
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
