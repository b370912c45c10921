//! A bucket id of an Envoy: its share, and the customer in the ledger that pays for it.

use super::share::{Purse, Share, Standing, Told, Used};
use super::{IDLE_US, Key, Rlqs, US_PER_S};
use crate::desk::{Account, Charge, Desk};
use crate::rlqs::crowd::Seat;
use crate::rls::{CUSTOMER, RESOURCE};
use forebay_core::Micro;
use forebay_core::time::TimeUs;
use forebay_wire::key::MAX_KEY_BYTES;
use std::sync::MutexGuard;

/// One that is denied whatever it asks is forgotten after this time.
const NOBODY_IDLE_US: u64 = 15 * US_PER_S;

/// Nothing is to be said of a bucket whose standing is not known; it is looked at again after this time.
const ASK_AGAIN_US: u64 = US_PER_S;

/// What an Envoy should hear about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An assignment, and for how many seconds it holds.
    Tell(Told, u64),
    /// That it need not be remembered.
    Forget,
}

/// A bucket id.
#[derive(Debug)]
pub(super) struct Bucket {
    share: Share,
    payer: Payer,
    seat: Seat,
    /// Where it sits in the crowd.
    account: Option<Account>,
    unknown_until: TimeUs,
}

/// Who pays.
#[derive(Clone, Debug)]
struct Payer {
    /// Empty, or too long, for nobody.
    key: String,
    resource: Option<String>,
}

/// A customer's bucket in the ledger, as a share sees it.
struct Wallet<'a> {
    desk: MutexGuard<'a, Desk>,
    payer: &'a Payer,
}

// === impl Bucket ===

impl Bucket {
    pub(super) fn new(rlqs: &Rlqs, key: &Key, now: TimeUs) -> Self {
        let past = rlqs.estates().take(key, now);
        Self {
            share: Share::new(past, now),
            payer: Payer {
                // Envoy leaves entries without a value out, so this may be an empty header.
                key: key.get(CUSTOMER).cloned().unwrap_or_default(),
                resource: key.get(RESOURCE).cloned(),
            },
            seat: rlqs.crowd().seat(),
            account: None,
            unknown_until: now,
        }
    }

    pub(super) fn is_due(&self, now: TimeUs) -> bool {
        self.share.is_due(now) && now >= self.unknown_until
    }

    pub(super) fn report(&mut self, rlqs: &Rlqs, used: Used, now: TimeUs) {
        let mut wallet = Wallet::open(rlqs, &self.payer);
        self.share.report(used, now, &mut wallet);
    }

    pub(super) fn cycle(&mut self, rlqs: &Rlqs, now: TimeUs) -> Option<Next> {
        let mut wallet = Wallet::open(rlqs, &self.payer);
        let idle_us = now.since(self.share.used_at());
        let known = wallet.standing();
        // Who is nobody's customer must not take the place of one.
        let is_nobody = known
            .as_ref()
            .is_some_and(|known| known.standing == Standing::Barred);
        if idle_us >= IDLE_US || is_nobody && idle_us >= NOBODY_IDLE_US {
            self.share.forget(&mut wallet);
            drop(wallet);
            self.stand_up(rlqs);
            return Some(Next::Forget);
        }
        let Some(standing) = known else {
            // Where nothing can be said, the Envoy's own rules for that hold: nothing is assigned, and what was ends.
            self.unknown_until = now.plus_us(ASK_AGAIN_US);
            return None;
        };
        let part_ppm = match standing.account {
            Some(account) => {
                if self.account.is_some_and(|before| before != account) {
                    self.stand_up(rlqs);
                }
                self.account = Some(account);
                // The crowd's lock is never waited for with the desk's in hand.
                drop(wallet);
                let mut crowd = rlqs.crowd();
                crowd.asks(&account, self.seat, self.share.demand());
                crowd.part_ppm(&account, self.seat)
            }
            None => {
                drop(wallet);
                0
            }
        };
        let mut wallet = Wallet::open(rlqs, &self.payer);
        let told = self.share.cycle(
            standing.standing,
            part_ppm,
            standing.holds_us,
            now,
            &mut wallet,
        );
        told.map(|(told, holds_s)| Next::Tell(told, holds_s))
    }

