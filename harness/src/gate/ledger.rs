//! What was found so far of one subject, whatever happens to the rest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::expect::Losses;
use lockproof_model::{error::Error, finding::Finding, report::SubjectReport};

/// What is known of one subject so far. It is written as the subject goes on, so that a run that is
/// cut short still reports what it found.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The subject's part of the report.
    pub report: SubjectReport,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The states that each event took.
    pub losses: Losses,
    /// What stopped it.
    pub error: Option<Error>,
}

/// A ledger that its subject writes and the run reads.
#[derive(Clone, Debug, Default)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// The ledger, also after a panic of the subject that wrote it: what stands in it stands.
    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
