//! `X-RateLimit-*` as Envoy's own filters render them (draft-polli-ratelimit-headers-03): plain integers, and the quota policy behind the
//! limit as `, N;w=S`. And `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11: lists of structured fields (RFC
//! 9651), one item for each resource, named like it.
//!
//! A token bucket has no window. `N` is the burst and `S` the time in which it refills, so `N` per `S` is the rate that the client can
//! count on, and `Reset` is the time until the bucket is full. Both follow from the balance alone: no clock is read.

use forebay_core::amount::{Micro, Rate};
use forebay_core::limits::US_PER_S;
use forebay_core::policy::Resource;
use forebay_core::resource::ResourceIndex;
use forebay_wire::config::HeadersConfig;

pub(crate) const LIMIT: &str = "x-ratelimit-limit";
pub(crate) const REMAINING: &str = "x-ratelimit-remaining";
pub(crate) const RESET: &str = "x-ratelimit-reset";
pub(crate) const POLICY: &str = "ratelimit-policy";
pub(crate) const RATE_LIMIT: &str = "ratelimit";
pub(crate) const RETRY_AFTER: &str = "retry-after";

/// What the headers say of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketView {
    /// What it is a bucket of.
    pub(crate) resource: ResourceIndex,
    /// Depth.
    pub(crate) burst: Micro,
    /// Refill.
    pub(crate) rate: Rate,
    /// A lower bound of what is left.
    pub(crate) remaining: Micro,
}

/// The values of the headers, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateHeaders {
    bytes: Vec<u8>,
    /// Where each value ends, in the order of [`NAMES`]. A header without a value is not sent.
    ends: [usize; NAMES.len()],
}

const NAMES: [&str; 5] = [LIMIT, REMAINING, RESET, POLICY, RATE_LIMIT];

// === impl BucketView ===

impl BucketView {
    /// Seconds in which the bucket refills, at least one; `None` if it never does.
    fn window_s(&self) -> Option<u64> {
        Some(self.seconds_until(self.burst)?.max(1))
    }

    /// Seconds until the bucket is full; `None` if it never will be.
    fn reset_s(&self) -> Option<u64> {
        self.seconds_until(self.burst.minus(self.remaining))
    }

    /// Seconds in which the client should take no more than what remains, so that it does not come faster than the refill (section 4.1.2 of
    /// the draft); where nothing remains, until the next token is there. At least one; `None` if nothing refills.
    fn effective_window_s(&self) -> Option<u64> {
        let next = Micro::from_tokens(self.remaining.whole_tokens().max(1));
        let wanting = match self.remaining.whole_tokens() {
            0 => next.minus(self.remaining),
            _ => next,
        };
        Some(self.seconds_until(wanting)?.max(1))
    }

    /// Whole seconds, rounded up. One division of 64 bits: by way of microseconds it would take one of 128, which wasm has to call for.
    fn seconds_until(&self, amount: Micro) -> Option<u64> {
        let amount = amount.at_least_zero().get().unsigned_abs();
        match (amount, self.rate.get()) {
            (0, _) => Some(0),
            (_, 0) => None,
            (amount, rate) => Some(amount.div_ceil(rate)),
        }
    }
}

// === impl RateHeaders ===

