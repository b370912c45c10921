//! Where a node of Redis is, as `--store` says it.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use std::fmt;
use std::str::FromStr;

/// `redis://[user[:password]@]host[:port][/database]`.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

// === impl RedisUrl ===

impl RedisUrl {
    /// The same account and database at another node.
    pub(super) fn at(&self, address: ConnectionAddr) -> Self {
        Self(self.0.clone().set_addr(address))
    }

    /// For the client.
    pub(super) fn info(&self) -> ConnectionInfo {
        self.0.clone()
    }

    /// The node's host.
    pub(super) fn host(&self) -> String {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, _) => host.clone(),
            _ => String::new(),
        }
    }
}

impl FromStr for RedisUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Its own message would quote the password.
        let bad = "not a URL like redis://user:password@host:6379/0";
        let info = text.into_connection_info().map_err(|_| bad.to_owned())?;
        match info.addr() {
            ConnectionAddr::Tcp(..) => Ok(Self(info)),
            _ => Err(
                "only redis:// is spoken: put a proxy that speaks TLS beside `forebay serve` where the network is not yours"
                    .to_owned(),
            ),
        }
    }
}

/// Without the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "redis://{}", self.0.addr())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::RedisUrl;

    #[test]
    fn a_url_never_shows_its_password() {
        let url: RedisUrl = "redis://forebay:very-secret@10.0.0.1:7000/2"
            .parse()
            .unwrap();
        assert_eq!(url.to_string(), "redis://10.0.0.1:7000");
        assert_eq!(format!("{url:?}"), "redis://10.0.0.1:7000");
        for bad in [
            "forebay:very-secret@host",
            "http://a:very-secret@b",
            "redis://a:very-secret@[::1",
            "unix:///very-secret",
        ] {
            let error = bad.parse::<RedisUrl>().unwrap_err();
            assert!(!error.contains("very-secret"), "{error}");
        }
    }
}
