//! `envoy.service.ratelimit.v3`: one question per request, for those who run Envoy's `ratelimit` filter today.
//!
//! A descriptor charges the customer that its entry `customer` names, for the resource that its entry `resource` names (without one
//! `requests`, or the only one of the policy), with `hits_addend` tokens (1 if nothing is said). Other entries are not looked at, and a descriptor without
//! `customer` is not limited. All descriptors of a request are charged or none: a request that one of them stops costs the
//! others nothing.
//!
//! What a client can choose is never answered by an error, because Envoy lets requests pass by default when the service fails:
//! a key that is too long belongs to nobody and is over its limit.

use crate::asked::{Descriptor, Question};
use crate::desk::{Charge, Desk, NotReady, Outcome, Ruling};
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::RateLimitResponse;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use envoy_types::pb::google::protobuf::Duration;
use forebay_core::Micro;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_core::verdict::Verdict;
use forebay_wire::key::MAX_KEY_BYTES;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Status;

/// Entry of a descriptor that names the customer.
pub(crate) const CUSTOMER: &str = "customer";

/// Entry of a descriptor that names the resource.
pub(crate) const RESOURCE: &str = "resource";

/// Descriptors of one request.
const MAX_DESCRIPTORS: usize = 16;

/// No question is for more than this: the sums that gateways report must stay sums.
const TOKENS_MOST: u64 = 1_000_000_000;

const US_PER_S: u64 = 1_000_000;

/// Units of a limit, in seconds, the shortest first.
const UNITS: [(Unit, u64); 4] = [
    (Unit::Second, 1),
    (Unit::Minute, 60),
    (Unit::Hour, 3_600),
    (Unit::Day, 86_400),
];

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Rls {
    desk: Arc<Mutex<Desk>>,
}

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    /// Nobody is charged.
    Nothing,
    /// Nobody can be charged.
    Nobody,
    /// A charge.
    Charge {
        key: &'a [u8],
        resource: Option<&'a str>,
        tokens: u64,
    },
}

// === impl Rls ===

impl Rls {
    pub(crate) fn new(desk: Arc<Mutex<Desk>>) -> Self {
        Self { desk }
    }

    pub(crate) fn answer(&self, request: &Question) -> Result<RateLimitResponse, Status> {
        if request.descriptors.len() > MAX_DESCRIPTORS {
            let found = request.descriptors.len();
            return Err(Status::invalid_argument(format!(
                "{found} descriptors; a request is charged by {MAX_DESCRIPTORS} at most"
            )));
        }
        let usual = u64::from(request.hits_addend.max(1));
        let asked: Vec<Asked<'_>> = request
            .descriptors
            .iter()
            .map(|descriptor| read(descriptor, usual))
            .collect::<Result<_, _>>()?;
        let charges: Vec<Charge<'_>> = asked
            .iter()
            .filter_map(|asked| match *asked {
                Asked::Charge {
                    key,
                    resource,
                    tokens,
                } => Some(Charge {
                    key,
                    resource,
                    amount: Micro::from_tokens(tokens),
                }),
                Asked::Nothing | Asked::Nobody => None,
            })
            .collect();
        let has_nobody = asked.iter().any(|asked| matches!(asked, Asked::Nobody));
        let outcome = {
            let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            desk.decide(&charges, !has_nobody)
        };
        let outcome = outcome.map_err(refusal)?;
        Ok(respond(&asked, &outcome))
    }
}

fn refusal(error: NotReady) -> Status {
    match error {
        NotReady::NoPolicy | NotReady::Ledger(_) => Status::unavailable(error.to_string()),
        NotReady::NoResource(_) => Status::invalid_argument(error.to_string()),
    }
}

/// What a descriptor asks for. Only what the operator has configured can be an error.
fn read(descriptor: &Descriptor, usual: u64) -> Result<Asked<'_>, Status> {
    let one = |name: &str| {
        let mut values = descriptor
            .entries
            .iter()
            .filter(|entry| entry.key == name.as_bytes());
        let first = values.next().map(|entry| entry.value.as_slice());
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Status::invalid_argument(format!(
                "a descriptor has two entries `{name}`; each names one"
            ))),
        }
    };
    let Some(key) = one(CUSTOMER)? else {
        return Ok(Asked::Nothing);
    };
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Ok(Asked::Nobody);
    }
    let resource = one(RESOURCE)?.map(str::from_utf8).transpose();
    let resource =
        resource.map_err(|_| Status::invalid_argument("the name of a resource is not UTF-8"))?;
    let hits = descriptor.hits_addend.map_or(usual, |hits| hits.value);
    let hits = hits.min(TOKENS_MOST);
    Ok(Asked::Charge {
        key,
        resource,
        // Nothing is given back by a question.
        tokens: if descriptor.is_negative_hits { 0 } else { hits },
    })
}

