//! The plugin configuration: what is accepted, and that every mistake is refused with its place.

use forebay_wire::config::{ColdStart, CostConfig, KeyConfig, MissingKey, PluginConfig};

/// A configuration that is accepted, to be spoilt.
const GOOD: &str = r#"{
  "version": 1,
  "rules": [{
    "name": "api",
    "match": {"path_prefix": "/v1/", "methods": ["GET"], "headers": [{"name": "x-kind", "exact": "a"}]},
    "key": {"header": {"name": "x-api-key", "trusted": true}},
    "charges": [
      {"resource": "requests"},
      {"resource": "llm_tokens", "cost": {"settle": {"estimate": 10, "response_header": "x-used", "max": 100}}},
      {"resource": "bytes", "cost": {"header": {"name": "x-bytes", "trusted": true, "default": 0.5, "max": 7}}}
    ]
  }],
  "control_plane": {}
}"#;

#[test]
fn a_good_configuration_is_read_with_its_defaults() {
    let config = PluginConfig::parse(GOOD.as_bytes()).unwrap();
    assert!(config.headers.retry_after && config.headers.quota_policy && !config.headers.limit);
    assert_eq!((config.denial.status, config.denial.grpc_status), (429, 8));
    assert_eq!(config.control_plane.unwrap().cold_start, ColdStart::Deny);
    let rule = &config.rules[0];
    let KeyConfig::Header(key) = &rule.key else {
        panic!("{:?}", rule.key)
    };
    assert_eq!(key.missing, MissingKey::Deny);
    let CostConfig::Constant(one) = &rule.charges[0].cost else {
        panic!("{:?}", rule.charges)
    };
    assert_eq!(one.micro(), 1_000_000);
}

#[test]
fn what_is_written_is_what_was_read() {
    let config = PluginConfig::parse(GOOD.as_bytes()).unwrap();
    let written = serde_json::to_vec(&config).unwrap();
    assert_eq!(PluginConfig::parse(&written).unwrap(), config);
}

/// Each row spoils the good configuration (`from` becomes `to`) and names the path and a part of the message.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    // What the types refuse.
    (r#""version": 1,"#, "", ".", "missing field `version`"),
    (
        r#""version": 1"#,
        r#""version": "1""#,
        "version",
        "invalid type",
    ),
    (
        r#""version": 1"#,
        r#""version": 1, "colour": 2"#,
        "colour",
        "unknown field `colour`",
    ),
    (r#""name": "api","#, "", "rules[0]", "missing field `name`"),
    (
        r#""name": "api""#,
        r#""name": 7"#,
        "rules[0].name",
        "expected a string, found a number",
    ),
    (
        r#""name": "api""#,
        r#""name": "api", "name": "b""#,
        "rules[0].name",
        "duplicate field",
    ),
    (
        r#""methods": ["GET"]"#,
        r#""methods": ["GET", 3]"#,
        "rules[0].match.methods[1]",
        "invalid type",
    ),
    (
        r#""exact": "a""#,
        r#""exakt": "a""#,
        "rules[0].match.headers[0].exakt",
        "unknown field",
    ),
    (
        r#"{"header": {"name": "x-api-key""#,
        r#"{"heder": {"name": "x-api-key""#,
        "rules[0].key.heder",
        "unknown variant `heder`",
    ),
    (
        r#""estimate": 10"#,
        r#""estimate": -1"#,
        "rules[0].charges[1].cost.settle.estimate",
        "must not be negative",
    ),
    (
        r#""estimate": 10"#,
        r#""estimate": 1e300"#,
        "rules[0].charges[1].cost.settle.estimate",
        "too large",
    ),
    (
        r#""estimate": 10"#,
        r#""estimate": 0.0000001"#,
        "rules[0].charges[1].cost.settle.estimate",
        "finer than a millionth",
    ),
    (
        r#", "max": 100"#,
        "",
        "rules[0].charges[1].cost.settle",
        "missing field `max`",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {"cold_start": "open"}"#,
        "control_plane.cold_start.open",
        "unknown variant",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "denial": {"status": -5}"#,
        "denial.status",
        "whole number from 0 to 65535",
    ),
    (
        r#""control_plane": {}"#,
        r#""policy": {"version": 1, "resources": {"requests": {}}, "contracts": {"a": {"limits": {"requests": {"rate_per_s": "x"}}}}}"#,
        "policy.contracts.a.limits.requests.rate_per_s",
        "",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}} trailing"#,
        ".",
        "more text follows",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": "#,
        "control_plane",
        "expected a JSON value",
    ),
    // What only the values show.
    (
        r#""version": 1"#,
        r#""version": 2"#,
        "version",
        "reads version 1",
    ),
    (
        r#""name": "api""#,
        r#""name": "A_b""#,
        "rules[0].name",
        "lower-case letters",
    ),
    (
        r#""name": "api""#,
        r#""name": """#,
        "rules[0].name",
        "lower-case letters",
    ),
    (
        r#""path_prefix": "/v1/""#,
        r#""path_prefix": "v1""#,
        "rules[0].match.path_prefix",
        "start with a slash",
    ),
    (
        r#"["GET"]"#,
        r#"["get"]"#,
        "rules[0].match.methods[0]",
        "capital letters",
    ),
    (
        r#""exact": "a""#,
        r#""exact": "a", "present": true"#,
        "rules[0].match.headers[0]",
        "exactly one",
    ),
    (
        r#", "exact": "a""#,
        "",
        "rules[0].match.headers[0]",
        "exactly one",
    ),
    (
        r#""name": "x-kind""#,
        r#""name": "X-Kind""#,
        "rules[0].match.headers[0].name",
        "lower case",
    ),
    (
        r#""name": "x-api-key", "trusted": true"#,
        r#""name": "x-api-key""#,
        "rules[0].key.header.trusted",
        "must be true",
    ),
    (
        r#""name": "x-api-key""#,
        r#""name": "x api""#,
        "rules[0].key.header.name",
        "no header name",
    ),
    (
        r#"{"header": {"name": "x-api-key", "trusted": true}}"#,
        r#"{"source_address": {"prefix_len_v4": 33}}"#,
        "rules[0].key.source_address.prefix_len_v4",
        "1 to 32",
    ),
    (
        r#"{"header": {"name": "x-api-key", "trusted": true}}"#,
        r#"{"source_address": {"prefix_len_v6": 0}}"#,
        "rules[0].key.source_address.prefix_len_v6",
        "1 to 128",
    ),
    (
        r#"{"header": {"name": "x-api-key", "trusted": true}}"#,
        r#"{"property": {"path": []}}"#,
        "rules[0].key.property.path",
        "1 to 16 parts",
    ),
    (
        r#"{"header": {"name": "x-api-key", "trusted": true}}"#,
        r#"{"property": {"path": ["a", ""]}}"#,
        "rules[0].key.property.path[1]",
        "at least one character",
    ),
    (
        r#"{"header": {"name": "x-api-key", "trusted": true}}"#,
        r#"{"constant": ""}"#,
        "rules[0].key.constant",
        "1 to 1024",
    ),
    (
        r#""resource": "llm_tokens""#,
        r#""resource": "requests""#,
        "rules[0].charges[1].resource",
        "charged twice",
    ),
    (
        r#""resource": "llm_tokens""#,
        r#""resource": """#,
        "rules[0].charges[1].resource",
        "name a resource",
    ),
    (
        r#""estimate": 10"#,
        r#""estimate": 101"#,
        "rules[0].charges[1].cost.settle.estimate",
        "above max",
    ),
    (
        r#""max": 100"#,
        r#""max": 2000000000"#,
        "rules[0].charges[1].cost.settle.max",
        "at most 1000000000",
    ),
    (
        r#""name": "x-bytes", "trusted": true"#,
        r#""name": "x-bytes", "trusted": false"#,
        "rules[0].charges[2].cost.header.trusted",
        "must be true",
    ),
    (
        r#""default": 0.5"#,
        r#""default": 8"#,
        "rules[0].charges[2].cost.header.default",
        "above max",
    ),
    (
        r#","control_plane": {}"#,
        "",
        ".",
        "neither policy nor control_plane",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "policy": {"version": 1, "resources": {}, "contracts": {}}"#,
        "control_plane",
        "policy is given as well",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "denial": {"status": 200}"#,
        "denial.status",
        "400 to 599",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "denial": {"grpc_status": 0}"#,
        "denial.grpc_status",
        "1 to 16",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "denial": {"content_type": "a\nb"}"#,
        "denial.content_type",
        "printable",
    ),
    (
        r#""control_plane": {}"#,
        r#""control_plane": {}, "ledger": {"max_policy_customers": 0}"#,
        "ledger.max_policy_customers",
        "1 to",
    ),
];

