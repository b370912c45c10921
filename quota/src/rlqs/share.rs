//! One Envoy's share of one customer's bucket, as a pure state machine.
//!
//! The protocol can say "a bucket of so many tokens that fills at such a rate, for such a time", and hears at intervals how much
//! was used. So an Envoy is kept like a client that pays in advance: the tokens its bucket starts with and all that flows into it
//! are drawn from the ledger before they can be used, and what its reports show to be more than its bucket can hold goes back.
//! At any moment *credit* is no less than what the Envoy could still admit, and it is paid. Sending every Envoy the contract, or
//! assigning rates without drawing for them, were the simpler alternatives: the first admits a contract per Envoy, the second
//! knows of bans, pools and other clients only after the next report.
//!
//! What Envoy does with assignments (envoyproxy/envoy 36478 and 37624; earlier versions begin full with each): the same one again
//! prolongs its life and changes nothing; another bucket takes the place of the old one filled to the same part, in whole tokens; one
//! after a pause begins full. Times to live count in whole seconds.

use forebay_core::amount::{Micro, Rate};
use forebay_core::time::TimeUs;

/// Time between two looks at a share that is asked for.
pub(crate) const CYCLE_US: u64 = 100_000;

/// The same while nobody asks, or all that is to be said is a blanket rule.
const IDLE_CYCLE_US: u64 = 1_000_000;

/// How far ahead of now flows are paid, at least: the time between two looks, and as much again.
const AHEAD_US: u64 = 2 * CYCLE_US;

/// The same at most, for flows so slow that a cycle is less than a token.
const AHEAD_MOST_US: u64 = 2 * IDLE_CYCLE_US;

/// How long an assignment holds, at most.
const TTL_US: u64 = 8 * US_PER_S;

/// What would end sooner than this is not worth telling: it could end at the Envoy before it is told again.
const TTL_LEAST_US: u64 = 2 * US_PER_S;

/// An assignment is worth sending again when its rate rises or falls by more than one part in so many.
const NOTICEABLE: u64 = 32;

/// With each change Envoy loses the fraction of a token that its bucket holds. So one waits for this many tokens to have flowed, and for
/// these times; but what cannot be paid is lowered at once.
const TOKENS_PER_CHANGE: u64 = 4;
const CHANGE_LEAST_US: u64 = 300_000;
const CHANGE_MOST_US: u64 = 2_000_000;

/// Rates are told in tokens for so many seconds, because Envoy divides whole tokens by whole seconds: the first of these in which a
/// rate is a hundred tokens, so that rounding down costs one in a hundred.
const FILL_INTERVALS_S: [u32; 3] = [10, 1_000, 1_000_000];
const TOKENS_PER_FILL: u64 = 100;

/// A first assignment that could not be paid is tried again after this time: each try counts as a demand that was denied.
const ASK_AGAIN_US: u64 = 500_000;

/// Of the rate that it could have an Envoy that asks for little is left one part in so many: it says that it asks for more only with its
/// next report, and those of Envoy come every 5 s, whatever is configured.
const IDLE_PART: u64 = 4;

/// How often Envoy reports.
const REPORTS_EVERY_US: u64 = 5_000_000;

/// A report of less than this time says nothing of a rate.
const TELLING_US: u64 = 500_000;

/// Nobody is waited for longer than this: a report after an outage says nothing of the next ones.
const REPORTS_EVERY_MOST_US: u64 = 10_000_000;

/// An Envoy that was not heard of in this many halves of that time is asked for nothing.
const SILENT_AFTER: u64 = 3;

/// No report is believed beyond this many tokens.
const TOKENS_MOST: u64 = 1_000_000_000;

/// Time between two looks at the size of the bucket.
const RESIZE_US: u64 = 2_000_000;

/// What could be paid grows by this part of what is wanted with each payment that succeeds, and by an eighth of itself.
const RECOVERY: u64 = 16;

const US_PER_S: u64 = 1_000_000;

/// All of a bucket, in parts.
pub(crate) const PPM: u64 = 1_000_000;

/// What an Envoy has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing that still holds.
    Nothing,
    /// To deny everything.
    Deny,
    /// To admit everything: the customer is exempt, or the policy only counts.
    Allow,
    /// To admit from a bucket.
    Bucket(Terms),
}

/// The bucket of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Tokens that it holds, and begins with.
    pub(crate) max_tokens: u32,
    /// Tokens that flow into it in `fill_interval_s`.
    pub(crate) tokens_per_fill: u32,
    /// Whole seconds.
    pub(crate) fill_interval_s: u32,
    /// Nanoseconds, without a meaning: when Envoy asks whether a bucket is another one it compares these and not the seconds.
    pub(crate) fill_interval_nanos: u32,
}

