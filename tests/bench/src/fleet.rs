//! `bench-fleet`: how many gateways one core of `forebay serve` holds, and what they say to each other.
//!
//! The server is the real one, on a core of its own. The gateways are models of the simulator crate (production entries, the real
//! protocol) that speak HTTP from the other core, each on a connection of its own: that many real Envoys do not fit into a machine.
//! Customers are drawn by Zipf's law from a list that all gateways share, so that the busiest ones are everywhere and most are at a few.
//! A sync is late from the moment at which it was due, not from when it could be sent.

use std::collections::{BTreeSet, HashSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use forebay_core::pace::{Asked, Pace};
use forebay_core::{CustomerHash, Micro, TimeUs};
use forebay_envoy_tests::{Client, ControlPlane, Place, Protocol, until};
use forebay_redis_tests::Node;
use forebay_simulator::Gateway;
use forebay_wire::key::KeySecret;
use forebay_wire::sync::{CONTENT_TYPE, SYNC_PATH, SyncReply};
use hyper::Method;
use prost::Message;
use serde_json::json;
use tokio::time::Instant;

use crate::report::{Report, percentile};
use crate::zipf::Zipf;

mod recipe;

/// The server has this core to itself; the gateways, and Redis, have the others.
const SERVER_CORE: u32 = 0;

/// Customers of the policy.
const CUSTOMERS: usize = 20_000;
/// Of those, so many are active at a gateway.
const ACTIVE: usize = 1_000;
const REQUESTS_PER_S: u64 = 1_000;
const SYNC_MS: u64 = 250;
/// The smallest contract.
const LEAST_PER_S: f64 = 8.0;

/// The fleets that are tried, until one is too large.
const FLEETS: [usize; 7] = [10, 25, 50, 100, 150, 200, 300];

/// As the guide asks for it.
const DURABLE: [&str; 6] = [
    "--save",
    "",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
];

/// Syncs are counted in so many rounds, each this long, after the fleet has settled.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
const MEASURED_S: f64 = ROUND.as_secs_f64() * ROUNDS as f64;
const SETTLING: Duration = Duration::from_secs(20);
/// All gateways have their policy and their grants within this time.
const JOINING: Duration = Duration::from_secs(120);

/// The bar: what 99 of 100 syncs take at most.
const P99_MS: f64 = 20.0;

/// A gateway looks whether requests or syncs are due at this pace.
const TURN: Duration = Duration::from_millis(10);

/// What a fleet came to.
#[derive(Debug, Default)]
struct Outcome {
    /// How late each reply of a round was, in milliseconds after its sync was due.
    latencies_ms: [Vec<f64>; ROUNDS],
    requests: u64,
    denied: u64,
    syncs: u64,
    bytes: u64,
    reports: u64,
    grants: u64,
}

/// A member of the fleet and its way to the server.
struct Member {
    gateway: Gateway,
    pace: Pace,
    client: Client,
    authorization: String,
    /// Its active customers, the busiest first.
    customers: Vec<CustomerHash>,
    popularity: Zipf,
    random: u64,
    clock: Clock,
    asked_until: TimeUs,
    outcome: Outcome,
    round: usize,
    /// How many of the fleet have not joined yet.
    missing: Arc<AtomicUsize>,
}

/// One clock for all.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

/// Where the server keeps its state.
#[derive(Clone, Copy, Debug)]
enum Store {
    Embedded,
    /// One node, on the core of the gateways.
    Redis,
}

/// The largest fleet that was held, and what the syncs of it, or of the smallest one that was not, came to.
struct Held {
    gateways: usize,
    p99_ms: f64,
    outcome: Outcome,
}

/// Runs the bench and publishes its report.
pub(crate) async fn run() -> Result<()> {
    let mut report = Report::default();
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > 1, "the server and the gateways need a core each");
    run_on(&format!("1-{}", cores - 1))?;
    let embedded = largest(Store::Embedded).await?;
    report.add(
        "gateways_embedded",
        embedded.gateways as f64,
        "gateways on one core (bar: 200)",
    );
    report.add(
        "sync_p99_ms",
        embedded.p99_ms,
        "of that fleet, from when it was due (bar: 20)",
    );
    let requests = embedded.outcome.requests as f64;
    report.add(
        "messages_per_request",
        2.0 * embedded.outcome.syncs as f64 / requests,
        "requests and replies of syncs (bar: 0.01)",
    );
    report.add(
        "bytes_per_request",
        embedded.outcome.bytes as f64 / requests,
        "bodies of both",
    );
    let redis = largest(Store::Redis).await?;
    report.add(
        "gateways_redis",
        redis.gateways as f64,
        "the same on one node of Redis (bar: 100)",
    );
    report.add("sync_p99_ms_redis", redis.p99_ms, "of that fleet (bar: 20)");
    run_on(&format!("0-{}", cores - 1))?;
    recipe::run(&mut report).await?;
    report.publish("bench-fleet")
}

