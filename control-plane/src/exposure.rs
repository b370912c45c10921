//! Addresses that others than this machine may reach, where what is said is not encrypted.

use std::net::SocketAddr;

/// What a server should say of such an address when it listens there: what is wrong, and the `advice` for what speaks there. `None` for the
/// loopback.
pub(crate) fn warning(address: SocketAddr, advice: &str) -> Option<String> {
    let is_loopback = address.ip().to_canonical().is_loopback();
    (!is_loopback).then(|| {
        format!(
            "{address} is not the loopback, and what is said there is not encrypted: whoever is on the way can read the tokens and use them; {advice}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_the_loopback_is_warned_of() {
        for loopback in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert_eq!(warning(loopback.parse().unwrap(), ""), None, "{loopback}");
        }
        for other in ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "[::ffff:10.0.0.7]:1"] {
            let said = warning(other.parse().unwrap(), "give --tls-cert").unwrap();
            let words = ["the loopback", "tokens", "give --tls-cert"];
            assert!(
                words.iter().all(|word| said.contains(word)),
                "{other}: {said}"
            );
        }
    }
}