impl RateHeaders {
    /// Renders the headers that are switched on for the buckets that a request was charged to; the first one is the tightest.
    pub(crate) fn render(
        &mut self,
        buckets: &[BucketView],
        resources: &[Resource],
        config: &HeadersConfig,
    ) {
        self.bytes.clear();
        let into = &mut self.bytes;
        let tightest = buckets.first();
        if let Some(tightest) = tightest.filter(|_| config.limit) {
            push_number(into, tightest.burst.whole_tokens());
            if config.quota_policy {
                push_quota_policy(into, buckets);
            }
        }
        let limit_end = into.len();
        if let Some(tightest) = tightest.filter(|_| config.remaining) {
            push_number(into, tightest.remaining.whole_tokens());
        }
        let remaining_end = into.len();
        let reset_s = tightest.and_then(BucketView::reset_s);
        if let Some(reset_s) = reset_s.filter(|_| config.reset) {
            push_number(into, reset_s);
        }
        let reset_end = into.len();
        if config.rate_limit {
            push_items(into, buckets, resources, |into, bucket| {
                push_parameter(into, b";q=", Some(bucket.burst.whole_tokens()));
                push_parameter(into, b";w=", bucket.window_s().map(at_most_15_digits));
            });
        }
        let policy_end = into.len();
        if config.rate_limit {
            push_items(into, buckets, resources, |into, bucket| {
                push_parameter(into, b";r=", Some(bucket.remaining.whole_tokens()));
                push_parameter(
                    into,
                    b";t=",
                    bucket.effective_window_s().map(at_most_15_digits),
                );
            });
        }
        self.ends = [limit_end, remaining_end, reset_end, policy_end, into.len()];
    }

    /// The headers that have a value, name and value.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends);
        let values = starts
            .zip(self.ends)
            .map(|(from, to)| self.bytes.get(from..to).unwrap_or_default());
        NAMES
            .into_iter()
            .zip(values)
            .filter(|(_, value)| !value.is_empty())
    }
}

/// `, N;w=S` of each bucket that refills.
fn push_quota_policy(into: &mut Vec<u8>, buckets: &[BucketView]) {
    for bucket in buckets {
        if let Some(window_s) = bucket.window_s() {
            into.extend_from_slice(b", ");
            push_number(into, bucket.burst.whole_tokens());
            push_parameter(into, b";w=", Some(window_s));
        }
    }
}

/// A list with an item for each resource: its name, which a policy keeps free of what would have to be escaped, and parameters. Where a
/// request was charged to several buckets of one resource, they are of the one with least remaining.
fn push_items(
    into: &mut Vec<u8>,
    buckets: &[BucketView],
    resources: &[Resource],
    parameters: impl Fn(&mut Vec<u8>, &BucketView),
) {
    let start = into.len();
    for (index, resource) in resources.iter().enumerate() {
        let of_resource = buckets
            .iter()
            .filter(|bucket| bucket.resource.position() == index);
        let Some(tightest) = of_resource.min_by_key(|bucket| bucket.remaining) else {
            continue;
        };
        if into.len() > start {
            into.extend_from_slice(b", ");
        }
        into.push(b'"');
        into.extend_from_slice(resource.name.as_bytes());
        into.push(b'"');
        parameters(into, tightest);
    }
}

/// The largest integer of structured fields.
fn at_most_15_digits(number: u64) -> u64 {
    number.min(999_999_999_999_999)
}

fn push_parameter(into: &mut Vec<u8>, name: &[u8], value: Option<u64>) {
    if let Some(value) = value {
        into.extend_from_slice(name);
        push_number(into, value);
    }
}

