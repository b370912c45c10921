//! Bearer tokens and certificates, and the roles that they stand for: gateways, and three kinds of people.
//!
//! A gateway's token is in every gateway's environment, so it must not open the admin API. Of people, most only look, some act
//! every day, and few decide what the contracts are: each kind has a token of its own, so that a dashboard's token cannot
//! change a policy. User accounts were the worse alternative: a second place for people beside the one that every company has,
//! where a proxy in front can map them to roles.
//!
//! A certificate stands for a gateway and for nobody else: what gateways hold lies on many machines. Where a request carries a
//! token too, the token decides which routes it may take, and the certificate still decides in whose name it may sync.
//!
//! Tokens are compared as SHA-256 digests in constant time: neither their content nor their length shows in how long a refusal
//! takes.

use crate::error::ApiError;
use crate::models::hex;
use crate::tls::Certified;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Codes of refusals.
const NO_TOKEN: &str = "no_token";
const WRONG_TOKEN: &str = "wrong_token";
const ROLE_TOO_SMALL: &str = "role_too_small";
const WRONG_CERTIFICATE: &str = "wrong_certificate";

/// The scheme of the header, whose case does not matter (RFC 9110, 11.1).
const SCHEME: &[u8] = b"bearer";

/// Bytes of a fingerprint: few enough to give no token away that is random, and enough to tell a handful of tokens apart.
const FINGERPRINT_BYTES: usize = 4;

/// Shortest token that is accepted at the start: 16 characters are 64 bits even in hexadecimal.
pub const MIN_TOKEN_BYTES: usize = 16;

/// Who may ask. Each role may do what the ones before it may, but for what only programs do: a sync is the gateways' own, and a write the senders'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A sender of Prometheus' remote write: covariates, and nothing else.
    Sender,
    /// A gateway: sync, and model files.
    Gateway,
    /// Looks at everything and changes nothing.
    Viewer,
    /// Does what the day brings: customers, gateways, and back to a policy that was in force.
    Operator,
    /// Everything: policies, models, history.
    Admin,
}

/// Who may take a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a token.
    Open,
    /// Gateways only: a sync in a person's name would be a gateway that nobody runs.
    GatewayOnly,
    /// Senders of remote write only: their token lies in the configuration of a Prometheus, and each token has one place.
    SenderOnly,
    /// This role and those above it.
    AtLeast(Role),
}

/// The tokens as they are given at the start.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// Of senders of remote write, if there are any.
    pub sender: Option<&'a str>,
    /// Of gateways, if they have not only certificates.
    pub gateway: Option<&'a str>,
    /// Of those who only look, if there are any.
    pub viewer: Option<&'a str>,
    /// Of operators, if there are any.
    pub operator: Option<&'a str>,
    /// Of those who may do everything.
    pub admin: &'a str,
}

/// Whose token a request carries, or whose certificate its connection has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// Tells tokens and certificates of one role from each other, before and after a rotation, without telling what they are.
    pub fingerprint: String,
}

/// The tokens, as digests, and how often others were shown.
pub struct Tokens {
    known: Vec<(Role, [u8; 32])>,
    refused: [(&'static str, AtomicU64); 4],
}

/// The token of Envoy's own filters. It is no role: it opens the gRPC listener and nothing else, because filters have it in their
/// configuration, which whoever reaches an Envoy's admin page can read.
#[derive(Clone, Copy)]
pub struct FilterToken([u8; 32]);

/// Where it comes from.
const FILTER_VARIABLE: &str = "FOREBAY_FILTER_TOKEN";

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
    /// Two are the same.
    #[error(
        "{0} and {1} are the same, so whoever has one could do what the other allows: make another"
    )]
    Same(&'static str, &'static str),
}

// === impl Role ===

impl Role {
    /// All of them, from the smallest.
    pub const ALL: [Self; 5] = [
        Self::Sender,
        Self::Gateway,
        Self::Viewer,
        Self::Operator,
        Self::Admin,
    ];

    /// As it is written in errors and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Gateway => "gateway",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The variable of the server's environment that holds its token.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Sender => "FOREBAY_SENDER_TOKEN",
            Self::Gateway => "FOREBAY_GATEWAY_TOKEN",
            Self::Viewer => "FOREBAY_VIEWER_TOKEN",
            Self::Operator => "FOREBAY_OPERATOR_TOKEN",
            Self::Admin => "FOREBAY_ADMIN_TOKEN",
        }
    }
}

