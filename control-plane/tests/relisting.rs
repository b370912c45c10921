//! Customers that a policy stops listing and lists again within one life of the gateway: the gateway drops the entry and makes
//! a new one, and whatever is lost, repeated or lumped together meanwhile, nothing refills.
//!
//! The gateway here keeps its entry with the rules of the core, as the real one does, and the server is the real one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed step must stop the test"
)]

mod kit;

use axum::http::StatusCode;
use forebay_core::amount::{Micro, Rate};
use forebay_core::grant::{Grant as CoreGrant, GrantTerms};
use forebay_core::lease::Lease;
use forebay_core::ledger::{CustomerHash as CoreHash, Entry};
use forebay_core::policy::{ContractIndex, Policy};
use forebay_core::resource::ResourceIndex;
use forebay_core::time::TimeUs;
use forebay_wire::sync::{
    CustomerReport, FLAG_NOT_GRANTED, Grant, PolicyDelta, SyncReply, SyncRequest,
};
use kit::{Gateway, TestServer, hash};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const RATE_PER_S: i64 = 20;
const BURST: i64 = 50;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The policy lists acme, or does not.
    Policy { is_listed: bool },
    /// A sync; each part of it may be lost, and the request may arrive twice.
    Sync {
        request_arrives: bool,
        arrives_twice: bool,
        reply_arrives: bool,
    },
    /// Acme asks for so many tokens.
    Spend(i64),
    /// Time passes.
    Wait { ms: u64 },
    /// The forecaster's VM traps: it forgets where it stood, the ledger stays.
    Trap,
    /// The control plane is killed and comes back.
    Kill,
    /// The operator gives tokens; they count as allowed from here on.
    Credit(i64),
    /// The operator bans and unbans acme.
    BanAndUnban,
}

/// One customer's entry in a ledger, and the conversation about it.
struct Life {
    talk: Gateway,
    entry: Option<Entry>,
    policy: Option<Policy>,
    at: TimeUs,
}

/// All that was admitted and all that was given, in order of time.
#[derive(Default)]
struct Account {
    admitted: Vec<(u64, i64)>,
    credited: i64,
}

fn policy(is_listed: bool, unknown: &Value) -> Value {
    let customers = if is_listed {
        json!([{"key": "acme", "contract": "gold"}, {"key": "bolt", "contract": "gold"}])
    } else {
        json!([{"key": "bolt", "contract": "gold"}])
    };
    json!({
        "version": 1,
        "unknown": unknown,
        "resources": {"requests": {}},
        "contracts": {"gold": {"limits": {"requests": {"rate_per_s": RATE_PER_S, "burst": BURST}}}},
        "customers": customers
    })
}

impl Life {
    fn new() -> Self {
        Self {
            talk: Gateway::new("g1", 7),
            entry: None,
            policy: None,
            at: TimeUs(0),
        }
    }

    fn lease() -> Lease {
        // Long enough for any schedule: leases have tests of their own.
        let end = TimeUs(u64::MAX / 2);
        Lease::Waiting.renewed(TimeUs(0), end, end)
    }

    fn request(&mut self) -> SyncRequest {
        let mut request = self.talk.request();
        let applied = self.talk.reply_applied;
        let entries = self.entry.iter();
        request.customers = entries.map(|entry| report(entry, applied)).collect();
        request
    }

    fn apply(&mut self, reply: &SyncReply) {
        assert_eq!(reply.error, None);
        self.talk.reply_applied = reply.sequence;
        if let Some(delta) = &reply.policy {
            self.install(delta);
        }
        let (hash_high, hash_low) = hash("acme").parts();
        for grant in &reply.grants {
            if (grant.hash_high, grant.hash_low) == (hash_high, hash_low) {
                self.take(grant);
            }
        }
    }

