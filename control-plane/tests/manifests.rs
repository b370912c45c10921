//! The manifests for Istio hold configurations that the plugins take. Istio itself is not run: what it adds is an ordinary filter, and
//! `tests/envoy/tests/forecaster_filter.rs` runs that.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use forebay_wire::config::PluginConfig;
use forebay_wire::forecaster_config::ForecasterConfig;
use serde_json::Value;

/// Each plugin of a manifest: the address of its image, its settings, and what the plugin is configured with.
fn plugins(file: &Path) -> Vec<(String, Value, String)> {
    let text = fs::read_to_string(file).unwrap();
    text.split("\n---\n")
        .map(|document| {
            let document: Value = serde_saphyr::from_str(document).unwrap();
            let spec = &document["spec"];
            let wasm = spec.get("wasm").unwrap_or(spec);
            let url = wasm["url"].as_str().unwrap().to_owned();
            (url, wasm.clone(), wasm["pluginConfig"].to_string())
        })
        .collect()
}

#[test]
fn manifests_hold_what_the_plugins_take() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/istio");
    let (mut admissions, mut forecasters) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        for (url, wasm, config) in plugins(&file) {
            let said = format!("{}, {url}", file.display());
            if url.contains("/admission:") {
                PluginConfig::parse(config.as_bytes())
                    .unwrap_or_else(|error| panic!("{said}: {error}"));
                admissions += 1;
            } else {
                ForecasterConfig::parse(config.as_bytes())
                    .unwrap_or_else(|error| panic!("{said}: {error}"));
                assert_eq!(wasm["failStrategy"], "FAIL_OPEN", "{said}");
                forecasters += 1;
            }
        }
    }
    assert_eq!((admissions, forecasters), (4, 2));
}
