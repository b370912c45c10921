//! The customers: one that asks for much more than its contract, some that stay within their guarantees, and many that come once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forebay_envoy_tests::{Client, Envoy, Protocol, until};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::GATEWAYS;
use super::check::{Admission, excess};

/// Asks for this much at each gateway, and may have 100 a second.
const GREEDY_PER_S: u32 = 150;
const GREEDY: Contract = Contract {
    name: "greedy",
    rate_per_s: 100.0,
    burst: 50.0,
};
/// Asks for less than its guarantee of 20 a second, a third at each gateway.
const STEADY_PER_S: u32 = 4;
const STEADY: Contract = Contract {
    name: "steady",
    rate_per_s: 40.0,
    burst: 40.0,
};
const STEADY_CUSTOMERS: usize = 8;
/// Comes once.
const NEW: Contract = Contract {
    name: "new",
    rate_per_s: 1.0,
    burst: 10.0,
};
const NEW_CUSTOMERS: usize = 2_000;
/// Those of them by whom a gateway is asked whether it has its starters: they come in several replies.
const PROBES: usize = 30;
/// One of those comes this often at each gateway.
const NEW_EVERY: Duration = Duration::from_millis(500);

/// The work of two connections.
const PER_CONNECTION_PER_S: u32 = 25;
/// A request that waits for the control plane or its store takes longer than this.
const WAITED: Duration = Duration::from_secs(1);
/// A request that is not answered by then is an error as well.
const GIVEN_UP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// As in the policy of the control plane.
const SYNC: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
struct Contract {
    name: &'static str,
    rate_per_s: f64,
    burst: f64,
}

/// The gateways, and whether each is to be asked.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    envoy: Option<Envoy>,
    door: Arc<Door>,
}

/// Where a gateway is asked.
#[derive(Debug)]
struct Door {
    address: RwLock<SocketAddr>,
    is_open: AtomicBool,
    /// Requests under way.
    inside: AtomicUsize,
}

/// All that was seen, over several fleets.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    outcome: Outcome,
    run: Option<Run>,
}

/// The traffic of one fleet.
#[derive(Debug)]
struct Run {
    seen: Arc<Mutex<Seen>>,
    /// All of the greedy customer's traffic goes to this gateway; `GATEWAYS`: to each the same.
    greedy_at: Arc<AtomicUsize>,
    started: Instant,
    clients: Vec<JoinHandle<()>>,
}

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    admissions: BTreeMap<String, Vec<Admission>>,
    outcome: Outcome,
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) over_admitted: f64,
    pub(super) waited: u64,
    pub(super) errors: u64,
    pub(super) first_touches: u64,
    pub(super) first_touch_denied: u64,
    pub(super) guarantee_denied: u64,
    pub(super) requests: u64,
    pub(super) admitted: u64,
    pub(super) slowest_ms: f64,
}

/// The policy that the traffic is meant for.
pub(super) fn policy() -> Value {
    let limits = |contract: Contract, guarantee_per_s: u32| {
        let limits = json!({"rate_per_s": contract.rate_per_s, "burst": contract.burst, "guarantee_per_s": guarantee_per_s});
        (
            contract.name.to_owned(),
            json!({"limits": {"requests": limits}}),
        )
    };
    let contracts: serde_json::Map<String, Value> =
        [limits(GREEDY, 30), limits(STEADY, 20), limits(NEW, 0)]
            .into_iter()
            .collect();
    let customer = |key: String, contract: Contract| json!({"key": key, "contract": contract.name});
    let mut customers = vec![customer(GREEDY.name.to_owned(), GREEDY)];
    customers.extend((0..STEADY_CUSTOMERS).map(|number| customer(steady(number), STEADY)));
    customers.extend((0..NEW_CUSTOMERS).map(|number| customer(new(number), NEW)));
    json!({
        "version": 1,
        "unknown": {"action": "deny"},
        "resources": {"requests": {"capacity_per_s": 10_000}},
        "contracts": contracts,
        "customers": customers,
    })
}

fn steady(number: usize) -> String {
    format!("steady-{number}")
}

fn new(number: usize) -> String {
    format!("new-{number}")
}

// === impl Fleet ===

impl Fleet {
    /// Adds a gateway, once it serves.
    pub(super) async fn add(&mut self, envoy: Envoy) -> Result<()> {
        until_served(&envoy).await;
        let door = Arc::new(Door {
            address: RwLock::new(envoy.address("front")),
            is_open: AtomicBool::new(true),
            inside: AtomicUsize::new(0),
        });
        self.members.push(Member {
            envoy: Some(envoy),
            door,
        });
        Ok(())
    }

    /// Kills a gateway. Nobody asks it any more then: a load balancer in front would see to that.
    pub(super) async fn kill(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.door.close().await;
        member.envoy = None;
    }

