//! A subject whose lock did not take effect: judged by anonymous access.

use std::time::{Duration, Instant};

use super::work::{BroughtUp, Entry, Gate, Unlocked, layout_report};
use crate::gate::{
    clock::millis,
    diagnose::{self, Scene},
    expect,
};
use lockproof_deploy::{
    deployment::{Deployment, lifecycle::Performed, ready::Readiness},
    layout::Layout,
};
use lockproof_model::{
    error::{Error, ErrorKind, Result},
    event::Event,
    finding::{Finding, Rule},
    path::is_within,
    report::EventReport,
    scheme::Scheme,
    state::Owner,
    verdict::Verdict,
};
use lockproof_probe::{
    claim::empty_token,
    client::Client,
    decide::{Kind, kind},
    impact::impact,
    look::{Reference, Seen, look},
    surface::routes::Route,
    visitor::Visitor,
};

impl Entry {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Open(_) => Verdict::Open,
            Self::Claim(_) => Verdict::Claimable,
        }
    }

    fn findings(&self, scene: Scene<'_>) -> Vec<Finding> {
        match self {
            Self::Open(look) => diagnose::sentinels(scene, look, None, &[], &[]),
            Self::Claim(claim) => vec![diagnose::claim(scene, claim)],
        }
    }

    /// The same, with what an intruder could do.
    async fn assessed(&self, client: &Client, scene: Scene<'_>) -> Vec<Finding> {
        let admitted = |request| match self {
            Self::Open(_) => request,
            Self::Claim(claim) => match claim.steps.last() {
                Some(step) => step.request.lending_to(request),
                None => request,
            },
        };
        let told = impact(client, admitted).await;
        let mut findings = self.findings(scene);
        findings.iter_mut().for_each(|finding| finding.impact = Some(told.clone()));
        findings
    }
}

impl Gate<'_> {
    /// If there is no token because the lock did not take effect, visitors get in; this is checked
    /// here. Otherwise returns the error `why`.
    pub(super) async fn unlocked_or(
        &self,
        deployment: Deployment,
        client: Client,
        layout: Layout,
        ready: Duration,
        why: Error,
    ) -> Result<BroughtUp> {
        if why.kind() == ErrorKind::Undecided
            && let Some(entry) = way_in(&client, &self.work.subject.lock.scheme).await
        {
            return Ok(BroughtUp::Unlocked(Box::new(Unlocked { deployment, client, layout, ready, entry, why })));
        }
        Err(why)
    }

    /// Runs the events of a subject whose lock did not take effect: without a token, only anonymous
    /// access is checked.
    pub(super) async fn run_unlocked(&mut self, mut current: Unlocked, begun: Instant) -> Result<()> {
        self.work.ledger.open().report.layout = layout_report(&current.layout);
        let mut report = EventReport::new(Event::Installed, Verdict::Locked);
        report.ready_ms = Some(millis(current.ready));
        let predicted = current.entry.verdict();
        let mut findings = current.entry.assessed(&current.client, self.scene(Event::Installed)).await;
        let log = self.work.engine.last_lines(&current.deployment.container_id(), 400).await.unwrap_or_default();
        for finding in &mut findings {
            finding.evidence.push(current.why.one_line());
            let failed = log.iter().filter(|line| line.contains("IMPORT FAILED") || line.contains("Cannot import"));
            finding.evidence.extend(failed.take(4).map(|line| format!("log: {}", line.trim())));
        }
        findings.extend(self.forgotten_at_once(&current));
        self.record(report, Ok(predicted), findings, begun);
        for event in self.work.plan.events.iter().copied() {
            let begun = Instant::now();
            self.work.listener.step(&self.work.subject.name, event.name());
            let mut report = EventReport::new(event, Verdict::Locked);
            // It is unknown what events remove from a lock that never worked.
            let predicted = Some(predicted).filter(|p| *p == Verdict::Open);
            report.predicted = predicted;
            if event == Event::Rotate {
                self.record(report, Err("there is no credential to change".to_owned()), Vec::new(), begun);
                continue;
            }
            match current.deployment.perform(event).await {
                Ok(Performed::Done) => {}
                Ok(Performed::Skipped(why)) => {
                    report.expected = expect::expected(self.work.subject, event, None);
                    report.skipped = Some(why);
                    self.push(report);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Undecided => {
                    self.record_undecided(event, &e, predicted, begun);
                    continue;
                }
                Err(e) => return Err(e),
            }
            match current.deployment.wait_ready().await? {
                Readiness::Down(down) => self.record_down(event, &down, predicted, begun, None),
                Readiness::Ready { client, after } => {
                    report.ready_ms = Some(millis(after));
                    current.client = client;
                    match way_in(&current.client, &self.work.subject.lock.scheme).await {
                        Some(entry) => {
                            let findings = entry.assessed(&current.client, self.scene(event)).await;
                            self.record(report, Ok(entry.verdict()), findings, begun);
                        }
                        None => {
                            let why = format!("no access and no token: {}", current.why.what());
                            self.record(report, Err(why), Vec::new(), begun);
                        }
                    }
                }
            }
        }
        self.work.listener.step(&self.work.subject.name, "removing the deployment");
        self.take_down(current.deployment).await
    }

    /// What is installed on a tmpfs is lost at the restart that would activate it.
    pub(super) fn forgotten_at_once(&self, current: &Unlocked) -> Option<Finding> {
        let directory = current.layout.custom_nodes_dir();
        let nearest = current.deployment.mounted().into_iter().filter(|m| is_within(directory, &m.target));
        let mount = nearest.max_by_key(|m| m.target.len()).filter(|m| m.owner == Owner::Tmpfs)?;
        let message = format!("{} is a tmpfs: a plugin installed there never takes effect", mount.target);
        Some(
            Finding::new(Rule::PersistTmpfs, &self.work.subject.name, Some(Event::Installed), message)
                .evidence(format!("ComfyUI loads custom nodes from {directory}"))
                .remedy(format!(
                    "mount a named volume instead of the tmpfs:\n  mounts:\n    - {{ volume: custom-nodes, target: {} }}",
                    mount.target
                )),
        )
    }
}

/// How visitors get into a server without a token; `None` if unknown.
///
/// It counts as open only if every sentinel is served with data.
async fn way_in(client: &Client, scheme: &Scheme) -> Option<Entry> {
    let seen = look(client, scheme, None, &Reference::default()).await;
    // A login page with status 200 is not data.
    let data = |s: &Seen| s.anonymous.as_ref().is_ok_and(|a| matches!(kind(a), Kind::Object(_) | Kind::Array));
    if seen.all_through() && seen.sentinels.iter().all(data) {
        return Some(Entry::Open(seen));
    }
    if seen.undecided().is_some() {
        return None;
    }
    match empty_token(client, scheme, &seen).await {
        Some(claim) => Some(Entry::Claim(claim)),
        None => Visitor::new(client, scheme, None, Route::all(), &seen).visit().await.claim.map(Entry::Claim),
    }
}