/// Whether any of them is switched on.
pub(crate) fn any(config: &HeadersConfig) -> bool {
    config.limit || config.remaining || config.reset || config.rate_limit
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(us: u64) -> u64 {
    us.div_ceil(US_PER_S)
}

/// Appends a decimal number.
pub(crate) fn push_number(into: &mut Vec<u8>, number: u64) {
    let start = into.len();
    let mut rest = number;
    loop {
        into.push(b'0'.wrapping_add((rest % 10) as u8));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = into.get_mut(start..) {
        digits.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: HeadersConfig = HeadersConfig {
        retry_after: true,
        limit: true,
        quota_policy: true,
        remaining: true,
        reset: true,
        rate_limit: false,
    };

    fn bucket(rate: u64, burst: u64, remaining: u64) -> BucketView {
        BucketView {
            resource: ResourceIndex::new(0).unwrap(),
            burst: Micro::from_tokens(burst),
            rate: Rate::from_tokens_per_s(rate),
            remaining: Micro::from_tokens(remaining),
        }
    }

    fn rendered(buckets: &[BucketView], config: &HeadersConfig) -> Vec<(&'static str, String)> {
        let mut headers = RateHeaders::default();
        let resources = ["requests", "tokens"].map(|name| Resource {
            name: name.to_owned(),
            pool: None,
        });
        headers.render(&[bucket(1, 99_999, 5)], &resources, &ALL);
        headers.render(buckets, &resources, config);
        headers
            .each()
            .map(|(name, value)| (name, String::from_utf8(value.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn one_bucket_is_limit_with_quota_policy_remaining_and_reset() {
        assert_eq!(
            rendered(&[bucket(10, 50, 20)], &ALL),
            [
                (LIMIT, "50, 50;w=5".into()),
                (REMAINING, "20".into()),
                (RESET, "3".into())
            ]
        );
    }

    #[test]
    fn several_buckets_show_the_first_and_the_policies_of_all() {
        assert_eq!(
            rendered(&[bucket(100, 10, 0), bucket(1, 3_600, 3_600)], &ALL),
            [
                (LIMIT, "10, 10;w=1, 3600;w=3600".into()),
                (REMAINING, "0".into()),
                (RESET, "1".into())
            ]
        );
    }

    #[test]
    fn each_header_can_be_switched_off() {
        let off = HeadersConfig {
            limit: false,
            remaining: false,
            reset: false,
            ..ALL
        };
        assert_eq!(rendered(&[bucket(10, 50, 20)], &off), []);
        let plain = HeadersConfig {
            quota_policy: false,
            remaining: false,
            reset: false,
            ..ALL
        };
        assert_eq!(
            rendered(&[bucket(10, 50, 20)], &plain),
            [(LIMIT, "50".into())]
        );
    }

    #[test]
    fn a_bucket_that_never_refills_has_no_window_and_no_reset() {
        assert_eq!(
            rendered(&[bucket(0, 5, 2)], &ALL),
            [(LIMIT, "5".into()), (REMAINING, "2".into())]
        );
        assert_eq!(rendered(&[], &ALL), []);
    }

    #[test]
    fn structured_fields_have_an_item_for_each_resource_and_its_tightest_bucket() {
        let fields = HeadersConfig {
            limit: false,
            remaining: false,
            reset: false,
            rate_limit: true,
            ..ALL
        };
        let tokens = |rate, burst, remaining| BucketView {
            resource: ResourceIndex::new(1).unwrap(),
            ..bucket(rate, burst, remaining)
        };
        let buckets = [
            tokens(0, 9_000, 12),
            bucket(10, 50, 45),
            bucket(10, 100, 20),
        ];
        assert_eq!(
            rendered(&buckets, &fields),
            [
                (POLICY, r#""requests";q=100;w=10, "tokens";q=9000"#.into()),
                (RATE_LIMIT, r#""requests";r=20;t=2, "tokens";r=12"#.into()),
            ]
        );
        assert_eq!(rendered(&[], &fields), []);
        let rate_limit = |bucket| rendered(&[bucket], &fields).remove(1).1;
        assert_eq!(rate_limit(bucket(10, 1_000, 0)), r#""requests";r=0;t=1"#);
        assert_eq!(rate_limit(bucket(10, 50, 50)), r#""requests";r=50;t=5"#);
        let slow = BucketView {
            rate: Rate::new(1),
            ..bucket(0, 1_000_000_000_000, 0)
        };
        assert_eq!(rate_limit(slow), r#""requests";r=0;t=1000000"#);
        let policy = rendered(&[slow], &fields).remove(0).1;
        assert_eq!(policy, r#""requests";q=1000000000000;w=999999999999999"#);
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut bytes = b"x".to_vec();
            push_number(&mut bytes, number);
            assert_eq!(bytes, format!("x{number}").into_bytes());
        }
    }
}