/// Leaves this program, and what it starts from now on, these cores of the machine.
fn run_on(cores: &str) -> Result<()> {
    let status = Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", cores])
        .arg(std::process::id().to_string())
        .stdout(Stdio::null())
        .status()
        .context("taskset (Debian package util-linux) cannot be started")?;
    ensure!(status.success(), "taskset failed: {status}");
    Ok(())
}

async fn largest(store: Store) -> Result<Held> {
    let mut held: Option<Held> = None;
    for gateways in FLEETS {
        let outcome = fleet(gateways, store).await?;
        let p99_ms = outcome.latency_ms(0.99);
        eprintln!(
            "{gateways} gateways, {store:?}: sync p50 {:.1} ms, p99 {p99_ms:.1} ms; {:.1} syncs/s each, {:.1} % denied, {:.1} reports and {:.1} grants a sync",
            outcome.latency_ms(0.5),
            outcome.syncs as f64 / MEASURED_S / gateways as f64,
            100.0 * outcome.denied as f64 / outcome.requests as f64,
            outcome.reports as f64 / outcome.syncs as f64,
            outcome.grants as f64 / outcome.syncs as f64,
        );
        let is_held = p99_ms <= P99_MS;
        if is_held || held.is_none() {
            held = Some(Held {
                gateways: if is_held { gateways } else { 0 },
                p99_ms,
                outcome,
            });
        }
        if !is_held {
            break;
        }
    }
    held.context("no fleet was tried")
}

