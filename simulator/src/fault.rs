//! What goes wrong in a run, drawn before it begins: all policies go through the same.

use crate::random::Random;
use forebay_core::TimeUs;

/// A gateway is cut off once in this time, on average, and for so long.
const CUT_EVERY_US: u64 = 60_000_000;
const CUT_US: (u64, u64) = (5_000_000, 60_000_000);
/// A gateway dies once in this time, and its successor comes after so long.
const DEATH_EVERY_US: u64 = 60_000_000;
const DEAD_US: (u64, u64) = (500_000, 10_000_000);
/// The centre stops once in this time, and for so long.
const STOP_EVERY_US: u64 = 30_000_000;
const STOPPED_US: (u64, u64) = (200_000, 3_000_000);

/// Something goes wrong, or is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No message reaches this gateway or leaves it.
    Cut(usize),
    /// Messages pass again.
    Mend(usize),
    /// The gateway's process is gone, with all that it knew. Its requests go to the next gateway.
    Die(usize),
    /// A successor begins under the same name.
    Born(usize),
    /// The centre is gone.
    Stop,
    /// The centre is there again.
    Start {
        /// It had been told to stop; otherwise it was killed.
        is_clean: bool,
    },
}

/// All faults of a run by time. At `until` everything has been put right.
pub(crate) fn faults(
    gateways: usize,
    from: TimeUs,
    until: TimeUs,
    random: &Random,
) -> Vec<(TimeUs, Fault)> {
    let mut all = Vec::new();
    let mut spell = |random: &mut Random,
                     every_us,
                     (least_us, most_us),
                     pair: &dyn Fn(&mut Random) -> (Fault, Fault)| {
        let mut at = from.plus_us(random.wait_us(every_us));
        while at < until {
            let end = at.plus_us(random.between_us(least_us, most_us)).min(until);
            let (wrong, right) = pair(random);
            all.push((at, wrong));
            all.push((end, right));
            at = end.plus_us(random.wait_us(every_us));
        }
    };
    for (gateway, index) in (0..gateways).zip(0_u64..) {
        let mut cuts = random.fork(2 * index);
        spell(&mut cuts, CUT_EVERY_US, CUT_US, &|_| {
            (Fault::Cut(gateway), Fault::Mend(gateway))
        });
        let mut deaths = random.fork(2 * index + 1);
        spell(&mut deaths, DEATH_EVERY_US, DEAD_US, &|_| {
            (Fault::Die(gateway), Fault::Born(gateway))
        });
    }
    let mut stops = random.fork(u64::MAX);
    spell(&mut stops, STOP_EVERY_US, STOPPED_US, &|random| {
        let is_clean = random.chance(0.5);
        (Fault::Stop, Fault::Start { is_clean })
    });
    all.sort_by_key(|(at, _)| *at);
    all
}
