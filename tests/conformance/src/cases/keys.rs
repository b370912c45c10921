//! Whom a request is charged to.

use serde_json::{Value, json};

use super::STILL;
use crate::case::{Case, Sent, minimal};

pub(super) fn cases() -> Vec<Case> {
    let anonymous = Sent::anonymous();
    let header = |missing: &str| json!({ "header": { "name": "x-customer", "trusted": true, "missing": missing } });
    let claim = |sub: &[u8]| Sent::anonymous().with("x-claim-sub", sub);
    let property = |missing: &str| json!({ "property": { "path": ["metadata", "filter_metadata", "claims", "sub"], "missing": missing } });
    let address = |bits: u8| json!({ "source_address": { "prefix_len_v4": bits } });
    vec![
        Case::new("a request without a key is denied", &keyed(&header("deny"))).denies(&anonymous),
        Case::new(
            "a request without a key can be let through",
            &keyed(&header("skip")),
        )
        .admits(3, &anonymous),
        Case::new(
            "a constant key is one customer",
            &keyed(&json!({ "constant": "a" })),
        )
        .admits(1, &anonymous)
        .admits(1, &Sent::by("b"))
        .denies(&Sent::by("c")),
        Case::new(
            "a claim of a verified token is a key",
            &keyed(&property("deny")),
        )
        .admits(2, &claim(b"a"))
        .denies(&claim(b"a"))
        .admits(2, &claim(b"b"))
        .denies(&anonymous),
        Case::new(
            "a request without the claim can be let through",
            &keyed(&property("skip")),
        )
        .admits(3, &anonymous)
        .admits(2, &claim(b"a"))
        .denies(&claim(b"a")),
        Case::new(
            "each address is a customer",
            &for_unknown(&keyed(&address(32))),
        )
        .admits(2, &anonymous.clone().from(2))
        .denies(&anonymous.clone().from(2))
        .admits(2, &anonymous.clone().from(3))
        .denies(&anonymous.clone().from(3)),
        Case::new(
            "addresses of one network are one customer",
            &for_unknown(&keyed(&address(24))),
        )
        .admits(1, &anonymous.clone().from(2))
        .admits(1, &anonymous.clone().from(3))
        .denies(&anonymous.clone().from(4)),
        Case::new(
            "a key that is not UTF-8 is a key",
            &for_unknown(&keyed(&header("deny"))),
        )
        .admits(2, &anonymous.clone().with("x-customer", b"\xff\xfe\xfd"))
        .denies(&anonymous.clone().with("x-customer", b"\xff\xfe\xfd"))
        .admits(2, &anonymous.clone().with("x-customer", b"\xff\xfe\xfc")),
        Case::new(
            "a key is compared with its case",
            &for_unknown(&keyed(&header("deny"))),
        )
        .admits(2, &Sent::by("x"))
        .denies(&Sent::by("x"))
        .admits(2, &Sent::by("X")),
        Case::new(
            "a key longer than any real one is denied",
            &for_unknown(&keyed(&header("deny"))),
        )
        .denies(&anonymous.clone().with("x-customer", &[b'k'; 9_000])),
    ]
}

fn keyed(key: &Value) -> Value {
    let mut config = minimal(STILL, 2.0);
    config["rules"][0]["key"] = key.clone();
    config
}

fn for_unknown(config: &Value) -> Value {
    let mut config = config.clone();
    config["policy"]["unknown"] = json!({ "action": "default_contract", "contract": "standard" });
    config
}
