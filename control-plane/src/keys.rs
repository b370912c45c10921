//! The secrets under which customer keys are hashed: the current one, and the one before while a rotation is under way.
//!
//! Everything in this process is filed under the current secret. A gateway that still runs with the previous one says so by its
//! fingerprint, and its hashes are translated at the door; the policy holds the raw keys, so both hashes are known for each
//! policy customer.

use forebay_wire::key::{CustomerHash, KeySecret, NotHex, PREVIOUS_SECRET_ENV, SECRET_ENV};

/// The secrets.
#[derive(Clone, Debug)]
pub struct Keys {
    current: KeySecret,
    previous: Option<KeySecret>,
}

/// Which of the secrets a gateway hashes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The current one.
    Current,
    /// The one before the rotation.
    Previous,
}

/// A secret in the environment that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {variable} is not a secret: {reason}")]
pub struct BadSecret {
    variable: &'static str,
    reason: NotHex,
}

impl Keys {
    /// Secrets in hexadecimal; without a current one the development secret, which protects nothing.
    ///
    /// # Errors
    /// When a text is not 32 hexadecimal digits.
    pub fn new(current: Option<&str>, previous: Option<&str>) -> Result<Self, BadSecret> {
        let parse = |variable, text: &str| {
            KeySecret::from_hex(text).map_err(|reason| BadSecret { variable, reason })
        };
        Ok(Self {
            current: current
                .map_or(Ok(KeySecret::development()), |text| parse(SECRET_ENV, text))?,
            previous: previous
                .map(|text| parse(PREVIOUS_SECRET_ENV, text))
                .transpose()?,
        })
    }

    /// True while the development secret is in use.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.current == KeySecret::development()
    }

    /// The hash under which a customer is filed.
    #[must_use]
    pub fn hash(&self, key: &str) -> CustomerHash {
        self.current.hash(key.as_bytes())
    }

    /// The hash that a gateway before the rotation knows a customer by.
    #[must_use]
    pub fn previous_hash(&self, key: &str) -> Option<CustomerHash> {
        self.previous
            .as_ref()
            .map(|secret| secret.hash(key.as_bytes()))
    }

    /// Which secret has this fingerprint.
    #[must_use]
    pub fn dialect(&self, fingerprint: u64) -> Option<Dialect> {
        if fingerprint == self.current.fingerprint() {
            return Some(Dialect::Current);
        }
        let previous = self
            .previous
            .as_ref()
            .filter(|secret| fingerprint == secret.fingerprint());
        previous.map(|_| Dialect::Previous)
    }

    /// Public name of the current secret.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.current.fingerprint()
    }
}
