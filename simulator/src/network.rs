//! Messages between gateways and the centre, and timers, on the virtual clock.
//!
//! A message belongs to the life of the gateway at its one end: what was on its way to a process that has died does not reach its
//! successor, as a connection would not. What such a process had sent still arrives.

use crate::fault::Fault;
use crate::random::Random;
use crate::scenario::Scenario;
use forebay_core::TimeUs;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How long a message takes while nothing goes wrong.
const DELAY_US: u64 = 1_000;

/// While things go wrong: the mean, and what some take instead.
const DELAY_MEAN_US: u64 = 2_000;
const DELAY_LONG_US: u64 = 50_000;
const PART_LONG: f64 = 0.01;
/// So many messages are lost, and so many arrive twice.
const PART_LOST: f64 = 0.01;
const PART_TWICE: f64 = 0.01;

/// A gateway, in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) gateway: usize,
    pub(crate) life: u64,
}

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A message reaches the centre.
    Centre(usize),
    /// A message reaches a gateway.
    Gateway(Member),
    /// A timer of a gateway.
    Timer(Member),
}

#[derive(Clone, Debug)]
struct Scheduled<E> {
    at: TimeUs,
    /// Of what happens at one time, the first scheduled comes first.
    order: u64,
    place: Place,
    event: E,
}

/// What is on its way.
#[derive(Debug)]
pub(crate) struct Network<E> {
    queue: BinaryHeap<Reverse<Scheduled<E>>>,
    order: u64,
    random: Random,
    faults_end: TimeUs,
    nodes: Vec<Node>,
    is_centre_up: bool,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    life: u64,
    is_alive: bool,
    is_cut: bool,
}

// === impl Network ===

impl<E: Clone> Network<E> {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let node = Node {
            life: 1,
            is_alive: true,
            is_cut: false,
        };
        Self {
            queue: BinaryHeap::new(),
            order: 0,
            random: Random::new(scenario.seed).fork(4),
            faults_end: scenario.faults_end(),
            nodes: vec![node; scenario.settings.gateways],
            is_centre_up: true,
        }
    }

    /// The gateway as it lives now.
    pub(crate) fn member(&self, gateway: usize) -> Member {
        let life = self.nodes.get(gateway).map_or(0, |node| node.life);
        Member { gateway, life }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(gateway) => self.change(gateway, |node| node.is_cut = true),
            Fault::Mend(gateway) => self.change(gateway, |node| node.is_cut = false),
            Fault::Die(gateway) => self.change(gateway, |node| node.is_alive = false),
            Fault::Born(gateway) => self.change(gateway, |node| {
                node.life += 1;
                node.is_alive = true;
            }),
            Fault::Stop => self.is_centre_up = false,
            Fault::Start { .. } => self.is_centre_up = true,
        }
    }

    pub(crate) fn send_to_centre(&mut self, from: usize, now: TimeUs, event: E) {
        self.send(from, Place::Centre(from), now, event);
    }

    pub(crate) fn send_to_gateway(&mut self, to: Member, now: TimeUs, event: E) {
        self.send(to.gateway, Place::Gateway(to), now, event);
    }

    /// What is due at a gateway, unless it dies before.
    pub(crate) fn timer(&mut self, at: TimeUs, member: Member, event: E) {
        self.schedule(at, Place::Timer(member), event);
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> TimeUs {
        self.queue
            .peek()
            .map_or(TimeUs::NEVER, |Reverse(next)| next.at)
    }

    /// Takes the next thing; `None` if it does not happen after all.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(next) = self.queue.pop()?;
        let lives = |member: Member| {
            self.nodes
                .get(member.gateway)
                .is_some_and(|node| node.is_alive && node.life == member.life)
        };
        let happens = match next.place {
            Place::Centre(from) => self.is_centre_up && !self.is_cut(from),
            Place::Gateway(member) => lives(member) && !self.is_cut(member.gateway),
            Place::Timer(member) => lives(member),
        };
        happens.then_some(next.event)
    }

    fn send(&mut self, gateway: usize, place: Place, now: TimeUs, event: E) {
        if now >= self.faults_end {
            self.schedule(now.plus_us(DELAY_US), place, event);
            return;
        }
        if self.is_cut(gateway) || self.random.chance(PART_LOST) {
            return;
        }
        if self.random.chance(PART_TWICE) {
            let late_us = self.delay_us();
            self.schedule(now.plus_us(late_us), place, event.clone());
        }
        let delay_us = self.delay_us();
        self.schedule(now.plus_us(delay_us), place, event);
    }

    fn delay_us(&mut self) -> u64 {
        if self.random.chance(PART_LONG) {
            DELAY_LONG_US
        } else {
            self.random.wait_us(DELAY_MEAN_US)
        }
    }

    fn schedule(&mut self, at: TimeUs, place: Place, event: E) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.order,
            place,
            event,
        }));
    }

    fn is_cut(&self, gateway: usize) -> bool {
        self.nodes.get(gateway).is_none_or(|node| node.is_cut)
    }

    fn change(&mut self, gateway: usize, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(gateway) {
            change(node);
        }
    }
}

// === impl Scheduled ===

impl<E> Scheduled<E> {
    const fn key(&self) -> (TimeUs, u64) {
        (self.at, self.order)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
