//! What a reading comes to: the services that run ComfyUI, what is promised of each, and the findings.

use std::collections::BTreeMap;

use super::{facts::Facts, states::Reading};
use lockproof_compose::Span;
use lockproof_model::{
    event::Event,
    finding::{Finding, Severity},
    report::{EventReport, LayoutReport, StateReport, SubjectReport, Survival},
    verdict::Verdict,
};

/// What was read of a project.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Each service that runs ComfyUI.
    pub subjects: Vec<Subject>,
    /// The findings, with the place of each.
    pub findings: Vec<(Finding, Placed)>,
    /// What is odd, and what was not needed.
    pub notes: Vec<String>,
    /// What was not read and may change a prediction: the audit is undecided.
    pub unread: Vec<String>,
}

impl Audit {
    /// Whether a finding counts towards the exit code, given the threshold.
    pub fn counts(&self, fail_on: Severity) -> bool {
        self.findings.iter().any(|(finding, _)| finding.counts(fail_on))
    }

    /// Whether something was not read, there was nothing to read, or something cannot be predicted.
    pub fn is_undecided(&self) -> bool {
        !self.unread.is_empty()
            || self.subjects.is_empty()
            || self.subjects.iter().any(|s| s.predicted.values().any(Option::is_none))
    }
}

/// A service that runs ComfyUI.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name in the table and in every report.
    pub name: String,
    /// The service.
    pub service: String,
    /// The image, or how it is built.
    pub image: String,
    /// Where things are.
    pub facts: Facts,
    /// Where each state lies.
    pub readings: Vec<Reading>,
    /// What each event is expected to come to.
    pub predicted: BTreeMap<Event, Option<Verdict>>,
}

/// Where a finding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In a file of the project.
    At(Span),
    /// In another file: its name, and the line from 1.
    Elsewhere(String, u32),
}

impl Subject {
    /// The subject as every report tells it. An event is predicted, and not run.
    pub fn report(&self) -> SubjectReport {
        let state = |reading: &Reading| StateReport {
            state: reading.state,
            // Where some of its paths last and others do not, those that decide.
            paths: if reading.weakest.is_empty() { reading.paths.clone() } else { reading.weakest.clone() },
            owner: reading.owner,
            survives: reading
                .survives
                .iter()
                .map(|(&event, &predicted)| (event, Survival { predicted, observed: None }))
                .collect(),
        };
        let event = |(&event, &predicted): (&Event, &Option<Verdict>)| EventReport {
            predicted,
            skipped: Some("read, not run: `lockproof gate` proves it".to_owned()),
            ..EventReport::new(event, Verdict::Locked)
        };
        SubjectReport {
            name: self.name.clone(),
            image: self.image.clone(),
            layout: LayoutReport {
                code_dir: self.facts.code_dir.clone(),
                custom_nodes: self.facts.custom_nodes.clone(),
                python: self.facts.python.clone(),
            },
            states: self.readings.iter().map(state).collect(),
            events: self.predicted.iter().map(event).collect(),
            ..SubjectReport::default()
        }
    }
}
