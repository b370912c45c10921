//! Whether others rise as well: a flash crowd, and no abuse.
//!
//! A group is a crowd when half of its members have risen, and that explains of a customer's rise some times what is the median of the others'. Both
//! are medians, so what less than half of a group makes up moves neither far: with 40 % of liars that all shout, one in six of the honest
//! has to rise as well for a crowd, and with 40 % that are silent five in six suffice. So neither a higher nor a lower share would do. Means were
//! the worse alternative: one customer could have excused another one.
//!
//! Risen is who is above its own past. A z alone was the worse alternative: jobs that begin at each full hour have it at the same minute, and
//! liars who shout in that minute had their crowd, hour after hour.
//!
//! This is the only way in which what a customer does reaches another one's verdict.

use crate::customer::Watch;
use crate::past::Past;
use crate::signs::{Seen, Signs};
use serde::{Deserialize, Serialize};

/// Standard deviations below which nobody has risen, however quiet its days were.
const RISEN_Z: f64 = 2.5;
/// By so much a score must be above what its days know: that is the fourth highest of eight steps, and of what comes and goes within minutes
/// one step is higher. With less, one in six has risen in some minute of each week by chance or by the clock; with more, crowds are seen a minute too late.
const RISEN_ABOVE: f64 = 0.2;
/// The share of the others that must have risen.
const SHARE_LEAST: f64 = 0.5;
/// Of fewer others nothing is concluded.
const OTHERS_LEAST: u32 = 4;
/// What a crowd explains of a rise above a customer's own highest: so many times the others' median.
const TIMES_OF_OTHERS: f64 = 2.0;
/// What is left of that median in each step while it falls: windows of hours come home last.
const TIMES_FADE: f64 = 0.99;
const BINS: usize = 40;
/// Bins of the multiples, for each factor of two.
const BINS_A_DOUBLING: f64 = 4.0;

/// The customers of a tier, of a group, or all of them. What is written down of them is whether they are a crowd, and not the step that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peers {
    #[serde(skip, default = "Round::new")]
    round: Round,
    /// Steps for which it counts as a crowd after it was one: not all come home at the same time.
    lingers: u16,
    left: u16,
    /// The median multiple while it was one.
    times: f64,
}

#[derive(Clone, Debug)]
struct Round {
    members: u32,
    risen: u32,
    times: [u32; BINS],
}

/// What the others do in the step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Around {
    /// The share of them that has risen.
    pub risen_share: f64,
    /// How many others there are.
    pub others: u32,
    /// Up to what multiple of its own highest a customer's rise is that of the crowd; 0: there is none.
    pub(crate) explains_times: f64,
}

/// Whether a sign has risen enough to make its customer one of a crowd.
pub(crate) fn is_risen(seen: &Seen, past: &Past) -> bool {
    let z = seen.z_that_matters();
    seen.is_learned && z >= RISEN_Z && z.ln_1p() > past.highest() + RISEN_ABOVE
}

// === impl Peers ===

impl Peers {
    /// Peers of whom nothing is known.
    #[must_use]
    pub fn new(watch: &Watch) -> Self {
        Self {
            round: Round::new(),
            lingers: watch.pace.quiet_steps,
            left: 0,
            times: 1.0,
        }
    }

    /// Begins a step; what the one before has said is kept only as whether it was a crowd.
    pub fn begin(&mut self) {
        let round = std::mem::replace(&mut self.round, Round::new());
        if round.share(0, 0) >= SHARE_LEAST && round.members > OTHERS_LEAST {
            self.left = self.lingers;
            self.times = round.median(None).max(TIMES_FADE * self.times);
        } else {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.times = 1.0;
            }
        }
    }

    /// Adds a member, all of them before the first is judged.
    pub fn add(&mut self, signs: &Signs) {
        self.round.add(signs);
    }

    /// What a member's others do.
    #[must_use]
    pub fn around(&self, signs: &Signs) -> Around {
        let (own, own_risen) = (u32::from(signs.is_learned), u32::from(signs.has_risen));
        let others = self.round.members.saturating_sub(own);
        let risen_share = self.round.share(own, own_risen);
        let is_crowd = risen_share >= SHARE_LEAST;
        let times = match (is_crowd, self.left > 0) {
            (true, true) => self.round.median(Some(signs)).max(self.times),
            (true, false) => self.round.median(Some(signs)),
            (false, true) => self.times,
            (false, false) => 0.0,
        };
        Around {
            risen_share,
            others,
            explains_times: match others >= OTHERS_LEAST {
                true => TIMES_OF_OTHERS * times,
                false => 0.0,
            },
        }
    }
}

