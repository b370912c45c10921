//! What people read of a comparison, and what programs do.

use super::super::table::lines;
use forebay_simulator::pool::what_if::{Outcome, Tally};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Customers, and loans, that the tables have; the file has all.
const ROWS: usize = 50;
const LOANS: usize = 10;
/// Customers that a line names.
const NAMED: usize = 5;
/// Letters of a name.
const LETTERS: usize = 40;
/// Less is shown as nothing, in requests.
const SHOWN: f64 = 0.05;

/// The older policy, and the newer one.
pub(super) struct Report<'a> {
    pub(super) files: [&'a Path; 2],
    /// Of all customers.
    pub(super) names: &'a [String],
    pub(super) seconds: u64,
    pub(super) seed: u64,
    /// How many of the customers each of them lists.
    pub(super) listed: [usize; 2],
    pub(super) outcomes: &'a [Outcome; 2],
}

/// A customer under both.
#[derive(Clone, Copy)]
struct Row<'a> {
    name: &'a str,
    old: Tally,
    new: Tally,
}

// === impl Report ===

impl Report<'_> {
    pub(super) fn text(&self) -> String {
        let [old, new] = self.files.map(Path::display);
        let mut text = format!(
            "{new} against {old}; {} customers for {} s, seed {}; listed {}",
            self.names.len(),
            self.seconds,
            self.seed,
            arrow(&self.listed[0].to_string(), &self.listed[1].to_string()),
        );
        let rows = self.rows();
        let mut cells = vec![heading()];
        cells.extend(rows.iter().take(ROWS).map(Row::cells));
        let [old, new] = self.outcomes.each_ref().map(Outcome::total);
        let name = "all";
        cells.push(Row { name, old, new }.cells());
        text.push_str(&lines(&cells));
        if rows.len() > ROWS {
            text.push_str(&format!(
                "\n{} more customers: --json FILE has all",
                rows.len() - ROWS
            ));
        }
        for (begins, sign) in [("more is admitted to", 1.0), ("less is admitted to", -1.0)] {
            text.push_str(&changed(&rows, begins, sign));
        }
        if self.outcomes[0] == self.outcomes[1] {
            text.push_str("\nnothing changes");
        }
        text.push_str(&self.loans());
        text
    }

    pub(super) fn fields(&self) -> Value {
        let [old, new] = self.files.map(|file| file.display().to_string());
        let customers: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                json!({
                    "customer": row.name,
                    "asked": row.new.asked,
                    "old": fields(&row.old),
                    "new": fields(&row.new),
                })
            })
            .collect();
        let [total_old, total_new] = self.outcomes.each_ref().map(Outcome::total);
        let [loans_old, loans_new] = self.outcomes.each_ref().map(|outcome| {
            let loans = outcome.loans.iter();
            let loans = loans.map(|loan| {
                json!({
                    "lender": self.name(loan.lender),
                    "borrower": self.name(loan.borrower),
                    "token_seconds": loan.token_seconds,
                })
            });
            loans.collect::<Vec<Value>>()
        });
        json!({
            "old": {"policy": old, "listed": self.listed[0], "total": fields(&total_old),
                "loans": loans_old, "loans_cut": self.outcomes[0].is_cut},
            "new": {"policy": new, "listed": self.listed[1], "total": fields(&total_new),
                "loans": loans_new, "loans_cut": self.outcomes[1].is_cut},
            "seconds": self.seconds,
            "seed": self.seed,
            "asked": total_new.asked,
            "customers": customers,
        })
    }

    /// Those first for whom most changes, then those who ask for most.
    fn rows(&self) -> Vec<Row<'_>> {
        let [old, new] = self.outcomes;
        let tallies = old.tallies.iter().zip(&new.tallies);
        let names = self.names.iter();
        let mut rows: Vec<Row<'_>> = names
            .zip(tallies)
            .map(|(name, (old, new))| Row {
                name,
                old: *old,
                new: *new,
            })
            .collect();
        rows.sort_by(|one, other| {
            let by_change = other.change().abs().total_cmp(&one.change().abs());
            let by_change = by_change.then_with(|| other.new.asked.total_cmp(&one.new.asked));
            by_change.then_with(|| one.name.cmp(other.name))
        });
        rows
    }

    fn loans(&self) -> String {
        let mut pairs: BTreeMap<(usize, usize), [f64; 2]> = BTreeMap::new();
        let [old, new] = self.outcomes;
        for loan in &old.loans {
            let both = pairs.entry((loan.lender, loan.borrower)).or_default();
            both[0] = loan.token_seconds;
        }
        for loan in &new.loans {
            let both = pairs.entry((loan.lender, loan.borrower)).or_default();
            both[1] = loan.token_seconds;
        }
        let mut pairs: Vec<((usize, usize), [f64; 2])> = pairs.into_iter().collect();
        let size = |both: &[f64; 2]| both[0].max(both[1]);
        pairs.sort_by(|one, other| size(&other.1).total_cmp(&size(&one.1)));
        if pairs.is_empty() {
            return String::new();
        }
        let mut cells = vec![
            ["lender", "borrower", "token-seconds"]
                .map(str::to_owned)
                .to_vec(),
        ];
        cells.extend(pairs.iter().take(LOANS).map(|(pair, [old, new])| {
            let both = arrow(&amount(*old), &amount(*new));
            vec![shown(self.name(pair.0)), shown(self.name(pair.1)), both]
        }));
        let mut text = format!("\n{}", lines(&cells));
        if pairs.len() > LOANS {
            text.push_str(&format!("\n{} more loans", pairs.len() - LOANS));
        }
        text
    }

    fn name(&self, customer: usize) -> &str {
        self.names.get(customer).map_or("", String::as_str)
    }
}

