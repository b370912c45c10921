//! Events that the policy announces, on the grid of a study.

use super::past::{Grid, OfPool};
use crate::allocation::Occasion;
use forebay_core::policy::ContractIndex;
use forebay_sharing::risk::Event;
use std::collections::BTreeMap;

// === impl Grid ===

impl Grid {
    /// As a study wants them: events of the same customers in one. `contracts` are those of the pool's customers.
    pub(super) fn events(
        &self,
        occasions: &[Occasion],
        pool: &OfPool,
        contracts: &[Option<ContractIndex>],
    ) -> Vec<Event> {
        let mut events: BTreeMap<Vec<usize>, Vec<bool>> = BTreeMap::new();
        for occasion in occasions {
            let Some((from, to)) = self.within(occasion.from_unix_ms, occasion.until_unix_ms)
            else {
                continue;
            };
            let concerns = |customer: &usize| {
                let contract = contracts.get(*customer).copied().flatten();
                let all = occasion.contracts.as_ref();
                all.is_none_or(|all| contract.is_some_and(|contract| all.contains(&contract)))
            };
            let customers: Vec<usize> = (0..pool.customers.len()).filter(concerns).collect();
            let is_on = events
                .entry(customers)
                .or_insert_with(|| vec![false; self.steps]);
            for is_on in is_on.iter_mut().take(to).skip(from) {
                *is_on = true;
            }
        }
        let events = events.into_iter();
        events
            .map(|(customers, is_on)| Event { customers, is_on })
            .collect()
    }

    /// The steps that a time touches, the last one not in it; none where it is over before the first or begins after the last.
    fn within(&self, from_ms: u64, until_ms: u64) -> Option<(usize, usize)> {
        let step_ms = self.step_ms.max(1);
        let after = until_ms.checked_sub(self.from_ms)?.div_ceil(step_ms);
        let first = from_ms.saturating_sub(self.from_ms) / step_ms;
        let place = |step: u64| usize::try_from(step).unwrap_or(usize::MAX).min(self.steps);
        let (first, after) = (place(first), place(after));
        (first < after).then_some((first, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_wire::key::CustomerHash;

    #[test]
    fn events_are_on_while_they_last_for_whom_they_concern() {
        let grid = Grid {
            fold: 1,
            step_ms: 300_000,
            from_ms: 3_000_000,
            steps: 6,
        };
        let pool = OfPool {
            customers: [1, 2, 3].map(|number| CustomerHash([number; 16])).to_vec(),
            usage: Vec::new(),
        };
        let contracts = [Some(0), Some(1), None].map(|row| row.map(ContractIndex));
        let occasion = |from_unix_ms, until_unix_ms, row: Option<u16>| Occasion {
            from_unix_ms,
            until_unix_ms,
            contracts: row.map(|row| [ContractIndex(row)].into()),
        };
        let occasions = [
            occasion(0, 3_000_000, None),
            occasion(3_300_000, 3_600_001, None),
            occasion(4_500_000, 9_999_000, Some(1)),
            occasion(4_800_000, 9_999_000, None),
            occasion(3_000_000, 9_999_000, Some(7)),
        ];
        let events = grid.events(&occasions, &pool, &contracts);
        let on: Vec<(Vec<usize>, Vec<usize>)> = events
            .iter()
            .map(|event| {
                let steps = (0..6).filter(|step| event.is_on[*step]);
                (event.customers.clone(), steps.collect())
            })
            .collect();
        let nobody = (Vec::new(), vec![0, 1, 2, 3, 4, 5]);
        assert_eq!(
            on,
            [nobody, (vec![0, 1, 2], vec![1, 2]), (vec![1], vec![5])]
        );
    }
}
