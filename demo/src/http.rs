//! Calls to the admin interfaces: the control plane's API and Envoy's.
//!
//! One connection per call: they are few, and a connection that was kept across a restart would only fail later.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Loading a model in the sandbox takes longest.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP server on this machine that is asked with a bearer token, or without.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Sent as `authorization: Bearer ...`.
    pub token: Option<String>,
}

impl Endpoint {
    /// The body of a 2xx answer; anything else is an error with the server's words.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Bytes> {
        let what = format!("{method} {path}");
        let (status, body) =
            tokio::time::timeout(TIMEOUT, self.exchange(method, path, content_type, body))
                .await
                .with_context(|| format!("{what}: no answer in {} s", TIMEOUT.as_secs()))?
                .with_context(|| what.clone())?;
        if !status.is_success() {
            bail!(
                "{what}: {status}: {}",
                String::from_utf8_lossy(&body).trim()
            );
        }
        Ok(body)
    }

    /// `GET`, as text.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let body = self
            .call(Method::GET, path, "text/plain", Vec::new())
            .await?;
        String::from_utf8(body.to_vec())
            .with_context(|| format!("GET {path}: the answer is not UTF-8"))
    }

    /// `GET`, as JSON.
    pub(crate) async fn get_json(&self, path: &str) -> Result<Value> {
        let body = self
            .call(Method::GET, path, "application/json", Vec::new())
            .await?;
        serde_json::from_slice(&body).with_context(|| format!("GET {path}: the answer is not JSON"))
    }

    /// Sends JSON.
    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Bytes> {
        self.call(
            method,
            path,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot reach {}", self.address))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .context("cannot speak HTTP")?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("content-type", content_type);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .context("the request is not valid")?;
        let response = sender
            .send_request(request)
            .await
            .context("the connection broke")?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .context("the answer broke off")?
            .to_bytes();
        Ok((status, body))
    }
}
