//! `forebay allocations`, `forebay loans` and `forebay statement`

use super::client::encode;
use super::output::print;
use super::{AllocationsOptions, Client, Connection, LoansOptions};

pub(super) fn run(options: &AllocationsOptions, connection: &Connection) -> Result<(), String> {
    let client = Client::new(connection)?;
    if options.run {
        return print(&client.post("/v1/allocations/run", None)?);
    }
    let limit = options.limit.map(|limit| limit.to_string());
    let path = with_query(
        "/v1/allocations",
        &[
            ("customer", options.customer.as_deref()),
            ("group", options.group.as_deref()),
            ("after", options.after.as_deref()),
            ("limit", limit.as_deref()),
        ],
    );
    print(&client.get(&path)?)
}

pub(super) fn loans(options: &LoansOptions, connection: &Connection) -> Result<(), String> {
    let limit = options.limit.map(|limit| limit.to_string());
    let path = with_query(
        "/v1/loans",
        &[
            ("customer", options.customer.as_deref()),
            ("after", options.after.as_deref()),
            ("limit", limit.as_deref()),
        ],
    );
    print(&Client::new(connection)?.get(&path)?)
}

pub(super) fn statement(
    key: &str,
    month: Option<&str>,
    connection: &Connection,
) -> Result<(), String> {
    let path = format!("/v1/statements/{}", encode(key));
    let path = with_query(&path, &[("month", month)]);
    print(&Client::new(connection)?.get(&path)?)
}

fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter();
    let given: Vec<String> = given
        .filter_map(|(name, value)| Some(format!("{name}={}", encode((*value)?))))
        .collect();
    format!("{path}?{}", given.join("&"))
}
