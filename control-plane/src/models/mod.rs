//! Model files: checked by the very code that will run them, and signed.

mod sandbox;
mod signing;
mod stub;
mod trial;

pub use sandbox::{Sandbox, SandboxError, SandboxLimits, Verdict};
pub use signing::{KeyError, SigningKeyFile, generate_key, public_key_hex, sign, verify};
pub use trial::{Evidence, Finding, Pair, Trial};

use sha2::{Digest, Sha256};

/// Largest model file.
pub const MAX_MODEL_BYTES: usize = 16 << 20;

/// SHA-256 of a file.
#[must_use]
pub fn digest_of(file: &[u8]) -> [u8; 32] {
    Sha256::digest(file).into()
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// `N` bytes from hexadecimal digits; `None` if the text is anything else.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.checked_mul(2)? || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (pairs, _) = text.as_bytes().as_chunks::<2>();
    for (place, pair) in bytes.iter_mut().zip(pairs) {
        *place = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
