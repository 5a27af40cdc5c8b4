//! Runs every event on one subject.
//!
//! The subject is restored (removed, started and installed again) after an event whose verdict or
//! states changed, and after one that leaves it different from the installed state (another image,
//! no network, another credential). So every event is judged on its own.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

mod bring_up;
mod inventory;
mod judge;
mod lasting;
mod record;
mod unlocked;
mod work;

pub use self::work::Work;
use self::work::{Baseline, BroughtUp, Gate, Installation};
use super::{
    clock::millis, diagnose, diagnose::Scene, expect, ledger::SharedLedger, listener::Listener, replays::Replays,
    shared::Shared,
};
use crate::{config::plan::Plan, state_map::upgrade_is_effective};
use lockproof_deploy::{
    deployment::{Deployment, lifecycle::Performed, ready::Readiness},
    engine::{Engine, Run},
    mint,
    subject::Subject,
};
use lockproof_model::{
    error::{ErrorKind, Result},
    event::Event,
    finding::Rule,
    report::{EventReport, Phase},
    verdict::Verdict,
};
use lockproof_probe::{
    client::Client,
    keys::Keys,
    look::Reference,
    message::URL,
    watch::{Watch, guarded},
};
use lockproof_replay as replay;

/// How long the exposure watch continues after the server is ready.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// Gates one subject, and writes its ledger during the run.
///
/// # Errors
/// The error that stopped it; the results so far are in the ledger.
pub async fn gate(work: Work<'_>) -> Result<()> {
    let replays = Replays::read(&work.plan.replays, Some(PathBuf::from(replay::DIFFERENCES)))?;
    let mut gate = Gate::new(work, replays);
    let done = Box::pin(gate.run()).await;
    work.ledger.open().report.timings = Some(gate.clock.read());
    done
}

/// Starts one subject with its lock, for use outside a gate; the run's clean-up removes it.
///
/// # Errors
/// The error that prevented a locked start.
pub async fn lend(
    engine: &Engine,
    run: &Run,
    plan: &Plan,
    subject: &Subject,
    listener: &dyn Listener,
) -> Result<(Deployment, Client, Keys)> {
    let (ledger, shared) = (SharedLedger::default(), Shared::new(1));
    let work = Work { engine, run, plan, index: 0, subject, ledger: &ledger, listener, shared: &shared };
    let mut gate = Gate::new(work, Replays::default());
    let lent = Box::pin(gate.put_back()).await?;
    Ok((lent.deployment, lent.client, lent.keys))
}

/// An event whose server is watched until it has settled.
struct Began {
    event: Event,
    predicted: Option<Verdict>,
    /// Its start, without the time spent waiting for others.
    begun: Instant,
    watch: Watch,
    /// The keys before a rotation.
    old_keys: Keys,
    ready: Duration,
}

