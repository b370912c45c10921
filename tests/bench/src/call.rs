//! Calls to the control plane's admin API, and the control plane as Envoy's cluster.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where the API is and what opens it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

// === impl Endpoint ===

impl Endpoint {
    /// Sends JSON and reads JSON.
    pub(crate) async fn json(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.call(
            method,
            path,
            "application/json",
            body.to_string().as_bytes(),
        )
        .await
    }

    /// One request on a connection of its own; an answer other than 2xx is an error with what it says.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)
            .await
            .context("cannot reach the control plane")?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: control-plane\r\nauthorization: Bearer {}\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .context("the answer has no end of headers")?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!(
                "{method} {path}: {}\n{body}",
                head.lines().next().unwrap_or_default()
            );
        }
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A static cluster of one address.
pub(crate) fn cluster(name: &str, address: SocketAddr) -> Value {
    let socket = json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket } }] }],
        },
    })
}