/// How a customer stands in this gateway's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody who is admitted.
    Barred,
    /// Admitted whatever it asks for.
    Free,
    /// Has a bucket.
    Limited {
        /// What could be drawn now.
        available: Micro,
        /// Its refill here.
        rate: Rate,
        /// Its depth here.
        depth: Micro,
    },
}

/// One Envoy's share.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    told: Told,
    /// When what was told ends.
    ends: TimeUs,
    /// When to look again.
    due: TimeUs,
    /// What the Envoy could admit if nothing has been used since the last report, and flows up to `paid_until` are in.
    credit: Micro,
    /// Credit of buckets that were taken away since the last report: what is reported next may have been used from them.
    past: Micro,
    paid_until: TimeUs,
    /// Tokens a second that are asked for there; `None` until a report has said so.
    demand: Option<Rate>,
    /// What may still be missing in the bucket of an Envoy that is asked for nothing any more.
    unfilled: Micro,
    /// What the next report says may have been admitted without a bucket.
    was_allowed: bool,
    /// The last payment failed in part.
    is_short: bool,
    /// Highest rate that could be paid lately.
    affordable: Rate,
    changed_at: TimeUs,
    resized_at: TimeUs,
    used_at: TimeUs,
    reported_at: TimeUs,
    /// Time between the last two reports.
    reports_every_us: u64,
    asks_again: TimeUs,
}

/// What the ledger is asked to move.
pub(crate) trait Purse {
    /// Draws an amount; says whether it could.
    fn draw(&mut self, amount: Micro) -> bool;
    /// Charges an amount that is out already, into debt if it must be.
    fn owe(&mut self, amount: Micro);
    /// Gives back what cannot be used any more.
    fn give_back(&mut self, amount: Micro);
    /// Tells of a demand that was denied, so that tokens come to where it is.
    fn lack(&mut self, amount: Micro);
    /// Counts what was admitted whatever the buckets hold; they pay what they can.
    fn count(&mut self, amount: Micro);
}

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    /// Since the report before.
    pub(crate) elapsed_us: u64,
}

/// What an Envoy that is gone may still use, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Estate {
    pub(crate) credit: Micro,
    pub(crate) ends: TimeUs,
}

// === impl Share ===

impl Share {
    /// A share of which nothing is known, but that `past` was paid for what its first report may say.
    pub(crate) fn new(past: Micro, now: TimeUs) -> Self {
        Self {
            told: Told::Nothing,
            ends: now,
            due: now,
            credit: Micro::ZERO,
            past,
            paid_until: now,
            demand: None,
            unfilled: Micro::ZERO,
            was_allowed: false,
            is_short: false,
            affordable: Rate::new(u64::MAX),
            changed_at: now,
            resized_at: now,
            used_at: now,
            reported_at: now,
            reports_every_us: REPORTS_EVERY_US,
            asks_again: now,
        }
    }

    /// Tokens a second that are asked for there, once that is known.
    pub(crate) const fn demand(&self) -> Option<Rate> {
        self.demand
    }

    /// When it was last asked for anything.
    pub(crate) const fn used_at(&self) -> TimeUs {
        self.used_at
    }

    /// Whether it is time to look.
    pub(crate) fn is_due(&self, now: TimeUs) -> bool {
        now >= self.due
    }

    /// Takes a report in.
    pub(crate) fn report(&mut self, used: Used, now: TimeUs, purse: &mut impl Purse) {
        // An Envoy that has used nothing may not say for how long.
        let elapsed_us = match used.elapsed_us {
            0 => now.since(self.reported_at),
            elapsed_us => elapsed_us,
        };
        self.due = now;
        self.reported_at = now;
        let (allowed, denied) = (used.allowed.min(TOKENS_MOST), used.denied.min(TOKENS_MOST));
        let asked = allowed.saturating_add(denied);
        if asked > 0 {
            self.used_at = now;
        }
        // The first report comes with the first request, others with assignments: those say nothing of a rate.
        if elapsed_us >= TELLING_US {
            self.reports_every_us = elapsed_us.clamp(REPORTS_EVERY_US, REPORTS_EVERY_MOST_US);
            let seen = rate_over(Micro::from_tokens(asked), elapsed_us);
            self.demand = Some(follow(self.demand, seen));
        }
        if denied > 0 {
            purse.lack(Micro::from_tokens(denied));
        }
        if allowed > 0
            && let Told::Bucket(terms) = self.told
        {
            self.unfilled = Micro::from_tokens(terms.max_tokens.into());
        }
        let allowed = Micro::from_tokens(allowed);
        let of_past = allowed.min(self.past);
        self.past = Micro::ZERO;
        let rest = allowed.minus(of_past);
        let was_allowed = std::mem::replace(&mut self.was_allowed, self.told == Told::Allow);
        if was_allowed || self.told == Told::Allow {
            purse.count(rest);
            return;
        }
        let of_credit = rest.min(self.credit);
        self.credit = self.credit.minus(of_credit);
        // What an Envoy admits by rules of its own is its own affair, but it has been used.
        purse.owe(rest.minus(of_credit));
        self.give_back_overflow(now, purse);
    }

