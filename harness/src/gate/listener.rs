//! Progress of a run.

use lockproof_model::report::EventReport;

/// Receives the progress of a run. Its methods may be called from several subjects in parallel.
pub trait Listener: Send + Sync {
    /// A subject starts a new step.
    fn step(&self, subject: &str, step: &str);
    /// An event has finished.
    fn event(&self, subject: &str, event: &EventReport);
    /// A subject has finished.
    fn done(&self, subject: &str);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn step(&self, _: &str, _: &str) {}
    fn event(&self, _: &str, _: &EventReport) {}
    fn done(&self, _: &str) {}
}