async fn fleet(gateways: usize, store: Store) -> Result<Outcome> {
    let node = match store {
        Store::Embedded => None,
        Store::Redis => Some(Node::start_with(&DURABLE)?),
    };
    let place = Place {
        store: node.as_ref().map(Node::url),
        core: Some(SERVER_CORE),
        ..Place::default()
    };
    let plane = ControlPlane::start_in(place).await?;
    until("the server leads", JOINING, || async {
        plane.leads(plane.address()).await.then_some(())
    })
    .await;
    let active: Vec<Vec<usize>> = (0..gateways).map(active).collect();
    let policy = policy(&active);
    let (status, answer) = plane.admin(Method::POST, "/v1/policies", &policy).await?;
    ensure!(
        status < 300,
        "the policy was refused with {status}: {answer}"
    );
    let secret = KeySecret::from_hex(ControlPlane::key_hash_secret())?;
    let clock = Clock(Instant::now());
    let missing = Arc::new(AtomicUsize::new(gateways));
    let mut members = Vec::new();
    for (number, ranks) in active.iter().enumerate() {
        let missing = Arc::clone(&missing);
        members.push(Member::new(number, ranks, &plane, &secret, clock, missing).await?);
    }
    let tasks: Vec<_> = members
        .into_iter()
        .map(|member| tokio::spawn(member.run()))
        .collect();
    let started = Instant::now();
    until("all gateways have joined", JOINING, || async {
        (missing.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await;
    let joined_after = started.elapsed();
    tokio::time::sleep(SETTLING).await;
    let before = plane.cpu_time()?;
    tokio::time::sleep(ROUND * ROUNDS as u32).await;
    let used = plane.cpu_time()?.saturating_sub(before);
    eprintln!(
        "{gateways} gateways: joined within {joined_after:.1?}; server busy {:.2}",
        used.as_secs_f64() / MEASURED_S,
    );
    let mut all = Outcome::default();
    for task in tasks {
        all.add(task.await.context("a gateway panicked")??);
    }
    Ok(all)
}

/// The customers that are active at a gateway, by rank.
fn active(gateway: usize) -> Vec<usize> {
    let all = Zipf::new(CUSTOMERS);
    let mut random = splitmix(gateway as u64);
    let mut ranks = BTreeSet::new();
    while ranks.len() < ACTIVE {
        random = splitmix(random);
        ranks.insert(all.pick(random));
    }
    ranks.into_iter().collect()
}

/// Contracts by powers of two, each between 1.25 and 2.5 times what its customer asks for on average, or the smallest.
fn policy(active: &[Vec<usize>]) -> serde_json::Value {
    let mut asked_per_s = vec![0.0; CUSTOMERS];
    for ranks in active {
        let popularity = Zipf::of(ranks);
        for (place, rank) in ranks.iter().enumerate() {
            asked_per_s[*rank] += REQUESTS_PER_S as f64 * popularity.share(place);
        }
    }
    let rate_per_s = |rank: usize| -> u64 {
        2_u64.pow((1.25 * asked_per_s[rank]).max(LEAST_PER_S).log2().ceil() as u32)
    };
    let customers: Vec<_> = (0..CUSTOMERS)
        .map(|rank| json!({"key": key(rank), "contract": format!("c{}", rate_per_s(rank))}))
        .collect();
    let rates: HashSet<u64> = (0..CUSTOMERS).map(rate_per_s).collect();
    let contracts: serde_json::Map<_, _> = rates
        .into_iter()
        .map(|rate| {
            let limits = json!({"rate_per_s": rate, "burst": 4 * rate});
            (format!("c{rate}"), json!({"limits": {"requests": limits}}))
        })
        .collect();
    json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {}},
        "contracts": contracts,
        "customers": customers,
    })
}

fn key(rank: usize) -> String {
    format!("customer-{rank}")
}

// === impl Clock ===

