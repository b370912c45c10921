//! Everybody that is watched: signs of all first, then a verdict on each beside its peers.
//!
//! What is kept is of a bounded size. Strangers, who are as many as somebody cares to make up, have a part of it, and give way to customers of the policy. A step
//! takes the same work for each series whatever it holds, and is done beside all locks but this one's.

use super::book::{Counts, Flag};
use super::reading::{Reading, Round};
use super::row;
use super::view::EvidenceView;
use crate::forecasts;
use crate::history::Series;
use crate::store::{Batch, Store, StoreError, Table};
use forebay_anomaly::{Action, Customer, Kind, Peers, Rule, Sign, Signs, Watch};
use forebay_wire::key::CustomerHash;
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Series that are watched: 65 536, of half a kilobyte each.
const WATCHED_MOST: usize = 1 << 16;
/// Of these, series of customers outside the policy.
const STRANGERS_MOST: usize = WATCHED_MOST / 4;
/// Who has asked for nothing for so long is forgotten: as long as days are remembered.
const FORGOTTEN_MS: u64 = 28 * 86_400_000;
/// Resources of a policy.
const RESOURCES: usize = forebay_core::limits::MAX_RESOURCES;
const KEY_BYTES: usize = 17;

/// What is known of a series, as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) customer: Customer,
    /// The beginning of the last step in which it asked for anything.
    pub(super) asked_unix_ms: u64,
    /// Whether it is capped for as long as it is flagged.
    pub(super) is_capped: bool,
    pub(super) flag: Option<Standing>,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    kind: Kind,
    since_unix_ms: u64,
    score: f64,
}

/// A series that is watched.
#[derive(Clone, Debug)]
struct Watched {
    known: Known,
    is_stranger: bool,
    /// What spoke last for its flag.
    evidence: Vec<EvidenceView>,
    /// Whether the store has it as it is.
    is_saved: bool,
    /// Whether it is among those whose flag or cap has changed.
    is_ahead: bool,
}

/// Who is watched.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Watch,
    step_ms: u32,
    all: HashMap<Series, Watched>,
    strangers: usize,
    /// By resource.
    peers: Vec<Peers>,
    /// The step that was judged last.
    newest: Option<u64>,
    /// What was forecast when it was judged: before the next one.
    forecasts: Arc<forecasts::Book>,
    /// Whose flag or cap has changed, and is not written down.
    ahead: VecDeque<Series>,
    /// Whose turn it is to be written down.
    queue: VecDeque<Series>,
    /// Who was forgotten, and is still in the store.
    gone: VecDeque<Series>,
    begun: [u64; 2],
}

// === impl Watcher ===

