//! `forebay customer ...`

use super::client::encode;
use super::output::print;
use super::{Client, Connection, CustomerCommand};
use serde_json::{Value, json};

pub(super) fn run(command: CustomerCommand, connection: &Connection) -> Result<(), String> {
    let client = Client::new(connection)?;
    let (key, change, body): (String, &str, Option<Value>) = match command {
        CustomerCommand::Show { key } => {
            return print(&client.get(&format!("/v1/customers/{}", encode(&key)))?);
        }
        CustomerCommand::Credit {
            key,
            tokens,
            resource,
        } => (
            key,
            "credit",
            Some(json!({"tokens": tokens, "resource": resource})),
        ),
        CustomerCommand::Reset { key } => (key, "reset", None),
        CustomerCommand::Ban { key, until_unix_s } => {
            (key, "ban", Some(json!({"until_unix_s": until_unix_s})))
        }
        CustomerCommand::Unban { key } => (key, "unban", None),
        CustomerCommand::Freeze { key } => (key, "freeze", None),
        CustomerCommand::Unfreeze { key } => (key, "unfreeze", None),
        CustomerCommand::Exempt { key } => (key, "exempt", None),
        CustomerCommand::Unexempt { key } => (key, "unexempt", None),
    };
    print(&client.post(
        &format!("/v1/customers/{}/{change}", encode(&key)),
        body.as_ref(),
    )?)
}
