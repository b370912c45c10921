//! Whether a rule applies to a request.

use forebay_wire::config::{HeaderMatch, MatchConfig};

use crate::host::Host;
use crate::request::RequestReader;

const PATH: &str = ":path";
const METHOD: &str = ":method";

/// The conditions of a rule, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matcher {
    path_prefix: Option<Vec<u8>>,
    methods: Vec<Vec<u8>>,
    headers: Vec<HeaderCondition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HeaderCondition {
    name: String,
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Present,
    Absent,
}

// === impl Matcher ===

impl Matcher {
    pub(crate) fn compile(config: &MatchConfig) -> Self {
        Self {
            path_prefix: config
                .path_prefix
                .as_ref()
                .map(|prefix| prefix.as_bytes().to_vec()),
            methods: config
                .methods
                .iter()
                .map(|method| method.as_bytes().to_vec())
                .collect(),
            headers: config
                .headers
                .iter()
                .map(HeaderCondition::compile)
                .collect(),
        }
    }

    /// The request headers that it looks at.
    pub(crate) fn header_names(&self) -> impl Iterator<Item = &str> {
        let path = self.path_prefix.is_some().then_some(PATH);
        let method = (!self.methods.is_empty()).then_some(METHOD);
        path.into_iter()
            .chain(method)
            .chain(self.headers.iter().map(|header| header.name.as_str()))
    }

    pub(crate) fn matches<H: Host>(&self, host: &mut H, request: &mut RequestReader) -> bool {
        if let Some(prefix) = &self.path_prefix
            && !request
                .header(host, PATH)
                .is_some_and(|path| path.starts_with(prefix))
        {
            return false;
        }
        if !self.methods.is_empty() {
            let Some(method) = request.header(host, METHOD) else {
                return false;
            };
            if !self.methods.iter().any(|allowed| allowed == method) {
                return false;
            }
        }
        self.headers
            .iter()
            .all(|condition| condition.holds(request.header(host, &condition.name)))
    }
}

// === impl HeaderCondition ===

impl HeaderCondition {
    fn compile(config: &HeaderMatch) -> Self {
        let expected = match (&config.exact, &config.prefix, config.present) {
            (Some(value), _, _) => Expected::Exact(value.as_bytes().to_vec()),
            (_, Some(prefix), _) => Expected::Prefix(prefix.as_bytes().to_vec()),
            (_, _, Some(false)) => Expected::Absent,
            _ => Expected::Present,
        };
        Self {
            name: config.name.clone(),
            expected,
        }
    }

    fn holds(&self, value: Option<&[u8]>) -> bool {
        match (&self.expected, value) {
            (Expected::Exact(expected), Some(value)) => expected == value,
            (Expected::Prefix(prefix), Some(value)) => value.starts_with(prefix),
            (Expected::Present, value) => value.is_some(),
            (Expected::Absent, value) => value.is_none(),
            (_, None) => false,
        }
    }
}