// === impl Access ===

impl Access {
    /// Whether a role is let through.
    #[must_use]
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Open => true,
            Self::GatewayOnly => role == Role::Gateway,
            Self::SenderOnly => role == Role::Sender,
            Self::AtLeast(least) => role >= least,
        }
    }

    /// The smallest role that is let through; `None` where no token is needed.
    #[must_use]
    pub const fn least(self) -> Option<Role> {
        match self {
            Self::Open => None,
            Self::GatewayOnly => Some(Role::Gateway),
            Self::SenderOnly => Some(Role::Sender),
            Self::AtLeast(least) => Some(least),
        }
    }
}

// === impl Tokens ===

impl Tokens {
    /// Takes the tokens.
    ///
    /// # Errors
    /// When one can be guessed or sent by nobody, or two are the same.
    pub fn new(secrets: Secrets<'_>) -> Result<Self, TokenError> {
        let given: Vec<(Role, &str)> = Role::ALL
            .into_iter()
            .filter_map(|role| secrets.of(role).map(|token| (role, token)))
            .collect();
        for (role, token) in &given {
            check(token, role.variable())?;
            let twin = given
                .iter()
                .find(|(other, same)| other > role && same == token);
            if let Some((other, _)) = twin {
                return Err(TokenError::Same(role.variable(), other.variable()));
            }
        }
        let digests = given
            .into_iter()
            .map(|(role, token)| (role, Sha256::digest(token.as_bytes()).into()));
        Ok(Self {
            known: digests.collect(),
            refused: [NO_TOKEN, WRONG_TOKEN, ROLE_TOO_SMALL, WRONG_CERTIFICATE]
                .map(|code| (code, AtomicU64::new(0))),
        })
    }

    /// Lets a request through if its token's role may take a route, or without a token that of its certificate, and says whose it
    /// is; `None` where neither is needed.
    ///
    /// # Errors
    /// When it carries no token, one of nobody, or one of a role that may not. These are counted and not written down: an attacker
    /// could fill the disk with them.
    pub fn require(
        &self,
        headers: &HeaderMap,
        certified: Option<&Certified>,
        access: Access,
    ) -> Result<Option<Caller>, ApiError> {
        let Some(least) = access.least() else {
            return Ok(None);
        };
        let outcome = match certified {
            Some(certified)
                if access.admits(Role::Gateway) && !headers.contains_key(AUTHORIZATION) =>
            {
                by_certificate(certified)
            }
            _ => self.find(headers, access, least),
        };
        self.counted(outcome).map(Some)
    }

    /// Lets a gateway sync in its own name. A certificate whose name has an id is good for this one only, also beside a token.
    ///
    /// # Errors
    /// When it is the name of another one. These are counted as above.
    pub fn require_own_name(
        &self,
        certified: Option<&Certified>,
        gateway_id: &str,
    ) -> Result<(), ApiError> {
        let Some(Certified::Gateway(gateway)) = certified else {
            return Ok(());
        };
        self.counted(match &gateway.id {
            Some(id) if id != gateway_id => Err(not_its_name(&gateway.name, id)),
            _ => Ok(()),
        })
    }

    fn counted<T>(&self, outcome: Result<T, ApiError>) -> Result<T, ApiError> {
        if let Err(error) = &outcome {
            let counters = self.refused.iter();
            for (_, counter) in counters.filter(|(code, _)| *code == error.code) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        outcome
    }

    /// Refusals since the start, by code.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counters = self.refused.iter();
        counters.map(|(code, counter)| (*code, counter.load(Ordering::Relaxed)))
    }

    fn find(&self, headers: &HeaderMap, access: Access, least: Role) -> Result<Caller, ApiError> {
        let token = token_of(headers)?;
        match self.role_of(token) {
            Some(role) if access.admits(role) => Ok(Caller {
                role,
                fingerprint: fingerprint(token),
            }),
            Some(role) if role > Role::Gateway && least > Role::Gateway => {
                Err(self.role_too_small(role, access, least))
            }
            _ => Err(self.wrong_token(access, least)),
        }
    }

