//! The gateway's ledger as the forecaster reads and changes it.
//!
//! The rules and the exchange loops are the core's. Here are the bridge from our host to the core's shared data, the policy in force, and
//! a look at a page that costs nothing when the page has not changed.

use forebay_core::draw::Conditions;
use forebay_core::error::CoreError;
use forebay_core::ledger::{
    CustomerHash, Entry, Layout, Ledger as CoreLedger, PageView, Region, SetError, SharedData,
    State,
};
use forebay_core::policy::Policy;
use forebay_core::time::TimeUs;

use crate::host::{Cas, Host, StoreError};

/// The host's shared data, as the core wants it.
#[derive(Debug)]
pub struct Shared<'a, H>(pub &'a H);

/// The ledger and the policy in force; both absent until someone has seeded the one and brought the other.
#[derive(Debug, Default)]
pub struct Ledger {
    core: Option<CoreLedger>,
    policy: Option<Policy>,
    adopted: bool,
    unreadable: Option<CoreError>,
}

/// A page, counted through both regions: policy customers first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageNumber {
    /// The region.
    pub region: Region,
    /// The page within it.
    pub page: u32,
}

/// What a look at a page found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The page's number in compare-and-swap.
    pub cas: Cas,
    /// Whether it differs from the number seen before.
    pub changed: bool,
}

// === impl Shared ===

impl<H: Host> SharedData for Shared<'_, H> {
    fn get(&mut self, key: &str, into: &mut Vec<u8>) -> Result<Option<Cas>, CoreError> {
        Ok(self.0.shared_data(key).map(|(value, cas)| {
            *into = value;
            cas
        }))
    }

    fn set(&mut self, key: &str, value: &[u8], cas: Option<Cas>) -> Result<(), SetError> {
        self.0
            .set_shared_data(key, value, cas)
            .map_err(|error| match error {
                StoreError::Conflict => SetError::CasMismatch,
                StoreError::Refused => SetError::Host(CoreError::Host {
                    key: key.to_owned(),
                    status: 0,
                }),
            })
    }
}

// === impl PageNumber ===

impl PageNumber {
    /// The page at a place in the count through both regions.
    #[must_use]
    pub fn at(layout: &Layout, place: u32) -> Self {
        match place.checked_sub(layout.pages(Region::Policy)) {
            None => Self {
                region: Region::Policy,
                page: place,
            },
            Some(page) => Self {
                region: Region::Other,
                page,
            },
        }
    }

    /// Pages of both regions.
    #[must_use]
    pub fn count(layout: &Layout) -> u32 {
        layout
            .pages(Region::Policy)
            .saturating_add(layout.pages(Region::Other))
    }
}

// === impl Ledger ===

impl Ledger {
    /// Reads the state and, when its epoch has changed, the policy. Returns true when the ledger has another shape than before:
    /// everything that counts pages or resources must be made anew.
    pub fn refresh(&mut self, host: &impl Host) -> bool {
        let before = self.state().map(shape);
        let epoch_before = self.state().map(|state| state.policy_epoch);
        let mut data = Shared(host);
        let refreshed = self
            .core
            .as_mut()
            .is_some_and(|core| core.refresh(&mut data).is_ok());
        if refreshed {
            self.unreadable = None;
        } else {
            let opened = CoreLedger::open(&mut data);
            self.note(host, opened.as_ref().err());
            self.core = opened.ok();
        }
        let after = self.state().map(shape);
        if before != after
            || self.policy.is_none()
            || epoch_before != self.state().map(|state| state.policy_epoch)
        {
            self.reread_policy(host);
        }
        std::mem::take(&mut self.adopted) || before != after
    }

    /// Why there is no ledger although somebody seeded one: another build of Forebay writes it, or it is damaged. It is the admission
    /// filter's to replace; two builds that seeded in turn would wipe each other's balances for ever.
    #[must_use]
    pub fn unreadable(&self) -> Option<&CoreError> {
        self.unreadable.as_ref()
    }

    fn note(&mut self, host: &impl Host, error: Option<&CoreError>) {
        let error = error.filter(|error| !matches!(error, CoreError::NotSeeded { .. }));
        if let Some(error) = error
            && self.unreadable.as_ref() != Some(error)
        {
            host.log(
                log::Level::Error,
                &format!("the ledger cannot be read: {error}. If another build of Forebay writes it, deploy admission.wasm and forecaster.wasm of one release"),
            );
        }
        self.unreadable = error.cloned();
    }

    /// Reads the policy again, after it was replaced.
    pub fn reread_policy(&mut self, host: &impl Host) {
        self.policy = self
            .core
            .as_mut()
            .and_then(|core| core.read_policy(&mut Shared(host)).ok().flatten());
    }

    /// Takes the ledger that was seeded by us; the next refresh says that it has another shape.
    pub fn adopt(&mut self, core: CoreLedger) {
        self.core = Some(core);
        self.adopted = true;
    }

    /// The core's ledger.
    pub fn core_mut(&mut self) -> Option<&mut CoreLedger> {
        self.core.as_mut()
    }

    /// What the ledger looks like and what is in force; `None` until it is seeded.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.core.as_ref().map(CoreLedger::state)
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// The core's ledger and the conditions of this moment, once there are both ledger and policy.
    pub fn at(&mut self, now_us: u64) -> Option<(&mut CoreLedger, Conditions<'_>)> {
        let (core, policy) = (self.core.as_mut()?, self.policy.as_ref()?);
        let lease = core.state().lease;
        // Nothing here draws, so the number of workers does not matter.
        Some((
            core,
            Conditions {
                policy,
                lease,
                now: TimeUs(now_us),
                workers: 1,
            },
        ))
    }

    /// Looks at a page. Entries are appended to `into` unless the page still has the number `seen`.
    pub fn look(
        &self,
        host: &impl Host,
        place: u32,
        seen: Option<Cas>,
        into: &mut Vec<Entry>,
    ) -> Option<Look> {
        let state = self.state()?;
        let number = PageNumber::at(&state.layout, place);
        let key = state.layout.key(number.region, number.page);
        let (bytes, cas) = host.shared_data(key.as_str())?;
        if seen == Some(cas) {
            return Some(Look {
                cas,
                changed: false,
            });
        }
        if let Ok(view) = PageView::open(&bytes, state.resources) {
            // A damaged entry is the admission filter's to report; the others on its page still count.
            into.extend(view.entries().flatten());
        }
        Some(Look { cas, changed: true })
    }

    /// Whether the policy lists a customer. Then nobody draws from an entry that it still has among the others, and what that counts has
    /// ended.
    pub fn is_listed(&self, host: &impl Host, customer: &CustomerHash) -> bool {
        let Some(state) = self.state() else {
            return false;
        };
        let page = state.layout.page_of(Region::Policy, customer);
        let key = state.layout.key(Region::Policy, page);
        host.shared_data(key.as_str()).is_some_and(|(bytes, _)| {
            PageView::open(&bytes, state.resources).is_ok_and(|view| view.find(customer).is_some())
        })
    }
}

/// What must stay the same for pages and entries to mean the same.
fn shape(state: &State) -> (Layout, u64, TimeUs) {
    (state.layout, state.resources_mark, state.seeded_at)
}
