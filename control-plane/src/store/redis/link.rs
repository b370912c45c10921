//! A connection to the master of the slot in which all our keys lie.
//!
//! The crate's own cluster client was the worse alternative: it hides which node has answered, and WAIT says something only on the
//! connection that has written. Here a connection belongs to one node, and whatever may be wrong with that node (it is down, is a replica by now,
//! has given the slot away) ends the connection; the next one begins with looking for the master again.

use super::super::StoreError;
use super::RedisUrl;
use super::scripts::{FENCE, SLOT, Script};
use redis::{Client, Cmd, Connection, ConnectionAddr, FromRedisValue, RedisError, Value, cmd};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a node may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take to answer. A large change takes a tenth of it.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the acknowledgement of replicas is waited for, and how much longer for each so many bytes.
const REPLICA_WITHIN_MS: u64 = 1_000;
const BYTES_PER_MS: u64 = 10_000;
/// Replicas are counted again after this time.
const COUNTED_EVERY: Duration = Duration::from_secs(1);
/// How often nodes may send us on to another one.
const HOPS: usize = 3;

/// Attempts at each operation, each on a connection of its own. More would hold up those who wait behind it; they come again.
const ATTEMPTS: usize = 2;

/// A connection to the master that is replaced when it is of no use any more.
#[derive(Debug)]
pub(super) struct Line {
    nodes: Vec<RedisUrl>,
    link: Option<Link>,
}

/// A connection to the master.
pub(super) struct Link {
    connection: Connection,
    /// Names of the scripts at this node.
    scripts: Vec<String>,
    /// Id of the node in its cluster; `None`: it is in no cluster.
    node: Option<String>,
    /// The node's replicas that must acknowledge, as they were counted last.
    replicas: u64,
    counted_at: Instant,
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

// === impl Line ===

impl Line {
    /// By whichever of the nodes knows where the master is.
    pub(super) fn new(nodes: Vec<RedisUrl>) -> Self {
        Self { nodes, link: None }
    }

