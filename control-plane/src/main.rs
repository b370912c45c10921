//! `forebay`: the control plane and its command line.

#![forbid(unsafe_code)]

use forebay_control_plane::cli::{Command, Options, run};
use forebay_control_plane::serve::serve;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A sync is thousands of small allocations, made by one thread and freed by another: with the system's allocator they took a sixth of the
/// server's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let options = Options::read();
    let exit_code_of_errors = options.command.exit_code_of_errors();
    let result = match options.command {
        Command::Serve(serve_options) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                // A log on a full disk is lost. Complaining to standard error would panic, because that is where it goes.
                .log_internal_errors(false)
                .init();
            serve(*serve_options)
                .map(|()| ExitCode::SUCCESS)
                .map_err(|error| error.to_string())
        }
        command => run(command, &options.connection),
    };
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("forebay: {message}");
            ExitCode::from(exit_code_of_errors)
        }
    }
}
