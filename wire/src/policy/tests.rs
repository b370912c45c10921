//! What an operator may write, and what comes of what is left out: apart from the types, which are read far more often.

use super::*;

const MINIMAL: &str = r#"{
  "version": 1,
  "resources": {"requests": {"capacity_per_s": 1000}},
  "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 0.1, "burst": 50}}}},
  "customers": [{"key": "acme", "contract": "gold"}]
}"#;

fn read(text: &str) -> Result<PolicyDocument, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

#[test]
fn reads_decimals_exactly() {
    let document = read(MINIMAL).unwrap();
    let limit = document
        .contracts
        .get("gold")
        .unwrap()
        .limits
        .get("requests")
        .unwrap();
    assert_eq!(limit.rate_per_s.micro(), 100_000);
    assert_eq!(limit.burst.micro(), 50_000_000);
}

#[test]
fn survives_a_round_trip() {
    let document = read(MINIMAL).unwrap();
    let text = serde_json::to_string(&document).unwrap();
    assert_eq!(read(&text).unwrap(), document);
}

#[test]
fn refuses_an_unknown_field_with_its_path() {
    let error = read(&MINIMAL.replace("\"burst\": 50", "\"burst\": 50, \"brust\": 5")).unwrap_err();
    assert!(
        error.starts_with("contracts.gold.limits.requests"),
        "{error}"
    );
    assert!(error.contains("brust"), "{error}");
}

#[test]
fn refuses_a_contract_given_twice() {
    let twice = r#""contracts": {"gold": {"limits": {}}, "gold":"#;
    let error = read(&MINIMAL.replace("\"contracts\": {\"gold\":", twice)).unwrap_err();
    assert!(error.contains("`gold` is given twice"), "{error}");
}

#[test]
fn refuses_numbers_that_cannot_be_tokens() {
    for (written, says) in [
        ("-1", "negative"),
        ("-0.5", "negative"),
        ("1e30", "too large"),
        ("18446744073709551615", "too large"),
        ("0.0000001", "finer than a millionth"),
        ("\"50\"", "a non-negative number of tokens"),
        ("null", "a non-negative number of tokens"),
    ] {
        let error =
            read(&MINIMAL.replace("\"burst\": 50", &format!("\"burst\": {written}"))).unwrap_err();
        assert!(
            error.starts_with("contracts.gold.limits.requests.burst"),
            "{written}: {error}"
        );
        assert!(error.contains(says), "{written}: {error}");
    }
    assert_eq!(Decimal::from_f64(f64::NAN), Err(DecimalError::NotFinite));
    assert_eq!(
        Decimal::from_f64(f64::INFINITY),
        Err(DecimalError::NotFinite)
    );
}

#[test]
fn every_whole_number_of_micro_tokens_is_read_back() {
    for micro in [
        1,
        10,
        999_999,
        1_000_001,
        123_456_789_123_456,
        999_999_999_999_999,
    ] {
        let written = Decimal::from_micro(micro).unwrap();
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(
            serde_json::from_str::<Decimal>(&text).unwrap().micro(),
            micro,
            "{text}"
        );
    }
}
