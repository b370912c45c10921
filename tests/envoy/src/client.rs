//! A small client for HTTP/1.1, HTTP/2 and gRPC over one connection.
//!
//! A pooling client chooses the connection itself; the tests need to choose, because Envoy gives each connection
//! to one worker and exactness must not depend on which.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpSocket;

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    authority: String,
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The response headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// The trailers, empty when there were none.
    pub trailers: HeaderMap,
}

// === impl Client ===

impl Client {
    /// Connects; the connection lives until the client is dropped.
    pub async fn connect(address: SocketAddr, protocol: Protocol) -> Result<Self> {
        // The system chooses the way to an address in another network namespace.
        let from = if address.ip().is_loopback() {
            [127, 0, 0, 1]
        } else {
            [0; 4]
        };
        Self::connect_from(SocketAddr::from((from, 0)), address, protocol).await
    }

    /// Connects from an address of this machine: all of 127.0.0.0/8 is.
    pub async fn connect_from(
        from: SocketAddr,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket
            .bind(from)
            .with_context(|| format!("cannot send from {from}"))?;
        let stream = socket
            .connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let connection = match protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                Connection::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, driver) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                Connection::Http2(sender)
            }
        };
        Ok(Self {
            connection,
            authority: address.to_string(),
        })
    }

    /// A GET with these headers.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()))
            .collect();
        self.send(&Method::GET, path, &headers, Bytes::new()).await
    }

    /// A unary gRPC call with an empty message.
    pub async fn grpc(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let mut all: Vec<(&str, &[u8])> =
            vec![("content-type", b"application/grpc"), ("te", b"trailers")];
        all.extend(
            headers
                .iter()
                .map(|(name, value)| (*name, value.as_bytes())),
        );
        self.send(&Method::POST, path, &all, grpc_frame(&[])).await
    }

    /// Any request; header values are bytes because a client may send any.
    pub async fn send(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(&str, &[u8])],
        body: Bytes,
    ) -> Result<Reply> {
        let uri = match self.connection {
            Connection::Http1(_) => path.to_owned(),
            Connection::Http2(_) => format!("http://{}{path}", self.authority),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self.connection, Connection::Http1(_)) {
            request = request.header("host", &self.authority);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .context("a request that HTTP does not allow")?;
        let response = match &mut self.connection {
            Connection::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Reply::read(response).await
    }
}

// === impl Reply ===

impl Reply {
    /// A response header as text; `None` when it is absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("(not text)"))
    }

    /// The gRPC status, wherever the server put it.
    pub fn grpc_status(&self) -> Option<u32> {
        let value = self
            .trailers
            .get("grpc-status")
            .or_else(|| self.headers.get("grpc-status"))?;
        value.to_str().ok()?.parse().ok()
    }

    async fn read(response: Response<hyper::body::Incoming>) -> Result<Self> {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.context("the answer broke off")?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        })
    }
}

/// A gRPC message with its five bytes in front.
fn grpc_frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}