    /// Pays what flows until the next cycle, and says what the Envoy should be told now, if anything, and for how many whole seconds.
    /// `part_ppm` is this Envoy's part of the customer's bucket here; `holds_us` how long an assignment may hold.
    pub(crate) fn cycle(
        &mut self,
        standing: Standing,
        part_ppm: u64,
        holds_us: u64,
        now: TimeUs,
        purse: &mut impl Purse,
    ) -> Option<(Told, u64)> {
        if now.since(self.reported_at) >= self.reports_every_us.saturating_mul(SILENT_AFTER) / 2 {
            self.demand = Some(Rate::ZERO);
        }
        if now >= self.ends && self.told != Told::Nothing {
            self.told = Told::Nothing;
            self.lose_bucket();
        }
        let mut available = match standing {
            Standing::Limited { available, .. } => available,
            Standing::Barred | Standing::Free => Micro::ZERO,
        };
        // It flows until the Envoy hears of the end, whoever stands how.
        if let Told::Bucket(terms) = self.told {
            self.pay(terms, &mut available, now, purse);
        }
        let holds_us = holds_us.min(TTL_US) / US_PER_S * US_PER_S;
        if holds_us < TTL_LEAST_US {
            // What was told ends by itself.
            self.due = now.plus_us(CYCLE_US);
            return None;
        }
        let next = match standing {
            Standing::Barred => Told::Deny,
            Standing::Free => Told::Allow,
            Standing::Limited { rate, depth, .. } => {
                let rate = rate.share(part_ppm, PPM);
                let depth = depth.share(part_ppm, PPM);
                self.limited(available, rate, depth, now, purse)
            }
        };
        self.due = now.plus_us(match next {
            Told::Bucket(_) if self.demand != Some(Rate::ZERO) => CYCLE_US,
            Told::Deny => ASK_AGAIN_US,
            _ => IDLE_CYCLE_US,
        });
        let is_old = self.ends.since(now) < holds_us / 2;
        if next == self.told && !is_old {
            return None;
        }
        if !matches!(next, Told::Bucket(_)) {
            self.lose_bucket();
        }
        if next != self.told {
            self.changed_at = now;
        }
        self.was_allowed |= next == Told::Allow;
        self.told = next;
        self.ends = now.plus_us(holds_us);
        Some((next, holds_us / US_PER_S))
    }

    /// The Envoy is gone: what it was told holds until it ends, and all of that is paid.
    pub(crate) fn end(&mut self, now: TimeUs, purse: &mut impl Purse) -> Estate {
        if let Told::Bucket(terms) = self.told {
            let from = self.paid_until.max(now.min(self.ends));
            let flows = amount_in(rate_of(terms), self.ends.since(from));
            purse.owe(flows);
            self.credit = self.credit.plus(flows);
        }
        self.told = Told::Nothing;
        self.lose_bucket();
        Estate {
            credit: self.past,
            ends: self.ends,
        }
    }

    /// The Envoy is told to forget the bucket, which nobody has asked for in a long time: what it holds goes back.
    pub(crate) fn forget(&mut self, purse: &mut impl Purse) {
        purse.give_back(self.credit);
        self.credit = Micro::ZERO;
        self.told = Told::Nothing;
    }

    /// What the bucket still held is gone with it.
    fn lose_bucket(&mut self) {
        self.past = self.past.plus(self.credit);
        self.credit = Micro::ZERO;
    }

    /// What the bucket cannot hold, whatever was used, goes back.
    fn give_back_overflow(&mut self, now: TimeUs, purse: &mut impl Purse) {
        let Told::Bucket(terms) = self.told else {
            return;
        };
        let most = Micro::from_tokens(terms.max_tokens.into());
        // What is paid ahead has not flowed yet: it is no overflow.
        let to_come = amount_in(rate_of(terms), self.paid_until.since(now));
        let overflow = self.credit.minus(most).minus(to_come).at_least_zero();
        if overflow > Micro::ZERO {
            purse.give_back(overflow);
            self.credit = self.credit.minus(overflow);
        }
    }

