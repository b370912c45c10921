//! Changes of more rows than one script should make: all accounts at the end of a run, for example.
//!
//! The rows are put beside the tables first, in parts, which count for nothing. One script then says that they count. After that they are
//! applied part by part, by whoever leads: a leader that finds some left begins with them. To apply them part by part at once was the worse
//! alternative: half of a change would be there after a crash.

use super::super::encoding::{decode_changes, encode_changes};
use super::super::{Changes, StoreError};
use super::keeper::{Inner, Keeper};
use super::link::{Call, Link, Trouble};
use super::scripts::{FENCE, HEAD, SEALED, STAGED, Script};
use super::{MAX_BYTES_AT_ONCE, MAX_ROWS_AT_ONCE};
use redis::cmd;

const KEYS: [&str; 4] = [FENCE, HEAD, STAGED, SEALED];

impl Keeper {
    /// Makes a large change count, without applying it.
    pub(super) fn stage_large(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        changes: Changes<'_>,
    ) -> Result<(), Trouble> {
        for (place, part) in changes
            .chunks(MAX_ROWS_AT_ONCE, MAX_BYTES_AT_ONCE)
            .enumerate()
        {
            let mut bytes = Vec::new();
            encode_changes(part, &mut bytes);
            self.step(inner, link, Script::Stage, |call| {
                call.with(bytes).number(u64::from(place == 0));
            })?;
        }
        // Whether it counts is not known when the answer is lost: then it is asked for before the next change.
        inner.is_unapplied = true;
        self.step(inner, link, Script::Seal, |_| {})
    }

    /// Applies what is left of a large change, if one counts.
    pub(super) fn apply_large(&self, inner: &mut Inner, link: &mut Link) -> Result<(), Trouble> {
        if !inner.is_unapplied {
            return Ok(());
        }
        // No earlier attempt can be made after this one: what is read now changes only by what is done here.
        self.change(inner, link, Changes::default(), false)?;
        let counts: Option<u64> = link.ask(cmd("GET").arg(SEALED))?;
        while counts.is_some()
            && let Some(part) = link.ask::<Option<Vec<u8>>>(cmd("LINDEX").arg(STAGED).arg(0))?
        {
            let part = decode_changes(&part).map_err(|reason| {
                Trouble::Refused(StoreError::Damaged {
                    what: "large change",
                    reason,
                })
            })?;
            self.change(inner, link, part.changes(), true)?;
        }
        self.step(inner, link, Script::Clear, |_| {})?;
        inner.is_unapplied = false;
        Ok(())
    }

    /// Calls one of the scripts about large changes, which count as changes themselves.
    pub(super) fn step(
        &self,
        inner: &mut Inner,
        link: &mut Link,
        script: Script,
        fill: impl FnOnce(&mut Call),
    ) -> Result<(), Trouble> {
        let number = inner.attempt();
        let mut call = Call::on(&KEYS);
        call.with(self.fence.as_str())
            .number(inner.acknowledged)
            .number(number.saturating_sub(1))
            .number(number);
        fill(&mut call);
        let _done: u64 = link.change(script, call)?;
        inner.acknowledged = number;
        Ok(())
    }
}