    fn install(&mut self, delta: &PolicyDelta) {
        assert!(delta.complete, "the tests' policies fit into one part");
        if delta.full {
            self.policy = Some(Policy::decode(&delta.compiled).unwrap());
        }
        (self.talk.epoch, self.talk.cursor) = (delta.epoch, delta.cursor);
        let (hash_high, hash_low) = hash("acme").parts();
        let listed = delta
            .customers
            .iter()
            .find(|customer| (customer.hash_high, customer.hash_low) == (hash_high, hash_low));
        match listed {
            None if delta.full => self.entry = None,
            None => {}
            Some(customer) => {
                let contract = ContractIndex(u16::try_from(customer.contract).unwrap());
                let newcomer =
                    || Entry::absent_since(CoreHash(hash("acme").0), contract, TimeUs(0));
                let entry = self.entry.get_or_insert_with(newcomer);
                entry.flags.in_policy = true;
                entry.contract = contract;
            }
        }
    }

    fn take(&mut self, grant: &Grant) {
        let (Some(entry), Some(policy)) = (&mut self.entry, &self.policy) else {
            return;
        };
        let grant = CoreGrant {
            terms: GrantTerms {
                rate: Rate::new(grant.rate_micro_per_s),
                cap: Micro::new(i64::try_from(grant.local_cap_micro).unwrap()),
                fallback_rate: Rate::new(grant.fallback_rate_micro_per_s),
            },
            granted_cum: grant.granted_cum_micro,
            adjust_cum: grant.adjust_cum_micro,
            base_cum: grant.base_cum_micro,
        };
        entry.apply_grant(
            ResourceIndex::FIRST,
            &grant,
            policy,
            &Self::lease(),
            self.at,
        );
    }

    /// Admits what there is of `tokens`; returns how many.
    fn spend(&mut self, tokens: i64) -> i64 {
        let (Some(entry), Some(policy)) = (&mut self.entry, &self.policy) else {
            return 0;
        };
        entry.refill(policy, &Self::lease(), self.at);
        let holding = entry.holdings.at_mut(ResourceIndex::FIRST);
        let affordable = Micro::from_tokens(tokens.unsigned_abs())
            .min(holding.contract.level)
            .at_least_zero();
        holding.contract.take(affordable);
        holding.admitted_cum += affordable.get().unsigned_abs();
        affordable.get()
    }
}

fn report(entry: &Entry, reply_applied: u64) -> CustomerReport {
    let (hash_high, hash_low) = hash("acme").parts();
    let holding = entry.holdings.at(ResourceIndex::FIRST);
    CustomerReport {
        hash_high,
        hash_low,
        demand_micro: holding.admitted_cum,
        admitted_micro: holding.admitted_cum,
        balance_micro: holding.contract.level.get(),
        granted_seen_micro: holding.moved_cum,
        reply_applied,
        flags: if entry.is_granted(ResourceIndex::FIRST) {
            0
        } else {
            FLAG_NOT_GRANTED
        },
        ..CustomerReport::default()
    }
}

impl Account {
    fn admit(&mut self, at: TimeUs, micro: i64) {
        self.admitted.push((at.0, micro));
    }

    /// `burst + rate x t` for every span between two admissions.
    fn check(&self) -> Result<(), String> {
        for (first, (from, _)) in self.admitted.iter().enumerate() {
            let mut sum = 0;
            for (to, micro) in &self.admitted[first..] {
                sum += micro;
                let t_us = i64::try_from(to - from).unwrap();
                let allowed = BURST * 1_000_000 + RATE_PER_S * t_us + self.credited;
                if sum > allowed {
                    return Err(format!(
                        "admitted {sum} micro-tokens in {t_us} us, allowed are {allowed}"
                    ));
                }
            }
        }
        Ok(())
    }
}

