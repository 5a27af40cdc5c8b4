//! What a run comes to, as far as its exit code goes.

use crate::{error::ErrorKind, exit};

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether a finding counts, or a verdict is another one than it must be.
    pub failed: bool,
    /// What could not be done.
    pub errors: Vec<ErrorKind>,
    /// Whether something could not be found out.
    pub undecided: bool,
}

impl Summary {
    /// The exit code; the first row that applies decides.
    ///
    /// | seen | exit code |
    /// |---|---|
    /// | something definitely failed | 1 |
    /// | a usage error, found during the work | 2 |
    /// | an error of the environment | 3 |
    /// | any other error, or something that could not be found out | 4 |
    /// | none of it | 0 |
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
