//! `test-fleet`: what a fleet does to its customers while everything behind it fails.
//!
//! Three real Envoys under steady traffic, two real `forebay serve` and a real Redis Cluster of six; then the embedded store on a disk that
//! fills up. Nothing is simulated, and nothing is told what will be done to it. The gateways and the control plane are in two network
//! namespaces, with a cable for each gateway, so that each can be cut off by itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forebay_envoy_tests::{ControlPlane, Envoy, Place, gateway, until};
use forebay_redis_tests::Cluster;
use hyper::Method;
use serde_json::Value;

use crate::report::{Report, median};
use namespace::Namespaces;
use traffic::{Fleet, Traffic};

mod check;
mod namespace;
mod traffic;

const GATEWAYS: usize = 3;
/// Ports of the replicas, in a namespace of their own.
const REPLICAS: [u16; 2] = [7_430, 7_431];
/// The key that lies where all of ours do.
const KEY: &str = "{forebay}:head";

/// A failover of Redis takes three seconds, that of a replica five, a start of Envoy ten on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What comes before the first fault and after each one.
const CALM: Duration = Duration::from_secs(6);
/// Longer than a lease: gateways work with fallback rates at the end of it.
const OUTAGE: Duration = Duration::from_secs(15);
/// How long a process hangs: longer than it leads without saying so, which is 5 s.
const HANG: Duration = Duration::from_secs(8);
/// As long as it takes to see what rate is served.
const MOVED: Duration = Duration::from_secs(6);
/// Where all traffic of a customer goes, one after the other.
const MOVES: [usize; 5] = [2, 0, 1, 2, 1];

/// Runs it in namespaces of its own and publishes the report.
pub(crate) async fn run() -> Result<()> {
    if let Some(control) = std::env::args().nth(2) {
        return inside(&control).await;
    }
    let namespaces = Namespaces::create(GATEWAYS)?;
    let status = namespaces
        .command()
        .arg(std::env::current_exe()?)
        .args(["faults", namespaces.control()])
        .status()
        .context("cannot start in a network namespace")?;
    ensure!(status.success(), "failed: {status}");
    Ok(())
}

async fn inside(control: &str) -> Result<()> {
    let mut report = Report::default();
    let mut traffic = Traffic::default();
    let skew_syncs = replicated(control, &mut traffic).await?;
    embedded(&mut traffic).await?;
    let outcome = traffic.outcome();
    report.add(
        "over_admitted",
        outcome.over_admitted,
        "requests above what the contracts allow, in any span of time (bar: 0)",
    );
    report.add(
        "requests_waited",
        outcome.waited as f64,
        "that took a second or more (bar: 0)",
    );
    report.add(
        "errors",
        outcome.errors as f64,
        "answers other than 200 and 429, and none (bar: 0)",
    );
    report.add(
        "first_touch_denied",
        outcome.first_touch_denied as f64,
        "first requests of customers that were denied (bar: 0)",
    );
    let worst = skew_syncs.iter().copied().fold(0.0, f64::max);
    report.add(
        "skew_syncs",
        worst,
        "syncs until all of a contract is served at one gateway, the worst of five moves (bar: 2)",
    );
    report.add(
        "skew_syncs_median",
        median(&skew_syncs),
        "the same, the median",
    );
    report.add(
        "first_touches",
        outcome.first_touches as f64,
        "first requests of customers",
    );
    report.add(
        "guarantee_denied",
        outcome.guarantee_denied as f64,
        "requests within a guarantee that were denied",
    );
    report.add("requests", outcome.requests as f64, "requests sent");
    report.add("admitted", outcome.admitted as f64, "requests admitted");
    report.add("slowest_ms", outcome.slowest_ms, "the slowest answer");
    report.publish("test-fleet")?;
    let bars = [
        outcome.over_admitted,
        outcome.waited as f64,
        outcome.errors as f64,
        outcome.first_touch_denied as f64,
    ];
    ensure!(bars.iter().all(|figure| *figure <= 0.0), "a bar is missed");
    ensure!(worst <= 2.0, "a bar is missed: skew_syncs");
    Ok(())
}

