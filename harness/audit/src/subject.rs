//! The result of an audit: the services that run ComfyUI, their predictions, and the findings.

use std::collections::BTreeMap;

use super::{facts::Facts, states::Reading};
use lockproof_compose::Span;
use lockproof_model::{
    event::Event,
    finding::{Finding, Severity},
    report::{EventReport, LayoutReport, StateReport, SubjectReport, Survival},
    verdict::Verdict,
};

/// The result of an audit of one project.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The services that run ComfyUI.
    pub subjects: Vec<Subject>,
    /// The findings, each with its position.
    pub findings: Vec<(Finding, Placed)>,
    /// Remarks about the files, and comments that accept nothing.
    pub notes: Vec<String>,
    /// Sources that were not read and could change a prediction, which makes the audit undecided.
    pub unread: Vec<String>,
}

impl Audit {
    /// Whether a finding counts towards the exit code, given the threshold.
    pub fn counts(&self, fail_on: Severity) -> bool {
        self.findings.iter().any(|(finding, _)| finding.counts(fail_on))
    }

    /// Whether a source was not read, nothing was found, or a prediction is unknown.
    pub fn is_undecided(&self) -> bool {
        !self.unread.is_empty()
            || self.subjects.is_empty()
            || self.subjects.iter().any(|s| s.predicted.values().any(Option::is_none))
    }
}

/// A service that runs ComfyUI.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// The service's name in the compose file.
    pub service: String,
    /// The image reference, or how the image is built.
    pub image: String,
    /// The known facts about it.
    pub facts: Facts,
    /// Where each state is stored.
    pub readings: Vec<Reading>,
    /// The predicted verdict of each event; `None`: unknown.
    pub predicted: BTreeMap<Event, Option<Verdict>>,
}

/// The position of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In a file of the project.
    At(Span),
    /// In another file: its name and line, from 1.
    Elsewhere(String, u32),
}

impl Subject {
    /// The subject for reports. Its events are predicted, not run.
    pub fn report(&self) -> SubjectReport {
        let state = |reading: &Reading| StateReport {
            state: reading.state,
            // If only some paths persist, list those that do not.
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
            skipped: Some("audited from files, not run: `lockproof gate` proves it".to_owned()),
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
