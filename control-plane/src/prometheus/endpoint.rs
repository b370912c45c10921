//! Where a server that speaks HTTP is, who we are there, and one exchange with it.
//!
//! A connection is kept by the caller for as long as it has more to ask. A client with a pool was the worse alternative: what is sent
//! once in a step would find its connection closed by the other side each time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// How long the other side may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// `http://[user:password@]host[:port]/path`.
#[derive(Clone)]
pub struct Endpoint {
    /// Without user and password.
    url: Url,
    authorization: Option<HeaderValue>,
}

/// Why an address cannot be used. Never quotes it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// Not a URL.
    #[error("not a URL like http://host:9090/path")]
    NotAUrl,
    /// Another protocol.
    #[error(
        "only http:// is spoken: put a proxy that speaks TLS beside this program where the network is not yours"
    )]
    Scheme,
    /// A token that no header can hold.
    #[error(
        "its token has characters that no header can hold, as the line break at the end of a file: give the token as one line of printable ASCII"
    )]
    Token,
    /// Two ways to say who we are.
    #[error("the URL has a user and there is a token too: give one of them")]
    TwoIdentities,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// No connection in time.
    #[error("no connection within {} s", CONNECT_WITHIN.as_secs())]
    ConnectTimeout,
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer is longer than what is read.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The URL makes no request.
    #[error("the URL makes no request: {0}")]
    Request(#[from] hyper::http::Error),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// When to try again, if it says so in seconds.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// A connection that is kept between exchanges.
#[derive(Debug, Default)]
pub(crate) struct Connection(Option<SendRequest<Full<Bytes>>>);

/// Bounds of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) answer_within: Duration,
    pub(crate) answer_bytes: usize,
}

// === impl Endpoint ===

impl Endpoint {
    /// The same with a token to show (`Authorization: Bearer`).
    ///
    /// # Errors
    /// When the URL has a user already, or no header can hold the token.
    pub fn with_token(mut self, token: Option<&str>) -> Result<Self, BadEndpoint> {
        let Some(token) = token else {
            return Ok(self);
        };
        if self.authorization.is_some() {
            return Err(BadEndpoint::TwoIdentities);
        }
        self.authorization = Some(secret(&format!("Bearer {token}"))?);
        Ok(self)
    }

    /// Whether it names a place on its host.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.url.path() != "/"
    }

    /// What is at a path below this one.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let mut below = self.clone();
        let base = self.url.path().trim_end_matches('/');
        below.url.set_path(&format!("{base}/{path}"));
        below
    }

    /// Sends a body, and reads the answer.
    pub(crate) async fn post(
        &self,
        connection: &mut Connection,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, Unreachable> {
        let exchange = self.exchange(connection, headers, body, bounds.answer_bytes);
        let outcome = timeout(bounds.answer_within, exchange)
            .await
            .unwrap_or(Err(Unreachable::Silent(bounds.answer_within)));
        if outcome.is_err() {
            // An answer that is still on its way belongs to no other question.
            *connection = Connection::default();
        }
        outcome
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
        answer_bytes: usize,
    ) -> Result<Answer, Unreachable> {
        let request = self.request(headers, body)?;
        let mut sender = match connection.0.take() {
            Some(kept) if !kept.is_closed() => kept,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let mut body = response.into_body();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if read.len().saturating_add(data.len()) > answer_bytes {
                return Err(Unreachable::TooLong(answer_bytes));
            }
            read.extend_from_slice(&data);
        }
        connection.0 = Some(sender);
        Ok(Answer {
            status,
            retry_after,
            body: read.freeze(),
        })
    }

    fn request(
        &self,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Unreachable> {
        let target = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        let mut request = Request::post(target)
            .header(HOST, self.authority())
            .header(USER_AGENT, concat!("forebay/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        Ok(request.body(Full::new(body))?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Unreachable> {
        let host = self.url.host_str().unwrap_or_default();
        // A name of IPv6 stands in brackets in a URL, and without them everywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or(80);
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect((host, port)))
            .await
            .map_err(|_| Unreachable::ConnectTimeout)?
            .map_err(Unreachable::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let mut url = Url::parse(text).map_err(|_| BadEndpoint::NotAUrl)?;
        if url.scheme() != "http" {
            return Err(BadEndpoint::Scheme);
        }
        let plain = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        let authorization = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let password = plain(url.password().unwrap_or_default());
            let identity = [&plain(url.username()), &b":"[..], &password].concat();
            Some(secret(&format!("Basic {}", STANDARD.encode(identity)))?)
        };
        // Neither can fail on a URL with a host, which one of http:// has.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Self { url, authorization })
    }
}

/// Without user and password.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A query may hold a token.
        write!(formatter, "http://{}{}", self.authority(), self.url.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

// === impl Answer ===

impl Answer {
    /// The beginning of what it says, on one line.
    pub(crate) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
        text.trim().chars().map(printable).take(300).collect()
    }
}

// === impl Connection ===

impl Connection {
    /// Nothing more is asked for now.
    pub(crate) fn close(&mut self) {
        self.0 = None;
    }
}

fn secret(text: &str) -> Result<HeaderValue, BadEndpoint> {
    let mut value = HeaderValue::from_str(text).map_err(|_| BadEndpoint::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_never_shows_its_password_and_sends_it_decoded() {
        let endpoint: Endpoint = "http://me:p%40ss%3A@10.0.0.1:9090/api/v1/write?token=hidden"
            .parse()
            .unwrap();
        assert_eq!(endpoint.to_string(), "http://10.0.0.1:9090/api/v1/write");
        assert_eq!(format!("{endpoint:?}"), endpoint.to_string());
        let request = endpoint.request(&[], Bytes::new()).unwrap();
        assert_eq!(request.uri(), "/api/v1/write?token=hidden");
        assert_eq!(request.headers()[HOST], "10.0.0.1:9090");
        let sent = request.headers()[AUTHORIZATION].to_str().unwrap();
        assert_eq!(sent, format!("Basic {}", STANDARD.encode("me:p@ss:")));
        for (bad, why) in [
            ("very-secret", BadEndpoint::NotAUrl),
            ("http://", BadEndpoint::NotAUrl),
            ("http://a:very-secret@[::1/", BadEndpoint::NotAUrl),
            ("https://a:very-secret@b/", BadEndpoint::Scheme),
            ("unix:///very-secret", BadEndpoint::Scheme),
        ] {
            assert_eq!(bad.parse::<Endpoint>().unwrap_err(), why);
        }
    }

    #[test]
    fn a_token_is_shown_as_a_bearer_and_not_beside_a_user() {
        let plain: Endpoint = "http://host/base/".parse().unwrap();
        let with_token = plain.clone().with_token(Some("abc")).unwrap();
        let below = with_token.below("api/v1/query_range");
        assert_eq!(below.to_string(), "http://host/base/api/v1/query_range");
        let request = below.request(&[], Bytes::new()).unwrap();
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer abc");
        let refused = plain.with_token(Some("two\nlines")).unwrap_err();
        assert_eq!(refused, BadEndpoint::Token);
        let named: Endpoint = "http://me@host/".parse().unwrap();
        let refused = named.with_token(Some("abc")).unwrap_err();
        assert_eq!(refused, BadEndpoint::TwoIdentities);
    }
}
