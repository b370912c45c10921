//! Everything a reviewer should not have to say: one chore, in the order of what fails fastest.

use anyhow::Result;

use crate::command::{cargo, program, run};
use crate::{arrows, setup, tidy};

/// The chore `lint`.
pub(crate) fn run_chore() -> Result<()> {
    setup::ensure()?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    arrows::run()?;
    run(&mut program(setup::tool("typos")))?;
    // cargo-deny looks at the crates of every platform, and a build fetches those of this one only.
    run(cargo().args(["fetch", "--locked"]))?;
    let mut deny = program(setup::tool("cargo-deny"));
    // Licences, bans and sources need no network once the crates are fetched; advisories would.
    run(deny.args([
        "--log-level",
        "error",
        "--offline",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))?;
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    let mut documentation = cargo();
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    run(documentation.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]))
}
