//! A control plane whose time is moved by hand, customers with ways of their own, and two gateways that say what they ask for.

#![allow(dead_code, reason = "each test file uses its own part")]

use super::kit::{self, Gateway, hash};
use forebay_control_plane::allocation::AllocationsQuery;
use forebay_control_plane::anomaly::{AnomaliesQuery, AnomalyKind, AnomalyView};
use forebay_control_plane::auth::{Caller, Role};
use forebay_control_plane::document::Format;
use forebay_control_plane::keys::Keys;
use forebay_control_plane::plane::{Clock, Plane, Settings};
use forebay_control_plane::store::{MemoryStore, Store};
use forebay_wire::key::CustomerHash;
use forebay_wire::sync::SyncRequest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ten minutes: weeks pass quickly, and the arithmetic is that of steps of a minute.
pub(crate) const STEP_MS: u32 = 600_000;
pub(crate) const STEP_S: f64 = 600.0;
pub(crate) const DAY: u64 = 144;
/// Nobody is judged in the first week.
pub(crate) const LEARNED: u64 = 9 * DAY;
/// Tokens per second.
pub(crate) const RATE: f64 = 100.0;
pub(crate) const GUARANTEE: f64 = 20.0;
pub(crate) const KEYS: [&str; 12] = [
    "acme", "bolt", "cord", "dune", "echo", "fern", "gale", "haze", "iris", "jade", "kelp", "lava",
];

/// What somebody does in a step, in tokens per second.
#[derive(Clone, Copy)]
pub(crate) struct Does {
    pub(crate) asks: f64,
    /// What of that is denied.
    pub(crate) denied: f64,
}

/// A control plane whose time is moved by hand, and two gateways.
pub(crate) struct Site {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) plane: Plane,
    pub(crate) gateways: [Gateway; 2],
    /// What each gateway has denied, in micro-tokens.
    pub(crate) denied: [BTreeMap<CustomerHash, u64>; 2],
    pub(crate) step: u64,
    /// Who asks for something.
    pub(crate) keys: Vec<String>,
    /// The second gateway makes up demand of one customer.
    pub(crate) is_lied_to: bool,
    /// Why cycles were made.
    pub(crate) causes: Vec<String>,
}

pub(crate) fn policy(action: &str, events: &Value) -> Value {
    let limits = json!({"requests": {
        "rate_per_s": RATE, "burst": 1000, "guarantee_per_s": GUARANTEE, "ceiling_per_s": 2000
    }});
    let customers = KEYS.map(|key| json!({"key": key, "contract": "gold"}));
    json!({
        "version": 1,
        "resources": {"requests": {"capacity_per_s": 5000}},
        "sharing": {"interval_ms": STEP_MS, "reserve_share": 0},
        "anomaly": {"action": action},
        "events": events,
        "contracts": {"gold": {"limits": limits}},
        "customers": customers,
    })
}

pub(crate) fn start(store: &Arc<MemoryStore>, clock: &Arc<AtomicU64>) -> Plane {
    let settings = Settings {
        step_ms: STEP_MS,
        lease_ttl_ms: 2 * STEP_MS,
        fallback_ttl_ms: 20 * STEP_MS,
        ..kit::settings()
    };
    let plane = Plane::start(
        Arc::clone(store) as Arc<dyn Store>,
        Keys::new(None, None).unwrap(),
        settings,
        Clock::Manual(Arc::clone(clock)),
    );
    plane.unwrap()
}

pub(crate) fn admin() -> Caller {
    Caller {
        role: Role::Admin,
        fingerprint: String::new(),
    }
}

/// The wall clock when something is asked for in a step.
pub(crate) fn unix_ms(step: u64) -> u64 {
    let clock = AtomicU64::new(step * u64::from(STEP_MS) * 1_000);
    Clock::Manual(Arc::new(clock)).now().unix_ms
}

