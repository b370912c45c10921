//! What is doubtful about nodes that can be used all the same.
//!
//! A refusal was the worse alternative: a node that keeps nothing is right for a try, and one may be durable by other means than a log.
//! INFO says all of it; CONFIG would say more, and shows passwords to whoever may call it.

use super::RedisUrl;
use super::link::{connect, fields};
use redis::cmd;

/// What is doubtful about each of the nodes that answer: what, where, and what to do.
#[must_use]
pub fn doubts(nodes: &[RedisUrl]) -> Vec<String> {
    nodes.iter().flat_map(of_node).collect()
}

fn of_node(node: &RedisUrl) -> Vec<String> {
    let asked =
        connect(node).and_then(|mut connection| cmd("INFO").query::<String>(&mut connection));
    // Whoever needs the node finds out why it does not answer.
    let Ok(info) = asked else {
        return Vec::new();
    };
    let fields = fields(&info);
    let mut doubts = Vec::new();
    if fields.get("aof_enabled") == Some(&"0") {
        doubts.push(format!(
            "{node} writes no log (appendonly no): when it ends, all that it has acknowledged is lost, or what came after its last snapshot if it makes any; set appendonly yes and appendfsync always"
        ));
    }
    if let Some(policy) = fields.get("maxmemory_policy")
        && *policy != "noeviction"
    {
        doubts.push(format!(
            "{node} would throw rows away if it had a maxmemory (maxmemory-policy {policy}), and could not be used any more: set it to noeviction"
        ));
    }
    doubts
}