/// Replicas on Redis. Returns how many syncs it took, after each move, until a gateway served all of a contract.
async fn replicated(control: &str, traffic: &mut Traffic) -> Result<Vec<f64>> {
    let mut redis = Cluster::start_in(Some(control))?;
    let mut replicas = Vec::new();
    for port in REPLICAS {
        let place = Place {
            store: Some(redis.urls()),
            listen: format!("0.0.0.0:{port}"),
            grpc_listen: None,
            advertise: Some(format!("127.0.0.1:{port}")),
            namespace: Some(control.to_owned()),
            core: None,
        };
        replicas.push(ControlPlane::start_in(place).await?);
    }
    let seen_by = |gateway: usize| {
        REPLICAS.map(|port| SocketAddr::new(namespace::address(gateway, true), port))
    };
    let at = seen_by(0);
    let leader = leader(&replicas, &at).await;
    apply_policy(&replicas[leader], at[leader]).await?;
    let mut fleet = Fleet::default();
    for number in 0..GATEWAYS {
        let cluster = ControlPlane::cluster_of(&seen_by(number));
        fleet
            .add(start(&replicas[0], cluster, number).await?)
            .await?;
    }
    traffic.begin(&fleet).await?;
    traffic.scene("calm", CALM).await;

    let leading = self::leader(&replicas, &at).await;
    eprintln!("the leader is killed");
    replicas[leading].kill()?;
    traffic.scene("calm", CALM).await;
    replicas[leading].restart().await?;
    let _next = self::leader(&replicas, &at).await;
    traffic.scene("calm", CALM).await;

    let leading = self::leader(&replicas, &at).await;
    eprintln!("the leader hangs for {HANG:?}");
    replicas[leading].signal("STOP")?;
    traffic.scene("hanging", HANG).await;
    replicas[leading].signal("CONT")?;
    let next = self::leader(&replicas, &at).await;
    ensure!(
        next != leading,
        "nobody has taken the place of the leader that hung"
    );
    traffic.scene("calm", CALM).await;

    let master = redis.master_of(KEY)?;
    eprintln!("the master of the store is killed");
    redis.node_mut(master).kill()?;
    traffic.scene("calm", CALM * 2).await;
    redis.node_mut(master).restart()?;
    until("the cluster of Redis is whole", PATIENCE, || async {
        redis.is_ready().then_some(())
    })
    .await;
    traffic.scene("calm", CALM).await;

    eprintln!("a gateway is cut off");
    Namespaces::cut(0)?;
    traffic.scene("cut off", OUTAGE).await;
    Namespaces::mend(0)?;
    traffic.scene("calm", CALM).await;

    eprintln!("a gateway is killed");
    fleet.kill(1).await;
    traffic.scene("calm", CALM).await;
    let cluster = ControlPlane::cluster_of(&seen_by(1));
    fleet
        .replace(1, start(&replicas[0], cluster, 1).await?)
        .await?;
    traffic.scene("calm", CALM).await;

    eprintln!("both replicas are killed");
    for replica in &mut replicas {
        replica.kill()?;
    }
    traffic.scene("alone", OUTAGE).await;
    for replica in &mut replicas {
        replica.restart().await?;
    }
    let _next = self::leader(&replicas, &at).await;
    traffic.scene("calm", CALM * 2).await;

    let mut skew_syncs = Vec::new();
    for gateway in MOVES {
        let syncs = traffic.move_all_to(gateway, MOVED).await;
        eprintln!("all traffic of a customer moves to gateway {gateway}: {syncs} syncs");
        skew_syncs.push(syncs);
    }
    traffic.end(&fleet).await?;
    Ok(skew_syncs)
}

/// One server with the embedded store, on a disk that fills up.
async fn embedded(traffic: &mut Traffic) -> Result<()> {
    let plane = ControlPlane::start().await?;
    apply_policy(&plane, plane.address()).await?;
    let mut fleet = Fleet::default();
    for number in 0..GATEWAYS {
        fleet
            .add(start(&plane, plane.cluster(), number).await?)
            .await?;
    }
    traffic.begin(&fleet).await?;
    traffic.scene("calm", CALM).await;
    eprintln!("the disk of the embedded store is full");
    plane.limit_files(Some(1))?;
    traffic.scene("full", OUTAGE).await;
    ensure!(
        apply_policy(&plane, plane.address()).await.is_err(),
        "a full disk takes changes"
    );
    plane.limit_files(None)?;
    traffic.scene("calm", CALM * 2).await;
    traffic.end(&fleet).await
}

async fn start(plane: &ControlPlane, cluster: Value, number: usize) -> Result<Envoy> {
    gateway(plane, cluster, &format!("gateway-{number}"), 1).await
}

/// The replica that leads.
async fn leader(replicas: &[ControlPlane], at: &[SocketAddr]) -> usize {
    until("a replica leads", PATIENCE, || async {
        for (number, (replica, at)) in replicas.iter().zip(at).enumerate() {
            if replica.leads(*at).await {
                return Some(number);
            }
        }
        None
    })
    .await
}

async fn apply_policy(plane: &ControlPlane, at: SocketAddr) -> Result<()> {
    let policy = traffic::policy();
    let (status, answer) = plane
        .admin_at(at, Method::POST, "/v1/policies", &policy)
        .await?;
    ensure!(
        status < 300,
        "the policy was refused with {status}: {answer}"
    );
    Ok(())
}
