//! From a customer's key to the hash that stands for it everywhere outside the request.
//!
//! Raw keys are often API keys or user names. They stay in the gateway's request path and in the policy that the operator
//! wrote; ledger, sync, store, metrics and logs know 16 bytes. The hash is keyed (SipHash-2-4 with 128 bits), because an unkeyed
//! one lets anyone who can choose a key look for a collision with a paying customer, or test guesses against a leaked store.
//! It is in this crate because the plugin and the control plane must agree on it bit by bit.

use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

/// Environment variable that holds the secret, 32 hexadecimal digits.
pub const SECRET_ENV: &str = "FOREBAY_KEY_HASH_SECRET";

/// Environment variable that holds the secret before a rotation; read by the control plane only.
pub const PREVIOUS_SECRET_ENV: &str = "FOREBAY_KEY_HASH_SECRET_PREVIOUS";

/// A longer key cannot belong to a customer. It bounds what a request can make us hash and a policy can make us store.
pub const MAX_KEY_BYTES: usize = 1024;

/// Used when no secret is set: for development, protects nothing.
const DEVELOPMENT_SECRET: [u8; 16] = *b"forebay-dev-key!";

/// What a secret hashes to make its public name.
const FINGERPRINT_INPUT: &[u8] = b"forebay key fingerprint v1";

/// The 16 bytes that stand for a customer.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerHash(pub [u8; 16]);

/// The secret under which customer keys are hashed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySecret {
    bytes: [u8; 16],
}

/// Why a text is not 16 bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 hexadecimal digits, for example the output of `openssl rand -hex 16`")]
pub struct NotHex;

// === impl CustomerHash ===

impl CustomerHash {
    /// Puts together what [`Self::parts`] took apart.
    #[must_use]
    pub fn from_parts(high: u64, low: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// High and low half, as the sync messages carry them.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the truncation is what takes the halves apart
    pub fn parts(self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.0);
        ((whole >> 64) as u64, whole as u64)
    }
}

impl fmt::Display for CustomerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CustomerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CustomerHash {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        sixteen_bytes(text).map(Self)
    }
}

// === impl KeySecret ===

impl KeySecret {
    /// The fixed secret for development. Anyone can compute its hashes.
    #[must_use]
    pub fn development() -> Self {
        Self {
            bytes: DEVELOPMENT_SECRET,
        }
    }

    /// A secret written as 32 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else. The text is not repeated in the error: it may be most of a secret.
    pub fn from_hex(text: &str) -> Result<Self, NotHex> {
        sixteen_bytes(text.trim()).map(|bytes| Self { bytes })
    }

    /// The hash that stands for the customer with this key.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> CustomerHash {
        let mut hasher = SipHasher24::new_with_key(&self.bytes);
        hasher.write(key);
        CustomerHash(hasher.finish128().as_u128().to_be_bytes())
    }

    /// A public name of the secret, so that two processes notice when they hash under different ones. Never 0.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash(FINGERPRINT_INPUT).parts().0.max(1)
    }
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySecret({:016x})", self.fingerprint())
    }
}

fn sixteen_bytes(text: &str) -> Result<[u8; 16], NotHex> {
    // `from_str_radix` alone would also take a sign.
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotHex);
    }
    u128::from_str_radix(text, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| NotHex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_vectors_of_siphash() {
        // SipHash-2-4-128, key 00..0f, messages of 0 and 1 bytes (vectors_sip128 of the reference implementation).
        let secret = KeySecret::from_hex("000102030405060708090a0b0c0d0e0f").unwrap();
        let little_endian = |hash: CustomerHash| u128::from_be_bytes(hash.0).to_le_bytes();
        assert_eq!(
            little_endian(secret.hash(b"")),
            [
                0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
                0x02, 0x93
            ]
        );
        assert_eq!(
            little_endian(secret.hash(&[0])),
            [
                0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22,
                0xfc, 0x45
            ]
        );
    }

    #[test]
    fn reads_back_what_it_prints_and_sends() {
        let hash = KeySecret::development().hash(b"acme");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let (high, low) = hash.parts();
        assert_eq!(CustomerHash::from_parts(high, low), hash);
    }

    #[test]
    fn refuses_what_is_not_32_digits() {
        for text in [
            "",
            "00",
            "+0102030405060708090a0b0c0d0e0f0",
            "zz0102030405060708090a0b0c0d0e0f",
        ] {
            assert!(KeySecret::from_hex(text).is_err(), "{text}");
        }
    }

    #[test]
    fn different_secrets_have_different_fingerprints_and_print_no_secret() {
        let other = KeySecret::from_hex("000102030405060708090a0b0c0d0e0f").unwrap();
        assert_ne!(other.fingerprint(), KeySecret::development().fingerprint());
        assert!(!format!("{other:?}").contains("0405060708"));
    }
}
