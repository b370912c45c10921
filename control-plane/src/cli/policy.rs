//! `forebay policy ...`

use super::output::{print, print_text, read_file};
use super::{Client, Connection, PolicyCommand};
use crate::document::{CheckedPolicy, Format, check};
use forebay_policy::diff;
use forebay_wire::policy::PolicyDocument;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// The policy that is tried beside the one in force.
const CANDIDATE: &str = "/v1/policies/candidate";

pub(super) fn run(command: PolicyCommand, connection: &Connection) -> Result<ExitCode, String> {
    let done = match command {
        PolicyCommand::Check { file } => {
            let (text, format) = read(&file)?;
            let checked = checked(&file, &text, format)?;
            print(&json!({
                "ok": true,
                "customers": checked.compiled.customers.len(),
                "contracts": checked.document.contracts.len(),
                "resources": checked.document.resources.names().collect::<Vec<_>>(),
            }))
        }
        PolicyCommand::Apply { file, share } => {
            let path = match share {
                None => "/v1/policies".to_owned(),
                Some(percent) => format!("/v1/policies?share={percent}"),
            };
            send(&file, &path, connection)
        }
        PolicyCommand::Try {
            file: Some(file), ..
        } => send(&file, CANDIDATE, connection),
        PolicyCommand::Try { stop: true, .. } => {
            print(&Client::new(connection)?.delete(CANDIDATE)?)
        }
        PolicyCommand::Try { limit, .. } => {
            let query = limit.map_or(String::new(), |limit| format!("?limit={limit}"));
            print(&Client::new(connection)?.get(&format!("{CANDIDATE}{query}"))?)
        }
        PolicyCommand::Promote => {
            print(&Client::new(connection)?.post("/v1/policies/promote", None)?)
        }
        PolicyCommand::Rollback => {
            print(&Client::new(connection)?.post("/v1/policies/rollback", None)?)
        }
        PolicyCommand::Diff {
            first,
            second,
            json,
        } => return compare(&first, second.as_deref(), json, connection),
        PolicyCommand::List => print(&Client::new(connection)?.get("/v1/policies")?),
        PolicyCommand::Show { version } => print(
            &Client::new(connection)?
                .get(&format!("/v1/policies/{}", super::client::encode(&version)))?,
        ),
        PolicyCommand::Activate { version } => print(
            &Client::new(connection)?.post(&format!("/v1/policies/{version}/activate"), None)?,
        ),
        PolicyCommand::Schema => print(&schemars::schema_for!(PolicyDocument)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Sends a file, as it is, and prints the answer.
fn send(file: &Path, path: &str, connection: &Connection) -> Result<(), String> {
    let (text, format) = read(file)?;
    let content_type = match format {
        Format::Json => "application/json",
        Format::Yaml => "application/yaml",
    };
    let client = Client::new(connection)?;
    print(&client.post_bytes(path, content_type, text.into_bytes())?)
}

/// Compares two policies. One alone is compared with that in force, as it would be applied.
fn compare(
    first: &str,
    second: Option<&str>,
    as_json: bool,
    connection: &Connection,
) -> Result<ExitCode, String> {
    let (before, after) = match second {
        Some(second) => (first, second),
        None => ("active", first),
    };
    let diff = diff(
        &document(before, connection)?,
        &document(after, connection)?,
    );
    if as_json {
        print(&diff)?;
    } else {
        print_text(&diff.to_string())?;
    }
    Ok(ExitCode::from(u8::from(!diff.is_empty())))
}

/// A number and `active` are versions of the server; all else is a file.
fn document(name: &str, connection: &Connection) -> Result<PolicyDocument, String> {
    if name == "active" || name.bytes().all(|byte| byte.is_ascii_digit()) {
        let answer = Client::new(connection)?.get(&format!("/v1/policies/{name}"))?;
        return serde_json::from_value(answer)
            .map_err(|error| format!("the server's answer is not a policy: {error}"));
    }
    of_file(Path::new(name)).map(|checked| checked.document)
}

/// Reads and checks a file.
///
/// # Errors
/// What is wrong with it, each with its line and field.
pub(super) fn of_file(file: &Path) -> Result<CheckedPolicy, String> {
    let (text, format) = read(file)?;
    checked(file, &text, format)
}

fn checked(file: &Path, text: &str, format: Format) -> Result<CheckedPolicy, String> {
    check(text, format).map_err(|faults| {
        let lines = faults.0.iter();
        let lines: Vec<String> = lines
            .map(|fault| format!("{}: {fault}", file.display()))
            .collect();
        format!("the policy is refused\n{}", lines.join("\n"))
    })
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
