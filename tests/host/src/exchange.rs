//! What goes into a worker and what comes out.

use std::collections::BTreeMap;

/// Header pairs in order; values are bytes because clients may send any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

/// A request as the filter sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Pseudo headers first.
    pub headers: Headers,
    /// Properties by their path, the parts joined with a dot.
    pub properties: BTreeMap<String, Vec<u8>>,
}

/// The upstream's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Headers without `:status`.
    pub headers: Headers,
}

/// An answer that the filter gave instead of the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u32,
    /// gRPC status; `None` when the filter gave none.
    pub grpc_status: Option<u32>,
    /// Headers beside the status.
    pub headers: Headers,
    /// Body.
    pub body: Vec<u8>,
    /// Details for the access log.
    pub details: String,
}

/// A finished exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The filter's own answer, if it gave one.
    pub local_reply: Option<LocalReply>,
    /// The filter held the request back.
    pub held: bool,
    /// The response headers that the client sees.
    pub headers: Headers,
    /// Properties that the filter set (filter state), by path joined with a dot.
    pub set_properties: BTreeMap<String, Vec<u8>>,
}

/// An HTTP call that the plugin made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    /// By which the answer finds its way back.
    pub token: u32,
    /// The cluster.
    pub upstream: String,
    /// Request headers.
    pub headers: Headers,
    /// Request body.
    pub body: Vec<u8>,
    /// Time limit.
    pub timeout_ms: u32,
}

// === impl Headers ===

impl Headers {
    /// From text.
    pub fn from_text(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_slice())
    }

    /// The first value of a name, as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    pub(crate) fn replace(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_vec()));
    }
}

// === impl Request ===

impl Request {
    /// A GET of `/` with these headers.
    pub fn get(headers: &[(&str, &str)]) -> Self {
        let mut all = Headers::from_text(&[
            (":method", "GET"),
            (":path", "/"),
            (":authority", "test"),
            (":scheme", "http"),
        ]);
        all.0.extend(Headers::from_text(headers).0);
        let properties =
            BTreeMap::from([("source.address".to_owned(), b"192.0.2.1:4711".to_vec())]);
        Self {
            headers: all,
            properties,
        }
    }

    /// With another value of a pseudo header or header.
    pub fn with(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.replace(name, value);
        self
    }

    /// With a property.
    pub fn with_property(mut self, path: &str, value: &[u8]) -> Self {
        self.properties.insert(path.to_owned(), value.to_vec());
        self
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether the request reached the upstream.
    pub fn admitted(&self) -> bool {
        self.local_reply.is_none() && !self.held
    }

    /// The status that the client sees.
    pub fn status(&self) -> u32 {
        self.local_reply.as_ref().map_or(200, |reply| reply.status)
    }
}
