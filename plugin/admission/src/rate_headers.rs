//! `X-RateLimit-*` as Envoy's own filters render them (draft-polli-ratelimit-headers-03): plain integers, and the quota policy behind the
//! limit as `, N;w=S`.
//!
//! A token bucket has no window. `N` is the burst and `S` the time in which it refills, so `N` per `S` is the rate that the client can
//! count on, and `Reset` is the time until the bucket is full. Both follow from the balance alone: no clock is read.

use forebay_core::amount::{Micro, Rate};
use forebay_core::limits::US_PER_S;
use forebay_wire::config::HeadersConfig;

pub(crate) const LIMIT: &str = "x-ratelimit-limit";
pub(crate) const REMAINING: &str = "x-ratelimit-remaining";
pub(crate) const RESET: &str = "x-ratelimit-reset";
pub(crate) const RETRY_AFTER: &str = "retry-after";

/// What the headers say of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketView {
    /// Depth.
    pub(crate) burst: Micro,
    /// Refill.
    pub(crate) rate: Rate,
    /// A lower bound of what is left.
    pub(crate) remaining: Micro,
}

/// The values of the three headers, in one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateHeaders {
    bytes: Vec<u8>,
    limit_end: usize,
    remaining_end: usize,
    has_reset: bool,
}

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
    /// Renders the headers for the buckets that a request was charged to; the first one is the tightest.
    pub(crate) fn render(&mut self, buckets: &[BucketView], config: &HeadersConfig) {
        self.bytes.clear();
        self.has_reset = false;
        let Some(tightest) = buckets.first() else {
            self.limit_end = 0;
            self.remaining_end = 0;
            return;
        };
        push_number(&mut self.bytes, tightest.burst.whole_tokens());
        if config.quota_policy {
            for bucket in buckets {
                if let Some(window_s) = bucket.window_s() {
                    self.bytes.extend_from_slice(b", ");
                    push_number(&mut self.bytes, bucket.burst.whole_tokens());
                    self.bytes.extend_from_slice(b";w=");
                    push_number(&mut self.bytes, window_s);
                }
            }
        }
        self.limit_end = self.bytes.len();
        push_number(&mut self.bytes, tightest.remaining.whole_tokens());
        self.remaining_end = self.bytes.len();
        if let Some(reset_s) = tightest.reset_s() {
            self.has_reset = true;
            push_number(&mut self.bytes, reset_s);
        }
    }

    /// The headers that are switched on, name and value.
    pub(crate) fn each<'a>(
        &'a self,
        config: &HeadersConfig,
    ) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        let part = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
        [
            (config.limit, LIMIT, part(0, self.limit_end)),
            (
                config.remaining,
                REMAINING,
                part(self.limit_end, self.remaining_end),
            ),
            (
                config.reset && self.has_reset,
                RESET,
                part(self.remaining_end, self.bytes.len()),
            ),
        ]
        .into_iter()
        .filter(|(on, _, value)| *on && !value.is_empty())
        .map(|(_, name, value)| (name, value))
    }
}

/// Whether any of the three is switched on.
pub(crate) fn any(config: &HeadersConfig) -> bool {
    config.limit || config.remaining || config.reset
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
    };

    fn bucket(rate: u64, burst: u64, remaining: u64) -> BucketView {
        BucketView {
            burst: Micro::from_tokens(burst),
            rate: Rate::from_tokens_per_s(rate),
            remaining: Micro::from_tokens(remaining),
        }
    }

    fn rendered(buckets: &[BucketView], config: &HeadersConfig) -> Vec<(&'static str, String)> {
        let mut headers = RateHeaders::default();
        headers.render(&[bucket(1, 99_999, 5)], &ALL);
        headers.render(buckets, config);
        headers
            .each(config)
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
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut bytes = b"x".to_vec();
            push_number(&mut bytes, number);
            assert_eq!(bytes, format!("x{number}").into_bytes());
        }
    }
}
