//! What must persist and work besides the lock: user data, workflows and notebooks.

use super::work::{Gate, Installation};
use crate::{
    canary::{self, Canaries},
    gate::replays::Behind,
    notebook::Runner,
};
use lockproof_model::{error::Result, event::Event, finding::Finding, state::State};
use lockproof_probe::look::{Look, Works};

impl Gate<'_> {
    /// Creates the canaries, once for each installation.
    pub(super) async fn plant(&self, current: &mut Installation) -> Result<()> {
        if current.canaries.is_some() {
            return Ok(());
        }
        let access = current.access(&self.work.subject.lock.scheme);
        let canaries = Canaries::plant(access, &current.deployment, &current.layout).await?;
        let mut ledger = self.work.ledger.open();
        if !canaries.is_empty() && !ledger.report.states.iter().any(|s| s.state == State::Data) {
            ledger.report.states.push(canary::state::report(&canaries, &self.work.plan.events));
        }
        current.canaries = Some(canaries);
        Ok(())
    }

    /// Checks the user data, records the result, and reports losses.
    pub(super) async fn data(&self, current: &mut Installation, event: Event) -> Result<Option<Finding>> {
        let Some(canaries) = current.canaries.as_ref().filter(|canaries| !canaries.is_empty()) else { return Ok(None) };
        let seen = canaries.losses(current.access(&self.work.subject.lock.scheme), &current.deployment).await?;
        let mut ledger = self.work.ledger.open();
        if let Some(state) = ledger.report.states.iter_mut().find(|s| s.state == State::Data) {
            state.survives.entry(event).or_default().observed = seen.lasted();
        }
        let found = canary::state::finding(&seen.losses, self.work.subject, event, &current.layout, &current.installed);
        if found.is_some() {
            // They are created again, which restores this state.
            current.canaries = None;
        }
        Ok(found)
    }

    /// Replays the workflows and notebooks with the token of record.
    pub(super) async fn replay(&self, current: &Installation, event: Event, look: &Look) -> Result<Vec<Finding>> {
        let network = Some(current.deployment.network().to_owned());
        let behind = Behind {
            client: &current.client,
            scheme: &self.work.subject.lock.scheme,
            keys: &current.keys,
            runner: &Runner::Container { engine: self.work.engine.clone(), run: self.work.run.clone(), network },
            lets_in: look.all_through() || look.token != Works::No,
        };
        let step = |step: &str| self.work.listener.step(&self.work.subject.name, step);
        let mut replayed = self.replays.run(self.scene(event), behind, &step).await?;
        let mut ledger = self.work.ledger.open();
        ledger.report.replays.append(&mut replayed.reports);
        if let Some(error) = replayed.error {
            tracing::error!("{}: {error}", self.work.subject.name);
            ledger.report.error.get_or_insert(error.one_line());
            ledger.error.get_or_insert(error);
        }
        Ok(replayed.findings)
    }
}
