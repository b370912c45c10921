//! What customers are, beside what they use: their role, and coarsely where they are.
//!
//! Geography is a matter of persons as soon as a customer is one. So it is taken only when somebody says that it may be, never finer than a country, and it lies in a file
//! of its own, `geography.json`, which nothing else knows of: neither the digest nor any sum in the manifest depends on it, since a sum over so few
//! possible words is as good as the words. Who must forget it deletes that file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::TrainError;
use crate::regular_file::read_text;

pub(super) const ROLES: &str = "roles.json";
pub(super) const GEOGRAPHY: &str = "geography.json";
const BYTES_MAX: u64 = 1 << 25;
const ROLE_BYTES_MAX: usize = 64;

/// A word for each customer that has one.
pub(crate) type Labels = BTreeMap<String, String>;

/// Roles and places of customers.
#[derive(Debug, Default)]
pub(crate) struct CustomerLabels {
    pub(super) roles: Labels,
    pub(super) geography: Labels,
}

/// What may be said of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Role,
    Geography,
}

// === impl Label ===

impl Label {
    fn column(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Geography => "geography",
        }
    }

    fn check(self, word: &str) -> Result<(), &'static str> {
        let is_good = match self {
            Self::Role => {
                (1..=ROLE_BYTES_MAX).contains(&word.len())
                    && word.bytes().all(|byte| byte.is_ascii_graphic())
            }
            Self::Geography => word.len() == 2 && word.bytes().all(|b| b.is_ascii_uppercase()),
        };
        match self {
            _ if is_good => Ok(()),
            Self::Role => Err("a role must be 1 to 64 letters, digits and signs without spaces"),
            Self::Geography => Err(
                "a place must be a country of ISO 3166-1 in two capital letters, such as CH: what is finer is not taken",
            ),
        }
    }

    /// Reads a CSV file with the columns `customer` and the label's.
    pub(super) fn read(self, path: &Path) -> Result<Labels, TrainError> {
        let refused = |reason: String| TrainError::Data {
            path: path.to_owned(),
            reason,
        };
        let text = read_text(path, BYTES_MAX)?;
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        let header = rows.headers().map_err(|error| refused(error.to_string()))?;
        let mut names = header.iter().map(str::trim).enumerate();
        let is_before =
            |nth: usize, name: &str| header.iter().take(nth).any(|other| other.trim() == name);
        if let Some((_, twice)) =
            names.find(|(nth, name)| !name.is_empty() && is_before(*nth, name))
        {
            return Err(refused(format!(
                "there are two columns `{twice}`: leave one of them out, or name it otherwise"
            )));
        }
        let place = |column: &str| {
            let found = header.iter().position(|name| name.trim() == column);
            found.ok_or_else(|| refused(format!("there is no column `{column}`")))
        };
        let (customer, word) = (place("customer")?, place(self.column())?);
        let mut labels = Labels::new();
        for (row, number) in rows.records().zip(1_u64..) {
            let row = row.map_err(|error| refused(error.to_string()))?;
            let cell = |at: usize| row.get(at).unwrap_or_default().trim();
            if cell(word).is_empty() {
                continue;
            }
            self.check(cell(word))
                .map_err(|reason| refused(format!("row {number}: {:?}: {reason}", cell(word))))?;
            let before = labels.insert(cell(customer).to_owned(), cell(word).to_owned());
            if before.is_some_and(|before| before != cell(word)) {
                return Err(refused(format!(
                    "row {number}: customer {:?} has another {} before",
                    cell(customer),
                    self.column()
                )));
            }
        }
        Ok(labels)
    }
}

// === impl CustomerLabels ===

impl CustomerLabels {
    /// Leaves out who is not in the data set.
    pub(super) fn keep(&mut self, customers: &BTreeSet<&str>) {
        for labels in [&mut self.roles, &mut self.geography] {
            labels.retain(|customer, _| customers.contains(customer.as_str()));
        }
    }

    /// Adds roles to the sum of a data set; nothing where there are none, and nothing of geography.
    pub(super) fn digest(&self, sum: &mut Sha256) {
        for (customer, role) in &self.roles {
            // No resource has such a name.
            for text in ["role:", customer, role] {
                sum.update((text.len() as u64).to_le_bytes());
                sum.update(text);
            }
        }
    }
}
