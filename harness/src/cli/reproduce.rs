//! `lockproof reproduce`: the original bug as a timeline, then its fix.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    gate::{RunArguments, perform, prepare, select},
    output::print,
    progress::Talk,
    style::Style,
};
use crate::{gate::Listener, report::terminal};
use lockproof_model::{
    error::Result,
    event::Event,
    exit,
    report::{EventReport, Report, SubjectReport},
    verdict::Verdict,
};

/// The demo's subjects with the bug and with the fix.
const BUG: &str = "original-bug";
const FIX: &str = "fixed";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
}

pub(super) async fn run(arguments: Arguments, style: &Style, talk: &Talk) -> Result<u8> {
    talk.line("reproducing the original bug and its fix on the lab");
    let mut prepared = prepare(None, arguments.run).await?;
    select(&mut prepared.plan, &[BUG.to_owned(), FIX.to_owned()])?;
    let timeline = Timeline::new(talk);
    let report = perform(prepared, &timeline).await?;
    print(&tell(&timeline.moments(), &report))?;
    print(&terminal::render(&report, style.width, style.stdout_colour))?;
    match seen(&report) {
        Ok(()) => Ok(report.exit_code),
        Err(what) => {
            tracing::error!("{what}");
            Ok(report.exit_code.max(exit::FAILED))
        }
    }
}

/// Checks that both the bug and its fix were observed.
fn seen(report: &Report) -> std::result::Result<(), String> {
    let subject = |name: &str| report.subjects.iter().find(|s| s.name == name).ok_or(format!("`{name}` did not run"));
    let bug = subject(BUG)?;
    let was = |event: Event| bug.events.iter().find(|e| e.event == event).and_then(|e| e.verdict);
    if was(Event::Installed) != Some(Verdict::Locked) {
        return Err("the original bug was not reproduced: the server was not locked after the installation".to_owned());
    }
    if !bug.events.iter().any(|e| e.event.new_container() && e.verdict == Some(Verdict::Open)) {
        return Err("the original bug was not reproduced: the server is still locked after recreate".to_owned());
    }
    let fix = subject(FIX)?;
    match fix.events.iter().find(|e| e.skipped.is_none() && e.verdict != Some(Verdict::Locked)) {
        None => Ok(()),
        Some(event) => Err(format!("the fix is not proven: the server is not locked after `{}`", event.event)),
    }
}

/// One line of the timeline.
#[derive(Clone, Debug)]
struct Moment {
    at: Duration,
    subject: String,
    what: String,
}

/// Records each event with its time, and passes it on.
struct Timeline<'t> {
    talk: &'t Talk,
    begun: Instant,
    moments: Mutex<Vec<Moment>>,
}

impl<'t> Timeline<'t> {
    fn new(talk: &'t Talk) -> Self {
        Self { talk, begun: Instant::now(), moments: Mutex::default() }
    }

    fn moments(&self) -> Vec<Moment> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, subject: &str, what: String) {
        let moment = Moment { at: self.begun.elapsed(), subject: subject.to_owned(), what };
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
    }
}

impl Listener for Timeline<'_> {
    fn step(&self, subject: &str, step: &str) {
        self.note(subject, step.to_owned());
        self.talk.step(subject, step);
    }

    fn event(&self, subject: &str, event: &EventReport) {
        self.note(subject, sentence(event));
        self.talk.event(subject, event);
    }

    fn done(&self, subject: &str) {
        self.talk.done(subject);
    }
}

/// The result of an event, in one sentence.
fn sentence(event: &EventReport) -> String {
    let Some(verdict) = event.verdict else {
        return format!("{}: not judged", event.event);
    };
    let what = match (event.event, verdict) {
        (Event::Installed, Verdict::Locked) => "LOCKED: anonymous requests are rejected, the token works".to_owned(),
        (_, Verdict::Locked) => format!("still LOCKED after {} with the same token", event.event),
        (_, Verdict::Open) => format!("PUBLIC AGAIN after {}: anonymous requests get everything", event.event),
        (_, other) => format!("{} after {}: {}", other.name().to_uppercase(), event.event, other.meaning()),
    };
    match event.exposure_ms.filter(|ms| *ms > 0) {
        Some(ms) => format!("{what} (public for {ms} ms while being watched)"),
        None => what,
    }
}

/// Renders the timeline, in milliseconds since each subject's start.
fn tell(moments: &[Moment], report: &Report) -> String {
    let mut text = String::new();
    for (name, title) in [
        (BUG, "The original bug: the plugin in the container's writable layer, the tokens on a volume"),
        (FIX, "The fix: plugin, dependencies, credential and session key on volumes"),
    ] {
        text.push_str(&format!("\n{title}\n"));
        let own: Vec<&Moment> = moments.iter().filter(|m| m.subject == name).collect();
        let Some(first) = own.first() else { continue };
        for moment in &own {
            let at = moment.at.saturating_sub(first.at).as_millis();
            text.push_str(&format!("{at:>8} ms  {}\n", moment.what));
        }
        if let Some(why) = report.subjects.iter().find(|s| s.name == name).and_then(reason) {
            text.push_str(&format!("{:>11}  {why}\n", "why:"));
        }
    }
    text.push('\n');
    text
}

/// The state map's explanation: which states were lost.
fn reason(subject: &SubjectReport) -> Option<String> {
    let lost: Vec<String> = subject
        .states
        .iter()
        .filter(|s| s.survives.values().any(|v| v.observed == Some(false)))
        .filter_map(|s| Some(format!("{} in {} ({})", s.state, s.owner?.words(), s.paths.first()?)))
        .collect();
    (!lost.is_empty()).then(|| format!("lost: {}", lost.join("; ")))
}
