//! Whom the present request is charged, and what: the result of the rules, the input of the decision.

use forebay_core::amount::Micro;
use forebay_core::chunk::{Amounts, Payer};
use forebay_core::limits::MAX_RESOURCES;
use forebay_core::resource::{PerResource, ResourceIndex};
use forebay_core::verdict::Verdict;

/// One customer's part of a request.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Raw key. It stays in the worker.
    pub(crate) key: Vec<u8>,
    /// Tokens of each resource.
    pub(crate) cost: Amounts,
    /// Which charge of the rule took a resource; `None` if none did.
    pub(crate) charges: PerResource<Option<usize>>,
    /// The rule.
    pub(crate) rule: usize,
    /// The verdict, once there is one.
    pub(crate) verdict: Verdict,
    /// Whether the customer's contract was charged, so that there is an estimate to settle.
    pub(crate) is_charged: bool,
    /// Who paid, once somebody has.
    pub(crate) payers: PerResource<Payer>,
}

/// The accounts of a request. Each resource is charged once, so there are at most as many accounts as resources.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    slots: [Account; MAX_RESOURCES],
    len: usize,
    charged: PerResource<bool>,
}

// === impl Account ===

impl Default for Account {
    fn default() -> Self {
        Self {
            key: Vec::new(),
            cost: Amounts::default(),
            charges: PerResource::default(),
            rule: 0,
            verdict: Verdict::Standard,
            is_charged: false,
            payers: PerResource::default(),
        }
    }
}

// === impl Accounts ===

impl Accounts {
    /// Forgets the previous request; its buffers are used again.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.charged = PerResource::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Account> {
        self.slots.iter().take(self.len)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.slots.iter_mut().take(self.len)
    }

    pub(crate) fn get(&self, position: usize) -> Option<&Account> {
        self.slots.get(position).filter(|_| position < self.len)
    }

    pub(crate) fn get_mut(&mut self, position: usize) -> Option<&mut Account> {
        self.slots.get_mut(position).filter(|_| position < self.len)
    }

    /// Whether an earlier rule has charged this resource.
    pub(crate) fn has_charged(&self, resource: ResourceIndex) -> bool {
        *self.charged.at(resource)
    }

    /// The next account, not yet part of the request. `None` when each resource has been charged.
    pub(crate) fn draft(&mut self, rule: usize) -> Option<&mut Account> {
        let account = self.slots.get_mut(self.len)?;
        account.rule = rule;
        account.cost = Amounts::default();
        account.charges = PerResource::default();
        account.is_charged = false;
        account.payers = PerResource::default();
        Some(account)
    }

    /// Adds a charge to the draft.
    pub(crate) fn charge(&mut self, resource: ResourceIndex, cost: Micro, charge: usize) {
        *self.charged.at_mut(resource) = true;
        if let Some(account) = self.slots.get_mut(self.len) {
            *account.cost.at_mut(resource) = cost;
            *account.charges.at_mut(resource) = Some(charge);
        }
    }

    /// Makes the draft part of the request.
    pub(crate) fn commit(&mut self) {
        self.len = self.len.saturating_add(1).min(MAX_RESOURCES);
    }
}
