//! The result of a run, as far as it decides the exit code.

use crate::{error::ErrorKind, exit};

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether a finding counts, or a verdict differs from the required one.
    pub failed: bool,
    /// The errors.
    pub errors: Vec<ErrorKind>,
    /// Whether a result is undecided.
    pub undecided: bool,
}

impl Summary {
    /// The exit code; the first row that applies decides.
    ///
    /// | result | exit code |
    /// |---|---|
    /// | something definitely failed | 1 |
    /// | a usage error, detected during the run | 2 |
    /// | an environment error | 3 |
    /// | any other error, or an undecided result | 4 |
    /// | none of these | 0 |
    pub fn exit_code(&self) -> u8 {
        if self.failed {
            exit::FAILED
        } else if self.errors.contains(&ErrorKind::Usage) {
            exit::USAGE
        } else if self.errors.contains(&ErrorKind::Environment) {
            exit::ENVIRONMENT
        } else if self.undecided || !self.errors.is_empty() {
            exit::UNDECIDED
        } else {
            exit::OK
        }
    }
}
