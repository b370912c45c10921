//! What a replica says of a request that it passes on: which gateway's certificate it has verified.
//!
//! Only a replica can say so: the header carries an HMAC under a key that is made of the admin token, which all replicas have and no
//! gateway has. It is over time, method and path as well, so that a header that leaks is soon worth nothing. That replicas show
//! each other certificates was the worse alternative: it would take names for replicas beside those for gateways, and certificates
//! of servers that are made for clients as well.

use super::name::GatewayName;
use super::peer::Certified;
use crate::error::ApiError;
use crate::models::{from_hex, hex};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use ring::hmac;
use std::time::{SystemTime, UNIX_EPOCH};

/// The header: milliseconds since 1970, id or `*`, name, HMAC.
const VOUCHED: &str = "forebay-vouched";

/// How much older than the leader's clock a word may be, or newer: the time on the way, and clocks that differ.
const GOOD_FOR_MS: u64 = 60_000;

/// A place for the id of a gateway that may have any. No letter of a name.
const ANY_ID: &str = "*";

/// Makes and checks the words of replicas.
pub(super) struct Voucher(hmac::Key);

// === impl Voucher ===

impl Voucher {
    pub(super) fn new(admin_token: &str) -> Self {
        let of_admins = hmac::Key::new(hmac::HMAC_SHA256, admin_token.as_bytes());
        let key = hmac::sign(&of_admins, b"forebay: replicas vouch for gateways");
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// Before a request is passed on: takes away what a client says, and says what is known.
    pub(super) fn vouch(&self, request: &mut Request) {
        request.headers_mut().remove(VOUCHED);
        let Some(Certified::Gateway(gateway)) = request.extensions().get() else {
            return;
        };
        let id = gateway.id.as_deref().unwrap_or(ANY_ID);
        let word = format!("{} {id} {}", unix_ms(), gateway.name);
        let hmac = hmac::sign(&self.0, &signed(&word, request));
        // Names have letters only that a header can have.
        if let Ok(value) = HeaderValue::from_str(&format!("{word} {}", hex(hmac.as_ref()))) {
            request.headers_mut().insert(VOUCHED, value);
        }
    }

    /// When a request has been passed on: what the connection says is the replica's, what the header says is the gateway's.
    ///
    /// # Errors
    /// When no replica of ours has said that, or not now.
    pub(super) fn believe(&self, request: &mut Request) -> Result<(), ApiError> {
        request.extensions_mut().remove::<Certified>();
        let Some(value) = request.headers().get(VOUCHED) else {
            return Ok(());
        };
        let gateway = value
            .to_str()
            .ok()
            .and_then(|text| self.read(text, request))
            .ok_or_else(not_ours)?;
        request.extensions_mut().insert(Certified::Gateway(gateway));
        Ok(())
    }

    fn read(&self, text: &str, request: &Request) -> Option<GatewayName> {
        let (word, hmac) = text.rsplit_once(' ')?;
        let hmac = from_hex::<32>(hmac)?;
        hmac::verify(&self.0, &signed(word, request), &hmac).ok()?;
        let mut parts = word.split(' ');
        let (at, id, name) = (parts.next()?, parts.next()?, parts.next()?);
        let at: u64 = at.parse().ok()?;
        if unix_ms().abs_diff(at) > GOOD_FOR_MS {
            return None;
        }
        Some(GatewayName {
            name: name.to_owned(),
            id: (id != ANY_ID).then(|| id.to_owned()),
        })
    }
}

fn signed(word: &str, request: &Request) -> Vec<u8> {
    let method: &Method = request.method();
    format!("{word}\n{method} {}", request.uri().path()).into_bytes()
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn not_ours() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "wrong_certificate",
        "the request says which gateway's certificate another replica has verified, and no replica of ours has said so just now",
        "give all replicas the same FOREBAY_ADMIN_TOKEN, and clocks that agree to within a minute",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const TOKEN: &str = "the-token-of-admins";

    fn request(method: &str, path: &str) -> Request {
        let builder = Request::builder().method(method).uri(path);
        builder.body(Body::empty()).unwrap()
    }

    fn gateway(id: Option<&str>) -> Certified {
        Certified::Gateway(GatewayName {
            name: "spiffe://example.org/gateway/g1".to_owned(),
            id: id.map(str::to_owned),
        })
    }

    /// As it arrives at the leader, where the connection is that of the replica.
    fn passed_on(certified: Option<Certified>) -> Request {
        let mut request = request("POST", "/v1/sync");
        if let Some(certified) = certified {
            request.extensions_mut().insert(certified);
        }
        Voucher::new(TOKEN).vouch(&mut request);
        let replicas_own = Certified::Gateway(GatewayName {
            name: "spiffe://example.org/gateway/replica".to_owned(),
            id: None,
        });
        request.extensions_mut().insert(replicas_own);
        request
    }

    #[test]
    fn what_one_replica_has_verified_another_one_believes() {
        for id in [None, Some("g1")] {
            let mut request = passed_on(Some(gateway(id)));
            Voucher::new(TOKEN).believe(&mut request).unwrap();
            assert_eq!(request.extensions().get(), Some(&gateway(id)));
        }
    }

    #[test]
    fn whoever_has_shown_nothing_has_not_the_name_of_the_replica_that_passes_it_on() {
        for nobody in [None, Some(Certified::Other("no gateway".to_owned()))] {
            let mut request = passed_on(nobody);
            assert!(!request.headers().contains_key(VOUCHED));
            Voucher::new(TOKEN).believe(&mut request).unwrap();
            assert_eq!(request.extensions().get::<Certified>(), None);
        }
    }

    #[test]
    fn a_word_that_no_replica_has_said_is_refused_and_none_that_a_client_has_said_is_passed_on() {
        let true_word = passed_on(Some(gateway(Some("g1"))));
        let true_word = true_word.headers()[VOUCHED].to_str().unwrap().to_owned();
        let other_key = Voucher::new("the-token-of-others");
        let old = "1000 g1 spiffe://example.org/gateway/g1".to_owned();
        let sync = request("POST", "/v1/sync");
        let old_hmac = hmac::sign(&Voucher::new(TOKEN).0, &signed(&old, &sync));
        for (path, word) in [
            ("/v1/sync", String::new()),
            ("/v1/sync", "1".to_owned()),
            ("/v1/sync", true_word.replace(" g1 ", " g2 ")),
            ("/v1/sync", true_word.replace(" g1 ", " * ")),
            ("/v1/sync", true_word.replace("/g1", "/g2")),
            ("/v1/sync", format!("9{true_word}")),
            ("/v1/sync", true_word[..true_word.len() - 1].to_owned()),
            ("/v1/sync", format!("{old} {}", hex(old_hmac.as_ref()))),
            ("/v1/models/1", true_word.clone()),
        ] {
            let mut forged = request("POST", path);
            let value = HeaderValue::from_str(&word).unwrap();
            forged.headers_mut().insert(VOUCHED, value);
            let error = Voucher::new(TOKEN).believe(&mut forged).unwrap_err();
            assert_eq!(error.code, "wrong_certificate", "{word}");
            assert_eq!(forged.extensions().get::<Certified>(), None);
            Voucher::new(TOKEN).vouch(&mut forged);
            assert!(!forged.headers().contains_key(VOUCHED), "{word}");
        }
        let mut of_others = passed_on(Some(gateway(None)));
        other_key.believe(&mut of_others).unwrap_err();
    }
}
