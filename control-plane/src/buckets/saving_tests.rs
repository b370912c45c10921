//! What must be durable before anybody is told of it, and what is made of it after a start.

use super::*;
use forebay_core::amount::{Micro, Rate};
use forebay_core::fleet::Presence;
use forebay_core::policy::Limits;
use forebay_core::time::TimeUs;
use forebay_sharing::Forecast;
use forebay_wire::sync::CustomerReport;
use std::sync::Arc;

const CUSTOMER: CustomerHash = CustomerHash([7; 16]);

/// One gateway alone, which is granted everything by its first reply.
struct Alone {
    account: Account,
    limits: Limits,
    roster: Roster,
}

impl Alone {
    fn new() -> Self {
        let limits = Limits::plain(Rate::from_tokens_per_s(10), Micro::from_tokens(50));
        let now = TimeUs(1_000_000);
        let seat = Seat {
            session: 1,
            standing: Standing::Present(Presence::Live),
            synced_at: now,
            name_hash: 1,
        };
        let mut alone = Self {
            account: Account::new(&[limits], now, None),
            limits,
            roster: Roster::new(vec![seat], Arc::default(), now),
        };
        let contract = Contract {
            customer: CUSTOMER,
            limits: &[limits],
            expected_per_s: &[],
            roster: &alone.roster,
        };
        assert!(alone.account.grant(&contract, &Forecast, 1, 1).is_changed);
        alone.account.told(1, 1);
        assert_eq!(alone.account.take_unsaved(Unsaved::Reports).0.count(), 1);
        alone
    }

    /// The gateway reports that so many of its 50 tokens have arrived and not been given back. Returns what is unsaved then.
    fn reports_seen(&mut self, tokens: u64) -> Unsaved {
        let report = CustomerReport {
            granted_seen_micro: tokens * 1_000_000,
            balance_micro: 1_000_000,
            reply_applied: 1,
            ..CustomerReport::default()
        };
        let told = Told {
            report: &report,
            since: self.roster.now(),
            asked: 0,
            is_lump: false,
            is_of_unknown_age: false,
            is_listed: true,
            is_limited: true,
        };
        let contract = Contract {
            customer: CUSTOMER,
            limits: &[self.limits],
            expected_per_s: &[],
            roster: &self.roster,
        };
        self.account.report(&contract, 1, &told);
        self.account.parts.unsaved(0)
    }
}

#[test]
fn a_report_can_wait_but_not_one_of_tokens_that_came_back_and_may_go_elsewhere() {
    assert_eq!(Alone::new().reports_seen(50), Unsaved::Reports);
    assert_eq!(Alone::new().reports_seen(30), Unsaved::Grants);
}

/// Else the first division after a start would take from every gateway that has not reported yet.
#[test]
fn a_gateway_is_thought_to_need_what_it_held_until_it_reports_again_after_a_start() {
    let alone = Alone::new();
    let now = TimeUs(9_000_000);
    let record = alone.account.part(1).unwrap().to_record();
    let mut restored = Account::from_record(&alone.account.to_record(), now, true);
    restored.restore(Part::from_record(1, &record), now);
    let average_per_s = |account: &Account, at| {
        let holding = &account.part(1).unwrap().holdings[0];
        holding.pace.average_per_s(at)
    };
    assert!((average_per_s(&restored, now) - 10.0).abs() < 0.1);
    // Its first report may bring the demand of any time, and says nothing of a pace.
    let heard_at = now.plus_us(1_500_000);
    let roster = Roster::new(alone.roster.seats().to_vec(), Arc::default(), heard_at);
    let report = CustomerReport::default();
    let told = Told {
        report: &report,
        since: now,
        asked: 0,
        is_lump: true,
        is_of_unknown_age: true,
        is_listed: true,
        is_limited: true,
    };
    let contract = Contract {
        customer: CUSTOMER,
        limits: &[alone.limits],
        expected_per_s: &[],
        roster: &roster,
    };
    restored.report(&contract, 1, &told);
    assert!((average_per_s(&restored, heard_at) - 10.0).abs() < 0.1);
}
