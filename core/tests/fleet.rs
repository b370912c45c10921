//! Many gateways and one contract: whatever is lost, repeated, delayed or restarted, the fleet admits what one bucket would.
//!
//! The gateways' side is the production entry with its lease; the central side is `core::fleet`. In between is a network that loses,
//! repeats and reorders. An ideal bucket of the whole contract looks on: each admission must find its tokens there, which is the
//! bound `burst + rate x t` over every window of time.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

use forebay_core::bucket::Bucket;
use forebay_core::fleet::{self, Central, Presence, Reserved, Share, ShareReport, Target, Whole};
use forebay_core::grant::GrantTerms;
use forebay_core::lease::Lease;
use forebay_core::ledger::Entry;
use forebay_core::limits::CHUNK_LIFE_US;
use forebay_core::policy::{Contract, ContractIndex, Limits, Resource, ShadowRule, Tier, Unknown};
use forebay_core::{CustomerHash, Micro, PerResource, Policy, Rate, ResourceIndex, TimeUs};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const FIRST: ResourceIndex = ResourceIndex::FIRST;
const GATEWAYS: usize = 2;
const START: TimeUs = TimeUs(1_000_000_000);
const LEASE_US: u64 = 1_000_000;
const FALLBACK_US: u64 = 4_000_000;
/// What the central side adds to a lease: a chunk drawn in its last moment is spent later.
const SLACK_US: u64 = 100_000 + CHUNK_LIFE_US;
/// Each bucket may be ahead by the fraction of a micro-token that it carries.
const ROUNDING: Micro = Micro::new(64);

#[derive(Clone, Debug)]
enum Step {
    Advance {
        us: u64,
    },
    Request {
        gateway: usize,
        tokens: i64,
    },
    /// Everything that the gateway's bucket holds is admitted.
    Drain {
        gateway: usize,
    },
    Lend {
        gateway: usize,
        tokens: i64,
    },
    SpendChunk {
        gateway: usize,
        tokens: i64,
    },
    LoseChunk {
        gateway: usize,
    },
    ReadReport {
        gateway: usize,
    },
    Send {
        gateway: usize,
    },
    /// A request that is on its way arrives; it may arrive again.
    Arrive {
        pick: usize,
        keep: bool,
        law: Law,
    },
    /// The reply reaches the gateway, whole or in part.
    Deliver {
        gateway: usize,
        in_full: bool,
    },
    Restart {
        gateway: usize,
    },
    Adjust {
        gateway: usize,
        tokens: i64,
    },
}

/// What some law wants: any law must be safe.
#[derive(Clone, Copy, Debug)]
struct Law {
    rate_eighths: u64,
    cap_eighths: u64,
    fallback_eighths: u64,
    tokens: i64,
}

#[derive(Clone, Debug)]
struct Request {
    gateway: usize,
    incarnation: u64,
    sequence: u64,
    sent_at: TimeUs,
    applied: u64,
    report: ShareReport,
}

#[derive(Clone, Copy, Debug)]
struct Reply {
    sequence: u64,
    sent_at: TimeUs,
    grant: Option<forebay_core::grant::Grant>,
}

#[derive(Debug)]
struct Gateway {
    incarnation: u64,
    entry: Entry,
    lease: Lease,
    sequence: u64,
    applied: u64,
    batch: Option<ShareReport>,
    reply: Option<Reply>,
    chunks: Vec<(Micro, TimeUs)>,
}

#[derive(Debug)]
struct Session {
    incarnation: u64,
    sequence: u64,
    replied_at: TimeUs,
    is_told: bool,
}

#[derive(Debug)]
struct World {
    now: TimeUs,
    policy: Policy,
    whole: Whole,
    ideal: Bucket,
    ideal_at: TimeUs,
    gateways: Vec<Gateway>,
    network: Vec<Request>,
    central: Central,
    shares: BTreeMap<usize, Share>,
    sessions: BTreeMap<usize, Session>,
    retired: BTreeSet<u64>,
    incarnations: u64,
    admitted: Micro,
}

impl World {
    fn new(rate: u64, burst: i64) -> Self {
        let limits = Limits::plain(Rate::new(rate), Micro::new(burst));
        let whole = Whole {
            rate: limits.rate,
            depth: limits.burst,
        };
        let mut world = World {
            now: START,
            policy: policy(limits),
            whole,
            ideal: Bucket::full(limits.burst.plus(ROUNDING)),
            ideal_at: START,
            gateways: Vec::new(),
            network: Vec::new(),
            central: Central::new(whole, whole.depth, START),
            shares: BTreeMap::new(),
            sessions: BTreeMap::new(),
            retired: BTreeSet::new(),
            incarnations: 0,
            admitted: Micro::ZERO,
        };
        for _ in 0..GATEWAYS {
            let gateway = world.born();
            world.gateways.push(gateway);
        }
        world
    }

