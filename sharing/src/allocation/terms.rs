//! What a customer has bought, as the allocation reads it.

use crate::allocation::outlook::Outlook;
use crate::numbers::clean;
use forebay_core::policy::Tier;
use forebay_core::resource::PerResource;

/// One customer in one cycle.
#[derive(Clone, Debug)]
pub struct Customer {
    /// Who gives way first when the pool is short.
    pub tier: Tier,
    /// Within a tier, higher goes first.
    pub priority: u8,
    /// Share among customers of one tier and priority. Not positive or not a number counts as a millionth.
    pub weight: f64,
    /// The innermost group of linked accounts that it belongs to: a position in the list of groups.
    pub group: Option<usize>,
    /// What it has bought of each resource.
    pub terms: PerResource<Terms>,
    /// What it is expected to ask for.
    pub outlook: PerResource<Outlook>,
    /// Extra room before a spike that is expected to hit it, in tokens per second.
    pub headroom_per_s: PerResource<f64>,
    /// What it had until now, and whether that was about to be taken back.
    pub held: PerResource<Held>,
    /// What it has earned by lending, see [`crate::credits_after`]. Only read where [`crate::Settings::with_credits`] says so.
    pub credits: f64,
}

/// The contract on one resource. All in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Its own whatever others do, as far as the capacity goes.
    pub guarantee_per_s: f64,
    /// What it has bought.
    pub rate_per_s: f64,
    /// Up to which it may borrow what nobody needs.
    pub ceiling_per_s: f64,
    /// Which part of the guarantee others may use while it is not needed.
    pub lend: Lend,
}

/// How much of an unused guarantee may be lent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Lend {
    /// Nothing.
    Never,
    /// All that even the upper forecast does not need.
    #[default]
    Auto,
    /// The same, but no more than this, in tokens per second.
    UpTo(f64),
}

/// What a customer was allocated by the cycle before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    /// Tokens per second.
    pub per_s: f64,
    /// Whether that cycle wanted to give less, and kept some for one more cycle.
    pub is_releasing: bool,
}

/// Linked accounts: their sum is capped, and what one does not need of its guarantee is the others' first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The group that this one is a part of: a position before its own. Any other counts as none.
    pub parent: Option<usize>,
    /// Upper bound of all members' allocations together, in tokens per second.
    pub cap_per_s: PerResource<Option<f64>>,
}

// === impl Terms ===

impl Terms {
    /// The same in numbers that can be reckoned with: not negative, finite, guarantee <= rate <= ceiling.
    pub(crate) fn clean(self) -> Self {
        let rate_per_s = clean(self.rate_per_s);
        Self {
            guarantee_per_s: clean(self.guarantee_per_s).min(rate_per_s),
            rate_per_s,
            ceiling_per_s: clean(self.ceiling_per_s).max(rate_per_s),
            lend: self.lend,
        }
    }
}

// === impl Lend ===

impl Lend {
    /// What of `unused_per_s` may be lent.
    pub(crate) fn of(self, unused_per_s: f64) -> f64 {
        match self {
            Lend::Never => 0.0,
            Lend::Auto => unused_per_s,
            Lend::UpTo(limit_per_s) => unused_per_s.min(clean(limit_per_s)),
        }
    }
}
