//! The command line: everything but `serve` is a client of the API, or works on files alone.

mod allocations;
mod anomalies;
mod audit;
mod client;
mod commands;
mod customer;
mod forecasts;
mod history;
mod model;
mod output;
mod policy;
mod simulate;
mod spillover;

pub use client::Client;
pub use commands::{
    AllocationsOptions, AnomaliesOptions, Command, Connection, CustomerCommand, ForecastsOptions,
    GatewayCommand, HistoryCommand, ImportOptions, LoansOptions, ModelCommand, Options,
    PolicyCommand, SimulateOptions, SpilloverOptions,
};

use crate::api::openapi_document;
use output::print;
use std::process::ExitCode;

/// Runs a command that is not `serve`, and says with which code the process ends.
///
/// # Errors
/// What is wrong, where, and what to do.
pub fn run(command: Command, connection: &Connection) -> Result<ExitCode, String> {
    let done = match command {
        // `main` runs the server itself; a second way to start one would be a trap.
        Command::Serve(_) => Err("serve is started by the program itself".to_owned()),
        Command::Policy(command) => return policy::run(command, connection),
        Command::Model(command) => model::run(command, connection),
        Command::Customer(command) => customer::run(command, connection),
        Command::Gateway(GatewayCommand::Retire { id }) => print(&Client::new(connection)?.post(
            &format!("/v1/gateways/{}/retire", client::encode(&id)),
            None,
        )?),
        Command::History(HistoryCommand::Import(options)) => history::import(*options, connection),
        Command::Forecasts(options) => forecasts::run(&options, connection),
        Command::Allocations(options) => allocations::run(&options, connection),
        Command::Anomalies(options) => anomalies::run(&options, connection),
        Command::Loans(options) => allocations::loans(&options, connection),
        Command::Spillover(options) => spillover::run(&options, connection),
        Command::Statement { key, month } => {
            allocations::statement(&key, month.as_deref(), connection)
        }
        Command::Tuning => print(&Client::new(connection)?.get("/v1/tuning")?),
        Command::Openapi => print(&openapi_document()),
        Command::Audit { after, verify } => audit::run(after, verify, connection),
        Command::Simulate(options) => simulate::run(&options),
        Command::KeepGroup => crate::training::keep_group().map_err(|error| error.to_string()),
        Command::Status => print(&Client::new(connection)?.get("/v1/status")?),
    };
    done.map(|()| ExitCode::SUCCESS)
}
