//! All that a run is given and no policy can change: requests, the gateways that they come to, contracts, faults.
//!
//! It is drawn before the run. Were it drawn on the way, a policy that sends one message more would see other requests than the next.

use crate::contract::{Contract, contracts};
use crate::fault::{Fault, faults};
use crate::random::Random;
use crate::trace::{Request, Trace};
use forebay_core::TimeUs;

/// When the fleet starts.
const FLEET_STARTS: TimeUs = TimeUs(1_000_000);
/// The first requests come when the fleet has been there for so long.
const JOINING_US: u64 = 4_000_000;
/// Of a tenant's requests, this part comes to its home; the rest comes to all other gateways alike.
const HOME_PART: f64 = 0.8;
/// A home moves once in this time, on average.
const HOME_US: u64 = 60_000_000;

/// What is simulated, beside the trace and the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Gateways.
    pub gateways: usize,
    /// What the contracts may be together at most, as a multiple of the mean load.
    pub capacity: f64,
    /// The part of each contract that policies keep in the middle which divide it by themselves, to be claimed request by request.
    pub reserve: f64,
    /// Things go wrong until this moment, from the start of the trace on; 0: never.
    pub faults_until_us: u64,
}

/// A request at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it comes.
    pub at: TimeUs,
    /// Who asks.
    pub tenant: usize,
    /// Where.
    pub gateway: usize,
}

/// One run, for any policy.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// It follows from this number, the trace and the settings.
    pub seed: u64,
    /// What was asked for.
    pub settings: Settings,
    /// Who there is.
    pub tenants: Vec<String>,
    /// What they have bought.
    pub contracts: Vec<Contract>,
    /// The requests, by time.
    pub arrivals: Vec<Arrival>,
    /// The faults, by time.
    pub faults: Vec<(TimeUs, Fault)>,
    /// When the fleet starts.
    pub fleet_starts: TimeUs,
    /// When the first requests may come.
    pub demand_starts: TimeUs,
    /// When the last ones have come.
    pub demand_ends: TimeUs,
}

// === impl Scenario ===

impl Scenario {
    /// Draws a run.
    #[must_use]
    pub fn new(trace: &Trace, settings: Settings, seed: u64) -> Self {
        let random = Random::new(seed);
        let demand_starts = FLEET_STARTS.plus_us(JOINING_US);
        let requests = trace.requests(&random.fork(1));
        let faults = faults(
            settings.gateways,
            demand_starts,
            demand_starts.plus_us(settings.faults_until_us),
            &random.fork(2),
        );
        let tenants = trace.tenants.len();
        let contracts = contracts(tenants, &requests, trace.length_us, settings.capacity);
        let arrivals = arrivals(
            &requests,
            tenants,
            settings.gateways,
            demand_starts,
            &faults,
            &random.fork(3),
        );
        Self {
            seed,
            settings,
            tenants: trace.tenants.clone(),
            contracts,
            arrivals,
            faults,
            fleet_starts: FLEET_STARTS,
            demand_starts,
            demand_ends: demand_starts.plus_us(trace.length_us),
        }
    }

    /// Up to here messages are lost and late.
    pub(crate) fn faults_end(&self) -> TimeUs {
        self.demand_starts.plus_us(self.settings.faults_until_us)
    }
}

/// Where requests come to. One whose gateway is dead comes to the next that is alive; if none is, nobody could have answered it.
fn arrivals(
    requests: &[Request],
    tenants: usize,
    gateways: usize,
    demand_starts: TimeUs,
    faults: &[(TimeUs, Fault)],
    random: &Random,
) -> Vec<Arrival> {
    let mut homes: Vec<Home> = (0..tenants as u64)
        .map(|tenant| Home::new(random.fork(tenant), gateways, demand_starts))
        .collect();
    let mut is_alive = vec![true; gateways];
    let mut faults = faults.iter().peekable();
    let mut arrivals = Vec::with_capacity(requests.len());
    for request in requests {
        let at = demand_starts.plus_us(request.at_us);
        while let Some((_, fault)) = faults.next_if(|(when, _)| *when <= at) {
            let (gateway, alive) = match fault {
                Fault::Die(gateway) => (*gateway, false),
                Fault::Born(gateway) => (*gateway, true),
                _ => continue,
            };
            if let Some(is_alive) = is_alive.get_mut(gateway) {
                *is_alive = alive;
            }
        }
        let tenant = request.tenant as usize;
        let Some(home) = homes.get_mut(tenant) else {
            continue;
        };
        let gateway = home.gateway_of(at, gateways);
        let is_up = |gateway: &usize| is_alive.get(*gateway) == Some(&true);
        let gateway = (gateway..gateways).chain(0..gateway).find(is_up);
        if let Some(gateway) = gateway {
            arrivals.push(Arrival {
                at,
                tenant,
                gateway,
            });
        }
    }
    arrivals
}

/// Where most of a tenant's requests come to.
struct Home {
    gateway: usize,
    moves_at: TimeUs,
    random: Random,
}

// === impl Home ===

impl Home {
    fn new(mut random: Random, gateways: usize, now: TimeUs) -> Self {
        Self {
            gateway: random.below(gateways),
            moves_at: now.plus_us(random.wait_us(HOME_US)),
            random,
        }
    }

    fn gateway_of(&mut self, now: TimeUs, gateways: usize) -> usize {
        while self.moves_at <= now {
            self.gateway = self.other(gateways);
            self.moves_at = self.moves_at.plus_us(self.random.wait_us(HOME_US));
        }
        if self.random.chance(HOME_PART) {
            self.gateway
        } else {
            self.other(gateways)
        }
    }

    fn other(&mut self, gateways: usize) -> usize {
        let step = 1 + self.random.below(gateways.saturating_sub(1));
        (self.gateway + step) % gateways.max(1)
    }
}