// === impl Round ===

impl Round {
    fn new() -> Self {
        Self {
            members: 0,
            risen: 0,
            times: [0; BINS],
        }
    }

    fn add(&mut self, signs: &Signs) {
        if !signs.is_learned {
            return;
        }
        self.members += 1;
        self.risen += u32::from(signs.has_risen);
        if let Some(count) = self.times.get_mut(bin(signs.demand_times())) {
            *count += 1;
        }
    }

    fn share(&self, own: u32, own_risen: u32) -> f64 {
        let others = self.members.saturating_sub(own);
        f64::from(self.risen.saturating_sub(own_risen)) / f64::from(others.max(1))
    }

    /// The median multiple, without one of them.
    fn median(&self, without: Option<&Signs>) -> f64 {
        let without = without.filter(|signs| signs.is_learned);
        let own = without.map(|signs| bin(signs.demand_times()));
        let others = self.members.saturating_sub(u32::from(own.is_some()));
        let mut lower = 0;
        for (place, count) in self.times.iter().enumerate() {
            lower += count.saturating_sub(u32::from(own == Some(place)));
            if 2 * lower > others {
                return (place as f64 / BINS_A_DOUBLING).exp2();
            }
        }
        1.0
    }
}

fn bin(times: f64) -> usize {
    ((times.max(1.0).log2() * BINS_A_DOUBLING) as usize).min(BINS - 1)
}

// === impl Around ===

impl Around {
    /// Of several groups that a customer is in, what explains most.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        match other.explains_times > self.explains_times {
            true => other,
            false => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(times: f64) -> Signs {
        let seen = Seen {
            times,
            is_learned: true,
            ..Seen::default()
        };
        Signs {
            seen: [None; 6],
            plain: [seen; 3],
            is_learned: true,
            has_risen: times > 1.0,
            elapsed_ms: 0,
            unix_ms: 0,
            demand: 0.0,
            denied_share: 0.0,
            log_demand: 0.0,
            is_event: false,
        }
    }

    /// What is around the first of a group in which demand is so many times the usual.
    fn around(group: &[f64]) -> Around {
        let mut peers = Peers::new(&Watch::new(60_000));
        peers.begin();
        group.iter().for_each(|times| peers.add(&signs(*times)));
        peers.around(&signs(group[0]))
    }

    #[test]
    fn nobody_is_its_own_peer() {
        // Two of the four others have risen; of all five it is less than half.
        let still = around(&[1.0, 1.0, 1.0, 8.0, 8.0]);
        assert_eq!((still.others, still.risen_share), (4, 0.5));
        assert_eq!(still.explains_times, 16.0);
        // Half of six have risen, and of the five others two.
        let risen = around(&[64.0, 1.0, 1.0, 1.0, 8.0, 8.0]);
        assert_eq!((risen.others, risen.risen_share), (5, 0.4));
        assert_eq!(risen.explains_times, 0.0, "it has excused itself");
        // The third highest of its four others, and not of all five.
        let median = around(&[64.0, 4.0, 4.0, 4.0, 16.0]);
        assert_eq!((median.risen_share, median.explains_times), (1.0, 8.0));
        let least = around(&[64.0, 1.0, 8.0, 8.0]);
        assert_eq!((least.others, least.explains_times), (3, 0.0));
    }
}
