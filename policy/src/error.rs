//! What can be wrong with a policy, and where.
//!
//! All mistakes are collected (up to a bound) instead of only the first: an operator fixes a file once, not once per mistake.
//! Customers are named by position, never by key: messages end up in logs, and keys may be secrets.

use std::fmt;

/// More mistakes than this are counted, not listed.
const MAX_LISTED: usize = 20;

/// Everything that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// The first mistakes, in the order of the document; at least one.
    pub mistakes: Vec<Mistake>,
    /// How many more there are.
    pub unlisted: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Place in the document, for example `contracts.gold.limits.requests.burst`.
    pub path: String,
    /// What is wrong and what to do.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Another version of the format.
    #[error("is {found}, but this build reads version 1: write `version: 1`")]
    Version {
        /// The version given.
        found: u32,
    },
    /// Too few or too many entries.
    #[error("has {found} entries, allowed are {allowed}")]
    Count {
        /// Entries given.
        found: usize,
        /// Bounds in words.
        allowed: &'static str,
    },
    /// A name that cannot be used in metrics and configuration.
    #[error("is not a name: use 1 to 64 letters, digits, `_`, `-` or `.`")]
    Name,
    /// A number outside its range.
    #[error("is {found}, allowed is {allowed}")]
    Range {
        /// The number given.
        found: String,
        /// The range in words.
        allowed: String,
    },
    /// A contract without a limit for a resource.
    #[error(
        "has no limit for the resource `{resource}`: add one, since a missing limit could mean none or everything"
    )]
    LimitMissing {
        /// The resource.
        resource: String,
    },
    /// A limit for a resource that does not exist.
    #[error("is not a resource of this policy: the resources are {known}")]
    NoSuchResource {
        /// Names of the resources.
        known: String,
    },
    /// A contract name that does not exist.
    #[error("names the contract `{name}`, which is not under `contracts`{suggestion}")]
    NoSuchContract {
        /// The name given.
        name: String,
        /// ` (did you mean ...?)`, or nothing.
        suggestion: String,
    },
    /// A group name that does not exist.
    #[error("names the group `{name}`, which is not under `groups`{suggestion}")]
    NoSuchGroup {
        /// The name given.
        name: String,
        /// ` (did you mean ...?)`, or nothing.
        suggestion: String,
    },
    /// Groups within groups without an end, or too many.
    #[error("makes a circle, or more than {most} groups within one another")]
    Nesting {
        /// Upper bound.
        most: usize,
    },
    /// A field without effect in its surroundings.
    #[error("has no effect {because}: remove it")]
    NoEffect {
        /// Why.
        because: &'static str,
    },
    /// A field that is needed here.
    #[error("is missing: {needed}")]
    Missing {
        /// Why it is needed.
        needed: &'static str,
    },
    /// A bucket that nothing ever fits into.
    #[error(
        "is 0 while the rate is above 0: no request would ever be admitted; give it at least the cost of one request"
    )]
    NoDepth,
    /// More guaranteed than there is.
    #[error(
        "is {capacity} tokens/s, but the guarantees of the listed customers add up to {guaranteed}: lower guarantees or raise the capacity"
    )]
    Overcommitted {
        /// Sum of all guarantees.
        guaranteed: String,
        /// Capacity of the pool.
        capacity: String,
    },
    /// A guarantee that an unlimited number of customers would get.
    #[error(
        "names a contract with a guarantee, which cannot be promised to an unlimited number of unknown customers"
    )]
    UnboundedGuarantee,
    /// A key longer than the plugin hashes.
    #[error("is {found} bytes long, allowed are 1 to {most}")]
    KeyLength {
        /// Bytes given.
        found: usize,
        /// Upper bound.
        most: usize,
    },
    /// The same customer twice.
    #[error("is the same key as that of customers[{first}]: list each customer once")]
    DuplicateCustomer {
        /// Position of the first one.
        first: usize,
    },
    /// The compiled tables are refused by the core. The checks above should have said so first.
    #[error("is refused by the core: {0}")]
    Core(String),
}

/// Collects mistakes while the document is walked.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    listed: Vec<Mistake>,
    unlisted: usize,
}

// === impl PolicyError ===

impl PolicyError {
    /// The first mistake's place.
    #[must_use]
    pub fn path(&self) -> &str {
        self.mistakes
            .first()
            .map_or("", |mistake| mistake.path.as_str())
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mistake) in self.mistakes.iter().enumerate() {
            let comma = if position == 0 { "" } else { "; " };
            write!(f, "{comma}{mistake}")?;
        }
        if self.unlisted > 0 {
            write!(f, "; and {} more", self.unlisted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.problem)
    }
}

// === impl Mistakes ===

impl Mistakes {
    pub(crate) fn add(&mut self, path: impl Into<String>, problem: Problem) {
        self.add_with(path, || problem);
    }

    /// The same for a problem that takes long to describe: of those that are only counted there may be very many.
    pub(crate) fn add_with(&mut self, path: impl Into<String>, problem: impl FnOnce() -> Problem) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Mistake {
                path: path.into(),
                problem: problem(),
            });
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }

    /// The value, unless anything was wrong.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, PolicyError> {
        if self.listed.is_empty() {
            Ok(value)
        } else {
            Err(PolicyError {
                mistakes: self.listed,
                unlisted: self.unlisted,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_that_is_only_counted_is_not_described() {
        let mut mistakes = Mistakes::default();
        let mut described = 0;
        for _ in 0..MAX_LISTED + 5 {
            mistakes.add_with("groups", || {
                described += 1;
                Problem::Nesting { most: 8 }
            });
        }
        assert_eq!((described, mistakes.unlisted), (MAX_LISTED, 5));
    }
}
