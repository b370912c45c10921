//! Which series a challenger forecasts: a bounded number, and the same ones at each gateway and after each restart.
//!
//! Those with the lowest hashes of their keys are taken, under a salt from the model's digest, so that no customer is in every sample. To
//! take the first ones that come by was worse: the order of the ledger's pages would choose, and a restart another sample.

use forebay_wire::model::ModelDigest;

use crate::inference::BATCH_ROWS;
use crate::series::SeriesKey;

/// Series in a sample: one batch.
pub const SAMPLE_MOST: usize = BATCH_ROWS;

/// What is kept of each series of a sample, in the order of their hashes.
#[derive(Debug)]
pub(super) struct Sample<T> {
    salt: u64,
    members: Vec<Member<T>>,
}

#[derive(Debug)]
struct Member<T> {
    place: (u64, SeriesKey),
    kept: T,
}

// === impl Sample ===

impl<T> Sample<T> {
    pub(super) fn new(digest: &ModelDigest) -> Self {
        let salt = digest.first_chunk::<8>();
        Self {
            salt: salt.map_or(0, |bytes| u64::from_le_bytes(*bytes)),
            members: Vec::new(),
        }
    }

    /// What is kept of a series, if it is in the sample.
    pub(super) fn get_mut(&mut self, key: &SeriesKey) -> Option<&mut T> {
        let index = self.find(key).ok()?;
        self.members.get_mut(index).map(|member| &mut member.kept)
    }

    /// The same, and takes the series in if it belongs there: there is room, or it goes before one that is in.
    pub(super) fn admit(&mut self, key: &SeriesKey, new: impl FnOnce() -> T) -> Option<&mut T> {
        let index = match self.find(key) {
            Ok(index) => index,
            Err(index) if index >= SAMPLE_MOST => return None,
            Err(index) => {
                self.members.truncate(SAMPLE_MOST.saturating_sub(1));
                let place = (self.hash(key), *key);
                self.members.insert(index, Member { place, kept: new() });
                index
            }
        };
        self.members.get_mut(index).map(|member| &mut member.kept)
    }

    /// The series gives its place back.
    pub(super) fn drop(&mut self, key: &SeriesKey) {
        if let Ok(index) = self.find(key) {
            self.members.remove(index);
        }
    }

    /// Gives back the places of those that are not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        self.members.retain(|member| wanted(&member.kept));
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&SeriesKey, &T)> {
        self.members
            .iter()
            .map(|member| (&member.place.1, &member.kept))
    }

    fn find(&self, key: &SeriesKey) -> Result<usize, usize> {
        let hash = self.hash(key);
        self.members.binary_search_by(|member| {
            let (place, of) = &member.place;
            place
                .cmp(&hash)
                .then_with(|| of.customer.0.cmp(&key.customer.0))
                .then_with(|| of.resource.position().cmp(&key.resource.position()))
        })
    }

    /// A customer's hash is one already; the salt and the resource have to change all of its bits.
    fn hash(&self, key: &SeriesKey) -> u64 {
        let customer = key.customer.0.first_chunk::<8>();
        let customer = customer.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let resource = u64::try_from(key.resource.position()).unwrap_or(0);
        let mut mixed = (customer ^ self.salt).wrapping_add(resource.wrapping_mul(SPREAD));
        for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ mixed.wrapping_shr(30)).wrapping_mul(multiplier);
        }
        mixed ^ mixed.wrapping_shr(31)
    }
}

/// The golden ratio in 64 bits: neighbours get far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use forebay_core::ledger::CustomerHash;
    use forebay_core::resource::ResourceIndex;

    use super::*;

    fn key(number: u16) -> SeriesKey {
        let mut customer = [0; 16];
        customer[..2].copy_from_slice(&number.to_le_bytes());
        SeriesKey {
            customer: CustomerHash(customer),
            resource: ResourceIndex::FIRST,
        }
    }

    fn sampled(digest: u8, order: impl Iterator<Item = u16>) -> Vec<SeriesKey> {
        let mut sample = Sample::new(&[digest; 32]);
        for number in order {
            sample.admit(&key(number), || ());
        }
        sample.iter().map(|(key, ())| *key).collect()
    }

    #[test]
    fn the_sample_is_bounded_and_does_not_depend_on_who_comes_first() {
        let forwards = sampled(1, 0..1_000);
        assert_eq!(forwards.len(), SAMPLE_MOST);
        assert_eq!(forwards, sampled(1, (0..1_000).rev()));
    }

    #[test]
    fn another_model_has_another_sample() {
        let (one, other) = (sampled(1, 0..1_000), sampled(2, 0..1_000));
        let common = one.iter().filter(|key| other.contains(key)).count();
        assert!(common < SAMPLE_MOST / 2, "{common}");
    }

    #[test]
    fn what_is_kept_of_a_series_stays_with_it() {
        let mut sample = Sample::new(&[3; 32]);
        for number in 0..40 {
            sample.admit(&key(number), || number);
        }
        for number in 0..40 {
            assert_eq!(sample.get_mut(&key(number)), Some(&mut number.clone()));
        }
        sample.drop(&key(7));
        assert_eq!(sample.get_mut(&key(7)), None);
        assert_eq!(sample.iter().count(), 39);
    }
}
