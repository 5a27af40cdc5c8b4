//! Measures the time spent on one subject.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use lockproof_deploy::deployment::Deployment;
use lockproof_model::report::{Phase, Timings};

/// The time of each phase of one subject.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Timings>);

impl Clock {
    /// Awaits `work`, and adds its time to `phase`.
    pub(super) async fn measure<T>(&self, phase: Phase, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let done = work.await;
        self.add(phase, begun.elapsed());
        done
    }

    /// Adds time to `phase`.
    pub(super) fn add(&self, phase: Phase, time: Duration) {
        let mut timings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *timings.phases.entry(phase).or_default() += millis(time);
    }

    /// Adds the starts of a deployment that is about to be removed.
    pub(super) fn close(&self, deployment: &Deployment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).starts += deployment.admission().starts();
    }

    /// The totals.
    pub(super) fn read(&self) -> Timings {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A time for reports.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The day in UTC.
pub(super) fn today() -> jiff::civil::Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}
