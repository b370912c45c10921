//! A case as data, and the few words it is written with.

use serde_json::{Value, json};

use crate::seen::Seen;

/// A configuration and what happens under it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Says what is expected; unique.
    pub name: &'static str,
    /// The plugin configuration as text, since a bad one need not be JSON.
    pub config: String,
    /// For a bad configuration: words that the error must hold (the place and the reason).
    pub refused: Vec<&'static str>,
    /// Requests in order.
    pub steps: Vec<Step>,
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it is sent, from the case's first request.
    pub at_ms: u64,
    /// The request.
    pub sent: Sent,
    /// The answer.
    pub expected: Expected,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Method.
    pub method: &'static str,
    /// Path.
    pub path: &'static str,
    /// Headers; values are bytes because a client may send any.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Last octet of the client's address in 127.0.0.0/24.
    pub source: u8,
    /// The response header `x-cost` that the upstream will set.
    pub upstream_cost: Option<&'static str>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Expected {
    /// HTTP status.
    pub status: u16,
    /// gRPC status.
    pub grpc_status: Option<u32>,
    /// Headers that are looked at.
    pub headers: Vec<(&'static str, Want)>,
    /// Body, if it is looked at.
    pub body: Option<&'static str>,
}

/// What a header must be.
#[derive(Clone, Debug)]
pub enum Want {
    /// This text.
    Is(&'static str),
    /// A number between these, both included: real time passes between requests.
    Between(u64, u64),
    /// There is none.
    Absent,
}

// === impl Case ===

impl Case {
    /// A case under this configuration.
    pub fn new(name: &'static str, config: &Value) -> Self {
        Self {
            name,
            config: config.to_string(),
            refused: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// A configuration that must be refused with an error that holds all these words.
    pub fn refused(name: &'static str, config: impl ToString, words: &[&'static str]) -> Self {
        Self {
            name,
            config: config.to_string(),
            refused: words.to_vec(),
            steps: Vec::new(),
        }
    }

    /// Adds a step at once after the one before.
    pub fn step(self, sent: Sent, expected: Expected) -> Self {
        let at_ms = self.steps.last().map_or(0, |step| step.at_ms);
        self.step_at(at_ms, sent, expected)
    }

    /// Adds a step at an instant.
    pub fn step_at(mut self, at_ms: u64, sent: Sent, expected: Expected) -> Self {
        self.steps.push(Step {
            at_ms,
            sent,
            expected,
        });
        self
    }

    /// So many requests of a customer that are admitted.
    pub fn admits(self, count: usize, sent: &Sent) -> Self {
        (0..count).fold(self, |case, _| case.step(sent.clone(), Expected::ok()))
    }

    /// One request that is denied.
    pub fn denies(self, sent: &Sent) -> Self {
        self.step(sent.clone(), Expected::denied())
    }
}

// === impl Sent ===

impl Sent {
    /// A GET of `/` without a key.
    pub fn anonymous() -> Self {
        Self {
            method: "GET",
            path: "/",
            headers: Vec::new(),
            source: 1,
            upstream_cost: None,
        }
    }

    /// A GET of `/` by a customer.
    pub fn by(customer: &str) -> Self {
        Self::anonymous().with("x-customer", customer.as_bytes())
    }

    /// With a header.
    pub fn with(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.push((name, value.to_vec()));
        self
    }

    /// With another path.
    pub fn to(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// With another method.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// From another address.
    pub fn from(mut self, source: u8) -> Self {
        self.source = source;
        self
    }

    /// Answered with this cost by the upstream.
    pub fn costing(mut self, cost: &'static str) -> Self {
        self.upstream_cost = Some(cost);
        self
    }

    /// A gRPC call.
    pub fn grpc(self) -> Self {
        self.method("POST")
            .with("content-type", b"application/grpc")
    }

    /// Whether it is a gRPC call.
    pub fn is_grpc(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| *name == "content-type" && value.starts_with(b"application/grpc"))
    }
}

// === impl Expected ===

impl Expected {
    /// Admitted.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Denied with the default status.
    pub fn denied() -> Self {
        Self::status(429)
    }

    /// Any status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            grpc_status: None,
            headers: Vec::new(),
            body: None,
        }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, want: Want) -> Self {
        self.headers.push((name, want));
        self
    }

    /// With a body.
    pub fn body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }

    /// With a gRPC status.
    pub fn grpc(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }

    /// What differs from what the client saw; `None` when nothing does.
    pub fn difference(&self, seen: &Seen) -> Option<String> {
        if seen.status != self.status {
            return Some(format!("status {}, expected {}", seen.status, self.status));
        }
        if self.grpc_status.is_some() && seen.grpc_status != self.grpc_status {
            return Some(format!(
                "gRPC status {:?}, expected {:?}",
                seen.grpc_status, self.grpc_status
            ));
        }
        for (name, want) in &self.headers {
            let value = seen.header(name);
            if !want.holds(value.as_deref()) {
                return Some(format!("{name} is {value:?}, expected {want:?}"));
            }
        }
        let body = String::from_utf8_lossy(&seen.body);
        match self.body {
            Some(expected) if expected != body => {
                Some(format!("body {body:?}, expected {expected:?}"))
            }
            _ => None,
        }
    }
}

// === impl Want ===

impl Want {
    fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (Self::Is(expected), Some(value)) => *expected == value,
            (Self::Between(least, most), Some(value)) => value
                .parse::<u64>()
                .is_ok_and(|number| (*least..=*most).contains(&number)),
            (_, None) => false,
        }
    }
}

/// The customer from the trusted header `x-customer`, one token of `requests` each, and the customers `a`, `b` and
/// `c` with one contract.
pub fn minimal(rate_per_s: f64, burst: f64) -> Value {
    json!({
        "version": 1,
        "rules": [{
            "name": "all",
            "key": { "header": { "name": "x-customer", "trusted": true } },
            "charges": [{ "resource": "requests" }],
        }],
        // Small, so that a gateway for each case starts quickly.
        "ledger": { "max_policy_customers": 16, "max_other_customers": 64 },
        "policy": {
            "version": 1,
            "resources": { "requests": {} },
            "contracts": { "standard": { "limits": { "requests": { "rate_per_s": rate_per_s, "burst": burst } } } },
            "customers": [
                { "key": "a", "contract": "standard" },
                { "key": "b", "contract": "standard" },
                { "key": "c", "contract": "standard" },
            ],
        },
    })
}
