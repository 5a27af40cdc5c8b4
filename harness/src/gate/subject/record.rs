//! Writes results to the ledger.

use std::time::Instant;

use super::work::{Gate, Installation};
use crate::gate::{clock::millis, diagnose, expect};
use lockproof_deploy::deployment::ready::Down;
use lockproof_model::{
    error::{Error, Result},
    event::Event,
    finding::Finding,
    report::{EventReport, StateReport, Survival},
    state::State,
    verdict::Verdict,
};
use lockproof_probe::watch::Exposure;

impl Gate<'_> {
    /// Records what is known after the installation.
    pub(super) fn enter(&self, current: &Installation) {
        let mut ledger = self.work.ledger.open();
        ledger.report.layout = super::work::layout_report(&current.layout);
        ledger.report.image = current.deployment.subject.image.clone();
        ledger.report.states = current
            .map
            .entries
            .iter()
            .map(|entry| StateReport {
                state: entry.state,
                paths: entry.paths.clone(),
                owner: entry.owner,
                survives: self
                    .work
                    .plan
                    .events
                    .iter()
                    .map(|event| {
                        let predicted = entry.predicted.get(event).copied().flatten();
                        (*event, Survival { predicted, observed: None })
                    })
                    .collect(),
            })
            .collect();
        for path in current.deployment.copied_binds() {
            tracing::warn!("{}: copied, because it cannot be mounted copy-on-write", path.display());
        }
        for check in &current.checks {
            tracing::debug!("{}: {}", self.work.subject.name, check.message);
        }
    }

    pub(super) fn record(
        &self,
        mut report: EventReport,
        verdict: Result<Verdict, String>,
        findings: Vec<Finding>,
        begun: Instant,
    ) {
        match verdict {
            Ok(verdict) => {
                report.expected = expect::expected(self.work.subject, report.event, Some(verdict));
                report.verdict = Some(verdict);
                if report.event == Event::Installed {
                    report.predicted = None;
                }
            }
            Err(why) => {
                report.expected = expect::expected(self.work.subject, report.event, None);
                report.undecided = Some(why);
            }
        }
        report.duration_ms = millis(begun.elapsed());
        self.work.ledger.open().findings.extend(findings);
        self.push(report);
    }

    pub(super) fn record_down(
        &self,
        event: Event,
        down: &Down,
        predicted: Option<Verdict>,
        begun: Instant,
        known: Option<(&Installation, &[State], Option<&Exposure>)>,
    ) {
        let scene = self.scene(event);
        let mut report = EventReport::new(event, expect::expected(self.work.subject, event, Some(Verdict::Down)));
        report.verdict = Some(Verdict::Down);
        report.predicted = predicted;
        report.duration_ms = millis(begun.elapsed());
        let mut findings = vec![diagnose::down(scene, down)];
        if let Some((current, lost, exposure)) = known {
            report.exposure_ms = exposure.map(|exposure| millis(exposure.total));
            findings.extend(exposure.and_then(|exposure| diagnose::exposure(scene, exposure, Verdict::Down)));
            findings.extend(diagnose::losses(scene, &current.map, lost, &current.layout, &current.installed));
        }
        self.work.ledger.open().findings.extend(findings);
        self.push(report);
    }

    pub(super) fn record_undecided(&self, event: Event, error: &Error, predicted: Option<Verdict>, begun: Instant) {
        let mut report = EventReport::new(event, expect::expected(self.work.subject, event, None));
        report.predicted = predicted;
        report.undecided = Some(error.one_line());
        report.duration_ms = millis(begun.elapsed());
        self.push(report);
    }

    pub(super) fn undecide_rest(&self, why: &str) {
        for event in self.work.plan.events.clone() {
            let mut report = EventReport::new(event, expect::expected(self.work.subject, event, None));
            report.undecided = Some(why.to_owned());
            self.push(report);
        }
    }

    pub(super) fn push(&self, report: EventReport) {
        self.work.listener.event(&self.work.subject.name, &report);
        self.work.ledger.open().report.events.push(report);
    }
}
