//! What is to be told, and what an Alertmanager has been told of it.

use super::message::Told;
use forebay_alerts::Key;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long it is tried to tell that an alert is over. By then an Alertmanager has found out itself: what it was told holds for less.
const ENDED_KEPT_MS: u64 = 900_000;

/// An alert that fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about: what makes it the same alert.
    pub key: Key,
    /// Since when it fires.
    pub since_unix_ms: u64,
    /// What is wrong, in a line.
    pub summary: String,
    /// What to do.
    pub description: String,
}

/// All alerts that Alertmanagers are to know of. As large as what fires, and what has ended in the last minutes.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<Key, Entry>);

#[derive(Debug)]
struct Entry {
    notice: Notice,
    ended_unix_ms: Option<u64>,
}

/// What one Alertmanager has been told.
#[derive(Debug, Default)]
pub(super) struct Record(BTreeMap<Key, Telling>);

/// What it was told of an alert last.
#[derive(Clone, Copy, Debug)]
struct Telling {
    since_unix_ms: u64,
    has_ended: bool,
    at: Instant,
}

// === impl Book ===

impl Book {
    /// Takes all that fires now. What fired before and does not any more has ended. Returns whether somebody has to be told.
    pub(super) fn set(&mut self, firing: Vec<Notice>, now_unix_ms: u64) -> bool {
        let mut is_news = false;
        let mut firing: BTreeMap<Key, Notice> = firing
            .into_iter()
            .map(|notice| (notice.key.clone(), notice))
            .collect();
        self.0.retain(|_, entry| {
            let ended = entry.ended_unix_ms;
            ended.is_none_or(|ended| now_unix_ms.saturating_sub(ended) <= ENDED_KEPT_MS)
        });
        for (key, entry) in &mut self.0 {
            match firing.remove(key) {
                Some(notice) => {
                    is_news |= entry.notice.since_unix_ms != notice.since_unix_ms;
                    entry.notice = notice;
                    entry.ended_unix_ms = None;
                }
                None if entry.ended_unix_ms.is_none() => {
                    is_news = true;
                    // Clocks are set back: an alert does not end before it begins.
                    entry.ended_unix_ms = Some(now_unix_ms.max(entry.notice.since_unix_ms));
                }
                None => {}
            }
        }
        is_news |= !firing.is_empty();
        self.0.extend(firing.into_iter().map(|(key, notice)| {
            let entry = Entry {
                notice,
                ended_unix_ms: None,
            };
            (key, entry)
        }));
        is_news
    }

    /// What this Alertmanager has to be told now, and at most so many.
    pub(super) fn due(
        &self,
        record: &Record,
        resend_after: Duration,
        now: Instant,
        most: usize,
    ) -> Vec<Told> {
        let due = self.0.iter().filter(|(key, entry)| {
            let Some(last) = record.0.get(key) else {
                return true;
            };
            let has_ended = entry.ended_unix_ms.is_some();
            let is_new =
                last.since_unix_ms != entry.notice.since_unix_ms || last.has_ended != has_ended;
            is_new || (!has_ended && now.duration_since(last.at) >= resend_after)
        });
        let told = due.take(most).map(|(_, entry)| Told {
            notice: entry.notice.clone(),
            ended_unix_ms: entry.ended_unix_ms,
        });
        told.collect()
    }

    /// Forgets of a record what nobody has to be told any more.
    pub(super) fn tidy(&self, record: &mut Record) {
        record.0.retain(|key, _| self.0.contains_key(key));
    }
}

// === impl Record ===

impl Record {
    /// Notes what the Alertmanager has been told.
    pub(super) fn note(&mut self, told: &[Told], at: Instant) {
        let tellings = told.iter().map(|told| {
            let telling = Telling {
                since_unix_ms: told.notice.since_unix_ms,
                has_ended: told.ended_unix_ms.is_some(),
                at,
            };
            (told.notice.key.clone(), telling)
        });
        self.0.extend(tellings);
    }

    /// When the first of what fires is to be told again.
    pub(super) fn next(&self, resend_after: Duration) -> Option<Instant> {
        let firing = self.0.values().filter(|telling| !telling.has_ended);
        firing.map(|telling| telling.at + resend_after).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_alerts::Kind;

    const RESEND: Duration = Duration::from_secs(60);

    fn notice(gateway: &str, since_unix_ms: u64) -> Notice {
        Notice {
            key: Key {
                kind: Kind::ModelRefused,
                gateway: Some(gateway.to_owned()),
                model: None,
                customer: None,
            },
            since_unix_ms,
            summary: String::new(),
            description: String::new(),
        }
    }

    /// Gateways whose alerts are due, and whether they have ended.
    fn due(book: &Book, record: &Record, at: Instant) -> Vec<(String, Option<u64>)> {
        let due = book.due(record, RESEND, at, 100).into_iter();
        due.map(|told| (told.notice.key.gateway.unwrap(), told.ended_unix_ms))
            .collect()
    }

    fn tell(book: &Book, record: &mut Record, at: Instant) {
        let told = book.due(record, RESEND, at, 100);
        record.note(&told, at);
    }

    #[test]
    fn what_fires_is_told_at_once_and_again_and_what_has_ended_once() {
        let (mut book, mut record, start) = (Book::default(), Record::default(), Instant::now());
        assert!(!book.set(Vec::new(), 1));
        assert!(book.set(vec![notice("a", 1)], 1));
        assert!(!book.set(vec![notice("a", 1)], 2), "the same alert");
        assert_eq!(due(&book, &record, start), [("a".to_owned(), None)]);
        tell(&book, &mut record, start);
        assert_eq!(due(&book, &record, start + RESEND / 2), []);
        assert_eq!(record.next(RESEND), Some(start + RESEND));
        assert_eq!(due(&book, &record, start + RESEND).len(), 1);
        assert!(book.set(Vec::new(), 9));
        assert_eq!(due(&book, &record, start), [("a".to_owned(), Some(9))]);
        tell(&book, &mut record, start);
        assert_eq!(due(&book, &record, start + RESEND * 9), []);
        assert_eq!(record.next(RESEND), None);
    }

    #[test]
    fn one_that_fires_anew_is_told_anew_also_where_nobody_heard_its_end() {
        let (mut book, mut record, start) = (Book::default(), Record::default(), Instant::now());
        book.set(vec![notice("a", 1)], 1);
        tell(&book, &mut record, start);
        book.set(Vec::new(), 2);
        assert!(book.set(vec![notice("a", 3)], 3));
        assert_eq!(due(&book, &record, start), [("a".to_owned(), None)]);
    }

    #[test]
    fn what_has_ended_long_ago_is_forgotten_everywhere() {
        let (mut book, mut record) = (Book::default(), Record::default());
        book.set(vec![notice("a", 1), notice("b", 1)], 1);
        tell(&book, &mut record, Instant::now());
        book.set(vec![notice("b", 1)], 2);
        book.set(vec![notice("b", 1)], 3 + ENDED_KEPT_MS);
        book.tidy(&mut record);
        assert_eq!((book.0.len(), record.0.len()), (1, 1));
    }

    #[test]
    fn a_clock_that_is_set_back_ends_no_alert_before_it_began() {
        let (mut book, record) = (Book::default(), Record::default());
        book.set(vec![notice("a", 50)], 50);
        book.set(Vec::new(), 9);
        let told = due(&book, &record, Instant::now());
        assert_eq!(told, [("a".to_owned(), Some(50))]);
    }
}
