//! Debian packages: installed where nothing else brings a tool, or only unpacked.
//!
//! Unpacked needs no rights, and starts no service; but it brings no dependencies, so it is for programs that need the C library alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{program, read, run, works};

/// Only as a last resort, and never by raising our own rights.
pub(crate) fn install(name: &str) -> Result<()> {
    let is_root = read(Command::new("id").arg("-u"))?.trim() == "0";
    if !is_root || !works(program("apt-get").arg("--version")) {
        bail!(
            "the Debian package `{name}` is missing: install it (apt-get install {name}) and run again"
        );
    }
    run(program("apt-get").args(["update", "-qq"]))?;
    let mut install = program("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        name,
    ]);
    run(&mut install)
}

/// Unpacks a package of the machine's release into a folder.
pub(crate) fn unpack(name: &str, folder: &Path) -> Result<()> {
    if !works(program("apt-get").arg("--version")) {
        bail!("the Debian package `{name}` is missing, and there is no apt-get to fetch it");
    }
    // An earlier attempt may have been cut off.
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).context("cannot remove what an earlier setup has left")?;
    }
    fs::create_dir_all(&partial).context("cannot make a folder for a Debian package")?;
    let fetch = || {
        let mut fetch = Command::new("apt-get");
        // The user that apt would fetch as may not write here.
        let options = ["download", "-qq", "-o", "APT::Sandbox::User=root", name];
        run(fetch.current_dir(&partial).args(options))
    };
    if fetch().is_err() {
        // A fresh machine has no list of packages.
        run(program("apt-get").args(["update", "-qq"]))?;
        fetch()?;
    }
    // Its name has its version, which is that of the release.
    let package = fs::read_dir(&partial)
        .context("cannot look for the Debian package")?
        .next()
        .context("apt-get has fetched nothing")??
        .path();
    run(program("dpkg-deb").arg("-x").arg(&package).arg(&partial))?;
    fs::remove_file(&package).context("cannot remove the Debian package")?;
    fs::rename(&partial, folder)
        .with_context(|| format!("cannot move the unpacked package to {}", folder.display()))
}

/// Makes an unpacked program look for its files below the folder that it is started in, and not below the root of the machine, where they are when the
/// package is installed. The path stays as long as it was: a program that was linked has no room for a longer one.
pub(crate) fn relocate(program: &Path, files: &str) -> Result<()> {
    let relative = files.trim_start_matches('/').replacen('/', "//", 1);
    ensure!(
        relative.len() == files.len() && relative.contains("//"),
        "{files} is no absolute path with a folder in it"
    );
    let mut bytes = fs::read(program).context("cannot read an unpacked program")?;
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| {
        rest.windows(files.len())
            .position(|part| part == files.as_bytes())
    }) {
        let at = from.saturating_add(found);
        from = at.saturating_add(files.len());
        bytes.splice(at..from, relative.bytes());
    }
    fs::write(program, bytes).context("cannot write an unpacked program")
}
