//! The results of one subject so far.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::expect::Losses;
use lockproof_model::{error::Error, finding::Finding, report::SubjectReport};

/// The results of one subject so far. It is updated during the run, so that an interrupted run can
/// still report them.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The subject's part of the report.
    pub report: SubjectReport,
    /// The report so far.
    pub findings: Vec<Finding>,
    /// The states that each event removed.
    pub losses: Losses,
    /// The error that stopped it.
    pub error: Option<Error>,
}

/// A ledger that is written by its subject and read by the run.
#[derive(Clone, Debug, Default)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// Locks the ledger, even after a panic of its subject: its content stays valid.
    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
