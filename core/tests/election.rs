//! Properties of the election over any schedule of candidates that race, stand still, die and are replaced.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a failed step must stop it"
)]

use forebay_core::TimeUs;
use forebay_core::ledger::{
    Candidate, CandidateId, Election, LEADER_KEY, MemoryData, Proposal, Seat, SharedData,
};
use forebay_core::limits::{LEADER_LEASE_US, LEADER_RENEWAL_US};
use proptest::prelude::*;

const CANDIDATES: usize = 4;
const TICK_US: u64 = 20_000;

/// What a VM has done of a tick: it can be stopped between any two of these, for any time.
#[derive(Clone, Debug)]
enum Stage {
    Idle,
    Read(Option<(Vec<u8>, u32)>),
    Proposed(Proposal),
}

struct Vm {
    election: Election,
    stage: Stage,
}

/// The VMs of a gateway, on one clock.
struct Gateway {
    data: MemoryData,
    now: TimeUs,
    vms: Vec<Vm>,
    born: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// The next part of a VM's tick.
    Advance(usize),
    /// A whole tick of a VM.
    Tick(usize),
    /// Every VM ticks for a while.
    Run {
        ticks: u32,
    },
    Wait {
        us: u64,
    },
    /// The VM ends without a word, and another one comes in its place, with this configuration.
    Replace {
        vm: usize,
        mark: u64,
    },
    Retire(usize),
    Damage(Vec<u8>),
    /// A seat that nobody can have written yet.
    FromTheFuture {
        us: u64,
    },
}

// === impl Gateway ===

impl Gateway {
    fn new(vms: usize) -> Self {
        let mut gateway = Self {
            data: MemoryData::default(),
            now: TimeUs(1_000_000),
            vms: Vec::new(),
            born: 0,
        };
        for _ in 0..vms {
            let vm = gateway.candidate(1);
            gateway.vms.push(vm);
        }
        gateway
    }

    fn candidate(&mut self, mark: u64) -> Vm {
        self.born += 1;
        let me = Candidate {
            id: CandidateId::new(self.born),
            mark,
            since: self.now,
        };
        Vm {
            election: Election::new(me),
            stage: Stage::Idle,
        }
    }

    fn read(&mut self) -> Option<(Vec<u8>, u32)> {
        let mut bytes = Vec::new();
        let cas = self.data.get(LEADER_KEY, &mut bytes).unwrap()?;
        Some((bytes, cas))
    }

    fn advance(&mut self, vm: usize) {
        let next = match std::mem::replace(&mut self.vms[vm].stage, Stage::Idle) {
            Stage::Idle => Stage::Read(self.read()),
            Stage::Read(found) => {
                let found = found.as_ref().map(|(bytes, cas)| (bytes.as_slice(), *cas));
                match self.vms[vm].election.look(found, self.now) {
                    Some(proposal) => Stage::Proposed(proposal),
                    None => Stage::Idle,
                }
            }
            Stage::Proposed(proposal) => {
                let written = self
                    .data
                    .set(LEADER_KEY, &proposal.value, Some(proposal.cas));
                if written.is_ok() {
                    self.vms[vm].election.written(proposal);
                }
                Stage::Idle
            }
        };
        self.vms[vm].stage = next;
    }

    fn tick(&mut self, vm: usize) {
        self.advance(vm);
        while !matches!(self.vms[vm].stage, Stage::Idle) {
            self.advance(vm);
        }
    }

