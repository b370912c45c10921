//! The forecaster as Envoy's bootstrap has it: one per process, on the main thread.

use anyhow::Result;
use forebay_envoy_tests::artefact;
use serde_json::{Value, json};

/// The bootstrap extension with this plugin configuration.
pub(crate) fn extension(config: &Value) -> Result<Value> {
    Ok(json!({
        "name": "envoy.bootstrap.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
            "singleton": true,
            "config": {
                "name": "forebay-forecaster",
                "vm_config": {
                    "vm_id": "forebay",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": artefact("forecaster")? } },
                    "environment_variables": { "host_env_keys": ["FOREBAY_GATEWAY_TOKEN"] },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": config.to_string(),
                },
            },
        },
    }))
}

/// A forecaster that synchronises with nobody.
pub(crate) fn stand_alone() -> Value {
    json!({ "version": 1 })
}