    fn born(&mut self) -> Gateway {
        self.incarnations += 1;
        let mut entry = Entry::absent_since(CustomerHash([7; 16]), ContractIndex(0), self.now);
        entry.flags.in_policy = true;
        Gateway {
            incarnation: self.incarnations,
            entry,
            lease: Lease::Waiting,
            sequence: 0,
            applied: 0,
            batch: None,
            reply: None,
            chunks: Vec::new(),
        }
    }

    /// Tokens are admitted somewhere: the ideal bucket must have them.
    fn admit(&mut self, amount: Micro) {
        let depth = self.whole.depth.plus(ROUNDING);
        self.ideal
            .refill(self.whole.rate, depth, self.now.since(self.ideal_at));
        self.ideal_at = self.now;
        self.ideal.take(amount);
        self.admitted = self.admitted.plus(amount);
        assert!(
            self.ideal.level >= Micro::ZERO,
            "the fleet has admitted {} micro-tokens more than one bucket would",
            -self.ideal.level.get()
        );
    }

    fn refill(&mut self, gateway: usize) {
        let gateway = &mut self.gateways[gateway];
        gateway.entry.refill(&self.policy, &gateway.lease, self.now);
    }

    fn read(&mut self, gateway: usize) -> ShareReport {
        self.refill(gateway);
        let gateway = &self.gateways[gateway];
        let holding = gateway.entry.holdings.at(FIRST);
        ShareReport {
            applied: gateway.applied,
            balance: holding.outstanding.balance(holding.contract.level),
            seen_cum: holding.moved_cum,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Advance { us } => self.now = self.now.plus_us(us),
            Step::Request { gateway, tokens } => {
                self.refill(gateway);
                let holding = self.gateways[gateway].entry.holdings.at_mut(FIRST);
                if holding.contract.level >= Micro::new(tokens) {
                    holding.contract.take(Micro::new(tokens));
                    self.admit(Micro::new(tokens));
                }
            }
            Step::Drain { gateway } => {
                self.refill(gateway);
                let holding = self.gateways[gateway].entry.holdings.at_mut(FIRST);
                let level = holding.contract.level.at_least_zero();
                holding.contract.take(level);
                self.admit(level);
            }
            Step::Lend { gateway, tokens } => {
                self.refill(gateway);
                let now = self.now;
                let gateway = &mut self.gateways[gateway];
                let holding = gateway.entry.holdings.at_mut(FIRST);
                let amount = holding.contract.level.min(Micro::new(tokens));
                if amount > Micro::ZERO {
                    holding.contract.take(amount);
                    holding.outstanding.lend(amount);
                    gateway.chunks.push((amount, now));
                }
            }
            Step::SpendChunk { gateway, tokens } => self.spend_chunk(gateway, Micro::new(tokens)),
            Step::LoseChunk { gateway } => drop(self.gateways[gateway].chunks.pop()),
            Step::ReadReport { gateway } => {
                self.gateways[gateway].batch = Some(self.read(gateway));
            }
            Step::Send { gateway } => {
                let report = match self.gateways[gateway].batch.take() {
                    Some(report) => report,
                    None => self.read(gateway),
                };
                let sender = &mut self.gateways[gateway];
                sender.sequence += 1;
                // One call at a time: what has not come yet will be ignored.
                sender.reply = None;
                self.network.push(Request {
                    gateway,
                    incarnation: sender.incarnation,
                    sequence: sender.sequence,
                    sent_at: self.now,
                    applied: sender.applied,
                    report,
                });
            }
            Step::Arrive { pick, keep, law } => {
                if self.network.is_empty() {
                    return;
                }
                let pick = pick % self.network.len();
                let request = if keep {
                    self.network[pick].clone()
                } else {
                    self.network.remove(pick)
                };
                self.arrive(&request, law);
            }
            Step::Deliver { gateway, in_full } => self.deliver(gateway, in_full),
            Step::Restart { gateway } => self.gateways[gateway] = self.born(),
            Step::Adjust { gateway, tokens } => {
                // An operator takes tokens away; giving some would be admitted on top, by intention.
                if let Some(share) = self.shares.get_mut(&gateway) {
                    share.adjust(Micro::new(-tokens));
                    if let Some(session) = self.sessions.get_mut(&gateway) {
                        session.is_told = false;
                    }
                }
            }
        }
    }

