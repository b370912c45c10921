//! A small HTTP client for the server's API: one connection per request, JSON out.

use super::Connection;
use crate::auth::Role;
use crate::error::ApiError;
use crate::tls::Connector;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long an answer may take. The longest work of a server is judging a model, which it stops after a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    authority: String,
    /// For `https://`.
    tls: Option<Connector>,
    token: String,
    patience: Duration,
}

impl Client {
    /// A client for the server and token of the options.
    ///
    /// # Errors
    /// When the address or the CA cannot be used, or there is no token.
    pub fn new(connection: &Connection) -> Result<Self, String> {
        let address = connection.server.trim_end_matches('/');
        let shown = without_account(address);
        if shown != address {
            return Err(format!(
                "--server {shown} holds a user or password, which mean nothing here: give a token, with FOREBAY_ADMIN_TOKEN or --token"
            ));
        }
        let (authority, port, tls) = match (address.split_once("://"), &connection.tls_ca) {
            // A CA that is set for other commands must not keep anybody from a server on the same machine.
            (Some(("http", authority)), _) => (authority, 80, None),
            (Some(("https", authority)), Some(ca)) => {
                let connector = Connector::new("--tls-ca (FOREBAY_TLS_CA)", ca);
                (
                    authority,
                    443,
                    Some(connector.map_err(|error| error.to_string())?),
                )
            }
            (Some(("https", _)), None) => {
                return Err(format!(
                    "--server {address} needs the CA of its certificate: name it with --tls-ca FILE (FOREBAY_TLS_CA)"
                ));
            }
            _ => {
                return Err(format!(
                    "--server {address} does not start with http:// or https://"
                ));
            }
        };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{port}")
        };
        let of_role = |role: &Role| std::env::var(role.variable()).ok();
        let token = connection
            .token
            .clone()
            .or_else(|| [Role::Operator, Role::Viewer].iter().find_map(of_role))
            .ok_or(
                "there is no token: set FOREBAY_ADMIN_TOKEN, FOREBAY_OPERATOR_TOKEN or FOREBAY_VIEWER_TOKEN to that of the server, or give --token",
            )?;
        if HeaderValue::from_str(&token).is_err() {
            return Err(
                "the token has characters that no header can hold, as the line break at the end of a file: give --token (or the variable) one line of printable ASCII"
                    .to_owned(),
            );
        }
        Ok(Self {
            authority,
            tls,
            token,
            patience: PATIENCE,
        })
    }

    /// GET.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.send("GET", path, "application/json", Bytes::new())
    }

    /// POST of JSON, or of nothing.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let bytes = body.map_or(Bytes::new(), |body| Bytes::from(body.to_string()));
        self.send("POST", path, "application/json", bytes)
    }

    /// PUT of JSON.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value, String> {
        let bytes = Bytes::from(body.to_string());
        self.send("PUT", path, "application/json", bytes)
    }

    /// DELETE.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn delete(&self, path: &str) -> Result<Value, String> {
        self.send("DELETE", path, "application/json", Bytes::new())
    }

    /// POST of bytes.
    ///
    /// # Errors
    /// What the server says, or why it cannot be reached.
    pub fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, String> {
        self.send("POST", path, content_type, body.into())
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| format!("cannot make a request of that: {error}"))?;
        let answer = async { tokio::time::timeout(self.patience, self.exchange(request)).await };
        runtime.block_on(answer).unwrap_or_else(|_| {
            Err(format!(
                "the server at {} has not answered within {} s; look at its log",
                self.authority,
                self.patience.as_secs()
            ))
        })
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> String {
        format!(
            "cannot reach the server at {}: {error}; is `forebay serve` running there? (--server, FOREBAY_SERVER)",
            self.authority
        )
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Value, String> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let Some(tls) = &self.tls else {
            return self.ask(stream, request).await;
        };
        let stream = tls.connect(stream, &self.authority).await;
        let stream = stream.map_err(|error| {
            format!(
                "the server at {} does not prove who it is: {error}; does it speak TLS, with a certificate for that host from the CA of --tls-ca (FOREBAY_TLS_CA)?",
                self.authority
            )
        })?;
        self.ask(stream, request).await
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Value, String> {
        let unreachable = |error: &dyn std::fmt::Display| self.unreachable(error);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let driver = tokio::spawn(connection);
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| unreachable(&error))?
            .to_bytes();
        driver.abort();
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| format!("the server's answer is not JSON: {error}"));
        }
        let error: ApiError =
            serde_json::from_slice(&body).map_err(|_| format!("the server answered {status}"))?;
        let place = if error.place.is_empty() {
            String::new()
        } else {
            format!("{}: ", error.place)
        };
        Err(format!(
            "{place}{} ({})\n  {}",
            error.message, error.code, error.hint
        ))
    }
}

/// A URL whose user and password, if it has any, are not shown.
fn without_account(address: &str) -> String {
    let Some((before, host)) = address.rsplit_once('@') else {
        return address.to_owned();
    };
    let scheme = before
        .split_once("://")
        .map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}(not shown)@{host}")
}

/// Percent-encodes a part of a path.
#[must_use]
pub(super) fn encode(part: &str) -> String {
    let mut encoded = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_silent_is_not_waited_for_for_ever() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client {
            authority: silent.local_addr().unwrap().to_string(),
            tls: None,
            token: "token".to_owned(),
            patience: Duration::from_millis(20),
        };
        let error = client.get("/v1/status").unwrap_err();
        assert!(error.contains("has not answered"), "{error}");
    }
}