impl Watcher {
    /// Goes on with what the store knows. What cannot be read is only something to be learned again.
    pub(crate) fn load(store: &dyn Store, step_ms: u32) -> Result<Self, StoreError> {
        let watch = Watch::new(step_ms);
        let mut watcher = Self {
            peers: vec![Peers::new(&watch); RESOURCES],
            watch,
            step_ms,
            all: HashMap::new(),
            strangers: 0,
            newest: None,
            forecasts: Arc::default(),
            ahead: VecDeque::new(),
            queue: VecDeque::new(),
            gone: VecDeque::new(),
            begun: [0; 2],
        };
        let mut bad: Option<(usize, String)> = None;
        store.visit(Table::Ways, &mut |key, value| {
            if let Err(reason) = watcher.restore(key, value) {
                let (count, _) = bad.get_or_insert((0, reason));
                *count = count.saturating_add(1);
            }
            Ok(())
        })?;
        if let Some((rows, reason)) = bad {
            tracing::warn!(
                rows,
                reason,
                "what is usual for some customers cannot be read from the store, and is learned anew"
            );
        }
        Ok(watcher)
    }

    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let [resource] = key {
            let peers = row::to_peers(value).map_err(|error| error.to_string())?;
            if let Some(slot) = self.peers.get_mut(usize::from(*resource)) {
                *slot = peers;
            }
            return Ok(());
        }
        let series = key
            .split_first_chunk()
            .filter(|_| key.len() == KEY_BYTES)
            .and_then(|(customer, rest)| Some(Series::new(CustomerHash(*customer), *rest.first()?)))
            .ok_or("its key is none of a customer and a resource")?;
        let known = row::to_series(value).map_err(|error| error.to_string());
        // The row is deleted, or it would be complained of for ever.
        let known = known.inspect_err(|_| self.gone.push_back(series))?;
        if self.all.len() >= WATCHED_MOST {
            self.gone.push_back(series);
            return Ok(());
        }
        self.queue.push_back(series);
        let watched = Watched {
            known,
            // The next step says who is one.
            is_stranger: false,
            evidence: Vec::new(),
            is_saved: true,
            is_ahead: false,
        };
        self.all.insert(series, watched);
        Ok(())
    }

    /// The step that was judged last.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// Who is watched.
    pub(crate) fn series(&self) -> impl Iterator<Item = Series> {
        self.all.keys().copied()
    }

    /// Judges a step. Whoever has no reading in it is not judged: neither by the policy, nor while it is frozen or banned.
    pub(crate) fn judge(&mut self, round: &Round) -> (Vec<Flag>, Counts) {
        let step_ms = u64::from(self.step_ms.max(1));
        let unix_ms = round.step.saturating_mul(step_ms);
        let left_out = self.welcome(round, unix_ms);
        // A cap is on all resources of a customer, whichever it is flagged for.
        let capped = self
            .all
            .iter()
            .filter(|(_, watched)| watched.known.is_capped);
        let capped: HashSet<CustomerHash> = capped.map(|(series, _)| series.customer).collect();
        for peers in &mut self.peers {
            peers.begin();
        }
        let mut seen: Vec<(&Reading, Option<Signs>)> = Vec::with_capacity(round.readings.len());
        for reading in &round.readings {
            let series = reading.series;
            let Some(watched) = self.all.get_mut(&series) else {
                continue;
            };
            let used = round.used.get(&series).copied().unwrap_or_default();
            if used.asked > 0.0 {
                watched.known.asked_unix_ms = unix_ms;
            }
            let high = self.forecasts.mean_of(
                series.customer,
                series.resource,
                step_ms,
                (self.step_ms, unix_ms),
            );
            let forecast_high = high.map(|[_, upper, _]| upper * step_ms as f64 / 1e3);
            let is_capped = capped.contains(&series.customer);
            let step = reading.step(used, (unix_ms, step_ms), forecast_high, is_capped);
            let signs = self.watch.observe(&mut watched.known.customer, &step);
            if let (Some(signs), Some(peers)) =
                (&signs, self.peers.get_mut(usize::from(series.resource)))
            {
                peers.add(signs);
            }
            seen.push((reading, signs));
        }
        let (mut flags, mut learning) = (Vec::new(), 0);
        for (reading, signs) in seen {
            let series = reading.series;
            let peers = self.peers.get(usize::from(series.resource));
            let (Some(watched), Some(peers)) = (self.all.get_mut(&series), peers) else {
                continue;
            };
            if let Some(signs) = signs {
                let around = peers.around(&signs);
                let verdict = self
                    .watch
                    .judge(&mut watched.known.customer, &signs, around);
                let before = watched.follows();
                let began = watched.take(&verdict, reading.rule);
                if before != watched.follows() && !watched.is_ahead {
                    watched.is_ahead = true;
                    self.ahead.push_back(series);
                }
                let place = began.map(|kind| usize::from(kind == Kind::Crowd));
                if let Some(count) = place.and_then(|place| self.begun.get_mut(place)) {
                    *count = count.saturating_add(1);
                }
                watched.is_saved = false;
            }
            learning += usize::from(watched.known.customer.is_learning(&self.watch));
            let contract = round.contracts.get(usize::from(reading.contract.0));
            flags.extend(watched.flag(series, contract.map_or("", String::as_str)));
        }
        flags.sort_by_key(|flag: &Flag| (flag.series.customer, flag.series.resource));
        self.newest = Some(round.step);
        self.forecasts = Arc::clone(&round.forecasts);
        let counts = Counts {
            watched: self.all.len(),
            learning,
            left_out,
            begun: self.begun,
            took_s: 0.0,
        };
        (flags, counts)
    }

    /// Begins to watch who is new, as far as there is room, and forgets who has been silent for long. Returns for how many there was none.
    fn welcome(&mut self, round: &Round, unix_ms: u64) -> usize {
        let gone = &mut self.gone;
        self.all.retain(|series, watched| {
            let is_kept = unix_ms.saturating_sub(watched.known.asked_unix_ms) <= FORGOTTEN_MS;
            if !is_kept {
                gone.push_back(*series);
            }
            is_kept
        });
        self.strangers = 0;
        for reading in &round.readings {
            if let Some(watched) = self.all.get_mut(&reading.series) {
                watched.is_stranger = reading.is_stranger;
                self.strangers += usize::from(reading.is_stranger);
            }
        }
        let is_new = |reading: &&Reading| {
            !self.all.contains_key(&reading.series) && round.used.contains_key(&reading.series)
        };
        let (strangers, members): (Vec<&Reading>, Vec<&Reading>) = round
            .readings
            .iter()
            .filter(is_new)
            .partition(|reading| reading.is_stranger);
        self.displace(members.len());
        let mut left_out = 0;
        for reading in members.into_iter().chain(strangers) {
            let has_room = self.all.len() < WATCHED_MOST
                && (!reading.is_stranger || self.strangers < STRANGERS_MOST);
            if !has_room {
                left_out += 1;
                continue;
            }
            self.strangers += usize::from(reading.is_stranger);
            let watched = Watched {
                known: Known::default(),
                is_stranger: reading.is_stranger,
                evidence: Vec::new(),
                is_saved: false,
                is_ahead: false,
            };
            self.all.insert(reading.series, watched);
            self.queue.push_back(reading.series);
        }
        left_out
    }

    /// Makes room for so many customers of the policy. Strangers go: first those that are not flagged, and of these who has been silent for longest.
    fn displace(&mut self, members: usize) {
        let needed = self.all.len().saturating_add(members);
        let needed = needed.saturating_sub(WATCHED_MOST);
        if needed == 0 {
            return;
        }
        let strangers = self.all.iter().filter(|(_, watched)| watched.is_stranger);
        let mut strangers: Vec<(bool, u64, Series)> = strangers
            .map(|(series, watched)| {
                let known = &watched.known;
                (known.flag.is_some(), known.asked_unix_ms, *series)
            })
            .collect();
        strangers.sort_unstable_by_key(|(is_flagged, asked_unix_ms, series)| {
            (
                *is_flagged,
                *asked_unix_ms,
                series.customer,
                series.resource,
            )
        });
        for (_, _, series) in strangers.into_iter().take(needed) {
            self.all.remove(&series);
            self.gone.push_back(series);
            self.strangers = self.strangers.saturating_sub(1);
        }
    }

    /// Adds at most so many rows to a batch whose flag or cap has changed. In turn with all others they would be too late: a server that is killed would
    /// forget a cap that it has put in force, or bring one back that is over.
    pub(crate) fn save_changed(&mut self, batch: &mut Batch, most: usize) -> usize {
        let mut rows = 0;
        while rows < most
            && let Some(series) = self.ahead.pop_front()
        {
            if let Some(watched) = self.all.get_mut(&series) {
                watched.is_ahead = false;
                rows += usize::from(watched.save(series, batch));
            }
        }
        rows
    }

    /// Whether somebody's flag or cap has changed that is not written down.
    pub(crate) fn has_changed(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Adds at most so many rows to a batch: those whose flag or cap has changed, then those that have waited for longest, and crowds.
    pub(crate) fn save_some(&mut self, batch: &mut Batch, most: usize) -> usize {
        let mut rows = self.save_changed(batch, most);
        while rows < most
            && let Some(series) = self.gone.pop_front()
        {
            if !self.all.contains_key(&series) {
                batch.delete(Table::Ways, key_of(series));
                rows += 1;
            }
        }
        for _ in 0..self.queue.len() {
            if rows >= most {
                break;
            }
            let Some(series) = self.queue.pop_front() else {
                break;
            };
            let Some(watched) = self.all.get_mut(&series) else {
                continue;
            };
            self.queue.push_back(series);
            rows += usize::from(watched.save(series, batch));
        }
        if rows > 0 {
            for (resource, peers) in (0_u8..).zip(&self.peers) {
                if let Some(row) = row::of_peers(peers) {
                    batch.put(Table::Ways, [resource], row);
                }
            }
        }
        rows
    }

    /// Who is capped by what the store says, before the first step.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let flags = self.all.iter();
        let mut flags: Vec<Flag> = flags
            .filter_map(|(series, watched)| watched.flag(*series, ""))
            .collect();
        flags.sort_by_key(|flag| (flag.series.customer, flag.series.resource));
        flags
    }
}

