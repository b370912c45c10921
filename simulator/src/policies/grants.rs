//! Ours: model gateways with production ledger entries, and whoever answers their syncs. That is the production control plane, which
//! this crate does not know: it has threads and a store, and a browser has neither.

use crate::error::SimulationError;
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::network::Member;
use crate::run::{Context, Policy};
use crate::scenario::{Arrival, Scenario};
use forebay_core::pace::{Asked, Pace};
use forebay_core::{CustomerHash, Micro, TimeUs};
use forebay_wire::sync::{SyncReply, SyncRequest};
use prost::Message;

/// Until it is told otherwise, a gateway syncs at this pace: the default of the plugin.
const SYNC_US: u64 = 250_000;
/// A sync that was not answered counts as failed after this time: the default of the plugin.
const TIMEOUT_US: u64 = 2_000_000;
const COST: Micro = Micro::from_tokens(1);

/// Answers syncs: a control plane.
pub trait Coordinator {
    /// The secret under which gateways hash customers, by its fingerprint.
    fn key_fingerprint(&self) -> u64;

    /// A customer as gateways name it.
    fn hash(&self, tenant: &str) -> CustomerHash;

    /// Answers a sync that arrives now.
    ///
    /// # Errors
    /// When it cannot answer at all. A refusal is an answer.
    fn sync(&mut self, request: SyncRequest, now: TimeUs) -> Result<SyncReply, SimulationError>;

    /// Stops, as it should or killed, and comes back with what it has stored.
    ///
    /// # Errors
    /// When it does not come back.
    fn restart(&mut self, is_clean: bool, now: TimeUs) -> Result<(), SimulationError>;
}

/// The fleet and its control plane.
pub(crate) struct Grants {
    coordinator: Box<dyn Coordinator>,
    customers: Vec<CustomerHash>,
    seats: Vec<Seat>,
}

/// A gateway, and when it syncs.
struct Seat {
    gateway: Gateway,
    pace: Pace,
    /// The sync that it waits for an answer to, and until when.
    waits_for: Option<(u64, TimeUs)>,
    /// The earliest timer.
    armed_at: TimeUs,
}

/// What happens to a sync.
#[derive(Clone, Debug)]
pub(crate) enum SyncEvent {
    /// It may be due.
    Due(usize),
    /// It reaches the control plane.
    Request(Member, SyncRequest),
    /// Its answer reaches the gateway.
    Reply(usize, SyncReply),
}

// === impl Grants ===

impl Grants {
    pub(crate) fn new(scenario: &Scenario, coordinator: Box<dyn Coordinator>) -> Self {
        let tenants = scenario.tenants.iter();
        Self {
            customers: tenants.map(|tenant| coordinator.hash(tenant)).collect(),
            coordinator,
            seats: Vec::new(),
        }
    }

    /// A gateway begins.
    fn seat(&self, member: Member, now: TimeUs) -> Seat {
        let id = format!("gateway-{}", member.gateway);
        let seed = (member.gateway as u64) << 32 | member.life;
        let fingerprint = self.coordinator.key_fingerprint();
        Seat {
            gateway: Gateway::new(id, member.life, fingerprint),
            pace: Pace::new(SYNC_US, seed, now),
            waits_for: None,
            armed_at: TimeUs::NEVER,
        }
    }

    /// Makes sure that the next sync will be looked at when it is due.
    fn arm(&mut self, index: usize, context: &mut Context<'_, SyncEvent>) {
        if let Some(seat) = self.seats.get_mut(index) {
            let free_at = seat.waits_for.map_or(context.now, |(_, until)| until);
            let due_at = seat.pace.due_at().max(free_at).max(context.now);
            if due_at < seat.armed_at {
                seat.armed_at = due_at;
                context.timer(due_at, context.member(index), SyncEvent::Due(index));
            }
        }
    }

