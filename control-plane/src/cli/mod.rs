//! The command line: everything but `serve` is a client of the API, or works on files alone.

mod client;
mod commands;
mod customer;
mod model;
mod output;
mod policy;
mod simulate;

pub use client::Client;
pub use commands::{
    Command, Connection, CustomerCommand, GatewayCommand, ModelCommand, Options, PolicyCommand,
    SimulateOptions,
};

use output::print;

/// Runs a command that is not `serve`.
///
/// # Errors
/// What is wrong, where, and what to do.
pub fn run(command: Command, connection: &Connection) -> Result<(), String> {
    match command {
        // `main` runs the server itself; a second way to start one would be a trap.
        Command::Serve(_) => Err("serve is started by the program itself".to_owned()),
        Command::Policy(command) => policy::run(command, connection),
        Command::Model(command) => model::run(command, connection),
        Command::Customer(command) => customer::run(command, connection),
        Command::Gateway(GatewayCommand::Retire { id }) => print(&Client::new(connection)?.post(
            &format!("/v1/gateways/{}/retire", client::encode(&id)),
            None,
        )?),
        Command::Simulate(options) => simulate::run(&options),
        Command::Status => print(&Client::new(connection)?.get("/v1/status")?),
    }
}