    /// Puts another process in the place of one that was killed.
    pub(super) async fn replace(&mut self, number: usize, envoy: Envoy) -> Result<()> {
        until_served(&envoy).await;
        let member = &mut self.members[number];
        *member
            .door
            .address
            .write()
            .unwrap_or_else(PoisonError::into_inner) = envoy.address("front");
        member.envoy = Some(envoy);
        member.door.is_open.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Waits until a gateway has its starters.
async fn until_served(envoy: &Envoy) {
    for probe in NEW_CUSTOMERS - PROBES..NEW_CUSTOMERS {
        until("a gateway has its starters", PATIENCE, || async {
            let mut client = envoy.connect("front", Protocol::Http1).await.ok()?;
            let reply = client.get("/", &[("x-customer", &new(probe))]).await.ok()?;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

// === impl Door ===

impl Door {
    /// Lets nobody in any more, and waits until those inside have their answers.
    async fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        until(
            "the requests at a gateway are answered",
            PATIENCE,
            || async { (self.inside.load(Ordering::SeqCst) == 0).then_some(()) },
        )
        .await;
    }

    fn address(&self) -> SocketAddr {
        *self.address.read().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Traffic ===

impl Traffic {
    /// Sends traffic to a fleet from now on.
    pub(super) async fn begin(&mut self, fleet: &Fleet) -> Result<()> {
        let seen = Arc::<Mutex<Seen>>::default();
        let greedy_at = Arc::new(AtomicUsize::new(GATEWAYS));
        let started = Instant::now();
        let mut clients = Vec::new();
        for (number, member) in fleet.members.iter().enumerate() {
            let caller = Caller {
                door: Arc::clone(&member.door),
                seen: Arc::clone(&seen),
                started,
                client: None,
            };
            // The traffic of all three gateways can go to each of them.
            let connections = GREEDY_PER_S / PER_CONNECTION_PER_S;
            for connection in 0..connections * GATEWAYS as u32 {
                let (caller, at) = (caller.again(), Arc::clone(&greedy_at));
                clients.push(tokio::spawn(greedy(
                    caller,
                    at,
                    number,
                    connection < connections,
                )));
            }
            for customer in 0..STEADY_CUSTOMERS {
                clients.push(tokio::spawn(steadily(caller.again(), customer)));
            }
            clients.push(tokio::spawn(once(caller, number)));
        }
        self.run = Some(Run {
            seen,
            greedy_at,
            started,
            clients,
        });
        Ok(())
    }

    /// Lets some time pass, and says what was served in it.
    pub(super) async fn scene(&self, name: &str, length: Duration) {
        let before = self.progress();
        tokio::time::sleep(length).await;
        let after = self.progress();
        let seconds = length.as_secs_f64();
        eprintln!(
            "  {name} for {seconds} s: {:.0} a second of a contract of {}, {} denied within a guarantee",
            (after.0 - before.0) as f64 / seconds,
            GREEDY.rate_per_s,
            after.1 - before.1,
        );
    }

    /// What the greedy customer was admitted, and what was denied within guarantees.
    fn progress(&self) -> (usize, u64) {
        self.run.as_ref().map_or((0, 0), |run| {
            let seen = run.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let greedy = seen.admissions.get(GREEDY.name).map_or(0, Vec::len);
            (greedy, seen.outcome.guarantee_denied)
        })
    }

    /// Sends all of the greedy customer's traffic to one gateway, and counts the syncs until all of the contract is served there for good.
    pub(super) async fn move_all_to(&mut self, gateway: usize, watched: Duration) -> f64 {
        let Some(run) = &self.run else {
            return f64::INFINITY;
        };
        run.greedy_at.store(gateway, Ordering::SeqCst);
        let moved = run.started.elapsed();
        tokio::time::sleep(watched).await;
        let seen = run.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seen.admissions.get(GREEDY.name);
        // Those under way to other gateways had been decided about.
        let mut answered: Vec<Duration> = all
            .into_iter()
            .flatten()
            .filter(|admission| admission.sent >= moved)
            .map(|admission| admission.answered - moved)
            .collect();
        answered.sort_unstable();
        syncs_until_full(&answered, watched)
    }

    /// Stops, and adds what was seen to the figures.
    pub(super) async fn end(&mut self, fleet: &Fleet) -> Result<()> {
        let run = self.run.take().context("no traffic has begun")?;
        for member in &fleet.members {
            member.door.close().await;
        }
        for client in &run.clients {
            client.abort();
        }
        let seen = run.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = &mut self.outcome;
        for (customer, admissions) in &seen.admissions {
            let contract = [GREEDY, STEADY, NEW]
                .into_iter()
                .find(|contract| customer.starts_with(contract.name))
                .context("a customer without a contract")?;
            let over = excess(admissions, contract.rate_per_s, contract.burst);
            if over > 0.0 {
                eprintln!("{customer}: {over:.2} requests too many");
            }
            outcome.over_admitted += over;
        }
        let of_run = &seen.outcome;
        outcome.waited += of_run.waited;
        outcome.errors += of_run.errors;
        outcome.first_touches += of_run.first_touches;
        outcome.first_touch_denied += of_run.first_touch_denied;
        outcome.guarantee_denied += of_run.guarantee_denied;
        outcome.requests += of_run.requests;
        outcome.admitted += of_run.admitted;
        outcome.slowest_ms = outcome.slowest_ms.max(of_run.slowest_ms);
        Ok(())
    }

    /// The figures so far.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

/// The first whole sync interval from which on each second serves 95 of 100 requests of the contract.
fn syncs_until_full(answered: &[Duration], watched: Duration) -> f64 {
    let second = Duration::from_secs(1);
    let enough = (0.95 * GREEDY.rate_per_s) as usize;
    let is_full = |from: Duration| {
        let within = answered
            .iter()
            .filter(|at| (from..from + second).contains(at));
        within.count() >= enough
    };
    let mut full_from = f64::INFINITY;
    let mut syncs = 0;
    while SYNC * syncs + second <= watched {
        if is_full(SYNC * syncs) {
            full_from = full_from.min(f64::from(syncs));
        } else {
            full_from = f64::INFINITY;
        }
        syncs += 1;
    }
    full_from
}

/// Who asks a gateway.
struct Caller {
    door: Arc<Door>,
    seen: Arc<Mutex<Seen>>,
    started: Instant,
    client: Option<(SocketAddr, Client)>,
}

// === impl Caller ===

impl Caller {
    fn again(&self) -> Self {
        Self {
            door: Arc::clone(&self.door),
            seen: Arc::clone(&self.seen),
            started: self.started,
            client: None,
        }
    }

    /// Sends a request. Returns whether it was admitted; `None` if the gateway is not to be asked, or does not answer.
    async fn ask(&mut self, customer: &str) -> Option<bool> {
        self.door.inside.fetch_add(1, Ordering::SeqCst);
        let admitted = if self.door.is_open.load(Ordering::SeqCst) {
            self.ask_inside(customer).await
        } else {
            None
        };
        self.door.inside.fetch_sub(1, Ordering::SeqCst);
        admitted
    }

    async fn ask_inside(&mut self, customer: &str) -> Option<bool> {
        let sent = self.started.elapsed();
        let status = timeout(GIVEN_UP, self.status(customer))
            .await
            .unwrap_or_else(|_| bail!("no answer within {GIVEN_UP:?}"));
        let answered = self.started.elapsed();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = &mut seen.outcome;
        outcome.requests += 1;
        let took = answered - sent;
        outcome.slowest_ms = outcome.slowest_ms.max(took.as_secs_f64() * 1_000.0);
        outcome.waited += u64::from(took >= WAITED);
        match status {
            Ok(200) => {
                outcome.admitted += 1;
                let admission = Admission { sent, answered };
                seen.admissions
                    .entry(customer.to_owned())
                    .or_default()
                    .push(admission);
                Some(true)
            }
            Ok(429) => Some(false),
            other => {
                outcome.errors += 1;
                eprintln!("{customer}: {other:?}");
                drop(seen);
                self.client = None;
                None
            }
        }
    }

    async fn status(&mut self, customer: &str) -> Result<u16> {
        let address = self.door.address();
        let client = match &mut self.client {
            Some((at, client)) if *at == address => client,
            _ => {
                let client = Client::connect(address, Protocol::Http1).await?;
                &mut self.client.insert((address, client)).1
            }
        };
        Ok(client.get("/", &[("x-customer", customer)]).await?.status)
    }
}

async fn greedy(mut caller: Caller, at: Arc<AtomicUsize>, gateway: usize, is_usual: bool) {
    let mut ticks = ticks(Duration::from_secs(1) / PER_CONNECTION_PER_S);
    loop {
        ticks.tick().await;
        let at = at.load(Ordering::SeqCst);
        if at == gateway || (at == GATEWAYS && is_usual) {
            caller.ask(GREEDY.name).await;
        }
    }
}

async fn steadily(mut caller: Caller, customer: usize) {
    let mut ticks = ticks(Duration::from_secs(1) / STEADY_PER_S);
    loop {
        ticks.tick().await;
        if caller.ask(&steady(customer)).await == Some(false) {
            let mut seen = caller.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.outcome.guarantee_denied += 1;
        }
    }
}

/// Each customer comes at one gateway only.
async fn once(mut caller: Caller, gateway: usize) {
    let mut ticks = ticks(NEW_EVERY);
    for customer in (gateway..NEW_CUSTOMERS - PROBES).step_by(GATEWAYS) {
        ticks.tick().await;
        let admitted = caller.ask(&new(customer)).await;
        let mut seen = caller.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.outcome.first_touches += u64::from(admitted.is_some());
        seen.outcome.first_touch_denied += u64::from(admitted == Some(false));
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