    /// All tick, one after the other, and a tick's time passes.
    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            (0..self.vms.len()).for_each(|vm| self.tick(vm));
            self.now = self.now.plus_us(TICK_US);
        }
    }

    fn leaders(&self) -> Vec<usize> {
        let leads = |vm: &usize| self.vms[*vm].election.leads(self.now);
        (0..self.vms.len()).filter(leads).collect()
    }

    fn the_leader(&self) -> usize {
        let leaders = self.leaders();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0]
    }

    fn retire(&mut self, vm: usize) {
        let found = self.read();
        let found = found.as_ref().map(|(bytes, cas)| (bytes.as_slice(), *cas));
        if let Some(proposal) = self.vms[vm].election.retire(found, self.now) {
            let _raced = self
                .data
                .set(LEADER_KEY, &proposal.value, Some(proposal.cas));
        }
        self.vms[vm].stage = Stage::Idle;
    }

    fn replace(&mut self, vm: usize, mark: u64) {
        let next = self.candidate(mark);
        self.vms[vm] = next;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Advance(vm) => self.advance(vm),
            Step::Tick(vm) => self.tick(vm),
            Step::Run { ticks } => self.run(ticks),
            Step::Wait { us } => self.now = self.now.plus_us(us),
            Step::Replace { vm, mark } => self.replace(vm, mark),
            Step::Retire(vm) => self.retire(vm),
            Step::Damage(bytes) => self.data.put(LEADER_KEY, bytes),
            Step::FromTheFuture { us } => {
                let seat = Seat {
                    leader: None,
                    term: u64::MAX,
                    until: self.now.plus_us(LEADER_LEASE_US + us),
                    successor: None,
                };
                self.data.put(LEADER_KEY, seat.encode());
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let vm = 0..CANDIDATES;
    let near_the_end = LEADER_LEASE_US - 2_000..LEADER_LEASE_US + 2_000;
    prop_oneof![
        12 => vm.clone().prop_map(Step::Advance),
        8 => vm.clone().prop_map(Step::Tick),
        1 => (1..200_u32).prop_map(|ticks| Step::Run { ticks }),
        6 => prop_oneof![0..3_u64, 0..LEADER_RENEWAL_US, 0..LEADER_LEASE_US, near_the_end]
            .prop_map(|us| Step::Wait { us }),
        2 => (vm.clone(), 1..4_u64).prop_map(|(vm, mark)| Step::Replace { vm, mark }),
        1 => vm.prop_map(Step::Retire),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::Damage),
        1 => (1..u64::MAX / 2).prop_map(|us| Step::FromTheFuture { us }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn never_do_two_lead_and_somebody_does_when_all_is_quiet(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut gateway = Gateway::new(CANDIDATES);
        for step in steps {
            let said = format!("{step:?}");
            gateway.step(step);
            let leaders = gateway.leaders();
            prop_assert!(leaders.len() <= 1, "{leaders:?} lead after {said}");
        }
        // Two leases: one of a leader that is gone, or for a value that nobody can read; and one of a successor that has gone since.
        let ticks = 2 * (LEADER_LEASE_US / TICK_US) + 6;
        gateway.run(u32::try_from(ticks).unwrap());
        let (leader, term) = {
            let leader = gateway.leaders();
            prop_assert_eq!(leader.len(), 1);
            (leader[0], gateway.vms[leader[0]].election.term())
        };
        // Whoever has not been replaced by a newer configuration keeps it.
        gateway.run(400);
        prop_assert_eq!(gateway.leaders(), vec![leader]);
        prop_assert_eq!(gateway.vms[leader].election.term(), term);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), now: u64) {
        let me = Candidate { id: CandidateId::new(1), mark: 1, since: TimeUs(0) };
        let mut election = Election::new(me);
        let _proposal = election.look(Some((&bytes, 7)), TimeUs(now));
        prop_assert!(!election.leads(TimeUs(now)));
        let mut like_a_seat = Seat::default().encode();
        let room = like_a_seat.len() - 4;
        for (to, from) in like_a_seat[4..].iter_mut().zip(bytes.iter().cycle().take(room)) {
            *to = *from;
        }
        let _proposal = election.look(Some((&like_a_seat, 8)), TimeUs(now));
        prop_assert!(election.term().is_none() || Seat::decode(&like_a_seat).is_ok());
    }

    #[test]
    fn a_leader_that_is_gone_is_replaced_within_its_lease_and_a_tick(
        before in 1..400_u32,
        is_told in any::<bool>(),
    ) {
        let mut gateway = Gateway::new(CANDIDATES);
        gateway.run(before);
        let leader = gateway.the_leader();
        let others: Vec<usize> = (0..CANDIDATES).filter(|vm| *vm != leader).collect();
        if is_told {
            gateway.retire(leader);
        }
        let gone_at = gateway.now;
        let within_us = if is_told { 0 } else { LEADER_LEASE_US };
        while !others.iter().any(|vm| gateway.vms[*vm].election.leads(gateway.now)) {
            prop_assert!(gateway.now.since(gone_at) <= within_us + TICK_US);
            gateway.now = gateway.now.plus_us(TICK_US);
            others.iter().for_each(|vm| gateway.tick(*vm));
        }
    }
}

#[test]
fn the_only_candidate_leads_at_its_first_tick() {
    let mut gateway = Gateway::new(1);
    gateway.tick(0);
    assert_eq!(gateway.leaders(), [0]);
}

#[test]
fn of_several_that_find_no_entry_one_creates_it() {
    let mut gateway = Gateway::new(2);
    (0..2).for_each(|vm| gateway.advance(vm));
    (0..2).for_each(|vm| gateway.advance(vm));
    (0..2).for_each(|vm| gateway.advance(vm));
    assert_eq!(gateway.leaders(), [0]);
}

#[test]
fn a_leader_that_comes_late_goes_on_if_nobody_took_its_place() {
    let mut gateway = Gateway::new(1);
    gateway.tick(0);
    let term = gateway.vms[0].election.term();
    gateway.now = gateway.now.plus_us(10 * LEADER_LEASE_US);
    assert!(gateway.leaders().is_empty());
    gateway.tick(0);
    assert_eq!(gateway.leaders(), [0]);
    assert_eq!(gateway.vms[0].election.term(), term);
}

#[test]
fn a_leader_that_was_replaced_while_it_stood_still_finds_out_and_does_not_come_back() {
    let mut gateway = Gateway::new(2);
    gateway.tick(0);
    gateway.now = gateway.now.plus_us(LEADER_LEASE_US);
    gateway.tick(1);
    assert_eq!(gateway.leaders(), [1]);
    gateway.tick(0);
    assert_eq!(gateway.vms[0].election.term(), None);
    assert_eq!(gateway.leaders(), [1]);
}

#[test]
fn a_newer_configuration_takes_over_within_two_ticks_and_an_older_one_never() {
    let mut gateway = Gateway::new(3);
    gateway.run(10);
    let old = gateway.the_leader();
    // As in Envoy: the old ones go on while their connections drain.
    for _ in 0..3 {
        let vm = gateway.candidate(2);
        gateway.vms.push(vm);
    }
    gateway.run(2);
    let new = gateway.the_leader();
    assert!(new >= 3, "{old} still leads");
    gateway.run(1_000);
    assert_eq!(gateway.the_leader(), new);
}

#[test]
fn the_same_configuration_in_a_new_vm_waits_for_its_turn() {
    let mut gateway = Gateway::new(2);
    gateway.run(10);
    let leader = gateway.the_leader();
    gateway.replace(1 - leader, 1);
    gateway.run(1_000);
    assert_eq!(gateway.the_leader(), leader);
}

#[test]
fn what_another_build_writes_is_left_alone_while_it_changes() {
    let mut gateway = Gateway::new(2);
    let foreign = |round: u32| [b"FBL\xff".as_slice(), &round.to_le_bytes()].concat();
    for round in 0..100 {
        gateway.data.put(LEADER_KEY, foreign(round));
        gateway.run(30);
        assert!(gateway.leaders().is_empty(), "round {round}");
        assert_eq!(gateway.read().unwrap().0, foreign(round));
    }
    gateway.run(u32::try_from(LEADER_LEASE_US / TICK_US).unwrap() + 1);
    gateway.the_leader();
}
