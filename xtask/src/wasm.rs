//! From a plugin's crate to the `.wasm` file that is shipped.
//!
//! Envoy calls every callback that a module exports and the SDK exports all of them: the ones that a plugin does
//! not need cost about 1.3 us per request. They cannot be left out at link time without forking the SDK, so they
//! are dropped afterwards; what only they reached falls out in wasm-opt. Those that stay may get another name there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, program, root, run, target_dir};
use crate::exports::{self, Export};
use crate::setup;

/// What is shipped, and how `wasm-opt` weighs speed against size.
const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "admission",
        // Control flow built anew from a flat form is a hundredth smaller, and as fast in V8.
        optimise: &["-Oz", "--flatten", "--rereloop", "-Oz"],
    },
    Plugin {
        name: "forecaster",
        optimise: &["-Oz"],
    },
];

/// What rustc lets LLVM use; wasm-opt refuses a module with features that it was not told of.
const FEATURES: &[&str] = &[
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

struct Plugin {
    name: &'static str,
    optimise: &'static [&'static str],
}

/// The chore `wasm`: both plugins, or the one named; skipped when nothing changed.
pub(crate) fn build_plugins(only: Option<&str>) -> Result<()> {
    setup::ensure()?;
    let plugins: Vec<&Plugin> = PLUGINS
        .iter()
        .filter(|plugin| only.is_none_or(|name| name == plugin.name))
        .collect();
    if plugins.is_empty() {
        bail!("no such plugin: {}", only.unwrap_or_default());
    }
    let mut build = cargo();
    build.args(["build", "--profile", "wasm", "--target", "wasm32-wasip1"]);
    for plugin in &plugins {
        build.args(["-p", &format!("forebay-{}", plugin.name)]);
    }
    run(&mut build)?;
    let out = target_dir().join("wasm");
    fs::create_dir_all(&out).context("cannot create target/wasm")?;
    plugins
        .into_iter()
        .try_for_each(|plugin| finish(plugin, &out))
}

/// The chore `noop`: built and left exactly as the SDK's own examples are.
pub(crate) fn build_noop() -> Result<()> {
    setup::ensure()?;
    run(cargo().args([
        "build",
        "--profile",
        "sdk",
        "--target",
        "wasm32-wasip1",
        "-p",
        "forebay-noop",
    ]))?;
    let out = target_dir().join("wasm");
    fs::create_dir_all(&out).context("cannot create target/wasm")?;
    let built = target_dir().join("wasm32-wasip1/sdk/forebay_noop.wasm");
    fs::copy(&built, out.join("noop.wasm")).context("cannot copy noop.wasm")?;
    Ok(())
}

fn finish(plugin: &Plugin, out: &Path) -> Result<()> {
    let linked = target_dir().join(format!("wasm32-wasip1/wasm/forebay_{}.wasm", plugin.name));
    let code = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let (list, exports) = wanted_exports(plugin)?;
    let shipped = out.join(format!("{}.wasm", plugin.name));
    let stamp = out.join(format!("{}.stamp", plugin.name));
    let inputs = fingerprint(&[&code, list.as_bytes(), plugin.optimise.join(" ").as_bytes()]);
    if shipped.is_file() && fs::read_to_string(&stamp).is_ok_and(|seen| seen == inputs) {
        return Ok(());
    }
    let kept = out.join(format!("{}.kept.wasm", plugin.name));
    let rewritten =
        exports::keep(&code, &exports).with_context(|| format!("in {}", linked.display()))?;
    fs::write(&kept, rewritten).context("cannot write the intermediate module")?;
    let mut optimise = program(setup::tool("wasm-opt"));
    optimise
        .args(plugin.optimise)
        .args(["--strip-debug", "--strip-producers"])
        .args(FEATURES);
    let finished = out.join(format!("{}.finished.wasm", plugin.name));
    run(optimise.arg(&kept).arg("-o").arg(&finished))?;
    // In one step: a test that runs meanwhile must never load half a module.
    fs::rename(&finished, &shipped).context("cannot put the finished module in its place")?;
    fs::remove_file(&kept).context("cannot remove the intermediate module")?;
    fs::write(&stamp, inputs).context("cannot write the stamp")?;
    let bytes = fs::metadata(&shipped)
        .context("wasm-opt wrote nothing")?
        .len();
    eprintln!(
        "{}: {} bytes linked, {bytes} shipped",
        shipped.display(),
        code.len()
    );
    Ok(())
}

/// `plugin/NAME/exports.txt` as text and as read.
fn wanted_exports(plugin: &Plugin) -> Result<(String, Vec<Export>)> {
    let file: PathBuf = root().join("plugin").join(plugin.name).join("exports.txt");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let exports = Export::read_list(&text);
    if exports.is_empty() {
        bail!(
            "{} lists no export: Envoy could not start the plugin",
            file.display()
        );
    }
    Ok((text, exports))
}

/// FNV-1a: only to notice a change, so no cryptographic strength is needed.
fn fingerprint(parts: &[&[u8]]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{hash:016x}")
}
