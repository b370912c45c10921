//! One request, read as little as possible.
//!
//! Each value that a rule looks at costs a host call, so nothing is fetched before a rule asks for it and nothing twice. When the rules
//! together look at two headers or more, the first look fetches all of them: one call for all costs as much as one for one.

use crate::header_map;
use crate::host::Host;

/// How header values are fetched, decided at configure time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// One at a time: the rules look at one header at most.
    Single,
    /// All with the first.
    Together,
}

/// Buffers for what was read of the present request, reused for the next.
#[derive(Debug)]
pub(crate) struct RequestReader {
    fetch: Fetch,
    /// All headers, or the value of the one that was asked for last.
    bytes: Vec<u8>,
    fetched: bool,
}

// === impl RequestReader ===

impl RequestReader {
    pub(crate) fn new(fetch: Fetch) -> Self {
        Self {
            fetch,
            bytes: Vec::new(),
            fetched: false,
        }
    }

    /// Forgets the previous request.
    pub(crate) fn begin(&mut self) {
        self.fetched = false;
    }

    /// The first value of a header.
    pub(crate) fn header<H: Host>(&mut self, host: &mut H, name: &str) -> Option<&[u8]> {
        match self.fetch {
            Fetch::Single => host
                .request_header(name, &mut self.bytes)
                .then_some(self.bytes.as_slice()),
            Fetch::Together => {
                if !self.fetched {
                    self.fetched = true;
                    if !host.request_headers(&mut self.bytes) {
                        self.bytes.clear();
                    }
                }
                header_map::find(&self.bytes, name)
            }
        }
    }
}
