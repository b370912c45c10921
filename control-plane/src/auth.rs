//! Two bearer tokens: one for gateways, one for people and their tools.
//!
//! A gateway's token is in every gateway's environment, so it must not open the admin API. Tokens are compared as SHA-256
//! digests in constant time: neither their content nor their length shows in how long a refusal takes.

use crate::error::ApiError;
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Shortest token that is accepted at the start: 16 characters are 64 bits even in hexadecimal.
pub const MIN_TOKEN_BYTES: usize = 16;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A gateway: sync, and model files.
    Gateway,
    /// An operator: everything else, and model files.
    Admin,
}

/// The tokens, as digests.
#[derive(Clone)]
pub struct Tokens {
    gateway: [u8; 32],
    admin: [u8; 32],
}

/// Why the tokens cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// One is too short.
    #[error(
        "{0} is shorter than {MIN_TOKEN_BYTES} characters: use the output of `openssl rand -hex 32`"
    )]
    Short(&'static str),
    /// One cannot be sent.
    #[error(
        "{0} holds a blank, a line break or a letter outside ASCII, which no client could send: use the output of `openssl rand -hex 32`"
    )]
    Unsendable(&'static str),
    /// Both are the same.
    #[error(
        "FOREBAY_GATEWAY_TOKEN and FOREBAY_ADMIN_TOKEN are the same: each gateway could change policies; make another"
    )]
    Same,
}

impl Tokens {
    /// Takes both tokens.
    ///
    /// # Errors
    /// When one can be guessed, or they do not differ.
    pub fn new(gateway: &str, admin: &str) -> Result<Self, TokenError> {
        for (variable, token) in [
            ("FOREBAY_GATEWAY_TOKEN", gateway),
            ("FOREBAY_ADMIN_TOKEN", admin),
        ] {
            if token.len() < MIN_TOKEN_BYTES {
                return Err(TokenError::Short(variable));
            }
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TokenError::Unsendable(variable));
            }
        }
        if gateway == admin {
            return Err(TokenError::Same);
        }
        let digest = |token: &str| Sha256::digest(token.as_bytes()).into();
        Ok(Self {
            gateway: digest(gateway),
            admin: digest(admin),
        })
    }

    /// Lets a request through if it carries the token of one of the roles.
    ///
    /// # Errors
    /// When it carries none, or another.
    pub fn require(&self, headers: &HeaderMap, roles: &[Role]) -> Result<(), ApiError> {
        let value = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let Some(token) = value else {
            let hint = "send the header `authorization: Bearer TOKEN`";
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "no_token",
                "the request carries no bearer token",
                hint,
            ));
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        let fits = |role: &Role| match role {
            Role::Gateway => bool::from(digest.ct_eq(&self.gateway)),
            Role::Admin => bool::from(digest.ct_eq(&self.admin)),
        };
        if roles.iter().any(fits) {
            return Ok(());
        }
        let hint = match roles.first() {
            Some(Role::Gateway) => {
                "gateways send the value of FOREBAY_GATEWAY_TOKEN of the server's environment"
            }
            _ => "the admin API needs the value of FOREBAY_ADMIN_TOKEN of the server's environment",
        };
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "wrong_token",
            "the bearer token does not open this",
            hint,
        ))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_no_client_could_send_is_refused_at_the_start() {
        let good = "0123456789abcdef0";
        for bad in [
            "0123456789abcdef\n",
            "0123456789 abcdef",
            "0123456789abcdefé",
        ] {
            let admin = Tokens::new(good, bad);
            let unsendable = TokenError::Unsendable("FOREBAY_ADMIN_TOKEN");
            assert_eq!(admin.err(), Some(unsendable), "{bad:?}");
        }
    }
}
