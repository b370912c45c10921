//! Where the real programs are that the demo runs. A missing one is an error that says which command makes it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Everything the demo needs from the checkout and its target folder.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Envoy, as `make setup` installs it.
    pub envoy: PathBuf,
    /// The control plane.
    pub forebay: PathBuf,
    /// The admission filter as shipped.
    pub admission: PathBuf,
    /// The forecaster as shipped.
    pub forecaster: PathBuf,
    /// The committed model.
    pub model: PathBuf,
    /// Where each run keeps its logs and its store.
    pub work: PathBuf,
    /// Where the report goes.
    pub report: PathBuf,
    /// Folder with real traces, if there is one.
    pub data: Option<PathBuf>,
}

impl Places {
    /// Looks for everything; `FOREBAY_ENVOY` names another Envoy and `FOREBAY_DATA` the folder with traces.
    pub(crate) fn find() -> Result<Self> {
        let (root, target) = (root(), target());
        let envoy = std::env::var_os("FOREBAY_ENVOY")
            .map_or_else(|| root.join(".tools/bin/envoy"), PathBuf::from);
        let data = std::env::var_os("FOREBAY_DATA").map(PathBuf::from);
        Ok(Self {
            envoy: existing(envoy, "make setup")?,
            forebay: existing(
                target.join("debug/forebay"),
                "cargo build -p forebay-control-plane",
            )?,
            admission: existing(target.join("wasm/admission.wasm"), "make wasm")?,
            forecaster: existing(target.join("wasm/forecaster.wasm"), "make wasm")?,
            model: existing(root.join("models/demo.onnx"), "make train")?,
            work: target.join("demo"),
            report: target.join("report/demo.json"),
            data: data.filter(|data| data.is_dir()),
        })
    }
}

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder))
}

fn existing(path: PathBuf, made_by: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: run `{made_by}`", path.display());
    }
    Ok(path)
}
