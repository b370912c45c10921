//! A connection to the master of the slot in which all our keys lie.
//!
//! The crate's own cluster client was the worse alternative: it hides which node has answered, and WAIT says something only on the
//! connection that has written. Here a connection belongs to one node, and whatever may be wrong with that node (it is down, is a replica by now,
//! has given the slot away) ends the connection; the next one begins with looking for the master again.

use super::super::StoreError;
use super::RedisUrl;
use super::scripts::{FENCE, SLOT, Script};
use redis::{
    Client, Cmd, Connection, ConnectionAddr, FromRedisValue, RedisError, Value, cmd, pipe,
};
use std::collections::HashMap;
use std::time::Duration;

/// How long a node may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take to answer. A large change takes a tenth of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the acknowledgement of a replica is waited for.
const REPLICA_WITHIN: Duration = Duration::from_secs(1);
/// How often nodes may send us on to another one.
const HOPS: usize = 3;

/// A connection to the master.
pub(super) struct Link {
    connection: Connection,
    /// Names of the scripts at this node.
    scripts: Vec<String>,
    /// Id of the node in its cluster; `None`: it is in no cluster.
    node: Option<String>,
    /// Whether changes are made without a replica, because there is none, so that it is said once.
    is_alone: bool,
}

/// What a node is.
enum Node {
    Master {
        id: Option<String>,
    },
    /// The master is elsewhere.
    Elsewhere(ConnectionAddr),
}

/// A call of a script, to be filled with keys and arguments.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

/// What goes wrong between here and Redis.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection or its node is of no use any more; another one may be.
    Lost(String),
    /// A refusal that another node would repeat.
    Refused(StoreError),
}

// === impl Link ===

impl Link {
    /// Connects to the master, by whichever of the nodes knows where it is.
    pub(super) fn to_master(nodes: &[RedisUrl]) -> Result<Self, StoreError> {
        let mut reasons = Vec::new();
        for start in nodes {
            let mut node = start.clone();
            for hop in 0..=HOPS {
                match Self::to(&node) {
                    Ok(Ok(link)) => return Ok(link),
                    Ok(Err(master)) if hop < HOPS => node = node.at(master),
                    Ok(Err(_)) => {
                        reasons.push(format!("{start} and others send us around in a circle"));
                    }
                    Err(Trouble::Lost(reason)) => {
                        reasons.push(format!("{node}: {reason}"));
                        break;
                    }
                    Err(Trouble::Refused(error)) => return Err(error),
                }
            }
        }
        Err(StoreError::Unreachable(reasons.join("; ")))
    }

