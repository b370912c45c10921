//! The small value that every worker reads on each tick: what the ledger looks like and what is in force.

use super::layout::Layout;
use crate::bytes::{Reader, Writer};
use crate::error::CoreError;
use crate::lease::{Gap, Lease};
use crate::limits::{LEASE_GAPS, MAX_PAGES_LOG2, MAX_RESOURCES};
use crate::time::TimeUs;

const MARK: [u8; 3] = *b"FBS";
const VERSION: u8 = 3;
const WHAT: &str = "ledger state";
const BYTES: usize = 64 + 16 * LEASE_GAPS;

/// Who says what may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The policy in the plugin's configuration.
    StandAlone,
    /// A control plane that has not answered yet.
    Waiting,
    /// A control plane that has answered.
    Granted,
}

/// Layout of the ledger and what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Number of pages.
    pub layout: Layout,
    /// Number of resources in each entry.
    pub resources: u8,
    /// Tells deployments with different resources apart: see [`State::resources_mark_of`].
    pub resources_mark: u64,
    /// Epoch of the policy whose customers are on the pages.
    pub policy_epoch: u64,
    /// What refills.
    pub lease: Lease,
    /// When the ledger was seeded.
    pub seeded_at: TimeUs,
}

// === impl State ===

impl State {
    /// Who says what may be admitted.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        match self.lease {
            Lease::StandAlone => Mode::StandAlone,
            Lease::Waiting => Mode::Waiting,
            Lease::Granted { .. } => Mode::Granted,
        }
    }

    /// A number that differs (most likely) for other resources or another order of them: the entries of one cannot be
    /// read as those of the other. FNV-1a; it guards against mistakes, not against attackers.
    #[must_use]
    pub fn resources_mark_of<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
        let mut mark = 0xcbf2_9ce4_8422_2325_u64;
        for byte in names.flat_map(|name| name.bytes().chain([0])) {
            mark = (mark ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        mark
    }

    /// The binary form.
    #[must_use]
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut writer = Writer::new(&mut bytes);
        writer.bytes(&MARK);
        writer.u8(VERSION);
        writer.u8(self.layout.policy_pages_log2);
        writer.u8(self.layout.other_pages_log2);
        writer.u8(self.resources);
        let no_gaps = [Gap::default(); LEASE_GAPS];
        let (mode, [from, until, fallback_until, void_before], gaps) = match self.lease {
            Lease::StandAlone => (0, [TimeUs(0); 4], no_gaps),
            Lease::Waiting => (1, [TimeUs(0); 4], no_gaps),
            Lease::Granted {
                from,
                gaps,
                until,
                fallback_until,
                void_before,
            } => (2, [from, until, fallback_until, void_before], gaps),
        };
        writer.u8(mode);
        for field in [
            self.resources_mark,
            self.policy_epoch,
            self.seeded_at.0,
            from.0,
            until.0,
            fallback_until.0,
            void_before.0,
        ] {
            writer.u64(field);
        }
        for gap in gaps {
            writer.u64(gap.from.0);
            writer.u64(gap.until.0);
        }
        bytes
    }

    /// Reads the binary form.
    pub fn decode(bytes: &[u8]) -> Result<State, CoreError> {
        let mut reader = Reader::new(WHAT, bytes);
        reader.mark(MARK, VERSION)?;
        let layout = Layout {
            policy_pages_log2: reader.u8()?,
            other_pages_log2: reader.u8()?,
        };
        let longest = layout.policy_pages_log2.max(layout.other_pages_log2);
        if longest > MAX_PAGES_LOG2 {
            return Err(out_of_bounds("pages", longest, "at most 2^21"));
        }
        let resources = reader.u8()?;
        if resources == 0 || usize::from(resources) > MAX_RESOURCES {
            return Err(out_of_bounds("resources", resources, "1 to 4"));
        }
        let mode = reader.u8()?;
        let mut words = [0; 7];
        for word in &mut words {
            *word = reader.u64()?;
        }
        let [resources_mark, policy_epoch, seeded_at, ends @ ..] = words;
        let [from, until, fallback_until, void_before] = ends.map(TimeUs);
        let mut gaps = [Gap::default(); LEASE_GAPS];
        for gap in &mut gaps {
            gap.from = TimeUs(reader.u64()?);
            gap.until = TimeUs(reader.u64()?);
        }
        reader.end()?;
        let lease = match mode {
            0 => Lease::StandAlone,
            1 => Lease::Waiting,
            2 => Lease::Granted {
                from,
                gaps,
                until,
                fallback_until,
                void_before,
            },
            found => {
                return Err(out_of_bounds(
                    "mode",
                    found,
                    "0 (stand-alone), 1 (waiting) or 2 (granted)",
                ));
            }
        };
        Ok(State {
            layout,
            resources,
            resources_mark,
            policy_epoch,
            lease,
            seeded_at: TimeUs(seeded_at),
        })
    }
}

fn out_of_bounds(field: &'static str, found: u8, allowed: &'static str) -> CoreError {
    CoreError::OutOfBounds {
        what: WHAT,
        field,
        found: u64::from(found),
        allowed,
    }
}
