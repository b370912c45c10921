//! What is admitted before the control plane has answered for the first time.
//!
//! One bucket for all customers together, per resource, in shared data: no contract is known yet, and a bucket for each customer would
//! admit as much as somebody invents customers. No chunks are drawn from it; a gateway is in this state for a moment, and each request
//! paying for an exchange is simpler than a second kind of chunk.

use forebay_core::amount::{Micro, Rate};
use forebay_core::bucket::Bucket;
use forebay_core::chunk::Amounts;
use forebay_core::error::CoreError;
use forebay_core::ledger::{SetError, SharedData};
use forebay_core::limits::{MAX_CAS_ATTEMPTS, MAX_RESOURCES};
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::time::TimeUs;
use forebay_core::verdict::{Denial, Reason, Verdict};
use forebay_wire::config::ColdStart;

/// The value is a version, the time of the last refill, and level and carry of each bucket.
const KEY: &str = "fb/1/cold_start";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
const BUCKET_BYTES: usize = 12;

/// A client should come back after this time: a control plane that can be reached answers much sooner.
const RETRY_US: u64 = 1_000_000;

/// The rule until the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColdStartRule {
    Deny,
    Shared { rate: Rate, burst: Micro },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buckets {
    at: TimeUs,
    buckets: PerResource<Bucket>,
}

// === impl ColdStartRule ===

impl ColdStartRule {
    pub(crate) fn compile(config: &ColdStart) -> Self {
        match config {
            ColdStart::Deny => Self::Deny,
            ColdStart::Shared(shared) => Self::Shared {
                rate: Rate::new(shared.rate_per_s.micro().unsigned_abs()),
                burst: Micro::new(shared.burst.micro()),
            },
        }
    }

    /// Fills the buckets, unless they are there. Called at configure time only: whoever creates them on the way of a request could create
    /// them a second time, since a compare-and-swap on a missing key always succeeds.
    pub(crate) fn seed(self, data: &mut impl SharedData, now: TimeUs) -> Result<(), CoreError> {
        let Self::Shared { burst, .. } = self else {
            return Ok(());
        };
        if data.get(KEY, &mut Vec::new())?.is_some() {
            return Ok(());
        }
        let full = Buckets {
            at: now,
            buckets: PerResource::all(Bucket::full(burst)),
        };
        match data.set(KEY, &full.encode(), None) {
            Ok(()) | Err(SetError::CasMismatch) => Ok(()),
            Err(SetError::Host(error)) => Err(error),
        }
    }

    /// Decides a request. On an error nothing was taken.
    pub(crate) fn decide(
        self,
        data: &mut impl SharedData,
        cost: &Amounts,
        now: TimeUs,
    ) -> Result<Verdict, CoreError> {
        let Self::Shared { rate, burst } = self else {
            return Ok(Verdict::Denied(Denial {
                reason: Reason::Unknown,
                resource: ResourceIndex::FIRST,
                retry_at: now.plus_us(RETRY_US),
            }));
        };
        let mut bytes = Vec::new();
        for _ in 0..MAX_CAS_ATTEMPTS {
            let cas = data.get(KEY, &mut bytes)?;
            let found = cas.and_then(|_| Buckets::decode(&bytes));
            let mut buckets = found.unwrap_or(Buckets {
                at: now,
                buckets: PerResource::default(),
            });
            buckets.refill(rate, burst, now);
            let verdict = buckets.take(cost, rate, burst, now);
            match data.set(KEY, &buckets.encode(), cas) {
                Ok(()) => return Ok(verdict),
                Err(SetError::CasMismatch) => {}
                Err(SetError::Host(error)) => return Err(error),
            }
        }
        Err(CoreError::Contended {
            key: KEY.to_owned(),
            attempts: MAX_CAS_ATTEMPTS,
        })
    }
}

// === impl Buckets ===

impl Buckets {
    fn refill(&mut self, rate: Rate, burst: Micro, now: TimeUs) {
        let now = now.max(self.at);
        let dt_us = now.since(self.at);
        for bucket in self.buckets.iter_mut() {
            bucket.refill(rate, burst, dt_us);
        }
        self.at = now;
    }

    fn take(&mut self, cost: &Amounts, rate: Rate, burst: Micro, now: TimeUs) -> Verdict {
        for resource in ResourceIndex::first(MAX_RESOURCES) {
            let (bucket, cost) = (self.buckets.at(resource), *cost.at(resource));
            if cost > Micro::ZERO && bucket.level < cost {
                let retry_at = bucket
                    .us_until(cost, rate, burst)
                    .map_or(TimeUs::NEVER, |us| now.plus_us(us));
                return Verdict::Denied(Denial {
                    reason: Reason::Contract,
                    resource,
                    retry_at,
                });
            }
        }
        for (bucket, cost) in self.buckets.iter_mut().zip(cost.iter()) {
            bucket.take(cost.at_least_zero());
        }
        Verdict::Standard
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.at.0.to_le_bytes());
        for bucket in self.buckets.iter() {
            bytes.extend_from_slice(&bucket.level.get().to_le_bytes());
            bytes.extend_from_slice(&bucket.carry.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let (version, at) = header.split_first()?;
        if *version != VERSION || rest.len() != BUCKET_BYTES.checked_mul(MAX_RESOURCES)? {
            return None;
        }
        let mut buckets = PerResource::<Bucket>::default();
        for (bucket, bytes) in buckets.iter_mut().zip(rest.chunks_exact(BUCKET_BYTES)) {
            let (level, carry) = bytes.split_at_checked(8)?;
            bucket.level = Micro::new(i64::from_le_bytes(level.try_into().ok()?));
            bucket.carry = u32::from_le_bytes(carry.try_into().ok()?);
        }
        Some(Self {
            at: TimeUs(u64::from_le_bytes(at.try_into().ok()?)),
            buckets,
        })
    }
}
