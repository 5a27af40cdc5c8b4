//! Gates in this process, and what they found, said so that a failure points at the test.

use std::{future::Future, path::Path};

use lockproof::{
    config::plan::Plan,
    gate::{self, Options, Silent},
};
use lockproof_deploy::engine::{Engine, Run, sweep::Whose};
use lockproof_model::{
    config::{AcceptEntry, ConfigFile, SchemeEntry},
    event::Event,
    finding::{Finding, Rule, Severity},
    report::{EventReport, Report, StateReport, SubjectReport},
    state::State,
    verdict::Verdict,
};

use crate::suite::Subject;

/// Runs a future to its end: tests are plain functions, so that `#[track_caller]` reaches them.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be had").block_on(work)
}

/// A gate that is put together step by step.
#[derive(Debug)]
pub(crate) struct Gate {
    file: ConfigFile,
}

impl Gate {
    /// A gate of one subject, for which nothing happens after the installation.
    pub(crate) fn of(subject: Subject) -> Self {
        Self {
            file: ConfigFile {
                subjects: vec![subject.0],
                scheme: SchemeEntry::default(),
                events: Some(Vec::new()),
                ..ConfigFile::default()
            },
        }
    }

    /// What happens to it.
    pub(crate) fn events(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.file.events = Some(events.into_iter().collect());
        self
    }

    /// What is replayed after each of them.
    pub(crate) fn replays<S: Into<String>>(mut self, globs: impl IntoIterator<Item = S>) -> Self {
        self.file.replays = globs.into_iter().map(Into::into).collect();
        self
    }

    /// Tolerates a rule.
    pub(crate) fn accept(mut self, entry: AcceptEntry) -> Self {
        self.file.accept.push(entry);
        self
    }

    /// Runs it, and sees that nothing of it is left.
    #[track_caller]
    pub(crate) fn run(self) -> Outcome {
        let plan = Plan::new(&self.file, Path::new("/")).unwrap_or_else(|e| panic!("the test is wrong: {e}"));
        let run = Run::new();
        let (report, left) = block_on(async {
            let engine = Engine::connect().await.unwrap_or_else(|e| panic!("{e}"));
            let report = gate::run(&engine, &run, &plan, &Options::default(), &Silent).await;
            let left = engine.leftovers(Whose::Run(run.id())).await;
            engine.sweep_run(run.id()).await.unwrap_or_else(|e| panic!("{e}"));
            (report, left)
        });
        let report = report.unwrap_or_else(|e| panic!("{e}"));
        let left = left.unwrap_or_else(|e| panic!("{e}"));
        assert!(left.is_empty(), "a gate leaves nothing behind: {left:?}");
        Outcome { report }
    }
}

/// What a gate of one subject found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
}

impl Outcome {
    /// The subject.
    pub(crate) fn subject(&self) -> &SubjectReport {
        &self.report.subjects[0]
    }

    /// What came of an event.
    #[track_caller]
    pub(crate) fn event(&self, event: Event) -> &EventReport {
        let found = self.subject().events.iter().find(|e| e.event == event);
        found.unwrap_or_else(|| panic!("{event} is not in the report:\n{}", self.told()))
    }

    /// The verdict after an event, which has to be there.
    #[track_caller]
    pub(crate) fn verdict(&self, event: Event) -> Verdict {
        let report = self.event(event);
        report.verdict.unwrap_or_else(|| panic!("{event} has no verdict:\n{}", self.told()))
    }

    /// The states of the lock that were seen to be lost after an event; data is looked at in
    /// `canary.rs`.
    pub(crate) fn lost(&self, event: Event) -> Vec<State> {
        let observed = |state: &StateReport| state.survives.get(&event).and_then(|s| s.observed);
        let lost = self.subject().states.iter().filter(|s| observed(s) == Some(false)).map(|s| s.state);
        lost.filter(|state| *state != State::Data).collect()
    }

    /// Every finding of a rule.
    pub(crate) fn findings(&self, rule: Rule) -> Vec<&Finding> {
        self.report.findings.iter().filter(|f| f.rule == rule).collect()
    }

    /// The rules that are broken after an event, once each; the ways around the lock are left out,
    /// because a real plugin has them all the time, and so is data, which has tests of its own.
    pub(crate) fn rules(&self, event: Event) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self
            .report
            .findings
            .iter()
            .filter(|f| f.event == Some(event) && !f.rule.is_leak())
            .filter(|f| f.severity != Severity::Note && f.rule != Rule::PersistData)
            .map(|f| f.rule)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Everything that was found, for a message.
    pub(crate) fn told(&self) -> String {
        lockproof::report::terminal::render(&self.report, 120, false)
            + self.subject().error.as_deref().unwrap_or_default()
    }
}
