//! Who is told how a run goes on.

use lockproof_model::report::EventReport;

/// Who is told how the run goes on. Everything may be called from several subjects at once.
pub trait Listener: Send + Sync {
    /// A subject is at a new step.
    fn step(&self, subject: &str, step: &str);
    /// An event is done.
    fn event(&self, subject: &str, event: &EventReport);
    /// A subject is done.
    fn done(&self, subject: &str);
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn step(&self, _: &str, _: &str) {}
    fn event(&self, _: &str, _: &EventReport) {}
    fn done(&self, _: &str) {}
}