    fn spend_chunk(&mut self, gateway: usize, tokens: Micro) {
        self.refill(gateway);
        let now = self.now;
        let holder = &mut self.gateways[gateway];
        let Some((amount, drawn_at)) = holder.chunks.pop() else {
            return;
        };
        if now.since(drawn_at) >= CHUNK_LIFE_US {
            return;
        }
        let spent = tokens.min(amount);
        let holding = holder.entry.holdings.at_mut(FIRST);
        holding.outstanding.settle(amount, drawn_at, now);
        let back = amount.minus(spent);
        holder.entry.put(FIRST, back, &self.policy, &holder.lease);
        self.admit(spent);
    }

    fn presence(&self, session: &Session) -> Option<Presence> {
        let lapsed_at = session.replied_at.plus_us(LEASE_US + SLACK_US);
        if self.now < lapsed_at {
            Some(Presence::Live)
        } else if self.now < lapsed_at.plus_us(FALLBACK_US) {
            Some(Presence::Lapsed)
        } else {
            None
        }
    }

    fn others(&self, gateway: usize) -> Reserved {
        let others = self.shares.iter().filter(|(number, _)| **number != gateway);
        others.fold(Reserved::default(), |sum, (number, share)| {
            let presence = self.presence(&self.sessions[number]).unwrap();
            sum.plus(share.reserved(presence))
        })
    }

    fn arrive(&mut self, request: &Request, law: Law) {
        let gone: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, session)| self.presence(session).is_none())
            .map(|(number, _)| *number)
            .collect();
        self.central.advance(self.now);
        for number in gone {
            self.sessions.remove(&number);
            self.shares.remove(&number);
        }
        if self.retired.contains(&request.incarnation) {
            return;
        }
        let number = request.gateway;
        let presence = self
            .sessions
            .get(&number)
            .map(|session| self.presence(session).unwrap());
        match self.sessions.get_mut(&number) {
            Some(session) if session.incarnation == request.incarnation => {
                // Nor again: two replies with one number would be taken for each other.
                if request.sequence <= session.sequence {
                    return;
                }
                if request.applied < session.sequence
                    && let Some(share) = self.shares.get_mut(&number)
                {
                    share.lost();
                    session.is_told = false;
                }
                session.sequence = request.sequence;
                if presence == Some(Presence::Lapsed)
                    && let Some(share) = self.shares.get_mut(&number)
                {
                    share.lapse();
                    session.is_told = false;
                }
            }
            Some(session) if request.incarnation < session.incarnation => return,
            _ => {
                // A new incarnation holds nothing of what the old one held; one that was forgotten holds nothing that counts.
                if let Some(old) = self.sessions.remove(&number) {
                    self.retired.insert(old.incarnation);
                }
                self.shares.insert(number, Share::adopt(&request.report));
                self.sessions.insert(
                    number,
                    Session {
                        incarnation: request.incarnation,
                        sequence: request.sequence,
                        replied_at: self.now,
                        is_told: false,
                    },
                );
            }
        }
        let others = self.others(number);
        let share = self.shares.get_mut(&number).unwrap();
        fleet::report(
            &mut self.central,
            self.whole,
            others,
            share,
            &request.report,
            self.now,
        );
        let target = Target {
            terms: GrantTerms {
                rate: self.whole.rate.share(law.rate_eighths, 8),
                cap: self.whole.depth.share(law.cap_eighths, 8),
                fallback_rate: self.whole.rate.share(law.fallback_eighths, 8),
            },
            tokens: Micro::new(law.tokens),
        };
        let is_changed = fleet::grant(
            &mut self.central,
            self.whole,
            others,
            share,
            &target,
            request.sequence,
            self.now,
        );
        let session = self.sessions.get_mut(&number).unwrap();
        session.replied_at = self.now;
        let is_due = is_changed || !session.is_told;
        session.is_told = true;
        if is_due {
            share.told(request.sequence);
        }
        let reply = Reply {
            sequence: request.sequence,
            sent_at: request.sent_at,
            grant: is_due.then(|| share.to_grant()),
        };
        let total = self
            .shares
            .iter()
            .fold(Reserved::default(), |sum, (number, share)| {
                sum.plus(share.reserved(self.presence(&self.sessions[number]).unwrap()))
            });
        assert!(
            total.rate <= self.whole.rate,
            "{total:?} is reserved of {:?}",
            self.whole
        );
        let gateway = &mut self.gateways[number];
        if gateway.incarnation == request.incarnation && gateway.sequence == request.sequence {
            gateway.reply = Some(reply);
        }
    }

    /// Applies a reply. The lease comes last, so that no rate is refilled that the reply has lowered; but first where there is none, since
    /// tokens that belong to no lease never end.
    fn deliver(&mut self, gateway: usize, in_full: bool) {
        let now = self.now;
        let gateway = &mut self.gateways[gateway];
        let Some(reply) = gateway.reply.take() else {
            return;
        };
        let until = reply.sent_at.plus_us(LEASE_US);
        let renewed = gateway
            .lease
            .renewed(now, until, until.plus_us(FALLBACK_US));
        let is_first = gateway.lease == Lease::Waiting || gateway.lease.is_over(now);
        if is_first {
            gateway.lease = renewed;
            if !in_full {
                return;
            }
        }
        if let Some(grant) = &reply.grant {
            gateway
                .entry
                .apply_grant(FIRST, grant, &self.policy, &gateway.lease, now);
        }
        if in_full {
            gateway.lease = renewed;
            gateway.applied = reply.sequence;
        }
    }
}