async fn run(steps: Vec<Step>, unknown: &Value) -> Result<(), String> {
    let mut server = TestServer::new();
    server
        .ok("POST", "/v1/policies", policy(true, unknown))
        .await;
    let (mut life, mut account) = (Life::new(), Account::default());
    for step in steps {
        life.at = TimeUs(server.clock.load(Ordering::SeqCst));
        match step {
            Step::Policy { is_listed } => {
                server
                    .ok("POST", "/v1/policies", policy(is_listed, unknown))
                    .await;
            }
            Step::Sync {
                request_arrives,
                arrives_twice,
                reply_arrives,
            } => {
                let request = life.request();
                if !request_arrives {
                    continue;
                }
                let (status, reply) = server.sync(&request).await;
                assert_eq!(status, StatusCode::OK, "{reply:?}");
                if arrives_twice {
                    let (status, again) = server.sync(&request).await;
                    assert_eq!(status, StatusCode::CONFLICT, "{again:?}");
                }
                if reply_arrives {
                    life.apply(&reply);
                }
            }
            Step::Spend(tokens) => {
                let micro = life.spend(tokens);
                account.admit(life.at, micro);
            }
            Step::Wait { ms } => server.advance_ms(ms),
            Step::Trap => (life.talk.cursor, life.talk.reply_applied) = (0, 0),
            Step::Kill => server = server.killed(),
            Step::Credit(tokens) => {
                let path = "/v1/customers/acme/credit";
                let (status, _) = server.admin("POST", path, json!({"tokens": tokens})).await;
                if status.is_success() {
                    account.credited += tokens * 1_000_000;
                }
            }
            Step::BanAndUnban => {
                for path in ["/v1/customers/acme/ban", "/v1/customers/acme/unban"] {
                    server.admin("POST", path, json!({})).await;
                }
            }
        }
        account.check()?;
    }
    Ok(())
}

fn any_step() -> impl Strategy<Value = Step> {
    let arrives = || prop::bool::weighted(0.8);
    prop_oneof![
        2 => any::<bool>().prop_map(|is_listed| Step::Policy { is_listed }),
        6 => (arrives(), any::<bool>(), arrives()).prop_map(|(request_arrives, arrives_twice, reply_arrives)| Step::Sync {
            request_arrives,
            arrives_twice,
            reply_arrives,
        }),
        4 => (1_i64..80).prop_map(Step::Spend),
        3 => prop_oneof![0_u64..400, 2_000_u64..6_000].prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Trap),
        1 => Just(Step::Kill),
        1 => (1_i64..30).prop_map(Step::Credit),
        1 => Just(Step::BanAndUnban),
    ]
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(work)
}

/// Syncs until everything that is on its way has arrived.
fn settled() -> Vec<Step> {
    vec![
        Step::Sync {
            request_arrives: true,
            arrives_twice: false,
            reply_arrives: true,
        };
        3
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_schedule_of_listing_and_lost_messages_admits_more_than_the_contract(
        steps in prop::collection::vec(any_step(), 1..60),
        unknowns_have_a_contract in any::<bool>(),
    ) {
        let unknown = if unknowns_have_a_contract {
            json!({"action": "default_contract", "contract": "gold"})
        } else {
            json!({"action": "deny"})
        };
        let steps = settled().into_iter().chain(steps).collect();
        if let Err(reason) = block_on(run(steps, &unknown)) {
            prop_assert!(false, "{reason}");
        }
    }
}

/// The plain case, and what the customer may expect in it.
#[test]
fn a_customer_that_is_listed_again_has_what_has_flowed_since_it_was_dropped() {
    block_on(async {
        let server = TestServer::new();
        let deny = json!({"action": "deny"});
        let mut life = Life::new();
        let mut counted = Vec::new();
        for (is_listed, wait_ms) in [(true, 0), (false, 0), (true, 0), (false, 4_000), (true, 0)] {
            server
                .ok("POST", "/v1/policies", policy(is_listed, &deny))
                .await;
            for _ in 0..3 {
                life.at = TimeUs(server.clock.load(Ordering::SeqCst));
                let reply = server.sync(&life.request()).await.1;
                life.apply(&reply);
            }
            counted.push(life.spend(100) / 1_000_000);
            server.advance_ms(wait_ms);
        }
        // Chunks drawn before the drop live for two seconds, and only then does anything flow back.
        assert_eq!(counted, [BURST, 0, 0, 0, 2 * RATE_PER_S]);
    });
}
