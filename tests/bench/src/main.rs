//! Benches that need a real Envoy: each prints its table and writes target/report/NAME.json.
//!
//! They are programs and not criterion benches because what is measured runs in another process: CPU time of
//! Envoy's worker threads, not the time of a function.

// A bench that cannot be set up must stop: there is nobody to hand the error to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::ExitCode;

mod accounts;
mod call;
mod faults;
mod filter;
mod fleet;
mod forecast;
mod load;
mod neighbour;
mod report;
mod sharing;
mod simulate;
mod singleton;
mod size;
mod zipf;

#[tokio::main]
async fn main() -> ExitCode {
    let bench = std::env::args().nth(1).unwrap_or_default();
    let outcome = match bench.as_str() {
        "accounts" => accounts::run().await,
        "faults" => faults::run().await,
        "filter" => filter::run().await,
        "fleet" => fleet::run().await,
        "forecast" => forecast::run().await,
        "neighbour" => neighbour::run().await,
        "sharing" => sharing::run(),
        "simulate" => simulate::run(),
        "size" => size::run().await,
        _ => {
            eprintln!(
                "usage: forebay-bench accounts | faults | filter | fleet | forecast | neighbour | sharing | simulate | size"
            );
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-{bench}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