impl World {
    /// A sync that nothing happens to.
    fn sync(&mut self, gateway: usize, law: Law) {
        self.step(&Step::Send { gateway });
        self.step(&Step::Arrive {
            pick: 0,
            keep: false,
            law,
        });
        self.step(&Step::Deliver {
            gateway,
            in_full: true,
        });
    }
}

fn policy(limits: Limits) -> Policy {
    Policy {
        epoch: 1,
        dry_run: false,
        resources: vec![Resource {
            name: "requests".into(),
            pool: None,
        }],
        contracts: vec![Contract {
            name: "plain".into(),
            tier: Tier::One,
            priority: 0,
            weight: 1,
            limits: PerResource::only_first(limits),
        }],
        unknown: Unknown::Deny,
        shadow: ShadowRule::default(),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = 0..GATEWAYS;
    let tokens = 0..6_000_000_i64;
    let law = (0..=8_u64, 0..=8_u64, 0..=8_u64, 0..20_000_000_i64).prop_map(
        |(rate_eighths, cap_eighths, fallback_eighths, tokens)| Law {
            rate_eighths,
            cap_eighths,
            fallback_eighths,
            tokens,
        },
    );
    let us = prop_oneof![
        4 => 0..50_000_u64,
        3 => 50_000..600_000_u64,
        1 => 600_000..9_000_000_u64,
        // The very moments in which something ends.
        1 => prop::sample::select(vec![CHUNK_LIFE_US, LEASE_US, LEASE_US + SLACK_US, LEASE_US + FALLBACK_US, LEASE_US + FALLBACK_US + SLACK_US])
    ];
    prop_oneof![
        6 => us.prop_map(|us| Step::Advance { us }),
        8 => (gateway.clone(), tokens.clone()).prop_map(|(gateway, tokens)| Step::Request { gateway, tokens }),
        8 => gateway.clone().prop_map(|gateway| Step::Drain { gateway }),
        3 => (gateway.clone(), tokens.clone()).prop_map(|(gateway, tokens)| Step::Lend { gateway, tokens }),
        3 => (gateway.clone(), tokens.clone()).prop_map(|(gateway, tokens)| Step::SpendChunk { gateway, tokens }),
        1 => gateway.clone().prop_map(|gateway| Step::LoseChunk { gateway }),
        2 => gateway.clone().prop_map(|gateway| Step::ReadReport { gateway }),
        8 => gateway.clone().prop_map(|gateway| Step::Send { gateway }),
        9 => (0..64_usize, prop::bool::weighted(0.1), law).prop_map(|(pick, keep, law)| Step::Arrive { pick, keep, law }),
        8 => (gateway.clone(), prop::bool::weighted(0.9)).prop_map(|(gateway, in_full)| Step::Deliver { gateway, in_full }),
        1 => gateway.clone().prop_map(|gateway| Step::Restart { gateway }),
        1 => (gateway, tokens).prop_map(|(gateway, tokens)| Step::Adjust { gateway, tokens }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_lets_the_fleet_admit_more_than_one_bucket_would(
        rate in 1..20_000_000_u64,
        burst in 0..20_000_000_i64,
        steps in prop::collection::vec(step(), 0..160),
    ) {
        let mut world = World::new(rate, burst);
        for step in &steps {
            world.step(step);
        }
    }
}

#[test]
fn what_is_granted_is_used_and_comes_back_when_demand_moves() {
    let mut world = World::new(10_000_000, 20_000_000);
    let all = Law {
        rate_eighths: 8,
        cap_eighths: 8,
        fallback_eighths: 0,
        tokens: i64::MAX,
    };
    let little = Law {
        rate_eighths: 0,
        cap_eighths: 1,
        fallback_eighths: 0,
        tokens: 0,
    };
    world.sync(0, all);
    for _ in 0..20 {
        world.step(&Step::Request {
            gateway: 0,
            tokens: 1_000_000,
        });
    }
    assert_eq!(
        world.admitted,
        Micro::new(20_000_000),
        "the first gateway has it all"
    );
    world.step(&Step::Advance { us: 1_000_000 });
    // Demand has moved: the first gateway is told, confirms, and the second gets what came back.
    world.sync(0, little);
    world.sync(0, little);
    world.sync(1, all);
    for _ in 0..30 {
        world.step(&Step::Request {
            gateway: 1,
            tokens: 1_000_000,
        });
    }
    assert_eq!(
        world.admitted,
        Micro::new(27_000_000),
        "10 tokens have flowed since; 2.5 of them, an eighth of the depth, stay with the first"
    );
}

#[test]
fn tokens_in_chunks_count_until_they_are_spent_although_the_depth_was_lowered() {
    let mut world = World::new(0, 8_000_000);
    let law = |cap_eighths| Law {
        rate_eighths: 0,
        cap_eighths,
        fallback_eighths: 0,
        tokens: i64::MAX,
    };
    world.sync(0, law(8));
    world.step(&Step::Lend {
        gateway: 0,
        tokens: 6_000_000,
    });
    world.sync(0, law(1));
    world.sync(0, law(1));
    world.sync(1, law(8));
    world.step(&Step::Drain { gateway: 1 });
    assert_eq!(
        world.admitted,
        Micro::new(2_000_000),
        "what was above the lowered depth"
    );
    world.step(&Step::SpendChunk {
        gateway: 0,
        tokens: 6_000_000,
    });
    assert_eq!(world.admitted, Micro::new(8_000_000));
}

#[test]
fn a_reply_that_comes_when_its_lease_is_over_brings_nothing_to_the_next_lease() {
    let mut world = World::new(10_000_000, 4_000_000);
    let law = |eighths| Law {
        rate_eighths: eighths,
        cap_eighths: eighths,
        fallback_eighths: eighths,
        tokens: i64::MAX,
    };
    let arrive = |law| Step::Arrive {
        pick: 0,
        keep: false,
        law,
    };
    world.step(&Step::Send { gateway: 0 });
    world.step(&Step::ReadReport { gateway: 0 });
    world.step(&arrive(law(8)));
    world.step(&Step::Advance {
        us: LEASE_US + FALLBACK_US + SLACK_US,
    });
    // The reply, the next one and the lease that comes with it: all in one microsecond, and the second grant is lost.
    let late = Step::Deliver {
        gateway: 0,
        in_full: true,
    };
    world.step(&late);
    world.step(&Step::Send { gateway: 0 });
    world.step(&arrive(law(2)));
    world.step(&Step::Deliver {
        gateway: 0,
        in_full: false,
    });
    world.step(&Step::Advance { us: 400_000 });
    world.sync(1, law(6));
    world.step(&Step::Drain { gateway: 1 });
    let before = world.admitted;
    world.step(&Step::Drain { gateway: 0 });
    assert_eq!(
        world.admitted, before,
        "what was granted under the first lease"
    );
    assert!(before > Micro::ZERO, "the other gateway has some");
}

#[test]
fn what_lies_in_a_chunk_is_not_given_to_another_gateway_because_its_owner_is_in_debt() {
    let mut world = World::new(8_000_000, 8_000_000);
    let law = |eighths| Law {
        rate_eighths: 4,
        cap_eighths: eighths,
        fallback_eighths: 4,
        tokens: i64::MAX,
    };
    world.sync(0, law(8));
    world.step(&Step::Lend {
        gateway: 0,
        tokens: 6_000_000,
    });
    world.step(&Step::Adjust {
        gateway: 0,
        tokens: 12_000_000,
    });
    world.sync(0, law(1));
    world.sync(0, law(1));
    world.sync(1, law(8));
    world.step(&Step::Advance {
        us: CHUNK_LIFE_US / 2,
    });
    world.step(&Step::Drain { gateway: 1 });
    // The ideal bucket, which is full, objects if both together are more than it holds.
    let before = world.admitted;
    world.step(&Step::SpendChunk {
        gateway: 0,
        tokens: 6_000_000,
    });
    assert_eq!(world.admitted.minus(before), Micro::new(6_000_000));
}
