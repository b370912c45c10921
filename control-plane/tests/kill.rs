//! `kill -9` of the real `forebay serve` at random moments under load: every acknowledged change is there afterwards, and no
//! token was granted twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a failed step must stop the test"
)]

mod process;

use forebay_wire::key::{CustomerHash, KeySecret};
use forebay_wire::sync::{CustomerReport, PROTOCOL, SyncReply, SyncRequest};
use process::{ADMIN_TOKEN, GATEWAY_TOKEN, Process, send};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const ROUNDS: u64 = 6;
const CUSTOMERS: u64 = 40;

async fn admin(address: &str, method: &str, path: &str, body: Value) -> Option<Value> {
    let (status, bytes) = send(
        address,
        method,
        path,
        ADMIN_TOKEN,
        body.to_string().into_bytes(),
    )
    .await?;
    assert!(
        status < 300,
        "{method} {path}: {status} {}",
        String::from_utf8_lossy(&bytes)
    );
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn policy() -> Value {
    let customers: Vec<Value> = (0..CUSTOMERS)
        .map(|n| json!({"key": format!("c{n}"), "contract": "gold"}))
        .collect();
    json!({
        "version": 1,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": 10, "burst": 1000}}}},
        "customers": customers
    })
}

/// What was acknowledged, by whoever asked for it.
#[derive(Default)]
struct Acknowledged {
    /// Newest policy version.
    version: u64,
    /// Customer -> sum of credits. The last one may or may not have arrived when the server dies.
    credits: BTreeMap<u64, i64>,
    /// Customer -> banned.
    bans: BTreeMap<u64, bool>,
}

/// A small generator of our own: the seed printed is all that is needed to see the same moments again.
fn next(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

async fn operate(address: String, mut seed: u64, known: &mut Acknowledged) {
    loop {
        let customer = next(&mut seed) % CUSTOMERS;
        let done = match next(&mut seed) % 4 {
            0 => admin(&address, "POST", "/v1/policies", policy())
                .await
                .map(|version| {
                    known.version = version["version"].as_u64().unwrap();
                }),
            1 => {
                let banned = next(&mut seed).is_multiple_of(2);
                let change = if banned { "ban" } else { "unban" };
                let answer = admin(
                    &address,
                    "POST",
                    &format!("/v1/customers/c{customer}/{change}"),
                    json!({}),
                )
                .await;
                if answer.is_none() {
                    known.bans.remove(&customer);
                }
                answer.map(|_| {
                    known.bans.insert(customer, banned);
                })
            }
            _ => {
                let credit = json!({"tokens": 1});
                let answer = admin(
                    &address,
                    "POST",
                    &format!("/v1/customers/c{customer}/credit"),
                    credit,
                )
                .await;
                answer.map(|_| *known.credits.entry(customer).or_default() += 1)
            }
        };
        if done.is_none() {
            return;
        }
    }
}

/// A gateway that reports and applies grants until the server dies.
#[derive(Default)]
struct Gateway {
    sequence: u64,
    reply_applied: u64,
    epoch: u64,
    cursor: u64,
    demand: BTreeMap<u64, u64>,
    granted: BTreeMap<CustomerHash, u64>,
    adjusted: BTreeMap<CustomerHash, i64>,
}

impl Gateway {
    async fn sync(&mut self, address: &str) -> Option<()> {
        self.sequence += 1;
        let secret = KeySecret::development();
        let report = |(customer, demand): (&u64, &u64)| {
            let hash = secret.hash(format!("c{customer}").as_bytes());
            let (hash_high, hash_low) = hash.parts();
            CustomerReport {
                hash_high,
                hash_low,
                demand_micro: *demand,
                granted_seen_micro: self.granted.get(&hash).copied().unwrap_or(0),
                adjust_seen_micro: self.adjusted.get(&hash).copied().unwrap_or(0),
                ..CustomerReport::default()
            }
        };
        let request = SyncRequest {
            protocol: PROTOCOL,
            gateway_id: "g".into(),
            incarnation: 1,
            sequence: self.sequence,
            key_fingerprint: secret.fingerprint(),
            policy_epoch_applied: self.epoch,
            policy_epoch_seen: self.epoch,
            policy_cursor: self.cursor,
            customers: self.demand.iter().map(report).collect(),
            reply_applied: self.reply_applied,
            ..SyncRequest::default()
        };
        let (status, bytes) = send(
            address,
            "POST",
            "/v1/sync",
            GATEWAY_TOKEN,
            request.encode_to_vec(),
        )
        .await?;
        let reply = SyncReply::decode(bytes).unwrap();
        assert_eq!(status, 200, "{:?}", reply.error);
        self.reply_applied = reply.sequence;
        if let Some(policy) = &reply.policy {
            (self.epoch, self.cursor) = (policy.epoch, policy.cursor);
        }
        for grant in &reply.grants {
            let hash = CustomerHash::from_parts(grant.hash_high, grant.hash_low);
            assert!(
                grant.granted_cum_micro <= 1_000_000_000,
                "more than one burst was granted"
            );
            self.granted.insert(hash, grant.granted_cum_micro);
            self.adjusted.insert(hash, grant.adjust_cum_micro);
        }
        Some(())
    }

    async fn run(&mut self, address: String, mut seed: u64) {
        loop {
            for _ in 0..10 {
                *self.demand.entry(next(&mut seed) % CUSTOMERS).or_default() += 1_000_000;
            }
            if self.sync(&address).await.is_none() {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_granted_twice() {
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let directory = tempfile::tempdir().unwrap();
    let (mut known, mut gateway, mut random) = (Acknowledged::default(), Gateway::default(), seed);
    for round in 0..ROUNDS {
        let mut process = Process::start(directory.path()).await;
        let address = process.address.clone();
        if round == 0 {
            known.version = admin(&address, "POST", "/v1/policies", policy())
                .await
                .unwrap()["version"]
                .as_u64()
                .unwrap();
        } else {
            let status = admin(&address, "GET", "/v1/status", Value::Null)
                .await
                .unwrap();
            assert_eq!(status["start"], "unclean");
            let version = status["policy_version"].as_u64().unwrap();
            // Each kill may have left one change behind that was made durable and not acknowledged.
            assert!(
                (known.version..=known.version + round).contains(&version),
                "version {version}, acknowledged {}",
                known.version
            );
            for (customer, banned) in &known.bans {
                let view = admin(
                    &address,
                    "GET",
                    &format!("/v1/customers/c{customer}"),
                    Value::Null,
                )
                .await
                .unwrap();
                assert_eq!(
                    view["banned_until_unix_ms"].is_u64(),
                    *banned,
                    "round {round}, c{customer}: {view}"
                );
            }
        }
        let delay = Duration::from_millis(50 + next(&mut random) % 400);
        let (one, two) = (next(&mut random), next(&mut random));
        let kill = async {
            // The one sleep of this test is its subject: the moment of the kill.
            tokio::time::sleep(delay).await;
            process.kill().await;
        };
        tokio::join!(
            operate(address.clone(), one, &mut known),
            gateway.run(address, two),
            kill
        );
        println!(
            "round {round}: killed after {delay:?}, {} syncs, policy version {}",
            gateway.sequence, known.version
        );
    }
    let process = Process::start(directory.path()).await;
    for _ in 0..3 {
        gateway.sync(&process.address).await.unwrap();
    }
    for (customer, credit) in &known.credits {
        let hash = KeySecret::development().hash(format!("c{customer}").as_bytes());
        // Credits given before the gateway held the customer went into its central bucket, which was full.
        let adjusted = gateway.adjusted.get(&hash).copied().unwrap_or(0) / 1_000_000;
        let early = 1_000 - i64::try_from(gateway.granted[&hash] / 1_000_000).unwrap();
        let range = credit - early - 20..=credit + i64::try_from(ROUNDS).unwrap();
        assert!(
            range.contains(&adjusted),
            "c{customer}: {credit} acknowledged, {adjusted} at the gateway"
        );
    }
    for (customer, demand) in &gateway.demand {
        let view = admin(
            &process.address,
            "GET",
            &format!("/v1/customers/c{customer}"),
            Value::Null,
        )
        .await
        .unwrap();
        assert_eq!(
            view["resources"][0]["demand"].as_f64().unwrap(),
            *demand as f64 / 1e6,
            "c{customer}"
        );
    }
}