    /// Compares with all of them, whichever fits: how long that takes says nothing.
    fn role_of(&self, token: &[u8]) -> Option<Role> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let position = (0_u8..)
            .zip(&self.known)
            .fold(u8::MAX, |found, (position, (_, known))| {
                let fits: Choice = digest.ct_eq(known);
                u8::conditional_select(&found, &position, fits)
            });
        self.known.get(usize::from(position)).map(|(role, _)| *role)
    }

    fn wrong_token(&self, access: Access, least: Role) -> ApiError {
        let hint = format!(
            "this needs the role {}: {}",
            least.name(),
            self.hint(access)
        );
        let message = "the bearer token does not open this";
        ApiError::new(StatusCode::FORBIDDEN, WRONG_TOKEN, message, hint)
    }

    fn role_too_small(&self, role: Role, access: Access, least: Role) -> ApiError {
        let message = format!(
            "this needs the role {}, the bearer token is that of the role {}",
            least.name(),
            role.name()
        );
        let hint = self.hint(access);
        ApiError::new(StatusCode::FORBIDDEN, ROLE_TOO_SMALL, message, hint)
    }

    /// Which tokens would do, of those that there are.
    fn hint(&self, access: Access) -> String {
        let fitting = self.known.iter().filter(|(role, _)| access.admits(*role));
        let variables: Vec<&str> = fitting.map(|(role, _)| role.variable()).collect();
        if variables.is_empty() && access == Access::SenderOnly {
            return "the server has no token of senders: start it with FOREBAY_SENDER_TOKEN and --covariate".to_owned();
        }
        if variables.is_empty() {
            return "show a certificate that --tls-gateway-name admits".to_owned();
        }
        format!(
            "send the value of {} of the server's environment",
            variables.join(" or ")
        )
    }
}

// === impl FilterToken ===

impl FilterToken {
    /// Takes the token.
    ///
    /// # Errors
    /// When it can be guessed or sent by nobody, or is that of a role.
    pub fn new(token: &str, others: &Tokens) -> Result<Self, TokenError> {
        check(token, FILTER_VARIABLE)?;
        match others.role_of(token.as_bytes()) {
            Some(role) => Err(TokenError::Same(FILTER_VARIABLE, role.variable())),
            None => Ok(Self(Sha256::digest(token.as_bytes()).into())),
        }
    }

    /// Whether a request carries it.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        token_of(headers).is_ok_and(|token| {
            let digest: [u8; 32] = Sha256::digest(token).into();
            digest.ct_eq(&self.0).into()
        })
    }
}

impl fmt::Debug for FilterToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilterToken(..)")
    }
}

fn check(token: &str, variable: &'static str) -> Result<(), TokenError> {
    if token.len() < MIN_TOKEN_BYTES {
        return Err(TokenError::Short(variable));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Unsendable(variable));
    }
    Ok(())
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

// === impl Secrets ===

impl<'a> Secrets<'a> {
    const fn of(&self, role: Role) -> Option<&'a str> {
        match role {
            Role::Sender => self.sender,
            Role::Gateway => self.gateway,
            Role::Viewer => self.viewer,
            Role::Operator => self.operator,
            Role::Admin => Some(self.admin),
        }
    }
}

/// Of another hash than the one that is compared.
fn fingerprint(token: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update("forebay token fingerprint")
        .chain_update(token)
        .finalize();
    hex(digest.get(..FINGERPRINT_BYTES).unwrap_or_default())
}

fn by_certificate(certified: &Certified) -> Result<Caller, ApiError> {
    match certified {
        Certified::Gateway(gateway) => Ok(Caller {
            role: Role::Gateway,
            fingerprint: fingerprint(gateway.name.as_bytes()),
        }),
        Certified::Other(reason) => {
            let message = format!("the certificate is not that of a gateway: {reason}");
            let hint =
                "give the gateway a certificate with a name that is admitted, or send a token";
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                WRONG_CERTIFICATE,
                message,
                hint,
            ))
        }
    }
}

fn not_its_name(name: &str, id: &str) -> ApiError {
    let message = format!("the certificate {name} is good for the gateway id `{id}` and no other");
    let hint = "set control_plane.gateway_id of the gateway to that id";
    ApiError::new(StatusCode::FORBIDDEN, WRONG_CERTIFICATE, message, hint)
}

fn token_of(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = value.and_then(|value| {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
        is_bearer.then(|| token.strip_prefix(b" "))?
    });
    token.map(<[u8]>::trim_ascii_start).ok_or_else(|| {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            NO_TOKEN,
            "the request carries no bearer token",
            "send the header `authorization: Bearer TOKEN`",
        )
    })
}