    fn sync(&mut self, index: usize, context: &mut Context<'_, SyncEvent>) {
        let now = context.now;
        let member = context.member(index);
        if let Some(seat) = self.seats.get_mut(index) {
            seat.armed_at = TimeUs::NEVER;
            let is_free = seat.waits_for.is_none_or(|(_, until)| until <= now);
            if is_free && seat.pace.due_at() <= now {
                seat.pace.sent(now);
                let request = seat.gateway.next_request(now);
                seat.waits_for = Some((request.sequence, now.plus_us(TIMEOUT_US)));
                let bytes = request.encoded_len();
                context.send_to_centre(index, bytes, SyncEvent::Request(member, request));
            }
        }
        self.arm(index, context);
    }

    fn answered(
        &mut self,
        index: usize,
        reply: &SyncReply,
        context: &mut Context<'_, SyncEvent>,
    ) -> Result<(), SimulationError> {
        if let Some(seat) = self.seats.get_mut(index)
            && seat
                .waits_for
                .take_if(|(sequence, _)| *sequence == reply.sequence)
                .is_some()
        {
            let is_partial = seat.gateway.apply(reply, context.now)?;
            seat.pace.answered(Asked {
                early_us: u64::from(reply.early_sync_ms) * 1_000,
                is_partial,
                ..Asked::default()
            });
            if reply.error.is_none() {
                context.informed(index);
            }
            // It was armed for the end of its patience.
            seat.armed_at = TimeUs::NEVER;
        }
        self.arm(index, context);
        Ok(())
    }
}

impl Policy for Grants {
    type Event = SyncEvent;

    fn start(&mut self, context: &mut Context<'_, SyncEvent>) -> Result<(), SimulationError> {
        let gateways = context.scenario.settings.gateways;
        for index in 0..gateways {
            // Fleets that were started at one time do not sync at one time.
            let offset_us = SYNC_US * index as u64 / gateways as u64;
            let seat = self.seat(context.member(index), context.now.plus_us(offset_us));
            self.seats.push(seat);
            self.arm(index, context);
        }
        Ok(())
    }

    fn request(
        &mut self,
        index: usize,
        arrival: Arrival,
        context: &mut Context<'_, SyncEvent>,
    ) -> Result<(), SimulationError> {
        let seat = self.seats.get_mut(arrival.gateway);
        let Some((seat, customer)) = seat.zip(self.customers.get(arrival.tenant)) else {
            return Ok(());
        };
        let is_admitted = seat.gateway.request(*customer, COST, context.now);
        context.decide(index, is_admitted);
        if !is_admitted && seat.gateway.lies_elsewhere(*customer) {
            seat.pace.hurry(seat.gateway.looks_at(context.now));
            self.arm(arrival.gateway, context);
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: SyncEvent,
        context: &mut Context<'_, SyncEvent>,
    ) -> Result<(), SimulationError> {
        match event {
            SyncEvent::Due(index) => self.sync(index, context),
            SyncEvent::Request(from, request) => {
                let reply = self.coordinator.sync(request, context.now)?;
                let bytes = reply.encoded_len();
                context.send_to_gateway(from, bytes, SyncEvent::Reply(from.gateway, reply));
            }
            SyncEvent::Reply(index, reply) => self.answered(index, &reply, context)?,
        }
        Ok(())
    }

    fn fault(
        &mut self,
        fault: Fault,
        context: &mut Context<'_, SyncEvent>,
    ) -> Result<(), SimulationError> {
        match fault {
            Fault::Born(index) => {
                let seat = self.seat(context.member(index), context.now);
                if let Some(place) = self.seats.get_mut(index) {
                    *place = seat;
                }
                self.arm(index, context);
            }
            Fault::Start { is_clean } => self.coordinator.restart(is_clean, context.now)?,
            Fault::Cut(_) | Fault::Mend(_) | Fault::Die(_) | Fault::Stop => {}
        }
        Ok(())
    }
}
