//! `forebay anomalies`

use super::client::encode;
use super::output::print;
use super::{AnomaliesOptions, Client, Connection};

pub(super) fn run(options: &AnomaliesOptions, connection: &Connection) -> Result<(), String> {
    let limit = options.limit.map(|limit| limit.to_string());
    let query: Vec<String> = [
        ("customer", &options.customer),
        ("kind", &options.kind),
        ("after", &options.after),
        ("limit", &limit),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))))
    .collect();
    let path = format!("/v1/anomalies?{}", query.join("&"));
    print(&Client::new(connection)?.get(&path)?)
}
