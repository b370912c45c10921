//! A VM of the gateway that forecasts if it leads, and else waits.
//!
//! As a singleton the plugin has one VM, which leads from its first tick on. As an ordinary HTTP filter it has one on each of Envoy's
//! threads, and Envoy tells none of them which it is; so all of them stand for [`Election`].
//!
//! Whoever leads starts a [`Forecaster`] from nothing but configuration and shared data, exactly as after a trap, and whoever leads no
//! longer drops its own with all that it knows: series, a half-applied reply, the sync that is not answered. To the control plane a new
//! leader is the same gateway, restarted: the same incarnation, the next sequence, counters from the same ledger. Handing the books over
//! was worse: they are megabytes, and would be one more thing that must be true at the moment of a trap.
//!
//! The election is looked at before a tick, and not within one: a tick's budget is measured by the clock, so a thread that was stopped in
//! the middle finishes the piece it is at, which is compare-and-swap on the ledger as always, and finds the budget spent. Only a sync could
//! still leave, and that is held back by [`crate::identity`].

use forebay_core::TimeUs;
use forebay_core::ledger::{Candidate as Standing, CandidateId, Election, LEADER_KEY, Proposal};
use log::Level;

use crate::forecaster::Forecaster;
use crate::host::{CallId, Cas, Host, HttpAnswer, Metric};
use crate::settings::{ConfigureError, Environment, Settings};

/// One root context of the plugin.
pub struct Candidate<H> {
    host: H,
    settings: Settings,
    id: CandidateId,
    election: Election,
    leading: Option<Leading<H>>,
}

struct Leading<H> {
    term: u64,
    forecaster: Forecaster<H>,
}

// === impl Candidate ===

impl<H: Host + Clone> Candidate<H> {
    /// Reads the configuration. Nothing is written yet: Envoy configures a VM only to see whether it can be, and throws it away.
    ///
    /// # Errors
    /// The configuration or the environment can never work.
    pub fn configure(
        host: H,
        config: &[u8],
        environment: &Environment,
    ) -> Result<Self, ConfigureError> {
        let settings = Settings::read(config, environment)?;
        let id = CandidateId::new(environment.random);
        let election = Election::new(Standing {
            id,
            mark: settings.mark,
            since: TimeUs(host.monotonic_us()),
        });
        Ok(Self {
            host,
            settings,
            id,
            election,
            leading: None,
        })
    }

    /// Time between two ticks.
    #[must_use]
    pub fn tick_period_ms(&self) -> u32 {
        self.settings.config.tick.period_ms
    }

    /// Whether this VM forecasts.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leading.is_some() && self.election.leads(self.now())
    }

    /// Does one tick's work, if it leads.
    pub fn on_tick(&mut self) {
        self.stand();
        let Some(term) = self.election.term() else {
            return;
        };
        if !self.election.leads(self.now()) {
            return;
        }
        let leading = self
            .leading
            .get_or_insert_with(|| start(&self.host, &self.settings, self.id, term));
        leading.forecaster.on_tick();
        if leading.forecaster.is_superseded() {
            // One that stood still has taken the identity after us: the next tick, if it leads still, takes it back.
            self.leading = None;
        }
    }

    /// Takes the answer to a call that was started in a tick. It is lost if another VM leads by now, as any answer may be.
    pub fn on_http_response(&mut self, call: CallId, answer: HttpAnswer) {
        if !self.election.leads(self.now()) {
            self.stand();
        }
        if self.election.leads(self.now())
            && let Some(leading) = &mut self.leading
        {
            leading.forecaster.on_http_response(call, answer);
        }
    }

    /// Envoy drops this configuration: another VM may lead at once.
    pub fn retire(&mut self) {
        self.leading = None;
        let found = self.host.shared_data(LEADER_KEY);
        let proposal = self.election.retire(borrowed(&found), self.now());
        // Should it not be written, the lease ends by itself.
        let _written = proposal.is_some_and(|proposal| self.write(&proposal));
    }

    /// Takes part in the election, and drops what is over.
    fn stand(&mut self) {
        let found = self.host.shared_data(LEADER_KEY);
        if let Some(proposal) = self.election.look(borrowed(&found), self.now()) {
            self.drop_what_is_over();
            if self.write(&proposal) {
                self.election.written(proposal);
            }
        }
        self.drop_what_is_over();
    }

    fn drop_what_is_over(&mut self) {
        let term = self.election.term();
        if let Some(leading) = self.leading.take_if(|leading| term != Some(leading.term)) {
            self.host.log(
                Level::Info,
                &format!(
                    "another VM of this gateway forecasts after term {}",
                    leading.term
                ),
            );
        }
    }

    fn write(&self, proposal: &Proposal) -> bool {
        self.host
            .set_shared_data(LEADER_KEY, &proposal.value, Some(proposal.cas))
            .is_ok()
    }

    fn now(&self) -> TimeUs {
        TimeUs(self.host.monotonic_us())
    }
}

impl<H: std::fmt::Debug> std::fmt::Debug for Candidate<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("host", &self.host)
            .field("election", &self.election)
            .finish_non_exhaustive()
    }
}

fn start<H: Host + Clone>(host: &H, settings: &Settings, id: CandidateId, term: u64) -> Leading<H> {
    host.increment(Metric::Elected, 1);
    host.log(
        Level::Info,
        &format!("this VM forecasts for the gateway, term {term}"),
    );
    // Another one for each start of each VM, so that what is left of the one before is told apart.
    let owner = id.get().wrapping_add(term);
    Leading {
        term,
        forecaster: Forecaster::start(host.clone(), settings, owner),
    }
}

fn borrowed(found: &Option<(Vec<u8>, Cas)>) -> Option<(&[u8], Cas)> {
    found.as_ref().map(|(bytes, cas)| (bytes.as_slice(), *cas))
}