    fn pay(&mut self, terms: Terms, available: &mut Micro, now: TimeUs, purse: &mut impl Purse) {
        let rate = rate_of(terms);
        let one_token_us = US_PER_S
            .saturating_mul(US_PER_S)
            .checked_div(rate.get())
            .unwrap_or(AHEAD_MOST_US);
        let ahead_us = one_token_us.clamp(AHEAD_US, AHEAD_MOST_US);
        if self.paid_until >= now.plus_us(ahead_us / 2) {
            return;
        }
        let until = now.plus_us(ahead_us);
        let due = amount_in(rate, until.since(self.paid_until));
        self.paid_until = until;
        self.credit = self.credit.plus(due);
        let has = due.min(*available).at_least_zero();
        let paid = if has > Micro::ZERO && purse.draw(has) {
            has
        } else {
            Micro::ZERO
        };
        *available = available.minus(paid);
        if self.demand == Some(Rate::ZERO) {
            self.unfilled = self.unfilled.minus(due).at_least_zero();
        }
        self.is_short = paid < due;
        if paid == due {
            let wanted = self.demand.map_or(0, Rate::get).max(rate.get());
            let more = self.affordable.get() / 8 + wanted / RECOVERY;
            self.affordable = Rate::new(self.affordable.get().saturating_add(more));
            return;
        }
        // It flows all the same until the Envoy hears of less.
        purse.owe(due.minus(paid));
        let part = rate.share(paid.get().unsigned_abs(), due.get().unsigned_abs());
        self.affordable = part.max(Rate::new(rate.get() / 2));
    }

    /// The rate that would do, of `rate` that could be had.
    fn wanted(&self, rate: Rate) -> Rate {
        let Some(demand) = self.demand else {
            // All of it before anything is known: what is too much comes back with the first report.
            return rate;
        };
        let idle = rate.get() / IDLE_PART;
        if demand == Rate::ZERO {
            // Until its bucket is surely full again.
            return if self.unfilled > Micro::ZERO {
                rate
            } else {
                Rate::ZERO
            };
        }
        // A quarter above what is asked for, so that a growing demand is seen as such.
        let wanted = demand.get().saturating_add(demand.get() / 4);
        Rate::new(wanted.max(idle)).min(rate)
    }

    fn limited(
        &mut self,
        available: Micro,
        rate: Rate,
        depth: Micro,
        now: TimeUs,
        purse: &mut impl Purse,
    ) -> Told {
        let room = u32::try_from(depth.whole_tokens())
            .unwrap_or(u32::MAX)
            .max(1);
        let Told::Bucket(mut terms) = self.told else {
            return self.first(available, self.wanted(rate), room, now, purse);
        };
        let mut available = available;
        if now.since(self.resized_at) >= RESIZE_US {
            self.resized_at = now;
            available = self.resize(&mut terms, room, available, purse);
        }
        let should = self::terms(terms.max_tokens, self.wanted(rate).min(self.affordable));
        let (is, will_be) = (rate_of(terms).get(), rate_of(should).get());
        let flow_us = TOKENS_PER_CHANGE
            .saturating_mul(US_PER_S)
            .saturating_mul(US_PER_S)
            .checked_div(is)
            .unwrap_or(CHANGE_MOST_US);
        let is_time = now.since(self.changed_at) >= flow_us.clamp(CHANGE_LEAST_US, CHANGE_MOST_US);
        let is_noticeable = is.abs_diff(will_be) > is / NOTICEABLE;
        if will_be > is && is_time && is_noticeable {
            // What is paid ahead was paid at the old rate, and a slow one is paid far ahead.
            let ahead_us = self.paid_until.since(now).min(AHEAD_US);
            let more = amount_in(Rate::new(will_be - is), ahead_us);
            if more == Micro::ZERO || more <= available && purse.draw(more) {
                self.credit = self.credit.plus(more);
                self.paid_until = now.plus_us(ahead_us);
                terms = should;
            }
        } else if will_be < is && is_noticeable && (is_time || self.is_short) {
            terms = should;
        }
        Told::Bucket(terms)
    }

