//! Fingerprints of cycles: two servers, or two versions, that disagree about who gets what find out from them in which cycle, and whether they had read
//! the same.

use super::book::Book;
use forebay_core::resource::PerResource;
use forebay_sharing::Lend;
use sha2::{Digest, Sha256};

/// Numbers, each as its bits, behind one another.
struct Numbers(Sha256);

// === impl Numbers ===

impl Numbers {
    fn add(&mut self, number: f64) {
        self.0.update(number.to_bits().to_le_bytes());
    }

    fn count(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn optional(&mut self, number: Option<f64>) {
        self.count(u64::from(number.is_some()));
        self.add(number.unwrap_or_default());
    }

    fn each(&mut self, numbers: &PerResource<f64>) {
        for number in numbers.iter() {
            self.add(*number);
        }
    }
}

fn position(place: Option<usize>) -> u64 {
    place.map_or(u64::MAX, |place| place as u64)
}

/// Of all that a cycle was made from.
pub(super) fn of_inputs(book: &Book) -> [u8; 32] {
    let mut numbers = Numbers(Sha256::new());
    numbers.each(&book.capacity_per_s);
    let settings = &book.settings;
    for number in settings.quantiles {
        numbers.add(number);
    }
    for number in [
        settings.reserve_share,
        settings.quiet_share,
        settings.interval_s,
    ] {
        numbers.add(number);
    }
    numbers.count(u64::from(settings.with_credits));
    numbers.count(book.groups.len() as u64);
    for group in &book.groups {
        numbers.count(position(group.parent));
        for cap in group.cap_per_s.iter() {
            numbers.optional(*cap);
        }
    }
    for entry in &book.entries {
        let customer = &entry.customer;
        numbers.0.update(entry.hash.0);
        numbers.count(u64::from(customer.tier.number()));
        numbers.count(u64::from(customer.priority));
        numbers.add(customer.weight);
        numbers.count(position(customer.group));
        numbers.add(customer.credits);
        numbers.each(&customer.headroom_per_s);
        for terms in customer.terms.iter() {
            numbers.add(terms.guarantee_per_s);
            numbers.add(terms.rate_per_s);
            numbers.add(terms.ceiling_per_s);
            numbers.optional(match terms.lend {
                Lend::Auto => None,
                Lend::Never => Some(0.0),
                Lend::UpTo(limit_per_s) => Some(limit_per_s),
            });
        }
        for outlook in customer.outlook.iter() {
            for quantile in outlook.quantiles_per_s {
                numbers.add(quantile);
            }
        }
        for held in customer.held.iter() {
            numbers.add(held.per_s);
            numbers.count(u64::from(held.is_releasing));
        }
    }
    numbers.0.finalize().into()
}

/// Of all that it gives.
pub(super) fn of_result(book: &Book) -> [u8; 32] {
    let mut numbers = Numbers(Sha256::new());
    numbers.each(&book.reserve_per_s);
    numbers.each(&book.idle_per_s);
    for entry in &book.entries {
        numbers.0.update(entry.hash.0);
        for part in entry.parts.iter() {
            for number in [
                part.kept_per_s,
                part.shared_per_s,
                part.headroom_per_s,
                part.bought_per_s,
                part.borrowed_per_s,
                part.eased_per_s,
                part.lent_per_s,
                part.unmet_per_s,
            ] {
                numbers.add(number);
            }
            numbers.count(u64::from(part.is_releasing));
        }
    }
    numbers.0.finalize().into()
}
