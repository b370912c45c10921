//! The client's address as a key: the network that it belongs to, written as text.
//!
//! The text is the canonical form (`10.1.2.0/24`, `2001:db8::/64`), because a policy can list a network as a customer.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Property with the address and port of the client, as the connection manager determined it.
pub(crate) const PROPERTY: &[u8] = b"source\0address";

/// How many leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixLengths {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// Replaces `into` by the network of `address`; false if it is no IP address (a Unix socket, for example).
pub(crate) fn write_network(address: &[u8], lengths: PrefixLengths, into: &mut Vec<u8>) -> bool {
    let Some(address) = parse(address) else {
        return false;
    };
    into.clear();
    match address {
        IpAddr::V4(address) => {
            let bits = mask_v4(lengths.v4) & u32::from(address);
            write!(into, "{}/{}", Ipv4Addr::from(bits), lengths.v4).is_ok()
        }
        IpAddr::V6(address) => {
            let bits = mask_v6(lengths.v6) & u128::from(address);
            write!(into, "{}/{}", Ipv6Addr::from(bits), lengths.v6).is_ok()
        }
    }
}

fn parse(address: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(address).ok()?;
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => text.parse::<IpAddr>().ok()?,
    };
    // A v4 client of a dual-stack listener is the same client.
    Some(address.to_canonical())
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(u32::from(bits)))
        .unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(bits)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, v4: u8, v6: u8) -> Option<String> {
        let mut into = b"left over".to_vec();
        write_network(address.as_bytes(), PrefixLengths { v4, v6 }, &mut into)
            .then(|| String::from_utf8(into).unwrap())
    }

    #[test]
    fn an_address_is_cut_to_its_network() {
        for (address, v4, v6, expected) in [
            ("10.1.2.3:80", 32, 64, "10.1.2.3/32"),
            ("10.1.2.3:80", 24, 64, "10.1.2.0/24"),
            ("255.255.255.255:1", 1, 64, "128.0.0.0/1"),
            ("10.1.2.3", 8, 64, "10.0.0.0/8"),
            ("[2001:db8:1:2:3:4:5:6]:443", 32, 64, "2001:db8:1:2::/64"),
            ("[2001:db8::1]:443", 32, 128, "2001:db8::1/128"),
            ("[::ffff:10.1.2.3]:80", 24, 64, "10.1.2.0/24"),
            ("10.1.2.3:80", 0, 0, "0.0.0.0/0"),
        ] {
            assert_eq!(
                network(address, v4, v6).as_deref(),
                Some(expected),
                "{address}"
            );
        }
    }

    #[test]
    fn what_is_no_ip_address_has_no_network() {
        for address in ["", "/run/envoy.sock", "10.1.2", "\u{fffd}"] {
            assert_eq!(network(address, 32, 64), None, "{address:?}");
        }
    }
}