// === impl Watched ===

impl Watched {
    /// Takes a verdict. Returns the kind of a flag that begins with it.
    fn take(&mut self, verdict: &forebay_anomaly::Verdict, rule: Rule) -> Option<Kind> {
        let before = self.known.flag;
        let since = verdict.since_unix_ms;
        self.known.flag = since
            .filter(|_| verdict.kind != Kind::Normal)
            .map(|since_unix_ms| Standing {
                kind: verdict.kind,
                since_unix_ms,
                score: verdict.score,
            });
        let action = verdict.action(rule);
        // The score falls before the flag does: who is capped stays so for as long.
        let may_be_capped = matches!(rule, Rule::CapAtContract { .. });
        self.known.is_capped = match action {
            Some(Action::CapAtContract) => true,
            Some(Action::Flag) => self.known.is_capped && may_be_capped,
            None => false,
        };
        let kind_before = before.map(|flag| flag.kind);
        let kind = self.known.flag.map(|flag| flag.kind);
        // The sum of what was denied outlasts the denials, which do not count while it is capped: what speaks is what was denied before.
        let spoke = verdict.evidence().filter_map(|evidence| {
            let is_over = evidence.sign == Sign::Denied && evidence.times == 0.0;
            let view = EvidenceView::of(evidence);
            let mut before = self.evidence.iter();
            match is_over {
                true => before.find(|before| before.sign == view.sign).cloned(),
                false => Some(view),
            }
        });
        let spoke: Vec<EvidenceView> = spoke.collect();
        if !spoke.is_empty() || kind != kind_before {
            self.evidence = spoke;
        }
        kind.filter(|_| kind != kind_before)
    }