impl Gate<'_> {
    async fn run(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut brought = Box::pin(self.bring_up()).await?;
        if let BroughtUp::Installed(installation) = &mut brought {
            // Not in parallel: a subject that does not start would use two start permits.
            let work = self.work;
            let listed = self.clock.measure(Phase::Inventory, Box::pin(inventory::list(work))).await;
            self.take_in(installation, listed);
        }
        let (waiting, up_after) = (Instant::now(), begun.elapsed());
        let shared = self.work.shared;
        let _turn = shared.turns.acquire().await;
        self.clock.add(Phase::Queue, waiting.elapsed());
        // Other subjects' starts are not part of this time.
        let begun = Instant::now().checked_sub(up_after).unwrap_or(begun);
        let mut current = match brought {
            BroughtUp::Installed(installation) => *installation,
            BroughtUp::Unlocked(unlocked) => return Box::pin(self.run_unlocked(*unlocked, begun)).await,
            BroughtUp::Down(deployment, down) => {
                self.record_down(Event::Installed, &down, None, begun, None);
                return self.take_down(*deployment).await;
            }
        };
        self.enter(&current);
        let (baseline, mut dirty) = match Box::pin(self.first_look(&mut current, begun)).await {
            Ok(Some(found)) => found,
            // Undecided at `installed`: there is nothing to compare with.
            Ok(None) => {
                self.undecide_rest("the installed state could not be judged");
                return self.take_down(current.deployment).await;
            }
            Err(e) => return Err(e),
        };
        for (position, event) in self.work.plan.events.iter().copied().enumerate() {
            if dirty || (event.new_container() && self.wear(&mut current).await) {
                self.work.listener.step(&self.work.subject.name, "restoring the installed state");
                self.take_down(current.deployment).await?;
                current = Box::pin(self.put_back()).await?;
            }
            dirty = Box::pin(self.event(&mut current, &baseline, event)).await?;
            dirty &= position + 1 < self.work.plan.events.len();
        }
        self.wear(&mut current).await;
        self.work.listener.step(&self.work.subject.name, "removing the deployment");
        self.take_down(current.deployment).await
    }

    /// Judges the installed state. Returns the baseline for events, and whether the subject must be
    /// restored.
    async fn first_look(&mut self, current: &mut Installation, begun: Instant) -> Result<Option<(Baseline, bool)>> {
        let event = Event::Installed;
        self.work.listener.step(&self.work.subject.name, "probing the installed lock");
        let seen = self.examine(current, event, &Reference::default(), true, None).await?;
        let mut report = EventReport::new(event, Verdict::Locked);
        report.ready_ms = Some(millis(current.ready));
        report.probes = seen.counts(&current.client);
        let verdict = seen.verdict.clone();
        self.record(report, seen.verdict, seen.findings, begun);
        let Ok(verdict) = verdict else { return Ok(None) };
        let baseline = Baseline {
            verdict,
            reference: seen.look.reference(),
            session: seen.look.session,
            guarded: guarded(&seen.look),
        };
        Ok(Some((baseline, seen.disturbed)))
    }

    /// Runs one event: perform, watch, wait, probe, judge. Returns whether the subject must be
    /// restored.
    async fn event(&mut self, current: &mut Installation, baseline: &Baseline, event: Event) -> Result<bool> {
        self.clock.measure(Phase::Compare, self.plant(current)).await?;
        let begun = Instant::now();
        self.work.listener.step(&self.work.subject.name, event.name());
        let predicted = current.map.predict(&self.work.subject.lock.scheme, baseline.verdict, event);
        let old_keys = current.keys.clone();
        if event == Event::Rotate {
            match mint::rotate(&current.deployment, &current.layout, &current.installed).await {
                Ok(keys) => current.keys = keys,
                Err(e) if e.kind() == ErrorKind::Undecided => {
                    self.record_undecided(event, &e, predicted, begun);
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        let watch = Watch::begin(current.deployment.host(), current.deployment.follow(), baseline.guarded.clone());
        let queued = current.deployment.admission().waited();
        let performing = Instant::now();
        let performed = current.deployment.perform(event).await;
        // Waiting for other servers' starts is not part of this event.
        let queued = current.deployment.admission().waited().saturating_sub(queued);
        self.clock.add(Phase::Event, performing.elapsed().saturating_sub(queued));
        let begun = begun + queued;
        match performed {
            Ok(Performed::Done) => {}
            Ok(Performed::Skipped(why)) => {
                watch.end().await;
                let mut report = EventReport::new(event, expect::expected(self.work.subject, event, None));
                report.predicted = predicted;
                report.skipped = Some(why);
                report.duration_ms = millis(begun.elapsed());
                self.push(report);
                return Ok(false);
            }
            Err(e) if e.kind() == ErrorKind::Undecided => {
                watch.end().await;
                self.record_undecided(event, &e, predicted, begun);
                return Ok(true);
            }
            Err(e) => return Err(e),
        }
        let ready = match self.clock.measure(Phase::Start, current.deployment.wait_ready()).await? {
            Readiness::Ready { client, after } => {
                current.client = client;
                after
            }
            Readiness::Down(down) => {
                let exposure = watch.end().await;
                let lost = self.observe(current, event).await.unwrap_or_default();
                self.record_down(event, &down, predicted, begun, Some((current, &lost, exposure.as_ref())));
                return Ok(true);
            }
        };
        Box::pin(self.after(current, baseline, Began { event, predicted, begun, watch, old_keys, ready })).await
    }

    /// The rest of an event after the server answers again: look, probe, judge.
    async fn after(&mut self, current: &mut Installation, baseline: &Baseline, began: Began) -> Result<bool> {
        let Began { event, predicted, begun, watch, old_keys, ready } = began;
        self.await_upstream(&current.client, &current.keys).await;
        let settled = Instant::now() + AFTERWARDS;
        // Changes caused by probing must not count as changes by the event.
        let looking = Instant::now();
        let look = if predicted == Some(Verdict::Open) {
            self.examiner(current, event).look(&baseline.reference).await
        } else {
            self.settled(current, event, &baseline.reference).await
        };
        self.clock.add(Phase::Probe, looking.elapsed());
        let data = self.clock.measure(Phase::Compare, self.data(current, event)).await?;
        let replayed = self.clock.measure(Phase::Replay, self.replay(current, event, &look)).await?;
        // The lock may change while it starts; its settled state is judged.
        let probing = Instant::now();
        let mut early = self.examiner(current, event).after(look).await;
        tokio::time::sleep_until(settled.into()).await;
        let exposure = watch.end().await;
        if exposure.as_ref().is_some_and(|exposure| exposure.served > 0) {
            early = self.look_and_matrix(current, event, baseline).await;
        }
        let mut seen = self.finish(current, event, early, false, Some((baseline, &old_keys))).await?;
        if exposure.is_none() && seen.verdict != Ok(Verdict::Open) {
            seen.verdict =
                Err("the exposure watch failed: it is unknown whether the lock was open during the event".to_owned());
        }
        self.clock.add(Phase::Probe, probing.elapsed());
        let mut report = EventReport::new(event, Verdict::Locked);
        report.predicted = predicted;
        report.ready_ms = Some(millis(ready));
        let watched = exposure.filter(|_| baseline.verdict != Verdict::Open);
        report.exposure_ms = watched.as_ref().map(|exposure| millis(exposure.total));
        report.probes = seen.counts(&current.client);
        let mut findings = seen.findings;
        findings.extend(replayed);
        if event != Event::Wipe || !seen.as_it_must_be {
            findings.extend(data);
        }
        let scene = self.scene(event);
        if let Ok(verdict) = &seen.verdict {
            findings.extend(watched.iter().filter_map(|exposure| diagnose::exposure(scene, exposure, *verdict)));
            // What survives a rotation is up to the lock; the mounts predict nothing about it.
            if !findings.iter().any(|f| f.rule == Rule::LockOldTokenAlive) {
                findings.extend(diagnose::prediction(scene, predicted, *verdict));
            }
        }
        if event == Event::Upgrade && !upgrade_is_effective(&current.deployment, &current.layout).await? {
            report.effective = false;
            findings.push(diagnose::masked(scene, &current.deployment, &current.layout));
        }
        let changed = seen.verdict.as_ref() != Ok(&baseline.verdict) || !seen.lost.is_empty() || seen.disturbed;
        let leaves_traces = matches!(event, Event::Offline | Event::Upgrade | Event::Wipe | Event::Rotate);
        self.record(report, seen.verdict, findings, begun);
        Ok(changed || leaves_traces)
    }

    fn scene(&self, event: Event) -> Scene<'_> {
        Scene { subject: &self.work.subject.name, event, base: URL }
    }
}
