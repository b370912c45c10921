//! A shipped module with something put around one of its callbacks.
//!
//! The shipped code itself runs; a build of its own with a switch for tests would be other code.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::place::{artefact, tool};

/// What wasm-merge must be told of the modules.
const FEATURES: [&str; 10] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-multivalue",
    "--enable-call-indirect-overlong",
    "--enable-extended-const",
];

/// Writes to `out` the shipped module `name`, whose callback `proxy_CALLBACK` is that of `wrapper`. The wrapper imports the module's own as
/// `inner_CALLBACK`.
pub fn wrapped(name: &str, callback: &str, wrapper: &Path, out: &Path) -> Result<()> {
    let renamed = out.with_extension("renamed.wasm");
    let mut module = fs::read(artefact(name)?)?;
    // Two modules that are merged cannot export the same name. The new one is as long as the old, so no length in the module changes.
    let (old, new) = (format!("proxy_{callback}"), format!("inner_{callback}"));
    let Some(at) = module
        .windows(old.len())
        .position(|window| window == old.as_bytes())
    else {
        bail!("{name}.wasm does not export {old}");
    };
    module[at..at + old.len()].copy_from_slice(new.as_bytes());
    fs::write(&renamed, module)?;
    let merged = Command::new(tool("wasm-merge")?)
        .arg(wrapper)
        .arg("wrapper")
        .arg(renamed)
        .arg(name)
        .args(FEATURES)
        .arg("-o")
        .arg(out)
        .output()
        .context("wasm-merge cannot be started")?;
    ensure!(
        merged.status.success(),
        "{}",
        String::from_utf8_lossy(&merged.stderr)
    );
    Ok(())
}
