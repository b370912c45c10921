//! The project's chores in Rust, so that the Makefile and CI hold no logic of their own.
//!
//! A shell script would be shorter today, but it has no types, fails silently in the middle of a pipe and
//! cannot share the list of pinned tools with the check that they are installed.

use std::process::ExitCode;

mod arrows;
mod command;
mod debian;
mod exports;
mod lint;
mod setup;
mod tidy;
mod wasm;

const USAGE: &str = "\
usage: cargo xtask CHORE
  setup    install the pinned tools under .tools/ (idempotent)
  wasm     build target/wasm/*.wasm as shipped; a name builds that plugin only
  noop     build the SDK's no-op filter, the yardstick of bench-filter
  lint     formatting, clippy, arrows, tidy, typos, cargo-deny, documentation
  arrows   check which crate may know which
  tidy     check the rules of the tree that no other tool knows";

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "setup" => setup::chore(),
        "wasm" => wasm::build_plugins(std::env::args().nth(2).as_deref()),
        "noop" => wasm::build_noop(),
        "lint" => lint::run_chore(),
        "arrows" => arrows::run(),
        "tidy" => tidy::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {chore}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