// === impl Row ===

impl Row<'_> {
    fn change(&self) -> f64 {
        self.new.admitted - self.old.admitted
    }

    fn cells(&self) -> Vec<String> {
        let both = |of: fn(&Tally) -> f64| arrow(&amount(of(&self.old)), &amount(of(&self.new)));
        vec![
            shown(self.name),
            amount(self.new.asked),
            both(|tally| tally.admitted),
            signed(self.change()),
            both(|tally| tally.denied_by_contract),
            both(|tally| tally.denied_by_pool),
            both(|tally| tally.refused),
            arrow(
                &self.old.guarantee_missed_s.to_string(),
                &self.new.guarantee_missed_s.to_string(),
            ),
            both(|tally| tally.lent),
            both(|tally| tally.borrowed),
        ]
    }
}

fn heading() -> Vec<String> {
    let names = [
        "customer",
        "asked",
        "admitted",
        "change",
        "contract",
        "pool",
        "refused",
        "guar. missed s",
        "lent",
        "borrowed",
    ];
    names.map(str::to_owned).to_vec()
}

/// A line that names those for whom most has changed that way; nothing where there is nobody.
fn changed(rows: &[Row<'_>], begins: &str, sign: f64) -> String {
    let found: Vec<String> = rows
        .iter()
        .filter(|row| row.change() * sign >= SHOWN)
        .map(|row| format!("{} {}", shown(row.name), signed(row.change())))
        .collect();
    if found.is_empty() {
        return String::new();
    }
    let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
    let more = match found.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("\n{begins}: {}{more}", named.join(", "))
}

fn fields(tally: &Tally) -> Value {
    json!({
        "admitted": tally.admitted,
        "denied_by_contract": tally.denied_by_contract,
        "denied_by_pool": tally.denied_by_pool,
        "refused": tally.refused,
        "guarantee_missed_s": tally.guarantee_missed_s,
        "lent_token_seconds": tally.lent,
        "borrowed_token_seconds": tally.borrowed,
    })
}

fn arrow(old: &str, new: &str) -> String {
    match old == new {
        true => new.to_owned(),
        false => format!("{old} -> {new}"),
    }
}

fn amount(value: f64) -> String {
    match value.abs() {
        size if size < SHOWN => "0".to_owned(),
        size if size < 1e3 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn signed(value: f64) -> String {
    match value >= SHOWN {
        true => format!("+{}", amount(value)),
        false => amount(value),
    }
}

/// A name comes from a file, and a terminal does what it is told.
fn shown(name: &str) -> String {
    let is_seen = |letter: char| match letter.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => letter,
    };
    let mut letters: String = name.chars().take(LETTERS).map(is_seen).collect();
    if name.chars().nth(LETTERS).is_some() {
        letters.push('…');
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_to_the_terminal_and_stay_short() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(shown(&"k".repeat(41)), format!("{}…", "k".repeat(40)));
        assert_eq!(shown(&"k".repeat(40)), "k".repeat(40));
    }

    #[test]
    fn amounts_are_short_and_what_stays_the_same_stands_once() {
        assert_eq!(arrow(&amount(12.34), &amount(12.31)), "12.3");
        assert_eq!(arrow(&amount(0.01), &amount(1234.6)), "0 -> 1235");
        assert_eq!(
            [signed(2.0), signed(-2.0), signed(0.01)],
            ["+2.0", "-2.0", "0"]
        );
    }
}
