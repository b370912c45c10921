//! Six Redis servers that are one cluster.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::{Node, free_port};
use crate::wait_for;

const MASTERS: usize = 3;
const NODES: usize = 6;
/// A cluster is made in about two seconds, and its replicas are linked soon after.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Of nodes that keep nothing on disk and give each other up soon.
const QUICK: [&str; 10] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1500",
    "--repl-diskless-sync-delay",
    "0",
    "--save",
    "",
    "--appendonly",
    "no",
];

/// A running cluster: three masters with a replica each. Dropping it kills all of its nodes.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

// === impl Cluster ===

impl Cluster {
    /// Starts one, and waits until each master has its replica.
    pub fn start() -> Result<Self> {
        Self::start_in(None)
    }

    /// Starts one in a network namespace.
    pub fn start_in(namespace: Option<&str>) -> Result<Self> {
        Self::made_of(namespace, &QUICK)
    }

    /// Starts one whose nodes have these options of `redis-server`, but for their ports and folders.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        Self::made_of(None, options)
    }

    fn made_of(namespace: Option<&str>, options: &[&str]) -> Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            // By default it is the node's port and 10000, which may be no port at all.
            let bus = free_port()?.to_string();
            let mut of_node = options.to_vec();
            of_node.extend(["--cluster-port", &bus]);
            nodes.push(Node::start_in(namespace, &of_node)?);
        }
        let addresses: Vec<String> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let first = nodes.first().context("a cluster has nodes")?;
        first.ask(&create)?;
        let cluster = Self { nodes };
        wait_for("the cluster is ready", READY_WITHIN, || cluster.is_ready())?;
        Ok(cluster)
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where they listen, as URLs with commas between them.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Node::url).collect();
        urls.join(",")
    }

    /// The master that holds a key, as those who are alive see it.
    pub fn master_of(&self, key: &str) -> Result<usize> {
        let place = self.nodes.iter().position(|node| {
            // Whoever else is asked sends the client away.
            is_master(node)
                && node.ask(&["EXISTS", key]).is_ok_and(|answer| {
                    !answer.starts_with("MOVED") && !answer.contains("CLUSTERDOWN")
                })
        });
        place.context("no master answers for the key")
    }

    /// The replica of a master.
    pub fn replica_of(&self, master: usize) -> Result<usize> {
        let port = self.nodes[master].port();
        let place = self.nodes.iter().position(|node| {
            node.ask(&["INFO", "replication"])
                .is_ok_and(|info| info.contains(&format!("master_port:{port}")))
        });
        place.context("the master has no replica")
    }

    /// A node, to do something to.
    pub fn node_mut(&mut self, place: usize) -> &mut Node {
        &mut self.nodes[place]
    }

    /// Whether all slots are served, and each master has its replica.
    pub fn is_ready(&self) -> bool {
        let replication = |node: &Node| node.ask(&["INFO", "replication"]).unwrap_or_default();
        let is_ok = |node: &Node| {
            node.ask(&["CLUSTER", "INFO"])
                .is_ok_and(|info| info.contains("cluster_state:ok"))
        };
        let with_replica = self
            .nodes
            .iter()
            .filter(|node| is_master(node) && replication(node).contains("state=online"));
        // A node hears of its replicas by gossip, after they have begun to follow it.
        let knows_replicas = |node: &Node| {
            let table = node.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
            let replicas = table
                .lines()
                .filter(|line| line.contains("slave ") && !line.contains("fail"));
            replicas.count() == MASTERS
        };
        self.nodes.iter().all(is_ok)
            && with_replica.count() == MASTERS
            && self.nodes.iter().all(knows_replicas)
    }
}

fn is_master(node: &Node) -> bool {
    node.ask(&["INFO", "replication"])
        .is_ok_and(|info| info.contains("role:master"))
}
