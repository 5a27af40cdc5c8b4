//! The presentation of a report: equal findings are grouped, and the outcome is a sentence.

use std::fmt;

use super::text::{count, list, one_line};
use lockproof_model::{
    event::Event,
    exit,
    finding::{Finding, Rule, Severity},
    report::{EventReport, Report, SubjectReport},
    verdict::Verdict,
};

/// What a finding means for the exit code. The first matching row applies:
///
/// | accepted | expected | in the baseline | at or above `--fail-on` | standing |
/// |---|---|---|---|---|
/// | yes | | | | `Accepted` |
/// | no | yes | | | `Expected` |
/// | no | no | yes | | `Baseline` |
/// | no | no | no | yes | `Counts` |
/// | no | no | no | no | `Below` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Counts,
    Below,
    Expected,
    Accepted,
    Baseline,
}

impl Standing {
    pub(super) fn of(finding: &Finding, fail_on: Severity) -> Self {
        if finding.accepted {
            Self::Accepted
        } else if finding.expected {
            Self::Expected
        } else if finding.baseline {
            Self::Baseline
        } else if finding.counts(fail_on) {
            Self::Counts
        } else {
            Self::Below
        }
    }

    /// Whether it needs no action.
    pub(super) fn settled(self) -> bool {
        matches!(self, Self::Expected | Self::Accepted | Self::Baseline)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Counts => "counts",
            Self::Below => "below the threshold",
            Self::Expected => "expected",
            Self::Accepted => "accepted",
            Self::Baseline => "in the baseline",
        })
    }
}

/// The same finding after one or several events.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) standing: Standing,
    pub(super) severity: Severity,
    pub(super) rule: Rule,
    pub(super) subject: &'a str,
    pub(super) message: &'a str,
    /// The events, in order; empty if it was found in files.
    pub(super) events: Vec<Event>,
    /// Every line of evidence, once.
    pub(super) evidence: Vec<&'a str>,
    pub(super) impact: Option<&'a str>,
    pub(super) remedy: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
}

/// The prefix of names made up by probing, which differ in every run.
const MADE_UP: &str = "lockproof-";

/// Whether two lines of evidence differ only in names made up by probing.
fn is_same_but_for_names(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split(MADE_UP), other.split(MADE_UP));
    if one.next() != other.next() {
        return false;
    }
    let behind = |part: &str| {
        let name = part.len() - part.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).len();
        (name, part[name..].to_owned())
    };
    loop {
        match (one.next().map(behind), other.next().map(behind)) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

impl Group<'_> {
    /// Its position, if it was found in a file.
    pub(super) fn place(&self) -> Option<String> {
        self.file.map(|file| match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        })
    }

    /// The names of its events, or how it was found without one.
    pub(super) fn when(&self) -> String {
        if self.events.is_empty() {
            return "from files".to_owned();
        }
        self.events.iter().map(|event| event.name()).collect::<Vec<_>>().join(", ")
    }
}

/// The findings grouped by rule, subject and message: those that count first, the worst first.
pub(super) fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in &report.findings {
        let standing = Standing::of(finding, report.fail_on);
        let known = groups.iter_mut().find(|group| {
            (group.rule, group.subject, group.message, group.standing, group.severity)
                == (finding.rule, finding.subject.as_str(), finding.message.as_str(), standing, finding.severity)
                && (group.file, group.line) == (finding.file.as_deref(), finding.line)
        });
        let evidence = finding.evidence.iter().map(String::as_str);
        match known {
            Some(group) => {
                for line in evidence {
                    if !group.evidence.iter().any(|known| is_same_but_for_names(known, line)) {
                        group.evidence.push(line);
                    }
                }
                group.events.extend(finding.event);
            }
            None => groups.push(Group {
                standing,
                severity: finding.severity,
                rule: finding.rule,
                subject: &finding.subject,
                message: &finding.message,
                events: finding.event.into_iter().collect(),
                evidence: evidence.collect(),
                impact: finding.impact.as_deref(),
                remedy: &finding.remedy,
                file: finding.file.as_deref(),
                line: finding.line,
            }),
        }
    }
    for group in &mut groups {
        group.events.sort_unstable();
        group.events.dedup();
    }
    groups.sort_by_key(|group| (group.standing, group.severity, group.rule));
    groups
}

/// The text of the verdict column: the verdict, or why there is none.
pub(super) fn verdict_word(event: &EventReport) -> &'static str {
    match (event.verdict, &event.skipped) {
        (Some(verdict), _) => verdict.name(),
        (None, Some(_)) => "skipped",
        (None, None) => "undecided",
    }
}

/// The text of the expected column: empty if `locked` is expected and met.
pub(super) fn expected_word(event: &EventReport) -> &'static str {
    let usual = event.expected == Verdict::Locked && event.as_it_must_be() != Some(false);
    if usual { "" } else { event.expected.name() }
}

/// A remark about an event: why it has no verdict, or why it had no effect.
pub(super) fn remark(event: &EventReport) -> Option<String> {
    let missing = event.verdict.is_none();
    match (&event.skipped, &event.undecided) {
        (Some(why), _) if missing => Some(format!("skipped: {}", one_line(why))),
        (_, Some(why)) => Some(format!("undecided: {}", one_line(why))),
        _ if missing => Some("undecided: no reason given".to_owned()),
        _ if !event.effective => {
            Some("not effective: a volume hides the new image's code, so the old code still runs".to_owned())
        }
        _ => None,
    }
}