    /// The Envoy is gone.
    pub(super) fn leave(mut self, rlqs: &Rlqs, key: Key, now: TimeUs) {
        let estate = {
            let mut wallet = Wallet::open(rlqs, &self.payer);
            self.share.end(now, &mut wallet)
        };
        self.stand_up(rlqs);
        rlqs.estates().leave(key, estate, now);
    }

    fn stand_up(&self, rlqs: &Rlqs) {
        if let Some(account) = &self.account {
            rlqs.crowd().leaves(account, self.seat);
        }
    }
}

/// How a customer stands, how long that can be relied on, and with whom it shares.
struct Known {
    standing: Standing,
    holds_us: u64,
    account: Option<Account>,
}

// === impl Wallet ===

impl<'a> Wallet<'a> {
    fn open(rlqs: &'a Rlqs, payer: &'a Payer) -> Self {
        Self {
            desk: rlqs.desk(),
            payer,
        }
    }

    fn standing(&mut self) -> Option<Known> {
        let key = self.payer.key.as_bytes();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let standing = if self.desk.is_dry_run()? {
                Standing::Free
            } else {
                Standing::Barred
            };
            return Some(Known {
                standing,
                holds_us: u64::MAX,
                account: None,
            });
        }
        match self.desk.look(key, self.payer.resource.as_deref()) {
            Ok(look) => {
                let standing = if look.is_dry_run || look.is_exempt && !look.is_barred {
                    Standing::Free
                } else if look.is_barred {
                    Standing::Barred
                } else {
                    Standing::Limited {
                        available: look.available,
                        rate: look.rate,
                        depth: look.depth,
                    }
                };
                Some(Known {
                    standing,
                    holds_us: look.holds_us,
                    account: Some(look.account),
                })
            }
            Err(error) => {
                tracing::debug!(%error, "a bucket id cannot be assigned anything");
                None
            }
        }
    }

    fn charge(&self, amount: Micro) -> Charge<'a> {
        Charge {
            key: self.payer.key.as_bytes(),
            resource: self.payer.resource.as_deref(),
            amount,
        }
    }

    fn settle(&mut self, amount: Micro) {
        let charge = self.charge(amount);
        if amount != Micro::ZERO
            && let Err(error) = self.desk.settle(&charge)
        {
            tracing::debug!(%error, "what an Envoy has used, or has not used, is not settled");
        }
    }
}

impl Purse for Wallet<'_> {
    fn draw(&mut self, amount: Micro) -> bool {
        let charge = self.charge(amount);
        let outcome = self.desk.decide(&[charge], true);
        outcome.is_ok_and(|outcome| outcome.is_admitted)
    }

    fn owe(&mut self, amount: Micro) {
        // A report is only believed so far: nobody owes more than a bucket for what an Envoy says.
        let key = self.payer.key.as_bytes();
        let look = self.desk.look(key, self.payer.resource.as_deref());
        let most = look.map_or(Micro::ZERO, |look| {
            look.level.plus(look.depth).at_least_zero()
        });
        self.settle(amount.min(most));
    }

    fn give_back(&mut self, amount: Micro) {
        self.settle(Micro::ZERO.minus(amount));
    }

    fn lack(&mut self, amount: Micro) {
        let charge = self.charge(amount);
        // Nothing is kept: only a denial is counted, and one that would be admitted tells nobody of a lack.
        drop(self.desk.decide(&[charge], false));
    }

    fn count(&mut self, amount: Micro) {
        let key = self.payer.key.as_bytes();
        if let Ok(look) = self.desk.look(key, self.payer.resource.as_deref()) {
            let paid = if look.is_exempt {
                amount
            } else {
                amount.min(look.available)
            };
            self.draw(paid);
        }
    }
}