#[test]
fn every_mistake_is_refused_with_its_place() {
    // Without the line break in front of it, so that one row can take it away together with the comma.
    let good = GOOD
        .replace("],\n  \"control_plane\"", "],\"control_plane\"")
        .replace("}],\"control", "}]\n,\"control");
    assert!(PluginConfig::parse(good.as_bytes()).is_ok());
    for (from, to, path, message) in MISTAKES {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "nothing to spoil: {from}");
        match PluginConfig::parse(bad.as_bytes()) {
            Ok(_) => panic!("accepted: {from} -> {to}"),
            Err(error) => {
                assert_eq!(error.path, *path, "{from} -> {to}: {error}");
                assert!(error.message.contains(message), "{from} -> {to}: {error}");
            }
        }
    }
}

#[test]
fn rules_are_bounded_and_named_apart() {
    let rule = |name: &str| {
        format!(
            r#"{{"name": "{name}", "key": {{"constant": "k"}}, "charges": [{{"resource": "r"}}]}}"#
        )
    };
    let with = |rules: &[String]| {
        format!(
            r#"{{"version": 1, "rules": [{}], "control_plane": {{}}}}"#,
            rules.join(",")
        )
    };
    let error = PluginConfig::parse(with(&[rule("a"), rule("a")]).as_bytes()).unwrap_err();
    assert_eq!(error.path, "rules[1].name");
    let many: Vec<String> = (0..33).map(|index| rule(&format!("r{index}"))).collect();
    assert_eq!(
        PluginConfig::parse(with(&many).as_bytes())
            .unwrap_err()
            .path,
        "rules"
    );
    assert_eq!(
        PluginConfig::parse(with(&[]).as_bytes()).unwrap_err().path,
        "rules"
    );
}

#[test]
fn nothing_at_all_is_refused_in_words() {
    for nothing in ["", "  \n", "null", "\u{feff}{}"] {
        let error = PluginConfig::parse(nothing.as_bytes()).unwrap_err();
        assert!(
            !error.message.is_empty() && error.path == ".",
            "{nothing:?}: {error}"
        );
    }
    assert!(PluginConfig::parse(b"\xff\xfe").is_err());
}
