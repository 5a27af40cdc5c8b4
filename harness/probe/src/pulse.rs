//! Detects a server that no longer answers, to avoid thousands of useless requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{
    client::Client,
    decide::{Decision, is_indeterminate},
    look::patiently,
    message::Request,
};

/// More consecutive inconclusive probes than a single handler could cause.
const IN_A_ROW: usize = 96;

/// The health of the server, as shown by the probes.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    silent: AtomicUsize,
    stopped: AtomicBool,
}

impl Pulse {
    /// Whether the server no longer answers.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Records a probe's decision; requests the server itself after too many inconclusive ones.
    pub(super) async fn feel(&self, client: &Client, decision: Decision) {
        if decision != Decision::Indeterminate {
            self.silent.store(0, Ordering::Relaxed);
        } else if self.silent.fetch_add(1, Ordering::Relaxed) + 1 == IN_A_ROW {
            let answer = patiently(client, &Request::get("/system_stats")).await;
            if answer.map_or(true, |answer| is_indeterminate(&answer)) {
                self.stopped.store(true, Ordering::Relaxed);
            }
            self.silent.store(0, Ordering::Relaxed);
        }
    }
}