/// A number from 0 to 1 that looks like chance.
pub(crate) fn noise(seed: u64, place: u64) -> f64 {
    let mixed = (seed << 32 | place)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// As ever: much by day, little by night, 15 % of noise, and customers of different sizes.
pub(crate) fn as_ever(place: usize, step: u64) -> Does {
    let hour = (step % DAY) as f64 / DAY as f64;
    let day = 1.0 - 0.8 * (std::f64::consts::TAU * hour).cos();
    let noise = 0.85 + 0.3 * noise(place as u64, step);
    Does {
        asks: (5.0 + place as f64) * day * noise,
        denied: 0.0,
    }
}

/// The first step of a night after everything is learned: four in the morning.
pub(crate) const NIGHT: u64 = LEARNED + 24;

/// The same for customers that it does not name.
pub(crate) fn open_policy() -> Value {
    let mut policy = policy("cap_at_contract", &json!([]));
    policy["contracts"]["open"] = json!({"limits": {"requests": {
        "rate_per_s": RATE, "burst": 1000, "ceiling_per_s": 2000
    }}});
    policy["unknown"] = json!({"action": "default_contract", "contract": "open"});
    policy
}

impl Site {
    pub(crate) async fn new(action: &str, events: Value) -> Self {
        Self::by(policy(action, &events)).await
    }

    pub(crate) async fn by(policy: Value) -> Self {
        let store: Arc<MemoryStore> = Arc::default();
        let clock = Arc::new(AtomicU64::new(u64::from(STEP_MS) * 1_000));
        let plane = start(&store, &clock);
        let policy = policy.to_string();
        let by = admin();
        plane
            .apply_policy(&by, &policy, Format::Json)
            .await
            .unwrap();
        let mut site = Self {
            store,
            clock,
            plane,
            gateways: ["g1", "g2"].map(|id| Gateway::new(id, 7)),
            denied: Default::default(),
            step: 1,
            keys: KEYS.map(str::to_owned).to_vec(),
            is_lied_to: false,
            causes: Vec::new(),
        };
        // The policy arrives with the first reply.
        site.sync_all().await;
        site
    }

    pub(crate) fn request(&mut self, place: usize) -> SyncRequest {
        let mut request = self.gateways[place].request();
        for report in &mut request.customers {
            let customer = CustomerHash::from_parts(report.hash_high, report.hash_low);
            let denied = self.denied[place].get(&customer).copied().unwrap_or(0);
            report.denied_micro = denied;
            report.admitted_micro = report.demand_micro - denied;
        }
        request
    }

    pub(crate) async fn sync_all(&mut self) {
        for place in 0..2 {
            let request = self.request(place);
            let answer = self.plane.sync(request).await;
            assert_eq!(answer.status, 200, "{:?}", answer.reply.error);
            self.gateways[place].apply(&answer.reply);
        }
    }

    /// Lets a step pass in which customers do something: most of it at the first gateway.
    pub(crate) async fn step(&mut self, does: &impl Fn(usize, u64) -> Does) {
        self.clock
            .fetch_add(u64::from(STEP_MS) * 1_000, Ordering::SeqCst);
        self.step += 1;
        // The first sync after a restart says nothing of when something was asked for.
        self.sync_all().await;
        for (customer, key) in self.keys.iter().enumerate() {
            let Does { asks, denied } = does(customer, self.step);
            for (place, share) in [(0, 0.75), (1, 0.25)] {
                self.gateways[place].spend(key, (asks * share * STEP_S) as u64);
                let micro = (denied * share * STEP_S) as u64 * 1_000_000;
                *self.denied[place].entry(hash(key)).or_default() += micro;
            }
        }
        if self.is_lied_to && self.step >= 8 * DAY {
            self.gateways[1].spend("bolt", (6e7 * noise(99, self.step)) as u64);
        }
        self.sync_all().await;
        self.plane.watch_customers().await.unwrap();
        let cycle = self.plane.allocate_when_due().await.unwrap();
        self.causes.extend(cycle.map(|cycle| cycle.cause));
    }

    pub(crate) async fn steps(&mut self, until: u64, does: &impl Fn(usize, u64) -> Does) {
        while self.step < until {
            self.step(does).await;
        }
    }

    /// The same, and who was flagged at any time: key, kind.
    pub(crate) async fn flagged_until(
        &mut self,
        until: u64,
        does: &impl Fn(usize, u64) -> Does,
    ) -> BTreeSet<(&'static str, &'static str)> {
        let mut flagged = BTreeSet::new();
        while self.step < until {
            self.step(does).await;
            flagged.extend(self.anomalies().iter().map(|anomaly| {
                let kind = match anomaly.kind {
                    AnomalyKind::Unusual => "unusual",
                    AnomalyKind::Crowd => "crowd",
                };
                (key_of(&anomaly.customer), kind)
            }));
        }
        flagged
    }

    pub(crate) fn anomalies(&self) -> Vec<AnomalyView> {
        let view = self.plane.anomalies(&AnomaliesQuery::default());
        view.unwrap().anomalies
    }

    pub(crate) fn of(&self, key: &str) -> Option<AnomalyView> {
        let query = AnomaliesQuery {
            customer: Some(key.to_owned()),
            ..AnomaliesQuery::default()
        };
        let view = self.plane.anomalies(&query).unwrap();
        view.anomalies.into_iter().next()
    }

    /// What a customer is allocated, in tokens per second.
    pub(crate) fn allocated(&self, key: &str) -> f64 {
        let query = AllocationsQuery {
            customer: Some(key.to_owned()),
            ..AllocationsQuery::default()
        };
        let view = self.plane.allocations(&query).unwrap();
        view.customers[0].resources[0].allocated_per_s
    }

    /// Customers that alerts are about, and how those stand.
    pub(crate) fn alerts(&self) -> Vec<(String, String)> {
        let alerts = self.plane.alerts().alerts.into_iter();
        let alerts = alerts.filter(|alert| alert.name == "ForebayCustomerUnusual");
        alerts
            .map(|alert| (alert.customer.unwrap(), alert.state))
            .collect()
    }

    /// What the server has done by itself: action, object.
    pub(crate) fn deeds(&self) -> Vec<(String, String)> {
        let page = self.plane.audit(0, 1_000).unwrap();
        let records = page.records.into_iter();
        let own = records.filter(|record| record.role == "server");
        own.map(|record| (record.action, record.object)).collect()
    }

    pub(crate) async fn restart(&mut self, is_clean: bool) {
        if is_clean {
            self.plane.stop().await.unwrap();
        }
        self.plane = start(&self.store, &self.clock);
    }
}

pub(crate) fn key_of(customer: &str) -> &'static str {
    let named = |key: &&&str| format!("hash:{}", hash(key)) == customer;
    KEYS.iter().find(named).unwrap()
}

pub(crate) fn signs(anomaly: &AnomalyView) -> BTreeSet<&str> {
    let evidence = anomaly.evidence.iter();
    evidence.map(|evidence| evidence.sign.as_str()).collect()
}

/// One asks for more of what it asks for as ever, from a step on for some steps.
pub(crate) fn times(who: usize, factor: f64, from: u64, steps: u64) -> impl Fn(usize, u64) -> Does {
    move |customer, step| {
        let mut does = as_ever(customer, step);
        if customer == who && (from..from + steps).contains(&step) {
            does.asks *= factor;
        }
        does
    }
}
