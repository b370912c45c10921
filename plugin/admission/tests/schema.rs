//! The JSON Schema that is shipped is the one of the code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed step must stop the test

use std::path::Path;

use forebay_wire::config::PluginConfig;

/// With this set, the file is written instead of compared.
const UPDATE: &str = "FOREBAY_UPDATE";

#[test]
fn the_schema_in_the_reference_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference/plugin-config.schema.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(PluginConfig)).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema,
        "{} is not what the code says; write it anew: {UPDATE}=1 cargo test -p forebay-admission --test schema",
        path.display()
    );
}

/// The plugin reads with readers of its own, tools with those that serde derives. Both must agree on what a document means.
#[test]
fn the_plugin_and_serde_read_the_same() {
    let document = r#"{
        "version": 1,
        "rules": [
            {"name": "a", "match": {"path_prefix": "/a", "methods": ["GET"], "headers": [{"name": "h", "exact": "x"}, {"name": "i", "prefix": "y"}, {"name": "j", "present": false}]},
             "key": {"header": {"name": "k", "trusted": true, "missing": "skip"}},
             "charges": [{"resource": "r", "cost": {"constant": 0.25}}, {"resource": "s", "cost": {"header": {"name": "c", "trusted": true, "default": 3, "max": 7.5}}}]},
            {"name": "b", "key": {"property": {"path": ["x", "y"], "missing": "deny"}}, "charges": [{"resource": "r", "cost": {"settle": {"estimate": 1, "response_header": "u", "max": 9}}}]},
            {"name": "c", "key": {"source_address": {"prefix_len_v4": 24, "prefix_len_v6": 56}}, "charges": [{"resource": "r"}]},
            {"name": "d", "key": {"constant": "all"}, "charges": [{"resource": "r"}]}
        ],
        "headers": {"retry_after": false, "limit": true, "quota_policy": false, "remaining": true, "reset": true},
        "denial": {"status": 503, "body": "no", "content_type": "", "grpc_status": 14},
        "access_log": {"verdict": true, "customer": true},
        "policy": {
            "version": 1, "dry_run": true,
            "unknown": {"action": "commons", "contract": "g", "prefix_len_v4": 16, "prefix_len_v6": 48},
            "resources": {"r": {"capacity_per_s": 1000.5, "depth_ms": 500}, "s": {}},
            "shadow": {"enabled": false, "quantile": 0.95, "span_ms": 300, "depth_factor": 3, "protected_share": 0.4,
                "contention": {"window_ms": 500, "needed": 2, "windows": 3}},
            "contracts": {"g": {"tier": 2, "priority": 3, "weight": 4, "limits": {
                "r": {"rate_per_s": 10, "burst": 20, "guarantee_per_s": 1.5, "ceiling_per_s": 30, "debt_limit": 2, "borrow_limit": 5},
                "s": {"rate_per_s": 0.000001, "burst": 1000000}}}},
            "customers": [{"key": "x", "contract": "g", "banned": true, "exempt": true, "frozen": true},
                {"key": "y", "contract": "g", "ban_until_unix_s": 1800000000}]
        },
        "ledger": {"max_policy_customers": 5, "max_other_customers": 6}
    }"#;
    let waiting = r#"{"version": 1, "rules": [{"name": "d", "key": {"constant": "all"}, "charges": [{"resource": "r"}]}],
        "control_plane": {"cold_start": {"shared": {"rate_per_s": 1e2, "burst": 5}}}}"#;
    for document in [document, waiting] {
        let ours = PluginConfig::parse(document.as_bytes()).unwrap();
        let theirs: PluginConfig = serde_json::from_str(document).unwrap();
        assert_eq!(ours, theirs);
        // Every field of the schema occurs above, so that a reader that forgets one is found here.
        let written = serde_json::to_string(&theirs).unwrap();
        assert_eq!(PluginConfig::parse(written.as_bytes()).unwrap(), theirs);
    }
}
