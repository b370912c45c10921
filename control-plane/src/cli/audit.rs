//! `forebay audit`: the log as lines, or whether it is whole.

use super::output::{print, print_text};
use super::{Client, Connection};
use crate::audit::verify;
use crate::plane::AuditPage;
use serde_json::json;

pub(super) fn run(after: u64, is_check: bool, connection: &Connection) -> Result<(), String> {
    let client = Client::new(connection)?;
    if is_check {
        return check(&client);
    }
    let mut after = after;
    loop {
        let page = page(&client, after)?;
        let Some(last) = page.records.last() else {
            return Ok(());
        };
        after = last.sequence;
        for record in &page.records {
            if !print_text(&format!("{}\n", record.line()))? {
                return Ok(());
            }
        }
    }
}

/// The hashes are computed here, from what would be printed: the server's word counts for the ends only.
fn check(client: &Client) -> Result<(), String> {
    let mut whole = page(client, 0)?;
    while let Some(last) = whole.records.last() {
        let next = page(client, last.sequence)?;
        whole.head = next.head;
        if next.records.is_empty() {
            break;
        }
        whole.records.extend(next.records);
    }
    verify(&whole.anchor, &whole.head, &whole.records)
        .map_err(|error| format!("the audit log is not whole: {error}"))?;
    let records = whole.records.len();
    print(&json!({"ok": true, "records": records, "anchor": whole.anchor, "head": whole.head}))
}

fn page(client: &Client, after: u64) -> Result<AuditPage, String> {
    let answer = client.get(&format!("/v1/audit?after={after}"))?;
    serde_json::from_value(answer)
        .map_err(|error| format!("the server's answer is not a part of an audit log: {error}"))
}
