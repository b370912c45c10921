//! What is known of a series as a row of the store.
//!
//! ```text
//!   version, 8 bytes of the SHA-256 of the rest, the rest by postcard
//! ```
//! What does not fit its hash was written by nobody: the state of a watch is numbers that feed on themselves, and one that is not finite would stay.
//! As JSON a row is four times as large, and there is one for each customer.

use super::watcher::Known;
use forebay_anomaly::Peers;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Of what follows. A row of another one is learned anew.
const VERSION: u8 = 1;
const HASH_BYTES: usize = 8;

/// Why a row is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRow {
    #[error("it is of version {0}, and this build reads version {VERSION}")]
    Version(u8),
    #[error("it is damaged")]
    Damaged,
}

/// Of a series.
pub(super) fn of_series(known: &Known) -> Option<Vec<u8>> {
    encode(known)
}

pub(super) fn to_series(row: &[u8]) -> Result<Known, BadRow> {
    decode(row)
}

/// Of all customers with a resource.
pub(super) fn of_peers(peers: &Peers) -> Option<Vec<u8>> {
    encode(peers)
}

pub(super) fn to_peers(row: &[u8]) -> Result<Peers, BadRow> {
    decode(row)
}

fn encode<T: Serialize>(content: &T) -> Option<Vec<u8>> {
    let content = postcard::to_allocvec(content).ok()?;
    Some([&[VERSION][..], &hash_of(&content), &content].concat())
}

fn decode<T: DeserializeOwned>(row: &[u8]) -> Result<T, BadRow> {
    let (version, rest) = row.split_first().ok_or(BadRow::Damaged)?;
    if *version != VERSION {
        return Err(BadRow::Version(*version));
    }
    let (hash, content) = rest
        .split_first_chunk::<HASH_BYTES>()
        .ok_or(BadRow::Damaged)?;
    if *hash != hash_of(content) {
        return Err(BadRow::Damaged);
    }
    postcard::from_bytes(content).map_err(|_| BadRow::Damaged)
}

fn hash_of(content: &[u8]) -> [u8; HASH_BYTES] {
    let hash: [u8; 32] = Sha256::digest(content).into();
    std::array::from_fn(|place| hash.get(place).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_anomaly::{Around, Step, Watch};

    fn known() -> Known {
        let watch = Watch::new(600_000);
        let mut known = Known::default();
        for step in 1..3_000_u64 {
            let step = Step {
                unix_ms: step * 600_000,
                asked: (step * 7_919 % 1_000) as f64 * 1e12,
                keys: Some(1e9),
                forecast_high: Some(0.1),
                ..Step::default()
            };
            let signs = watch.observe(&mut known.customer, &step).unwrap();
            watch.judge(&mut known.customer, &signs, Around::default());
        }
        known.asked_unix_ms = u64::MAX;
        known.is_capped = true;
        known
    }

    #[test]
    fn what_is_known_is_the_same_again_in_at_most_512_bytes() {
        let known = known();
        let row = of_series(&known).unwrap();
        assert_eq!(to_series(&row), Ok(known));
        assert!(row.len() <= 512, "{}", row.len());
    }

    #[test]
    fn no_row_that_was_damaged_or_is_of_another_version_is_taken() {
        let row = of_series(&known()).unwrap();
        for place in 0..row.len() {
            let mut other = row.clone();
            other[place] ^= 4;
            let expected = match place {
                0 => BadRow::Version(VERSION ^ 4),
                _ => BadRow::Damaged,
            };
            assert_eq!(to_series(&other), Err(expected), "{place}");
            assert_eq!(
                to_series(&row[1..][..place]),
                Err(to_series(&row[1..][..place]).unwrap_err())
            );
        }
    }
}
