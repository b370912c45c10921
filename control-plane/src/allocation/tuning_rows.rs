//! What is kept of tuning, in one row of the store beside the newest cycle.
//!
//! A row of its own, so that one that cannot be read costs what was learned and not the allocation.

use super::tuning::{Choice, FellBack, Tuned};
use crate::store::{Batch, Store, StoreError, Table};
use forebay_sharing::tuning::WORDS_MOST;
use prost::Message;

const TUNING: u8 = 6;
/// Arms at most.
const ARMS_MOST: usize = 16;

#[derive(Clone, PartialEq, Message)]
struct TunedRecord {
    /// Which cycle it belongs to.
    #[prost(uint64, tag = "1")]
    cycle: u64,
    #[prost(fixed64, repeated, tag = "2")]
    words: Vec<u64>,
    #[prost(fixed64, tag = "3")]
    arms: u64,
    #[prost(uint64, repeated, tag = "4")]
    cycles: Vec<u64>,
    #[prost(uint64, tag = "5")]
    decisions: u64,
    #[prost(uint64, tag = "6")]
    explored: u64,
    #[prost(uint64, tag = "7")]
    fallbacks: u64,
    #[prost(uint64, optional, tag = "8")]
    fallback_cycle: Option<u64>,
    #[prost(uint64, tag = "9")]
    fallback_until_unix_ms: u64,
    #[prost(message, optional, tag = "10")]
    choice: Option<ChoiceRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct ChoiceRecord {
    #[prost(uint64, tag = "1")]
    decision: u64,
    #[prost(uint32, tag = "2")]
    arm: u32,
    #[prost(double, tag = "3")]
    propensity: f64,
}

/// Adds what is kept with a cycle to its batch.
pub(super) fn write_tuned(batch: &mut Batch, cycle: u64, tuned: Option<&Tuned>) {
    let Some(tuned) = tuned else {
        return;
    };
    let record = TunedRecord {
        cycle,
        words: tuned.words.clone(),
        arms: tuned.arms,
        cycles: tuned.cycles.clone(),
        decisions: tuned.decisions,
        explored: tuned.explored,
        fallbacks: tuned.fallbacks,
        fallback_cycle: tuned.fallback.map(|fallback| fallback.cycle),
        fallback_until_unix_ms: tuned.fallback.map_or(0, |fallback| fallback.until_unix_ms),
        choice: tuned.choice.map(|choice| ChoiceRecord {
            decision: choice.decision,
            arm: u32::try_from(choice.arm).unwrap_or(u32::MAX),
            propensity: choice.propensity,
        }),
    };
    batch.put_message(Table::Sharing, &[&[TUNING]], &record);
}

/// What the store has with a cycle. What cannot be read is dropped, with a warning; that there was something stays.
pub(super) fn load_tuned(store: &dyn Store, cycle: u64) -> Result<Option<Tuned>, StoreError> {
    let Some(row) = store.get(Table::Sharing, &[TUNING])? else {
        return Ok(None);
    };
    let record = TunedRecord::decode(row.as_slice()).map_err(|error| error.to_string());
    let checked = record.and_then(|record| record.checked(cycle));
    Ok(Some(checked.unwrap_or_else(|reason| {
        tracing::warn!("what was learned by tuning is dropped: {reason}");
        Tuned::lost()
    })))
}

// === impl TunedRecord ===

impl TunedRecord {
    fn checked(self, cycle: u64) -> Result<Tuned, String> {
        if self.cycle != cycle {
            return Err(format!(
                "it is of cycle {}, and the newest is {cycle}",
                self.cycle
            ));
        }
        if self.words.len() > WORDS_MOST || self.cycles.len() > ARMS_MOST {
            return Err("there is more of it than there can be".to_owned());
        }
        let choice = self.choice.map(|choice| Choice {
            decision: choice.decision,
            arm: choice.arm as usize,
            propensity: choice.propensity,
        });
        if choice.is_some_and(|choice| choice.arm >= self.cycles.len()) {
            return Err("the newest cycle goes by values that there are none of".to_owned());
        }
        let fallback = self.fallback_cycle.map(|cycle| FellBack {
            cycle,
            until_unix_ms: self.fallback_until_unix_ms,
        });
        Ok(Tuned {
            words: self.words,
            arms: self.arms,
            cycles: self.cycles,
            decisions: self.decisions,
            explored: self.explored,
            fallbacks: self.fallbacks,
            fallback,
            choice,
        })
    }
}
