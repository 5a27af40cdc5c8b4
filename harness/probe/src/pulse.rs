//! Whether the server still says anything: a lock that breaks under refusals, or a server that dies,
//! would be asked thousands of times for nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{
    client::Client,
    decide::{Decision, is_indeterminate},
    look::patiently,
    message::Request,
};

/// So many probes in a row that say nothing are more than a handler's own fault.
const IN_A_ROW: usize = 96;

/// What the probes have shown of the server's health.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    silent: AtomicUsize,
    stopped: AtomicBool,
}

impl Pulse {
    /// Whether it says nothing any more, so that no further probe can.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Takes a probe's decision into account; asks the server itself when too many said nothing.
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
