//! What a share stands between: the customer's bucket in the ledger, and an Envoy, each as a model.

use super::super::*;

/// The customer's bucket in the ledger, and what was moved.
pub(super) struct Ledger {
    pub(super) rate: u64,
    pub(super) depth: i64,
    pub(super) level: i64,
    pub(super) paid: i64,
    pub(super) lacked: i64,
    pub(super) refuses: bool,
}

/// Envoy's bucket, by its source: continuous, and filled to the same part, in whole tokens, when another takes its place.
#[derive(Default)]
pub(super) struct Envoy {
    pub(super) told: Option<Told>,
    pub(super) ends_us: u64,
    pub(super) level: f64,
    pub(super) at_us: u64,
    pub(super) allowed: u64,
    pub(super) all_allowed: u64,
    pub(super) denied: u64,
}

impl Ledger {
    pub(super) fn new(rate: u64, burst: i64) -> Self {
        Self {
            rate,
            depth: burst * 1_000_000,
            level: burst * 1_000_000,
            paid: 0,
            lacked: 0,
            refuses: false,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing::Limited {
            available: Micro::new(self.level.max(0)),
            rate: Rate::from_tokens_per_s(self.rate),
            depth: Micro::new(self.depth),
        }
    }

    pub(super) fn refill(&mut self, us: u64) {
        self.level = (self.level + i64::try_from(self.rate * us).unwrap()).min(self.depth);
    }
}

impl Purse for Ledger {
    fn draw(&mut self, amount: Micro) -> bool {
        let can = !self.refuses && amount.get() <= self.level;
        if can {
            self.owe(amount);
        }
        can
    }

    fn owe(&mut self, amount: Micro) {
        self.level -= amount.get();
        self.paid += amount.get();
    }

    fn give_back(&mut self, amount: Micro) {
        self.level = (self.level + amount.get()).min(self.depth);
        self.paid -= amount.get();
    }

    fn lack(&mut self, amount: Micro) {
        self.lacked += amount.get();
    }

    fn count(&mut self, amount: Micro) {
        self.owe(amount.min(Micro::new(self.level.max(0))));
    }
}

impl Envoy {
    pub(super) fn hear(&mut self, (told, holds_s): (Told, u64), now_us: u64) {
        self.flow(now_us);
        let was = self.told.filter(|_| now_us < self.ends_us);
        self.ends_us = now_us + holds_s * 1_000_000;
        match (was, told) {
            (Some(Told::Bucket(old)), Told::Bucket(new)) => {
                let compared = |terms: Terms| {
                    (
                        terms.max_tokens,
                        terms.tokens_per_fill,
                        terms.fill_interval_nanos,
                    )
                };
                if compared(old) == compared(new) {
                    return;
                }
                self.level *= f64::from(new.max_tokens) / f64::from(old.max_tokens);
                self.level = self.level.floor();
            }
            (_, Told::Bucket(new)) => self.level = f64::from(new.max_tokens),
            _ => {}
        }
        self.told = Some(told);
    }

    pub(super) fn flow(&mut self, now_us: u64) {
        if let Some(Told::Bucket(terms)) = self.told {
            let seconds = (now_us - self.at_us) as f64 / 1e6;
            let rate = f64::from(terms.tokens_per_fill) / f64::from(terms.fill_interval_s);
            self.level = (self.level + rate * seconds).min(f64::from(terms.max_tokens));
        }
        self.at_us = now_us;
    }

    pub(super) fn request(&mut self, now_us: u64) {
        self.flow(now_us);
        let admits = match self.told.filter(|_| now_us < self.ends_us) {
            Some(Told::Bucket(_)) if self.level >= 1.0 => {
                self.level -= 1.0;
                true
            }
            Some(Told::Allow) => true,
            _ => false,
        };
        if admits {
            self.allowed += 1;
            self.all_allowed += 1;
        } else {
            self.denied += 1;
        }
    }

    pub(super) fn report(&mut self, elapsed_us: u64) -> Used {
        Used {
            allowed: std::mem::take(&mut self.allowed),
            denied: std::mem::take(&mut self.denied),
            elapsed_us,
        }
    }
}

/// One Envoy and the ledger that pays for it.
pub(super) struct World {
    pub(super) share: Share,
    pub(super) ledger: Ledger,
    pub(super) envoy: Envoy,
    pub(super) now_us: u64,
}

impl World {
    pub(super) fn new(rate: u64, burst: i64) -> Self {
        Self {
            share: Share::new(Micro::ZERO, TimeUs(0)),
            ledger: Ledger::new(rate, burst),
            envoy: Envoy::default(),
            now_us: 0,
        }
    }

    /// Runs so many cycles with requests at a steady pace, and a report every so many cycles.
    pub(super) fn run(&mut self, cycles: u64, requests_per_s: u64, report_every: u64) {
        for cycle in 1..=cycles {
            let requests = (requests_per_s * cycle / 10) - (requests_per_s * (cycle - 1) / 10);
            for _ in 0..requests {
                self.now_us += CYCLE_US / requests.max(1);
                self.envoy.request(self.now_us);
            }
            self.now_us += CYCLE_US - CYCLE_US / requests.max(1) * requests;
            self.ledger.refill(CYCLE_US);
            if cycle % report_every == 0 {
                self.report(report_every * CYCLE_US);
            }
            self.cycle(self.ledger.standing(), PPM);
        }
    }

    /// The Envoy reports what it has used.
    pub(super) fn report(&mut self, elapsed_us: u64) {
        let used = self.envoy.report(elapsed_us);
        self.share
            .report(used, TimeUs(self.now_us), &mut self.ledger);
    }

    /// The Envoy hears at once what it should be told.
    pub(super) fn cycle(&mut self, standing: Standing, part_ppm: u64) -> Option<(Told, u64)> {
        let now = TimeUs(self.now_us);
        let told = self
            .share
            .cycle(standing, part_ppm, TTL_US, now, &mut self.ledger);
        if let Some(told) = told {
            self.envoy.hear(told, self.now_us);
        }
        told
    }

    /// What has been admitted, and what still could be, in tokens.
    pub(super) fn out(&mut self) -> f64 {
        self.envoy.flow(self.now_us);
        let could = match self.envoy.told.filter(|_| self.now_us < self.envoy.ends_us) {
            Some(Told::Bucket(_)) => self.envoy.level,
            _ => 0.0,
        };
        self.envoy.all_allowed as f64 + could
    }

    /// Whether all of that is paid. Envoy counts in floating point, and we round to a micro-token with each event.
    pub(super) fn is_paid(&mut self) -> bool {
        self.out() * 1e6 <= self.ledger.paid as f64 + 100.0
    }
}
