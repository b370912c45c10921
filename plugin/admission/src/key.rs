//! Whom a request is charged to, as bytes.

use forebay_wire::config::{KeyConfig, MissingKey};
use forebay_wire::key::MAX_KEY_BYTES;

use crate::host::Host;
use crate::request::RequestReader;
use crate::source_address::{self, PrefixLengths};

/// Where a rule takes the customer's key from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeySource {
    Header {
        name: String,
        missing: MissingKey,
    },
    /// The path has NUL between its parts, as the host wants it.
    Property {
        path: Vec<u8>,
        missing: MissingKey,
    },
    SourceAddress(PrefixLengths),
    Constant(Vec<u8>),
}

/// What came out of looking for the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFound {
    /// It is in the buffer.
    Yes,
    /// There is none, and the rule is to be skipped.
    Skip,
    /// There is none, and the request is to be denied.
    Missing,
    /// It is longer than any customer's key can be.
    TooLong,
}

// === impl KeySource ===

impl KeySource {
    pub(crate) fn compile(config: &KeyConfig) -> Self {
        match config {
            KeyConfig::Header(header) => Self::Header {
                name: header.name.clone(),
                missing: header.missing,
            },
            KeyConfig::Property(property) => Self::Property {
                path: property.path.join("\0").into_bytes(),
                missing: property.missing,
            },
            KeyConfig::SourceAddress(address) => Self::SourceAddress(PrefixLengths {
                v4: address.prefix_len_v4,
                v6: address.prefix_len_v6,
            }),
            KeyConfig::Constant(key) => Self::Constant(key.as_bytes().to_vec()),
        }
    }

    /// The request header that it looks at.
    pub(crate) fn header_name(&self) -> Option<&str> {
        match self {
            Self::Header { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Replaces `into` by the key. An empty one counts as missing: no customer has it.
    ///
    /// A key that is too long is refused and not hashed: no policy can list it, and whoever sends it is not a customer with a long name.
    pub(crate) fn find<H: Host>(
        &self,
        host: &mut H,
        request: &mut RequestReader,
        into: &mut Vec<u8>,
    ) -> KeyFound {
        let (found, missing) = match self {
            Self::Header { name, missing } => match request.header(host, name) {
                Some(value) if value.len() > MAX_KEY_BYTES => return KeyFound::TooLong,
                Some(value) => (copy(value, into), *missing),
                None => (false, *missing),
            },
            Self::Property { path, missing } => (host.property(path, into), *missing),
            Self::SourceAddress(lengths) => {
                let mut address = Vec::new();
                let found = host.property(source_address::PROPERTY, &mut address)
                    && source_address::write_network(&address, *lengths, into);
                (found, MissingKey::Deny)
            }
            Self::Constant(key) => (copy(key, into), MissingKey::Deny),
        };
        if !found || into.is_empty() {
            return match missing {
                MissingKey::Deny => KeyFound::Missing,
                MissingKey::Skip => KeyFound::Skip,
            };
        }
        if into.len() > MAX_KEY_BYTES {
            return KeyFound::TooLong;
        }
        KeyFound::Yes
    }
}

fn copy(value: &[u8], into: &mut Vec<u8>) -> bool {
    into.clear();
    into.extend_from_slice(value);
    true
}