fn respond(asked: &[Asked<'_>], outcome: &Outcome) -> RateLimitResponse {
    let mut rulings = outcome.rulings.iter();
    let mut retry_at: Option<TimeUs> = None;
    let mut is_over = false;
    let statuses = asked
        .iter()
        .map(|asked| {
            let status = match asked {
                Asked::Nothing => DescriptorStatus {
                    code: Code::Ok.into(),
                    ..DescriptorStatus::default()
                },
                Asked::Nobody => DescriptorStatus {
                    code: code(outcome.dry_run).into(),
                    ..DescriptorStatus::default()
                },
                Asked::Charge { .. } => {
                    let Some(ruling) = rulings.next() else {
                        return DescriptorStatus::default();
                    };
                    if let Verdict::Denied(denial) = ruling.verdict {
                        retry_at = retry_at.max(Some(denial.retry_at));
                    }
                    status(ruling, outcome)
                }
            };
            is_over |= status.code == i32::from(Code::OverLimit);
            status
        })
        .collect();
    let overall = if is_over { Code::OverLimit } else { Code::Ok };
    let wait = retry_at.filter(|at| is_over && *at != TimeUs::NEVER);
    RateLimitResponse {
        overall_code: overall.into(),
        statuses,
        response_headers_to_add: wait
            .map(|at| HeaderValue {
                key: "retry-after".to_owned(),
                value: at.since(outcome.at).div_ceil(US_PER_S).max(1).to_string(),
                ..HeaderValue::default()
            })
            .into_iter()
            .collect(),
        ..RateLimitResponse::default()
    }
}

/// What is denied, unless the policy only counts.
fn code(dry_run: bool) -> Code {
    if dry_run { Code::Ok } else { Code::OverLimit }
}

fn status(ruling: &Ruling, outcome: &Outcome) -> DescriptorStatus {
    let code = if ruling.verdict.is_admitted() {
        Code::Ok
    } else {
        code(outcome.dry_run)
    };
    let reset_us = match (ruling.verdict, &ruling.limits) {
        (Verdict::Denied(denial), _) if denial.retry_at != TimeUs::NEVER => {
            Some(denial.retry_at.since(outcome.at))
        }
        (Verdict::Denied(_), _) | (_, None) => None,
        (_, Some(limits)) => us_until_full(limits, ruling.remaining),
    };
    let remaining = ruling.remaining.whole_tokens();
    DescriptorStatus {
        code: code.into(),
        current_limit: ruling.limits.as_ref().map(limit),
        limit_remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        duration_until_reset: reset_us.map(|us| Duration {
            seconds: i64::try_from(us / US_PER_S).unwrap_or(i64::MAX),
            nanos: i32::try_from(us % US_PER_S * 1_000).unwrap_or(0),
        }),
        ..DescriptorStatus::default()
    }
}

fn us_until_full(limits: &Limits, remaining: Micro) -> Option<u64> {
    let missing = limits.burst.minus(remaining).at_least_zero();
    let missing = u128::from(missing.get().unsigned_abs()).checked_mul(u128::from(US_PER_S))?;
    let us = missing.checked_div(u128::from(limits.rate.get()))?;
    u64::try_from(us).ok()
}

/// The rate, in the shortest unit in which it is a whole number, as near as millionths of a token per second can say: 20 a minute is
/// written 0.333333. If there is none, rounded down in days.
fn limit(limits: &Limits) -> RateLimit {
    let in_unit = |seconds: u64| u128::from(limits.rate.get()) * u128::from(seconds);
    let whole = UNITS.into_iter().find_map(|(unit, seconds)| {
        let exact = in_unit(seconds);
        let whole = (exact + u128::from(US_PER_S / 2)) / u128::from(US_PER_S);
        // The nearest millionth is off by half a one at most.
        let is_meant = (whole * u128::from(US_PER_S)).abs_diff(exact) * 2 <= u128::from(seconds);
        (is_meant && (whole > 0 || exact == 0)).then_some((unit, whole))
    });
    let in_days = || (Unit::Day, in_unit(86_400) / u128::from(US_PER_S));
    let (unit, requests) = whole.unwrap_or_else(in_days);
    RateLimit {
        name: String::new(),
        requests_per_unit: u32::try_from(requests).unwrap_or(u32::MAX),
        unit: unit.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_core::Rate;

    #[test]
    fn a_rate_is_told_in_the_unit_that_it_is_meant_in() {
        let cases = [
            // Micro-tokens per second.
            (50_000_000, 50, Unit::Second),
            (333_333, 20, Unit::Minute),
            (333_334, 28_800, Unit::Day),
            (2_778, 10, Unit::Hour),
            (231, 20, Unit::Day),
            (1_000, 86, Unit::Day),
            (1, 0, Unit::Day),
            (0, 0, Unit::Second),
        ];
        for (rate, requests, unit) in cases {
            let limits = Limits {
                rate: Rate::new(rate),
                ..Limits::default()
            };
            let found = limit(&limits);
            let found = (found.requests_per_unit, found.unit());
            assert_eq!(found, (requests, unit), "{rate}");
        }
    }
}
