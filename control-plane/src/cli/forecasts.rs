//! `forebay forecasts`

use super::client::encode;
use super::output::print;
use super::{Client, Connection, ForecastsOptions};

pub(super) fn run(options: &ForecastsOptions, connection: &Connection) -> Result<(), String> {
    let limit = options.limit.map(|limit| limit.to_string());
    let query: Vec<String> = [
        ("customer", &options.customer),
        ("group", &options.group),
        ("resource", &options.resource),
        ("after", &options.after),
        ("limit", &limit),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))))
    .collect();
    let path = format!("/v1/forecasts?{}", query.join("&"));
    print(&Client::new(connection)?.get(&path)?)
}
