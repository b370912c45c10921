//! Where the things under test are. A missing one is an error that says which command makes it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

fn root() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir
        .ancestors()
        .nth(2)
        .unwrap_or(crate_dir)
        .to_path_buf()
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A shipped module, `target/wasm/NAME.wasm`.
pub fn artefact(name: &str) -> Result<PathBuf> {
    existing(
        target_dir().join("wasm").join(format!("{name}.wasm")),
        "make wasm",
    )
}

/// An installed tool, `.tools/bin/NAME`.
pub fn tool(name: &str) -> Result<PathBuf> {
    existing(root().join(".tools/bin").join(name), "make setup")
}

/// A program of this workspace: as `make build` leaves it for tests, optimised for benches.
pub fn binary(name: &str) -> Result<PathBuf> {
    let (profile, made_by) = if cfg!(debug_assertions) {
        ("debug", "make build")
    } else {
        ("release", "cargo build --release --workspace")
    };
    existing(target_dir().join(profile).join(name), made_by)
}

fn existing(path: PathBuf, made_by: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: run `{made_by}`", path.display());
    }
    Ok(path)
}
