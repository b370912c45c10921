//! Truth tables of one standard bucket.

use super::STILL;
use crate::case::{Case, Expected, Sent, minimal};

/// Half a token a second: a second of delay changes no answer.
const SLOW: f64 = 0.5;

pub(super) fn cases() -> Vec<Case> {
    let a = Sent::by("a");
    let b = Sent::by("b");
    vec![
        Case::new("a burst of one admits one", &minimal(STILL, 1.0))
            .admits(1, &a)
            .denies(&a)
            .denies(&a),
        Case::new("a burst of five admits five", &minimal(STILL, 5.0))
            .admits(5, &a)
            .denies(&a),
        Case::new("customers do not share a bucket", &minimal(STILL, 2.0))
            .admits(2, &a)
            .denies(&a)
            .admits(2, &b)
            .denies(&b)
            .denies(&a),
        Case::new(
            "customers interleave without disturbing each other",
            &minimal(STILL, 2.0),
        )
        .admits(1, &a)
        .admits(1, &b)
        .admits(1, &a)
        .admits(1, &b)
        .denies(&a)
        .denies(&b),
        Case::new("tokens come back with time", &minimal(SLOW, 1.0))
            .admits(1, &a)
            .denies(&a)
            .step_at(3_000, a.clone(), Expected::ok())
            .denies(&a),
        Case::new(
            "a bucket fills to its burst and no further",
            &minimal(SLOW, 2.0),
        )
        .admits(2, &a)
        .denies(&a)
        .step_at(8_000, a.clone(), Expected::ok())
        .admits(1, &a)
        .denies(&a),
        Case::new("a part of a token is not a token", &minimal(0.1, 1.5))
            .admits(1, &a)
            .denies(&a),
        Case::new("half tokens add up", &minimal(0.3, 1.5))
            .admits(1, &a)
            .denies(&a)
            .step_at(3_000, a.clone(), Expected::ok())
            .denies(&a),
        Case::new("a denial takes nothing", &minimal(SLOW, 1.0))
            .admits(1, &a)
            .denies(&a)
            .denies(&a)
            .denies(&a)
            .denies(&a)
            .step_at(3_000, a.clone(), Expected::ok()),
        Case::new("a rate of zero never refills", &minimal(0.0, 1.0))
            .admits(1, &a)
            .denies(&a)
            .step_at(3_000, a.clone(), Expected::denied()),
        Case::new("a large burst is counted exactly", &minimal(STILL, 40.0))
            .admits(40, &a)
            .denies(&a),
    ]
}