    /// Does something on the connection, and again on a new one if need be.
    pub(super) fn with<T>(
        &mut self,
        mut work: impl FnMut(&mut Link) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => Link::to_master(&self.nodes)?,
            };
            match work(&mut link) {
                Ok(value) => {
                    self.link = Some(link);
                    return Ok(value);
                }
                Err(Trouble::Lost(lost)) => reason = lost,
                Err(Trouble::Refused(error)) => {
                    // A node that its replicas do not hear may not be the master for long.
                    if !matches!(error, StoreError::Write(_)) {
                        self.link = Some(link);
                    }
                    return Err(error);
                }
            }
        }
        Err(StoreError::Unreachable(reason))
    }
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
        let mut connection = connect(node)?;
        let id = match role(&mut connection, node)? {
            Node::Elsewhere(address) => return Ok(Err(address)),
            Node::Master { id } => id,
        };
        let mut scripts = Vec::with_capacity(Script::ALL.len());
        for script in Script::ALL {
            let load = cmd("SCRIPT").arg("LOAD").arg(script.text()).to_owned();
            scripts.push(load.query(&mut connection)?);
        }
        Ok(Ok(Self {
            connection,
            scripts,
            node: id,
            replicas: 0,
            counted_at: Instant::now()
                .checked_sub(COUNTED_EVERY)
                .unwrap_or_else(Instant::now),
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
        let bytes = call.arguments.iter().map(Vec::len).sum::<usize>() as u64;
        let more_ms = bytes / BYTES_PER_MS;
        self.answer_within(more_ms)?;
        if self.node.is_none() {
            return self.ask(&command);
        }
        if self.counted_at.elapsed() >= COUNTED_EVERY {
            self.count_replicas()?;
        }
        let wait_ms = REPLICA_WITHIN_MS.saturating_add(more_ms);
        let answer: T = self.ask(&command)?;
        self.answer_within(wait_ms)?;
        let acknowledged: u64 = self.ask(cmd("WAIT").arg(self.replicas).arg(wait_ms))?;
        if acknowledged < self.replicas {
            // Those that the majority of the masters has given up meanwhile need not. A master that has been cut off from the others goes
            // on to hope for its replica, which is about to take its place.
            self.count_replicas()?;
        }
        if acknowledged < self.replicas {
            return Err(Trouble::Refused(StoreError::Write(format!(
                "{acknowledged} of {} replicas have acknowledged the change within {wait_ms} ms",
                self.replicas
            ))));
        }
        Ok(answer)
    }

    /// Waits for answers for the usual time and some more.
    fn answer_within(&self, more_ms: u64) -> Result<(), Trouble> {
        let within = ANSWER_WITHIN.saturating_add(Duration::from_millis(more_ms));
        Ok(self.connection.set_read_timeout(Some(within))?)
    }

    /// Counts the replicas that the cluster has not given up.
    fn count_replicas(&mut self) -> Result<(), Trouble> {
        let table: String = self.ask(cmd("CLUSTER").arg("NODES"))?;
        let node = self.node.clone().unwrap_or_default();
        let Some(replicas) = living_replicas(&table, &node) else {
            return Err(Trouble::Lost("it is no master any more".to_owned()));
        };
        if replicas == 0 {
            tracing::debug!(node, "the master of the store has no replica");
        }
        self.replicas = replicas;
        self.counted_at = Instant::now();
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

/// Connects to a node.
pub(super) fn connect(node: &RedisUrl) -> Result<Connection, RedisError> {
    let client = Client::open(node.info())?;
    let connection = client.get_connection_with_timeout(CONNECT_WITHIN)?;
    connection.set_read_timeout(Some(ANSWER_WITHIN))?;
    connection.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(connection)
}

/// The fields that a node's INFO has.
pub(super) fn fields(info: &str) -> HashMap<&str, &str> {
    let lines = info.lines();
    lines
        .filter_map(|line| line.trim_end().split_once(':'))
        .collect()
}

/// What a node is, and whether it can be a store at all.
fn role(connection: &mut Connection, node: &RedisUrl) -> Result<Node, Trouble> {
    let info: String = cmd("INFO").query(connection)?;
    let fields = fields(&info);
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
        if field("role") == "slave" || field("connected_slaves") != "0" {
            return Err(Trouble::Refused(StoreError::Unsuitable(format!(
                "{node} has replicas and is in no cluster: a failover could not be noticed here; use a Redis Cluster, or a node without replicas"
            ))));
        }
        return Ok(Node::Master { id: None });
    }
    let state: String = cmd("CLUSTER").arg("INFO").query(connection)?;
    if !state.contains("cluster_state:ok") {
        return Err(Trouble::Lost("its cluster is not whole".to_owned()));
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

/// The replicas of a master that the cluster has not given up, by the table of CLUSTER NODES; `None` if it is no master.
fn living_replicas(table: &str, node: &str) -> Option<u64> {
    let nodes: Vec<(&str, Vec<&str>, &str)> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (id, _, flags, master) = (
                fields.next()?,
                fields.next()?,
                fields.next()?,
                fields.next()?,
            );
            Some((id, flags.split(',').collect(), master))
        })
        .collect();
    let is_master =
        |(id, flags, _): &(&str, Vec<&str>, &str)| *id == node && flags.contains(&"master");
    nodes.iter().any(is_master).then(|| {
        let living = nodes.iter().filter(|(_, flags, master)| {
            let is_given_up = flags
                .iter()
                .any(|flag| matches!(*flag, "fail" | "noaddr" | "handshake"));
            *master == node && !is_given_up
        });
        living.count() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::living_replicas;

    #[test]
    fn a_replica_counts_until_the_majority_has_given_it_up() {
        let table = |role: &str, flags: &str| {
            format!(
                "m 127.0.0.1:1@2 myself,{role} - 0 0 1 connected 0-5460\n\
                 r 127.0.0.1:3@4 {flags} m 0 0 1 connected\n\
                 o 127.0.0.1:5@6 slave x 0 0 1 connected\n"
            )
        };
        let of = |role, flags| living_replicas(&table(role, flags), "m");
        assert_eq!(of("master", "slave"), Some(1));
        assert_eq!(of("master", "slave,fail?"), Some(1));
        assert_eq!(of("master", "slave,fail"), Some(0));
        assert_eq!(of("slave", "slave"), None, "it was demoted");
        assert_eq!(living_replicas(&table("master", "slave"), "other"), None);
    }
}
