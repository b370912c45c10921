//! Room before the spike: what scores above a threshold are worth in the next cycle.
//!
//! The idea that this comes from protects the account that is hit in its text, and feeds the one that spikes in its pseudocode. Which of them a
//! policy wants is its choice; either way headroom comes out of what is left when guarantees are given, and [`crate::allocate`] never
//! takes it from anybody's guarantee. It ends by itself: a risk that is still there is found again.

use crate::allocation::Customer;
use crate::numbers::clean;
use crate::risk::pair::Pair;
use forebay_core::resource::ResourceIndex;

/// Whom extra room is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protect {
    /// Who would be short.
    #[default]
    Impacted,
    /// Whose spike it is: what it has of its own it does not take from the common rest.
    FeedSpiker,
}

/// When headroom is given, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Scores above this count.
    pub threshold: f64,
    /// To whom.
    pub protect: Protect,
    /// For how long, in seconds.
    pub ttl_s: f64,
}

/// Extra room for one customer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extra {
    /// Its position.
    pub customer: usize,
    /// Tokens per second.
    pub per_s: f64,
    /// When it is over, on the clock of `now_s`.
    pub ends_s: f64,
    /// Because of which pair: whose spike, and who would be short.
    pub because: (usize, usize),
}

// === impl Rules ===

impl Default for Rules {
    fn default() -> Self {
        Self {
            threshold: 0.02,
            protect: Protect::Impacted,
            ttl_s: 900.0,
        }
    }
}

/// What pairs of customers above the threshold are given of `left_per_s`, the highest score first. A customer that several spikes would hit is
/// short once: it gets what the worst of them takes, and not the sum.
#[must_use]
pub fn headroom(pairs: &[Pair], rules: &Rules, left_per_s: f64, now_s: f64) -> Vec<Extra> {
    let mut order: Vec<&Pair> = pairs
        .iter()
        .filter(|pair| pair.score > rules.threshold)
        .collect();
    order.sort_by(|left, right| {
        let places = (left.from, left.to).cmp(&(right.from, right.to));
        right.score.total_cmp(&left.score).then(places)
    });
    let mut left = clean(left_per_s);
    let mut extras: Vec<Extra> = Vec::new();
    let mut place_of = std::collections::BTreeMap::new();
    for pair in order {
        let customer = match rules.protect {
            Protect::Impacted => pair.to,
            Protect::FeedSpiker => pair.from,
        };
        let place = *place_of.entry(customer).or_insert_with(|| {
            extras.push(Extra {
                customer,
                per_s: 0.0,
                ends_s: now_s + clean(rules.ttl_s),
                because: (pair.from, pair.to),
            });
            extras.len() - 1
        });
        let extra = &mut extras[place];
        let more = (clean(pair.magnitude_per_s) - extra.per_s).clamp(0.0, left);
        if more > 0.0 {
            extra.per_s += more;
            left -= more;
        }
    }
    extras.retain(|extra| extra.per_s > 0.0);
    extras
}

/// Gives the customers of a cycle the headroom that is still in force, in place of what they had.
pub fn add_headroom(
    extras: &[Extra],
    resource: ResourceIndex,
    now_s: f64,
    customers: &mut [Customer],
) {
    for customer in customers.iter_mut() {
        *customer.headroom_per_s.at_mut(resource) = 0.0;
    }
    for extra in extras.iter().filter(|extra| now_s < extra.ends_s) {
        if let Some(customer) = customers.get_mut(extra.customer) {
            *customer.headroom_per_s.at_mut(resource) += extra.per_s;
        }
    }
}
