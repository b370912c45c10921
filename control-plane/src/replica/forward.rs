//! A request on its way from a replica that stands by to the one that leads.
//!
//! Each has a connection of its own. Kept ones were the worse alternative: they would have to be found dead after each change of the leader,
//! and the replica that leads is asked directly wherever `/readyz` is looked at.

use crate::tls::Tls;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, HOST};
use axum::response::Response;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Says that a request has been passed on once: it is not passed on again.
pub(super) const FORWARDED: &str = "forebay-forwarded";

/// How long the leader may take to accept a connection, and to speak TLS on it.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long the leader may take to answer. The longest work is to read a model and to judge it, which take a minute at most each.
const ANSWER_WITHIN: Duration = Duration::from_secs(150);

/// Passes a request on.
///
/// # Errors
/// Why there is no answer, for people.
pub(super) async fn forward(
    leader: &str,
    tls: Option<&Tls>,
    request: Request,
) -> Result<Response, String> {
    let failed = |reason: String| format!("{leader} leads, and cannot be asked: {reason}");
    let sender = timeout(CONNECT_WITHIN, connect(leader, tls)).await;
    let mut sender = sender
        .map_err(|_| failed("it accepts no connection".to_owned()))?
        .map_err(failed)?;
    let request = addressed(leader, tls, request);
    let answer = timeout(ANSWER_WITHIN, sender.send_request(request));
    let mut response = answer
        .await
        .map_err(|_| failed("it takes too long".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    response.headers_mut().remove(CONNECTION);
    Ok(response.map(Body::new))
}

async fn connect(leader: &str, tls: Option<&Tls>) -> Result<SendRequest<Body>, String> {
    let stream = TcpStream::connect(leader)
        .await
        .map_err(|error| error.to_string())?;
    let Some(tls) = tls else {
        return speak(stream).await;
    };
    let connector = tls
        .to_replicas()
        .ok_or("there is no CA for its certificate: give --tls-replica-ca")?;
    let stream = connector.connect(stream, leader).await;
    speak(stream.map_err(|error| format!("its certificate: {error}"))?).await
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Body>, String> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the sender, or when the answer has been read.
    tokio::spawn(connection);
    Ok(sender)
}

/// The same request as the leader must see it.
fn addressed(leader: &str, tls: Option<&Tls>, mut request: Request) -> Request {
    if let Some(tls) = tls {
        tls.vouch(&mut request);
    }
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.insert(FORWARDED, HeaderValue::from_static("1"));
    if let Ok(host) = HeaderValue::from_str(leader) {
        headers.insert(HOST, host);
    }
    request
}
