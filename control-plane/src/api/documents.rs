//! Work on policies, off the threads that answer: a document of a million customers takes seconds, and syncs must not wait for it.

use super::Server;
use crate::error::ApiError;
use crate::plane::DocumentPlace;
use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

/// What a document counts as whose length is not told.
const UNTOLD_BYTES: u64 = 128 << 20;

/// A place for the document in a body, taken before it is read: what waits holds its text.
pub(super) fn place_for(server: &Server, body: &Body) -> Result<DocumentPlace, ApiError> {
    let bytes = body.size_hint().upper().unwrap_or(UNTOLD_BYTES);
    server.plane.document_place(bytes)
}

/// Does work on a document when it is its turn, which is over with the work, also if nobody waits for it any more.
pub(super) async fn in_turn<T, Work, Doing>(
    server: &Arc<Server>,
    place: DocumentPlace,
    work: Work,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    Work: FnOnce(Arc<Server>) -> Doing + Send + 'static,
    Doing: Future<Output = Result<T, ApiError>>,
{
    let (turn, server) = (place.turn().await, Arc::clone(server));
    let done = spawn_blocking(move || {
        let _turn = turn;
        Handle::current().block_on(work(server))
    });
    done.await.unwrap_or_else(|error| {
        let hint = "look at the log of the server, and report what it says";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let message = format!("the server has failed at this policy: {error}");
        Err(ApiError::new(status, "policy_failed", message, hint))
    })
}