    /// Connects to a node if it is the master; else says where that is.
    fn to(node: &RedisUrl) -> Result<Result<Self, ConnectionAddr>, Trouble> {
        let client = Client::open(node.info())?;
        let mut connection = client.get_connection_with_timeout(CONNECT_WITHIN)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        connection.set_write_timeout(Some(ANSWER_WITHIN))?;
        let id = match role(&mut connection, node)? {
            Node::Elsewhere(address) => return Ok(Err(address)),
            Node::Master { id } => id,
        };
        let mut load = pipe();
        for script in Script::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(script.text());
        }
        let scripts = load.query(&mut connection)?;
        Ok(Ok(Self {
            connection,
            scripts,
            node: id,
            is_alone: false,
        }))
    }

    /// Asks for something.
    pub(super) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Trouble> {
        Ok(command.query(&mut self.connection)?)
    }

    /// Calls a script that changes something, and waits until the change would survive the loss of the master.
    pub(super) fn change<T: FromRedisValue>(
        &mut self,
        script: Script,
        call: Call,
    ) -> Result<T, Trouble> {
        let name = self.scripts.get(script.number()).cloned();
        let mut command = cmd("EVALSHA");
        command.arg(name.unwrap_or_default()).arg(call.keys.len());
        for part in call.keys.iter().chain(&call.arguments) {
            command.arg(part.as_slice());
        }
        if self.node.is_none() {
            return self.ask(&command);
        }
        let wait = u64::try_from(REPLICA_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let mut both = pipe();
        both.add_command(command);
        both.cmd("WAIT").arg(1).arg(wait);
        let (answer, replicas): (T, u64) = both.query(&mut self.connection)?;
        if replicas == 0 {
            self.may_be_alone()?;
        } else {
            self.is_alone = false;
        }
        Ok(answer)
    }

    /// No replica has acknowledged a change. That is in order only where there is none: the majority of the masters must have given them
    /// up. A master that has been cut off from the others goes on to hope for its replica, which is about to take its place.
    fn may_be_alone(&mut self) -> Result<(), Trouble> {
        let table: String = self.ask(cmd("CLUSTER").arg("NODES"))?;
        let node = self.node.clone().unwrap_or_default();
        if let Some(replica) = living_replica(&table, &node) {
            return Err(Trouble::Refused(StoreError::Write(format!(
                "no replica has acknowledged the change within {} ms, and {replica} should have",
                REPLICA_WITHIN.as_millis()
            ))));
        }
        if !std::mem::replace(&mut self.is_alone, true) {
            tracing::warn!(
                node,
                "the master of the store has no replica left: changes are lost if it is lost"
            );
        }
        Ok(())
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Link")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

// === impl Call ===

impl Call {
    /// A call with its keys.
    pub(super) fn on(keys: &[&str]) -> Self {
        Self {
            keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            arguments: Vec::new(),
        }
    }

    /// Adds a key. Returns its number, from 1.
    pub(super) fn key(&mut self, key: String) -> usize {
        self.keys.push(key.into_bytes());
        self.keys.len()
    }

    /// Adds an argument.
    pub(super) fn with(&mut self, argument: impl Into<Vec<u8>>) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.with(number.to_string())
    }
}

// === impl Trouble ===

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        let head = || {
            let detail = error.detail().unwrap_or_default();
            detail.trim().parse().unwrap_or(0)
        };
        match error.code() {
            Some("FENCED") => Self::Refused(StoreError::Fenced),
            Some("WENTBACK") => Self::Refused(StoreError::WentBack {
                found: head(),
                acknowledged: 0,
            }),
            Some("EMPTIED") => Self::Refused(StoreError::Emptied),
            // The later attempt has written all that this one would have.
            Some("OVERTAKEN") => Self::Lost(error.to_string()),
            Some("OOM" | "MISCONF" | "NOREPLICAS") => {
                Self::Refused(StoreError::Write(error.to_string()))
            }
            Some("NOPERM") => Self::Refused(StoreError::Unsuitable(error.to_string())),
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// What a node is, and whether it can be a store at all.
fn role(connection: &mut Connection, node: &RedisUrl) -> Result<Node, Trouble> {
    let info: String = cmd("INFO").query(connection)?;
    let fields: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect();
    let field = |name| fields.get(name).copied().unwrap_or_default();
    if field("maxmemory") != "0" && !matches!(field("maxmemory_policy"), "noeviction" | "") {
        return Err(Trouble::Refused(StoreError::Unsuitable(format!(
            "{node} throws rows away when its memory is full (maxmemory-policy {}): set it to noeviction",
            field("maxmemory_policy")
        ))));
    }
    if field("loading") == "1" {
        return Err(Trouble::Lost("it is loading its data".to_owned()));
    }
    if field("cluster_enabled") != "1" {
        return match (
            field("role"),
            field("master_host"),
            field("master_port").parse(),
        ) {
            ("slave", host, Ok(port)) => {
                Ok(Node::Elsewhere(ConnectionAddr::Tcp(host.to_owned(), port)))
            }
            _ => Ok(Node::Master { id: None }),
        };
    }
    let id: String = cmd("CLUSTER").arg("MYID").query(connection)?;
    let slots: Vec<Vec<Value>> = cmd("CLUSTER").arg("SLOTS").query(connection)?;
    let master = slots.iter().find_map(|range| master_of(range));
    match master {
        None => Err(Trouble::Lost(format!(
            "its cluster serves no slot {SLOT}, which {FENCE} lies in"
        ))),
        Some((_, _, master)) if master == id => Ok(Node::Master { id: Some(id) }),
        Some((host, port, _)) => {
            let host = if host.is_empty() { node.host() } else { host };
            Ok(Node::Elsewhere(ConnectionAddr::Tcp(host, port)))
        }
    }
}

/// Host, port and id of the master of a range of slots, if ours is in it.
fn master_of(range: &[Value]) -> Option<(String, u16, String)> {
    let [first, last, master, ..] = range else {
        return None;
    };
    let slot = |value: &Value| u16::from_redis_value_ref(value).ok();
    if !(slot(first)?..=slot(last)?).contains(&SLOT) {
        return None;
    }
    let Value::Array(master) = master else {
        return None;
    };
    let [host, port, id, ..] = master.as_slice() else {
        return None;
    };
    // An unknown host is null.
    let host = Option::<String>::from_redis_value_ref(host).ok()?;
    let id = String::from_redis_value_ref(id).ok()?;
    Some((host.unwrap_or_default(), slot(port)?, id))
}

/// A replica of a node that the cluster has not given up, by the table of CLUSTER NODES.
fn living_replica<'a>(table: &'a str, node: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, address, flags, master) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let is_given_up = flags
            .split(',')
            .any(|flag| matches!(flag, "fail" | "noaddr" | "handshake"));
        (master == node && !is_given_up).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::living_replica;

    #[test]
    fn a_replica_counts_until_the_majority_has_given_it_up() {
        let table = |flags: &str| {
            format!(
                "m 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-5460\n\
                 r 127.0.0.1:3@4 {flags} m 0 0 1 connected\n\
                 o 127.0.0.1:5@6 slave x 0 0 1 connected\n"
            )
        };
        assert_eq!(living_replica(&table("slave"), "m"), Some("127.0.0.1:3@4"));
        assert_eq!(
            living_replica(&table("slave,fail?"), "m"),
            Some("127.0.0.1:3@4")
        );
        assert_eq!(living_replica(&table("slave,fail"), "m"), None);
        assert_eq!(living_replica(&table("slave"), "other"), None);
    }
}