/// A state that an event removes.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) state: &'static str,
    pub(super) owner: &'static str,
    pub(super) paths: Vec<String>,
    /// The events; mere predictions are marked.
    pub(super) at: Vec<String>,
}

/// The states of `subject` that any event removes.
pub(super) fn lost(subject: &SubjectReport) -> Vec<Lost> {
    subject
        .states
        .iter()
        .filter_map(|state| {
            let at: Vec<String> = state
                .survives
                .iter()
                .filter(|(_, survival)| survival.lost())
                .map(|(event, survival)| match survival.observed {
                    Some(_) => event.name().to_owned(),
                    None => format!("{event} (predicted)"),
                })
                .collect();
            (!at.is_empty()).then(|| Lost {
                state: state.state.name(),
                owner: state.owner.map_or("unknown", lockproof_model::state::Owner::name),
                paths: state.paths.clone(),
                at,
            })
        })
        .collect()
}

/// The outcome of a run in one sentence, with the exit code at the end.
pub(super) fn headline(report: &Report) -> String {
    let run = |event: &&EventReport| event.verdict.is_some();
    let events: usize = report.subjects.iter().map(|subject| subject.events.iter().filter(run).count()).sum();
    let subjects = count(report.subjects.len(), "subject");
    let said = match report.exit_code {
        exit::OK => {
            let skipped = events_where(report, |event| event.skipped.is_some());
            let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
            format!("{subjects}, {}{skipped}: passed", count(events, "event"))
        }
        exit::FAILED => failed(report),
        exit::UNDECIDED => {
            let open = match events_where(report, |event| event.undecided.is_some()) {
                0 if report.subjects.iter().any(SubjectReport::has_replayed_nothing) => "no replays,".to_owned(),
                open => count(open, "event"),
            };
            format!("{subjects}, {}, {open} undecided: fix the reasons above and run again", count(events, "event"))
        }
        exit::INTERRUPTED | exit::TERMINATED => {
            format!("interrupted after {} of {subjects}: run again", count(events, "event"))
        }
        _ => match report.subjects.iter().filter(|subject| subject.error.is_some()).count() {
            0 => "nothing was gated: see the error above".to_owned(),
            n => format!("{n} of {subjects} could not be gated: fix the reason above and run again"),
        },
    };
    format!("{said} (exit {})", report.exit_code)
}

fn events_where(report: &Report, is: impl Fn(&EventReport) -> bool) -> usize {
    report.subjects.iter().flat_map(|s| &s.events).filter(|e| e.verdict.is_none() && is(e)).count()
}

/// What failed, by subject, and where to start.
fn failed(report: &Report) -> String {
    /// The maximum number of names in the sentence.
    const SHOWN: usize = 3;
    let groups = groups(report);
    let counting: Vec<&Group<'_>> = groups.iter().filter(|group| group.standing == Standing::Counts).collect();
    let mut reasons = Vec::new();
    for subject in &report.subjects {
        let verdicts: Vec<String> =
            mismatches(subject).into_iter().map(|(verdict, events)| format!("{verdict} {}", list(&events))).collect();
        let findings = counting.iter().filter(|group| group.subject == subject.name).count();
        if !verdicts.is_empty() {
            reasons.push(format!("{} is {}", subject.name, list(&verdicts)));
        } else if findings > 0 {
            let word = if findings == 1 { "counts" } else { "count" };
            reasons.push(format!("{}: {} {word}", subject.name, count(findings, "finding")));
        }
    }
    let of = format!("{} of {} failed", reasons.len(), count(report.subjects.len(), "subject"));
    let more = reasons.len().saturating_sub(SHOWN);
    reasons.truncate(SHOWN);
    if more > 0 {
        reasons.push(format!("{more} more"));
    }
    let next = match counting.first() {
        Some(group) => format!("start with the remedy of {}", group.rule),
        None => "correct the deployment, or its `expect`".to_owned(),
    };
    if reasons.is_empty() {
        return format!("{}; {next}", count(counting.len(), "finding"));
    }
    let ungated = report.subjects.iter().filter(|subject| subject.error.is_some()).count();
    if ungated > 0 {
        reasons.push(format!("{ungated} could not be gated"));
    }
    format!("{of}: {}; {next}", reasons.join("; "))
}

/// The unexpected verdicts, each with its events.
fn mismatches(subject: &SubjectReport) -> Vec<(Verdict, Vec<String>)> {
    let mut found: Vec<(Verdict, Vec<String>)> = Vec::new();
    for event in &subject.events {
        let (Some(verdict), Some(false)) = (event.verdict, event.as_it_must_be()) else { continue };
        let known = found.iter_mut().find(|(v, _)| *v == verdict);
        match known {
            Some((_, events)) => events.push(event.event.name().to_owned()),
            None => found.push((verdict, vec![moment(event.event)])),
        }
    }
    found
}

/// The event in the sentence.
fn moment(event: Event) -> String {
    match event {
        Event::Installed => "after installation".to_owned(),
        event => format!("after {event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_probing_made_up_make_no_new_evidence() {
        let line = |name: &str| format!("curl -i -X POST \"$COMFYUI_URL/userdata/lockproof-{name}.js\"  →  200");
        assert!(is_same_but_for_names(&line("h6mmkvym"), &line("4q2an6in")));
        assert!(!is_same_but_for_names(&line("h6mmkvym"), &line("4q2an6in").replace("200", "201")));
        assert!(!is_same_but_for_names(&line("h6mmkvym"), &line("4q2an6in-effect")));
    }
}