impl Clock {
    fn now(self) -> TimeUs {
        TimeUs(1_000_000).plus_us(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

// === impl Member ===

impl Member {
    async fn new(
        number: usize,
        ranks: &[usize],
        plane: &ControlPlane,
        secret: &KeySecret,
        clock: Clock,
        missing: Arc<AtomicUsize>,
    ) -> Result<Self> {
        let random = splitmix(u64::MAX - number as u64);
        let customers = ranks
            .iter()
            .map(|rank| CustomerHash(secret.hash(key(*rank).as_bytes()).0))
            .collect();
        let now = clock.now();
        // Fleets that were started at one time do not sync at one time.
        let offset_us = random % (SYNC_MS * 1_000);
        Ok(Self {
            gateway: Gateway::new(format!("gateway-{number}"), 1, secret.fingerprint()),
            pace: Pace::new(SYNC_MS * 1_000, random, now.plus_us(offset_us)),
            client: Client::connect(plane.address(), Protocol::Http1).await?,
            authorization: format!("Bearer {}", ControlPlane::gateway_token()),
            customers,
            popularity: Zipf::of(ranks),
            random,
            clock,
            asked_until: now,
            outcome: Outcome::default(),
            round: 0,
            missing,
        })
    }

    /// Joins, settles, and is measured.
    async fn run(mut self) -> Result<Outcome> {
        let joined_by = Instant::now() + JOINING;
        let mut has_joined = false;
        while self.missing.load(Ordering::Relaxed) > 0 {
            ensure!(Instant::now() < joined_by, "a gateway got no policy");
            self.turn().await?;
            if self.gateway.is_ready() && !std::mem::replace(&mut has_joined, true) {
                self.missing.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let settled_at = Instant::now() + SETTLING;
        while Instant::now() < settled_at {
            self.turn().await?;
        }
        self.outcome = Outcome::default();
        for round in 0..ROUNDS {
            self.round = round;
            let until = Instant::now() + ROUND;
            while Instant::now() < until {
                self.turn().await?;
            }
        }
        Ok(self.outcome)
    }

    /// What has come due by now, and a pause.
    async fn turn(&mut self) -> Result<()> {
        let now = self.clock.now();
        if self.gateway.is_ready() {
            self.requests_until(now);
        }
        if self.pace.due_at() <= now {
            self.sync().await?;
        }
        let pause_us = self.pace.due_at().since(self.clock.now());
        tokio::time::sleep(TURN.min(Duration::from_micros(pause_us))).await;
        Ok(())
    }

    /// Requests come evenly, each from a customer drawn by popularity.
    fn requests_until(&mut self, now: TimeUs) {
        let gap_us = 1_000_000 / REQUESTS_PER_S;
        self.asked_until = self
            .asked_until
            .max(TimeUs(now.0.saturating_sub(1_000_000)));
        while self.asked_until.plus_us(gap_us) <= now {
            self.asked_until = self.asked_until.plus_us(gap_us);
            self.random = splitmix(self.random);
            let customer = self.customers[self.popularity.pick(self.random)];
            let is_admitted =
                self.gateway
                    .request(customer, Micro::from_tokens(1), self.asked_until);
            self.outcome.requests += 1;
            if !is_admitted {
                self.outcome.denied += 1;
                if self.gateway.lies_elsewhere(customer) {
                    self.pace.hurry(self.gateway.looks_at(self.asked_until));
                }
            }
        }
    }

    async fn sync(&mut self) -> Result<()> {
        let due_at = self.pace.due_at();
        let now = self.clock.now();
        self.pace.sent(now);
        let request = self.gateway.next_request(now);
        let reports = request.customers.len();
        let body = Bytes::from(request.encode_to_vec());
        let sent_bytes = body.len();
        let headers = [
            ("content-type", CONTENT_TYPE.as_bytes()),
            ("authorization", self.authorization.as_bytes()),
        ];
        let answer = self
            .client
            .send(&Method::POST, SYNC_PATH, &headers, body)
            .await?;
        ensure!(
            answer.status == 200,
            "a sync was answered with {}",
            answer.status
        );
        let now = self.clock.now();
        let reply = SyncReply::decode(&*answer.body)?;
        let is_partial = self.gateway.apply(&reply, now)?;
        self.pace.answered(Asked {
            early_us: u64::from(reply.early_sync_ms) * 1_000,
            is_partial,
            ..Asked::default()
        });
        self.outcome.syncs += 1;
        self.outcome.reports += reports as u64;
        self.outcome.grants += reply.grants.len() as u64;
        self.outcome.bytes += (sent_bytes + answer.body.len()) as u64;
        self.outcome.latencies_ms[self.round].push(now.since(due_at) as f64 / 1e3);
        Ok(())
    }
}

// === impl Outcome ===

impl Outcome {
    /// A percentile of how late replies are: of the middle round, because a machine that stops for a moment says nothing of the server.
    fn latency_ms(&self, part: f64) -> f64 {
        let of_rounds: Vec<f64> = self
            .latencies_ms
            .iter()
            .map(|latencies_ms| percentile(latencies_ms, part))
            .collect();
        percentile(&of_rounds, 0.5)
    }

    fn add(&mut self, mut other: Self) {
        for (all, more) in self.latencies_ms.iter_mut().zip(&mut other.latencies_ms) {
            all.append(more);
        }
        self.requests += other.requests;
        self.denied += other.denied;
        self.syncs += other.syncs;
        self.bytes += other.bytes;
        self.reports += other.reports;
        self.grants += other.grants;
    }
}

fn splitmix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
