//! `forebay policy ...`

use super::output::{print, read_file};
use super::{Client, Connection, PolicyCommand};
use crate::document::{Format, check};
use forebay_wire::policy::PolicyDocument;
use serde_json::json;
use std::path::Path;

pub(super) fn run(command: PolicyCommand, connection: &Connection) -> Result<(), String> {
    match command {
        PolicyCommand::Check { file } => {
            let (text, format) = read(&file)?;
            let checked = check(&text, format).map_err(|faults| {
                let lines: Vec<String> = faults
                    .0
                    .iter()
                    .map(|fault| format!("{}: {fault}", file.display()))
                    .collect();
                format!("the policy is refused\n{}", lines.join("\n"))
            })?;
            print(&json!({
                "ok": true,
                "customers": checked.compiled.customers.len(),
                "contracts": checked.document.contracts.len(),
                "resources": checked.document.resources.names().collect::<Vec<_>>(),
            }))
        }
        PolicyCommand::Apply { file } => {
            let (text, format) = read(&file)?;
            let content_type = match format {
                Format::Json => "application/json",
                Format::Yaml => "application/yaml",
            };
            print(&Client::new(connection)?.post_bytes(
                "/v1/policies",
                content_type,
                text.into_bytes(),
            )?)
        }
        PolicyCommand::List => print(&Client::new(connection)?.get("/v1/policies")?),
        PolicyCommand::Show { version } => print(
            &Client::new(connection)?
                .get(&format!("/v1/policies/{}", super::client::encode(&version)))?,
        ),
        PolicyCommand::Activate { version } => print(
            &Client::new(connection)?.post(&format!("/v1/policies/{version}/activate"), None)?,
        ),
        PolicyCommand::Schema => print(&schemars::schema_for!(PolicyDocument)),
    }
}

fn read(file: &Path) -> Result<(String, Format), String> {
    let text = String::from_utf8(read_file(file)?).map_err(|error| {
        format!(
            "{} is not UTF-8 from byte {}",
            file.display(),
            error.utf8_error().valid_up_to()
        )
    })?;
    Ok((text, Format::of_path(file)))
}
