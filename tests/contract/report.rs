//! What a replay found.

use std::collections::BTreeMap;
use std::fmt;

use super::deviations;
use super::record::Record;

/// One place where an answer is not the recorded one.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// `status`, `content_type`, `location`, `length`, `text`, or a place in the JSON.
    pub(crate) at: String,
    pub(crate) recorded: String,
    pub(crate) answered: String,
}

impl Difference {
    pub(super) fn new(at: &str, recorded: &dyn ToString, answered: &dyn ToString) -> Self {
        Self { at: at.to_owned(), recorded: recorded.to_string(), answered: answered.to_string() }
    }
}

/// Counts, and every difference that nobody meant.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Recorded exchanges that were replayed.
    pub(crate) exchanges: usize,
    /// Routes, web socket messages and documents that were compared besides.
    pub(crate) others: usize,
    /// How often each deviation that is meant was met, by name.
    pub(crate) deviations: BTreeMap<&'static str, usize>,
    /// Exchange and difference: the contract holds where there is none.
    pub(crate) failures: Vec<(String, Difference)>,
}

impl Report {
    /// Enters one recorded exchange.
    pub(super) fn exchange(&mut self, record: &Record, differences: Vec<Difference>) {
        self.exchanges += 1;
        self.enter(&record.to_string(), &record.path, differences);
    }

    /// Enters a comparison of another kind.
    pub(super) fn other(&mut self, what: &str, path: &str, differences: Vec<Difference>) {
        self.others += 1;
        self.enter(what, path, differences);
    }

    fn enter(&mut self, what: &str, path: &str, differences: Vec<Difference>) {
        for difference in differences {
            match deviations::name_of(path, &difference) {
                Some(name) => *self.deviations.entry(name).or_default() += 1,
                None => self.failures.push((what.to_owned(), difference)),
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} exchanges replayed, {} other comparisons, {} failures",
            self.exchanges,
            self.others,
            self.failures.len()
        )?;
        for (name, count) in &self.deviations {
            writeln!(f, "  meant: {name}, {count} times: {}", deviations::reason(name))?;
        }
        for (what, Difference { at, recorded, answered }) in &self.failures {
            writeln!(f, "  {what}: {at}: recorded {recorded:?}, answered {answered:?}")?;
        }
        Ok(())
    }
}
