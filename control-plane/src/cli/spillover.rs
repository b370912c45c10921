//! `forebay spillover`

use super::client::encode;
use super::output::print;
use super::{Client, Connection, SpilloverOptions};

pub(super) fn run(options: &SpilloverOptions, connection: &Connection) -> Result<(), String> {
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let (offset, limit) = (number(options.offset), number(options.limit));
    let query: Vec<String> = [
        ("customer", &options.customer),
        ("spiker", &options.spiker),
        ("hit", &options.hit),
        ("by", &options.by),
        ("resource", &options.resource),
        ("offset", &offset),
        ("limit", &limit),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))))
    .collect();
    let path = if options.links {
        "/v1/spillover/links"
    } else {
        "/v1/spillover"
    };
    print(&Client::new(connection)?.get(&format!("{path}?{}", query.join("&")))?)
}