    /// The first bucket: it begins full, and flows before the next cycle, as fast as what is left can pay for.
    fn first(
        &mut self,
        available: Micro,
        wanted: Rate,
        room: u32,
        now: TimeUs,
        purse: &mut impl Purse,
    ) -> Told {
        let half = u32::try_from(available.whole_tokens() / 2).unwrap_or(u32::MAX);
        let max_tokens = room.min(half.max(1));
        let full = Micro::from_tokens(max_tokens.into());
        if now < self.asks_again || available < full {
            return Told::Deny;
        }
        let left = available.minus(full);
        let terms = terms(max_tokens, wanted.min(rate_over(left, AHEAD_US)));
        let flows = amount_in(rate_of(terms), AHEAD_US);
        if !purse.draw(full.plus(flows.min(left))) {
            self.asks_again = now.plus_us(ASK_AGAIN_US);
            return Told::Deny;
        }
        // The slowest that can be told may be more than nothing.
        purse.owe(flows.minus(left).at_least_zero());
        self.credit = self.credit.plus(full).plus(flows);
        self.paid_until = now.plus_us(AHEAD_US);
        self.resized_at = now;
        self.affordable = Rate::new(u64::MAX);
        Told::Bucket(terms)
    }

    /// Envoy fills another bucket to the same part as the one before. Returns what is available then.
    fn resize(
        &mut self,
        terms: &mut Terms,
        room: u32,
        available: Micro,
        purse: &mut impl Purse,
    ) -> Micro {
        // What a bucket is too small for is wasted; what it is too large for comes back.
        let size = terms.max_tokens.max(1);
        if size.saturating_sub(room) <= size / 2 && room.saturating_sub(size) <= size / 8 {
            return available;
        }
        // Of the credit no more than the bucket holds is in it; the rest has been used, or has overflowed.
        let most = Micro::from_tokens(size.into());
        let inside = self.credit.min(most).at_least_zero();
        let to_grow = |room: u32| inside.share(room.into(), size.into()).minus(inside);
        if to_grow(room) <= Micro::ZERO {
            // What a smaller bucket cannot hold may have been used before: the next report says what comes back.
            terms.max_tokens = room;
            return available;
        }
        // As far as half of what is left goes, as with the first one: what all of it costs may never be there at once, because a bucket of one
        // token that is asked for much wastes much of its rate. While nobody asks it will be there.
        let half = u32::try_from(available.whole_tokens() / 2).unwrap_or(u32::MAX);
        let room = if self.demand == Some(Rate::ZERO) || to_grow(room) <= available {
            room
        } else {
            room.min(size.saturating_add(half))
        };
        let more = to_grow(room);
        if room > size && more <= available && purse.draw(more) {
            self.credit = self.credit.plus(more);
            terms.max_tokens = room;
            return available.minus(more);
        }
        available
    }
}

/// Up at once, because clients that are denied go away; down at once where next to nothing is left, and else by halves, because bursts
/// come back.
fn follow(before: Option<Rate>, seen: Rate) -> Rate {
    match before {
        Some(before) if seen < before && seen.get() >= before.get() / 8 => {
            Rate::new(before.get() / 2 + seen.get() / 2)
        }
        _ => seen,
    }
}

/// The rate of an assignment, rounded up.
fn rate_of(terms: Terms) -> Rate {
    let micro = u64::from(terms.tokens_per_fill).saturating_mul(US_PER_S);
    Rate::new(micro.div_ceil(u64::from(terms.fill_interval_s.max(1))))
}

/// A bucket that fills at a rate, rounded down, but no slower than Envoy can be told.
fn terms(max_tokens: u32, rate: Rate) -> Terms {
    let per_fill = |interval_s: u32| rate.get().saturating_mul(interval_s.into()) / US_PER_S;
    let [.., longest] = FILL_INTERVALS_S;
    let intervals = || (0_u32..).zip(FILL_INTERVALS_S);
    let fitting = intervals().find(|(_, interval_s)| per_fill(*interval_s) >= TOKENS_PER_FILL);
    let (nanos, fill_interval_s) = fitting.or(intervals().last()).unwrap_or((0, longest));
    let tokens_per_fill = u32::try_from(per_fill(fill_interval_s)).unwrap_or(u32::MAX);
    Terms {
        max_tokens,
        tokens_per_fill: tokens_per_fill.max(1),
        fill_interval_s,
        fill_interval_nanos: nanos,
    }
}

/// The rate at which an amount flows in a time, rounded down.
fn rate_over(amount: Micro, us: u64) -> Rate {
    let amount = u128::from(amount.at_least_zero().get().unsigned_abs());
    let rate = amount * u128::from(US_PER_S) / u128::from(us.max(1));
    Rate::new(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// What flows in a time, rounded up.
fn amount_in(rate: Rate, us: u64) -> Micro {
    let amount = (u128::from(rate.get()) * u128::from(us)).div_ceil(u128::from(US_PER_S));
    Micro::new(i64::try_from(amount).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