    /// What a flag is to others, which must outlive the server: since when it is unusual, and whether it is capped. Nothing follows from a crowd.
    fn follows(&self) -> (Option<u64>, bool) {
        let flag = self.known.flag.filter(|flag| flag.kind == Kind::Unusual);
        (flag.map(|flag| flag.since_unix_ms), self.known.is_capped)
    }

    /// Adds its row to a batch, if the store does not have it.
    fn save(&mut self, series: Series, batch: &mut Batch) -> bool {
        let row = match std::mem::replace(&mut self.is_saved, true) {
            true => None,
            false => row::of_series(&self.known),
        };
        let is_row = row.is_some();
        if let Some(row) = row {
            batch.put(Table::Ways, key_of(series), row);
        }
        is_row
    }

    fn flag(&self, series: Series, contract: &str) -> Option<Flag> {
        let standing = self.known.flag?;
        Some(Flag {
            series,
            contract: contract.to_owned(),
            is_stranger: self.is_stranger,
            kind: standing.kind,
            since_unix_ms: standing.since_unix_ms,
            score: standing.score,
            action: (standing.kind == Kind::Unusual).then_some(match self.known.is_capped {
                true => Action::CapAtContract,
                false => Action::Flag,
            }),
            evidence: self.evidence.clone(),
        })
    }
}

fn key_of(series: Series) -> Vec<u8> {
    [&series.customer.0[..], &[series.resource]].concat()
}
